"""Sizes that a class uses again and again get HF's name, where that makes the class shorter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from trtllm_port.codegen.write.common_subexpressions import SubexpressionNames

HIDDEN, HEADS, HEAD_DIM = (64, 192), (4, 8), (24, 32)
SYMBOLS = {
    "config.hidden_size": HIDDEN,
    "config.num_attention_heads": HEADS,
    "config.head_dim": HEAD_DIM,
    "config.window": (None, 8),
    "config.heads[layer_idx]": (6, 10),
}
INIT = "def __init__(self, config: Config, layer_idx: int) -> None:"
FORWARD = "def forward(self, x: Tensor) -> Tensor:"


def written(statements: list[str], forward: list[str], **attributes: Any) -> tuple[list[str], list[str]]:
    """The statements of both methods, of a class whose HF counterpart has these attributes."""
    scope: Any = SimpleNamespace(
        symbols=SYMBOLS, found_attributes=attributes, instances=(0, 1), attributes={}, from_config=True
    )
    head = ["super().__init__()", "self.config = config", "self.layer_idx = layer_idx"]
    init = [INIT, *(f"    {line}" for line in (*head, *statements))]
    made = SubexpressionNames(scope).write(init, [FORWARD, *(f"    {line}" for line in forward)])
    return [line[4:] for line in made[0][1:]], [line[4:] for line in made[1][1:]]


def test_size_is_set_once_and_used_by_name() -> None:
    init, forward = written(
        ["self.scaling = config.head_dim**-0.5", "self.q = Linear(config.hidden_size, 4 * config.head_dim)"],
        ["x = self.q(x).view(0, 0, -1, self.config.head_dim)", "return x[self.layer_idx, : self.config.head_dim]"],
        head_dim=HEAD_DIM,
        scaling=(1.0, 2.0),
    )
    assert init == [
        "super().__init__()",
        "self.layer_idx = layer_idx",
        "self.head_dim = config.head_dim",
        "self.scaling = self.head_dim**-0.5",
        "self.q = Linear(config.hidden_size, 4 * self.head_dim)",
    ]
    assert forward == ["x = self.q(x).view(0, 0, -1, self.head_dim)", "return x[self.layer_idx, : self.head_dim]"]


def test_a_product_gets_its_name_and_loses_its_parentheses() -> None:
    product = "config.num_attention_heads * config.head_dim"
    init, _ = written(
        [f"self.{name} = Linear(3 * ({product}), {product})" for name in "qkv"],
        ["return x"],
        inner=tuple(a * b for a, b in zip(HEADS, HEAD_DIM, strict=True)),
    )
    assert init[1:] == [f"self.inner = {product}", *(f"self.{n} = Linear(3 * self.inner, self.inner)" for n in "qkv")]


def test_no_name_where_it_saves_nothing() -> None:
    statements = ["self.q = Linear(config.hidden_size, config.head_dim)"]
    forward = ["return self.q(x)"]
    init, _ = written(statements, forward, hidden_size=HIDDEN, head_dim=HEAD_DIM)
    assert init[1:] == statements


def test_nothing_is_computed_earlier_than_its_condition_allows() -> None:
    product = "config.num_attention_heads * config.head_dim"
    statements = [
        "if config.window is not None:",
        *(f"    self.{name} = Linear({product}, {product})" for name in "qkv"),
    ]
    width = tuple(a * b for a, b in zip(HEADS, HEAD_DIM, strict=True))
    assert written(statements, ["return x"], inner=width)[0][1:] == statements


def test_the_layer_of_a_loop_is_another_one() -> None:
    statements = [
        "self.all = ModuleList(Layer(config.heads[layer_idx], config.heads[layer_idx]) for layer_idx in range(3))"
    ]
    forward = [
        "for layer_idx, one in enumerate(self.all):",
        "    x = one(x, self.config.heads[layer_idx])",
        *("x = x * self.config.heads[self.layer_idx]",) * 3,
    ]
    init, made = written(statements, forward, num_heads=SYMBOLS["config.heads[layer_idx]"])
    assert statements[0] in init
    assert made == [*forward[:2], *("x = x * self.num_heads",) * 3]
