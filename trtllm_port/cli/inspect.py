"""`trtllm-port inspect`."""

from __future__ import annotations

from trtllm_port.cli import options


def inspect(as_json: options.Json = False) -> None:
    """Under construction."""
