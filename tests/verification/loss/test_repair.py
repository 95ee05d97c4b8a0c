"""The search: a set from which nothing can be taken away, whatever the losses are; and its parts on a real model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from trtllm_port.errors import ConfigError
from trtllm_port.verification.loss.candidates import Candidate, placed
from trtllm_port.verification.loss.measure import Pair
from trtllm_port.verification.loss.repair import Point, Remembered, Repair, Search, find_repair
from trtllm_port.verification.loss.windows import Windows, make_windows
from trtllm_port.verification.stimulus.loss_bound import LossBound


def candidate(name: str, cost: int = 1, weights: tuple[str, ...] = ()) -> Candidate:
    return Candidate(modules=(name,), weights=weights or (f"{name}.weight",), bytes=1, plain_bytes=1 + cost)


def search(costs: list[float], limit: float, loss: Callable[[frozenset[int]], float]) -> Repair:
    """Search among modules 0, 1 …; `loss` is of the set that stays quantized."""
    order = [candidate(str(number)) for number in range(len(costs))]

    def measure(left: Collection[Candidate]) -> Point:
        rest = frozenset(range(len(order))) - {int(each.name) for each in left}
        return Point(modules=len(left), bytes=0, kl=loss(rest), top1=1.0, perplexity=1.0)

    alone = {str(number): cost for number, cost in enumerate(costs)}
    return Search(order, alone, LossBound("kl", limit), measure).run()


@settings(max_examples=200)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 3), st.integers(0, 2**16))
def test_no_module_of_the_set_can_go_back(costs: list[float], limit: float, seed: int) -> None:
    """Also where losses do not add up, and one module less can cost more."""

    def loss(quantized: frozenset[int]) -> float:
        noise = torch.Generator().manual_seed(hash((seed, *sorted(quantized))) % 2**32)
        factor = 0.5 + float(torch.rand((), generator=noise))
        return factor * sum(costs[number] for number in quantized)

    try:
        found = search(costs, limit, loss)
    except ConfigError:  # each of them alone is too much
        assert all(loss(frozenset({number})) >= limit for number in range(len(costs)))
        return
    everything, left = frozenset(range(len(costs))), frozenset(map(int, found.modules))
    assert found.chosen.kl == loss(everything - left) < limit
    if left:
        assert loss(everything) >= limit
    for module in left:
        assert loss(everything - left | {module}) >= limit


def test_what_costs_most_for_its_bytes_is_enough() -> None:
    found = search(
        [0.9, 0.8, 0.1, 0.1, 0.1], 0.5, lambda quantized: sum([0.9, 0.8, 0.1, 0.1, 0.1][i] for i in quantized)
    )
    assert found.modules == ("0", "1")
    assert [point.modules for point in found.curve] == [0, 1, 2]


def test_what_is_not_needed_goes_back() -> None:
    """Alone it costs most, beside the others nothing."""
    costs = [0.9, 0.8, 0.1]
    found = search(costs, 0.5, lambda quantized: 0.8 * (1 in quantized) + 0.1 * (2 in quantized))
    assert (found.modules, found.returned) == (("1",), ("0",))


def test_a_loss_that_is_no_number_meets_nothing() -> None:
    found = search([math.inf, 0.0], 0.5, lambda quantized: math.nan if 0 in quantized else 0.0)
    assert found.modules == ("0",)
    with pytest.raises(ConfigError, match="not met with the original weights themselves"):
        search([1.0], 0.5, lambda _: math.nan)


def test_modules_in_one_tensor_are_one_candidate() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Linear(2, 2)})
    found = placed([candidate("a"), candidate("q", 3, ("b.weight",)), candidate("v", 4, ("b.weight",))], model, model)
    assert [(each.modules, each.cost) for each in found] == [(("a",), 1), (("q", "v"), 7)]
    assert found[1].parameters == {"b.weight"}


def test_experts_are_found_where_transformers_stacks_them(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(
        vocab_size=31,
        hidden_size=16,
        moe_intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_experts=4,
    )
    torch.manual_seed(0)
    original, quantized = Qwen3MoeForCausalLM(config), Qwen3MoeForCausalLM(config)
    path = "model.layers.0.mlp.experts"
    names = tuple(f"{path}.{expert}.{name}_proj.weight" for expert in range(4) for name in ("gate", "up", "down"))
    (found,) = placed([candidate(path, weights=names)], original, quantized)
    assert found.parameters == {f"{path}.gate_up_proj", f"{path}.down_proj"}


@pytest.fixture(scope="module")
def windows(tiny_llama: Path) -> Windows:
    return make_windows(tiny_llama, vocab_size=61, longest=128)


def test_the_damaged_weight_is_found(tiny_llama: Path, pair_of: Callable[..., Pair], windows: Windows) -> None:
    names = [f"model.layers.{layer}.mlp.{name}_proj" for layer in range(2) for name in ("gate", "up", "down")]

    def change(weight: torch.Tensor) -> torch.Tensor:
        return weight * 1.001

    worse = {f"{names[4]}.weight": lambda weight: weight * 2}
    pair = pair_of(tiny_llama, change, r".*mlp\.(gate|down)_proj\.weight|.*0\.mlp\.up_proj\.weight", worse)
    bound = LossBound.parse("kl<0.001")
    seen: list[tuple[str, int, int]] = []
    found = find_repair(pair, map(candidate, names), bound, windows, lambda *told: seen.append(told))
    assert found.modules == (names[4],)
    assert found == find_repair(pair, map(candidate, names), bound, windows)
    assert {phase for phase, *_ in seen} == {
        "loss by module",
        "repair: how many modules",
        "repair: is each module needed",
    }
    assert all(done <= total for _, done, total in seen)


def test_logits_are_remembered_where_memory_allows(windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        runs = 0

        def run(self, ids_BL: torch.Tensor, /) -> torch.Tensor:
            self.runs += 1
            return ids_BL.float()

    for limit, runs in ((1 << 30, 2), (0, 4)):
        monkeypatch.setattr("trtllm_port.verification.loss.repair.REMEMBERED_BYTES", limit)
        remembered = Remembered(model := Model(), windows)
        ids = [torch.tensor([[1, 2]]), torch.tensor([[1, 3]])]
        assert all(torch.equal(remembered.run(each), each.float()) for each in ids * 2)
        assert model.runs == runs
