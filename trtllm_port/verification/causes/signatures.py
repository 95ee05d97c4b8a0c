"""Hypotheses about the guilty module: cheap signatures, tried in the order of the table `SIGNATURES`.

Each one fits a simple law to the module's output against Hugging Face's. A law that takes away nine tenths of the error
is *likely* the cause. Nothing is replayed here, so nothing is called confirmed.

T tokens, F features
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from trtllm_port.verification.causes.evidence import Evidence, collect
from trtllm_port.verification.causes.locations import Look
from trtllm_port.verification.judge.tap_errors import TapComparison
from trtllm_port.verification.sides.hugging_face_sides import HuggingFaceFacts
from trtllm_port.verification.sides.port_run import Expected
from trtllm_port.verification.stimulus.inputs import Stimulus
from trtllm_port.verification.taps.names import module_of, within
from trtllm_port.verification.taps.rotary_tables import is_rotary
from trtllm_port.verification.taps.runner import PortRunner

EXPLAINED = 0.1  # a law must take away nine tenths of the error ["falls at least tenfold", hypothesis replay]
NOISE = 1.2  # what is left over may exceed Hugging Face's own error by this, as clean ports do
WRONG = 5.0  # a token whose error exceeds the noise this many times is wrong, others are right
CLEAR = 50.0  # so much above the noise must the wrong tokens be before their positions mean something
LAYER_NUMBER = re.compile(r"\b\d+\b")
MAX_EXPLAINED = 8  # each keeps its tensors until it is explained
SAME = 0.02  # relative difference below which two tensors are called the same
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}


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
    look: Look = field(default=Look(), repr=False)


def explain(
    modules: Sequence[str],
    port: PortRunner,
    stimulus: Stimulus,
    expected: Expected,
    known: tuple[Mapping[str, TapComparison], HuggingFaceFacts],
) -> dict[str, tuple[Cause, ...]]:
    """Return hypotheses about the guilty modules, best first; none where nothing fits.

    Args:
        modules: the guilty ones. Of those that are equal but for their layer, the first is explained.
        port: the port.
        stimulus: the input.
        expected: the reference, and the floors of the injected run.
        known: the comparisons of the injected run, and Hugging Face's model.
    """
    unlike = {LAYER_NUMBER.sub("*", module): module for module in reversed(modules)}
    chosen = [module for module in modules if module in unlike.values()][:MAX_EXPLAINED]
    return {each.module: _hypotheses(each) for each in collect(chosen, port, stimulus, expected, known)}


def _hypotheses(evidence: Evidence) -> tuple[Cause, ...]:
    found = (next((cause for law in laws if (cause := law(evidence)) is not None), None) for laws in SIGNATURES)
    return tuple(cause for cause in found if cause is not None)


def _not_finite(e: Evidence) -> Cause | None:
    if e.value_TF is None or bool(e.value_TF.isfinite().all()):
        return None
    largest = 0.0 if e.reference_TF is None else float(e.reference_TF.abs().max())
    evidence = f"NaN or infinity where Hugging Face's largest value is {largest:.3g}"
    return _likely(e, "overflow or an undefined operation", evidence)


def _rotary_table(e: Evidence) -> Cause | None:
    """The tables of cosines themselves: no law of their values, but only a few things can be wrong."""
    if not is_rotary(e.class_name):
        return None
    evidence = f"`{e.tap}` differs, and it depends on nothing but positions and config"
    return _likely(e, "rotary frequencies: theta, scaling, partial rotary factor, or their precision", evidence)


def _mixed_up_inside(e: Evidence) -> Cause | None:
    """A module inside gets what Hugging Face gives to, or takes from, another."""
    for tap, value_TF in e.inputs.items():
        twin = _twin(value_TF, e.candidates, e.expected.get(tap))
        if twin is not None:
            evidence = f"`{tap}` carries what Hugging Face computes as the output of `{twin}`"
            return _likely(e, "an intermediate result is taken from the wrong place", evidence)
    return None


def _gate_and_up(e: Evidence) -> Cause | None:
    """A gated MLP whose activation is applied to the wrong half, or that has another activation."""
    for tap, value_TF in e.inputs.items():
        path, _, name = module_of(tap).rpartition(".")
        gate_TF, up_TF = (e.candidates.get(f"{path}.{part}") for part in ("gate_proj", "up_proj"))
        if name != "down_proj" or gate_TF is None or up_TF is None or gate_TF.shape != value_TF.shape:
            continue
        right_TF = e.expected[tap]
        wrong_by = float((value_TF - right_TF).norm() / right_TF.norm())
        for swapped, (inner_TF, outer_TF) in ((True, (up_TF, gate_TF)), (False, (gate_TF, up_TF))):
            activation, error = _nearest_activation(value_TF, inner_TF, outer_TF)
            if error > min(SAME, EXPLAINED * wrong_by):
                continue  # it explains nothing, where Hugging Face's own value is as near
            if swapped:
                return _likely(e, "gate and up are swapped", f"`{tap}` is {activation}(up) · gate of Hugging Face")
            else:
                return _likely(e, "wrong activation", f"`{tap}` is {activation}(gate) · up of Hugging Face")
    return None


def _activation(e: Evidence) -> Cause | None:
    """The output is another function of the input, element by element."""
    if e.value_TF is None or e.reference_TF is None or e.input_TF is None or e.input_TF.shape != e.value_TF.shape:
        return None
    activation, _ = _nearest_activation(e.value_TF, e.input_TF)
    if not _explains(e, e.value_TF - ACTIVATIONS[activation](e.input_TF), e.value_TF - e.reference_TF):
        return None
    return _likely(e, "wrong activation", f"the output is {activation} of the input")


def _nearest_activation(value_TF: Tensor, input_TF: Tensor, factor: Tensor | float = 1.0) -> tuple[str, float]:
    """Return the activation whose product with the factor comes closest, and its relative error."""
    errors = {name: float((value_TF - function(input_TF) * factor).norm()) for name, function in ACTIVATIONS.items()}
    best = min(errors, key=errors.__getitem__)
    return best, errors[best] / max(float(value_TF.norm()), 1e-300)


def _mixed_up_beside(e: Evidence) -> Cause | None:
    """The module's output is that of a sibling: the weights are swapped."""
    if e.value_TF is None or e.reference_TF is None:
        return None
    beside = {tap: x for tap, x in e.candidates.items() if not within(module_of(tap), e.module)}
    twin = _twin(e.value_TF, beside, e.reference_TF)
    if twin is None:
        return None
    evidence = f"its output is what Hugging Face computes as the output of `{twin}`"
    return _likely(e, f"weights or output swapped with `{twin}`", evidence)


def _offset(e: Evidence) -> Cause | None:
    """A constant vector at every token: a bias."""
    if e.value_TF is None or e.reference_TF is None or e.value_TF.shape[0] < 2:
        return None
    difference_TF = e.value_TF - e.reference_TF
    offset_F = difference_TF.mean(0)
    if not _explains(e, difference_TF - offset_F, difference_TF):
        return None
    if e.bias is not None and _same(offset_F, -e.bias):
        return _likely(e, "bias dropped", f"the port lacks exactly `{e.module}.bias` at every token")
    if e.bias is not None and _same(offset_F, e.bias):
        return _likely(e, "bias added twice", f"the port has `{e.module}.bias` once too often at every token")
    evidence = f"the difference at `{e.tap}` is the same vector (norm {float(offset_F.norm()):.3g}) at every token"
    return _likely(e, "a bias is missing, extra or wrong", evidence)


def _scale(e: Evidence) -> Cause | None:
    """One factor for everything: a multiplier."""
    if e.value_TF is None or e.reference_TF is None:
        return None
    factor = float((e.value_TF * e.reference_TF).sum() / e.reference_TF.square().sum())
    if not _explains(e, e.value_TF - factor * e.reference_TF, e.value_TF - e.reference_TF):
        return None
    return _likely(e, "wrong multiplier", f"`{e.tap}` is {factor:.6g} times Hugging Face's everywhere")


def _token_scale(e: Evidence) -> Cause | None:
    """One factor per token: a normalisation with another epsilon."""
    if e.value_TF is None or e.reference_TF is None or e.value_TF.shape[-1] < 2:
        return None
    bias = 0.0 if e.bias is None else e.bias
    value_TF, reference_TF = e.value_TF - bias, e.reference_TF - bias
    factor_T = (value_TF * reference_TF).sum(-1) / reference_TF.square().sum(-1)
    if not _explains(e, value_TF - factor_T[:, None] * reference_TF, value_TF - reference_TF):
        return None
    low, high = float(factor_T.min()), float(factor_T.max())
    evidence = f"each token is scaled by its own factor, {low:.7g} to {high:.7g}"
    if e.epsilon is None or e.input_TF is None or e.input_TF.shape[0] != factor_T.shape[0]:
        return _likely(e, "a factor that depends on the token: a normalisation is wrong", evidence)
    epsilon = _fitted_epsilon(e.input_TF, factor_T, e.epsilon)
    evidence += f", as an epsilon of {epsilon:.3g} gives it; Hugging Face has {e.epsilon:g}"
    return _likely(e, "wrong epsilon", evidence)


def _fitted_epsilon(input_TF: Tensor, factor_T: Tensor, epsilon: float) -> float:
    """Solve factor² = (v + epsilon) / (v + x) for x at the tokens of smallest v, where it shows best."""
    fits = []
    for v_T in (input_TF.square().mean(-1), input_TF.var(-1, unbiased=False)):  # RMS norm, layer norm
        chosen = v_T.argsort()[: max(1, v_T.numel() // 8)]
        x_T = (v_T[chosen] + epsilon) / factor_T[chosen].square() - v_T[chosen]
        x = float(x_T.median())
        expected_T = ((v_T + epsilon) / (v_T + x)).clamp(min=0).sqrt()
        fits.append((float((expected_T - factor_T).norm()), x))
    return min(fits)[1]


def _channel_scale(e: Evidence) -> Cause | None:
    """One factor per feature: a gain."""
    if e.value_TF is None or e.reference_TF is None or e.value_TF.shape[0] < 2:
        return None
    factor_F = (e.value_TF * e.reference_TF).sum(0) / e.reference_TF.square().sum(0).clamp(min=1e-300)
    if not _explains(e, e.value_TF - factor_F * e.reference_TF, e.value_TF - e.reference_TF):
        return None
    if e.gain is not None and _same(factor_F, (1 + e.gain) / e.gain):
        return _likely(e, "gain of 1 + weight instead of weight", "each feature is scaled by (1 + w) / w")
    if e.gain is not None and _same(factor_F, 1 / e.gain):
        return _likely(e, "gain dropped", "each feature is scaled by 1 / w")
    low, high = float(factor_F.min()), float(factor_F.max())
    return _likely(e, "a gain is wrong", f"each feature is scaled by its own factor, {low:.4g} to {high:.4g}")


def _positions(e: Evidence) -> Cause | None:
    """Right at the first positions and wrong later: attention scores or the mask."""
    if e.value_TF is None or e.reference_TF is None or e.value_TF.shape[0] < 8:
        return None
    error_T = (e.value_TF - e.reference_TF).norm(dim=-1) / e.reference_TF.norm(dim=-1).clamp(min=1e-300)
    wrong = (error_T > WRONG * e.noise).nonzero()
    first = int(wrong[0]) if wrong.numel() else 0
    clear = float(error_T[first:].median()) > CLEAR * e.noise
    if first == 0 or not clear or is_rotary(e.class_name):
        return None
    if first == 1:
        evidence = "position 0, with one key only, is right; every later one is wrong"
        return _likely(e, "attention scores: rotary embedding, scale, query/key norm or mask", evidence)
    evidence = f"positions 0 to {first - 1} are right, those from {first} on are wrong"
    return _likely(e, f"attention window or position handling from position {first} on", evidence)


Signature = Callable[[Evidence], Cause | None]
# Of each group the first that fits counts: its later ones are more general and would fit as well.
SIGNATURES: tuple[tuple[Signature, ...], ...] = (
    (_not_finite,),
    (_rotary_table,),
    (_gate_and_up, _mixed_up_inside, _mixed_up_beside),
    (_activation,),
    (_offset,),
    (_scale, _token_scale, _channel_scale),
    (_positions,),
)


def _likely(e: Evidence, cause: str, evidence: str) -> Cause:
    return Cause(cause=cause, status="likely", evidence=evidence, place=_place(e))


def _place(e: Evidence) -> str:
    if not e.module:
        return "`forward` of the model class in `model.py`"
    return f"`{e.module}` ({e.class_name} in Hugging Face): its class in `model.py`, its weights in `convert.py`"


def _twin(value_TF: Tensor, candidates: Mapping[str, Tensor], reference_TF: Tensor | None) -> str | None:
    """Which candidate a value is, and is rather than what it should be."""
    for name, candidate_TF in candidates.items():
        if candidate_TF.shape != value_TF.shape or not _same(value_TF, candidate_TF):
            continue
        error = float((value_TF - candidate_TF).norm())
        if reference_TF is None or error <= EXPLAINED * float((value_TF - reference_TF).norm()):
            return name
    return None


def _explains(e: Evidence, residual: Tensor, difference: Tensor) -> bool:
    """Whether what a law leaves over is a tenth of the difference, or no more than Hugging Face's own noise.

    Where there is no more than noise to begin with, nothing is explained.
    """
    noise = 0.0 if e.reference_TF is None else NOISE * e.noise * float(e.reference_TF.norm())
    before = float(difference.norm())
    return before > WRONG * noise and float(residual.norm()) <= max(EXPLAINED * before, noise)


def _same(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape and bool(torch.linalg.vector_norm(x - y) <= SAME * torch.linalg.vector_norm(y))
