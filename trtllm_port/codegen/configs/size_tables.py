"""The sizes of tracing configurations, by the names that configs give them: one column for each configuration.

Columns 0 to 3 are traced, the last one is kept for the check of the finished port. Numbers that a model may treat alike
differ in at least one column.
"""

from __future__ import annotations

from trtllm_port.foundation.words import words

_HEADS = (4, 8, 12, 8, 20)  # multiples of 4: some checkpoints are cut into four
_KEY_VALUE_HEADS = (2, 2, 6, 4, 10)
_HIDDEN = (64, 192, 240, 256, 320)  # a multiple of the heads
_HEAD_DIM = (24, 32, 40, 16, 48)  # differs from hidden / heads; TensorRT has a fused kernel for the last
_VOCABULARY = (101, 131, 163, 193, 211)
_EXPERTS = (16, 24, 32, 40, 48)  # room for any top-k; divisible into eight groups

_COLUMNS: dict[str, tuple[int | float, ...]] = {
    "hidden_size d_model n_embd dim embedding_dim": _HIDDEN,
    "embedding_size word_embed_proj_dim": (48, 80, 96, 112, 128),
    "pronunciation_embed_dim": (12, 20, 8, 24, 28),
    "shape_embed_dim": (10, 14, 18, 22, 26),
    "prompt_length": (3, 4, 5, 6, 7),
    "prompt_types": (8, 10, 12, 9, 11),
    "intermediate_size ffn_dim d_ff dff ffn_hidden_size n_inner decoder_ffn_dim intermediate": (88, 136, 168, 104, 152),
    "intermediate_size_mlp dense_intermediate_size": (96, 120, 152, 88, 136),
    "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads num_q_heads": _HEADS,
    "num_attention_heads_per_layer": (6, 4, 18, 12, 30),  # other ones than `num_attention_heads`, for the same keys
    "num_key_value_heads num_kv_heads n_head_kv n_kv_head n_kv_heads kv_n_heads": _KEY_VALUE_HEADS,
    "multi_query_group_num": _KEY_VALUE_HEADS,
    "head_dim attention_head_size d_head dim_head kv_channels": _HEAD_DIM,
    "swa_num_attention_heads": (6, 4, 18, 12, 30),  # of layers with a window
    "swa_num_key_value_heads": (3, 2, 6, 4, 10),
    "swa_head_dim": (16, 24, 12, 20, 32),
    "d_rel": (6, 10, 8, 12, 14),
    "rel_extent": (9, 30, 12, 40, 60),  # fewer than the slots of a trace, and more
    "rotary_dim": (8, 12, 16, 6, 10),
    "partial_rotary_factor rotary_pct rope_pct": (0.25, 0.75, 0.4, 0.5, 0.5),
    "vocab_size": _VOCABULARY,
    "vocab_size_per_layer_input": (107, 139, 167, 197, 223),  # not less: every token is looked up there, too
    "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions context_length model_max_length "
    "sequence_len": (
        *(96, 120, 144, 80),
        640,
    ),
    "sliding_window sliding_window_size window_size attention_window_size": (5, 7, 6, 9, 100),
    "attention_chunk_size local_attention": (7, 5, 8, 6, 90),
    "num_experts n_routed_experts num_local_experts moe_num_experts": _EXPERTS,
    "zero_expert_num": (8, 12, 4, 20, 16),
    "moe_intermediate_size expert_ffn_hidden_size": (40, 56, 48, 72, 64),
    "shared_expert_intermediate_size shared_intermediate_size moe_shared_expert_intermediate_size": (
        *(56, 40, 72, 48),
        80,
    ),
    "q_lora_rank": (48, 40, 56, 32, 64),
    "kv_lora_rank": (32, 56, 40, 48, 72),
    "qk_nope_head_dim": (16, 24, 32, 20, 48),
    "qk_rope_head_dim": (8, 16, 12, 24, 16),
    "v_head_dim": (24, 16, 20, 32, 64),
    "index_topk": (6, 30, 9, 12, 40),  # fewer than the slots of a trace, and more
    "index_head_dim": (40, 28, 32, 36, 56),
    "index_n_heads": (8, 6, 10, 12, 16),
    "hidden_size_per_layer_input": (16, 24, 12, 20, 32),
    "mamba_n_heads mamba_num_heads n_mamba_heads": (8, 16, 24, 8, 40),  # divide twice the hidden size, into 8 groups
    "mamba_head_dim": (24, 20, 12, 28, 16),
    "mamba_d_ssm": (96, 160, 336, 144, 360),  # a multiple of the heads above
    "mamba_d_state ssm_state_size state_size": (16, 24, 8, 20, 32),
    "chunk_size mamba_chunk_size": (8, 16, 12, 24, 32),
    "linear_num_key_heads": (2, 4, 3, 2, 5),
    "linear_num_value_heads": (4, 8, 9, 6, 10),
    "linear_key_head_dim": (16, 24, 12, 20, 32),
    "linear_value_head_dim": (24, 16, 20, 12, 48),
    "linear_num_heads": (2, 4, 3, 2, 5),
    "linear_head_dim": (16, 24, 12, 20, 32),
}
SIZES: dict[str, tuple[int | float, ...]] = {
    name: column for names, column in _COLUMNS.items() for name in names.split()
}

PROJECTED = (  # of the hidden size, where nothing leads from one to the other
    *("attention_hidden_size", "embedding_size", "word_embed_proj_dim"),
)
DECODER_COUNTS = ("decoder_layers", "num_decoder_layers")  # of configs that count an encoder's layers, too
LAYER_COUNTS = (*DECODER_COUNTS, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
ENCODER_COUNTS = ("encoder_layers", "num_encoder_layers", "num_hidden_layers")
SPECIAL_TOKENS = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 3,
    "decoder_start_token_id": 1,
}

# Keys of every config that say how a model is stored, named, trained or called, not what it computes.
META_KEYS = words(
    "transformers_version architectures model_type _name_or_path name_or_path dtype torch_dtype auto_map "
    "quantization_config _attn_implementation attn_implementation _experts_implementation id2label label2id "
    "problem_type num_labels return_dict output_hidden_states output_attentions chunk_size_feed_forward use_cache "
    "is_encoder_decoder task_specific_params finetuning_task tokenizer_class prefix custom_pipelines "
    "cache_implementation"
)
