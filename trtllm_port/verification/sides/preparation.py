"""From a model directory to what runs: Hugging Face's model, the port's network in a working directory, their input.

This is composition of the stages `convert` and `build`; neither knows the other, nor this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from trtllm_port.errors import ConfigError, UnsupportedModelError
from trtllm_port.foundation.claims import scratch
from trtllm_port.foundation.progress import Progress
from trtllm_port.huggingface.compatibility.quantized_inputs import Codes, write_inputs
from trtllm_port.huggingface.configs import whole_config
from trtllm_port.huggingface.quiet import quiet_transformers
from trtllm_port.huggingface.text_part import load_hf_config, loads_whole
from trtllm_port.layers.quantization import (
    CheckpointWeights,
    QuantizationSummary,
    QuantizeOptions,
    read_formats,
    write_dequantized,
    write_plain,
)
from trtllm_port.layers.weights import HuggingFaceWeights, SafetensorsFile, TensorSource
from trtllm_port.registry.port_code import port_code
from trtllm_port.registry.ports import PortEntry, find_port
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.hugging_face_sides import LoadHuggingFace
from trtllm_port.verification.sides.session_runner import SessionRunner
from trtllm_port.verification.stimulus.settings import DiffSettings
from trtllm_port.verification.stimulus.stimulus import (
    Stimulus,
    enough_tokens,
    make_stimulus,
    switch_lengths,
    without_crossings,
)

if TYPE_CHECKING:
    from trtllm_port.conversion import ConvertResult
    from trtllm_port.conversion.rounded_source import RoundedEntry
    from trtllm_port.conversion.source import Source
    from trtllm_port.layers import PretrainedConfig
    from trtllm_port.layers.weights import WeightPlan

FALLBACK_LENGTH = 2048  # where a config names no longest position


class PortOptions(TypedDict, total=False):
    """Which port of a model is verified, and with which weights.

    Attributes:
        workspace: where the port is; by default the current directory.
        dtype: of the port; "auto", the default, follows the checkpoint.
        random_weights: take seeded random weights instead of the directory's own.
    """

    workspace: Path
    dtype: str
    random_weights: bool


@dataclass(frozen=True, kw_only=True)
class Model:
    """A Hugging Face model and the port that serves it.

    Attributes:
        given: the directory as the user named it; it may hold a tokenizer.
        source: the directory whose weights are verified: `given`, or random weights for its config.
        config: Hugging Face's config of the language model, defaults filled in.
        architecture: Hugging Face's class name.
        dtype: of the port; "auto" until the conversion has settled it.
        port: the registered port.
        workspace: where the port is.
        trust_remote_code: run Python code that comes with the model.
        random_weights: whether the weights are random.
        seed: of those.
        converted: the directory that is converted: of a quantized model its own, else `source`.
        quantized: how the weights of `given` are quantized; None: they are not, or are not taken.
        quantize: how plain weights are quantized by the conversion; None: they are not.
        quantized_weights: names of those that are quantized, in either way.
        quantized_inputs: those of them whose inputs are, on both sides.
        rounded: what `quantize` quantizes, as far as one can be quantized without another.
        in_memory: its weights; None: they are those of `source`.
    """

    given: Path
    source: Path
    config: dict[str, Any]
    architecture: str
    dtype: str
    port: PortEntry
    workspace: Path
    trust_remote_code: bool
    random_weights: bool
    seed: int
    converted: Path
    quantized: QuantizationSummary | None = None
    quantize: QuantizeOptions | None = None
    quantized_weights: frozenset[str] = frozenset()
    quantized_inputs: frozenset[str] = frozenset()
    rounded: tuple[RoundedEntry, ...] = ()
    in_memory: TensorSource | None = field(default=None, repr=False)

    @property
    def weights(self) -> TensorSource:
        """The checkpoint's tensors.

        Raises:
            CheckpointError: the files are incomplete.
        """
        return HuggingFaceWeights(self.source) if self.in_memory is None else self.in_memory

    @property
    def longest(self) -> int:
        """The most positions that the model takes."""
        longest: int = self.config.get("max_position_embeddings") or FALLBACK_LENGTH
        return longest

    @property
    def padding(self) -> int | None:
        """Id of the padding token, None where the config names none."""
        token: int | None = self.config.get("pad_token_id")
        return token

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        size: int = self.config["vocab_size"]
        return size


def find_model(
    model_dir: Path,
    work: Path,
    settings: DiffSettings,
    *,
    workspace: Path = Path("."),
    dtype: str = "auto",
    random_weights: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Find the port of a model; write random weights for it if they are asked for, or dequantized ones.

    Args:
        model_dir: a Hugging Face model directory.
        work: where weights are written.
        settings: whether code that comes with the model may run, and the seed of random weights.
        workspace, dtype, random_weights: see `PortOptions`.
        progress: called with (phase, done, total).

    Raises:
        ConfigError: the config cannot be read.
        UnsupportedModelError: it names no architecture.
        RegistryError: no port serves the architecture.
    """
    config = load_hf_config(model_dir, settings.trust_remote_code)
    if not config.architectures:
        raise UnsupportedModelError(
            f"`{model_dir / 'config.json'}` names no architecture",
            hint='"architectures" lists the model class, as ["LlamaForCausalLM"]',
        )
    text = config.get_text_config()
    port = find_port(workspace, *config.architectures)
    source = model_dir
    if random_weights:
        source = _random_weights(model_dir, work / "random", settings.seed, settings.trust_remote_code)
    else:
        _refuse_whole(model_dir, settings.trust_remote_code)
    model = Model(
        given=model_dir,
        source=source,
        config={**text.to_dict(), **_aliases(text)},
        architecture=port.architecture,
        dtype=_dtype(text, config) if dtype == "auto" and random_weights else dtype,
        port=port,
        workspace=workspace,
        trust_remote_code=settings.trust_remote_code,
        random_weights=random_weights,
        seed=settings.seed,
        converted=source,
    )
    if settings.quantize is not None:
        return _rounded(model, settings, work / "dequantized", progress)
    return model if random_weights else _dequantized(model, work / "dequantized", progress)


@contextmanager
def opened_model(
    model_dir: Path, settings: DiffSettings, progress: Progress | None = None, **port: Unpack[PortOptions]
) -> Iterator[tuple[Model, Path]]:
    """Give a model with its port, as `find_model` finds it, and a working directory that lasts as long."""
    with scratch() as work:
        yield find_model(model_dir, work, settings, progress=progress, **port), work


def hugging_face_loader(model: Model, device: str) -> LoadHuggingFace:
    """Return what loads Hugging Face's model in a dtype."""
    return partial(HuggingFaceRunner.load, model.source, device=device, trust_remote_code=model.trust_remote_code)


def stimulus_of(model: Model, settings: DiffSettings, longest: int) -> Stimulus:
    """Return what a model is fed, of at most `longest` tokens."""
    stimulus = make_stimulus(
        model.given,
        tokens=settings.tokens or enough_tokens(model.config),
        longest=longest,
        vocab_size=model.vocab_size,
        padding=model.padding,
        prompt_file=settings.prompt_file,
        seed=settings.seed,
        trust_remote_code=model.trust_remote_code,
    )
    return without_crossings(stimulus, switch_lengths(model.config))


def settle_dtype(model: Model, work: Path, engine: SessionRunner | None, progress: Progress | None = None) -> Model:
    """Return the model with the dtype that "auto" stands for: the engine's, else what `convert` takes.

    Raises:
        ConfigError: a dtype was asked for that the engine does not have.
    """
    if engine is not None:
        dtype = str(engine.session.config["pretrained_config"]["dtype"])
        if model.dtype not in ("auto", dtype):
            raise ConfigError(f"the engine is in {dtype}, {model.dtype} was asked for", hint="leave out `--dtype`")
        return replace(model, dtype=dtype)
    if model.dtype != "auto":
        return model
    return replace(model, dtype=convert(model, "auto", work / "checkpoint-auto", progress).dtype)


def convert(model: Model, dtype: str, output: Path, progress: Progress | None = None) -> ConvertResult:
    """Convert the model's weights."""
    from trtllm_port.conversion import convert_checkpoint

    return convert_checkpoint(
        model.converted,
        output,
        workspace=model.workspace,
        dtype=dtype,
        weights=model.quantize or "keep",
        trust_remote_code=model.trust_remote_code,
        progress=progress,
    )


def prepare_port(
    model: Model,
    dtype: str,
    work: Path,
    *,
    length: int,
    rows: int,
    device: str,
    progress: Progress | None = None,
) -> SessionRunner:
    """Convert the weights and define the network in `dtype`, without compiling an engine.

    Args:
        model: the model and its port.
        dtype: of weights and activations.
        work: an existing directory for checkpoint and network.
        length: tokens that the KV cache must hold.
        rows: prompts at once.
        device: where it runs: that of Hugging Face's side, for each device rounds in its own way.
        progress: called with (phase, done, total).
    """
    from trtllm_port.building import build_engine

    checkpoint, engine = work / f"checkpoint-{dtype}", network_of(work, dtype)
    convert(model, dtype, checkpoint, progress)
    build_engine(
        checkpoint,
        engine,
        workspace=model.workspace,
        backend="reference",
        max_batch_size=rows,
        max_input_len=length,
        max_seq_len=length,
        progress=progress,
    )
    return open_port(engine, backend="reference", device=device)


def network_of(work: Path, dtype: str) -> Path:
    """Return where `prepare_port` puts a network."""
    return work / f"network-{dtype}"


def open_port(engine_dir: Path, *, backend: str, device: str) -> SessionRunner:
    """Open an engine directory for comparison."""
    from trtllm_port.runtime.session import Session

    return SessionRunner(Session.load(engine_dir, backend=backend, device=device), weights_in(engine_dir))


def weights_in(engine_dir: Path) -> TensorSource:
    """Return the parameters in an engine directory, read when they are asked for; quantized ones dequantized."""
    from trtllm_port.runtime.engines.directory import EngineDirectory, weights_name

    config = EngineDirectory.read(engine_dir).pretrained_config
    return CheckpointWeights(SafetensorsFile(engine_dir / weights_name(0)), read_formats(config), str(config["dtype"]))


def _aliases(config: Any) -> dict[str, Any]:
    """Return the standard names that a config knows under its own, as GPT-2's `n_positions`."""
    return {name: getattr(config, name) for name in getattr(config, "attribute_map", {}) if hasattr(config, name)}


def _dtype(*configs: Any) -> str:
    named = next((config.dtype for config in configs if config.dtype is not None), "float32")
    return str(named).removeprefix("torch.")


def _dequantized(model: Model, output: Path, progress: Progress | None) -> Model:
    """The model, with a directory of what its weights stand for if they are quantized."""
    source = write_dequantized(model.given, output, progress)
    if source is None:
        return model
    names = frozenset(filter(source.is_quantized, source.names()))
    summary, inputs = source.summary(), frozenset[str]()
    if any(group.activation for group in summary.groups):
        with _conversion(model) as (converted, plan, config):
            inputs = _write_inputs(output, converted, plan, config.dtype)
    return replace(model, source=output, quantized=summary, quantized_weights=names, quantized_inputs=inputs)


def _rounded(model: Model, settings: DiffSettings, output: Path, progress: Progress | None) -> Model:
    """The model, with a directory of what its weights are after they were quantized, and its inputs if they are.

    Scales are those of the port's data type, in whatever it is compared.
    """
    from trtllm_port.conversion.rounded_source import RoundedWeights

    if (quantize := settings.quantize) is None:
        return model
    if quantize.wants_ranges:
        if settings.calibrate is None:
            raise ConfigError(f"`{quantize.algorithm}` quantizes inputs, and nothing says how large they are")
        quantize = replace(quantize, ranges=settings.calibrate(model.converted, settings, progress))
    with _conversion(replace(model, quantize=quantize)) as (source, plan, config):
        write_plain(source, model.converted, output, progress)
        names = frozenset(filter(source.is_quantized, source.names()))
        inputs = _write_inputs(output, source, plan, config.dtype)
        rounded = tuple(source.entries) if isinstance(source, RoundedWeights) else ()
    return replace(
        model,
        source=output,
        quantize=replace(quantize, scale_dtype=config.dtype),
        quantized_weights=names,
        quantized_inputs=inputs,
        rounded=rounded,
    )


@contextmanager
def _conversion(model: Model) -> Iterator[tuple[Source, WeightPlan, PretrainedConfig]]:
    """Give the weights that are converted, how they fill the port's parameters, and the port's config."""
    from trtllm_port.conversion.opening import open_source, plan_conversion

    with closing(open_source(model.converted, model.quantize or "keep")) as source, port_code(model.port):
        config = model.port.cls.config_class.from_hugging_face(
            model.converted, dtype=model.dtype, trust_remote_code=model.trust_remote_code
        )
        yield source, plan_conversion(model.port.cls(config), source), config


def _write_inputs(output: Path, source: Source, plan: WeightPlan, dtype: str) -> frozenset[str]:
    """Write which modules of Hugging Face's model round what goes into them, as the port does; their weights' names."""
    from trtllm_port.conversion.kept_weights import KeptWeights

    inputs = KeptWeights(plan, source, dtype).inputs
    if inputs:
        write_inputs(output, {name.rpartition(".")[0]: Codes(*codes) for name, codes in inputs.items()})
    return frozenset(inputs)


def _refuse_whole(model_dir: Path, trust_remote_code: bool) -> None:
    """Refuse weights that transformers loads into a model whose modules have other names than the port's."""
    whole = whole_config(model_dir, trust_remote_code)
    if loads_whole(whole):
        raise UnsupportedModelError(
            f"`{model_dir}` holds a `{whole.model_type}` model of several parts, whose weights cannot be verified",
            hint="save its language model as a model of its own, or verify the port with `--random-weights`",
        )


def _random_weights(model_dir: Path, output: Path, seed: int, trust_remote_code: bool) -> Path:
    from trtllm_port.huggingface.random_weights import save_random_checkpoint

    with quiet_transformers():
        save_random_checkpoint(model_dir, output, "float32", seed, trust_remote_code=trust_remote_code)
    return output
