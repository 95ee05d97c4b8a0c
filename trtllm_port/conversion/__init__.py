"""The stage `convert`: a Hugging Face directory in, a checkpoint out.

Requires a registered port for the model's architecture. Ensures that `config.json` and every `rank{r}.safetensors` are
complete, that every tensor of the source was used once or dropped with a reason, and that every weight is finite.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtllm_port import __version__
from trtllm_port.errors import ConfigError, PortError
from trtllm_port.files import atomic_directory, file_digest, require_space, write_json
from trtllm_port.port_code import port_code, require_finished
from trtllm_port.registry import PortEntry, find_port

if TYPE_CHECKING:
    from trtllm_port.conversion.source import StreamedWeights
    from trtllm_port.layers import PretrainedConfig
    from trtllm_port.layers.weights import WeightPlan

Progress = Callable[[str, int, int], None]
PRODUCER = "trtllm-port convert"


@dataclass(frozen=True, kw_only=True)
class ConvertResult:
    """What a conversion wrote.

    Attributes:
        tensors: number of tensors in each rank's file.
        size: bytes of all ranks' files.
        dropped: tensor of the source → why it is no parameter.
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
    tp_size: int = 1,
    pp_size: int = 1,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> ConvertResult:
    """Convert a Hugging Face model's weights, tensor by tensor.

    Args:
        model_dir: with `config.json` and safetensors.
        output_dir: made; a checkpoint that is there is replaced when the new one is complete.
        workspace: where the port is registered.
        dtype: `auto` takes the config's data type, or the weights' where it names none, as transformers does.
        tp_size: number of ranks that share each layer.
        pp_size: number of ranks that share the layers; ports have no pipeline stages, so only 1 is possible.
        trust_remote_code: let transformers run the code that the model directory brings along.
        progress: called with ("convert", bytes done, bytes in all).

    Raises:
        ConfigError: no usable `config.json`, or it asks for what the port does not do.
        RegistryError: no port serves the architecture.
        CheckpointError: tensors are missing, unexpected, misshapen, truncated, pickled or not finite.
        DiskSpaceError: the disk is full.
        PortError: `output_dir` holds something that is no checkpoint.
    """
    from trtllm_port.conversion.source import StreamedWeights

    began = time.perf_counter()
    port = find_port(workspace, read_architecture(model_dir, trust_remote_code))
    require_finished(port)
    replace = _may_replace(output_dir)
    source = StreamedWeights(model_dir)
    try:
        with port_code(port):
            config = _port_config(port, model_dir, dtype, (tp_size, pp_size), trust_remote_code)
            plan: WeightPlan = port.cls(config).plan(source)
        size = _size(plan) * tp_size
        require_space(output_dir, size)
        with atomic_directory(output_dir, replace=replace) as directory:
            source_digests = _write(plan, source, directory, config, port, progress)
    finally:
        source.close()
    return ConvertResult(
        output_dir=output_dir,
        architecture=port.architecture,
        port=port.name,
        dtype=config.dtype,
        ranks=tp_size,
        tensors=len(plan.specs),
        size=size,
        dropped=dict(plan.dropped),
        source=source_digests,
        seconds=time.perf_counter() - began,
    )


def read_architecture(model_dir: Path, trust_remote_code: bool = False) -> str:
    """Return Hugging Face's class name of a directory's language model.

    Raises:
        ConfigError: there is no readable `config.json`, or it names no architecture.
    """
    from trtllm_port.layers.config import load_hf_config

    names = load_hf_config(model_dir, trust_remote_code).architectures
    if not names:
        path = model_dir / "config.json"
        raise ConfigError(f"`{path}` names no architecture", hint='add "architectures": ["…ForCausalLM"] to it')
    return str(names[0])


def _port_config(
    port: PortEntry, model_dir: Path, dtype: str, sizes: tuple[int, int], trust_remote_code: bool
) -> PretrainedConfig:
    from trtllm_port.layers import Mapping

    tp_size, pp_size = sizes
    if pp_size != 1:
        raise ConfigError(f"pp_size is {pp_size}: port `{port.name}` has no pipeline stages", hint="give `--pp-size 1`")
    config: PretrainedConfig = port.cls.config_class.from_hugging_face(
        model_dir, dtype=dtype, mapping=Mapping(tp_size=tp_size), trust_remote_code=trust_remote_code
    )
    return config


def _size(plan: WeightPlan) -> int:
    from trtllm_port.conversion.stream import rank_headers

    return sum(header.size for header in rank_headers(plan, plan.entries))


def _write(
    plan: WeightPlan,
    source: StreamedWeights,
    directory: Path,
    config: PretrainedConfig,
    port: PortEntry,
    progress: Progress | None,
) -> dict[str, str]:
    from trtllm_port.conversion.stream import write_ranks

    tensors = write_ranks(plan, source, directory, ranks=config.mapping.tp_size, progress=progress)
    source_digests = {"config.json": file_digest(source.directory / "config.json")} | source.digests()
    facts = {
        "producer": {"name": PRODUCER, "version": __version__},
        "source": source_digests,
        "port": {"name": port.name, "digest": port.digest},
        "tensors": tensors,
    }
    write_json(directory / "config.json", config.to_dict() | facts)
    return source_digests


def _may_replace(output_dir: Path) -> bool:
    """Whether `output_dir` is a checkpoint of this stage; anything else is left alone."""
    config = output_dir / "config.json"
    if not output_dir.is_dir() or not any(output_dir.iterdir()):
        return False
    try:
        producer = json.loads(config.read_text(encoding="utf-8")).get("producer", {}).get("name")
    except (OSError, ValueError, AttributeError):
        producer = None
    if producer != PRODUCER:
        raise PortError(
            f"`{output_dir}` is not empty and no checkpoint written by `{PRODUCER}`",
            hint="choose another --output-dir; nothing was changed",
        )
    return True
