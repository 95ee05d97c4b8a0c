"""Which executor a session takes: never TensorRT where it cannot run, and never the reference executor in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtllm_port.errors import EngineError, EnvironmentLackError, PortError
from trtllm_port.runtime.backends import choose_backend
from trtllm_port.runtime.engines.devices import Gpu, Machine
from trtllm_port.runtime.engines.directory import BuildConfig, EngineDirectory

RTX4090 = Gpu("NVIDIA GeForce RTX 4090", "8.9")
H200 = Gpu("NVIDIA H200", "9.0")


def engine(backend: str = "tensorrt_rtx", capabilities: tuple[str, ...] = ("8.6", "8.9")) -> EngineDirectory:
    build = BuildConfig(
        backend=backend,
        library_version="1.7.1",
        compute_capabilities=capabilities,
        max_batch_size=1,
        max_input_len=8,
        max_seq_len=8,
    )
    return EngineDirectory(path=Path("engine"), build=build, pretrained_config={})


def machine(gpu: Gpu | None) -> Machine:
    return Machine(
        gpu=gpu,
        flavours={"tensorrt_rtx": "1.7.1"},
        capabilities={"tensorrt_rtx": ("8.6", "8.9", "12.0")},
        torch_has_cuda=gpu is not None,
    )


@pytest.mark.parametrize("wanted", ["auto", "tensorrt_rtx"])
def test_the_engine_is_taken_where_it_runs(wanted: str) -> None:
    assert choose_backend(wanted, engine(), machine(RTX4090)) == ("tensorrt_rtx", "")


def test_the_reference_executor_is_taken_where_it_is_asked_for() -> None:
    assert choose_backend("reference", engine(), machine(RTX4090)) == ("reference", "")


@pytest.mark.parametrize(
    ("directory", "here", "why"),
    [
        (engine(), machine(None), "no CUDA GPU"),
        (engine(), machine(H200), "tensorrt_rtx 1.7.1 does not support this GPU (NVIDIA H200, compute capability 9.0)"),
        (engine("reference", ()), machine(RTX4090), "no engine file"),
        (
            engine(capabilities=("12.0",)),
            machine(RTX4090),
            "compiled for compute capability 12.0, this GPU is NVIDIA GeForce",
        ),
        (engine("tensorrt"), machine(H200), "`tensorrt` is not installed"),
    ],
)
def test_auto_says_why_it_fell_back(directory: EngineDirectory, here: Machine, why: str) -> None:
    chosen, note = choose_backend("auto", directory, here)
    assert chosen == "reference"
    assert why in note


def test_an_unsupported_gpu_is_an_error_where_tensorrt_was_asked_for() -> None:
    with pytest.raises(EnvironmentLackError) as caught:
        choose_backend("tensorrt_rtx", engine(), machine(H200))
    assert caught.value.exit_code == 3
    for word in ("NVIDIA H200", "9.0", "tensorrt_rtx", "--backend reference"):
        assert word in str(caught.value)


def test_an_engine_for_other_gpus_names_the_option_to_build_with() -> None:
    with pytest.raises(EnvironmentLackError, match=r"--compute-capability 8\.9"):
        choose_backend("tensorrt_rtx", engine(capabilities=("12.0",)), machine(RTX4090))


def test_an_engine_of_the_other_library_is_no_engine_for_this_one() -> None:
    with pytest.raises(EngineError, match="built with `--backend tensorrt_rtx`"):
        choose_backend("tensorrt", engine(), machine(RTX4090))


def test_unknown_backends_are_refused() -> None:
    with pytest.raises(PortError, match="`onnx`"):
        choose_backend("onnx", engine(), machine(None))
