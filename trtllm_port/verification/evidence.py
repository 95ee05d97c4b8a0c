"""What is known about the guilty module when its causes are sought: its tensors on both sides.

T tokens, F features
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trtllm_port.verification.compare import TapComparison
from trtllm_port.verification.recording import Recording
from trtllm_port.verification.runners import PortRunner
from trtllm_port.verification.sides import HuggingFaceFacts
from trtllm_port.verification.stimulus import Stimulus
from trtllm_port.verification.taps import LOGITS, ROOT, input_of, is_input, module_of, parent_of, within

MAX_TAPS = 64  # the guilty module's own: all taps of a large model would not fit in memory


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The guilty module's tensors; everything in float64 and flattened to tokens.

    Attributes:
        module: its path; "" is the model itself.
        class_name: Hugging Face's class, "" if it has none.
        epsilon: of a normalisation.
        value_TF, reference_TF: its output; None if the port gave none of that shape.
        input_TF: Hugging Face's input to it; None if that is no float tensor.
        inputs: per input tap of a module inside that differs, the port's value.
        candidates: Hugging Face's outputs inside the module and beside it, which the port may have mixed up.
        noise: relative error that Hugging Face itself makes in this output.
        gain, bias: the module's own parameters.
    """

    module: str
    class_name: str
    epsilon: float | None
    value_TF: Tensor | None = field(repr=False)
    reference_TF: Tensor | None = field(repr=False)
    input_TF: Tensor | None = field(repr=False)
    inputs: Mapping[str, Tensor] = field(repr=False)
    candidates: Mapping[str, Tensor] = field(repr=False)
    noise: float
    gain: Tensor | None = field(repr=False)
    bias: Tensor | None = field(repr=False)


def collect(
    module: str,
    port: PortRunner,
    stimulus: Stimulus,
    recording: Recording,
    known: tuple[Mapping[str, TapComparison], HuggingFaceFacts],
) -> Evidence:
    """Run the port once more for the taps in and around the guilty module."""
    comparisons, facts = known
    output = module or LOGITS
    inside = [tap for tap in recording.order if within(module_of(tap), module) and tap in comparisons]
    wrong_inputs = [tap for tap in inside if is_input(tap) and comparisons[tap].diverged][:MAX_TAPS]
    values = _port_taps(port, stimulus, [output, *wrong_inputs])
    siblings = [tap for tap in recording.order if not is_input(tap) and _beside(tap, module)]
    outputs = [tap for tap in inside if not is_input(tap)][:MAX_TAPS]
    facts_here = facts.modules.get(module)
    reference = _flat(recording.taps.get(output))
    value = _flat(values.get(output))
    same = value is not None and reference is not None and value.shape == reference.shape
    return Evidence(
        module=module,
        class_name="" if facts_here is None else facts_here.class_name,
        epsilon=None if facts_here is None else facts_here.epsilon,
        value_TF=value if same else None,
        reference_TF=reference if same else None,
        input_TF=_flat(recording.taps.get(input_of(module))),
        inputs={tap: flat for tap in wrong_inputs if (flat := _flat(values.get(tap))) is not None},
        candidates=_flat_all(recording, [*siblings, *outputs]),
        noise=_noise(comparisons.get(output)),
        gain=facts.vectors.get(f"{module}.weight"),
        bias=facts.vectors.get(f"{module}.bias"),
    )


def _noise(comparison: TapComparison | None) -> float:
    """Return the floor that a comparison was judged by, one rounding at least."""
    if comparison is None or comparison.metrics is None or not comparison.ratio:
        return 0.0
    return comparison.metrics.rel_l2 / comparison.ratio


def _port_taps(port: PortRunner, stimulus: Stimulus, taps: list[str]) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}

    def keep(tap: str, tensor: Tensor) -> None:
        kept[tap] = tensor.clone()

    wanted = [tap for tap in taps if tap in port.tap_names]
    kept[LOGITS] = port.run(torch.tensor([stimulus.ids]), on_tap=keep, taps=wanted)
    return kept


def _flat_all(recording: Recording, taps: list[str]) -> dict[str, Tensor]:
    return {tap: flat for tap in taps if (flat := _flat(recording.taps.get(tap))) is not None}


def _beside(tap: str, module: str) -> bool:
    return module != ROOT and tap not in (module, LOGITS) and parent_of(tap) == parent_of(module)


def _flat(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or not tensor.is_floating_point() or tensor.ndim < 2:
        return None
    return tensor.detach().reshape(-1, tensor.shape[-1]).to("cpu", torch.float64)
