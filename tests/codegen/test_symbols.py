"""What expressions are made of, where a config holds another model's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import transformers

from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.ir.nodes import Instance
from trtllm_port.codegen.solve.solver import Solver
from trtllm_port.codegen.solve.symbols import numbers_of_kinds, symbols_of


def test_sizes_are_those_of_the_model_itself() -> None:
    def instance(size: int) -> Any:
        values = {"vision_config": {"hidden_size": size}, "hidden_size": size}
        sample = SimpleNamespace(values=values, config=SimpleNamespace(sub_configs={"vision_config": object}))
        return SimpleNamespace(trace=SimpleNamespace(sample=sample), layer_idx=None)

    found = Solver(symbols_of(cast("list[Instance]", [instance(8), instance(12)]))).solve((8, 12))
    assert found is not None
    assert found.text == "config.hidden_size"


@pytest.mark.slow
def test_a_model_with_images_as_one_of_text() -> None:
    config = transformers.GitConfig()
    port = generate_port(config)
    assert "vision_config" not in port.files["model.py"]
    check = check_port(config, source=port)
    assert check.passed, check


KINDS = ["sliding", "full", "sliding", "full"]


def _evaluated(text: str, values: dict[str, Any]) -> Any:
    return eval(text.replace("config.", "c."), {"c": type("Config", (), values)})


def test_what_all_layers_of_a_kind_have_is_an_expression() -> None:
    configs = [{"layer_types": KINDS, "head_dim": [8, size, 8, size], "vocab": [1]} for size in (16, 24)]
    found = numbers_of_kinds(configs)
    assert sorted(set(found.values())) == [(8, 8), (16, 24)]
    for text, values in found.items():
        assert tuple(_evaluated(text, config) for config in configs) == values


def test_layers_of_a_kind_that_differ_have_no_number_in_common() -> None:
    assert set(numbers_of_kinds([{"layer_types": KINDS, "head_dim": [8, 16, 9, 16]}]).values()) == {(16,)}
