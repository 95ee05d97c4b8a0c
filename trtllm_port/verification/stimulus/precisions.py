"""The phases of a comparison: which precisions meet.

A port in bfloat16 or float16 has two phases. The logic phase runs the port's own network in float32 against Hugging
Face in float64, with float32 as the yardstick: the floor there is so low that even a wrong epsilon shows. The precision
phase runs the port in its dtype against Hugging Face in float32. A float32 port has the logic phase only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Which precisions meet.

    Attributes:
        name: "logic" or "precision".
        dtype: of the port and of the yardstick.
        reference_dtype: of the reference.
    """

    name: str
    dtype: str
    reference_dtype: str


def phases_of(dtype: str) -> tuple[Phase, ...]:
    """Return the phases for a port's dtype, in the order of running."""
    logic = Phase(name="logic", dtype="float32", reference_dtype="float64")
    if dtype == "float32":
        return (logic,)
    return logic, Phase(name="precision", dtype=dtype, reference_dtype="float32")
