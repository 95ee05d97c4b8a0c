"""Which modules make rotary tables: probed by calling them, against what `layers.RotaryEmbedding` computes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trtllm_port.codegen.ir.dtypes import DTYPES, MODEL_DTYPE
from trtllm_port.codegen.ir.nodes import Leaf
from trtllm_port.codegen.ir.operation_names import CASTS
from trtllm_port.codegen.ir.record import Call, Operation, Value
from trtllm_port.codegen.ir.trees import leaves, map_structure
from trtllm_port.errors import ConfigError
from trtllm_port.foundation.quoting import is_word
from trtllm_port.huggingface.options import known_entries
from trtllm_port.layers.functional.rope import inverse_frequencies, stretched_by_alpha, switch_length

if TYPE_CHECKING:
    from trtllm_port.codegen.ir.trace import Trace

POSITIONS = torch.tensor([[0, 1, 2, 3, 5, 8, 13, 21, 29, 31]])  # within any original context length
BEYOND = 3  # the last position of another probe, past the length from which on the frequencies are other ones
TOLERANCE = 1e-5
Layout = Callable[[Tensor], Tensor | None]
"""Takes a table as a module gives it, and gives each angle once; None for a table of another layout."""


@dataclass(frozen=True)
class RotaryTables:
    """What a call of a module for rotary tables is.

    Attributes:
        leaf: the `RotaryEmbedding`.
        key: of the config's `rope_parameters`, if there is a set of parameters for each type of layers.
        doubled: the tables hold every angle twice.
    """

    leaf: Leaf
    key: str | None
    doubled: bool


def probe_rotary(call: Call, trace: Trace, uses: dict[Value, list[Operation]]) -> RotaryTables | None:
    """The `RotaryEmbedding` that a call is, or None.

    Its outputs must be cos and sin of position times frequency (or one that is complex, of both), and go into rotations
    only: most of HF's tables hold every angle twice, the port's once.
    """
    config: Any = trace.sample.config
    parameters = getattr(config, "rope_parameters", None)
    tables = [value.tensor for value in call.outputs]
    count = 1 if tables and tables[0].is_complex() else 2
    if len(tables) != count or any(table.ndim != 3 for table in tables) or any(True for _ in call.module.children()):
        return None
    if not isinstance(parameters, dict):
        return None
    if any(name != "rotary_embedding" for value in call.outputs for name in _used_for(value, uses)):
        return None
    width, dtype = tables[0].shape[-1], DTYPES.get(tables[0].dtype.to_real())
    longest = getattr(config, "max_position_embeddings", None)  # not every kind of rotation asks for it
    limit = () if longest is None else (int(longest),)
    by_alpha = "alpha" in known_entries(config, "rope_parameters")
    probed = _call(call, POSITIONS)
    if probed is None or any(table.shape != (*POSITIONS.shape, width) for table in probed):
        return None
    for key, chosen in _sets(call, parameters):
        for layout in (_halves, _pairs, _once):
            once = [layout(table) for table in probed]
            size = 2 * width if layout is _once else width
            expected = _tables(chosen, size, *limit, by_alpha=by_alpha)
            if (
                expected is not None
                and _all_agree(once, expected)
                and _agree_beyond(call, chosen, layout, size, *limit, by_alpha=by_alpha)
            ):
                keywords = {"dtype": None if dtype == MODEL_DTYPE else dtype, "by_alpha": by_alpha}
                leaf = Leaf("RotaryEmbedding", (dict(chosen), size, *limit), keywords)
                return RotaryTables(leaf, key, doubled=layout is not _once)
    return None


def _used_for(value: Value, uses: dict[Value, list[Operation]]) -> Iterator[str]:
    """The operations that take a value, those behind a move to the device where it is already included."""
    for use in uses.get(value, ()):
        if use.name in CASTS and use.outputs[0].tensor.dtype == value.tensor.dtype:
            yield from _used_for(use.outputs[0], uses)
        else:
            yield use.name


def _sets(call: Call, parameters: dict[str, Any]) -> list[tuple[str | None, dict[str, Any]]]:
    """The parameters that a call may go by: its module's own ones, or the config's: the only ones, or those of a type
    of layers, the type it names first.
    """
    own = getattr(getattr(call.module, "config", None), "rope_parameters", parameters)
    nested = {key: value for key, value in parameters.items() if isinstance(value, dict) and is_word(key)}
    if not nested:  # a module may be made from a changed copy of the config
        return [(None, parameters), *([(None, own)] if isinstance(own, dict) and own != parameters else [])]
    named = [arg for arg in call.args.values() if isinstance(arg, str) and arg in nested]
    return [(key, nested[key]) for key in dict.fromkeys([*named, *nested])]


def _agree_beyond(
    call: Call, rope: dict[str, Any], layout: Layout, size: int, max_positions: int = 0, *, by_alpha: bool = False
) -> bool:
    """Whether the tables are as expected past the length from which on they have other frequencies, if there is one."""
    end = switch_length(rope, max_positions)
    if end is None or (by_alpha and stretched_by_alpha(rope)):
        return True
    positions = POSITIONS.clone()
    positions[0, -1] = end + BEYOND
    probed, expected = _call(call, positions), _tables(rope, size, max_positions, positions, by_alpha=by_alpha)
    return probed is not None and expected is not None and _all_agree([layout(table) for table in probed], expected)


def _all_agree(found: Sequence[Tensor | None], expected: Sequence[Tensor]) -> bool:
    return all(_agree(a, b) for a, b in zip(found, expected, strict=True))


def _call(call: Call, positions: Tensor) -> tuple[Tensor, ...] | None:
    """The module's tables in float32 for some positions, of the shape of `POSITIONS`."""

    def argument(leaf: Any) -> Any:
        if not isinstance(leaf, Value):
            return leaf
        if leaf.tensor.dtype == torch.int64:
            return positions
        return leaf.tensor.float()[:1, :1].expand(1, POSITIONS.shape[1], *leaf.tensor.shape[2:])

    arguments = {name: map_structure(argument, arg) for name, arg in call.args.items()}
    try:
        with torch.no_grad():
            tables = copy.deepcopy(call.module)(**arguments)
    except (TypeError, RuntimeError, ValueError, IndexError):
        return None
    found = tuple(leaf for leaf in leaves(tables) if isinstance(leaf, Tensor))
    return (found[0].real, found[0].imag) if len(found) == 1 and found[0].is_complex() else found


def _agree(found: Tensor | None, expected: Tensor) -> bool:
    return found is not None and torch.allclose(found, expected, rtol=0, atol=TOLERANCE)


def _halves(table: Tensor) -> Tensor | None:
    first, second = table.chunk(2, -1)
    return first if torch.equal(first, second) else None


def _pairs(table: Tensor) -> Tensor | None:
    return table[..., ::2] if torch.equal(table[..., ::2], table[..., 1::2]) else None


def _once(table: Tensor) -> Tensor:
    return table


def _tables(
    parameters: dict[str, Any],
    size: int,
    max_positions: int = 0,
    positions: Tensor = POSITIONS,
    *,
    by_alpha: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """What `layers.RotaryEmbedding` computes, in torch; None for parameters that it refuses."""
    try:
        inv_freq, scaling = inverse_frequencies(
            parameters, size, max_positions, int(positions.max()) + 1, by_alpha=by_alpha
        )
    except (ConfigError, KeyError, TypeError):
        return None
    angles = positions[..., None].float() * inv_freq
    return angles.cos() * scaling, angles.sin() * scaling
