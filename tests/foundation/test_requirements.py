"""Which releases of transformers are taken, and that every place which names them says the same."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from trtllm_port.errors import EnvironmentLackError
from trtllm_port.foundation.requirements import (
    OLDEST_TRANSFORMERS,
    TESTED_TRANSFORMERS,
    check_transformers,
    transformers_specifier,
    untested,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("version", ["5.20.0", "5.20.2", "5.23.0", "5.24.1", "5.24.0.dev0"])
def test_a_tested_release_gives_no_warning(version: str) -> None:
    assert untested(version) is None


@pytest.mark.parametrize("version", ["5.19.4", "5.25.0", "5.25.0.dev0", "6.0.0"])
def test_another_release_gives_a_warning_with_the_tested_ones(version: str) -> None:
    assert untested(version) == f"transformers {version} is installed; tested are 5.20 to 5.24"


@pytest.mark.parametrize(("version", "refused"), [("4.57.6", True), ("5.12.1", True), ("5.13.0", False)])
def test_what_cannot_work_is_refused(version: str, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: version)
    if not refused:
        assert check_transformers() == untested(version)
        return
    with pytest.raises(EnvironmentLackError, match=f"no release before {OLDEST_TRANSFORMERS} works") as caught:
        check_transformers()
    assert caught.value.hint == f"`pip install 'transformers{transformers_specifier()}'`"


def test_an_absent_transformers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(EnvironmentLackError, match="not installed"):
        check_transformers()


def test_the_package_asks_for_the_oldest_tested_release_or_newer() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (asked,) = (one for one in map(Requirement, project["dependencies"]) if one.name == "transformers")
    assert str(asked.specifier) == f">={TESTED_TRANSFORMERS[0]}"


def test_what_is_installed_by_default_is_tested() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (pinned,) = (line.partition("==")[2] for line in lines if line.startswith("transformers=="))
    assert untested(pinned) is None


@pytest.mark.skipif(not (ROOT / "Makefile").is_file(), reason="the Makefile is part of the checkout alone")
def test_a_release_has_an_environment_of_its_own() -> None:
    def planned(*words: str) -> subprocess.CompletedProcess[str]:
        # As on a fresh machine, also where the tests are run by make, for some release.
        outer = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "RELEASE"}
        command = ["make", "--dry-run", "--always-make", *words]
        return subprocess.run(command, cwd=ROOT, env=outer, capture_output=True, text=True, check=False)

    release = planned("test-release", "RELEASE=5.20").stdout
    assert "venv .venv-5.20" in release
    assert "transformers==5.20.*" in release
    assert ".venv-5.20/bin/pytest -q" in release
    usual = planned("test-fast").stdout
    assert "venv .venv\n" in usual
    assert "transformers==" not in usual
    assert ".venv-5.24/bin/python tests/coverage/run.py" in planned("coverage", "RELEASE=5.24").stdout
    oldest, newest = TESTED_TRANSFORMERS
    assert f"transformers=={oldest}.*" in planned("test-oldest").stdout
    assert f"transformers=={newest}.*" in planned("wheel-test").stdout
