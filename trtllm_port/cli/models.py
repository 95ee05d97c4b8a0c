"""`trtllm-port models`."""

from __future__ import annotations

from trtllm_port.cli import options


def models(as_json: options.Json = False) -> None:
    """Under construction."""
