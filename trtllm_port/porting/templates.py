"""Renders the cookiecutter templates in `trtllm_port.scaffolds`: strict, without hooks or user settings."""

from __future__ import annotations

import importlib.resources
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from trtllm_port.errors import WorkspaceError
from trtllm_port.foundation.claims import scratch


def render_template(template: str, values: Mapping[str, str]) -> dict[str, str]:
    """Render a template to texts.

    Args:
        template: its name, `port`.
        values: exactly the variables that the template's `cookiecutter.json` lists.

    Returns:
        Relative path → text, in sorted order. The same values give the same bytes.
    """
    from cookiecutter.generate import generate_files

    with importlib.resources.as_file(importlib.resources.files("trtllm_port.scaffolds") / template) as installed:
        directory = Path(installed)
        expected = set(json.loads((directory / "cookiecutter.json").read_text(encoding="utf-8")))
        if expected != set(values):
            odd = ", ".join(sorted(expected ^ set(values)))
            raise WorkspaceError(f"template `{template}` and its values disagree about: {odd}")
        with scratch() as place:
            # pip compiles every module that it installs, a template's as well: leave what it made behind
            clean = shutil.copytree(directory, place / "template", ignore=shutil.ignore_patterns("__pycache__"))
            context = {"cookiecutter": dict(values)}
            root = Path(generate_files(clean, context, place / "output", accept_hooks=False))
            files = sorted(path for path in root.rglob("*") if path.is_file())
            return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in files}
