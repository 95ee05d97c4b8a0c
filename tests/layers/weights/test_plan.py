"""The accounting: every tensor used once or dropped, every parameter filled, everything wrong reported at once."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from trtllm_port.errors import CheckpointError
from trtllm_port.layers import Drop, Transform, WeightMap, plan_weights
from trtllm_port.layers.weights import Concat, MappingWeights, ParameterSpec, Search, Stack, WeightPlan

FEW = settings(max_examples=25, deadline=None)


def spec(*shape: int, **options: Any) -> ParameterSpec:
    return ParameterSpec(shape, "float32", **options)


def plan(
    specs: dict[str, ParameterSpec],
    tensors: dict[str, torch.Tensor],
    weight_map: WeightMap | None = None,
    **options: Any,
) -> tuple[WeightPlan, dict[str, torch.Tensor]]:
    source = MappingWeights(tensors)
    made = plan_weights(specs, source, weight_map or {}, **options)
    loaded = {name: value for entry in made.entries for name, value in made.load(entry, source).items()}
    return made, loaded


def problems(specs: dict[str, ParameterSpec], tensors: dict[str, torch.Tensor], **options: Any) -> list[str]:
    with pytest.raises(CheckpointError) as caught:
        plan(specs, tensors, **options)
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


@FEW
@given(names=st.sets(st.from_regex(r"[a-z]{1,3}(\.[0-9]{1,2})?\.[a-z]{1,2}", fullmatch=True), min_size=1, max_size=6))
def test_equal_names_fit(names: set[str]) -> None:
    tensors = {name: torch.full((2,), float(i)) for i, name in enumerate(sorted(names))}
    made, loaded = plan({name: spec(2) for name in names}, tensors)
    assert loaded.keys() == names
    assert all(loaded[name].data_ptr() == tensors[name].data_ptr() for name in names)
    assert not made.dropped


@FEW
@given(data=st.data())
def test_whatever_is_wrong_is_reported_exactly(data: st.DataObject) -> None:
    """Some tensors left out, some added, some misshapen: one line for each, and no other line."""
    names = [f"layers.{i}.weight" for i in range(6)]
    kinds = data.draw(st.lists(st.sampled_from(["fine", "missing", "misshapen"]), min_size=6, max_size=6))
    extra = data.draw(st.lists(st.sampled_from(["zz1", "zz2"]), unique=True))
    shapes = {"fine": (2,), "misshapen": (3,)}
    tensors = {name: torch.zeros(shapes[kind]) for name, kind in zip(names, kinds, strict=True) if kind != "missing"}
    tensors |= {name: torch.zeros(1) for name in extra}
    expected = [f"missing `{name}`" for name, kind in zip(names, kinds, strict=True) if kind == "missing"]
    expected += [f"unexpected `{name}`" for name in extra]
    expected += [
        f"shape of `{name}` is (3,), expected (2,)"
        for name, kind in zip(names, kinds, strict=True)
        if kind == "misshapen"
    ]
    specs = {name: spec(2) for name in names}
    if expected:
        assert sorted(problems(specs, tensors)) == sorted(expected)
    else:
        plan(specs, tensors)


def test_the_nearest_name_is_suggested() -> None:
    assert problems(
        {"model.layers.0.self_attn.q_proj.weight": spec(2)}, {"model.layers.0.attn.q_proj.weight": torch.zeros(2)}
    ) == [
        "missing `model.layers.0.self_attn.q_proj.weight` (nearest: `model.layers.0.attn.q_proj.weight`)",
        "unexpected `model.layers.0.attn.q_proj.weight` (nearest: `model.layers.0.self_attn.q_proj.weight`)",
    ]


def test_numbers_are_sorted_as_numbers() -> None:
    found = problems({f"layers.{i}.w": spec(1) for i in range(12)}, {})
    assert found == [f"missing `layers.{i}.w`" for i in range(12)]


def test_drops_have_reasons() -> None:
    weight_map: WeightMap = {"*.inv_freq": Drop("computed from the config"), "h.*.attn.bias": None}
    made, _ = plan(
        {"w": spec(1)},
        {"w": torch.zeros(1), "a.b.inv_freq": torch.zeros(9), "h.0.attn.bias": torch.ones(1).bool()},
        weight_map,
    )
    assert made.dropped == {"a.b.inv_freq": "computed from the config", "h.0.attn.bias": "listed in the weight map"}
    assert problems({"w": spec(1)}, {"w": torch.zeros(1), "a.b.inv_freq": torch.zeros(9)}) == [
        "unexpected `a.b.inv_freq`"
    ]


def test_a_pattern_drops_what_is_no_parameter() -> None:
    tensors = {f"layers.{i}.w": torch.full((1,), float(i)) for i in range(3)}
    specs = {"layers.0.w": spec(1), "model.layers.2.w": spec(1)}
    made, loaded = plan(specs, tensors, {"layers.*.w": Drop("not used in every layer")}, base_model_prefix="model")
    assert made.dropped == {"layers.1.w": "not used in every layer"}
    assert {name: tensor.item() for name, tensor in loaded.items()} == {"layers.0.w": 0.0, "model.layers.2.w": 2.0}
    by_name: WeightMap = {"layers.0.w": Drop("by name")}
    found = problems({"layers.0.w": spec(1)}, {"layers.0.w": tensors["layers.0.w"]}, weight_map=by_name)
    assert found[0].startswith("missing `layers.0.w`")


def test_renaming_by_pattern_and_by_name() -> None:
    weight_map: WeightMap = {"gpt.*.w.*": "model.*.weight.*", "gpt.9.w.x": "special"}
    _, loaded = plan(
        {"model.0.weight.a": spec(1), "special": spec(1)},
        {"gpt.0.w.a": torch.zeros(1), "gpt.9.w.x": torch.ones(1)},
        weight_map,
    )
    assert loaded["special"].item() == 1.0


def test_the_base_models_prefix_may_be_absent() -> None:
    _, loaded = plan({"transformer.wte": spec(1)}, {"wte": torch.ones(1)}, base_model_prefix="transformer")
    assert loaded.keys() == {"transformer.wte"}


def test_names_with_a_prefix_or_without_it_are_as_good() -> None:
    specs = {"model.wte": spec(1), "head": spec(1), "model.h.0.qk": spec(2), "model.h.0.new": spec(1)}
    weight_map: WeightMap = {
        ("model.h.*.q", "model.h.*.k"): Transform("model.h.*.qk", [Concat()]),
        "model.h.*.old": "model.h.*.new",
        "model.h.*.bias": Drop("a mask"),
    }
    one = torch.ones(1)
    names = {"wte": one, "model.head": one, "h.0.q": one, "model.h.0.k": one, "h.0.old": one, "h.0.bias": one}
    made, loaded = plan(specs, names, weight_map, base_model_prefix="model")
    assert loaded.keys() == specs.keys()
    assert made.dropped == {"h.0.bias": "a mask"}
    found = problems(specs, names | {"h.1.old": one, "h.1.q": one}, weight_map=weight_map, base_model_prefix="model")
    assert found == ["unexpected `h.1.old`", "unexpected `h.1.q`"]


def test_what_is_searched_for_is_dropped_last() -> None:
    """Of layers that exist, nothing is dropped; of others, what would go into a transform is."""
    weight_map: WeightMap = {
        Search(r"layers\.1\b"): Drop("for speculation"),
        "layers.*.e.*": Transform("layers.*.e", [Stack()]),
    }
    tensors = {f"layers.{i}.{name}": torch.zeros(1) for i in range(2) for name in ("w", "e.0", "e.1")}
    small = {"layers.0.w": spec(1), "layers.0.e": spec(2, 1)}
    made, _ = plan(small, tensors, weight_map)
    assert made.dropped == dict.fromkeys(["layers.1.w", "layers.1.e.0", "layers.1.e.1"], "for speculation")
    large = small | {"layers.1.w": spec(1), "layers.1.e": spec(2, 1)}
    made, loaded = plan(large, tensors, weight_map)
    assert (made.dropped, loaded.keys()) == ({}, large.keys())
    assert problems(small, tensors | {"layers.2.w": torch.zeros(1)}, weight_map=weight_map) == [
        "unexpected `layers.2.w`"
    ]


def fuse(config: Any, *tensors: torch.Tensor) -> torch.Tensor:
    return torch.cat(tensors)


def halve(config: Any, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return tensor[:2], tensor[2:]


def test_many_tensors_into_one_and_one_into_many() -> None:
    weight_map: WeightMap = {
        ("*.q", "*.k"): Transform("*.qk", fuse),
        "*.gate_up": Transform(("*.gate", "*.up"), halve),
        "experts.*.w": Transform("experts.w", lambda config, *tensors: torch.stack(tensors)),
    }
    tensors = {
        "0.k": torch.full((1,), 2.0),
        "0.q": torch.full((1,), 1.0),
        "0.gate_up": torch.arange(4.0),
        **{f"experts.{i}.w": torch.full((1,), float(i)) for i in (10, 2, 0)},
    }
    specs = {"0.qk": spec(2), "0.gate": spec(2), "0.up": spec(2), "experts.w": spec(3, 1)}
    made, loaded = plan(specs, tensors, weight_map)
    assert loaded["0.qk"].tolist() == [1.0, 2.0]
    assert loaded["0.up"].tolist() == [2.0, 3.0]
    assert loaded["experts.w"].flatten().tolist() == [0.0, 2.0, 10.0]
    assert len(made.entries) == 3


def test_transforms_are_checked_before_anything_is_read() -> None:
    weight_map: WeightMap = {("*.q", "*.k"): Transform("*.qk", fuse), "w": Transform("nowhere", fuse)}
    tensors = {
        "0.k": torch.zeros(3),
        "0.q": torch.zeros(2),
        "1.q": torch.zeros(2, 2),
        "1.k": torch.zeros(2),
        "w": torch.zeros(1),
    }
    found = problems({"0.qk": spec(4), "1.qk": spec(4)}, tensors, weight_map=weight_map)
    assert found[0] == "shape of `0.qk` is (5,), expected (4,)"
    assert found[1].startswith("transform of `1.q` failed")
    assert found[2] == "unknown parameter `nowhere`, the target of `w`"


def test_a_transform_whose_shape_depends_on_values_is_refused() -> None:
    def nonzero(config: Any, weight: torch.Tensor) -> torch.Tensor:
        return weight if weight.is_meta else weight[weight != 0]

    with pytest.raises(CheckpointError, match=r"transform of `a` gave shape \(1,\) for `a`, expected \(2,\)"):
        plan({"a": spec(2)}, {"a": torch.tensor([0.0, 1.0])}, {"a": Transform("a", nonzero)})


def test_two_tensors_for_one_parameter() -> None:
    found = problems({"w": spec(1)}, {"w": torch.zeros(1), "v": torch.zeros(1)}, weight_map={"v": "w"})
    assert found == ["duplicate `w`: from `w` and `v`"]


def test_integers_are_no_weights() -> None:
    found = problems({"w": spec(1)}, {"w": torch.zeros(1, dtype=torch.int8)})
    assert found == ["data type of `w` is int8, expected float32 or float16 or bfloat16 or float64"]


def test_ranks_get_their_parts() -> None:
    source = MappingWeights({"w": torch.arange(8.0).reshape(4, 2)})
    made = plan_weights({"w": spec(4, 2, shard=(0, 2))}, source, {})
    parts = [made.load(made.entries[0], source, rank)["w"] for rank in range(2)]
    assert torch.equal(torch.cat(parts), source.tensor("w"))


def test_loaded_tensors_have_the_ports_type() -> None:
    source = MappingWeights({"w": torch.arange(3.0, dtype=torch.float64)})
    made = plan_weights({"w": ParameterSpec((3,), "bfloat16")}, source, {})
    assert made.load(made.entries[0], source)["w"].dtype == torch.bfloat16
