"""The exceptions between the tensors of a model's files and the parameters of its port: data for `convert.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from trtllm_port.codegen.ir.nodes import Block
from trtllm_port.codegen.ir.record import Attribute
from trtllm_port.codegen.ir.structure import kept
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.lower.lowering import Lowered
from trtllm_port.huggingface.conversion_mapping import ignored_names, name_pattern, stored_tensors
from trtllm_port.layers.weights import Step


@dataclass
class WeightNames:
    """Name patterns, with `*` for a layer's number.

    Attributes:
        dropped: tensors that are no parameters of the port → why.
        renamed: name in files → name in the port.
        transformed: names in files → names in the port, and the steps between.
        ignored: regular expressions, found in names of tensors that are no parameters and that transformers ignores.
    """

    dropped: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    transformed: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[Step, ...]]] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)


def weight_names(lowered: Lowered) -> WeightNames:
    """What the files of a model like the traced one hold under other names, or in addition."""
    model = lowered.trace.model
    names = WeightNames(dict(_unused(lowered)))
    for stored in stored_tensors(model):
        sources = tuple(dict.fromkeys(map(name_pattern, stored.sources)))
        targets = tuple(map(name_pattern, stored.targets))
        if stored.steps:
            names.transformed[sources] = targets, stored.steps
        else:
            names.renamed[sources[0]] = targets[0]
    names.ignored |= ignored_names(model)
    computed = any(name.endswith("rotary_emb.inv_freq") for name in _buffers(model))
    if computed or any(_leaf_kind(block, "RotaryEmbedding") for block in lowered.blocks):
        names.dropped["*.rotary_emb.inv_freq"] = "computed from the config"
    return names


def _buffers(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_buffers()]


def _unused(lowered: Lowered) -> Iterator[tuple[str, str]]:
    """Tensors that the model stores and that its forward pass does not touch."""
    model = lowered.trace.model
    used = used_tensors(lowered)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    touched = {id(parameters[name]) for name in used if name in parameters}
    for name in model.state_dict():
        if name not in used and id(parameters.get(name)) not in touched:
            yield name_pattern(name), "no part of the forward pass uses it"


def used_tensors(lowered: Lowered) -> set[str]:
    """Full names of the parameters and buffers that the forward pass takes."""
    return {name for block in lowered.blocks for name in used_by(block)}


def _leaf_kind(block: Block, kind: str) -> bool:
    leaves_of = (node.block.leaf for node in block.nodes if node.block is not None)
    return any(leaf is not None and leaf.kind == kind for leaf in leaves_of)


@kept
def used_by(block: Block) -> frozenset[str]:
    """Full names of the tensors that a block, which is not merged, takes itself or in basic layers."""
    found: set[str] = set()
    for node in block.nodes:
        found.update(leaf.path for leaf in leaves((node.args, node.keywords)) if isinstance(leaf, Attribute))
        if node.block is not None and node.block.leaf is not None:
            prefix = f"{node.block.path}." if node.block.path else ""
            found.update(prefix + name for name, _ in node.block.module.named_parameters())
        for one in node.rounds:
            found |= used_by(one)
    return frozenset(found)
