"""`trtllm-port new`."""

from __future__ import annotations

from trtllm_port.cli import options


def new(as_json: options.Json = False) -> None:
    """Under construction."""
