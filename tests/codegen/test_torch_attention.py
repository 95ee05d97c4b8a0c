"""torch's own attention, and masks that a model makes by hand, in the record of a step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from trtllm_port.codegen.ir.record import Literal, Operation, Value
from trtllm_port.codegen.recognise.torch_attention import (
    Makers,
    before_repeating,
    causal_content,
    hidden_and_sloping,
    torch_attention,
)
from trtllm_port.codegen.record.attentions import compute_attention

LENGTH, PAST = 11, 6


def _trace(*, past: int = 0, keeps_cache: bool = False, asked_for_masks: bool = False) -> Any:
    sample = SimpleNamespace(batch=2, length=LENGTH, past=past)
    cache = Value(torch.zeros(()))
    return SimpleNamespace(
        sample=sample, keeps_cache=keeps_cache, asked_for_masks=asked_for_masks, inputs={"cache": cache}
    )


def _called(slots: int, *args: Any, **kwargs: Any) -> Operation:
    query, key, value = (Value(torch.randn(2, 4, length, 8)) for length in (LENGTH, slots, slots))
    plain: list[Any] = [arg.tensor if isinstance(arg, Value) else arg for arg in (query, key, value, *args)]
    named: dict[str, Any] = {name: arg.tensor if isinstance(arg, Value) else arg for name, arg in kwargs.items()}
    out = Value(F.scaled_dot_product_attention(*plain, **named))
    return Operation("scaled_dot_product_attention", (query, key, value, *args), kwargs, (out,), None)


def _attention(found: list[Operation]) -> Operation:
    return next(operation for operation in found if operation.name == "attention")


def test_a_causal_one_of_a_model_without_memory_fills_the_ports_cache() -> None:
    operation = _called(LENGTH, is_causal=True)
    found = torch_attention(operation, _trace(), layer=1, makers={})
    assert [one.name for one in found] == ["logical_not", "cache_update", "attention", "transpose"]
    assert found[1].args[1] == 1
    mask = _attention(found).kwargs["mask"].tensor
    query, key, value = (arg.tensor for arg in operation.args)
    again = compute_attention(query, key, value, mask, _attention(found).kwargs["scale"]).transpose(1, 2)
    torch.testing.assert_close(again, operation.outputs[0].tensor)
    assert found[-1].outputs == operation.outputs


def test_a_mask_by_hand_is_the_causal_one() -> None:
    shown = torch.ones(LENGTH, PAST + LENGTH, dtype=torch.bool).tril(PAST)
    added = torch.zeros(2, 1, LENGTH, PAST + LENGTH).masked_fill(~shown, torch.finfo(torch.float32).min)
    for mask in (shown, added, added[:1].bfloat16()):
        content = causal_content(Value(mask), _trace(past=PAST))
        assert content is not None
        assert torch.equal(content, shown)
        assert causal_content(Value(mask), _trace(past=PAST, asked_for_masks=True)) is None
    operation = _called(PAST + LENGTH, Value(added))
    found = torch_attention(operation, _trace(past=PAST, keeps_cache=True), layer=0, makers={})
    assert [one.name for one in found] == ["logical_not", "attention", "transpose"]
    assert torch.equal(_attention(found).kwargs["mask"].tensor, shown)


def test_other_masks_stay_what_they_are() -> None:
    bias = Value(torch.randn(2, 1, LENGTH, LENGTH))
    assert causal_content(bias, _trace()) is None
    assert _attention(torch_attention(_called(LENGTH, bias), _trace(), layer=0, makers={})).kwargs["mask"] is bias
    assert causal_content(Literal(torch.ones(LENGTH, LENGTH, dtype=torch.bool)), _trace()) is None


@pytest.mark.parametrize("options", [{"dropout_p": 0.5}, {"dropout_p": 0.1, "is_causal": True}])
def test_what_is_no_inference_is_not_touched(options: dict[str, Any]) -> None:
    operation = _called(LENGTH, **options)
    assert torch_attention(operation, _trace(), layer=0, makers={}) == [operation]


def test_a_mask_and_a_bias_in_one_tensor_are_told_apart() -> None:
    shown = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    slopes = torch.tensor([0.25, 0.0625, 0.5, 0.125])[:, None, None]
    bias = (slopes * torch.arange(LENGTH)).expand(-1, LENGTH, -1).masked_fill(~shown, float("-inf"))
    shifted = bias - slopes * torch.arange(LENGTH)[:, None]  # distances from the token
    for one in (bias, shifted, bias[None], bias.bfloat16()):
        parts = hidden_and_sloping(Value(one), _trace())
        assert parts is not None
        assert torch.equal(parts[0], shown)
        torch.testing.assert_close(parts[1].float(), (slopes * torch.arange(LENGTH))[None], rtol=0, atol=0.05)
    noise = torch.randn(4, LENGTH, LENGTH).masked_fill(~shown, float("-inf"))
    assert hidden_and_sloping(Value(noise), _trace()) is None
    assert hidden_and_sloping(Value(bias.nan_to_num(neginf=0.0)), _trace()) is None


def _chain(source: torch.Tensor, *steps: tuple[str, Any]) -> tuple[Value, Value, Makers]:
    """First and last value of a chain of methods, and what made each."""
    first = last = Value(source)
    makers: dict[Value, Operation] = {}
    for name, args in steps:
        made = Value(getattr(last.tensor, name)(*args))
        makers[made] = Operation(name, (last, *args), {}, (made,), None)
        last = made
    return first, last, makers


HEADS_FIRST = [("unsqueeze", (2,)), ("expand", (2, 3, 2, 5, 8)), ("reshape", (2, 6, 5, 8))]


@pytest.mark.parametrize(
    ("shape", "steps", "tokens_first"),
    [
        ((2, 3, 5, 8), HEADS_FIRST, False),
        ((2, 3, 5, 8), [("repeat_interleave", (2, 1)), ("contiguous", ())], False),
        ((2, 5, 3, 8), [("repeat_interleave", (2, 2)), ("transpose", (1, 2))], True),
        ((2, 5, 3, 8), [("transpose", (1, 2)), *HEADS_FIRST], False),
    ],
)
def test_heads_that_are_repeated_are_kept_once(shape: Any, steps: list[Any], tokens_first: bool) -> None:
    _, last, makers = _chain(torch.randn(shape), *steps)
    found = before_repeating(last, makers)
    assert found is not None
    assert found.tokens_first is tokens_first
    narrow = found.source.tensor.transpose(1, 2) if tokens_first else found.source.tensor
    assert torch.equal(narrow.repeat_interleave(2, 1), last.tensor)


@pytest.mark.parametrize(
    "steps",
    [
        [("repeat", (1, 2, 1, 1))],  # one group after the other: each head serves others
        [("repeat_interleave", (2, 1)), ("mul", (2.0,))],  # which changes them
        [("contiguous", ())],
    ],
)
def test_others_are_not(steps: list[Any]) -> None:
    _, last, makers = _chain(torch.randn(2, 3, 5, 8), *steps)
    assert before_repeating(last, makers) is None


def test_the_cache_holds_a_head_once() -> None:
    _, key, makers = _chain(torch.randn(2, 2, LENGTH, 8), ("repeat_interleave", (2, 1)))
    _, value, others = _chain(torch.randn(2, 2, LENGTH, 8), ("repeat_interleave", (2, 1)))
    query = Value(torch.randn(2, 4, LENGTH, 8))
    out = Value(F.scaled_dot_product_attention(query.tensor, key.tensor, value.tensor, is_causal=True))
    operation = Operation("scaled_dot_product_attention", (query, key, value), {"is_causal": True}, (out,), None)
    found = torch_attention(operation, _trace(), layer=1, makers={**makers, **others})
    update = next(one for one in found if one.name == "cache_update")
    assert [arg.tensor.shape[1] for arg in update.args[2:]] == [2, 2]
    mask = _attention(found).kwargs["mask"].tensor
    given = [arg.tensor for arg in _attention(found).args]
    again = compute_attention(*given, mask, _attention(found).kwargs["scale"]).transpose(1, 2)
    torch.testing.assert_close(again, out.tensor)
