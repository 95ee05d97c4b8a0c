"""What computes an engine directory's network on this machine: TensorRT where it can, else the reference executor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trtllm_port.errors import EngineError, EnvironmentLackError
from trtllm_port.foundation.foreign import reading
from trtllm_port.runtime.engines.devices import FLAVOURS, Machine, require_backend, what_lacks
from trtllm_port.runtime.engines.directory import (
    REBUILD,
    BuildConfig,
    EngineDirectory,
    engine_name,
    network_name,
    weights_name,
)

if TYPE_CHECKING:
    from trtllm_port.runtime.network.executor import Executor


def choose_backend(wanted: str, directory: EngineDirectory, machine: Machine) -> tuple[str, str]:
    """Which executor runs an engine directory here: (backend, why not TensorRT where `auto` did not take it).

    Raises:
        EngineError: the directory holds no engine of the wanted library.
        EnvironmentLackError: this machine cannot run the wanted library.
        PortError: no such backend.
    """
    require_backend(wanted)
    if wanted == "reference":
        return "reference", ""
    built = directory.build.backend
    if wanted != "auto" and built != wanted:
        raise EngineError(
            f"`{directory.path}` was built with `--backend {built}`, it holds no {wanted} engine",
            hint=f"build with `--backend {wanted}`, or run with `--backend {built}`",
        )
    if built not in FLAVOURS:
        return "reference", f"built with `--backend {built}`, so there is no engine file"
    lack = what_lacks(built, machine) or _other_gpu(directory.build, machine)
    if lack is None:
        return built, ""
    if wanted == "auto":
        return "reference", lack[0]
    raise EnvironmentLackError(f"the {built} engine cannot run here: {lack[0]}", hint=lack[1])


def _other_gpu(build: BuildConfig, machine: Machine) -> tuple[str, str] | None:
    if machine.gpu is None or machine.gpu.compute_capability in build.compute_capabilities:
        return None
    wanted = machine.gpu.compute_capability
    return (
        f"the engine was compiled for compute capability {', '.join(build.compute_capabilities)}, "
        f"this GPU is {machine.gpu}",
        f"build with `--compute-capability {wanted}`, or use `--backend reference`",
    )


def torch_device(device: str) -> str:
    """The device with its number: tensors of "cuda" say that they are on "cuda:0"."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentLackError(f"the device `{device}` was asked for, torch has no CUDA here", hint="use `cpu`")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device


def reference_executor(directory: EngineDirectory, device: str) -> Executor:
    """The executor that walks an engine directory's network with torch; EngineError where its files are altered."""
    from trtllm_port.layers.weights import SafetensorsFile
    from trtllm_port.runtime.network import NetworkFile
    from trtllm_port.runtime.reference import ReferenceExecutor

    directory.verify([*directory.network_files(0), weights_name(0)])
    network = NetworkFile.load(directory.path / network_name(0))
    weights = SafetensorsFile(directory.path / weights_name(0)).tensors()
    with reading(directory.path / network_name(0), EngineError, hint=REBUILD, failed="cannot be run"):
        return ReferenceExecutor(network, weights, device=device)


def tensorrt_executor(directory: EngineDirectory, flavour: str) -> Executor:
    """The executor of an engine directory's engine; EngineError where its files are altered."""
    from trtllm_port.runtime.engines.engine import TensorRTExecutor

    directory.verify([engine_name(0), *directory.network_files(0)])
    return TensorRTExecutor(directory.path / engine_name(0), directory.path / network_name(0), flavour=flavour)
