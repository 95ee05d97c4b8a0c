"""`trtllm-port new`: a port package in the workspace, generated from a model or blank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtllm_port.cli.terminal import console, options
from trtllm_port.cli.terminal.render_port import render_port
from trtllm_port.errors import PortError
from trtllm_port.foundation.quoting import shell_command

if TYPE_CHECKING:
    from trtllm_port.porting.create import PortResult


def _ports(context: typer.Context) -> list[str]:
    """What `--like` may name."""
    from trtllm_port.porting.inheritance import AUTO, port_names

    return [AUTO, *port_names(Path(context.params.get("workspace") or "."))]


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL_DIR",
        help="Hugging Face model: a local directory or a hub id, without weights; with --blank: the name of the port.",
        show_default=False,
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the port. [default: from the model's type]")]
Like = Annotated[
    str | None,
    typer.Option(
        "--like",
        metavar="PORT",
        help="Take what a port of the workspace has already from there; `auto`: from the one that has most.",
        autocompletion=_ports,
    ),
]
Blank = Annotated[bool, typer.Option("--blank", help="Write a skeleton to fill in by hand, under the name given.")]
Architecture = Annotated[
    str | None,
    typer.Option("--architecture", help="With --blank: the name in `config.json` that the port will serve."),
]


def new(
    model_dir: Model,
    name: Name = None,
    like: Like = None,
    workspace: options.Workspace = Path("."),
    force: options.Force = False,
    blank: Blank = False,
    architecture: Architecture = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Write a port: its package, its registry entry, its conversion script and its test.

    A generated port is compared with Hugging Face on random weights at a size that it was not traced at. Exit code 1
    tells that it differs, or has parts to fill in.
    """
    from trtllm_port.huggingface.hub import locate_model
    from trtllm_port.porting.create import create_blank_port, create_port

    if blank:
        if name is not None:
            raise PortError(
                "--name does not go with --blank",
                hint=f"write `{shell_command(['trtllm-port', 'new', '--blank', name])}`",
            )
        if like is not None:
            raise PortError("--like does not go with --blank", hint="it takes classes over that say the same")
        result = create_blank_port(model_dir, workspace=workspace, architecture=architecture, force=force)
    else:
        if architecture is not None:
            raise PortError(
                "--architecture goes with --blank only", hint="a generated port takes it from `config.json`"
            )
        directory = locate_model(model_dir, weights=False)
        with console.progress() as progress:
            result = create_port(
                directory,
                workspace=workspace,
                name=name,
                like=like,
                force=force,
                trust_remote_code=trust_remote_code,
                progress=progress,
            )
    console.emit(result, render_port, as_json=as_json)
    if not as_json:
        console.note(f"next: {_next(result, model_dir, workspace)}")
    if result.check is not None and not result.check.passed:
        raise typer.Exit(1)


def _next(result: PortResult, model_dir: str, workspace: Path) -> str:
    if result.check is None or (result.source is not None and result.source.skeletons):
        return f"fill in what is marked TODO in {result.port.package_dir}"
    command = "diff-layers" if result.check.first_divergence is not None else "verify"
    place = [] if workspace == Path(".") else ["--workspace", workspace]
    first = "mend what could not be checked, or take the checkpoint's own weights: " if result.check.problem else ""
    return first + shell_command(["trtllm-port", command, model_dir, *place])
