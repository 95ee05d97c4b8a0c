"""What `build` reads of a checkpoint directory before it hands it to the port: whose it is, and that it is complete."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtllm_port.errors import CheckpointError
from trtllm_port.foundation.digests import file_digest
from trtllm_port.foundation.foreign import read_json, reading, typed
from trtllm_port.layers.definition.mapping import Mapping

__all__ = ["Checkpoint"]

CONFIG = "config.json"
RECONVERT = "convert the model again with `trtllm-port convert`"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint directory whose `config.json` was read.

    Args:
        path: the directory.
        config: all of `config.json`.
        architecture: Hugging Face's name of the model class.
        dtype: of the tensors.
        port_name: the port that converted it.
        port_digest: of that port's source at that time.
        world_size: the number of ranks.
        digests: file name to digest, one file for each rank.
    """

    path: Path
    config: dict[str, Any]
    architecture: str
    dtype: str
    port_name: str
    port_digest: str
    world_size: int
    digests: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read `config.json` and check every rank's file against its digest.

        Raises:
            CheckpointError: not a checkpoint directory, incomplete, or altered.
        """
        config = _read_config(path)
        with reading(path / CONFIG, CheckpointError, hint=RECONVERT, failed="is not the configuration of a checkpoint"):
            mapping = typed(Mapping, config["mapping"])
            checkpoint = cls(
                path=path,
                config=config,
                architecture=str(config["architecture"]),
                dtype=str(config["dtype"]),
                port_name=str(config["port"]["name"]),
                port_digest=str(config["port"]["digest"]),
                world_size=mapping.world_size,
                digests=dict(config["tensors"]),
            )
        checkpoint._verify()
        return checkpoint

    def _verify(self) -> None:
        ranks = min(self.world_size, len(self.digests) + 1)  # of more than are listed, one that is missing says enough
        expected = {f"rank{rank}.safetensors" for rank in range(ranks)}
        missing = sorted(name for name in expected if name not in self.digests or not (self.path / name).is_file())
        if missing:
            raise CheckpointError(f"`{self.path}` is incomplete: {', '.join(missing)} missing", hint=RECONVERT)
        altered = [name for name in sorted(expected) if file_digest(self.path / name) != self.digests[name]]
        if altered:
            raise CheckpointError(
                f"`{self.path}` was altered after the conversion: {', '.join(altered)}", hint=RECONVERT
            )


def _read_config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    if not file.is_file():
        raise CheckpointError(f"`{path}` is not a complete checkpoint: it has no `{CONFIG}`", hint=RECONVERT)
    config = read_json(file, CheckpointError, hint=RECONVERT)
    if "architecture" not in config:
        what = "a Hugging Face model directory" if "architectures" in config else "no checkpoint"
        raise CheckpointError(
            f"`{path}` is {what}: its `{CONFIG}` has no `architecture`", hint="run `trtllm-port convert` first"
        )
    return config
