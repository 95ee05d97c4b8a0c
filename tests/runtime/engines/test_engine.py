"""The TensorRT executor's logic, with stand-ins for the library and the GPU: bindings, aliases, profiles, taps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trtllm_port.errors import EngineError
from trtllm_port.runtime.engines import engine as engine_module
from trtllm_port.runtime.engines.engine import TensorRTExecutor

INPUT, OUTPUT = "INPUT", "OUTPUT"
TENSORS = {
    "input_ids": (INPUT, "int64", (-1, -1)),
    "position_ids": (INPUT, "int64", (-1, -1)),
    "logits_indices": (INPUT, "int64", (-1, -1)),
    "past_key_values.0.key": (INPUT, "float16", (-1, 2, 16, 64)),
    "logits": (OUTPUT, "float16", (-1, -1, 61)),
    "present_key_values.0.key": (OUTPUT, "float16", (-1, 2, 16, 64)),
}


class Context:
    """Records what it is told; `refuse` makes one call fail."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.profiles: list[int] = []
        self.debugged: set[str] = set()
        self.listener: Any = None
        self.runs = 0
        self.refuse = ""

    def set_optimization_profile_async(self, index: int, _stream: int) -> bool:
        self.profiles.append(index)
        return self.refuse != "profile"

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return self.refuse != "shape"

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def get_tensor_shape(self, _name: str) -> tuple[int, ...]:
        return (*self.shapes["logits_indices"], 61)

    def set_all_tensors_debug_state(self, _on: bool) -> None:
        self.debugged.clear()

    def set_debug_listener(self, listener: object) -> None:
        self.listener = listener

    def set_tensor_debug_state(self, name: str, _on: bool) -> None:
        self.debugged.add(name)

    def execute_async_v3(self, stream: int) -> bool:
        self.runs += 1
        for name in sorted(self.debugged):
            self.listener.process_debug_tensor(name, None, "float16", (1, 2), name, stream)
        return self.refuse != "run"


class Library(SimpleNamespace):
    """As much of `tensorrt_rtx` as the executor touches."""

    def __init__(self) -> None:
        super().__init__(
            __name__="tensorrt_rtx", __version__="1.7.1", float32="float32", float16="float16", int64="int64"
        )
        self.TensorIOMode = SimpleNamespace(INPUT=INPUT)
        self.bfloat16, self.int32, self.bool = "bfloat16", "int32", "bool"
        self.IDebugListener = type("IDebugListener", (), {"__init__": lambda self: None})
        self.context = Context()
        self.engine: Any = SimpleNamespace(
            num_io_tensors=len(TENSORS),
            get_tensor_name=lambda index: list(TENSORS)[index],
            get_tensor_dtype=lambda name: TENSORS[name][1],
            get_tensor_shape=lambda name: TENSORS[name][2],
            get_tensor_mode=lambda name: TENSORS[name][0],
            is_debug_tensor=lambda name: name == "norm_tensor",
            create_execution_context=lambda: self.context,
        )

    def Runtime(self, _logger: object) -> SimpleNamespace:
        return SimpleNamespace(deserialize_cuda_engine=lambda _data: self.engine)


class Stream:
    device = torch.device("cpu")
    cuda_stream = 7

    def wait_stream(self, _other: object) -> None: ...

    def synchronize(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_error: object) -> None: ...


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    cuda = SimpleNamespace(
        Stream=Stream,
        current_stream=Stream,
        ExternalStream=lambda _stream: None,
        stream=lambda _stream: Stream(),
        get_device_name=lambda: "NVIDIA GeForce RTX 4090",
    )
    monkeypatch.setattr(engine_module.torch, "cuda", cuda)
    monkeypatch.setattr(engine_module, "load_flavour", lambda _name: library)
    monkeypatch.setattr(
        engine_module, "get_logger", lambda _trt: SimpleNamespace(drain=lambda: [("ERROR", "out of memory")])
    )
    taps = {"model.norm": "norm_tensor", "model.layers.0": "fused_away"}
    network = SimpleNamespace(taps=taps, computed_elsewhere={}, parameters=frozenset({"model.norm.weight"}))
    monkeypatch.setattr(engine_module.NetworkFile, "load", lambda _path: network)
    monkeypatch.setattr(engine_module, "_pointer", lambda capsule: capsule)
    monkeypatch.setattr(engine_module, "_at_address", lambda _address, shape, dtype: torch.ones(shape, dtype=dtype))
    return library


@pytest.fixture
def executor(library: Library, tmp_path: Path) -> TensorRTExecutor:
    (tmp_path / "rank0.engine").write_bytes(b"engine")
    return TensorRTExecutor(tmp_path / "rank0.engine", tmp_path / "rank0.network.json", flavour="tensorrt_rtx")


def feeds(tokens: int) -> dict[str, torch.Tensor]:
    ids = torch.zeros(3, tokens, dtype=torch.int64)
    cache = torch.zeros(3, 2, 16, 64, dtype=torch.float16)
    return {"input_ids": ids, "position_ids": ids, "logits_indices": ids[:, :1], "past_key_values.0.key": cache}


def test_the_name_says_library_gpu_and_that_it_is_unproven(executor: TensorRTExecutor) -> None:
    assert executor.name == "tensorrt_rtx 1.7.1 (NVIDIA GeForce RTX 4090; not yet proven on hardware)"


def test_specs_come_from_the_engine(executor: TensorRTExecutor) -> None:
    assert [spec.name for spec in executor.inputs] == list(TENSORS)[:4]
    assert (executor.outputs[0].name, executor.outputs[0].shape) == ("logits", (-1, -1, 61))


def test_a_cache_and_its_output_share_one_address(executor: TensorRTExecutor, library: Library) -> None:
    given = feeds(4)
    outputs = executor.run(given)
    cache = given["past_key_values.0.key"]
    assert outputs["present_key_values.0.key"] is cache
    assert library.context.addresses["present_key_values.0.key"] == cache.data_ptr()
    assert library.context.addresses["past_key_values.0.key"] == cache.data_ptr()
    assert outputs["logits"].shape == (3, 1, 61)
    assert outputs["logits"].dtype == torch.float16
    assert library.context.addresses["logits"] == outputs["logits"].data_ptr()
    assert library.context.shapes["input_ids"] == (3, 4)


def test_one_token_runs_in_the_decode_profile(executor: TensorRTExecutor, library: Library) -> None:
    for tokens in (4, 1, 1, 5):
        executor.run(feeds(tokens))
    assert library.context.profiles == [1, 0, 1]
    assert library.context.runs == 4


def test_only_taps_that_the_engine_kept_are_offered_and_streamed(executor: TensorRTExecutor, library: Library) -> None:
    assert executor.tap_names == ("model.norm",)
    seen: list[tuple[str, tuple[int, ...]]] = []
    executor.run(feeds(1), on_tap=lambda name, tensor: seen.append((name, tuple(tensor.shape))), taps=["model.norm"])
    assert seen == [("model.norm", (1, 2))]
    assert executor.run(feeds(1), taps=["model.norm"])["model.norm"].shape == (1, 2)
    executor.run(feeds(1))
    assert library.context.debugged == set()
    with pytest.raises(EngineError, match=r"without the taps model\.layers\.0"):
        executor.run(feeds(1), taps=["model.layers.0"])


def test_what_a_tap_raises_comes_out(executor: TensorRTExecutor) -> None:
    def broken(_name: str, _tensor: torch.Tensor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        executor.run(feeds(1), on_tap=broken, taps=["model.norm"])


@pytest.mark.parametrize("call", ["profile", "shape", "run"])
def test_failures_carry_the_librarys_words(executor: TensorRTExecutor, library: Library, call: str) -> None:
    library.context.refuse = call
    with pytest.raises(EngineError, match="out of memory"):
        executor.run(feeds(1))


def test_an_engine_that_the_library_refuses(library: Library, tmp_path: Path) -> None:
    library.engine = None
    (tmp_path / "rank0.engine").write_bytes(b"engine")
    with pytest.raises(EngineError, match=r"refuses .*rank0\.engine.*out of memory"):
        TensorRTExecutor(tmp_path / "rank0.engine", tmp_path / "n.json", flavour="tensorrt_rtx")
