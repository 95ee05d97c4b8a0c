"""The versions of other packages that this one is made for, as its own metadata states them."""

from __future__ import annotations

import importlib.metadata

from trtllm_port.errors import EnvironmentLackError


def required(name: str) -> str:
    """The versions of a package that `trtllm-port`'s own metadata asks for: ">=2.13"; "" in a mere source tree."""
    from packaging.requirements import Requirement

    try:
        declared = importlib.metadata.requires("trtllm-port") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    return next((str(r.specifier) for r in map(Requirement, declared) if r.name == name and r.marker is None), "")


def require_transformers() -> None:
    """Refuse a transformers that this release does not know: what is imported from it has other names there.

    To be called before anything that imports from it.

    Raises:
        EnvironmentLackError: it is not installed, or of another version.
    """
    from packaging.specifiers import SpecifierSet

    wanted = required("transformers")
    hint = f"`pip install 'transformers{wanted}'`"
    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError as error:
        raise EnvironmentLackError("transformers is not installed", hint=hint) from error
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        raise EnvironmentLackError(
            f"transformers {version} is installed, this release works with transformers {wanted}", hint=hint
        )
