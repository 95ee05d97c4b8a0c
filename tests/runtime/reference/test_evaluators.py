"""The table of evaluators covers what `layers/` can write, and each layer type has one place."""

from __future__ import annotations

import re
from pathlib import Path

import tensorrt_rtx as trt

import trtllm_port.layers
from trtllm_port.runtime.network.attributes import ATTENTION_ATTRIBUTES, LAYER_CLASSES
from trtllm_port.runtime.reference.compiler import SUPPORTED
from trtllm_port.runtime.reference.evaluators import EVALUATORS

LAYERS = Path(trtllm_port.layers.__file__).parent
# How TensorRT's `add_...` methods are called where their name is not that of the layer type.
TYPES = {
    "attention_v2": {"ATTENTION_INPUT", "ATTENTION_OUTPUT"},
    "gather_v2": {"GATHER"},
    "normalization_v2": {"NORMALIZATION"},
    "loop": {"TRIP_LIMIT", "ITERATOR", "RECURRENCE", "LOOP_OUTPUT"},  # its boundary
}
# Communication between ranks needs several processes: TensorRT's alone.
NOT_HERE = {"DIST_COLLECTIVE"}


def test_every_layer_that_a_port_can_contain_is_evaluated() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in LAYERS.rglob("*.py"))
    methods = set(re.findall(r"definition\.add_([a-z_0-9]+)\(", sources)) - {"input"}
    assert "matrix_multiply" in methods
    emitted = {kind for method in methods for kind in TYPES.get(method, {method.upper()})}
    assert emitted <= trt.LayerType.__members__.keys()
    assert emitted - NOT_HERE <= SUPPORTED


def test_the_table_names_layer_types_of_tensorrt() -> None:
    assert EVALUATORS.keys() <= trt.LayerType.__members__.keys()


def test_attributes_are_read_for_every_layer_with_attributes() -> None:
    without = {"ATTENTION_INPUT", "ATTENTION_OUTPUT", "IDENTITY", "SELECT", "SHAPE", "SQUEEZE", "UNSQUEEZE"}
    assert SUPPORTED - without <= LAYER_CLASSES.keys()
    assert all(hasattr(trt.IAttention, attribute) for attribute in ATTENTION_ATTRIBUTES)
