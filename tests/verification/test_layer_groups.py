from __future__ import annotations

from trtllm_port.verification.taps.layer_groups import group_across_layers, name_a_few


def test_the_same_module_of_several_layers_is_one_group() -> None:
    modules = ["model.layers.0.mlp", "model.norm", "model.layers.11.mlp", "model.layers.1", "model.layers.2"]
    assert group_across_layers(modules) == [[0, 2], [1], [3, 4]]
    assert group_across_layers(["experts.0.w1", "experts.3.w1", "w1"]) == [[0, 1], [2]]


def test_a_few_are_named() -> None:
    assert name_a_few(["a", "b"]) == "a, b"
    assert name_a_few(list("abcde")) == "a, b, c and 2 more"
