"""What the executor does around its evaluators: feeds, taps, early stops, memory, refusals, folding."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import tensorrt_rtx as trt
import torch
from torch.testing import assert_close

from trtllm_port.errors import CheckpointError, EngineError, PortError
from trtllm_port.runtime.network import Constant, LayerRecord, NetworkFile, TensorRecord
from trtllm_port.runtime.network.executor import Executor, TensorSpec
from trtllm_port.runtime.reference import ReferenceExecutor, UnsupportedLayerError


def _chain(net: Any, steps: int = 3) -> ReferenceExecutor:
    """y = exp(... exp(x)), with every step named e0, e1 and so on."""
    tensor = net.input(torch.full((2,), -1.0), dynamic=(0,))
    for index in range(steps):
        tensor = net.definition.add_unary(tensor, trt.UnaryOperation.EXP).get_output(0)
        tensor.name = f"e{index}"
    file = net.file(net.definition.add_unary(tensor, trt.UnaryOperation.NEG).get_output(0))
    return ReferenceExecutor(NetworkFile(**{**vars(file), "taps": {"model.layers.1": "e1"}}), {})


def test_it_is_an_executor(net: Any) -> None:
    executor: Executor = _chain(net)
    assert executor.inputs == (TensorSpec("x0", "float32", (-1,)),)
    assert executor.outputs == (TensorSpec("y0", "float32", (-1,)),)
    assert executor.tap_names == ("model.layers.1",)
    assert executor.name == f"reference executor (torch {torch.__version__.split('+')[0]}, cpu)"


def test_taps_are_streamed_in_order_by_path_and_by_tensor_name(net: Any) -> None:
    executor = _chain(net)
    seen: list[tuple[str, torch.Tensor]] = []
    result = executor.run(
        net.feeds, on_tap=lambda name, value: seen.append((name, value.clone())), taps=["e2", "model.layers.1", "x0"]
    )
    assert [name for name, _ in seen] == ["x0", "model.layers.1", "e2"]
    assert_close(seen[1][1], net.feeds["x0"].exp().exp())
    assert result.keys() == {"y0"}


@pytest.mark.parametrize(("tap", "steps"), [("x0", 3), ("e1", 1), ("model.layers.1", 1)])
def test_what_a_listener_returns_takes_the_place_of_the_value(net: Any, tap: str, steps: int) -> None:
    other = torch.full((2,), 0.5)
    expected = other
    for _ in range(steps):
        expected = expected.exp()
    assert_close(_chain(net).run(net.feeds, on_tap=lambda _name, _value: other, taps=[tap])["y0"], -expected)


def test_taps_of_one_tensor_see_what_the_one_before_left(net: Any) -> None:
    other, seen = torch.full((2,), 0.5), []

    def replace(name: str, value: torch.Tensor) -> torch.Tensor | None:
        seen.append(value)
        return other if name == "e1" else None

    _chain(net).run(net.feeds, on_tap=replace, taps=["e1", "model.layers.1"])
    assert seen[1] is other


def test_a_value_of_another_shape_is_refused(net: Any) -> None:
    with pytest.raises(EngineError, match=r"'e1' was to be replaced by torch.float32 \[3\], it is torch.float32 \[2\]"):
        _chain(net).run(net.feeds, on_tap=lambda _name, _value: torch.zeros(3), taps=["e1"])


def test_several_runs_together_are_the_runs_alone(net: Any) -> None:
    executor = _chain(net)
    feeds = [{"x0": torch.tensor([0.5, -1.0])}, {"x0": torch.tensor([2.0])}]
    together = executor.run_together(feeds)
    assert [result.keys() for result in together] == [{"y0"}, {"y0"}]
    for result, each in zip(together, feeds, strict=True):
        assert_close(result["y0"], executor.run(each)["y0"])


def test_weights_are_given_back_while_the_network_runs(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtllm_port.runtime.reference.executor.RELEASE_BYTES", 16)
    tensor = net.input(torch.ones(4))
    for _ in range(5):
        weight = net.constant(torch.ones(4))
        tensor = net.definition.add_elementwise(tensor, weight, trt.ElementWiseOperation.SUM).get_output(0)
    calls: list[int] = []
    executor = ReferenceExecutor(net.file(tensor), {}, release=lambda: calls.append(1))
    assert_close(executor.run(net.feeds)["y0"], torch.full((4,), 6.0))
    assert len(calls) == 1 + 5  # once after the constants were folded, then with every 16 bytes


def test_without_a_listener_taps_are_returned(net: Any) -> None:
    result = _chain(net).run(net.feeds, taps=["model.layers.1"])
    assert result.keys() == {"y0", "model.layers.1"}
    assert_close(result["y0"], -result["model.layers.1"].exp())


def test_nothing_is_computed_after_stop_after(net: Any) -> None:
    executor = _chain(net)
    result = executor.run(net.feeds, taps=["e0", "e2"], stop_after="model.layers.1")
    assert result.keys() == {"e0"}


def test_an_unknown_tap_is_named_with_its_likeness(net: Any) -> None:
    with pytest.raises(PortError, match=r"no tap 'model.layer.1'") as caught:
        _chain(net).run(net.feeds, taps=["model.layer.1"])
    assert "model.layers.1" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, r"missing \['x0'\]"),
        ({"x0": torch.zeros(2), "z": torch.zeros(2)}, r"unexpected \['z'\]"),
        ({"x0": torch.zeros(2, dtype=torch.int64)}, "dtype torch.int64, expected float32"),
        ({"x0": torch.zeros(2, 2)}, r"shape \[2, 2\], expected \[-1\]"),
    ],
)
def test_wrong_feeds(net: Any, feeds: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        _chain(net).run(feeds)


def test_tensors_are_freed_after_their_last_use(net: Any) -> None:
    executor = _chain(net, steps=4)
    alive: list[weakref.ref[torch.Tensor]] = []
    counts: list[int] = []

    def count(name: str, value: torch.Tensor) -> None:
        alive.append(weakref.ref(value))
        del value
        counts.append(sum(reference() is not None for reference in alive))

    executor.run(net.feeds, on_tap=count, taps=["e0", "e1", "e2", "e3"])
    assert max(counts) <= 2  # the one that is read and the one that is made
    assert all(reference() is None for reference in alive)


def test_constants_are_folded(net: Any) -> None:
    weight = net.constant(torch.tensor([1.0, 4.0]))
    root = net.definition.add_unary(weight, trt.UnaryOperation.SQRT).get_output(0)
    scaled = net.definition.add_elementwise(net.input(torch.ones(2)), root, trt.ElementWiseOperation.PROD)
    executor = ReferenceExecutor(net.file(scaled.get_output(0)), {})
    assert [step.layer.type for step in executor._steps] == ["ELEMENTWISE"]
    assert executor.run(net.feeds)["y0"].tolist() == [1.0, 2.0]
    assert executor.run(net.feeds, taps=[root.name])[root.name].tolist() == [1.0, 2.0]


def test_unknown_layers_are_refused_by_type_and_name(net: Any) -> None:
    layer = net.definition.add_pooling_nd(net.input(torch.ones(1, 1, 4, 4)), trt.PoolingType.MAX, (2, 2))
    layer.name = "my pooling"
    with pytest.raises(
        UnsupportedLayerError, match=r"POOLING \(layer 'my pooling'\)\. It evaluates ACTIVATION, "
    ) as caught:
        ReferenceExecutor(net.file(layer.get_output(0)), {})
    assert caught.value.exit_code == 2


def _with_parameter(dtype: str = "float32", shape: tuple[int, ...] = (2, 3)) -> NetworkFile:
    return NetworkFile(
        flavour="tensorrt_rtx",
        flavour_version="1",
        inputs=(),
        outputs=("w",),
        tensors={"w": TensorRecord(dtype, shape)},
        layers=(LayerRecord("CONSTANT", "w", (), ("w",)),),
        constants={"w": Constant(shape, parameter="lm_head.weight")},
    )


def test_weights_are_taken_by_name_and_may_lack_leading_ones() -> None:
    weight = torch.randn(2, 3)
    assert_close(
        ReferenceExecutor(_with_parameter(shape=(1, 2, 3)), {"lm_head.weight": weight}).run({})["w"][0], weight
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "no tensor 'lm_head.weight'"),
        ({"lm_head.weight": torch.zeros(2, 4)}, r"'lm_head.weight' has shape \[2, 4\], expected \[2, 3\]"),
        ({"lm_head.weight": torch.zeros(3, 2)}, r"'lm_head.weight' has shape \[3, 2\], expected \[2, 3\]"),
        ({"lm_head.weight": torch.zeros(2, 3).half()}, "'lm_head.weight' has dtype torch.float16"),
    ],
)
def test_wrong_weights(weights: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        ReferenceExecutor(_with_parameter(), weights)


def test_neither_tensorrt_nor_transformers_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "rank0.network.json"
    _with_parameter().save(file)
    code = (
        "import sys, torch\n"
        "from trtllm_port.runtime.network import NetworkFile\n"
        "from trtllm_port.runtime.reference import ReferenceExecutor\n"
        f"ReferenceExecutor(NetworkFile.load({str(file)!r}), {{'lm_head.weight': torch.zeros(2, 3)}}).run({{}})\n"
        "assert not {'tensorrt', 'tensorrt_rtx', 'transformers', 'onnx'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_layer_without_its_attributes_is_refused() -> None:
    file = NetworkFile(
        flavour="tensorrt_rtx",
        flavour_version="1",
        inputs=("x",),
        outputs=("y",),
        tensors={name: TensorRecord("float32", (2,)) for name in "xy"},
        layers=(LayerRecord("UNARY", "u", ("x",), ("y",)),),
    )
    with pytest.raises(UnsupportedLayerError, match=r"UNARY \(layer 'u'\) with no attribute op"):
        ReferenceExecutor(file, {})
