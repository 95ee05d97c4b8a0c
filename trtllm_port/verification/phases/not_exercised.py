"""What the stimulus did not reach. It is listed as NOT EXERCISED and never counted as passed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtllm_port.layers.quantization import QuantizationSummary
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.thresholds import RATIO, ROUNDING
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.phases.phase import PhaseResult
from trtllm_port.verification.stimulus.input_log import ROWS, STEPS, never_differed
from trtllm_port.verification.stimulus.stimulus import BEYOND, Stimulus, position_bounds, switch_lengths
from trtllm_port.verification.taps.layer_groups import name_a_few
from trtllm_port.verification.taps.pairing import DECLARED_START

NAMED = 3  # experts of a router
NEAR_CAP = 0.3  # tanh(x) differs from x by 3 % here; below, a missing soft cap hides in the noise
WAYS = {ROWS: "rows of a batch", STEPS: "steps"}
SWITCH = (
    "all angles of the rotary embedding change there, and the KV cache keeps those of the shorter text, as in Hugging "
    "Face's `forward`; its `generate` computes all keys anew for some models, as Phi-3, and the port does not"
)


@dataclass(frozen=True, kw_only=True)
class NotExercised:
    """Something that could be wrong without this run having shown it."""

    what: str
    reason: str


def not_exercised(
    config: Mapping[str, Any],
    stimulus: Stimulus,
    phases: Sequence[PhaseResult],
    gates: Sequence[Gate],
    *,
    random_weights: bool,
    quantized: QuantizationSummary | None = None,
    inputs: int = 0,
) -> tuple[NotExercised, ...]:
    """List what this run could not show.

    Args:
        config: Hugging Face's config.
        stimulus: what was fed.
        phases: what was found.
        gates: all of them; a skipped one is not exercised.
        random_weights: whether the weights were random.
        quantized: how those of the directory are quantized; None: they are not.
        inputs: of how many weights the inputs are quantized, on both sides.
    """
    return (
        *_by_length(config, len(stimulus.ids)),
        *_by_gates(gates),
        *_soft_caps(config, phases),
        *_epsilons(phases[0]),
        *_neutral_vectors(phases[0]),
        *_experts(phases[0]),
        *_elsewhere(phases[0]),
        *_inputs(phases),
        *_unread(phases[-1]),
        *_always(random_weights),
        *_quantized(quantized, inputs),
    )


def _by_length(config: Mapping[str, Any], tokens: int) -> Iterator[NotExercised]:
    for what, bound in position_bounds(config).items():
        if bound >= tokens:
            hint = "" if (config.get("max_position_embeddings") or 0) <= bound else f"; `--tokens {bound + BEYOND}`"
            yield NotExercised(what=what, reason=f"it starts beyond {bound} tokens, the prompt has {tokens}{hint}")
    longest = config.get("max_position_embeddings")
    for length in switch_lengths(config):
        if longest and longest <= length:  # the engine takes no longer text
            continue
        yield NotExercised(what=f"a text that grows past {length} tokens as it is generated", reason=SWITCH)
    if longest and longest > tokens:
        yield NotExercised(what=f"positions {tokens} to {longest - 1}", reason=f"the prompt has {tokens} tokens")


def _by_gates(gates: Sequence[Gate]) -> Iterator[NotExercised]:
    for gate in gates:
        if gate.verdict is Verdict.SKIPPED:
            yield NotExercised(what=f"{gate.name} ({gate.phase})", reason=gate.reason)


def _soft_caps(config: Mapping[str, Any], phases: Sequence[PhaseResult]) -> Iterator[NotExercised]:
    cap = config.get("final_logit_softcapping")
    metrics = phases[0].taps["logits"].metrics if "logits" in phases[0].taps else None
    if cap and metrics is not None and metrics.max_reference < NEAR_CAP * cap:
        reason = f"the largest logit is {metrics.max_reference:.3g}, the cap {cap:g}"
        yield NotExercised(what="soft cap of the logits", reason=reason)
    peak = max((phase.facts.score_peak or 0.0 for phase in phases), default=0.0)
    if config.get("attn_logit_softcapping") and peak < NEAR_CAP:
        reason = f"the largest score reaches {peak:.0%} of the cap"
        yield NotExercised(what="soft cap of the attention scores", reason=reason)


def _epsilons(phase: PhaseResult) -> Iterator[NotExercised]:
    """Normalisations whose epsilon could be ten times larger without a failing tap."""
    hidden = []
    for path, variance in phase.variances.items():
        epsilon = phase.facts.modules[path].epsilon or 0.0
        tap = phase.taps.get(path)
        noise = ROUNDING[phase.phase.dtype]
        if tap is not None and tap.floor is not None:
            noise = max(noise, tap.floor.rel_l2)
        change = 9 * epsilon / (2 * (variance + epsilon))
        if change < RATIO.warns * noise:
            hidden.append(path)
    if hidden:
        reason = f"inputs are so large that a tenfold epsilon would not show at {_some(hidden)}"
        yield NotExercised(what="epsilon of some normalisations", reason=reason)


def _neutral_vectors(phase: PhaseResult) -> Iterator[NotExercised]:
    """Biases of zeros and gains of ones: leaving them out changes nothing."""
    vectors = phase.facts.vectors
    zero = [name for name, v in vectors.items() if name.endswith("bias") and not bool(v.any())]
    one = [name for name, v in vectors.items() if name.endswith("weight") and bool((v == 1).all())]
    if zero:
        yield NotExercised(what="biases that are all zero", reason=f"dropping them changes nothing: {_some(zero)}")
    if one:
        yield NotExercised(what="gains that are all one", reason=f"dropping them changes nothing: {_some(one)}")


def _experts(phase: PhaseResult) -> Iterator[NotExercised]:
    """Experts that no token was sent to: their weights could be anything."""
    for found in phase.routing:
        if found.unused:
            named = ", ".join(map(str, found.unused[:NAMED])) + (" …" if len(found.unused) > NAMED else "")
            yield NotExercised(
                what=f"{len(found.unused)} of {found.experts} experts of `{found.module}`",
                reason=f"none of {found.tokens} tokens chose them: {named}",
            )


def _elsewhere(phase: PhaseResult) -> Iterator[NotExercised]:
    """Modules that the port computes elsewhere, where no output is theirs."""
    reasons = {tap: reason for tap, reason in phase.ignored.items() if reason.startswith(DECLARED_START)}
    for reason in dict.fromkeys(reasons.values()):
        named = _some([tap for tap, given in reasons.items() if given == reason])
        yield NotExercised(what=f"the output of {named}", reason=reason)


def _inputs(phases: Sequence[PhaseResult]) -> Iterator[NotExercised]:
    """Inputs of the network that could be ignored: what they said was always the same."""
    for way, names in never_differed(phase.inputs for phase in phases):
        which = WAYS[way]
        yield NotExercised(what=f"inputs that differ between {which}", reason=f"all {which} have equal {_some(names)}")


def _unread(phase: PhaseResult) -> Iterator[NotExercised]:
    """Tables of which only the prompt's rows were looked up, and parameters that are there for nothing."""
    for name, reason in phase.unread.items():
        what = f"rows of `{name}` that the prompt does not look up" if name in phase.facts.modules else f"`{name}`"
        yield NotExercised(what=what, reason=reason)


def _always(random_weights: bool) -> Iterator[NotExercised]:
    if random_weights:
        reason = "the weights are random: massive activations and sharp attention of a trained model do not occur"
        yield NotExercised(what="trained weights", reason=reason)


def _quantized(summary: QuantizationSummary | None, inputs: int) -> Iterator[NotExercised]:
    for group in summary.groups if summary is not None else ():
        left = group.count - inputs if group.static_inputs else group.count
        if group.activation and left > 0:
            what = f"quantized inputs of weights in {group.kind} ({group.layout}, {left} of them)"
            yield NotExercised(what=what, reason=f"neither side quantizes them, as {group.activation} asks for")


def _some(names: Sequence[str]) -> str:
    return name_a_few([f"`{name}`" for name in names])
