"""What is wrong with codes and scales is said in words, by the weight that they should stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from trtllm_port.layers.quantization import Grid, Rounding, grid_of
from trtllm_port.verification.causes.quantized_laws import IDS, QuantizedPair, quantized_law

NAME = "model.layers.1.mlp.up_proj.weight"
SHAPE, GROUP = (16, 96), 16


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers(algorithm: str = "W4A16", seed: int = 0) -> Grid:
    return grid_of(Rounding(algorithm, GROUP, torch.float32).rounded(drawn(*SHAPE, seed=seed)))


def with_zero_points() -> Grid:
    grid = integers()
    zero = torch.randint(-3, 4, grid.scale.shape, generator=torch.Generator().manual_seed(1))
    return replace(grid, zero_point=zero.float())


def ordered() -> Grid:
    return replace(integers(), permutation=torch.randperm(SHAPE[1], generator=torch.Generator().manual_seed(2)))


def scaled_before() -> Grid:
    return replace(integers(), pre_scale=drawn(SHAPE[1], seed=3).abs() + 0.1)


def float4() -> Grid:
    codes = torch.randint(0, 16, SHAPE, generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    scale = (drawn(SHAPE[0], SHAPE[1] // GROUP, seed=5).abs() + 0.1).to(torch.float8_e4m3fn)
    return Grid("fp4_e2m1", codes, scale, None, torch.tensor(0.01), -1)


CASES: list[tuple[Grid, Callable[[Grid], Grid], str, str]] = [
    (with_zero_points(), lambda g: replace(g, zero_point=g.zero_point * 2), "quantized.zero_point", "other zero"),
    (with_zero_points(), lambda g: replace(g, zero_point=None), "quantized.zero_point.ignored", "lacks"),
    (with_zero_points(), lambda g: replace(g, zero_point=g.zero_point - 1), "quantized.zero_point.one", "off by one"),
    (integers(), lambda g: replace(g, scale=g.scale.roll(1, 0)), "quantized.scale.row", "of the row beside"),
    (integers(), lambda g: replace(g, scale=g.scale.flip(0)), "quantized.scale", "as large as they should be"),
    (integers(), lambda g: replace(g, scale=1 / g.scale), "quantized.scale.inverse", "divided by its scales"),
    (integers("W8A16"), lambda g: replace(g, scale=g.scale.half().float()), "quantized.scale.bfloat16", "to float16"),
    (ordered(), lambda g: replace(g, permutation=None), "quantized.permutation.ignored", "order of their groups"),
    (scaled_before(), lambda g: replace(g, pre_scale=None), "quantized.pre_scale.ignored", "multiplied with"),
    (float4(), lambda g: replace(g, global_scale=None), "quantized.global_scale.ignored", "lacks the scale"),
    (float4(), lambda g: replace(g, global_scale=1 / g.global_scale), "quantized.global_scale.inverse", "divided"),
]


def said(port: Grid, reference: torch.Tensor, **others: Grid) -> tuple[str, str] | None:
    named = ((name.replace("__", "."), grid) for name, grid in others.items())
    law = quantized_law(QuantizedPair(name=NAME, grid=port, reference=reference, others=named))
    return None if law is None else (law.id, law.words)


@pytest.mark.parametrize(("grid", "change", "cause", "words"), CASES, ids=[case[2] for case in CASES])
def test_what_was_done_to_codes_and_scales_is_said(
    grid: Grid, change: Callable[[Grid], Grid], cause: str, words: str
) -> None:
    found = said(change(grid), grid.parameter())
    assert found is not None
    assert found[0] == cause
    assert words in found[1]
    assert found[0] in IDS


def test_scales_of_another_parameter_are_found_with_its_name() -> None:
    grid, other = integers(), integers(seed=9)
    wrong = replace(grid, scale=other.scale)
    beside, before = "model__layers__1__mlp__gate_proj__weight", "model__layers__0__mlp__up_proj__weight"
    sibling, neighbour = (
        said(wrong, grid.parameter(), **{beside: other}),
        said(wrong, grid.parameter(), **{before: other}),
    )
    assert sibling == ("quantized.scale.sibling", "has the scales of `model.layers.1.mlp.gate_proj.weight`")
    assert neighbour is not None
    assert neighbour[0] == "quantized.scale.layer"


def test_a_weight_that_is_not_quantized_is_told_from_wrong_scales() -> None:
    found = said(integers(), drawn(*SHAPE))
    assert found == ("quantized.excluded", "is Hugging Face's rounded to int4, whose weight is not quantized")


def test_other_weights_are_left_to_other_laws() -> None:
    assert said(integers(), drawn(*SHAPE, seed=7)) is None
    assert said(integers(), integers(seed=7).parameter()) is None
    rows = integers("W8A16")  # have no groups that columns could be in the order of
    assert said(replace(rows, codes=rows.codes.roll(1, 1)), rows.parameter()) is None


def test_rounding_of_scales_alone_is_called_so() -> None:
    grid = integers()
    narrow = replace(grid, scale=grid.scale.bfloat16())
    found = said(narrow, grid.parameter().bfloat16())
    assert found is not None
    assert found[0] == "precision.weight"


@pytest.mark.parametrize("grid", [integers(), with_zero_points(), ordered(), scaled_before(), float4()])
def test_right_codes_have_nothing_wrong(grid: Grid) -> None:
    found = said(grid, grid.parameter())
    assert found is not None
    assert found[0] == "precision.weight"
