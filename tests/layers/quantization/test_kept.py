"""Codes and scales go the way of the weights: whatever a weight map does, what they stand for is what it makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from trtllm_port.layers.definition.quantized import WeightFormat
from trtllm_port.layers.quantization import CannotKeepError, CheckpointWeights, QuantizedWeight, kept, tensors_of
from trtllm_port.layers.weights import (
    Chunk,
    Concat,
    MappingWeights,
    ParameterSpec,
    Stack,
    Step,
    Transpose,
    WeightEntry,
    WeightPlan,
)

ROWS, COLUMNS, GROUP = 24, 64, 16


def make(kind: str, seed: int, **changes: Any) -> QuantizedWeight:
    """A weight [24, 64] in groups of 16."""
    generator = torch.Generator().manual_seed(seed)
    codes = {
        "int4": lambda: torch.randint(-8, 8, (ROWS, COLUMNS), generator=generator, dtype=torch.int8),
        "int8": lambda: torch.randint(-128, 128, (ROWS, COLUMNS), generator=generator, dtype=torch.int8),
        "fp8_e4m3": lambda: torch.randn(ROWS, COLUMNS, generator=generator).to(torch.float8_e4m3fn),
        "fp4_e2m1": lambda: torch.randint(0, 16, (ROWS, COLUMNS), generator=generator, dtype=torch.uint8),
    }[kind]()
    block = changes.pop("block", (1, GROUP))
    shape = (-(-ROWS // block[0]), -(-COLUMNS // block[1]))
    scale = torch.rand(shape, generator=generator) + 0.1
    return QuantizedWeight(kind=kind, codes=codes, block=block, scale=scale, **changes)  # type: ignore[arg-type]


def stands_for(entry: WeightEntry, weights: Sequence[QuantizedWeight], config: Any = None) -> dict[str, torch.Tensor]:
    """What is made of what the weights stand for."""
    plain = {name: weight.parameter() for name, weight in zip(entry.sources, weights, strict=True)}
    specs = {name: ParameterSpec((0,), "float32") for name in entry.targets}
    made = WeightPlan((entry,), {}, specs, config)
    tensors = made_of(made, entry, plain)
    return dict(zip(entry.targets, tensors, strict=True))


def made_of(plan: WeightPlan, entry: WeightEntry, plain: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    from trtllm_port.layers.weights.plan import _outputs

    return _outputs(plan.config, entry, [plain[name] for name in entry.sources])


def keep(
    entry: WeightEntry, weights: Sequence[QuantizedWeight], cut: tuple[int, int, int] | None = None
) -> dict[str, torch.Tensor]:
    """The same by way of codes and scales; `cut`: axis, start and size of a part."""
    expected = stands_for(entry, weights)
    specs = {name: ParameterSpec(tuple(tensor.shape), "float32") for name, tensor in expected.items()}
    formats: dict[str, WeightFormat] = {}
    stored: dict[str, torch.Tensor] = {}
    for name, grid in kept(entry, weights, WeightPlan((entry,), {}, specs, None)).items():
        part = grid if cut is None else grid.narrowed(*cut)
        formats[name], tensors = tensors_of(name, part, torch.float32)
        stored |= tensors
    source = CheckpointWeights(MappingWeights(stored), formats, "float32")
    return {name: source.tensor(name) for name in formats}


def interleaved(_config: Any, weight: torch.Tensor) -> torch.Tensor:
    return weight.view(2, 3, -1, weight.shape[-1]).transpose(0, 1).reshape(weight.shape)


def halves(_config: Any, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return weight[::2], weight[1::2]


def turned(_config: Any, weight: torch.Tensor) -> torch.Tensor:
    return weight.t().contiguous()


def mixed(_config: Any, weight: torch.Tensor) -> torch.Tensor:
    return weight.reshape(-1, ROWS)


MAPS: dict[str, tuple[int, Sequence[Step] | Callable[..., Any] | None, int]] = {
    "as it is": (1, None, 1),
    "stacked": (3, [Stack(0)], 1),
    "joined": (3, [Concat(0)], 1),
    "joined along the columns": (2, [Concat(1)], 1),
    "transposed": (1, [Transpose(0, 1)], 1),
    "stacked and transposed": (3, [Stack(0), Transpose(1, 2)], 1),
    "cut": (1, [Chunk(3, 0)], 3),
    "cut along the columns": (1, [Chunk(2, 1)], 2),
    "by a function of rows": (1, interleaved, 1),
    "by a function with two results": (1, halves, 2),
    "by a function that transposes": (1, turned, 1),
}
KINDS = ["int4", "int8", "fp8_e4m3", "fp4_e2m1"]


def entry_of(sources: int, function: Any, targets: int) -> WeightEntry:
    counts = (sources,) if function is not None else (1,)
    names = tuple(f"s{i}" for i in range(sources))
    return WeightEntry(names, tuple(f"t{i}" for i in range(targets)), function, counts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("block", [(1, 16), (1, COLUMNS), (ROWS, COLUMNS), (8, 16)], ids=str)
def test_what_codes_stand_for_is_what_the_map_makes(kind: str, name: str, block: tuple[int, int]) -> None:
    entry = entry_of(*MAPS[name])
    weights = [make(kind, seed, block=block) for seed in range(len(entry.sources))]
    found = keep(entry, weights)
    for target, expected in stands_for(entry, weights).items():
        torch.testing.assert_close(found[target], expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["int4", "int8"])
@pytest.mark.parametrize("name", ["as it is", "stacked", "joined", "by a function of rows"])
def test_zero_points_and_scales_of_inputs_go_along(kind: str, name: str) -> None:
    entry = entry_of(*MAPS[name])
    zero = torch.randint(-4, 4, (ROWS, COLUMNS // GROUP), dtype=torch.int8)
    weights = [
        make(kind, seed, zero_point=zero, pre_scale=torch.linspace(0.5, 2, COLUMNS))
        for seed in range(len(entry.sources))
    ]
    found = keep(entry, weights)
    for target, expected in stands_for(entry, weights).items():
        torch.testing.assert_close(found[target], expected, rtol=1e-6, atol=1e-6)


def test_columns_in_the_order_of_their_groups() -> None:
    g_idx = torch.randperm(COLUMNS, generator=torch.Generator().manual_seed(0)) // GROUP
    weight = make("int4", 0, g_idx=g_idx)
    found = keep(entry_of(1, None, 1), [weight])["t0"]
    assert torch.equal(found, weight.parameter())


@pytest.mark.parametrize(("axis", "start", "size"), [(0, 8, 8), (1, 16, 32), (1, 8, 24), (0, 0, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_has_its_part(kind: str, axis: int, start: int, size: int) -> None:
    weight = make(kind, 0, block=(8, 16), pre_scale=torch.linspace(0.5, 2, COLUMNS))
    found = keep(entry_of(1, None, 1), [weight], (axis, start, size))["t0"]
    torch.testing.assert_close(found, weight.parameter().narrow(axis, start, size), rtol=1e-6, atol=0)


def test_a_parameter_that_is_stored_transposed() -> None:
    weight = make("fp4_e2m1", 0, transposed=True)
    assert torch.equal(keep(entry_of(1, None, 1), [weight])["t0"], weight.parameter())


def test_what_cannot_stay_is_said() -> None:
    with pytest.raises(CannotKeepError, match="mixes a weight's rows and columns"):
        keep(entry_of(1, mixed, 1), [make("int8", 0)])
    with pytest.raises(CannotKeepError, match="quantized in different ways"):
        keep(entry_of(2, [Concat(0)], 1), [make("int8", 0), make("fp8_e4m3", 1)])
    g_idx = torch.randperm(COLUMNS) // GROUP
    with pytest.raises(CannotKeepError, match="different orders or scales"):
        keep(entry_of(2, [Concat(0)], 1), [make("int4", 0, g_idx=g_idx), make("int4", 1)])
    with pytest.raises(CannotKeepError, match="cut for the ranks"):
        keep(entry_of(1, None, 1), [make("int4", 0, g_idx=g_idx)], (1, 0, 32))
