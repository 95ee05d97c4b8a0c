"""From a defined network to a serialized engine.

`tensorrt_rtx` compiles ahead of time, on a machine without a GPU, for the compute capabilities that are asked for.
`tensorrt` compiles for the GPU that is there.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trtllm_port.errors import EngineError, EnvironmentLackError, PortError
from trtllm_port.foundation.progress import Progress
from trtllm_port.runtime.engines.devices import Machine, named_capabilities, what_gpu_lacks
from trtllm_port.runtime.engines.directory import BuildConfig
from trtllm_port.runtime.engines.fused_attention import attention_shapes, fused_attention, set_capabilities
from trtllm_port.runtime.engines.monitor import progress_monitor
from trtllm_port.runtime.engines.profiles import add_profiles
from trtllm_port.runtime.engines.quantized_layers import (
    QuantizedLayers,
    refuse_lacking,
    report_quantized,
    weights_bytes,
)
from trtllm_port.runtime.engines.signals import held_signals
from trtllm_port.runtime.engines.writer import stream_writer
from trtllm_port.runtime.network import NetworkFile

__all__ = ["DEFAULT_CAPABILITIES", "AttentionReport", "EngineBuild", "compile_engine", "target_capabilities"]

DEFAULT_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
"""What an engine of `tensorrt_rtx` runs on unless told otherwise:
https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html"""


@dataclass(frozen=True, kw_only=True)
class AttentionReport:
    """One kind of attention layer of a network.

    Args:
        shape: "float16, 32/8 heads of 128": data type, query and key/value heads, head size.
        layers: how many have it.
        fused: per compute capability, whether the compiler has a fused kernel for it.
    """

    shape: str
    layers: int
    fused: dict[str, bool]


@dataclass(frozen=True, kw_only=True)
class EngineBuild:
    """What a build was and what it cost.

    Args:
        library: "tensorrt_rtx 1.7.1.116".
        compute_capabilities: compiled for.
        num_layers: of the network definition.
        attention: its attention layers.
        seconds: of the compiler, without the definition of the network.
        peak_memory_bytes: the process's greatest resident size until then.
        engine_bytes: the serialized engine.
        warnings: what the compiler said.
        weights_bytes: of it, as the compiler said; None where it did not.
        quantized: what became of quantized weights.
    """

    library: str
    compute_capabilities: tuple[str, ...]
    num_layers: int
    attention: tuple[AttentionReport, ...]
    seconds: float
    peak_memory_bytes: int
    engine_bytes: int
    warnings: tuple[str, ...] = ()
    weights_bytes: int | None = None
    quantized: tuple[QuantizedLayers, ...] = ()


def target_capabilities(flavour: str, wanted: Sequence[str], machine: Machine) -> tuple[str, ...]:
    """What a build is for: what was asked for, else the library's default, else the GPU that is there.

    Raises:
        PortError: the library cannot compile for one that was asked for.
        EnvironmentLackError: the library needs a GPU to compile, and there is none that it supports.
    """
    if flavour == "tensorrt_rtx":
        known = named_capabilities(flavour)
        if unknown := [capability for capability in wanted if capability not in known]:
            raise PortError(
                f"{flavour} does not compile for compute capability {', '.join(unknown)}; "
                f"it supports {', '.join(known)}",
                hint="data-centre GPUs (9.0, 10.0) are supported by `--backend tensorrt`",
            )
        return tuple(dict.fromkeys(wanted)) or DEFAULT_CAPABILITIES
    lack = what_gpu_lacks(flavour, machine)
    if lack is not None or machine.gpu is None:
        what, way_out = lack or ("no CUDA GPU was found", "")
        raise EnvironmentLackError(
            f"{flavour} compiles on the GPU that it compiles for: {what}",
            hint=f"{way_out}; `--backend tensorrt_rtx` compiles without a GPU",
        )
    here = machine.gpu.compute_capability
    if any(capability != here for capability in wanted):
        raise PortError(
            f"{flavour} compiles for the GPU that is here ({machine.gpu}), "
            f"not for compute capability {', '.join(wanted)}",
            hint=f"leave `--compute-capability` out or give {here}",
        )
    return (here,)


def compile_engine(
    network: Any,
    network_file: NetworkFile,
    path: Path,
    *,
    build: BuildConfig,
    taps: bool = False,
    progress: Progress | None = None,
) -> EngineBuild:
    """Compile a network and write the engine to `path`, under a temporary name until it is complete.

    Args:
        network: a `layers.Network`. It keeps the weights alive, which TensorRT knows by address only.
        network_file: of that network.
        path: the engine file to write.
        build: the limits and the compute capabilities, see `target_capabilities`.
        taps: make every tap readable in the engine. This prevents fusion across them: it is not the engine that ships.
        progress: called with (phase, done, total).

    Raises:
        EngineError: the compiler fails; with its words.
    """
    trt = network.trt
    _refuse_bfloat16_on_turing(network_file, build)
    refuse_lacking(network_file, build.compute_capabilities)
    config = _configure(network, build, taps)
    started = time.perf_counter()
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            messages = _compile_into(file, network, config, progress)
        if messages is None:
            raise _failure(network, network_file, build)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    seconds = time.perf_counter() - started
    details = list(network.logger.details)
    return EngineBuild(
        library=f"{trt.__name__} {trt.__version__}",
        compute_capabilities=build.compute_capabilities,
        num_layers=network.definition.num_layers,
        attention=_attention_reports(trt, network_file, build.compute_capabilities),
        seconds=seconds,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        engine_bytes=path.stat().st_size,
        warnings=tuple(f"{severity.lower()}: {text}" for severity, text in messages),
        weights_bytes=weights_bytes(details),
        quantized=report_quantized(network_file, details),
    )


def _configure(network: Any, build: BuildConfig, taps: bool) -> Any:
    config = network.builder.create_builder_config()
    add_profiles(network, config, build)
    set_capabilities(network.trt, config, build.compute_capabilities)
    config.profiling_verbosity = network.trt.ProfilingVerbosity.DETAILED  # the compiler lists what it made
    if taps:
        _mark_taps(network)
    return config


def _compile_into(file: BinaryIO, network: Any, config: Any, progress: Progress | None) -> list[tuple[str, str]] | None:
    """Run the compiler: what it said, or None where it failed and its logger holds the reason."""
    writer = stream_writer(network.trt, file)
    network.logger.drain()
    network.logger.details.clear()
    with held_signals() as pending:
        monitor = progress_monitor(network.trt, progress, pending)
        config.progress_monitor = monitor
        built = network.builder.build_serialized_network_to_stream(network.definition, config, writer)
    for error in (monitor.error, writer.error):
        if error is not None:
            raise error
    messages: list[tuple[str, str]] | None = network.logger.drain() if built else None
    return messages


def _mark_taps(network: Any) -> None:
    tapped, definition = set(network.taps.values()), network.definition
    for index in range(definition.num_layers):
        layer = definition.get_layer(index)
        for output in (layer.get_output(number) for number in range(layer.num_outputs)):
            if output.name in tapped:
                definition.mark_debug(output)


def _attention_reports(trt: Any, network_file: NetworkFile, capabilities: Sequence[str]) -> tuple[AttentionReport, ...]:
    """The compiler is asked only about layers that may be decomposed: with the others the build would have failed."""
    reports = []
    for shape, layers in sorted(attention_shapes(network_file).items()):
        fused = fused_attention(trt, shape, capabilities) if shape.decomposable else dict.fromkeys(capabilities, True)
        reports.append(AttentionReport(shape=str(shape), layers=layers, fused=fused))
    return tuple(reports)


def _refuse_bfloat16_on_turing(network_file: NetworkFile, build: BuildConfig) -> None:
    if network_file.dtype == "bfloat16" and "7.5" in build.compute_capabilities:
        raise EngineError(
            "bfloat16 does not exist on compute capability 7.5 (Turing)",
            hint="convert with `--dtype float16`, or leave 7.5 out of `--compute-capability`",
        )


def _failure(network: Any, network_file: NetworkFile, build: BuildConfig) -> EngineError:
    """The compiler's words; where it misses a fused attention kernel, which one and where."""
    said = "; ".join(text for _severity, text in network.logger.drain()) or "it gives no reason"
    missing = []
    if "ttention" in said:
        for shape in attention_shapes(network_file):
            fused = fused_attention(network.trt, shape, build.compute_capabilities) if not shape.decomposable else {}
            missing += [f"{shape} on {capability}" for capability, found in fused.items() if not found]
    hint = f"no fused attention kernel: {'; '.join(missing)}" if missing else None
    return EngineError(f"{network.trt.__name__} cannot compile the network: {said}", hint=hint)
