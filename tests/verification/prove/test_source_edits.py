"""Edits of a port's source by what its code contains."""

from __future__ import annotations

import ast

from trtllm_port.verification.prove.source_edits import (
    DELETE,
    EditSpot,
    attention_classes,
    calls,
    edit,
    with_argument,
    written,
)

SOURCE = """
class Attention(Module):
    def __init__(self, config):
        self.norm = Norm(8, eps=config.eps)

    def forward(self, x):
        if self.rotates:
            x = rotate(x, 1)
        y = rotate(self.norm(x), 2)
        return attention(x, y, scale=self.scale)


class Net(DecoderModelForCausalLM):
    def forward(self, x):
        return self.head(x)
"""


def other_rotation(node: ast.AST, _spot: EditSpot) -> ast.AST | None:
    call = calls(node, "rotate")
    return None if call is None else with_argument(call, 1, "{0} + 1")


def test_the_first_place_that_fits_is_changed_and_described() -> None:
    edited = edit(SOURCE, other_rotation)
    assert edited is not None
    assert (edited.before, edited.after) == ("x = rotate(x, 1)", "x = rotate(x, 1 + 1)")
    assert edited.spot == EditSpot(
        class_name="Attention", function="forward", attribute="", attends=True, layers=False, root=False
    )
    assert "rotate(self.norm(x), 2)" in edited.text


def test_places_can_be_skipped_and_nothing_else_changes() -> None:
    edited = edit(SOURCE, other_rotation, skip=1)
    assert edited is not None
    assert edited.after == "y = rotate(self.norm(x), 2 + 1)"
    assert edited.called == ("norm",)
    assert edited.text == ast.unparse(ast.parse(SOURCE)).replace("(x), 2)", "(x), 2 + 1)") + "\n"
    assert edit(SOURCE, other_rotation, skip=2) is None


def test_a_statement_can_be_deleted() -> None:
    def change(node: ast.AST, _spot: EditSpot) -> ast.AST | None:
        return DELETE if isinstance(node, ast.Assign) and ast.unparse(node).startswith("y =") else None

    edited = edit(SOURCE, change)
    assert edited is not None
    assert edited.after == ""
    assert "y = " not in edited.text
    ast.parse(edited.text)


def test_a_keyword_is_changed_or_added() -> None:
    (statement,) = ast.parse("f(1, a=2)").body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert ast.unparse(with_argument(statement.value, "a", "{0} * 3")) == "f(1, a=2 * 3)"
    assert ast.unparse(with_argument(statement.value, "b", "4")) == "f(1, a=2, b=4)"
    assert ast.unparse(statement) == "f(1, a=2)"
    assert ast.unparse(written("{0} * 2", ast.parse("a + b", mode="eval").body)) == "(a + b) * 2"


def test_classes_that_attend_are_known() -> None:
    assert attention_classes(SOURCE) == ("Attention",)
