"""Copies of tensors that keep a name of their own.

A copy is the tensor that it was made of, as nothing changes in place in a port. Where one module is given both a tensor
and its copy (the hidden states, which begin as the embeddings, and the embeddings), other layers are given two tensors
there, so the two are told apart: `original_hidden_states = inputs_embeds`.
"""

from __future__ import annotations

from trtllm_port.codegen.ir.def_use import items, operations
from trtllm_port.codegen.ir.record import Call, Value
from trtllm_port.codegen.ir.trees import leaves


def distinct_copies(root: Call) -> frozenset[Value]:
    """The copies that some module is given beside what they are copies of."""
    sources = {one.outputs[0]: one.args[0] for one in operations(root) if one.name == "clone"}
    given = (
        {leaf for leaf in leaves(item.args) if isinstance(leaf, Value)}
        for item in items(root)
        if isinstance(item, Call)
    )
    return frozenset(value for values in given for value in values if sources.get(value) in values)
