"""What is imported from transformers and the hub exists in the installed release: all that does not is told at once.

Most imports stand in functions, so a release that has renamed something would else show it one by one.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import trtllm_port.huggingface

FOLDER = Path(trtllm_port.huggingface.__file__).parent
LIBRARIES = ("transformers", "huggingface_hub")


def imported(text: str, file: str) -> Iterator[tuple[str, str, str]]:
    """(place, module, name) of what a file imports from the libraries; the name is "" for a module as a whole."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
            yield from ((f"{file}:{node.lineno}", str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names if alias.name.partition(".")[0] in LIBRARIES)
            yield from ((f"{file}:{node.lineno}", name, "") for name in names)


def missing(text: str, file: str) -> list[str]:
    """What a file imports and is not there."""
    return [
        f"{place}: there is no {f'`{name}` in ' if name else ''}`{module}`"
        for place, module, name in imported(text, file)
        if not is_there(module, name)
    ]


def is_there(module: str, name: str) -> bool:
    """Whether a module has a name, its own modules included."""
    try:
        found = importlib.import_module(module)
        return not name or hasattr(found, name) or bool(importlib.import_module(f"{module}.{name}"))
    except ImportError:
        return False


def test_everything_that_is_imported_exists() -> None:
    problems = [problem for path in FOLDER.rglob("*.py") for problem in missing(path.read_text(), path.name)]
    if problems:
        pytest.fail("\n".join(sorted(problems)), pytrace=False)


def test_a_name_that_is_gone_is_told() -> None:
    text = "def f():\n    from transformers.cache_utils import Cache, Gone\n    import transformers.gone.further\n"
    assert missing(text, "x.py") == [
        "x.py:2: there is no `Gone` in `transformers.cache_utils`",
        "x.py:3: there is no `transformers.gone.further`",
    ]
