"""How few layers show every kind."""

from __future__ import annotations

from tests.codegen.conftest import hf_config
from trtllm_port.codegen.depth import Depth, shorten
from trtllm_port.codegen.sizes import config_values


def test_a_list_of_all_layers_by_number_is_cut_with_them() -> None:
    config = hf_config("llama4_text", num_hidden_layers=16)
    values = config_values(config)
    assert values["moe_layers"] == list(range(16))
    short = shorten(values, config, Depth(4))
    assert short["num_hidden_layers"] == 4
    assert short["moe_layers"] == [0, 1, 2, 3]
    assert len(short["layer_types"]) == len(short["no_rope_layers"]) == 4
