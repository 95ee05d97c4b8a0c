"""Indexing by masks that are constants: everything, or nothing; modules that are called for none of the tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.ir.nodes import Node
from trtllm_port.codegen.ir.record import Literal, Operation, Value
from trtllm_port.codegen.rules.translation import translate

ALL, NONE, SOME = (Literal(torch.tensor(mask)) for mask in ([True, True], [False, False], [True, False]))


def chosen(source: Value, mask: Literal) -> Node | Value:
    out = Value(source.tensor[mask.tensor])
    return translate(Operation("__getitem__", (source, mask), {}, (out,), None))


def written(target: Value, mask: Literal, source: Value) -> Node | Value:
    out = Value(target.tensor.clone())
    out.tensor[mask.tensor] = source.tensor
    return translate(Operation("__setitem__", (target, mask, source), {}, (out,), None))


def test_a_mask_of_everything_chooses_and_writes_all() -> None:
    x, y = Value(torch.randn(2, 3)), Value(torch.randn(2, 3))
    assert chosen(x, ALL) is x
    assert written(x, ALL, y) is y


def test_a_mask_of_nothing_writes_nothing() -> None:
    x = Value(torch.randn(2, 3))
    assert written(x, NONE, Value(torch.randn(0, 3))) is x


@pytest.mark.parametrize("made", [lambda x: chosen(x, SOME), lambda x: written(x, SOME, Value(torch.randn(1, 3)))])
def test_other_masks_are_not_translated(made: Any) -> None:
    node = made(Value(torch.randn(2, 3)))
    assert isinstance(node, Node)
    assert node.form == "untranslated"


@pytest.mark.slow
def test_the_adapter_of_one_language_of_several() -> None:
    languages = {"languages": ["en_XX", "de_DE"], "default_language": "de_DE"}
    config = transformers.CONFIG_MAPPING["xmod"](is_decoder=True, **languages)
    port = generate_port(config)
    assert "self.adapter_modules.de_DE(" in port.files["model.py"]
    assert "adapter_modules.en_XX" not in port.files["model.py"]
    assert "adapter_modules.en_XX" in port.files["convert.py"]  # dropped
    check = check_port(config, source=port)
    assert check.passed, check
