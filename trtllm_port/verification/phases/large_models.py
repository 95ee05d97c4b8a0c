"""Models that do not fit in memory: what is read layer by layer, and what is compared on a part of the model.

The precision phase, in the port's own dtype, runs the whole model on the whole prompt; Hugging Face reads its weights
layer by layer, and the port's network runs on the memory-mapped checkpoint. The logic phase asks whether the port's
code is right, and all layers of a kind run the same code: float64 on the first layers, a shorter prompt and a batch
answers that in a fraction of the time. What is left out is said in the report.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from trtllm_port.layers.weights import MappingWeights
from trtllm_port.registry.port_code import port_code
from trtllm_port.verification.phases.lockstep import OWN_TOKENS
from trtllm_port.verification.phases.not_exercised import NotExercised
from trtllm_port.verification.sides.mapped_weights import checkpoint_bytes, give_back
from trtllm_port.verification.sides.preparation import Model
from trtllm_port.verification.sides.session_runner import SessionRunner
from trtllm_port.verification.stimulus.stimulus import Stimulus

LARGE_BYTES = 2 << 30  # of a checkpoint; in 16 bits, float64 takes four times as much
LOGIC_TOKENS = 64
LOGIC_DECODE_STEPS = 16
LOGIC_VOCABULARY = 4096
FEWEST_LAYERS = 2
LAYER = re.compile(r"\.(\d+)\.")


def is_large(model: Model) -> bool:
    """Whether a model is read layer by layer."""
    return checkpoint_bytes(model.source) >= LARGE_BYTES


def stored_dtype(model: Model) -> Model:
    """Return the model with the dtype that "auto" stands for: that of the largest tensor in the files."""
    if model.dtype != "auto":
        return model
    source = model.weights
    return replace(model, dtype=source.dtype(max(source.names(), key=lambda name: math.prod(source.shape(name)))))


def first_layers(model: Model, work: Path) -> Model:
    """Return the first layers of a model, as many as show every kind of layer, and the first tokens, in float32.

    Args:
        model: the whole.
        work: an existing directory; the part's `config.json` is written below it. The weights are in memory.
    """
    target = work / "first-layers"
    target.mkdir()
    config = json.loads((model.source / "config.json").read_text())
    text = config.get("text_config", config)
    total = model.config["num_hidden_layers"]
    layers = _layers_of_every_kind(model.config, total)
    for key in _counts(text, model.config, total):
        text[key] = layers
    vocabulary = min(LOGIC_VOCABULARY, model.vocab_size)
    text["vocab_size"] = vocabulary
    text |= {k: v % vocabulary for k, v in text.items() if k.endswith("_token_id") and isinstance(v, int)}
    text |= {key: value[:layers] for key, value in text.items() if isinstance(value, list) and len(value) == total}
    (target / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    whole, weights = model.weights, {}
    for name in (name for name in whole.names() if _layer(name) < layers):
        stored = whole.tensor(name)
        kept = stored[:vocabulary] if stored.shape[0] == model.vocab_size else stored
        weights[name] = kept.to(torch.float32, copy=True)
        give_back([stored])
    shown = {**model.config, "num_hidden_layers": layers, "vocab_size": vocabulary}
    return replace(model, source=target, config=shown, dtype="float32", in_memory=MappingWeights(weights))


def _counts(text: dict[str, Any], config: dict[str, Any], total: int) -> list[str]:
    """The keys that say how many layers there are: the standard one, or the config's own name for it."""
    named = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    return [key for key in named if text.get(key) == total] or ["num_hidden_layers"]


def _layers_of_every_kind(config: dict[str, Any], total: int) -> int:
    """How many of the first layers show every value of every list that has one entry per layer."""
    needed = FEWEST_LAYERS
    for value in config.values():
        if isinstance(value, list) and len(value) == total:
            kinds = [json.dumps(entry, sort_keys=True) for entry in value]
            needed = max(needed, *(kinds.index(kind) + 1 for kind in kinds))
    return min(total, needed)


def _layer(name: str) -> int:
    found = LAYER.search(name)
    return -1 if found is None else int(found[1])


def shortened(stimulus: Stimulus, vocabulary: int) -> Stimulus:
    """The stimulus of the logic phase: the beginning of the prompt and the shorter rows, in a smaller vocabulary."""
    ids = tuple(token % vocabulary for token in stimulus.ids[:LOGIC_TOKENS])
    rows = tuple(tuple(token % vocabulary for token in row) for row in stimulus.rows[2:])
    steps = min(LOGIC_DECODE_STEPS, len(ids) // 2, stimulus.decode_steps)
    return replace(stimulus, ids=ids, decode_steps=steps, rows=rows)


def without_batch(stimulus: Stimulus) -> Stimulus:
    """The stimulus of the precision phase: the whole prompt and its decode steps, no batch."""
    return replace(stimulus, rows=(), row_steps=0)


def open_mapped(model: Model, dtype: str, *, length: int, rows: int) -> SessionRunner:
    """Define the port's network over the checkpoint's own tensors, without writing a converted one.

    Args:
        model: its checkpoint has the dtype.
        dtype: of weights and activations.
        length: tokens that the KV cache must hold.
        rows: prompts at once.
    """
    from trtllm_port.runtime.network.kv_cache import STATE_PREFIX
    from trtllm_port.runtime.session import Session

    cls = model.port.cls
    with port_code(model.port):
        port = cls(cls.config_class.from_hugging_face(model.source, dtype))
        port.load_hugging_face(model.weights)
        network = port.define(max_seq_len=length)
    weights = list(port.weights.values())
    session = Session.from_network(network, max_batch_size=rows, release=lambda: give_back(weights))
    stateful = any(spec.name.startswith(STATE_PREFIX) for spec in session.executor.inputs)
    return SessionRunner(session, MappingWeights(port.weights), together=not stateful)


def what_is_left_out(model: Model, logic: Model) -> tuple[NotExercised, ...]:
    """Say what the comparison of a large model does not do everywhere."""
    layers, total = logic.config["num_hidden_layers"], model.config["num_hidden_layers"]
    return (
        NotExercised(
            what=f"the logic phase in the layers {layers} to {total - 1}",
            reason=f"the model is large: float32 against float64 runs on its first {layers} layers, "
            f"{LOGIC_TOKENS} tokens and {LOGIC_DECODE_STEPS} decode steps; all {total} run in the port's own dtype",
        ),
        NotExercised(
            what="the batch in all layers", reason=f"the model is large: its first {layers} layers run a batch"
        ),
        NotExercised(
            what=f"single modules on Hugging Face's values behind token {OWN_TOKENS}",
            reason="the model is large: the run from end to end has all tokens, the injected run the first ones",
        ),
    )
