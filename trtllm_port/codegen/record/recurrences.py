"""Recurrences and short convolutions of modelling files, recorded as one operation each.

transformers computes a recurrence chunk by chunk, in functions of modelling files that take a state and return it.
Which recurrence it is follows from what such a function computes: one of the formulas in `formulas.py` must give what
it gives. Then the formula is recorded in its place.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trtllm_port.codegen.ir.module_paths import layer_number
from trtllm_port.codegen.ir.trees import map_structure
from trtllm_port.codegen.record import probing
from trtllm_port.codegen.record.formulas import FORMULAS, PRIMITIVES, Formula
from trtllm_port.codegen.record.recorder import Recorder
from trtllm_port.huggingface.options import make_activation

TOLERANCE = 1e-4  # relative, in float32: two orders of summation of up to a few dozen tokens


CONVOLUTION = frozenset(("hidden_states", "weight", "bias"))
STATES = frozenset(("initial_state", "initial_states", "recurrent_states"))


def hook(function: Any, recorder_of: Callable[[], Recorder | None]) -> Any:
    """`function` recorded as a recurrence or a convolution, or None if its parameters are not those of one."""
    parameters = inspect.signature(function).parameters.keys()
    if parameters >= CONVOLUTION and "conv_state" not in parameters:
        return _hooked(function, recorder_of, _record_convolution)
    for present, absent, formula in FORMULAS:
        if present <= parameters and not absent & parameters:
            return _hooked(function, recorder_of, functools.partial(_record_recurrence, formula=formula))
    return None


def _hooked(function: Any, recorder_of: Callable[[], Recorder | None], record: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        recorder = recorder_of()
        if recorder is None:
            return function(*args, **kwargs)
        recorder.learn_names()
        given = dict(inspect.signature(function).bind(*args, **kwargs).arguments)
        found = record(recorder, function, given)
        return function(*args, **kwargs) if found is None else found

    return hooked


def _state(recorder: Recorder, layer: int, number: int, kind: str) -> Tensor:
    """A stand-in for a state of the port's cache."""
    with torch._C.DisableTorchFunction():
        marker = torch.zeros(())
    numbered = (number,) if recorder.states.counts.get(layer, 1) > 1 else ()
    cache = recorder.model_inputs["cache"]
    recorder.record("cache_state", (cache, layer, kind, *numbered), {}, marker, recorder.location())
    return marker


def _record_convolution(recorder: Recorder, function: Any, given: dict[str, Any]) -> Tensor | None:
    """A module `CausalConv1d` called on the new tokens, if the cache has just stored them."""
    x, weight = given["hidden_states"], given["weight"]
    stored = recorder.states.convolved.get(id(x))
    owner = _owner(recorder.model, weight)
    if stored is None or owner is None or probing.convolution(owner) is None:
        return None
    bias, activation = given.get("bias"), given.get("activation")
    with torch._C.DisableTorchFunction():
        wide = x.float(), weight.float(), None if bias is None else bias.float()
        out = F.conv1d(F.pad(wide[0], (weight.shape[-1] - 1, 0)), wide[1][:, None], wide[2], groups=x.shape[1])
        names = "hidden_states", "weight", "bias"
        expected = function(**{**_flattened(given), **dict(zip(names, wide, strict=True)), "activation": None})
        if not _close(out, expected):
            return None
        out = out.to(x.dtype)
    del recorder.states.convolved[id(x)]
    state = _state(recorder, *stored[1:], "conv")
    recorder.record_call(owner, {"hidden_states": x, "state": state}, out, recorder.location())
    return out if activation is None else _activation(recorder.model, owner, activation)(out)


def _activation(model: nn.Module, convolution: nn.Module, name: str) -> Any:
    """The activation of a name: the one beside the convolution, if there is one that the model would use elsewhere."""
    fresh = make_activation(name)
    beside = next(list(module.children()) for module in model.modules() if convolution in module.children())
    return next((child for child in beside if type(child) is type(fresh)), fresh)


def _owner(model: nn.Module, weight: Tensor) -> nn.Module | None:
    """The module whose parameter `weight` is a view of."""
    pointer = weight.data_ptr()
    owners = (m for m in model.modules() for p in m.parameters(recurse=False) if p.data_ptr() == pointer)
    return next(owners, None)


def _record_recurrence(recorder: Recorder, function: Any, given: dict[str, Any], *, formula: Formula) -> Any:
    """What `formula` computes, if `function` computes the same."""
    log, wanted = recorder.states, given.get("return_last_state", True)
    held = layer_number(recorder.path) if log.in_modules else None
    layer = log.read if held is None else (held, 0)
    if layer is None or not _agrees(function, formula, given):
        return None
    with torch._C.DisableTorchFunction():
        plain = function(**_flattened(given))

    def record(name: str, *tensors: Tensor, **options: Tensor) -> Tensor:
        state = _state(recorder, *layer, "recurrent")
        references, named = recorder.reference(((*tensors, state), options))
        with torch._C.DisableTorchFunction():
            out = PRIMITIVES[name](*tensors, **{"beta": None, **options} if name == "linear_attention" else options)
        recorder.record(name, references, named, out, recorder.location())
        return out

    out = formula(record, _flattened(given))
    log.read, log.recorded = None, layer if held is None else None
    first, last = plain if isinstance(plain, tuple) else (plain, None)
    out = out.to(first.dtype)
    return (out, last) if wanted and isinstance(plain, tuple) else out


def _agrees(function: Any, formula: Formula, given: dict[str, Any]) -> bool:
    def wide(leaf: Any) -> Any:
        return leaf.detach().float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    def plain(name: str, *tensors: Tensor, **options: Tensor) -> Tensor:
        return PRIMITIVES[name](*tensors, **{"beta": None, **options} if name == "linear_attention" else options)

    with torch._C.DisableTorchFunction(), torch.no_grad():
        inputs = {k: None if k in STATES else map_structure(wide, v) for k, v in _flattened(given).items()}
        expected = function(**inputs)
        expected = expected[0] if isinstance(expected, tuple) else expected
        found = formula(plain, inputs)
        return _close(found, expected)


def _close(found: Tensor, expected: Tensor) -> bool:
    same = found.shape == expected.shape
    return same and float((found - expected).norm()) <= TOLERANCE * float(expected.norm())


def _flattened(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name, those of `**kwargs` beside the others."""
    rest = given.get("kwargs")
    return {**{k: v for k, v in given.items() if k != "kwargs"}, **(rest if isinstance(rest, dict) else {})}
