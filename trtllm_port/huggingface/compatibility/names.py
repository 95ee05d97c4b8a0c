"""Names that older releases of transformers had: what each of them is now, or that nothing takes its place.

As data. `last` is the last release that is known to have had a name.
"""

from __future__ import annotations

from dataclasses import dataclass

from trtllm_port.foundation.words import words


@dataclass(frozen=True)
class OldName:
    """A name of an older release.

    Attributes:
        owner: the module or class that it was in.
        name: the name.
        now: the name that means the same today, as `module.name`; or one of `stand_ins.py`, which begins with a dot.
        last: see above.
    """

    owner: str
    name: str
    now: str
    last: str


_NEW_NAMES: tuple[tuple[str, str, str, str], ...] = (
    # owners, names, what they are now, last release
    ("transformers.utils transformers.utils.generic", "LossKwargs", "transformers.utils.TransformersKwargs", "4.53"),
    ("transformers.utils", "cached_property", "functools.cached_property", "4.53"),
    ("transformers.cache_utils transformers", "HybridCache", "transformers.cache_utils.StaticCache", "4.57"),
    ("transformers.cache_utils transformers", "SlidingWindowCache", "transformers.cache_utils.StaticCache", "4.57"),
    ("transformers.cache_utils", "SlidingWindowLayer", "transformers.cache_utils.StaticSlidingWindowLayer", "4.57"),
    ("transformers.generation.logits_process transformers", "LogitsWarper", "transformers.LogitsProcessor", "4.49"),
    ("transformers.generation.utils", "GreedySearchOutput", "transformers.generation.utils.GenerateOutput", "4.57"),
    ("transformers.generation.utils", "SampleOutput", "transformers.generation.utils.GenerateOutput", "4.57"),
    ("transformers.generation.utils", "BeamSearchOutput", "transformers.generation.utils.GenerateOutput", "4.57"),
    ("transformers.generation.utils", "BeamSampleOutput", "transformers.generation.utils.GenerateOutput", "4.57"),
    ("transformers.generation", "GenerateOutput", "transformers.generation.utils.GenerateOutput", "4.57"),
    ("transformers.generation", "SampleOutput", "transformers.generation.utils.GenerateOutput", "4.57"),
    (
        "transformers.generation",
        "GreedySearchDecoderOnlyOutput SampleDecoderOnlyOutput",
        "transformers.generation.GenerateDecoderOnlyOutput",
        "4.57",
    ),
    ("transformers.generation_utils", "GenerationMixin", "transformers.generation.GenerationMixin", "4.48"),
    (
        "transformers.deepspeed",
        "is_deepspeed_zero3_enabled deepspeed_config HfDeepSpeedConfig",
        "transformers.integrations.deepspeed.*",
        "4.48",
    ),
    ("transformers.utils.fx", "symbolic_trace", ".only_for_other_uses", "4.57"),
    ("transformers.utils.model_parallel_utils", "assert_device_map get_device_map", ".only_for_other_uses", "4.57"),
    ("transformers.modeling_utils", "Conv1D apply_chunking_to_forward", "transformers.pytorch_utils.*", "4.53"),
    ("transformers.modeling_utils", "prune_linear_layer", "transformers.pytorch_utils.*", "4.53"),
    ("transformers.modeling_utils", "no_init_weights", "contextlib.nullcontext", "4.57"),
    (
        "transformers.modeling_utils transformers.pytorch_utils",
        "find_pruneable_heads_and_indices prune_layer prune_conv1d_layer",
        ".only_for_other_uses",
        "4.57",
    ),
    (
        "transformers.utils transformers.utils.import_utils",
        "is_torch_fx_available is_tf_available is_flax_available is_ipex_available is_torchdynamo_available "
        "is_flash_attn_available is_torch_compile_available is_auto_gptq_available is_auto_awq_available",
        ".is_absent",
        "4.57",
    ),
    ("transformers.modeling_flash_attention_utils", "is_flash_attn_greater_or_equal_2_10", ".is_absent", "4.57"),
    (
        "transformers.utils transformers.utils.import_utils",
        "is_safetensors_available is_torch_sdpa_available is_torch_bf16_available is_torch_bf16_cpu_available",
        ".is_there",
        "4.57",
    ),
    ("transformers.utils.generic", "is_tf_available is_flax_available", ".is_absent", "4.57"),
    (
        "transformers.models.llama.modeling_llama",
        "LlamaLinearScalingRotaryEmbedding LlamaDynamicNTKScalingRotaryEmbedding",
        "transformers.models.llama.modeling_llama.LlamaRotaryEmbedding",
        "4.47",
    ),
    (
        "transformers.models.llama.modeling_llama",
        "LlamaFlashAttention2 LlamaSdpaAttention",
        "transformers.models.llama.modeling_llama.LlamaAttention",
        "4.47",
    ),
    ("transformers.modeling_utils.PreTrainedModel", "get_head_mask", ".get_head_mask", "4.57"),
    ("transformers.modeling_utils.PreTrainedModel", "_convert_head_mask_to_5d", ".head_mask_of_layers", "4.57"),
    ("transformers.cache_utils.Cache", "get_usable_length", ".get_usable_length", "4.55"),
    ("transformers.cache_utils.Cache", "get_max_cache_shape", ".get_max_cache_shape", "4.57"),
    ("transformers.cache_utils.Cache", "to_legacy_cache", ".to_legacy_cache", "4.57"),
    ("transformers.cache_utils.DynamicCache", "from_legacy_cache", ".from_legacy_cache", "4.57"),
    ("transformers.cache_utils.Cache", "seen_tokens _seen_tokens", ".seen_tokens", "4.55"),
    ("transformers.cache_utils.Cache", "key_cache", ".key_cache", "4.57"),
    ("transformers.cache_utils.Cache", "value_cache", ".value_cache", "4.57"),
    ("transformers.cache_utils.Cache", "__getitem__", ".pair_of_layer", "4.57"),
)

OLD_NAMES: tuple[OldName, ...] = tuple(
    OldName(owner, name, f"{now[:-1]}{name}" if now.endswith("*") else now, last)
    for owners, names, now, last in _NEW_NAMES
    for owner in owners.split()
    for name in names.split()
)

GONE: dict[str, str] = {
    **dict.fromkeys(
        words("SinkCache OffloadedCache OffloadedStaticCache MambaCache HQQQuantizedCache HybridChunkedCache"), "4.55"
    ),
    **dict.fromkeys(words("BeamSearchScorer BeamScorer DisjunctiveConstraint PhrasalConstraint"), "4.57"),
    **dict.fromkeys(words("SequenceSummary get_parameter_dtype AutoModelWithLMHead is_remote_url"), "4.57"),
    **dict.fromkeys(words("LLAMA_ATTENTION_CLASSES LLAMA_START_DOCSTRING LLAMA_INPUTS_DOCSTRING"), "4.52"),
}
"""Names without a successor, and the last release that had them, for the message."""

MASKS = "create_causal_mask create_sliding_window_causal_mask create_chunked_causal_mask create_masks_for_generate"
OLD_ARGUMENTS: dict[tuple[str, str], dict[str, str | None]] = {
    ("transformers.masking_utils", name): {
        "input_embeds": "inputs_embeds",
        "cache_position": None,
        "past_key_values": "cache",  # until release 5.23
    }
    for name in MASKS.split()
}
"""Module and function → arguments as they were called, until release 4.57 mostly, and what they are called since.

None: they are not asked for. What the installed release takes as it was called stays.
"""
