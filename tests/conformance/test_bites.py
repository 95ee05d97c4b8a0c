"""The suite notices a broken evaluator: each is broken in turn, and cases that matched must fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx_suite
import pytest
import torch

from trtllm_port.runtime.network import LayerRecord
from trtllm_port.runtime.reference import compiler, evaluators, loops
from trtllm_port.runtime.reference.evaluators import attention, indexing, pointwise, reduction
from trtllm_port.runtime.reference.evaluators.layer import Bound, Layer

# Layer type → an ONNX module whose cases have it.
MODULE_WITH = {
    "ACTIVATION": "elu",
    "ATTENTION_INPUT": "attention",
    "ATTENTION_OUTPUT": "attention",
    "CAST": "rmsnormalization",
    "CONCATENATION": "concat",
    "CUMULATIVE": "cumsum",
    "DEQUANTIZE": "dequantizelinear",
    "EINSUM": "einsum",
    "ELEMENTWISE": "pow",
    "FILL": "blackmanwindow",
    "GATHER": "gather",
    "IDENTITY": "dropout",
    "KV_CACHE_UPDATE": "tensorscatter",
    "MATRIX_MULTIPLY": "gemm",
    "NORMALIZATION": "groupnormalization",
    "ONE_HOT": "hardmax",
    "QUANTIZE": "quantizelinear",
    "REDUCE": "rmsnormalization",
    "REVERSE_SEQUENCE": "reversesequence",
    "ROTARY_EMBEDDING": "rotaryembedding",
    "SCATTER": "scatterelements",
    "SELECT": "where",
    "SHAPE": "shape",
    "SHUFFLE": "reshape",
    "SLICE": "slice",
    "SOFTMAX": "softmax",
    "SQUEEZE": "hardmax",
    "TOPK": "topk",
    "UNARY": "logsoftmax",
    "UNSQUEEZE": "rnn",
}
NOT_IN_THE_SUITE = {"NON_ZERO"}  # compared with torch in tests/runtime/reference


def _matched(module: str) -> set[str]:
    return {case.name for case in onnx_suite.cases_of(module) if onnx_suite.run(case).status == "matched"}


def _disturbed(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_disturbed(part) for part in value)
    if value.dtype == torch.bool:
        return ~value
    return (value.float() + 1).to(value.dtype)


def _breaking(factory: Callable[[Layer], Any]) -> Callable[[Layer], Any]:
    def broken(layer: Layer) -> Any:
        bound = factory(layer)
        if isinstance(bound, Bound):
            return replace(bound, run=lambda *inputs: _disturbed(bound.run(*inputs)))
        return lambda *inputs: _disturbed(bound(*inputs))

    return broken


def test_every_evaluator_is_broken_below() -> None:
    assert MODULE_WITH.keys() | NOT_IN_THE_SUITE == evaluators.EVALUATORS.keys()


@pytest.mark.parametrize("kind", sorted(MODULE_WITH))
def test_a_disturbed_result_is_noticed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _matched(MODULE_WITH[kind])
    monkeypatch.setitem(evaluators.EVALUATORS, kind, _breaking(evaluators.EVALUATORS[kind]))
    assert _matched(MODULE_WITH[kind]) < before


def _with_attribute(kind: str, **changes: Any) -> Callable[[Layer], Any]:
    factory = evaluators.EVALUATORS[kind]

    def changed(layer: Layer) -> Any:
        attributes = {k: changes[k](v) if k in changes else v for k, v in layer.record.attributes.items()}
        record = LayerRecord(
            layer.record.type, layer.record.name, layer.record.inputs, layer.record.outputs, attributes
        )
        return factory(Layer(record, layer._compilation))

    return changed


MISREADINGS = [
    ("attention", "ATTENTION_INPUT", "causal_kind", lambda kind: "NONE"),
    ("rotaryembedding", "ROTARY_EMBEDDING", "interleaved", lambda interleaved: not interleaved),
    ("rotaryembedding", "ROTARY_EMBEDDING", "rotary_embedding_dim", lambda size: 2),
    ("softmax", "SOFTMAX", "axes", lambda axes: [0]),
    ("cumsum", "CUMULATIVE", "exclusive", lambda exclusive: False),
    ("cumsum", "CUMULATIVE", "reverse", lambda reverse: not reverse),
    ("topk", "TOPK", "op", lambda op: "MAX"),
    ("gathernd", "GATHER", "num_elementwise_dims", lambda count: 0),
    ("gemm", "MATRIX_MULTIPLY", "op0", lambda op: "NONE"),
    ("transpose", "SHUFFLE", "first_transpose", lambda order: None),
    ("pad", "SLICE", "mode", lambda mode: "CLAMP"),
    ("groupnormalization", "NORMALIZATION", "num_groups", lambda groups: 1),
    ("groupnormalization", "NORMALIZATION", "epsilon", lambda epsilon: 0.1),
]


@pytest.mark.parametrize(("module", "kind", "attribute", "misread"), MISREADINGS)
def test_a_misread_attribute_is_noticed(
    module: str, kind: str, attribute: str, misread: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _matched(module)
    monkeypatch.setitem(evaluators.EVALUATORS, kind, _with_attribute(kind, **{attribute: misread}))
    assert _matched(module) < before


FORMULAS = [
    ("round", pointwise.UNARY, "ROUND", lambda x: torch.floor(x + 0.5)),
    ("selu", pointwise.FORMULAS, "SELU", lambda x, alpha, beta: torch.selu(x)),
    ("elu", pointwise.ACTIVATIONS, "ELU", lambda x, alpha, beta: torch.nn.functional.elu(x)),
    ("gelu", pointwise.ACTIVATIONS, "GELU_TANH", lambda x, alpha, beta: x * torch.sigmoid(1.702 * x)),
    ("reducemax", reduction.REDUCTIONS, "MAX", reduction.REDUCTIONS["MIN"]),
    ("mod", pointwise.ELEMENTWISE, "DIV", pointwise.ELEMENTWISE["FLOOR_DIV"]),
]


@pytest.mark.parametrize(("module", "table", "operation", "wrong"), FORMULAS)
def test_a_wrong_formula_is_noticed(
    module: str, table: dict[str, Any], operation: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _matched(module)
    monkeypatch.setitem(table, operation, wrong)
    assert _matched(module) < before


def test_negative_indices_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _matched("gather")
    monkeypatch.setattr(indexing, "_from_start", lambda indices, size: indices.clamp(0))
    assert _matched("gather") < before


def test_a_mask_that_is_cut_too_short_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _matched("attention")
    right = attention.visible
    monkeypatch.setattr(
        attention, "visible", lambda mask: right(mask)._replace(columns=max(1, right(mask).columns - 1))
    )
    assert _matched("attention") < before


def test_a_loop_that_ends_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _matched("rnn")
    right = loops.compile_loop

    def early(*arguments: Any) -> Any:
        draft, outputs = right(*arguments)
        return replace(draft, run=replace(draft.run, recurrences=draft.run.recurrences[:0])), outputs

    monkeypatch.setattr(compiler, "compile_loop", early)
    assert _matched("rnn") < before
