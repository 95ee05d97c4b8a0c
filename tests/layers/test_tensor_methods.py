"""A tensor's operators and methods: those that type checkers know are those that there are, argument by argument."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from trtllm_port.layers import Network, Tensor
from trtllm_port.layers.definition.tensor_methods import TensorMethods
from trtllm_port.layers.operations.methods import METHODS

TREE = ast.parse(textwrap.dedent(inspect.getsource(TensorMethods)))
DECLARED = {node.name: node.args for node in ast.walk(TREE) if isinstance(node, ast.FunctionDef)}
IMPORT_ONE_FILE = """
from trtllm_port.layers.definition.network import Tensor
print(Tensor.__add__.__qualname__)
"""


@pytest.fixture
def x() -> Tensor:
    return Network(dtype="float32", max_seq_len=8, weights={}).add_input("x", "float32", (2, 3))


def test_what_is_declared_is_attached_and_nothing_else() -> None:
    assert METHODS.keys() == DECLARED.keys()
    assert all(name in vars(Tensor) for name in DECLARED)


@pytest.mark.parametrize("name", [name for name in DECLARED if not name.startswith("__")])
def test_arguments_are_those_declared(name: str) -> None:
    declared = DECLARED[name]
    found = list(inspect.signature(vars(Tensor)[name]).parameters.values())[1:]
    listed = [one for one in found if one.kind is one.VAR_POSITIONAL]
    assert not declared.kwonlyargs
    assert len(listed) == (declared.vararg is not None)
    named = [one for one in found if one not in listed]
    assert [one.name for one in named] == [arg.arg for arg in declared.args[1:]]
    defaults = [one.default for one in named if one.default is not inspect.Parameter.empty]
    assert defaults == [ast.literal_eval(default) for default in declared.defaults]


def test_whoever_imports_one_file_has_them() -> None:
    found = subprocess.run([sys.executable, "-c", IMPORT_ONE_FILE], capture_output=True, text=True, check=True)
    assert found.stdout == "Tensor.__add__\n"


def test_wrong_arguments_are_refused_in_the_methods_name(x: Any) -> None:
    with pytest.raises(TypeError, match=r"^Tensor\.sum\(\) missing 1 required positional argument: 'dim'$"):
        x.sum()
    with pytest.raises(TypeError, match=r"^Tensor\.softmax\(\) missing 1 required positional argument: 'dim'$"):
        x.softmax()


def test_dimensions_come_by_name_or_one_by_one(x: Tensor) -> None:
    assert x.sum(dim=1, keepdim=True).shape == (2, 1)
    assert x.flatten(start_dim=0, end_dim=1).shape == (6,)
    assert x.view(3, -1).shape == x.reshape(3, 2).shape == x.permute(1, 0).shape == (3, 2)


def test_the_tensor_on_the_right_is_the_right_operand(x: Tensor) -> None:
    for operation, result in {"sub": 1.0 - x, "div": 1.0 / x, "pow": 2.0**x}.items():
        layer = next(each for each in layers_of(x.network) if each.get_output(0).name == result.name)
        assert (layer.name, layer.get_input(1).name) == (operation, x.name)


def test_tensors_are_keys_by_identity(x: Tensor) -> None:
    assert {x: 1}[x] == 1
    with pytest.raises(TypeError, match="the truth of a tensor is only known when the engine runs"):
        bool(x == x)


def layers_of(network: Network) -> list[Any]:
    definition = network.definition
    return [definition.get_layer(index) for index in range(definition.num_layers)]
