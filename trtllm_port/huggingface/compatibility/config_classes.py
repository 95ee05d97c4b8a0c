"""Config classes that were written for older releases: keys that every config had, and the old spelling of rope."""

from __future__ import annotations

from typing import Any

KEYS: dict[str, Any] = {
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "sep_token_id": None,
    "decoder_start_token_id": None,
    "is_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "use_cache": True,
    "torchscript": False,
    "use_bfloat16": False,
    "pruned_heads": {},
    "gradient_checkpointing": False,
    "finetuning_task": None,
    "prefix": None,
    "tokenizer_class": None,
}
"""What configs had without asking until release 4.57, and its value; parameters of generation as well."""

SPELLINGS = {"rope_scaling": "rope_parameters"}
"""Dicts as they were spelled: the key that holds such a dict's entries now, under their own names."""


def prepare_config_class(kind: type[Any]) -> None:
    """Give a config class of a model's own what all configs had. In place."""
    from transformers import GenerationConfig

    for key, value in {**GenerationConfig._get_default_generation_params(), **KEYS}.items():
        if not hasattr(kind, key):
            setattr(kind, key, value)
    if "rope_scaling" not in vars(kind):
        kind.rope_scaling = property(_rope_scaling, _set_rope_scaling)
    kind._get_generation_parameters = _generation_parameters


def _generation_parameters(self: Any) -> dict[str, Any]:
    """Those that the config itself has: transformers refuses to save one that has any."""
    from transformers import PreTrainedConfig

    found = PreTrainedConfig._get_generation_parameters(self)
    return {key: value for key, value in found.items() if key in vars(self)}


def _rope_scaling(self: Any) -> dict[str, Any] | None:
    """Rope parameters as they were spelled: None where nothing is scaled, else with `type` beside `rope_type`."""
    parameters = getattr(self, "rope_parameters", None)
    if not parameters:
        return None
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    rest = {key: value for key, value in parameters.items() if key not in ("rope_theta", "partial_rotary_factor")}
    if kind == "default" and rest.keys() <= {"type", "rope_type"}:
        return None
    return {**rest, "type": kind, "rope_type": kind}


def _set_rope_scaling(self: Any, value: dict[str, Any] | None) -> None:
    self.rope_parameters = None if value is None else dict(value)
    if value is not None and getattr(self, "_post_init_done", False):
        self.standardize_rope_params()
