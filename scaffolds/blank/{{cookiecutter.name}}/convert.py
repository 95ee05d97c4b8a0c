"""Weights of the {{ cookiecutter.name }} port: what in the checkpoint is not a parameter of equal name."""

from __future__ import annotations

from trtllm_port.layers import WeightMap

# TODO: the exceptions, for example
#     "*.rotary_emb.inv_freq": Drop("computed from the config"),
#     "transformer.h.*.ln.weight": "model.layers.*.input_layernorm.weight",
#     ("*.q.weight", "*.k.weight"): Transform("*.qk.weight", function),
WEIGHT_MAP: WeightMap = {}
