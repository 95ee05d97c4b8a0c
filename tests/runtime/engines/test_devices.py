"""What lacks for TensorRT: every case names the GPU, the library and the way out."""

from __future__ import annotations

import ctypes

import pytest

from trtllm_port.runtime.engines import devices as engine_devices
from trtllm_port.runtime.engines.devices import Gpu, Machine, find_gpus, named_capabilities, this_machine, what_lacks

RTX = {"tensorrt_rtx": "1.7.1"}
RTX_CAPABILITIES = {"tensorrt_rtx": ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")}
H200 = Gpu("NVIDIA H200", "9.0")
RTX4090 = Gpu("NVIDIA GeForce RTX 4090", "8.9")


def machine(gpu: Gpu | None = None, *, cuda: bool = True, **flavours: str) -> Machine:
    return Machine(gpu=gpu, flavours=flavours or RTX, capabilities=RTX_CAPABILITIES, torch_has_cuda=cuda)


def test_a_supported_gpu_lacks_nothing() -> None:
    assert what_lacks("tensorrt_rtx", machine(RTX4090)) is None
    assert what_lacks("tensorrt", machine(H200, tensorrt="11.4")) is None


@pytest.mark.parametrize(
    ("flavour", "here", "words"),
    [
        (
            "tensorrt_rtx",
            machine(H200),
            ("NVIDIA H200", "9.0", "tensorrt_rtx 1.7.1", "8.9", "--backend tensorrt", "reference"),
        ),
        (
            "tensorrt",
            machine(Gpu("Tesla V100", "7.0"), tensorrt="11.4"),
            ("Tesla V100", "7.0", "tensorrt 11.4", "reference"),
        ),
        ("tensorrt", machine(H200), ("`tensorrt` is not installed", "pip install trtllm-port[tensorrt]")),
        ("tensorrt_rtx", machine(None), ("no CUDA GPU", "--backend reference")),
        ("tensorrt_rtx", machine(RTX4090, cuda=False), ("torch has no CUDA", "RTX 4090", "CUDA build of torch")),
    ],
)
def test_what_lacks_is_told(flavour: str, here: Machine, words: tuple[str, ...]) -> None:
    lack = what_lacks(flavour, here)
    assert lack is not None
    assert [word for word in words if word not in " ".join(lack)] == []


def test_the_library_names_its_own_capabilities() -> None:
    assert named_capabilities("tensorrt_rtx") == ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
    assert named_capabilities("tensorrt") == ()


def test_bindings_without_their_libraries_count_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_name: str) -> None:
        raise OSError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr(engine_devices.importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(engine_devices.importlib, "import_module", broken)
    assert engine_devices.flavour_version("tensorrt") is None
    assert this_machine().flavours == {}


class FakeDriver:
    """The five calls of `libcuda`, for two devices."""

    def cuInit(self, _flags: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: ctypes._Pointer) -> int:  # type: ignore[type-arg]
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device: object, index: int) -> int:
        device._obj.value = index  # type: ignore[attr-defined]
        return 0

    def cuDeviceGetName(self, name: ctypes.Array[ctypes.c_char], _size: int, device: ctypes.c_int) -> int:
        name.value = b"NVIDIA H200 number %d" % device.value
        return 0

    def cuDeviceGetAttribute(self, value: object, attribute: int, _device: ctypes.c_int) -> int:
        value._obj.value = {75: 9, 76: 0}[attribute]  # type: ignore[attr-defined]
        return 0

    def cuDeviceTotalMem_v2(self, memory: object, _device: ctypes.c_int) -> int:
        memory._obj.value = 141 << 30  # type: ignore[attr-defined]
        return 0


def test_gpus_are_found_through_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: FakeDriver())
    assert find_gpus() == (
        Gpu("NVIDIA H200 number 0", "9.0", 141 << 30),
        Gpu("NVIDIA H200 number 1", "9.0", 141 << 30),
    )


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert find_gpus() == ()
