"""Rotations by complex numbers, as those by cosines and sines in the precision of the tables."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.deepseek_v2 import modeling_deepseek_v2
from transformers.models.llama4 import modeling_llama4

from tests.codegen.conftest import hf_config
from trtllm_port.codegen import check_port, generate_port
from trtllm_port.codegen.ir.nodes import Block, Leaf
from trtllm_port.codegen.ir.record import Call, Operation, Value
from trtllm_port.codegen.recognise.rotary_tables import RotaryTables
from trtllm_port.codegen.recognise.rotations import Rotations
from trtllm_port.codegen.record.hooks import hooks, rotate
from trtllm_port.codegen.record.recorder import Recorder, recording


class _Turned(nn.Module):
    def forward(self, query: torch.Tensor, key: torch.Tensor, freqs_cis: torch.Tensor) -> torch.Tensor:
        return modeling_deepseek_v2.apply_rotary_emb(query, key, freqs_cis)[0]


class _TurnedTokensFirst(nn.Module):
    def forward(self, query: torch.Tensor, key: torch.Tensor, freqs_cis: torch.Tensor) -> torch.Tensor:
        return modeling_llama4.apply_rotary_emb(query, key, freqs_cis)[0]


def _angles() -> torch.Tensor:
    return torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(0)) * 6


def _record(model: nn.Module, x: torch.Tensor, table: torch.Tensor, home: str) -> tuple[list[Operation], torch.Tensor]:
    model.__class__.__module__ = home  # where the rotation is looked for
    recorder = Recorder(model)
    with torch.no_grad(), hooks(model), recording(recorder), recorder:
        out = model(x, x, table)
    assert recorder.root is not None
    return [item for item in recorder.root.body if isinstance(item, Operation)], out


@pytest.mark.parametrize(
    ("model", "tokens_first", "home"),
    [(_Turned(), False, modeling_deepseek_v2.__name__), (_TurnedTokensFirst(), True, modeling_llama4.__name__)],
)
def test_a_product_of_complex_numbers_is_a_rotation_of_neighbours_in_float32(
    model: nn.Module, tokens_first: bool, home: str
) -> None:
    angles = _angles()
    shape = (2, 5, 4, 16) if tokens_first else (2, 4, 5, 16)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    operations, out = _record(model, x, torch.polar(torch.ones_like(angles), angles), home)
    assert [operation.name for operation in operations[:2]] == ["rotary_embedding", "to"]
    turn = operations[0]
    given, table = (value.tensor for value in turn.args)
    options = {"tokens_first": True} if tokens_first else {}
    assert turn.kwargs == {"interleaved": True, "tables": "once", **options}
    assert turn.outputs[0].tensor.dtype == torch.float32
    heads_first = given.float().transpose(1, 2) if tokens_first else given.float()
    expected = rotate(heads_first, table.real, table.imag, interleaved=True)
    expected = expected.transpose(1, 2) if tokens_first else expected
    torch.testing.assert_close(turn.outputs[0].tensor, expected, rtol=0, atol=0.03)
    assert torch.equal(operations[1].outputs[0].tensor, out)


def apply_rotary_backwards(x: torch.Tensor, key: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """No rotation: the first neighbour alone is turned."""
    return torch.cat([modeling_deepseek_v2.apply_rotary_emb(x, key, table)[0][..., :1], x[..., 1:]], -1), key


class _Other(nn.Module):
    def forward(self, query: torch.Tensor, key: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return apply_rotary_backwards(query, key, table)[0]


def test_what_is_no_rotation_stays_as_it_is_written() -> None:
    angles = _angles()
    x = torch.randn(2, 4, 5, 16, generator=torch.Generator().manual_seed(1))
    operations, _ = _record(_Other(), x, torch.polar(torch.ones_like(angles), angles), __name__)
    assert "view_as_complex" in [operation.name for operation in operations]
    assert "rotary_embedding" not in [operation.name for operation in operations]


def test_a_table_of_complex_numbers_is_two_in_the_port() -> None:
    angles = _angles()
    table = Value(torch.polar(torch.ones_like(angles), angles))
    call = Call("rotary_emb", nn.Module(), {}, None, outputs=(table,))
    rotations = Rotations()
    rotations.note(call, RotaryTables(Leaf("RotaryEmbedding", ()), None, doubled=False))
    given = Value(torch.zeros(1)), Value(torch.zeros(1))
    turn = Operation("rotary_embedding", (given[0], table), {"interleaved": True, "tables": "once"}, (given[1],), None)
    _, cos, sin = rotations.prepared(Block("", nn.Module()), turn).args
    torch.testing.assert_close(cos.tensor, angles.cos())
    torch.testing.assert_close(sin.tensor, angles.sin())
    assert rotations.of((given[0], table)) == (given[0], cos, sin)
    assert rotations.names(table, ["freqs_cis"]) == [(cos, ["cos"]), (sin, ["sin"])]


@pytest.mark.slow
def test_a_model_that_rotates_by_complex_numbers() -> None:
    config = hf_config("deepseek_v2", num_experts_per_tok=6)
    port = generate_port(config)
    assert port.skeletons == ()
    text = port.files["model.py"]
    assert 'config.max_position_embeddings, dtype="float32"' in text
    assert "rotary_embedding(q_pe.float(), cos, sin, interleaved=True).to(input_dtype)" in text
    check = check_port(config, source=port)
    assert check.passed, check
