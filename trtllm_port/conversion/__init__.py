"""The stage `convert`: a Hugging Face directory in, a checkpoint out.

Requires a registered port for the model's architecture. Ensures that `config.json` and every `rank{r}.safetensors` are
complete, that every tensor of the source was used once or dropped with a reason, that every weight is finite, and that
the files hold what was converted. A newcomer adds a check of weights to what `stream.py` does with every tensor.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtllm_port import __version__
from trtllm_port.errors import ConfigError
from trtllm_port.foundation.atomic_files import require_space, write_json
from trtllm_port.foundation.digests import file_digest
from trtllm_port.foundation.foreign import read_json
from trtllm_port.foundation.progress import Progress
from trtllm_port.foundation.publishing import Kind, check_output, output_directory
from trtllm_port.registry.port_code import port_code, require_finished
from trtllm_port.registry.ports import PortEntry, find_port

if TYPE_CHECKING:
    from trtllm_port.conversion.kept_weights import KeptWeights
    from trtllm_port.conversion.source import Source
    from trtllm_port.layers import Mapping, PretrainedConfig
    from trtllm_port.layers.quantization import WeightsChoice
    from trtllm_port.layers.weights import WeightPlan

PRODUCER = "trtllm-port convert"
LEFT_OUT = "a scale of a quantized KV cache or output, which is not quantized here"


@dataclass(frozen=True, kw_only=True)
class ConvertResult:
    """What a conversion wrote.

    Attributes:
        tensors: number of tensors in each rank's file.
        size: bytes of all ranks' files.
        dropped: tensor of the source → why it is no parameter.
        quantized: parameter that stays quantized → kind of its codes.
        dequantized: parameter whose quantized weights were written as they were before, though they were to be kept →
            why.
        source: file of the source → digest.
        seconds: wall-clock time of the stage.
    """

    output_dir: Path
    architecture: str
    port: str
    dtype: str
    ranks: int
    tensors: int
    size: int
    dropped: dict[str, str]
    quantized: dict[str, str]
    dequantized: dict[str, str]
    source: dict[str, str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"output_dir": str(self.output_dir)}


def convert_checkpoint(
    model_dir: Path,
    output_dir: Path,
    *,
    workspace: Path = Path("."),
    dtype: str = "auto",
    mapping: Mapping | None = None,
    weights: WeightsChoice = "keep",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> ConvertResult:
    """Convert a Hugging Face model's weights, tensor by tensor.

    Args:
        model_dir: with `config.json` and safetensors.
        output_dir: made; a checkpoint that is there is replaced when the new one is complete.
        workspace: where the port is registered.
        dtype: `auto` takes the config's data type, or the weights' where it names none, as transformers does.
        mapping: over how many ranks layers are shared; ports have no pipeline stages, so `pp_size` must be 1.
        weights: what becomes of a quantized model's weights, or how a plain model's are quantized.
        trust_remote_code: let transformers run the code that the model directory brings along.
        progress: called with ("convert", bytes done, bytes in all).

    Raises:
        ConfigError: no usable `config.json`, or it asks for what the port does not do; nothing can be quantized.
        UnsupportedModelError: the model is quantized by a method that is not read.
        RegistryError: no port serves the architecture.
        CheckpointError: tensors are missing, unexpected, misshapen, truncated, pickled or not finite, or did
            not arrive in the files as they were converted.
        DiskSpaceError: the disk is full.
        PortError: `output_dir` holds something that is no checkpoint, or holds `model_dir` or lies in it.
    """
    from trtllm_port.conversion.kept_weights import KeptWeights
    from trtllm_port.conversion.opening import open_source, plan_conversion

    began = time.perf_counter()
    port = find_port(workspace, *read_architectures(model_dir, trust_remote_code))
    require_finished(port)
    check_output(output_dir, CHECKPOINT, [model_dir])
    with closing(open_source(model_dir, weights)) as source, port_code(port):
        config = _port_config(port, model_dir, dtype, mapping, trust_remote_code)
        plan = plan_conversion(port.cls(config), source)
        kept = KeptWeights(plan, source, config.dtype)
        require_space(output_dir, size := kept.size * config.mapping.tp_size)
        with output_directory(output_dir, CHECKPOINT, [model_dir]) as directory:
            source_digests = _write(plan, kept, source, directory, config, port, progress)
    return ConvertResult(
        output_dir=output_dir,
        architecture=port.architecture,
        port=port.name,
        dtype=config.dtype,
        ranks=config.mapping.tp_size,
        tensors=len(kept.all_headers),
        size=size,
        dropped=dict(plan.dropped) | dict.fromkeys(source.left_out, LEFT_OUT),
        quantized={name: found.kind for name, found in kept.formats.items()},
        dequantized=kept.left,
        source=source_digests,
        seconds=time.perf_counter() - began,
    )


def read_architectures(model_dir: Path, trust_remote_code: bool = False) -> list[str]:
    """Return the names of a directory's language model, under the first of which `new` registers a port of it.

    Raises:
        ConfigError: there is no readable `config.json`, or neither it nor transformers names a class.
    """
    from trtllm_port.huggingface.text_part import load_hf_config

    names: list[str] = load_hf_config(model_dir, trust_remote_code).architectures
    if not names:
        path = model_dir / "config.json"
        raise ConfigError(f"`{path}` names no architecture", hint='add "architectures": ["…ForCausalLM"] to it')
    return names


def _port_config(
    port: PortEntry, model_dir: Path, dtype: str, mapping: Mapping | None, trust_remote_code: bool
) -> PretrainedConfig:
    if mapping is not None and mapping.pp_size != 1:
        stages = f"pp_size is {mapping.pp_size}: port `{port.name}` has no pipeline stages"
        raise ConfigError(stages, hint="give `--pp-size 1`")
    config: PretrainedConfig = port.cls.config_class.from_hugging_face(
        model_dir, dtype=dtype, mapping=mapping, trust_remote_code=trust_remote_code
    )
    return replace(config, architecture=port.architecture)  # by which `build` finds the port again


def _write(
    plan: WeightPlan,
    kept: KeptWeights,
    source: Source,
    directory: Path,
    config: PretrainedConfig,
    port: PortEntry,
    progress: Progress | None,
) -> dict[str, str]:
    from trtllm_port.conversion.rounded_source import module_of
    from trtllm_port.conversion.stream import write_ranks
    from trtllm_port.layers.quantization import quantization_section

    tensors = write_ranks(plan, source, kept, directory, ranks=config.mapping.tp_size, progress=progress)
    source_digests = {"config.json": file_digest(source.directory / "config.json")} | source.digests()
    facts: dict[str, Any] = {
        "producer": {"name": PRODUCER, "version": __version__},
        "source": source_digests,
        "port": {"name": port.name, "digest": port.digest},
        "tensors": tensors,
    }
    if kept.formats:
        shapes = {header.name: header.shape for header in kept.all_headers}
        facts["quantization"] = quantization_section(
            kept.formats, shapes, {*source.excluded, *map(module_of, kept.left)}
        )
    write_json(directory / "config.json", config.to_dict() | facts)
    return source_digests


def _is_checkpoint(directory: Path) -> bool:
    """Whether this stage wrote a directory."""
    try:
        producer = read_json(directory / "config.json", ConfigError).get("producer")
    except ConfigError:
        return False
    return isinstance(producer, dict) and producer.get("name") == PRODUCER


CHECKPOINT = Kind(
    is_not=f"no checkpoint written by `{PRODUCER}`",
    marker="config.json",
    names=("config.json", "rank*.safetensors"),
    is_one=_is_checkpoint,
)
