"""Texts of generated Python."""

from __future__ import annotations

from typing import Any

import pytest

from trtllm_port.codegen.ir.formatting import formatted
from trtllm_port.errors import PortError
from trtllm_port.foundation.quoting import literal


def test_a_long_statement_is_wrapped() -> None:
    terms = " + ".join(f"function_{i}(argument)" for i in range(9))
    text = formatted(f"x = y * ({terms})")
    assert max(map(len, text.splitlines())) <= 120
    assert text.startswith("x = y * (\n")


def test_what_is_no_python_is_refused() -> None:
    with pytest.raises(PortError, match="the generated file cannot be formatted"):
        formatted("x = (")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", '"a"'),
        (1e-6, "1e-06"),
        (float("-inf"), 'float("-inf")'),
        (True, "True"),
        ((1,), "(1,)"),
        ({"a": [1, None]}, '{"a": [1, None]}'),
    ],
)
def test_literal(value: Any, text: str) -> None:
    assert literal(value) == text
