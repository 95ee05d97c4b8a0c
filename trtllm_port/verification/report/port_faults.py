"""What the port itself does wrong so that it cannot be run: a verdict with a place, not an error of the input.

Its code raises, asks for what TensorRT refuses, or defines a network that cannot be computed on what `run` feeds it.
"""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from trtllm_port.errors import CheckpointError, NetworkError, PortCodeError, PortError
from trtllm_port.layers.definition.network import Network
from trtllm_port.layers.modules.module import Module
from trtllm_port.registry.ports import PortEntry
from trtllm_port.runtime.reference.evaluators.errors import LayerExecutionError
from trtllm_port.verification.causes.cause import Cause
from trtllm_port.verification.causes.locations import AROUND, Excerpt, WhereToLook, excerpt_of, place_of
from trtllm_port.verification.causes.source_tree import PortCode
from trtllm_port.verification.decode.generation_gates import RUNS, module_of_layer
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.report.parameter_mismatch import mismatch_report
from trtllm_port.verification.report.report import Report
from trtllm_port.verification.report.unrunnable import unrun_report
from trtllm_port.verification.sides.preparation import Model
from trtllm_port.verification.taps.names import ROOT

CALLED = {"kv_cache_update": "cache.update"}  # operation of a layer → what a port calls, where that differs
NUMBERED = re.compile(r"_\d+$")  # of the second layer of a kind in a module, and so on


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a port cannot be run.

    Attributes:
        what: what happened, in words.
        module: the path of the module that did it, "" is the model itself; None where that is not known.
        operation: that failed in it, "" where it is no layer of the network.
        excerpt: the lines of it; None where it is not known.
    """

    what: str
    module: str | None
    operation: str = ""
    excerpt: Excerpt | None = None

    @property
    def place(self) -> str:
        """The file and line, as a person would name them, with the code that is there; else the module."""
        if self.excerpt is None:
            return f"`{self.module}` in `model.py`" if self.module else "`model.py`"
        line = self.excerpt.marked[0]
        return f"`{self.excerpt.path}` line {line}: `{self.excerpt.lines[line - self.excerpt.first_line].strip()}`"


def blame(model: Model, error: Exception) -> Report:
    """Turn an error into a failing report, if it is the port that is to blame.

    Args:
        model: the model and its port.
        error: what came of converting, defining or running it.

    Raises:
        Exception: the error itself, which is about something else.
    """
    if isinstance(error, CheckpointError):
        return mismatch_report(model, error)
    fault = fault_of(error, model.port)
    if fault is None:
        raise error
    fault = _shown(fault, model)
    module = fault.module if fault.module != ROOT else model.architecture
    where = f" at `{module}`" if module is not None else ""
    return unrun_report(
        model,
        f"the port cannot be run, it fails{where}: {fault.what.splitlines()[0]}",
        Gate(name=RUNS, phase="port", verdict=Verdict.FAIL, reason=fault.what),
        Cause(id=RUNS, cause="the port cannot be run", status="confirmed", evidence=fault.what, place=fault.place),
        module=module,
        excerpts=() if fault.excerpt is None else (fault.excerpt,),
        reference={},
    )


def _shown(fault: Fault, model: Model) -> Fault:
    """Of a layer's module, add where it is written; what made the layer may be no module."""
    if fault.excerpt is not None or fault.module is None:
        return fault
    port = model.port.cls(model.port.cls.config_class.from_hugging_face(model.source, "float32"))
    classes = {path: type(module).__name__ for path, module in port.named_modules()}
    if fault.module not in classes:
        return replace(fault, module=None)
    call = re.escape(f"{CALLED.get(fault.operation, fault.operation)}(")
    look = WhereToLook(patterns=(call,) if fault.operation else ())
    place = place_of(PortCode(model.port.packages, model.port.cls).sources(classes), fault.module, look)
    if place is None:
        return fault
    note = "it fails when the network runs" if place.marks else place.note
    return replace(fault, excerpt=excerpt_of("port", replace(place, note=note)))


def fault_of(error: Exception, port: PortEntry) -> Fault | None:
    """Tell what a port did wrong by the error that came of it; None where the port is not to blame."""
    if isinstance(error, LayerExecutionError):
        operation = NUMBERED.sub("", error.layer.rpartition("/")[2])
        return Fault(what=error.message, module=module_of_layer(error.layer) or None, operation=operation)
    if isinstance(error, PortError) and not isinstance(error, NetworkError | PortCodeError):
        return None
    trace = (error.__cause__ if isinstance(error, PortCodeError) and error.__cause__ else error).__traceback__
    own = [each for each in traceback.extract_tb(trace) if port.has_file(each.filename)]
    if not own and not isinstance(error, PortError):
        return None
    what = error.message if isinstance(error, PortError) else f"{type(error).__name__}: {error}"
    if isinstance(error, PortCodeError):
        what = " ".join(what.split())  # it lists what is to be written line by line
    if not own:
        return Fault(what=what, module=_running(trace))
    return Fault(what=what, module=_running(trace), excerpt=_around(Path(own[-1].filename), own[-1].lineno or 1))


def _around(file: Path, line: int) -> Excerpt:
    lines = file.read_text(encoding="utf-8").splitlines()
    first, last = max(1, line - AROUND), min(len(lines), line + AROUND)
    return Excerpt(
        side="port",
        path="/".join(file.parts[-3:]),
        first_line=first,
        lines=tuple(lines[first - 1 : last]),
        marked=(line,),
        note="it was running when the error came",
    )


def _running(trace: TracebackType | None) -> str | None:
    """Return the path of the innermost module that was being called, None if there was none."""
    found = None
    for frame, _ in traceback.walk_tb(trace):
        module, network = frame.f_locals.get("self"), frame.f_locals.get("network")
        if frame.f_code is Module.__call__.__code__ and isinstance(module, Module) and isinstance(network, Network):
            found = network.path_of(module) or found
    return found
