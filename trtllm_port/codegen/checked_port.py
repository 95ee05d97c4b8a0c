"""The class of a port that is to be checked: registered in a workspace, or a source that is not written yet."""

from __future__ import annotations

import copy
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trtllm_port.codegen.generate import PortSource
from trtllm_port.errors import ConfigError, PortError


@contextmanager
def port_class_of(
    workspace: str | Path | None, source: PortSource | None, directory: Path, architecture: str
) -> Iterator[type[Any]]:
    """The class; that of a source is imported from a directory, and forgotten afterwards.

    Args:
        workspace: where the port is registered; or
        source: the port's source.
        directory: where that is written.
        architecture: what the port serves.

    Raises:
        PortError: neither workspace nor source is given; no port is registered.
    """
    if source is not None:
        name = f"trtllm_port_checked_{source.name}"
        _write_packages(source, directory / name)
        try:
            yield getattr(_import(name, directory / name, source.name), source.port_class)
        finally:
            for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
                del sys.modules[module]
        return
    if workspace is None:
        raise PortError("neither a workspace nor a port's source was given")
    from trtllm_port.registry.ports import find_port

    yield find_port(Path(workspace), architecture).cls


def _write_packages(source: PortSource, models: Path) -> None:
    """The port's, and beside it those of the ports whose classes it takes."""
    for package in source.packages:
        shutil.copytree(package, models / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    (models / source.name).mkdir(parents=True)
    (models / "__init__.py").touch()
    for file, text in {"__init__.py": "", **source.files}.items():
        (models / source.name / file).write_text(text, encoding="utf-8")


def _import(name: str, models: Path, port: str) -> Any:
    spec = importlib.util.spec_from_file_location(
        name, models / "__init__.py", submodule_search_locations=[str(models)]
    )
    assert spec is not None  # the file was just written
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return importlib.import_module(f"{name}.{port}.model")


def refusal(port_class: type[Any], config: Any, architecture: str) -> str | None:
    """Why a port does not take a config; None if it does.

    Args:
        port_class: of the port.
        config: of transformers.
        architecture: the name of its class of models.
    """
    named = copy.copy(config)
    named.architectures = [architecture]
    try:
        port_class.config_class.of(named, "float32")
    except ConfigError as error:
        return f"the port does not take this config: {error.message}"
    return None
