"""The port's own weights in Hugging Face's module: where that gives the port's error, its code is not to blame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import Tensor, nn

from trtllm_port.layers.quantization import CheckpointWeights
from trtllm_port.layers.weights import TensorSource
from trtllm_port.verification.causes.quantized_laws import QuantizedPair, quantized_law
from trtllm_port.verification.causes.weight_laws import Law, ParameterPair, law_of, same_bits
from trtllm_port.verification.experiments.experiment import Experiment, parameter
from trtllm_port.verification.experiments.hypotheses import Hypothesis, Variant

NAMED = 2  # parameters that the cause names
ROUNDED = "precision.weight"  # says least


def own_weights(weights: TensorSource) -> Hypothesis:
    """Return the hypothesis that a module's weights are not Hugging Face's.

    Args:
        weights: the port's parameters.
    """
    return Hypothesis(
        id="weight.values",
        cause="the weights differ from Hugging Face's",
        variants=partial(_port_weights, weights),
        settles=True,
    )


def _port_weights(weights: TensorSource, e: Experiment) -> Iterator[Variant]:
    found = different_weights(weights, e.model, e.path)
    if not found:
        return
    laws = {name: _law(e.model, weights, name, *tensors) for name, tensors in found.items()}
    named = sorted(laws, key=lambda name: laws[name].id == ROUNDED)[:NAMED]
    said = "; ".join(f"`{name}` {laws[name].words}" for name in named)
    more = f"; {len(laws) - NAMED} more differ" if len(laws) > NAMED else ""
    values = {name: port for name, (port, _) in found.items()}
    yield Variant(
        id=laws[named[0]].id,
        cause=f"weights differ: {said}{more}",
        detail=f"with the port's {', '.join(f'`{name}`' for name in named)}",
        compute=lambda: e.run(patch=partial(_given, e.model, values), recall=False),
        parameter=named[0],
    )


def different_weights(weights: TensorSource, model: nn.Module, module: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the parameters in a module that the port has with other bits: the port's, and Hugging Face's."""
    pairs = (
        (name, weights.tensor(own).cpu(), tensor.cpu())
        for name, own, tensor in comparable_parameters(weights, model, module)
    )
    return {name: (port, reference) for name, port, reference in pairs if not same_bits(port, reference)}


def comparable_parameters(weights: TensorSource, model: nn.Module, module: str) -> Iterator[tuple[str, str, Tensor]]:
    """Return Hugging Face's parameters in a module that can be compared: its name, the port's, and the tensor.

    Where the port has one of another name or shape, it lays it out in its own way; some of Hugging Face's are not in
    memory. One that Hugging Face has under several names, as a tied head, the port may have under any of them.
    """
    known, prefix = set(weights.names()), f"{module}." if module else ""
    tensors = checkpoint_parameters(model)
    names: dict[int, list[str]] = {}
    for name, reference in tensors.items():
        names.setdefault(reference.data_ptr(), []).append(name)
    for name, reference in tensors.items():
        if not name.startswith(prefix) or reference.is_meta:
            continue
        own = next((each for each in (name, *names[reference.data_ptr()]) if each in known), None)
        if own is not None and weights.shape(own) == tuple(reference.shape):
            yield name, own, reference


def checkpoint_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return what a checkpoint of a model holds: parameters under all of their names, and some buffers."""
    names = model.state_dict(keep_vars=True)
    return {name: value.detach() for name, value in names.items() if isinstance(value, Tensor)}


def _law(model: nn.Module, weights: TensorSource, name: str, port: Tensor, reference: Tensor) -> Law:
    tensors = checkpoint_parameters(model)
    found = _quantized_law(weights, name, reference.to(port))
    if found is not None:
        return found
    others = (
        (other, value.to(port))
        for other, value in tensors.items()
        if other != name and value.shape == port.shape and not value.is_meta and value.is_floating_point()
    )
    return law_of(ParameterPair(name=name, port=port, reference=reference.to(port), others=others))


def _quantized_law(weights: TensorSource, name: str, reference: Tensor) -> Law | None:
    """What is wrong with codes and scales, of a parameter that the port has quantized."""
    quantized = weights.quantized_names() if isinstance(weights, CheckpointWeights) else ()
    if not isinstance(weights, CheckpointWeights) or name not in quantized:
        return None
    others = ((other, weights.grid(other)) for other in quantized if other != name)
    return quantized_law(QuantizedPair(name=name, grid=weights.grid(name), reference=reference, others=others))


@contextmanager
def _given(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Give Hugging Face's model some of the port's parameters for a while."""
    with ExitStack() as stack:
        for name, value in values.items():
            holder, _, attribute = name.rpartition(".")
            owner = model.get_submodule(holder)
            held: Tensor = getattr(owner, attribute)
            stack.enter_context(parameter(owner, attribute, value.to(held.device)))
        yield
