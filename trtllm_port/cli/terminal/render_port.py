"""How `new` and `demo` show the port that they wrote, and its first comparison with Hugging Face."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtllm_port.cli.terminal import console

if TYPE_CHECKING:
    from trtllm_port.codegen import SelfCheck
    from trtllm_port.porting.create import PortResult


NOT_READ = "they are not read: give that model, or `verify --random-weights`"


def render_port(result: PortResult) -> None:
    """What was written, what is left to do by hand, and how the port compares."""
    port = result.port
    for path in port.written:
        console.line(f"wrote {port.workspace / path}")
    if result.part_of is not None:
        line = f"ported the text part of `{result.part_of}`: {port.architecture}; images and sounds are not its input"
        console.line(line)
    if result.quantized is not None:
        from trtllm_port.layers.quantization import METHODS

        is_read = result.quantized in METHODS
        console.line(
            f"the weights are quantized ({result.quantized}): the port is of the model that they were quantized from; "
            + ("`verify` and `convert --dequantize` take them as they were before" if is_read else NOT_READ)
        )
    if result.alike is not None:
        name, lines = result.alike
        console.line(f"port `{name}` has most of it: `--like {name}` would leave {lines} lines in model.py")
    if result.source is not None:
        for remark in result.source.remarks:
            console.line(remark)
        for skeleton in result.source.skeletons:
            console.line(f"to fill in by hand: {skeleton.name} ({skeleton.path}): {skeleton.reason}")
    if result.check is not None:
        _check(result.check)


def _check(check: SelfCheck) -> None:
    """What the comparison with Hugging Face found."""
    if check.problem is not None or check.worst_error is None:
        console.line(f"could not be checked, because {check.problem or 'no tensor is in both'}")
        return
    verdict = "agrees with" if check.passed else "DIFFERS from"
    console.line(
        f"{verdict} Hugging Face in {check.taps:,} tensors ({check.tokens} tokens, {check.decode_steps} decode steps, "
        f"random weights, a size that was not traced): worst relative error {check.worst_error:.1e} at {check.worst}"
    )
    if check.first_divergence is not None:
        console.line(f"first difference at {check.first_divergence}")
    console.line(f"executor: {check.executor}")
