"""The compiler's refusals, its progress, and the two profiles."""

from __future__ import annotations

import errno
import io
import signal
from pathlib import Path

import pytest
import tensorrt_rtx

from trtllm_port.errors import EngineError, PortError
from trtllm_port.layers import Network
from trtllm_port.registry.ports import find_port
from trtllm_port.runtime import BuildConfig, NetworkFile, compile_engine
from trtllm_port.runtime.engines.builder import DEFAULT_CAPABILITIES, target_capabilities
from trtllm_port.runtime.engines.devices import Machine
from trtllm_port.runtime.engines.profiles import add_profiles

NOTHING = Machine(gpu=None)
LIMITS = BuildConfig(
    backend="tensorrt_rtx",
    library_version=tensorrt_rtx.__version__,
    compute_capabilities=("8.9",),
    max_batch_size=2,
    max_input_len=8,
    max_seq_len=16,
)


def network(mask_heads: int = 1) -> Network:
    """One attention layer of head size 64 over a cache, by hand: `layers.attention` would never ask for what fails."""
    result = Network(dtype="float16", max_seq_len=16, weights={})
    input_ids = result.add_input("input_ids", "int64", (-1, -1))
    cached = result.add_input("past_key_values.0.key", "float16", (-1, 2, 16, 64))
    result.mark_output(input_ids + 1, "logits")
    result.mark_output(cached * 2.0, "doubled")
    return result


def test_targets_default_to_what_the_library_runs_on() -> None:
    assert target_capabilities("tensorrt_rtx", (), NOTHING) == DEFAULT_CAPABILITIES
    assert target_capabilities("tensorrt_rtx", ("8.9", "7.5", "8.9"), NOTHING) == ("8.9", "7.5")


@pytest.mark.parametrize("wanted", ["9.0", "89", "sm_89", ""])
def test_targets_that_the_library_lacks_are_refused_with_those_it_has(wanted: str) -> None:
    with pytest.raises(PortError, match=r"it supports 7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1"):
        target_capabilities("tensorrt_rtx", (wanted,), NOTHING)


def test_an_engine_is_written_whole(tmp_path: Path) -> None:
    defined = network()
    report = compile_engine(defined, NetworkFile.from_network(defined), tmp_path / "rank0.engine", build=LIMITS)
    assert [path.name for path in tmp_path.iterdir()] == ["rank0.engine"]
    assert report.engine_bytes == (tmp_path / "rank0.engine").stat().st_size
    assert report.library == f"tensorrt_rtx {tensorrt_rtx.__version__}"
    assert report.attention == ()
    assert report.peak_memory_bytes > report.engine_bytes


def test_the_profiles_are_one_token_and_whole_prompts() -> None:
    defined = network()
    config = defined.builder.create_builder_config()
    ranges = []

    class Recorder:
        """A builder whose profiles tell what they were given."""

        def create_optimization_profile(self) -> object:
            profile = defined.builder.create_optimization_profile()
            profiles.append(profile)
            return profile

    profiles: list[object] = []
    stand_in = type("Stand", (), {"builder": Recorder(), "definition": defined.definition, "logger": defined.logger})
    add_profiles(stand_in, config, LIMITS)
    for profile in profiles:
        ranges.append([tuple(shape) for shape in profile.get_shape("input_ids")])  # type: ignore[attr-defined]
    assert ranges == [[(1, 1), (2, 1), (2, 1)], [(1, 1), (2, 8), (2, 8)]]
    cache = [tuple(shape) for shape in profiles[0].get_shape("past_key_values.0.key")]  # type: ignore[attr-defined]
    assert cache == [(1, 2, 16, 64), (2, 2, 16, 64), (2, 2, 16, 64)]


def test_an_input_that_no_session_feeds_is_refused(tmp_path: Path) -> None:
    defined = network()
    defined.mark_output(defined.add_input("pixel_values", "float16", (-1, 3)) * 2.0, "pixels")
    with pytest.raises(EngineError, match="pixel_values"):
        compile_engine(defined, NetworkFile.from_network(defined), tmp_path / "rank0.engine", build=LIMITS)


def test_what_a_callback_raises_ends_the_build_and_comes_out(tmp_path: Path) -> None:
    def stop(_phase: str, done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    defined = network()
    file = NetworkFile.from_network(defined)
    with pytest.raises(KeyboardInterrupt):
        compile_engine(defined, file, tmp_path / "rank0.engine", build=LIMITS, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_build_and_reaches_its_handler(tmp_path: Path, number: signal.Signals) -> None:
    """Not what the handler raises inside TensorRT's callbacks, which the bindings would swallow."""

    class Stopped(Exception):
        pass

    def stop(_number: int, _frame: object) -> None:
        raise Stopped

    defined = network()
    file = NetworkFile.from_network(defined)
    before = signal.signal(number, stop)
    try:
        with pytest.raises(Stopped):
            compile_engine(
                defined,
                file,
                tmp_path / "rank0.engine",
                build=LIMITS,
                progress=lambda _phase, done, _total: signal.raise_signal(number) if done == 1 else None,
            )
    finally:
        assert signal.signal(number, before) is stop
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_comes_out_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(io.BytesIO):
        def write(self, _data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    defined = network()
    file = NetworkFile.from_network(defined)
    monkeypatch.setattr(Path, "open", lambda _self, _mode: FullDisk())
    with pytest.raises(OSError, match="No space left"):
        compile_engine(defined, file, tmp_path / "rank0.engine", build=LIMITS)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_fused_kernel_is_named(tmp_path: Path) -> None:
    defined = Network(dtype="float16", max_seq_len=16, weights={})
    heads = defined.add_input("past_key_values.0.key", "float16", (-1, 2, 16, 8))
    trt = defined.trt
    layer = defined.definition.add_attention_v2(
        heads.itensor, heads.itensor, heads.itensor, trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.NONE
    )
    defined.mark_output(defined.add("attention", layer), "logits")
    with pytest.raises(EngineError) as caught:
        compile_engine(defined, NetworkFile.from_network(defined), tmp_path / "rank0.engine", build=LIMITS)
    assert "float16, 2/2 heads of 8 on 8.9" in str(caught.value.hint)


def test_taps_can_be_kept_in_the_engine(tiny_llama: Path, llama_workspace: Path, tmp_path: Path) -> None:
    port = find_port(llama_workspace, "LlamaForCausalLM").cls.from_hugging_face(tiny_llama, "float16")
    defined = port.define(max_seq_len=16)
    file = NetworkFile.from_network(defined)
    compile_engine(defined, file, tmp_path / "rank0.engine", build=LIMITS, taps=True)
    tapped = [defined.definition.get_layer(i) for i in range(defined.definition.num_layers)]
    marked = {layer.get_output(0).name for layer in tapped if defined.definition.is_debug_tensor(layer.get_output(0))}
    assert marked == set(defined.taps.values()) - set(file.inputs)
    assert defined.taps["model.layers.1.mlp"] in marked
