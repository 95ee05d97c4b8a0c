"""A recorded phase as tensors for a safetensors file, and the rest as JSON; and back.

Equal tensors, as a layer's output and the next one's input, are kept once: a tensor's name is its content's digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from trtllm_port.foundation.digests import bytes_digest
from trtllm_port.foundation.foreign import typed
from trtllm_port.layers.definition.dtypes import FLOAT_DTYPES
from trtllm_port.verification.bundle.record import RecordedFloor, RecordedLogits, RecordedPhase
from trtllm_port.verification.bundle.sketch import COLUMNS, Sketch
from trtllm_port.verification.stimulus.precisions import Phase
from trtllm_port.verification.taps.names import module_of
from trtllm_port.verification.taps.pairing import ModuleFacts

LOGIT_PARTS = ("tokens_N", "reference_NV", "yardstick_NV")
# Sketches of a float64 reference keep its precision, for its floor is one float32 rounding; others need no such.
SKETCH_DTYPES = {"float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Of one tap in one layout: names of tensors, and numbers that are null where they are not finite."""

    shape: tuple[int, ...]
    values: str
    norms: str
    largest: float | None
    floor: str
    floor_max: float | None


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The JSON part of a phase."""

    phase: Phase
    root: str
    reference: str
    yardstick: str
    modules: Mapping[str, ModuleFacts]
    taps: Mapping[str, tuple[_Layout, ...]]
    decisions: tuple[str, ...]
    prompt: Mapping[str, str]
    rows: Mapping[str, str] | None


class _Tensors:
    """Tensors by the digest of their content."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def add(self, tensor: Tensor) -> str:
        plain = tensor.contiguous()
        name = bytes_digest(plain.flatten().view(torch.uint8).numpy().tobytes()) + f"-{plain.dtype}"
        self.kept.setdefault(name, plain)
        return name


def to_parts(recorded: RecordedPhase) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the JSON part and the tensors."""
    tensors, dtype = _Tensors(), SKETCH_DTYPES.get(recorded.phase.reference_dtype, torch.float32)

    def layout(reference: Sketch, floor: RecordedFloor) -> dict[str, Any]:
        return {
            "shape": list(reference.shape),
            "values": tensors.add(reference.values_NK.to(dtype)),
            "norms": tensors.add(reference.norms_N),
            "largest": reference.largest if reference.finite else None,
            "floor": tensors.add(floor.error_N),
            "floor_max": floor.max_error if floor.finite else None,
        }

    def logits(found: RecordedLogits | None) -> dict[str, str] | None:
        return None if found is None else {name: tensors.add(getattr(found, name)) for name in LOGIT_PARTS}

    content = {
        "phase": asdict(recorded.phase),
        "root": recorded.root,
        "reference": recorded.reference,
        "yardstick": recorded.yardstick,
        "modules": {path: asdict(facts) for path, facts in recorded.modules.items()},
        "taps": {
            tap: [layout(*pair) for pair in zip(recorded.sketches[tap], recorded.floors.get(tap, ()), strict=False)]
            for tap in recorded.order
        },
        "decisions": list(recorded.decisions),
        "prompt": logits(recorded.prompt),
        "rows": logits(recorded.rows),
    }
    return content, tensors.kept


def from_parts(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> RecordedPhase:
    """Return the phase again; the opposite of `to_parts`.

    Raises:
        TypeError, KeyError, ValueError: the parts are not what `to_parts` gives.
    """
    phase = {name: value for name, value in content["phase"].items() if name != "incremental"}  # of earlier releases
    parts = typed(_Parts, {**content, "phase": phase})
    if not {parts.phase.dtype, parts.phase.reference_dtype} <= {*FLOAT_DTYPES, "float64"}:
        raise ValueError(f"a phase in {parts.phase.dtype} and {parts.phase.reference_dtype}")
    _require_shapes(parts, tensors)

    def reference(layout: _Layout) -> Sketch:
        return Sketch(
            shape=layout.shape,
            values_NK=tensors[layout.values],
            norms_N=tensors[layout.norms],
            largest=float("inf") if layout.largest is None else layout.largest,
            finite=layout.largest is not None,
        )

    def floor(layout: _Layout) -> RecordedFloor:
        largest = float("inf") if layout.floor_max is None else layout.floor_max
        return RecordedFloor(error_N=tensors[layout.floor], max_error=largest, finite=layout.floor_max is not None)

    def logits(names: Mapping[str, str]) -> RecordedLogits:
        return RecordedLogits(**{part: tensors[names[part]] for part in LOGIT_PARTS})

    return RecordedPhase(
        phase=parts.phase,
        order=tuple(parts.taps),
        sketches={tap: tuple(map(reference, layouts)) for tap, layouts in parts.taps.items()},
        floors={tap: tuple(map(floor, layouts)) for tap, layouts in parts.taps.items()},
        decisions=parts.decisions,
        prompt=logits(parts.prompt),
        rows=None if parts.rows is None else logits(parts.rows),
        root=parts.root,
        modules=parts.modules,
        reference=parts.reference,
        yardstick=parts.yardstick,
    )


def _require_shapes(parts: _Parts, tensors: Mapping[str, Tensor]) -> None:
    """ValueError where tensors that belong together do not fit each other."""
    for tap, layouts in parts.taps.items():
        for layout in layouts:
            values, rest = tensors[layout.values], (tensors[layout.norms], tensors[layout.floor])
            if values.ndim != 2 or values.shape[1] != COLUMNS or any(each.shape != values.shape[:1] for each in rest):
                raise ValueError(f"the sketch of `{tap}` has tensors that do not belong together")
        if module_of(tap) not in parts.modules:
            raise ValueError(f"the tap `{tap}` is of no module")
    for names in (parts.prompt, *([] if parts.rows is None else [parts.rows])):
        tokens_N, reference_NV, yardstick_NV = (tensors[names[part]] for part in LOGIT_PARTS)
        if tokens_N.ndim != 1 or reference_NV.ndim != 2 or reference_NV.shape != yardstick_NV.shape:
            raise ValueError("the logits do not belong together")
        if len(reference_NV) != len(tokens_N) or tokens_N.dtype != torch.int64:
            raise ValueError("the logits are not those of the tokens")
