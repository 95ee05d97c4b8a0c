"""The record: operations, names, places, and what a record must not hide."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.codegen.conftest import hf_config
from trtllm_port.codegen.configs.sizes import make_samples
from trtllm_port.codegen.ir.def_use import items, operations
from trtllm_port.codegen.ir.record import Attribute, Call, Literal, Location, Operation, Value
from trtllm_port.codegen.record import formulas
from trtllm_port.codegen.record.recorder import Recorder, is_between, names_variables
from trtllm_port.codegen.record.tracing import trace
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.quiet import quiet_transformers


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, *, shift: float = 0.0) -> tuple[Tensor, Tensor]:
        scaled = x * self.scale
        return scaled + shift, scaled


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, hidden_states: Tensor) -> Tensor:
        residual = hidden_states
        hidden_states, _ = self.inner(hidden_states, shift=2.5)
        hidden_states = hidden_states.contiguous()
        return residual + hidden_states


def _record(module: nn.Module, x: Tensor) -> Call:
    recorder = Recorder(module)
    with torch.no_grad(), recorder:
        module(x)
    assert recorder.root is not None
    return recorder.root


def _names(call: Call) -> list[str]:
    return [item.name if isinstance(item, Operation) else f"call {item.path}" for item in call.body]


def test_operations_are_recorded_in_their_modules() -> None:
    root = _record(Outer(), torch.ones(2, 3))
    assert _names(root) == ["call inner", "add"]
    inner = root.body[0]
    assert isinstance(inner, Call)
    assert _names(inner) == ["mul", "add"]
    assert inner.args["shift"] == 2.5
    multiply = inner.body[0]
    assert isinstance(multiply, Operation)
    assert multiply.args[1] == Attribute("inner.scale", persistent=True)
    assert multiply.location is not None
    assert multiply.location.file == __file__


def test_values_have_the_names_of_the_variables_that_held_them() -> None:
    root = _record(Outer(), torch.ones(2, 3))
    add = root.body[1]
    assert isinstance(add, Operation)
    first, second = add.args
    assert isinstance(first, Value)
    assert first.names[root] == ["hidden_states", "residual"]
    assert second.names[root] == ["hidden_states"]


class WritesThroughAView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y.view(-1)[:2].zero_()
        return y + 1


def test_a_tensor_that_was_written_through_a_view_is_unknown() -> None:
    root = _record(WritesThroughAView(), torch.ones(2, 3))
    last = root.body[-1]
    assert isinstance(last, Operation)
    assert isinstance(last.args[0], Literal)  # not the product that was recorded for it


class ChangesAPart(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y[1:] += x[1:]
        y[:, 0].neg_()
        return y + 1


def test_a_part_that_is_changed_in_place_changes_the_whole_once() -> None:
    x = torch.arange(6.0).view(2, 3)
    root = _record(ChangesAPart(), x)
    names = [name for name in _names(root) if name != "__getitem__"]
    assert names == ["mul", "add_", "__setitem__", "neg_", "__setitem__", "add"]
    writes = [item for item in root.body if isinstance(item, Operation) and item.name == "__setitem__"]
    last = root.body[-1]
    assert isinstance(last, Operation)
    assert last.args[0] is writes[1].outputs[0]
    assert writes[1].args[0] is writes[0].outputs[0]
    assert torch.equal(last.outputs[0].tensor, ChangesAPart()(x))


class LooksAtTheData(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if bool((x > 0).all()) else -x


def test_a_look_at_the_data_is_noted() -> None:
    root = _record(LooksAtTheData(), torch.ones(2, 3))
    assert [name for name, _ in root.host_reads] == ["__bool__"]


class LooksAtItsOwnNumbers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        valid = (torch.tensor(0.5) < 1).all()
        return x if bool(valid) else -x


def test_a_look_at_numbers_of_its_own_is_no_look_at_the_data() -> None:
    assert _record(LooksAtItsOwnNumbers(), torch.ones(2, 3)).host_reads == []


def test_nothing_is_left_on_the_model() -> None:
    module = Outer()
    _record(module, torch.ones(2, 3))
    hooks: list[Any] = [m._forward_hooks or m._forward_pre_hooks for m in module.modules()]
    assert not any(hooks)


def test_a_model_that_exchanges_its_modules_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    recorder = Recorder(model)
    model[0] = nn.Linear(2, 2)
    with pytest.raises(UnsupportedModelError, match="`0` is another module once the model has run"), recorder:
        pass


class Slicing(nn.Module):
    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start

    def forward(self, x: Tensor) -> Tensor:
        parts = {key: inner[:, -self.start :] for key, inner in {"all": x}.items()}
        return parts["all"] * 2


def test_an_index_that_takes_everything_is_no_operation() -> None:
    assert _names(_record(Slicing(0), torch.ones(2, 3))) == ["mul"]
    assert _names(_record(Slicing(3), torch.ones(2, 3))) == ["__getitem__", "mul"]  # all of it at this size only


def test_variables_of_a_comprehension_name_nothing() -> None:
    root = _record(Slicing(2), torch.ones(2, 3))
    names = {name for item in root.body for value in item.outputs for name in value.names.get(root, ())}
    assert "inner" not in names
    assert "key" not in names


def _files_of_ours() -> set[str]:
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "trtllm_port"]
    return {str(module.__file__) for module in modules}


def test_only_formulas_name_variables_of_a_port_among_the_files_of_ours() -> None:
    files = _files_of_ours()
    assert len(files) > 20
    assert all(map(is_between, files))
    assert {file for file in files if names_variables(file)} == {formulas.__file__}


@dataclass(frozen=True)
class Traced:
    """What is known of a model's run: where each operation is, and the names of all variables."""

    places: dict[str, Location | None]
    names: set[str]


@pytest.fixture(scope="module", params=["llama", "mamba"])
def traced(request: pytest.FixtureRequest) -> Traced:
    """The run of a model, with everything that stands between modelling code and the recorder."""
    with quiet_transformers():
        root = trace(make_samples(hf_config(request.param)).traced[0]).root
    values = (value for item in items(root) for value in item.outputs)
    names = {name for value in values for known in value.names.values() for name in known}
    return Traced({operation.name: operation.location for operation in operations(root)}, names)


def test_the_place_of_an_operation_is_in_modelling_code(traced: Traced) -> None:
    recorded = traced.places.keys()
    assert recorded >= {"attention", "cache_update", "mask"} or recorded >= {"selective_scan", "cache_state"}
    for name, location in traced.places.items():
        assert location is not None, name
        assert Path(location.file).is_relative_to(Path(transformers.__file__).parent), f"{name}: {location}"


def test_variables_of_formulas_name_values(traced: Traced) -> None:
    assert ("dt" in traced.names) == ("selective_scan" in traced.places)  # a variable of the formula alone


class Adding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1.0


class Replacing(nn.Module):
    """Makes its tables anew on every run; what it made before is free to become something else."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(50):
            self.register_buffer(f"table_{number}", torch.ones(3))
        self.adding = Adding()

    def forward(self, x: Tensor) -> Tensor:
        for number in range(50):
            setattr(self, f"table_{number}", torch.ones(3))
        for _ in range(100):  # some of these take the place of the first tables in memory
            x = self.adding(x)
        return x


def test_a_buffer_that_is_replaced_is_not_taken_for_a_result() -> None:
    root = _record(Replacing(), torch.randn(3))
    calls = [item for item in root.body if isinstance(item, Call)]
    assert len(calls) == 100
    assert all(len(call.outputs) == 1 for call in calls)
