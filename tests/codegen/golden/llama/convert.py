"""Llama: from Hugging Face's tensors to the port's parameters.

The parameters have the names that `LlamaForCausalLM` gives them; only exceptions are listed.
"""

from __future__ import annotations

from trtllm_port.layers import Drop, WeightMap

WEIGHT_MAP: WeightMap = {
    "*.rotary_emb.inv_freq": Drop("computed from the config"),
}
