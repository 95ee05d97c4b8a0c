"""What expressions are made of, where a config holds another model's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import transformers

from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.atoms import atoms_of
from trtllm_port.codegen.instances import Instance
from trtllm_port.codegen.solver import Solver


def test_sizes_are_those_of_the_model_itself() -> None:
    def instance(size: int) -> Any:
        values = {"vision_config": {"hidden_size": size}, "hidden_size": size}
        sample = SimpleNamespace(values=values, config=SimpleNamespace(sub_configs={"vision_config": object}))
        return SimpleNamespace(trace=SimpleNamespace(sample=sample), layer_idx=None)

    found = Solver(atoms_of(cast("list[Instance]", [instance(8), instance(12)]))).solve((8, 12))
    assert found is not None
    assert found.text == "config.hidden_size"


@pytest.mark.slow
def test_a_model_with_images_as_one_of_text() -> None:
    config = transformers.GitConfig()
    port = generate_port(config)
    assert "vision_config" not in port.files["model.py"]
    check = check_port(config, source=port)
    assert check.passed, check
