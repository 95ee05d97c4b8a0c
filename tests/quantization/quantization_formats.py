"""The columns of the table: formats with their configs and packers; the rows: architectures at a tiny size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from quantization_packers import (
    PLAINLY,
    Packer,
    by_compressed_tensors,
    by_modelopt,
    float8_rows,
    installed,
    modelopt_float4,
    modelopt_float8,
    modelopt_int4,
    packed_float4,
    packed_int4,
)

from tests.quantized_models import awq, fp8, gptq, mxfp4
from trtllm_port.layers.quantization import QuantizeOptions

GROUP, BLOCK = 64, 128
#: Linear weights of layers: everything but embeddings, head and routers.
PROJECTIONS = r".*layers\..*(_proj|_with_mqa|\.w[123])\.weight"
STACKED_EXPERTS = r".*\.experts\.(gate_up|down)_proj"
LEFT = {"globs": ["lm_head", "*.gate"], "expressions": ["lm_head", r"re:.*\.gate$"], "names": ["lm_head", ".gate"]}
SIZES: dict[str, Any] = dict(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=512,
)
EXPERTS: dict[str, Any] = dict(num_experts_per_tok=2, num_local_experts=4, intermediate_size=128)
LATENT: dict[str, Any] = dict(
    num_key_value_heads=4, q_lora_rank=128, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=32, v_head_dim=64
)
#: name → model type, and what its config class is given
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", SIZES),
    "Qwen3": ("qwen3", SIZES),
    "Gemma2": ("gemma2", SIZES | {"query_pre_attn_scalar": 64, "sliding_window": 64}),
    "Mixtral": ("mixtral", SIZES | EXPERTS),
    "DeepSeek-V3": (
        "deepseek_v3",
        {key: value for key, value in SIZES.items() if key != "head_dim"}
        | LATENT
        | {"moe_intermediate_size": 128, "n_routed_experts": 8, "n_group": 2, "topk_group": 1}
        | {"num_experts_per_tok": 2, "first_k_dense_replace": 1},
    ),
    "gpt-oss": ("gpt_oss", SIZES | EXPERTS | {"sliding_window": 64}),
}


@dataclass(frozen=True, kw_only=True)
class Format:
    """A column.

    Attributes:
        config: the `quantization_config`; None: the conversion quantizes a plain model.
        pack: makes the tensors of a weight plainly.
        by_library: the name of the library that defines the format, and its packer; None: there is none here.
        own: how the conversion quantizes.
        which: names of the weights that are packed.
        file: a file beside `config.json` that says it instead.
    """

    config: Mapping[str, Any] | None = None
    pack: Packer | None = None
    by_library: tuple[str, Packer] | None = None
    own: QuantizeOptions | None = None
    which: str = PROJECTIONS
    only: tuple[str, ...] = ()
    file: str = ""
    without: tuple[str, ...] = field(default=("gpt-oss",))

    def exists(self, architecture: str) -> bool:
        """Whether there are such checkpoints of an architecture: stacked experts are packed by few."""
        return architecture in self.only if self.only else architecture not in self.without

    @property
    def packer(self) -> tuple[str, Packer]:
        """Who packs, and how."""
        if self.by_library is not None and installed(self.by_library[0].replace("-", "_")):
            return self.by_library
        if self.pack is None:
            raise ValueError("nothing is packed")
        return PLAINLY, self.pack


def _compressed(form: str, weights: dict[str, Any], inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"symmetric": True, "dynamic": False, **weights}}
    if inputs is not None:
        group["input_activations"] = {"symmetric": True, **inputs}
    return {
        **{"quant_method": "compressed-tensors", "format": form, "ignore": LEFT["expressions"]},
        "config_groups": {"group_0": group},
    }


def _modelopt(algorithm: str, **more: Any) -> dict[str, Any]:
    fields = {"quant_algo": algorithm, "kv_cache_quant_algo": None, "exclude_modules": LEFT["globs"], **more}
    return {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": fields}


_INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP}
_FP8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
_TOKEN = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
_FP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
_MODELOPT_FILE = "hf_quant_config.json"
FORMATS: dict[str, Format] = {
    "W4A16": Format(own=QuantizeOptions(algorithm="W4A16", group_size=GROUP), without=()),
    "W8A16": Format(own=QuantizeOptions(algorithm="W8A16"), without=()),
    "FP8": Format(own=QuantizeOptions(algorithm="FP8"), without=()),
    "W8A8": Format(own=QuantizeOptions(algorithm="W8A8"), without=()),
    "fp8 blocks": Format(
        config={
            **{"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"},
            "modules_to_not_convert": LEFT["names"],
        },
        pack=partial(fp8, block=BLOCK),
    ),
    "gptq": Format(
        config={"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True, "sym": False},
        pack=partial(gptq, group=GROUP, own_order=True),
    ),
    "awq": Format(
        config={
            **{"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
            "modules_to_not_convert": LEFT["names"],
        },
        pack=partial(awq, group=GROUP),
    ),
    "ct W4A16": Format(
        config=_compressed("pack-quantized", _INT4),
        pack=partial(packed_int4, group=GROUP),
        by_library=("compressed-tensors", by_compressed_tensors("W4A16", GROUP)),
    ),
    "ct FP8": Format(
        config=_compressed("float-quantized", _FP8, _TOKEN),
        pack=float8_rows,
        by_library=("compressed-tensors", by_compressed_tensors("FP8_DYNAMIC")),
    ),
    "ct NVFP4": Format(
        config=_compressed("nvfp4-pack-quantized", _FP4, {**_FP4, "dynamic": "local"}),
        pack=packed_float4,
        by_library=("compressed-tensors", by_compressed_tensors("NVFP4")),
    ),
    "mxfp4": Format(
        config={"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]},
        pack=mxfp4,
        which=STACKED_EXPERTS,
        only=("gpt-oss",),
    ),
    "modelopt FP8": Format(
        config=_modelopt("FP8"), pack=modelopt_float8, by_library=("modelopt", by_modelopt("FP8")), file=_MODELOPT_FILE
    ),
    "modelopt NVFP4": Format(
        config=_modelopt("NVFP4", group_size=16),
        pack=modelopt_float4,
        by_library=("modelopt", by_modelopt("NVFP4")),
        file=_MODELOPT_FILE,
    ),
    "modelopt INT4 AWQ": Format(
        config=_modelopt("W4A16_AWQ", group_size=GROUP),
        pack=partial(modelopt_int4, group=GROUP),
        by_library=("modelopt", by_modelopt("W4A16_AWQ", GROUP)),
        file=_MODELOPT_FILE,
    ),
}
