"""Makes the modules of this folder importable (test folders are no packages), and gives a place to be killed in."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from trtllm_port.porting import write

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything is written, temporary files included."""
    (tmp_path / "sandbox" / "tmp").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "sandbox" / "tmp"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a killed process takes nothing along from the cache
    return tmp_path / "sandbox"


@pytest.fixture
def quick_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renders each template once: what is killed is the writing."""
    render = write.render_template

    @cache
    def remembered(template: str, values: tuple[tuple[str, str], ...]) -> dict[str, str]:
        return render(template, dict(values))

    monkeypatch.setattr(
        write, "render_template", lambda template, values: remembered(template, tuple(sorted(values.items())))
    )
