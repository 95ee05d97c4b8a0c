"""Which GPU is there, which TensorRT library is there, and whether an engine could run on the two.

The GPU is found through the CUDA driver itself (`libcuda`), not through torch: a CPU build of torch on a machine with a
GPU is a case that a user wants to be told about.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from trtllm_port.errors import PortError

__all__ = [
    "FLAVOURS",
    "Gpu",
    "Machine",
    "find_gpus",
    "flavour_version",
    "require_backend",
    "this_machine",
    "what_gpu_lacks",
    "what_lacks",
]

FLAVOURS = ("tensorrt", "tensorrt_rtx")
"""The two libraries, in the order in which `auto` prefers them."""

BACKENDS = ("auto", *FLAVOURS, "reference")
"""What an engine directory can be built for, and run with."""

OLDEST_TENSORRT_CAPABILITY = (7, 5)
"""TensorRT 11 runs on Turing and later: https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/getting-started/support-matrix.html"""

# CUdevice_attribute values of cuda.h
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """One CUDA device.

    Args:
        name: as the driver gives it, "NVIDIA H200".
        compute_capability: "9.0".
        memory_bytes: all of its memory.
    """

    name: str
    compute_capability: str
    memory_bytes: int = 0

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.compute_capability}"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What an engine needs to run, as far as this machine has it.

    Args:
        gpu: the first visible one.
        flavours: the TensorRT libraries that can be imported, with their versions.
        capabilities: per library, the compute capabilities that it names; none for a library that names none.
        torch_has_cuda: whether torch can allocate on the GPU.
    """

    gpu: Gpu | None
    flavours: Mapping[str, str] = field(default_factory=dict)
    capabilities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    torch_has_cuda: bool = False


def this_machine() -> Machine:
    """Look at this machine; imports torch and the TensorRT libraries, as far as they are installed."""
    versions = {flavour: version for flavour in FLAVOURS if (version := flavour_version(flavour)) is not None}
    gpus = find_gpus()
    return Machine(
        gpu=gpus[0] if gpus else None,
        flavours=versions,
        capabilities={flavour: named_capabilities(flavour) for flavour in versions},
        torch_has_cuda=_torch_has_cuda(),
    )


def _torch_has_cuda() -> bool:
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError):
        return False
    return bool(torch.cuda.is_available())


def require_backend(backend: str) -> None:
    """PortError unless there is such a backend."""
    if backend not in BACKENDS:
        raise PortError(f"unknown backend `{backend}`", hint=f"one of {', '.join(BACKENDS)}")


def flavour_version(flavour: str) -> str | None:
    """The version of a TensorRT library that can really be imported, else None."""
    if importlib.util.find_spec(flavour) is None:
        return None
    try:
        return str(importlib.import_module(flavour).__version__)
    except (ImportError, OSError, AttributeError):  # bindings without their libraries
        return None


def named_capabilities(flavour: str) -> tuple[str, ...]:
    """What `tensorrt_rtx` has kernels for; plain `tensorrt` names none, it builds for the GPU that is there."""
    if flavour != "tensorrt_rtx":
        return ()
    members = importlib.import_module(flavour).ComputeCapability.__members__
    digits = sorted(int(match[1]) for name in members if (match := re.fullmatch(r"SM(\d+)", name)))
    return tuple(f"{number // 10}.{number % 10}" for number in digits)


def what_lacks(flavour: str, machine: Machine) -> tuple[str, str] | None:
    """Why this machine cannot run an engine of that library: (what lacks, the way out), or None where it can."""
    lack = what_gpu_lacks(flavour, machine)
    if lack is None and not machine.torch_has_cuda:
        return (
            f"the installed torch has no CUDA, so it cannot use this GPU ({machine.gpu})",
            "install a CUDA build of torch",
        )
    return lack


def what_gpu_lacks(flavour: str, machine: Machine) -> tuple[str, str] | None:
    """As `what_lacks`, for the library and the GPU alone: what `tensorrt` needs to compile."""
    gpu, version = machine.gpu, machine.flavours.get(flavour)
    if version is None:
        return (
            f"`{flavour}` is not installed or does not load",
            f"`pip install {_PACKAGES[flavour]}`, or use `--backend reference`",
        )
    if gpu is None:
        return "no CUDA GPU was found", "use `--backend reference`, which needs none"
    if not _supports(flavour, gpu.compute_capability, machine):
        return f"{flavour} {version} does not support this GPU ({gpu}){_named(flavour, machine)}", _other_way(flavour)
    return None


_PACKAGES = {"tensorrt": "trtllm-port[tensorrt]", "tensorrt_rtx": "tensorrt-rtx-cu13"}


def _supports(flavour: str, capability: str, machine: Machine) -> bool:
    if flavour == "tensorrt_rtx":
        return capability in machine.capabilities.get(flavour, ())
    major, minor = capability.split(".")
    return (int(major), int(minor)) >= OLDEST_TENSORRT_CAPABILITY


def _named(flavour: str, machine: Machine) -> str:
    named = machine.capabilities.get(flavour, ())
    return f"; it supports {', '.join(named)}" if named else ""


def _other_way(flavour: str) -> str:
    if flavour == "tensorrt_rtx":
        return "build and run with `--backend tensorrt`, which supports data-centre GPUs, or use `--backend reference`"
    return "use `--backend reference`"


def find_gpus() -> tuple[Gpu, ...]:
    """The CUDA devices that the driver shows (`CUDA_VISIBLE_DEVICES` applies); none without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_device(driver, index) for index in range(count.value))


def _device(driver: ctypes.CDLL, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(name.value.decode(), f"{major.value}.{minor.value}", memory.value)
