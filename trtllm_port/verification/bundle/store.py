"""A recorded phase as tensors for a safetensors file, and the rest as JSON; and back.

Equal tensors, as a layer's output and the next one's input, are kept once: a tensor's name is its content's digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from trtllm_port.runtime.digests import bytes_digest
from trtllm_port.verification.bundle.record import Floor, Logits, RecordedPhase
from trtllm_port.verification.bundle.sketch import Sketch
from trtllm_port.verification.phase import Phase
from trtllm_port.verification.taps import ModuleFacts

LOGIT_PARTS = ("tokens_N", "reference_NV", "yardstick_NV")
# Sketches of a float64 reference keep its precision, for its floor is one float32 rounding; others need no such.
SKETCH_DTYPES = {"float64": torch.float64}


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

    def layout(reference: Sketch, floor: Floor) -> dict[str, Any]:
        return {
            "shape": list(reference.shape),
            "values": tensors.add(reference.values_NK.to(dtype)),
            "norms": tensors.add(reference.norms_N),
            "largest": reference.largest if reference.finite else None,
            "floor": tensors.add(floor.error_N),
            "floor_max": floor.max_error if floor.finite else None,
        }

    def logits(found: Logits | None) -> dict[str, str] | None:
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
    """Return the phase again; the opposite of `to_parts`."""

    def reference(layout: Mapping[str, Any]) -> Sketch:
        finite = layout["largest"] is not None
        return Sketch(
            shape=tuple(layout["shape"]),
            values_NK=tensors[layout["values"]],
            norms_N=tensors[layout["norms"]],
            largest=layout["largest"] if finite else float("inf"),
            finite=finite,
        )

    def floor(layout: Mapping[str, Any]) -> Floor:
        finite = layout["floor_max"] is not None
        largest = layout["floor_max"] if finite else float("inf")
        return Floor(error_N=tensors[layout["floor"]], max_error=largest, finite=finite)

    def logits(names: Mapping[str, str]) -> Logits:
        return Logits(**{part: tensors[names[part]] for part in LOGIT_PARTS})

    return RecordedPhase(
        phase=Phase(**{field.name: content["phase"][field.name] for field in fields(Phase)}),
        order=tuple(content["taps"]),
        sketches={tap: tuple(map(reference, layouts)) for tap, layouts in content["taps"].items()},
        floors={tap: tuple(map(floor, layouts)) for tap, layouts in content["taps"].items()},
        decisions=tuple(content["decisions"]),
        prompt=logits(content["prompt"]),
        rows=None if content["rows"] is None else logits(content["rows"]),
        root=content["root"],
        modules={path: ModuleFacts(**facts) for path, facts in content["modules"].items()},
        reference=content["reference"],
        yardstick=content["yardstick"],
    )
