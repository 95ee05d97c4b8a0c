"""What `build` reads of a checkpoint directory before it hands it to the port: whose it is, and that it is complete."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtllm_port.errors import CheckpointError
from trtllm_port.files import file_digest

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
        try:
            mapping = config["mapping"]
            checkpoint = cls(
                path=path,
                config=config,
                architecture=str(config["architecture"]),
                dtype=str(config["dtype"]),
                port_name=str(config["port"]["name"]),
                port_digest=str(config["port"]["digest"]),
                world_size=int(mapping["tp_size"]) * int(mapping["pp_size"]),
                digests=dict(config["tensors"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"`{path / CONFIG}` is not the configuration of a checkpoint: {error!r}", hint=RECONVERT
            ) from error
        checkpoint._verify()
        return checkpoint

    def _verify(self) -> None:
        expected = {f"rank{rank}.safetensors" for rank in range(self.world_size)}
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
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"`{file}` is not JSON: {error}", hint=RECONVERT) from error
    if not isinstance(config, dict) or "architecture" not in config:
        what = (
            "a Hugging Face model directory"
            if isinstance(config, dict) and "architectures" in config
            else "no checkpoint"
        )
        raise CheckpointError(
            f"`{path}` is {what}: its `{CONFIG}` has no `architecture`", hint="run `trtllm-port convert` first"
        )
    return config
