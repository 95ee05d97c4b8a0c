"""The versions of other packages that this one is made for.

What a package manager must know is in the metadata. Of transformers a span is tested, and any release works that has
the names which are imported from it: those two facts stand here.
"""

from __future__ import annotations

import importlib.metadata

from trtllm_port.errors import EnvironmentLackError

TESTED_TRANSFORMERS = ("5.20", "5.24")
"""The oldest and the newest minor release that the tests run on. `pyproject.toml` asks for the oldest, or newer."""
OLDEST_TRANSFORMERS = "5.13"
"""Those before it lack names that are imported (`transformers.cache_utils`): no command could even start."""


def required(name: str) -> str:
    """The versions of a package that `trtllm-port`'s own metadata asks for: ">=2.13"; "" in a mere source tree."""
    from packaging.requirements import Requirement

    try:
        declared = importlib.metadata.requires("trtllm-port") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    return next((str(r.specifier) for r in map(Requirement, declared) if r.name == name and r.marker is None), "")


def check_transformers() -> str | None:
    """Look at the installed transformers, without importing anything of it.

    Returns:
        A warning where it is none of the releases that the tests run on; None where it is.

    Raises:
        EnvironmentLackError: it is not installed, or so old that nothing works with it.
    """
    hint = f"`pip install 'transformers{transformers_specifier()}'`"
    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError as error:
        raise EnvironmentLackError("transformers is not installed", hint=hint) from error
    if _release(version) < _release(OLDEST_TRANSFORMERS):
        raise EnvironmentLackError(
            f"transformers {version} is installed, and no release before {OLDEST_TRANSFORMERS} works", hint=hint
        )
    return untested(version)


def untested(version: str) -> str | None:
    """What to say of a release of transformers that the tests do not run on; None if they do."""
    oldest, newest = map(_release, TESTED_TRANSFORMERS)
    if oldest <= _release(version) <= newest:
        return None
    return f"transformers {version} is installed; tested are {' to '.join(TESTED_TRANSFORMERS)}"


def transformers_specifier() -> str:
    """The tested releases of transformers, as pip takes them: ">=5.20,<5.25"."""
    oldest, newest = TESTED_TRANSFORMERS
    major, minor = _release(newest)
    return f">={oldest},<{major}.{minor + 1}"


def _release(version: str) -> tuple[int, int]:
    """The first two numbers of a version."""
    from packaging.version import Version

    parsed = Version(version)
    return parsed.major, parsed.minor
