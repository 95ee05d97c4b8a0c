"""What this machine has of what the commands need; nothing is downloaded, and no GPU is used.

In: this machine. Out: `Check`s, each with a hint. A newcomer adds a check.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from trtllm_port.errors import EnvironmentLackError
from trtllm_port.foundation.requirements import check_transformers, required, transformers_specifier
from trtllm_port.runtime.engines.devices import FLAVOURS, Machine, this_machine, what_lacks

__all__ = ["Check", "DoctorReport", "examine"]

OK, WARNING, LACKS = "ok", "warning", "lacks"
PYTHON = (3, 11)
LITTLE_DISK = 10 << 30
"""Bytes; below this a port of a 1 B parameter model (source, checkpoint, engine) does not fit."""


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Args:
        name: what was looked at.
        status: "ok", "warning", or "lacks": a command cannot work without it.
        found: what is there.
        hint: what to do about it.
    """

    name: str
    status: str
    found: str
    hint: str = ""


@dataclass(frozen=True)
class DoctorReport:
    """All checks.

    Args:
        checks: in the order in which they are shown.
    """

    checks: tuple[Check, ...]

    @property
    def lacks(self) -> bool:
        """Whether something is missing that commands cannot work without."""
        return any(check.status == LACKS for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        return {"verdict": LACKS if self.lacks else OK, "checks": [asdict(check) for check in self.checks]}


def examine(directory: Path = Path(".")) -> DoctorReport:
    """Look at this machine.

    Args:
        directory: where work will be written; its disk is looked at.
    """
    machine = this_machine()
    return DoctorReport(
        (
            check_python(sys.version_info[:3]),
            check_package("torch"),
            check_transformers_release(),
            *(check_package(name) for name in ("safetensors", "datasets", "evaluate")),
            *check_libraries(machine),
            check_gpu(machine),
            check_executor(machine),
            check_disk(directory, shutil.disk_usage(directory).free),
            check_hub(os.environ),
        )
    )


def check_python(version: Sequence[int]) -> Check:
    found = f"{'.'.join(map(str, version))} ({platform.machine()})"
    if tuple(version[:2]) >= PYTHON:
        return Check("Python", OK, found)
    return Check("Python", LACKS, found, f"install Python {PYTHON[0]}.{PYTHON[1]} or later")


def check_package(name: str) -> Check:
    """A package against the version that this package declares."""
    wanted = required(name)
    check = _loaded(name, wanted)
    if check.status == OK and not Requirement(f"{name}{wanted}").specifier.contains(check.found, prereleases=True):
        return Check(name, WARNING, f"{check.found}, tested with {wanted}", _install(name, wanted))
    return check


def check_transformers_release() -> Check:
    """transformers against the tested span: an older or newer release may work, a much older one cannot."""
    name, wanted = "transformers", transformers_specifier()
    try:
        warning = check_transformers()
    except EnvironmentLackError as error:
        return Check(name, LACKS, error.message, _install(name, wanted))
    check = _loaded(name, wanted)
    return check if warning is None or check.status == LACKS else Check(name, WARNING, warning, _install(name, wanted))


def _loaded(name: str, wanted: str) -> Check:
    """The version of a package that is there and can be imported."""
    try:
        version = importlib.metadata.version(name)
        importlib.import_module(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, LACKS, "not installed", _install(name, wanted))
    except (ImportError, OSError) as error:
        return Check(name, LACKS, f"does not load: {error}", f"`pip install --force-reinstall '{name}{wanted}'`")
    return Check(name, OK, version)


def _install(name: str, wanted: str) -> str:
    return f"`pip install '{name}{wanted}'`"


def check_libraries(machine: Machine) -> tuple[Check, ...]:
    """One of the two TensorRT libraries is needed to define a network; the other is welcome."""
    missing = Check("TensorRT", LACKS, "neither library is installed", "`pip install tensorrt-rtx-cu13`")
    found = tuple(
        Check(flavour, OK, _described(flavour, machine)) for flavour in FLAVOURS if flavour in machine.flavours
    )
    return found or (missing,)


def check_gpu(machine: Machine) -> Check:
    if machine.gpu is None:
        return Check("GPU", OK, "none: engines are compiled, networks run on the reference executor")
    found = f"{machine.gpu}, {machine.gpu.memory_bytes / 2**30:.0f} GiB"
    lacks = {flavour: what_lacks(flavour, machine) for flavour in machine.flavours}
    if not lacks or None in lacks.values():
        return Check("GPU", OK, found)
    return Check("GPU", WARNING, found, "; ".join(f"{lack[0]}" for lack in lacks.values() if lack is not None))


def check_executor(machine: Machine) -> Check:
    """What `--backend auto` takes here."""
    able = [flavour for flavour in FLAVOURS if what_lacks(flavour, machine) is None]
    device = "CUDA" if machine.torch_has_cuda else "CPU"
    return Check("--backend auto", OK, f"TensorRT through {able[0]}" if able else f"the reference executor on {device}")


def check_disk(directory: Path, free: int) -> Check:
    found = f"{free / 2**30:,.0f} GiB free at {directory.resolve()}"
    if free >= LITTLE_DISK:
        return Check("disk", OK, found)
    return Check("disk", WARNING, found, "a checkpoint takes the model's size again, an engine nearly as much")


def check_hub(environment: os._Environ[str] | dict[str, str]) -> Check:
    offline = environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return Check("hub", OK, "offline (`HF_HUB_OFFLINE` is set)" if offline else "online where a hub id is given")


def _described(flavour: str, machine: Machine) -> str:
    named = machine.capabilities.get(flavour, ())
    return machine.flavours[flavour] + (f", compute capability {', '.join(named)}" if named else "")
