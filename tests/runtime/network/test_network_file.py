"""The network file: what it keeps, how it is written, and what is wrong with a damaged one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorrt_rtx as trt
import torch
from torch.testing import assert_close

from trtllm_port.errors import EngineError, PortError
from trtllm_port.layers import Linear, Module, Network, Tensor
from trtllm_port.runtime.network import Constant, LayerRecord, NetworkFile, TensorRecord, parameter_values
from trtllm_port.runtime.network.attributes import LAYER_CLASSES
from trtllm_port.runtime.reference import ReferenceExecutor


class Block(Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x) + x.shape[-1]


WEIGHTS = {"proj.weight": torch.randn(3, 4), "proj.bias": torch.randn(3)}


def _network() -> Network:
    network = Network(dtype="float32", max_seq_len=8, weights=WEIGHTS)
    block = Block()
    network.bind(block)
    network.mark_output(block(network.add_input("x", "float32", (-1, 2, 4))), "y")
    return network


def _definition() -> Any:
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def test_a_port_s_network_names_its_parameters_and_taps(tmp_path: Path) -> None:
    network = _network()
    file = NetworkFile.from_network(network)
    assert (file.flavour, file.dtype, file.max_seq_len) == ("tensorrt_rtx", "float32", 8)
    assert (file.inputs, file.outputs) == (("x",), ("y",))
    assert file.tensors["x"] == TensorRecord("float32", (-1, 2, 4))
    named = {constant.parameter for constant in file.constants.values() if constant.parameter}
    assert named == WEIGHTS.keys() == parameter_values(network).keys()
    assert "proj" in file.taps
    assert all(tensor in file.tensors for tensor in file.taps.values())


def test_it_computes_the_same_after_a_round_trip(tmp_path: Path) -> None:
    file = NetworkFile.from_network(_network())
    file.save(tmp_path / "rank0.network.json")
    loaded = NetworkFile.load(tmp_path / "rank0.network.json")
    x = torch.randn(5, 2, 4)
    expected = torch.nn.functional.linear(x, WEIGHTS["proj.weight"], WEIGHTS["proj.bias"]) + 4
    assert_close(ReferenceExecutor(loaded, WEIGHTS).run({"x": x})["y"], expected)
    assert loaded.layers == file.layers
    assert loaded.tensors == file.tensors


def test_it_is_text_one_layer_a_line_and_the_same_every_time(tmp_path: Path) -> None:
    texts = []
    for name in ("a.json", "b.json"):
        NetworkFile.from_network(_network()).save(tmp_path / name)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    layers = json.loads(texts[0])["layers"]
    lines = [line.strip().rstrip(",") for line in texts[0].splitlines()]
    assert all(json.dumps(layer, separators=(", ", ": "), ensure_ascii=False) in lines for layer in layers)


def _constants(*values: torch.Tensor) -> NetworkFile:
    names = [f"c{i}" for i in range(len(values))]
    dtypes = [str(value.dtype).removeprefix("torch.") for value in values]
    return NetworkFile(
        flavour="tensorrt_rtx",
        flavour_version="1.7.1",
        inputs=(),
        outputs=tuple(names),
        tensors={n: TensorRecord(d, tuple(v.shape)) for n, d, v in zip(names, dtypes, values, strict=True)},
        layers=tuple(LayerRecord("CONSTANT", n, (), (n,)) for n in names),
        constants={n: Constant(tuple(v.shape), value=v) for n, v in zip(names, values, strict=True)},
    )


SMALL = [
    torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 0.1, 1e-45, 3.4028235e38]),
    torch.tensor([0.1, 65504.0], dtype=torch.float16),
    torch.tensor([0.1, 3e38], dtype=torch.bfloat16),
    torch.tensor([0.3, 448.0, float("nan")]).to(torch.float8_e4m3fn),
    torch.tensor([2**62 + 1, -(2**63)]),
    torch.tensor([-8, 7], dtype=torch.int8),
    torch.tensor([True, False]),
    torch.tensor(5, dtype=torch.int32),
    torch.zeros(0, 3),
]


def _bits(value: torch.Tensor) -> torch.Tensor:
    return value.contiguous().reshape(-1).view(torch.uint8)


def test_constants_keep_their_bits(tmp_path: Path) -> None:
    large = [torch.randn(10, 10), torch.randn(100).bfloat16(), torch.randn(8, 16).T]
    _constants(*SMALL, *large).save(tmp_path / "rank3.network.json")
    assert (tmp_path / "rank3.constants.safetensors").is_file()
    loaded = NetworkFile.load(tmp_path / "rank3.network.json")
    for value, constant in zip([*SMALL, *large], loaded.constants.values(), strict=True):
        assert constant.value is not None
        assert constant.value.dtype == value.dtype
        assert constant.value.shape == value.shape
        assert _bits(constant.value).equal(_bits(value))
    assert loaded.constants["c7"].value == 5


def test_small_constants_need_no_second_file_and_equal_ones_are_kept_once(tmp_path: Path) -> None:
    _constants(*SMALL).save(tmp_path / "rank0.network.json")
    assert [path.name for path in tmp_path.iterdir()] == ["rank0.network.json"]
    shared = torch.randn(1000)
    _constants(shared, shared).save(tmp_path / "rank0.network.json")
    assert (tmp_path / "rank0.constants.safetensors").stat().st_size < 2 * 4000


def test_attributes_are_plain_data() -> None:
    definition = _definition()
    x = definition.add_input("x", trt.float32, (2, -1, 4))
    shuffle = definition.add_shuffle(x)
    shuffle.first_transpose = trt.Permutation([1, 0, 2])
    shuffle.reshape_dims = (0, -1)
    definition.add_reduce(x, trt.ReduceOperation.MAX, 0b101, True)
    definition.add_activation(x, trt.ActivationType.GELU_TANH)
    loop = definition.add_loop()
    loop.add_trip_limit(definition.add_input("n", trt.int32, ()), trt.TripLimit.COUNT)
    shuffled, reduced, activated, limit = NetworkFile.from_definition(definition, trt).layers
    assert shuffled.attributes == {
        "first_transpose": [1, 0, 2],
        "reshape_dims": [0, -1],
        "second_transpose": None,
        "zero_is_placeholder": True,
    }
    assert reduced.attributes == {"op": "MAX", "axes": [0, 2], "keep_dims": True}
    assert (activated.type, activated.attributes["type"]) == ("ACTIVATION", "GELU_TANH")
    assert limit.attributes["kind"] == "COUNT"
    assert limit.outputs == ()


def test_an_attention_keeps_its_attributes_and_absent_inputs() -> None:
    definition = _definition()
    q, k, v = (definition.add_input(name, trt.float16, (1, 2, -1, 16)) for name in "qkv")
    layer = definition.add_attention_v2(q, k, v, trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.UPPER_LEFT)
    layer.key_value_lengths = definition.add_input("lengths", trt.int32, (1,))
    begin, end = NetworkFile.from_definition(definition, trt).layers
    assert begin.inputs == ("q", "k", "v", None, None, None, "lengths")
    assert begin.attributes["causal_kind"] == "UPPER_LEFT"
    assert (begin.type, end.type) == ("ATTENTION_INPUT", "ATTENTION_OUTPUT")


def test_every_layer_class_exists_with_its_attributes() -> None:
    for kind, (class_name, attributes) in LAYER_CLASSES.items():
        assert kind in trt.LayerType.__members__
        assert all(hasattr(getattr(trt, class_name), attribute) for attribute in attributes)


def test_constants_are_read_from_the_layers_where_that_is_possible() -> None:
    definition = _definition()
    array = np.arange(6, dtype=np.float32)
    definition.add_constant((2, 3), array)
    (constant,) = NetworkFile.from_definition(definition, trt).constants.values()
    assert_close(constant.value, torch.arange(6.0).reshape(2, 3))
    bits = np.zeros(2, dtype=np.uint16)
    definition.add_constant((2,), trt.Weights(trt.bfloat16, bits.ctypes.data, 2)).name = "gain"
    with pytest.raises(PortError, match="'gain' cannot be read back"):
        NetworkFile.from_definition(definition, trt)


def _damage(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text())
    document.update(changes)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 99}, "has version 99"),
        ({"format": "something"}, "is not a network file"),
        ({"layers": [{"type": "UNARY"}]}, "is damaged"),
        ({"constants": {"c0": {"shape": [1], "file": "../other.safetensors", "key": "c0"}}}, "is missing"),
        ({"constants": {"c0": {"shape": [1], "file": "other.safetensors", "key": "c0"}}}, "is missing"),
    ],
)
def test_damaged_files(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "rank0.network.json"
    _constants(torch.ones(1)).save(path)
    _damage(path, **changes)
    with pytest.raises(EngineError, match=message):
        NetworkFile.load(path)


def test_absent_and_cut_files(tmp_path: Path) -> None:
    path = tmp_path / "rank0.network.json"
    with pytest.raises(EngineError, match="does not exist"):
        NetworkFile.load(path)
    _constants(torch.ones(1)).save(path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(EngineError, match="it is not JSON"):
        NetworkFile.load(path)
