"""The boundary to a port's own code: what it raises names its file and line, and says that the port is at fault."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trtllm_port.errors import PortCodeError, PortError
from trtllm_port.foundation.foreign import reason
from trtllm_port.registry.ports import PortEntry

_FILL_IN = "write it as Hugging Face's code has it, then run this again"


@contextmanager
def port_code(port: PortEntry) -> Iterator[None]:
    """Whatever a port's code raises within the block becomes an error that names its line.

    Only what passed through a file of the port's is its fault; anything else is raised as it is.

    Raises:
        PortCodeError: a part of the port is still to be written, or its code raises.
    """
    try:
        yield
    except PortError:
        raise
    except Exception as error:
        place = _place(error, port)
        if place is None:
            raise
        if isinstance(error, NotImplementedError):
            raise PortCodeError(
                f"the port `{port.name}` has a part to fill in, {place}: {error}", hint=_FILL_IN
            ) from error
        raise PortCodeError(
            f"the code of the port `{port.name}` fails, {place}: {reason(error)}",
            hint="correct the port, or generate it from this model with `trtllm-port new`",
        ) from error


def require_finished(port: PortEntry) -> None:
    """Refuse a port that has functions of which nothing is written yet.

    Raises:
        PortCodeError: it names each with its line.
    """
    files = [(path, package) for package in port.packages for path in sorted(package.rglob("*.py"))]
    left = [part for path, package in files for part in _unwritten(path, package)]
    if left:
        parts = "a part" if len(left) == 1 else f"{len(left)} parts"
        raise PortCodeError(f"the port `{port.name}` has {parts} to fill in:\n  " + "\n  ".join(left), hint=_FILL_IN)


def _unwritten(path: Path, package_dir: Path) -> Iterator[str]:
    """The functions of a file that do nothing but raise NotImplementedError, as `new` leaves those it cannot write."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        last = node.body[-1] if isinstance(node, ast.FunctionDef) else None
        if isinstance(node, ast.FunctionDef) and isinstance(last, ast.Raise) and isinstance(last.exc, ast.Call):
            before = [each for each in node.body[:-1] if not isinstance(each, ast.Expr)]  # a docstring is none
            if not before and ast.unparse(last.exc.func) == "NotImplementedError":
                words = [each.value for each in last.exc.args if isinstance(each, ast.Constant)]
                yield f"{_shown(path, package_dir)}:{last.lineno}: {' '.join(map(str, words)) or node.name}"


def _shown(path: Path, package_dir: Path) -> Path:
    return path.relative_to(package_dir.parent.parent)


def _place(error: Exception, port: PortEntry) -> str | None:
    """`models/llama/model.py:12`, the innermost line of the port's that was running."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if port.has_file(frame.filename)]
    if not own:
        return None
    return f"{_shown(Path(own[-1].filename), port.package_dir)}:{own[-1].lineno}"
