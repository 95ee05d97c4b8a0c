"""Tensors of a model's files that its port does not take."""

from __future__ import annotations

import re

from trtllm_port.codegen.ir import Block
from trtllm_port.codegen.lowering import Lowered
from trtllm_port.codegen.recorder import Attribute, leaves


def dropped_tensors(lowered: Lowered) -> dict[str, str]:
    """Name pattern → reason, for tensors that HF's model holds, or that files made by older versions hold."""
    model = lowered.trace.model
    used = {name for block in lowered.blocks for name in _used(block)}
    names = {id(tensor): name for name, tensor in model.named_parameters(remove_duplicate=True)}
    shared = {names[id(tensor)] for name, tensor in model.named_parameters(remove_duplicate=False) if name in used}
    dropped = {}
    for name in model.state_dict():
        tensor = dict(model.named_parameters(remove_duplicate=False)).get(name)
        if name not in used and (tensor is None or names[id(tensor)] not in shared):
            dropped[re.sub(r"(?<=\.)\d+(?=\.)", "*", name)] = "no part of the forward pass uses it"
    for expression in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ():
        plain = expression.replace("\\", "").replace(".*", "*").strip("^$")
        if re.fullmatch(r"[\w.*]+", plain) and "mtp" not in plain:
            dropped[plain if plain.startswith("*") else f"*.{plain}"] = "transformers ignores it, too"
    if any(node.block and node.block.leaf and node.block.leaf.kind == "RotaryEmbedding" for b in lowered.blocks for node in b.nodes):
        dropped["*.rotary_emb.inv_freq"] = "computed from the config"
    return dropped


def _used(block: Block) -> set[str]:
    found = set()
    for node in block.nodes:
        found.update(leaf.path for leaf in leaves((node.args, node.keywords)) if isinstance(leaf, Attribute))
        if node.block is not None and node.block.leaf is not None:
            prefix = f"{node.block.path}." if node.block.path else ""
            found.update(prefix + name for name, _ in node.block.module.named_parameters())
        elif node.form == "loop" and node.block is not None:
            found |= _used(node.block)
    return found
