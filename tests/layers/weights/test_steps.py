"""Steps of transforms, against torch; and the order in which sources can be copied without being in memory at once."""

from __future__ import annotations

import pytest
import torch

from trtllm_port.layers import Chunk, Concat, Stack, Transform, Transpose, plan_weights
from trtllm_port.layers.weights import MappingWeights, ParameterSpec, Step
from trtllm_port.layers.weights.steps import laid_end_to_end, run_steps


def tensors(*counts: int) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [[torch.randn(4, 6, generator=generator) for _ in range(count)] for count in counts]


def test_experts_are_stacked_and_their_projections_joined() -> None:
    gates, ups = tensors(3, 3)
    (made,) = run_steps([Stack(0), Concat(1)], [gates, ups])
    assert torch.equal(made[2], torch.cat([gates[2], ups[2]]))


def test_transposed_and_cut() -> None:
    ((whole,),) = groups = tensors(1)
    first, second = run_steps([Transpose(0, 1), Chunk(2, 0)], groups)
    assert torch.equal(torch.cat([first, second]), whole.T)


@pytest.mark.parametrize(
    ("steps", "counts"),
    [([Stack(0)], (3,)), ([Concat(0)], (2, 1)), ([Stack(0), Concat(1)], (3, 3)), ([Stack(0), Concat(1)], (3, 3, 3))],
)
def test_bytes_end_to_end(steps: list[Step], counts: tuple[int, ...]) -> None:
    groups = tensors(*counts)
    flat = [tensor for group in groups for tensor in group]
    order = laid_end_to_end(steps, counts)
    assert order is not None
    (made,) = run_steps(steps, groups)
    assert torch.equal(torch.cat([flat[index].flatten() for index in order]), made.flatten())


@pytest.mark.parametrize(
    ("steps", "counts"),
    [([Stack(0)], (2, 2)), ([Stack(1)], (3,)), ([Concat(1)], (2,)), ([Stack(0), Transpose(1, 2)], (3,))],
)
def test_bytes_that_must_be_rearranged(steps: list[Step], counts: tuple[int, ...]) -> None:
    assert laid_end_to_end(steps, counts) is None


def test_a_weight_map_of_steps() -> None:
    names = [f"layers.{layer}.experts.{n}.{part}" for layer in range(2) for n in range(11) for part in ("up", "gate")]
    source = MappingWeights({name: torch.full((2, 3), float(i)) for i, name in enumerate(names)})
    weight_map = {
        ("layers.*.experts.*.gate", "layers.*.experts.*.up"): Transform("layers.*.gate_up", [Stack(0), Concat(1)])
    }
    specs = {f"layers.{layer}.gate_up": ParameterSpec((11, 4, 3), "float32") for layer in range(2)}
    plan = plan_weights(specs, source, weight_map)
    loaded = {name: tensor for entry in plan.entries for name, tensor in plan.load(entry, source).items()}
    assert torch.equal(loaded["layers.1.gate_up"][10, 3], source.tensor("layers.1.experts.10.up")[1])
    assert torch.equal(loaded["layers.1.gate_up"][10, 1], source.tensor("layers.1.experts.10.gate")[1])
    entry = next(entry for entry in plan.entries if entry.targets == ("layers.1.gate_up",))
    streamed = torch.cat([source.tensor(name).flatten() for name in entry.end_to_end or ()])
    assert torch.equal(streamed, loaded["layers.1.gate_up"].flatten())
