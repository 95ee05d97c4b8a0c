"""Where a port goes wrong whose modules are right and which is wrong as `run` uses it: by the taps of the first
decode step that differs, else by what failed and what did not.

Hugging Face computes the token at position n in one forward of all tokens; a step through the KV cache must give the
same for that token, in every module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trtllm_port.verification.causes.locations import Look
from trtllm_port.verification.causes.signatures import Cause
from trtllm_port.verification.decode.incremental import LAST, RUNS
from trtllm_port.verification.decode.single_token import Fed, token_comparisons
from trtllm_port.verification.judge.divergence import first_divergence
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.tap_errors import TapComparison
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.port_run import Expected
from trtllm_port.verification.stimulus.inputs import Stimulus
from trtllm_port.verification.taps.names import LOGITS
from trtllm_port.verification.taps.runner import PortRunner

BATCH = "batch"
LOGITS_INDICES = "logits_indices"


def step_comparisons(
    port: PortRunner, stimulus: Stimulus, expected: Expected, step: int, taps: Sequence[str]
) -> dict[str, TapComparison]:
    """Compare some taps of one step after the prefill; `step` counts them from 0."""
    prefill, recording = len(stimulus.ids) - stimulus.decode_steps, expected.recording
    fed = Fed(
        rows=[stimulus.ids[: prefill + step + 1]],
        prefill=[prefill],
        row=0,
        position=prefill + step,
        alone=recording.taps,
        length=recording.length,
        routing=[recording.taps],
        note=after_prefill(step),
    )
    return token_comparisons(port, fed, expected, taps)


def after_prefill(step: int) -> str:
    """Say which step after the prefill is meant, counted from 0."""
    return "in the first step after the prefill" if step == 0 else f"in step {step + 1} after the prefill"


def step_divergence(
    order: Sequence[str], steps: dict[str, TapComparison]
) -> tuple[tuple[str, ...], dict[str, tuple[Cause, ...]]]:
    """Return the module that first differs in a step, and the hypothesis about it.

    Where the step's logits are all that was seen, they say that something differs, and not where.
    """
    module = first_divergence(order, steps)
    if module is None or steps.keys() <= {LOGITS}:
        return (), {}
    when = next(each.note for each in steps.values() if each.diverged)
    where = f"`{module}`" if module else "the model itself"
    cause = Cause(
        id="decode",
        cause="KV cache, mask or positions are wrong after the first step",
        status="likely",
        evidence=f"no module differs in the prefill; {where} first differs {when}, on the same tokens",
        place="`cache.update`, the mask and the use of `position_ids` in `model.py`",
        look=Look(patterns=(r"cache\.", r"position_ids"), elsewhere=(r"causal_mask\(",)),
    )
    return (module,), {module: (cause,)}


def failed_causes(failed: Mapping[str, TapComparison]) -> dict[str, tuple[Cause, ...]]:
    """Return what is wrong with modules that could not be computed as `run` uses them."""
    return {
        module: (
            Cause(
                id=RUNS,
                cause="it cannot be computed in decode steps or batches",
                status="confirmed",
                evidence=found.note,
                place=f"`{module}` in `model.py`",
            ),
        )
        for module, found in failed.items()
    }


def use_cause(gates: Sequence[Gate]) -> Cause | None:
    """Return a hypothesis for a port whose prefill is right and whose decode steps or batch are not, by its gates."""
    wrong = (gate for gate in gates if gate.verdict is Verdict.FAIL and gate.name.startswith(("decode.", "batch.")))
    phase = next((gate.phase for gate in wrong), None)
    here = [gate for gate in gates if gate.phase == phase]
    failed = [gate.name for gate in here if gate.verdict is Verdict.FAIL]
    if runs := next((gate for gate in here if gate.name in failed and gate.name.endswith(".runs")), None):
        return Cause(
            id=RUNS,
            cause="the port cannot be run on decode steps or batches",
            status="confirmed",
            evidence=runs.reason,
            place="`model.py`",
        )
    if phase is None or not _right(here, "prefill"):
        return None
    if any(name.startswith("decode.") for name in failed):
        return Cause(
            id="decode",
            cause="KV cache or positions are wrong after the first step",
            status="likely",
            evidence="the prefill's logits are right, those of single tokens after it are not",
            place="`cache.update`, the mask and the use of `position_ids` in `model.py`",
        )
    if all(name == LAST for name in failed if name.startswith("batch.")):
        return Cause(
            id=LOGITS_INDICES,
            cause="logits of other tokens than `logits_indices` asks for",
            status="likely",
            evidence="all tokens' logits of a batch are right; where each row asks for its last one, they are not",
            place="`gather_tokens` and the use of `logits_indices` in `model.py`",
        )
    alone = "prefill and decode" if _right(here, "decode") else "in the prefill; its single steps were not judged"
    return Cause(
        id=BATCH,
        cause="rows of a padded batch disturb each other",
        status="likely",
        evidence=f"one row alone is right, {alone}; rows of unequal lengths together are not",
        place="the attention mask and everything that mixes the batch dimension in `model.py`",
    )


def _right(gates: Sequence[Gate], part: str) -> bool:
    """Whether a part was judged, and no gate of it says anything else than that it is right."""
    verdicts = {gate.verdict for gate in gates if gate.name.startswith(f"{part}.")}
    return bool(verdicts) and verdicts <= {Verdict.PASS, Verdict.WARN}
