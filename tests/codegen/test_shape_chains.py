"""Lines that only change a shape are joined with the next ones, where nothing else needs them."""

from __future__ import annotations

import pytest

from trtllm_port.codegen.write.shape_chains import join_lines


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        (["x = f(y)", "x = x.view(0, 0, -1)"], ["x = f(y).view(0, 0, -1)"]),
        (["x = x.view(0, 0, -1)", "return self.o_proj(x)"], ["return self.o_proj(x.view(0, 0, -1))"]),
        (["x = x.permute(0, 2, 1).view(0, -1)", "x = f(x, y)"], ["x = f(x.permute(0, 2, 1).view(0, -1), y)"]),
        (["x = f(q)", "q = x.view(0, -1)"], ["q = f(q).view(0, -1)"]),
        (["x = q.view(0, -1)", "q = x.permute(1, 0)", "x = q + q"], ["q = q.view(0, -1).permute(1, 0)", "x = q + q"]),
        (["x = f(q)", "q = x.view(0)", "x = g(", "    q,", ")"], ["q = f(q).view(0)", "x = g(", "    q,", ")"]),
        (["    x = y[..., 0]", "    x = x.transpose(1, 2)"], ["    x = y[..., 0].transpose(1, 2)"]),
    ],
)
def test_they_are_one(lines: list[str], joined: list[str]) -> None:
    assert join_lines(lines) == joined


@pytest.mark.parametrize(
    "lines",
    [
        ["x = f(y)", "x = g(x)"],  # computes
        ["x = x.view(0, -1)", "return f(x) + x"],  # twice
        ["x = f(q)", "q = x.view(0, -1)", "return q + x"],  # and later
        ["x = f(q)", "q = x.view(0, -1)", "x = g(x)"],
        ["x = f(q)", "q = x.view(0, -1)", "x = g(", "    x,", ")"],
        ["x = f(q)", "q = x.view(0, -1)", "for layer in layers:", "    q = layer(q, x)", "x = 3"],
        ["    x = f(q)", "    q = x.view(0, -1)", "return q"],  # perhaps in the next round
        ["x = a + b", "x = x.view(0, -1)"],  # would need brackets
        ["if a:", "    x = f(x)", "x = x.view(0, -1)"],  # not always
        ["x = f(", "    y", ")", "x = x.view(0, -1)"],
        ["x = f(" + "y" * 80 + ")", "x = x.view(0, 0, self.config.hidden_size)"],  # too long
        ["x, y = f(z)", "x = x.view(0, -1)"],
        ["x = f(y)", "(x) = z"],
    ],
)
def test_they_stay_two(lines: list[str]) -> None:
    assert join_lines(lines) == lines
