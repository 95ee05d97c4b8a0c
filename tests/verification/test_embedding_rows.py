"""Embedding tables are compared as a whole: a wrong row of a token that the prompt does not have is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, LlamaConfig

from trtllm_port.huggingface.random_weights import save_random_checkpoint
from trtllm_port.porting.create import create_port
from trtllm_port.verification import DiffSettings, Report, Verdict, diff_layers
from trtllm_port.verification.decode.embedding_rows import compare_tables
from trtllm_port.verification.phases import large_models as large
from trtllm_port.verification.sides.embedding_tables import EmbeddingTable, TableIndex, table_indices
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.taps.names import input_of

Edit = Callable[[str, str], None]
EMBEDDED = "self.embed_tokens(input_ids)"
HEAD = "return self.lm_head(hidden_states)"
WEIGHT = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))


def compared(model_dir: Path, workspace: Path, dtype: str = "float32", tokens: int = 8) -> Report:
    return diff_layers(model_dir, workspace=workspace, dtype=dtype, settings=DiffSettings(tokens=tokens))


def gates(report: Report) -> dict[str, str]:
    return {gate.reason: str(gate.verdict) for gate in report.gates if gate.name == "tables.rows"}


def row_changed(edit: Edit, token: int, change: str) -> None:
    """Let the table of embeddings give another row for one token."""
    edit("    gather_tokens,\n", "    gather_tokens,\n    where,\n")
    edit(
        "self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)",
        "self.embed_tokens = Changed(config.vocab_size, config.hidden_size)",
    )
    edit(
        "class LlamaModel(Module):",
        "class Changed(Embedding):\n    def forward(self, ids: Tensor) -> Tensor:\n"
        f"        here, rows = (ids == {token}).view(0, 0, 1), super().forward(ids)\n"
        f"        return where(here, {change}, rows)\n\n\nclass LlamaModel(Module):",
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("change", ["rows * 0", "super().forward(ids * 0)", "rows * 1.001"])
def test_a_wrong_row_of_a_token_that_the_prompt_does_not_have(
    model_dir: Path, workspace: Path, edit: Edit, dtype: str, change: str
) -> None:
    row_changed(edit, 3, change)
    report = compared(model_dir, workspace, dtype)
    assert (report.verdict, report.first_divergence) == (Verdict.FAIL, "model.embed_tokens")
    assert report.causes[0].id == "table.rows"
    assert "1 of 96 rows are wrong: tokens 3" in report.causes[0].evidence
    assert "class Changed" in report.causes[0].place


def test_the_rows_of_a_right_port_are_counted(model_dir: Path, workspace: Path) -> None:
    assert gates(compared(model_dir, workspace)) == {"all 96 rows of `model.embed_tokens`": "pass"}


@pytest.mark.parametrize("factor", ["0.0", "1.01"])
def test_a_wrong_row_of_the_head(model_dir: Path, workspace: Path, edit: Edit, factor: str) -> None:
    edit("    gather_tokens,\n", "    gather_tokens,\n    arange,\n    where,\n")
    number = "arange(self.config.vocab_size, like=input_ids).view(1, 1, -1)"
    edit(HEAD, f"{HEAD.replace('return', 'x =')}\n        return where({number} == 3, x * {factor}, x)")
    assert compared(model_dir, workspace, "bfloat16").verdict is Verdict.FAIL


def test_rows_of_a_large_model_beyond_its_logic_phase(
    tmp_path: Path, workspace: Path, model_dir: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "LARGE_BYTES", 0)
    monkeypatch.setattr(large, "LOGIC_VOCABULARY", 48)
    config = LlamaConfig.from_pretrained(model_dir, num_hidden_layers=3, dtype="bfloat16")
    save_random_checkpoint(config, tmp_path / "model", "bfloat16")
    assert list(gates(compared(tmp_path / "model", workspace, "auto", 16)).values()) == ["pass", "pass"]
    missing = min(set(range(48, 96)) - set(compared_ids(tmp_path / "model")))
    row_changed(edit, missing, "rows * 0")
    report = compared(tmp_path / "model", workspace, "auto", 16)
    assert (report.verdict, report.first_divergence) == (Verdict.FAIL, "model.embed_tokens")


def compared_ids(model_dir: Path) -> tuple[int, ...]:
    from trtllm_port.verification.stimulus.stimulus import make_stimulus

    return make_stimulus(model_dir, tokens=16, longest=160, vocab_size=96).ids


@pytest.mark.slow
def test_tables_of_positions_are_compared_too(tmp_path: Path) -> None:
    config = GPT2Config(n_embd=32, n_head=4, n_layer=2, vocab_size=96, n_positions=64)
    save_random_checkpoint(config, tmp_path / "model")
    create_port(tmp_path / "model", workspace=tmp_path / "workspace")
    found = gates(compared(tmp_path / "model", tmp_path / "workspace"))
    assert found == {"all 160 rows of `transformer.wte`, `transformer.wpe`": "pass"}
    source = next((tmp_path / "workspace" / "models").glob("*/model.py"))
    source.write_text(source.read_text().replace("self.wpe(position_ids)", "self.wpe(position_ids % 50)"))
    report = compared(tmp_path / "model", tmp_path / "workspace")
    assert (report.verdict, report.first_divergence) == (Verdict.FAIL, "transformer.wpe")
    assert "14 of 64 rows are wrong: positions 50, 51, 52 …" in report.causes[0].evidence


def test_a_table_of_unknown_use_is_listed(model_dir: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtllm_port.verification.sides.embedding_tables.TableIndex.of", lambda *_: None)
    report = compared(model_dir, workspace)
    assert "rows of `model.embed_tokens` that the prompt does not look up" in [x.what for x in report.not_exercised]


def test_a_parameter_that_the_network_does_not_read_is_listed(model_dir: Path, workspace: Path, edit: Edit) -> None:
    edit("return self.o_proj(attn_output.view(0, 0, -1))", "return attn_output.view(0, 0, -1)")
    report = compared(model_dir, workspace)
    assert "`model.layers.0.self_attn.o_proj.weight`" in [item.what for item in report.not_exercised]


class PositionPort:
    """A port that has learned positions up to 20 of 30, behind two rows for padding."""

    tap_names = ("wpe",)

    def look_up(self, tap: str, ids_L: Tensor, positions_L: Tensor) -> Tensor:
        return WEIGHT[positions_L.clamp(max=20) + 2][None]


def test_positions_are_looked_up_behind_their_offset() -> None:
    table = EmbeddingTable(len(WEIGHT), WEIGHT.__getitem__)
    found = compare_tables(PositionPort(), {"wpe": table}, {"wpe": TableIndex("positions", 2)}, "float32")  # type: ignore[arg-type]
    assert found.rows == {"wpe": 30}
    assert "9 of 30 rows are wrong: positions 21, 22, 23 …" in found.wrong["wpe"].note


class TokenPort:
    """A port with a second table, of more rows than there are tokens."""

    tap_names = ("embed", "more")

    def look_up(self, tap: str, ids_L: Tensor, positions_L: Tensor) -> Tensor:
        assert int(ids_L.max()) < 20
        return WEIGHT[ids_L][None]


def test_a_second_table_is_asked_for_tokens_that_there_are() -> None:
    tables = {name: EmbeddingTable(rows, WEIGHT.__getitem__) for name, rows in (("embed", 20), ("more", 25))}
    found = compare_tables(TokenPort(), tables, dict.fromkeys(tables, TableIndex("tokens")), "float32")  # type: ignore[arg-type]
    assert found.rows == {"embed": 20, "more": 20}
    assert not found.wrong


def test_a_table_that_cannot_be_asked_is_left_out() -> None:
    """Pegasus' positions take a shape and give rows for it."""

    def look_up(ids_L: Tensor) -> Tensor:
        raise ValueError("not enough values to unpack")

    taps = {input_of("wpe"): torch.tensor([0, 1, 2])}
    assert not table_indices(taps, {"wpe": EmbeddingTable(30, look_up)}, [5, 9, 7])
    assert table_indices(taps, {"wpe": EmbeddingTable(30, WEIGHT.__getitem__)}, [5, 9, 7])


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ([[5, 9, 7]], TableIndex("tokens")),
        ([0, 1, 2], TableIndex("positions")),
        ([[2, 3, 4]], TableIndex("positions", 2)),
        ([[0, 0, 0]], None),
        ([[1.0, 1.0, 1.0]], None),
        ([[5, 9]], None),
    ],
)
def test_what_a_table_is_looked_up_by(given: list[float], index: TableIndex | None) -> None:
    assert TableIndex.of(torch.tensor(given), [5, 9, 7]) == index


def test_tables_outlive_the_weights(model_dir: Path) -> None:
    runner = HuggingFaceRunner.load(model_dir, "float32")
    weight = runner.model.get_input_embeddings().weight.clone()
    table = runner.tables()["model.embed_tokens"]
    runner.forget_weights()
    assert torch.equal(table.look_up(torch.arange(table.rows)), weight)


def test_a_table_that_only_counts_what_it_is_given_is_not_looked_up_by_it() -> None:
    rows, ids = torch.rand(8, 2), [5, 3, 6]
    by_token, by_place = (
        EmbeddingTable(8, lambda ids_L: rows[ids_L]),
        EmbeddingTable(8, lambda ids_L: rows[: len(ids_L)]),
    )
    taps = {input_of(path): torch.tensor([ids]) for path in ("tokens", "places")}
    assert table_indices(taps, {"tokens": by_token, "places": by_place}, ids) == {"tokens": TableIndex("tokens")}
