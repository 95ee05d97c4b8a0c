"""Masks by what they allow, rotations by what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import masking_utils
from transformers.models.deepseek_v3.modeling_deepseek_v3 import apply_rotary_pos_emb_interleave as apart_rotation
from transformers.models.gemma4 import modeling_gemma4
from transformers.models.glm.modeling_glm import apply_rotary_pos_emb as glm_rotation
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as partial_rotation
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as half_rotation
from transformers.models.nanochat.modeling_nanochat import apply_rotary_pos_emb as backward_rotation

from trtllm_port.codegen.ir.record import Operation
from trtllm_port.codegen.record.attentions import compute_attention
from trtllm_port.codegen.record.hooks import classify_mask, hooks, probe_rotation, rotate
from trtllm_port.codegen.record.recorder import Recorder, recording


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (masking_utils.causal_mask_function, ("causal", None)),
        (masking_utils.sliding_window_causal_mask_function(5), ("window", 5)),
        (masking_utils.chunked_causal_mask_function(7, torch.zeros(1, dtype=torch.int64)), ("chunk", 7)),
        (masking_utils.bidirectional_mask_function, ("full", None)),
        (lambda batch, head, query, key: (key <= query) & (key % 2 == 0), ("unknown", None)),
    ],
)
def test_classify_mask(function: Callable[..., Any], expected: tuple[str, int | None]) -> None:
    assert classify_mask(function, 0) == expected


def test_classify_mask_of_known_tokens() -> None:
    blocks = torch.full((1, 17), -1)  # a text without images: no token is in a block

    def function(batch: Any, head: Any, query: Any, key: Any) -> Any:
        together = (blocks[batch, query] == blocks[batch, key]) & (blocks[batch, query] >= 0)
        return (key <= query) | together

    assert classify_mask(function, 17) == ("causal", None)
    blocks[0, 3:5] = 1
    assert classify_mask(function, 17) == ("unknown", None)


def _tables(rotated: int, repeat: str) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.rand(2, 5, rotated // 2, generator=torch.Generator().manual_seed(0)) * 6
    doubled = torch.cat([angles, angles], -1) if repeat == "halves" else angles.repeat_interleave(2, -1)
    return doubled.cos(), doubled.sin()


@pytest.mark.parametrize(
    ("rotation", "rotated", "repeat", "interleaved"),
    [
        (half_rotation, 16, "halves", False),
        (partial_rotation, 8, "halves", False),
        (glm_rotation, 8, "halves", True),
    ],
)
def test_rotations_are_recognised(rotation: Callable[..., Any], rotated: int, repeat: str, interleaved: bool) -> None:
    query, key = torch.randn(2, 2, 4, 5, 16, generator=torch.Generator().manual_seed(1))
    cos, sin = _tables(rotated, repeat)
    out, _ = rotation(query, key, cos, sin)
    assert probe_rotation(query, cos, sin, out) == {"interleaved": interleaved, "tables": "halves"}


def test_a_rotation_the_other_way_round_is_recognised() -> None:
    query, key = torch.randn(2, 2, 4, 5, 16, generator=torch.Generator().manual_seed(1))
    cos, sin = _tables(16, "halves")
    out, _ = backward_rotation(query, key, cos, sin)
    assert probe_rotation(query, cos, sin, out) == {"interleaved": False, "tables": "halves", "backwards": True}


def test_another_rotation_is_none() -> None:
    query = torch.randn(2, 4, 5, 16)
    cos, sin = _tables(16, "halves")
    assert probe_rotation(query, cos, sin, query.roll(1, -1)) is None
    assert probe_rotation(query, cos, sin, rotate(query, -cos[..., :8], sin[..., :8], interleaved=False)) is None


def test_attention_is_torchs() -> None:
    query, key, value = torch.randn(2, 6, 5, 8), torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8)
    mask = torch.ones(5, 9, dtype=torch.bool).tril(4)[None, None]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    found = compute_attention(query, key, value, mask, 0.3)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_neighbours_brought_apart() -> None:
    x = torch.randn(2, 4, 5, 16, generator=torch.Generator().manual_seed(1))
    cos, sin = _tables(16, "halves")
    out, _ = apart_rotation(x, x[:, :1], cos, sin)
    assert probe_rotation(x, cos, sin, out) == {"interleaved": False, "tables": "halves", "apart": True}


class _TokensFirst(torch.nn.Module):
    """Rotates [B, L, N, H], as models do that bring heads to the front afterwards."""

    def forward(self, query: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        rotated = modeling_gemma4.apply_rotary_pos_emb(query, cos, sin, unsqueeze_dim=2)
        return rotated.transpose(1, 2)


def test_a_rotation_with_the_tokens_before_the_heads_says_so() -> None:
    query = torch.randn(2, 5, 4, 16, generator=torch.Generator().manual_seed(1))
    model = _TokensFirst()
    model.__class__.__module__ = modeling_gemma4.__name__  # where the rotation is looked for
    recorder = Recorder(model)
    with torch.no_grad(), hooks(model), recording(recorder), recorder:
        model(query, *_tables(16, "halves"))
    assert recorder.root is not None
    operations = [item for item in recorder.root.body if isinstance(item, Operation)]
    assert [operation.name for operation in operations] == ["rotary_embedding", "transpose"]
    turn = operations[0]
    given, cos, sin = (value.tensor for value in turn.args)
    assert turn.kwargs["tokens_first"]
    expected = rotate(given.transpose(1, 2), cos[..., :8], sin[..., :8], interleaved=False)
    torch.testing.assert_close(turn.outputs[0].tensor, expected.transpose(1, 2))
    torch.testing.assert_close(operations[-1].outputs[0].tensor, expected)


class _Handed(torch.nn.Module):
    """Hands position ids on to its rotation, as files for older releases do."""

    def forward(self, query: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, places: torch.Tensor) -> Any:
        return apply_rotary_pos_emb(query, query[:, :1], cos, sin, places)


def apply_rotary_pos_emb(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, places: Any) -> Any:
    return tuple(modeling_gemma4.apply_rotary_pos_emb(x, cos, sin) for x in (q, k))


def test_what_else_a_rotation_is_given_is_nothing_to_rotate() -> None:
    query = torch.randn(2, 4, 5, 16, generator=torch.Generator().manual_seed(1))
    model = _Handed()
    recorder = Recorder(model)
    with torch.no_grad(), hooks(model), recording(recorder), recorder:
        model(query, *_tables(16, "halves"), torch.arange(5)[None])
    assert recorder.root is not None
    names = [item.name for item in recorder.root.body if isinstance(item, Operation)]
    assert names.count("rotary_embedding") == 2
    assert "mul" not in names
