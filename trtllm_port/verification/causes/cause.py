"""Why a module may be wrong, as a report says it."""

from __future__ import annotations

from dataclasses import dataclass, field

from trtllm_port.verification.causes.locations import WhereToLook


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A hypothesis.

    Attributes:
        cause: in a few words.
        status: "likely" or "unknown"; "confirmed" is for causes that were replayed.
        evidence: what was seen.
        place: where to look.
        id: of the kind of cause, as `norm.epsilon`; "" where nothing is known.
        look: what to look at in the sources; from it comes `place`.
    """

    cause: str
    status: str
    evidence: str
    place: str
    id: str = ""
    look: WhereToLook = field(default=WhereToLook(), repr=False)
