"""How a tensor comes from another one is said in words, and only if it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trtllm_port.verification.causes.weight_laws import ParameterPair, law_of, same_bits

NAME = "layers.1.attn.q_proj.weight"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def said(port: Tensor, reference: Tensor, name: str = NAME, **others: Tensor) -> tuple[str, str]:
    others = {key.replace("__", "."): value for key, value in others.items()}
    law = law_of(ParameterPair(name=name, port=port, reference=reference, others=others.items()))
    return law.id, law.words


def part(change: Callable[[Tensor], Tensor], *index: int) -> Callable[[Tensor], Tensor]:
    def changed(x: Tensor) -> Tensor:
        x = x.clone()
        x[index] = change(x[index])
        return x

    return changed


MATRIX, VECTOR, EXPERTS = drawn(8, 8), drawn(16).abs() + 0.5, drawn(5, 6, 4)
CASES: list[tuple[Tensor, Callable[[Tensor], Tensor], str, str, str]] = [
    (MATRIX, lambda w: w.T, NAME, "weight.transposed", "is Hugging Face's transposed"),
    (MATRIX, lambda w: w.flip(0), NAME, "weight.permuted", "rows in another order: reversed"),
    (MATRIX, lambda w: w.roll(-1, 1), NAME, "weight.permuted", "columns in another order: shifted by 1"),
    (MATRIX, lambda w: w[:, [4, 5, 6, 7, 0, 1, 2, 3]], NAME, "weight.permuted", "shifted by 4"),
    (MATRIX, lambda w: w[[6, 7, 4, 5, 2, 3, 0, 1]], NAME, "weight.permuted", "blocks of 2 in the order 3 2 1 0"),
    (MATRIX, lambda w: 0.25 * w, NAME, "weight.scale", "is 0.25 times Hugging Face's"),
    (MATRIX, lambda w: -w, NAME, "weight.scale", "is -1 times"),
    (MATRIX, lambda w: w * VECTOR[:8, None], NAME, "weight.scale", "each of its rows times its own factor"),
    (MATRIX, lambda w: w.bfloat16().float(), NAME, "precision.weight", "rounded to bfloat16"),
    (MATRIX, torch.zeros_like, NAME, "weight.values", "is all zeros"),
    (MATRIX, lambda w: w + drawn(8, 8, seed=1), NAME, "weight.values", "has other values"),
    (MATRIX, part(torch.zeros_like, 7), NAME, "weight.values", "differs in rows 7 only: there it is all zeros"),
    (MATRIX, lambda w: w.masked_fill(w > 1, float("nan")), NAME, "weight.values", "not finite"),
    (VECTOR, torch.zeros_like, "norm.bias", "bias.left_out", "is all zeros"),
    (VECTOR, torch.ones_like, "norm.weight", "norm.gain_left_out", "is all ones"),
    (VECTOR, lambda w: 1 + w, "norm.weight", "norm.gain_offset", "is 1 + Hugging Face's"),
    (VECTOR, lambda w: -w.exp(), "mixer.A_log", "weight.values", "is -exp of Hugging Face's"),
    (
        EXPERTS,
        lambda w: w.flip(0),
        "experts.down_proj",
        "weight.permuted",
        "along dimension 0 in another order: reversed",
    ),
    (
        EXPERTS,
        part(lambda _: EXPERTS[0], 3),
        "experts.down_proj",
        "weight.permuted",
        "at 3 only: there it has what belongs at 0",
    ),
    (EXPERTS, part(lambda x: 2 * x, 3), "experts.down_proj", "weight.scale", "at 3 only: there it is 2 times"),
    (
        EXPERTS,
        lambda w: torch.cat(w.chunk(2, 1)[::-1], 1),
        "experts.gate_up",
        "weight.permuted",
        "dimension 1 in another order",
    ),
    (EXPERTS, lambda w: torch.stack([w[1], w[0], *w[2:]]), "experts.gate_up", "weight.permuted", "at 0 1 only"),
]


@pytest.mark.parametrize(("reference", "change", "name", "cause", "words"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_law_is_told(
    reference: Tensor, change: Callable[[Tensor], Tensor], name: str, cause: str, words: str, dtype: torch.dtype
) -> None:
    if dtype is torch.bfloat16 and cause == "precision.weight":
        pytest.skip("nothing is lost")
    found = said(change(reference.to(dtype)).to(dtype), reference.to(dtype), name)
    assert found[0] == cause
    assert words in found[1]


def test_another_parameter_is_named() -> None:
    other = drawn(8, 8, seed=1)
    assert said(other, MATRIX, layers__0__attn__q_proj__weight=other) == (
        "weight.neighbour",
        "is Hugging Face's `layers.0.attn.q_proj.weight`, of another layer",
    )
    assert said(other, MATRIX, layers__1__attn__k_proj__weight=other)[0] == "weight.swapped"
    assert said(other, MATRIX, "lm_head.weight", embed__weight=other)[0] == "weight.tied"


def test_bits_are_compared_in_the_coarser_data_type() -> None:
    assert same_bits(MATRIX.bfloat16(), MATRIX.double())
    assert same_bits(MATRIX, MATRIX.bfloat16())
    assert not same_bits(MATRIX, MATRIX.nextafter(torch.tensor(9.0)))


@given(rows=st.integers(2, 12), columns=st.integers(2, 6), seed=st.integers(0, 5), data=st.data())
def test_any_order_of_rows_is_an_order_of_rows(rows: int, columns: int, seed: int, data: st.DataObject) -> None:
    reference = drawn(rows, columns, seed=seed)
    order = data.draw(st.permutations(range(rows)).filter(lambda order: order != list(range(rows))))
    found = said(reference[order], reference)
    assert found[0] == "weight.permuted"
    moved = [index for index in range(rows) if order[index] != index]
    if len(moved) <= rows / 2:
        assert f"differs in rows {' '.join(map(str, moved[:4]))}" in found[1]
