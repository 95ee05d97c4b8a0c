"""What is known about the guilty module when its causes are sought: its tensors on both sides.

T tokens, F features
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trtllm_port.verification.judge.tap_errors import TapComparison
from trtllm_port.verification.sides.hugging_face_sides import HuggingFaceFacts
from trtllm_port.verification.sides.noise_floor import injectable
from trtllm_port.verification.sides.port_run import Expected
from trtllm_port.verification.sides.recording import Recording
from trtllm_port.verification.stimulus.inputs import Stimulus
from trtllm_port.verification.taps.names import LOGITS, ROOT, input_of, is_input, module_of, parent_of, within
from trtllm_port.verification.taps.runner import PortRunner

MAX_TAPS = 64  # the guilty module's own: all taps of a large model would not fit in memory


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The guilty module's tensors; everything in float64 and flattened to tokens.

    Attributes:
        module: its path; "" is the model itself.
        class_name: Hugging Face's class, "" if it has none.
        epsilon: of a normalisation.
        tap: the one of its outputs that differs, the first if several do.
        value_TF, reference_TF: that output; None if the port gave none of that shape.
        input_TF: Hugging Face's input to it; None if that is no float tensor.
        inputs: per input tap of a module inside that differs, the port's value.
        expected: Hugging Face's values of these.
        candidates: Hugging Face's outputs inside the module and beside it, which the port may have mixed up.
        noise: relative error that Hugging Face itself makes in this output.
        gain, bias: the module's own parameters, where they have a number for each of its features.
    """

    module: str
    class_name: str
    epsilon: float | None
    tap: str
    value_TF: Tensor | None = field(repr=False)
    reference_TF: Tensor | None = field(repr=False)
    input_TF: Tensor | None = field(repr=False)
    inputs: Mapping[str, Tensor] = field(repr=False)
    expected: Mapping[str, Tensor] = field(repr=False)
    candidates: Mapping[str, Tensor] = field(repr=False)
    noise: float
    gain: Tensor | None = field(repr=False)
    bias: Tensor | None = field(repr=False)


def collect(
    modules: Sequence[str],
    port: PortRunner,
    stimulus: Stimulus,
    expected: Expected,
    known: tuple[Mapping[str, TapComparison], HuggingFaceFacts],
) -> Iterator[Evidence]:
    """Run the port once more, so that the guilty modules work on Hugging Face's input, and what is in them on its own.

    A guilty module inside another one is kept from disturbing that: its output is Hugging Face's, too.
    """
    comparisons = known[0]
    wrong = {module: _wrong_inputs(module, expected.recording, comparisons) for module in modules}
    wanted = {_output(module, expected.recording, comparisons) for module in modules} | {
        tap for taps in wrong.values() for tap in taps
    }
    values = free_values(port, stimulus, expected, wanted, modules)
    for module in modules:
        yield _evidence(module, {tap: values[tap] for tap in wrong[module] if tap in values}, values, expected, known)


def _output(module: str, recording: Recording, comparisons: Mapping[str, TapComparison]) -> str:
    """The first of a module's outputs that differs; the first of all where none does."""
    outputs = [tap for tap in recording.order if module_of(tap) == module and not is_input(tap)]
    return next((tap for tap in outputs if tap in comparisons and comparisons[tap].diverged), module or LOGITS)


def _wrong_inputs(module: str, recording: Recording, comparisons: Mapping[str, TapComparison]) -> list[str]:
    inside = (tap for tap in recording.order if within(module_of(tap), module) and is_input(tap))
    return [tap for tap in inside if tap in comparisons and comparisons[tap].diverged][:MAX_TAPS]


def _evidence(
    module: str,
    inputs: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    expected: Expected,
    known: tuple[Mapping[str, TapComparison], HuggingFaceFacts],
) -> Evidence:
    (comparisons, facts), recording = known, expected.recording
    output = _output(module, recording, comparisons)
    siblings = [tap for tap in recording.order if not is_input(tap) and _beside(tap, module)]
    inside = [tap for tap in recording.order if within(module_of(tap), module) and not is_input(tap)]
    facts_here = facts.modules.get(module)
    value = values.get(output)
    reference = None if value is None or output not in recording.taps else expected.counterpart(output, value)
    same = value is not None and reference is not None and value.shape == reference.shape
    return Evidence(
        module=module,
        class_name="" if facts_here is None else facts_here.class_name,
        epsilon=None if facts_here is None else facts_here.epsilon,
        tap=output,
        value_TF=_flat(value) if same else None,
        reference_TF=_flat(reference) if same else None,
        input_TF=_flat(recording.taps.get(input_of(module))),
        inputs={tap: flat for tap, x in inputs.items() if (flat := _flat(x)) is not None},
        expected=_flat_all(recording, list(inputs)),
        candidates=_flat_all(recording, [*siblings, *[tap for tap in inside if tap in comparisons][:MAX_TAPS]]),
        noise=_noise(comparisons.get(output)),
        gain=_vector(facts, f"{module}.weight", value),
        bias=_vector(facts, f"{module}.bias", value),
    )


def _vector(facts: HuggingFaceFacts, name: str, value: Tensor | None) -> Tensor | None:
    """A parameter with a number for each feature of a value."""
    vector = facts.vectors.get(name)
    return None if vector is None or value is None or vector.shape != value.shape[-1:] else vector


def _noise(comparison: TapComparison | None) -> float:
    """Return the floor that a comparison was judged by, one rounding at least."""
    if comparison is None or comparison.metrics is None or not comparison.ratio:
        return 0.0
    return comparison.metrics.rel_l2 / comparison.ratio


def free_values(
    port: PortRunner, stimulus: Stimulus, expected: Expected, wanted: Collection[str], guilty: Sequence[str]
) -> dict[str, Tensor]:
    """Return the port's values of taps when guilty modules work on Hugging Face's input, and inside on their own.

    Args:
        port: the port.
        stimulus: the input.
        expected: the reference.
        wanted: the taps.
        guilty: the modules.
    """
    kept: dict[str, Tensor] = {}

    def keep(tap: str, tensor: Tensor) -> Tensor | None:
        if tap in wanted:
            kept[tap] = tensor.clone().cpu()
        module = module_of(tap)
        if module not in guilty and any(within(module, each) for each in guilty):
            return None
        reference = expected.counterpart(tap, tensor)
        if reference is None or reference.shape != tensor.shape or not injectable(tap, reference):
            return None
        if tensor.is_floating_point() != reference.is_floating_point():
            return None
        return reference.to(tensor, copy=True)

    kept[LOGITS] = port.run(torch.tensor([stimulus.ids]), on_tap=keep, taps=expected.pairing.paired)
    return kept


def _flat_all(recording: Recording, taps: list[str]) -> dict[str, Tensor]:
    return {tap: flat for tap in taps if (flat := _flat(recording.taps.get(tap))) is not None}


def _beside(tap: str, module: str) -> bool:
    return module != ROOT and tap not in (module, LOGITS) and parent_of(tap) == parent_of(module)


def _flat(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or not tensor.is_floating_point() or tensor.ndim < 2:
        return None
    return tensor.detach().reshape(-1, tensor.shape[-1]).to("cpu", torch.float64)
