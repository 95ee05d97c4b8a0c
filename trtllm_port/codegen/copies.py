"""Copies of tensors that keep a name of their own.

A copy is the tensor that it was made of, as nothing changes in place in a port. Where one module is given both a tensor
and its copy (the hidden states, which begin as the embeddings, and the embeddings), other layers are given two tensors
there, so the two are told apart: `original_hidden_states = inputs_embeds`.
"""

from __future__ import annotations

from collections.abc import Iterator

from trtllm_port.codegen.recorder import Call, Operation, Value, leaves


def copies_apart(root: Call) -> frozenset[Value]:
    """The copies that some module is given beside what they are copies of."""
    items = list(_items(root))
    sources = {item.outputs[0]: item.args[0] for item in items if isinstance(item, Operation) and item.name == "clone"}
    given = (
        {leaf for leaf in leaves(item.args) if isinstance(leaf, Value)} for item in items if isinstance(item, Call)
    )
    return frozenset(value for values in given for value in values if sources.get(value) in values)


def _items(call: Call) -> Iterator[Operation | Call]:
    for item in call.body:
        yield item
        if isinstance(item, Call):
            yield from _items(item)
