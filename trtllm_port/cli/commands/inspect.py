"""`trtllm-port inspect`: a model's sizes, and what becomes of every key of its config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from trtllm_port.cli.terminal import console, options
from trtllm_port.foundation.quoting import shell_command

if TYPE_CHECKING:
    from trtllm_port.inspection import Inspection
    from trtllm_port.layers.quantization import QuantizationSummary


def inspect(
    model_dir: options.ModelDir,
    workspace: options.Workspace = Path("."),
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Show a model's architecture and what becomes of every key of its `config.json`; writes nothing."""
    from trtllm_port.huggingface.hub import locate_model
    from trtllm_port.inspection import inspect_model

    directory = locate_model(model_dir, weights=False)
    with console.progress() as progress:
        found = inspect_model(directory, workspace=workspace, trust_remote_code=trust_remote_code, progress=progress)
    console.emit(found, _render, as_json=as_json)


def _render(found: Inspection) -> None:
    if found.quantized is not None:
        console.line(f"the weights are quantized ({found.quantized}); what follows is as if they were not")
    console.line(f"{found.architecture} ({found.hf_class}), {found.parameters:,} parameters, {found.dtype}")
    console.table(["size", "value"], [[name, _text(value)] for name, value in found.sizes.items()])
    console.table(
        ["config key", "value", "state", "why"],
        [[row.key, _text(row.value), row.state, row.why] for row in found.ledger if not row.key.startswith("_")],
    )
    if found.tensors is None:
        console.line("no weights")
    else:
        tensors = found.tensors
        kinds = ", ".join(f"{count:,} {dtype}" for dtype, count in tensors.dtypes.items())
        files = "1 file" if tensors.files == 1 else f"{tensors.files} files"
        console.line(f"{tensors.tensors:,} tensors ({kinds}) in {files}, {tensors.bytes / 1e6:,.1f} MB")
    if found.quantization is not None:
        _render_quantization(found.quantization)
    for skeleton in found.skeletons:
        console.line(f"cannot be generated: {skeleton['name']} ({skeleton['path']}): {skeleton['reason']}")
    if found.port is None:
        console.note(f"next: {shell_command(['trtllm-port', 'new', found.model_dir])}")
    else:
        console.line(f"served by port `{found.port.name}` in {found.port.package_dir}")


def _render_quantization(found: QuantizationSummary) -> None:
    for group in found.groups:
        shared = f"{group.block[0]}×{group.block[1]} {group.granularity}" if group.block else group.granularity
        inputs = f", inputs {group.activation}" if group.activation else ""
        console.line(f"quantized: {group.count:,} weights in {group.kind}, a scale per {shared}{inputs}")
    console.line(f"not quantized: {found.unquantized:,} tensors")
    if found.kv_cache:
        console.line(f"the KV cache is quantized ({found.kv_cache}); ports have it in --dtype")
    if found.left_out:
        more = f" and {len(found.left_out) - 1} more" if len(found.left_out) > 1 else ""
        console.line(f"left out: {found.left_out[0]}{more}")
    if found.unread:
        console.line(f"keys of the quantization that are not known here: {', '.join(found.unread)}")
    console.line("`convert --dequantize` converts the weights as they were before; `verify` does so by itself")


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
