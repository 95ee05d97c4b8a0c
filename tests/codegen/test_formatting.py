"""Lines as the project's formatter leaves them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trtllm_port.codegen.formatting import literal, split_arguments, wrap


@pytest.mark.parametrize(
    "line",
    [
        "x = short(a, b)",
        "x = self.projection(states).view("
        + ", ".join(f"self.config.size_{i}" for i in range(6))
        + ").transpose(1, 2)",
        "x = mask.unsqueeze(-1).expand(-1, -1, self.config.experts // 2).view(-1, self.config.number_of_experts)",
        "x = function_with_a_long_name(" + ", ".join(f"argument_number_{i}" for i in range(6)) + ")",
        "x = function_with_a_long_name(" + ", ".join(f"argument_number_{i}=[{i}, {i}]" for i in range(9)) + ")",
        "self.mlp = " + "A" * 50 + "(config) if config.layers[layer_idx] == 3 else " + "B" * 20 + "(config)",
        "self.mlp = " + "A" * 60 + "(config) if config.layers[layer_idx] == 3 else " + "B" * 40 + "(config)",
        "self.layers = ModuleList(" + "A" * 50 + "(config, layer_idx) for layer_idx in range(config.number_of_layers))",
        "self.layers = List(" + "A" * 70 + "(config, layer_idx) for layer_idx in range(config.number_of_layers))",
        "self.layers = List("
        + "A" * 50
        + "(config) if config.kinds[layer_idx] == 1 else "
        + "B" * 50
        + "(config) for layer_idx in range(config.number_of_layers))",
        "raise Error(" + repr("a text, with (brackets, and commas " * 2).replace("'", '"') + ", " + "b" * 50 + ")",
        "x = " + " + ".join(f"self.config.size_{i} * y" for i in range(5)) + " / scale",
        "return " + " - ".join(f"self.config.size_{i} * y" for i in range(7)),
        "return " + " * ".join(f"self.config.size_{i} ** y[0]" for i in range(7)) + " * y",
        "x = function_with_a_long_name(" + ", ".join(f"argument_number_{i}" for i in range(4)) + ").to(data_type_of_x)",
        "mapping = {" + ", ".join(f'"key_number_{i}": function(first, second)' for i in range(5)) + "}",
    ],
)
def test_wrap_is_the_formatters(line: str) -> None:
    text = "\n".join(wrap(line, 0)) + "\n"
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    command = [sys.executable, "-m", "ruff", "format", "--config", str(pyproject), "-"]
    run = subprocess.run(command, input=line + "\n", capture_output=True, text=True, check=True)
    assert text == run.stdout


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


def test_a_sum_in_brackets_stays_one_number() -> None:
    terms = " + ".join(f"function_{i}(argument)" for i in range(9))
    lines = wrap(f"x = y * ({terms})", 8)
    assert len(lines) > 1
    names = {f"function_{i}": lambda argument: argument for i in range(9)}
    scope: dict[str, Any] = {"y": 2, "argument": 1, **names}
    exec("\n".join(lines), scope)
    assert scope["x"] == 18


def test_split_arguments() -> None:
    assert split_arguments("a, f(b, c), [d, e], {f: g}") == ["a", "f(b, c)", "[d, e]", "{f: g}"]


def test_a_choice_among_arguments_has_lines_of_its_own() -> None:
    one, other = "config." + "a" * 50, "config." + "b" * 50
    assert wrap(f"x = f(1, {one} if c else {other})", 8) == [
        "x = f(",
        "    1,",
        f"    {one}",
        "    if c",
        f"    else {other},",
        ")",
    ]
