"""What transformers does between a model's files and its parameters: names changed, experts stacked.

Transformers describes this as data (`conversion_mapping.py`) and reverts it when it saves. The tensors that it would
save are led through the same description here, and what comes out is compared with the model's parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import core_model_loading as loading
from transformers.conversion_mapping import get_model_conversion_mapping

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.compatibility.remote_code import is_remote
from trtllm_port.layers.weights import Chunk, Concat, Stack, Step, Transpose
from trtllm_port.layers.weights.steps import run_steps
from trtllm_port.layers.weights.weight_map import natural_key

IGNORED = "_keys_to_ignore_on_load_unexpected"
"""Of classes of models: regular expressions for names."""


@dataclass(frozen=True)
class Stored:
    """Tensors of a model's files that become parameters otherwise than by equal name.

    Attributes:
        sources: names in files, in the order of the steps' groups.
        counts: of each group.
        targets: names of parameters.
        steps: what is done to the tensors; none: a new name only.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    counts: tuple[int, ...] = (1,)


def stored_tensors(model: nn.Module) -> Iterator[Stored]:
    """How the files of a model differ from its parameters.

    Raises:
        UnsupportedModelError: transformers transforms a tensor in a way that `layers.Transform` has no steps for.
    """
    own = model.state_dict()
    files = tensors_in_files(model, own)
    mapping = [entry for entry in _mapping(model) if not isinstance(entry, loading.PrefixChange)]
    renamings = [entry for entry in mapping if isinstance(entry, loading.WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, loading.WeightConverter)]
    groups: dict[str, dict[str, list[str]]] = {}  # target → source pattern → names in files
    for name in sorted(files, key=natural_key):
        target, pattern = loading.rename_source_key(name, renamings, converters)
        if pattern is not None:
            groups.setdefault(target, {}).setdefault(pattern, []).append(name)
        elif target != name and target in own:
            yield Stored((name,), (target,))
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    for target, members in groups.items():
        converter = by_pattern[next(iter(members))]
        stored = _transformed(target, members, converter)
        _compare(stored, files, own)
        yield stored


def tensors_in_files(model: nn.Module, own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's tensors, given by its own names, under the names and in the form that its files have them."""
    files: dict[str, torch.Tensor] = loading.revert_weight_conversion(model, dict(own))
    return files


def ignored_names(model: nn.Module) -> set[str]:
    """Regular expressions for the names that `from_pretrained` leaves out without a word where they are no parameters.

    An expression that a model makes of its config, as Gemma 4's for the layers that share keys, holds for the layers
    that it names at one size: here any number may stand for them. It cannot drop a parameter.
    """
    written = {text for module in model.modules() for text in getattr(type(module), IGNORED, None) or ()}
    found = set(getattr(model, IGNORED, None) or ())
    expressions = {text if text in written else re.sub(r"(?<=\.)\d+(?=\.)", r"\\d+", text) for text in found}
    if any(name.endswith("position_ids") for name, _ in model.named_buffers()):
        expressions.add(r"(^|\.)position_ids$")  # transformers adds this one itself, and `rotary_emb.inv_freq`
    return expressions


def _mapping(model: Any) -> list[Any]:
    if is_remote(type(model)):  # transformers knows none; see `interception/expert_lists.py`
        return list(getattr(model, "_weight_conversions", None) or ())
    return list(get_model_conversion_mapping(model, add_legacy=False))


def _transformed(target: str, members: dict[str, list[str]], converter: Any) -> Stored:
    first, *others = converter.target_patterns
    targets = (target, *(target.replace(first, other) for other in others))
    ordered = [members[pattern] for pattern in converter.source_patterns if pattern in members]
    return Stored(
        tuple(name for names in ordered for name in names),
        targets,
        tuple(_step(operation, targets) for operation in converter.operations),
        tuple(map(len, ordered)),
    )


def _step(operation: Any, targets: tuple[str, ...]) -> Step:
    """An operation of transformers as a step."""
    if isinstance(operation, loading.MergeModulelist):
        return Stack(operation.dim)
    if isinstance(operation, loading.Concatenate):
        return Concat(operation.dim)
    if isinstance(operation, loading.Transpose) and not operation.check_dims:
        return Transpose(operation.dim0, operation.dim1)
    if isinstance(operation, loading.Chunk) and operation.num_shards_attribute is None:
        return Chunk(len(targets), operation.dim)
    raise UnsupportedModelError(
        f"transformers reads `{targets[0]}` with `{type(operation).__name__}`, which ports have no step for"
    )


def _compare(stored: Stored, files: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> None:
    rest = iter(stored.sources)
    made = run_steps(stored.steps, [[files[next(rest)] for _ in range(count)] for count in stored.counts])
    expected = [own[target] for target in stored.targets if target in own]
    if len(made) != len(expected) or not all(map(torch.equal, made, expected)):
        raise UnsupportedModelError(
            f"`{stored.targets[0]}` is not what {', '.join(f'`{type(step).__name__}`' for step in stored.steps)} make "
            "of the tensors that transformers saves for it"
        )


def name_pattern(name: str) -> str:
    """A tensor's name with `*` for the numbers in it."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)
