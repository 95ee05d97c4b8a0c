"""Options that several commands share, and the command class that accepts their legacy spelling.

A command's parameter is annotated with one of these aliases:

    def convert(model_dir: ModelDirOption, workspace: Workspace = Path("."), as_json: Json = False) -> None: ...
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from trtllm_port.cli.terminal import console
from trtllm_port.errors import PortError
from trtllm_port.foundation.requirements import check_transformers

if TYPE_CHECKING:
    from trtllm_port.layers.quantization import QuantizeOptions

LARGEST_INT = 2**63 - 1  # that torch takes
DtypeChoice = Literal["auto", "float32", "float16", "bfloat16"]
QuantAlgorithm = Literal["W8A16", "W4A16", "FP8", "W8A8"]
BackendChoice = Literal["auto", "tensorrt", "tensorrt_rtx", "reference"]

ModelDir = Annotated[
    str,
    typer.Argument(metavar="MODEL_DIR", help="Hugging Face model: a local directory or a hub id.", show_default=False),
]
ModelDirOption = Annotated[
    str, typer.Option("--model-dir", metavar="MODEL_DIR", help="Hugging Face model: a local directory or a hub id.")
]
HfModelDir = Annotated[
    str, typer.Option("--hf-model-dir", metavar="MODEL_DIR", help="Hugging Face model: a local directory or a hub id.")
]
CheckpointDir = Annotated[
    Path, typer.Option("--checkpoint-dir", metavar="CKPT", help="Checkpoint directory written by `convert`.")
]
EngineDir = Annotated[Path, typer.Option("--engine-dir", metavar="ENGINE", help="Engine directory written by `build`.")]
OutputDir = Annotated[Path, typer.Option("--output-dir", metavar="DIR", help="Where to write.")]
ReportDir = Annotated[Path | None, typer.Option("--report-dir", metavar="DIR", help="Where to write the report.")]
Workspace = Annotated[
    Path, typer.Option("--workspace", "-w", metavar="DIR", help="The directory that holds your ports (`models/`).")
]
Dtype = Annotated[DtypeChoice, typer.Option("--dtype", help="Data type; `auto` follows the checkpoint.")]
Backend = Annotated[
    BackendChoice,
    typer.Option(
        "--backend", help="`auto` takes TensorRT where a supported GPU and library exist, else the reference executor."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Verify from `config.json` alone, with seeded random weights.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that the model directory brings along.")
]
QuantAlgo = Annotated[
    QuantAlgorithm | None,
    typer.Option(
        "--quant-algo",
        help="Quantize a plain model's weights by rounding; FP8 and W8A8 quantize their inputs, too.",
        show_default=False,
    ),
]
GroupSize = Annotated[
    int, typer.Option("--group-size", min=16, metavar="N", help="Weights that share a scale, with W4A16.")
]
ExcludeModules = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-modules",
        metavar="PATTERN",
        help="Modules that are not quantized, beside the head and routers; may be repeated.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def quantize_options(
    algorithm: QuantAlgorithm | None, group_size: int, exclude_modules: list[str] | None
) -> QuantizeOptions | None:
    """How a plain model is to be quantized; None: it is not.

    Raises:
        PortError: modules are to be excluded from nothing.
    """
    from trtllm_port.layers.quantization import QuantizeOptions

    if algorithm is not None:
        return QuantizeOptions(algorithm=algorithm, group_size=group_size, exclude_modules=tuple(exclude_modules or ()))
    if exclude_modules:
        raise PortError("`--exclude-modules` is of a quantization, and none is asked for", hint="give `--quant-algo`")
    return None


class PortCommand(TyperCommand):
    """Accepts the legacy scripts' spelling of every option: `--model_dir`, and `--input_text A B` for a list."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return list(super().parse_args(ctx, self._spread(self._kebab_case(args))))

    def _kebab_case(self, args: Iterable[str]) -> list[str]:
        known = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        spelt = []
        for word in args:
            option, equals, value = word.partition("=")
            kebab = option.replace("_", "-")
            spelt.append(kebab + equals + value if option.startswith("--") and kebab in known else word)
        return spelt

    def _spread(self, args: Iterable[str]) -> list[str]:
        """Repeat the name of a repeatable option before each of its values, where no positional argument can follow."""
        if any(parameter.param_type_name == "argument" for parameter in self.params):
            return list(args)
        repeatable = {
            name for parameter in self.params if getattr(parameter, "multiple", False) for name in parameter.opts
        }
        spread: list[str] = []
        current: str | None = None  # the repeatable option whose further values may follow
        expects_value = False
        for word in args:
            if word.startswith("-") and not expects_value:
                current = word if word in repeatable else None
                expects_value = current is not None
            elif current is not None and not expects_value:
                spread.append(current)
            else:
                expects_value = False
            spread.append(word)
        return spread


class HuggingFaceCommand(PortCommand):
    """A command that cannot do without transformers: its version is checked before anything of it is imported."""

    def invoke(self, ctx: Any) -> Any:
        require_transformers()
        return super().invoke(ctx)


def require_transformers() -> None:
    """Warn of a transformers that is not tested with this release, before anything of it is imported.

    Raises:
        EnvironmentLackError: it is not there, or nothing works with it.
    """
    warning = check_transformers()
    if warning is not None:
        console.warning(warning)
