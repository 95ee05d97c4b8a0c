"""A port that is right on one prompt at once, and wrong as `run` uses it, fails in every data type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trtllm_port.verification import DiffSettings, Report, Verdict, diff_layers
from trtllm_port.verification.decode.step_divergence import generation_cause
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.stimulus.input_log import InputLog, never_differed

Edit = Callable[[str, str], None]
MODEL = "self.model(input_ids, position_ids, cache)"
GATHERED = f"gather_tokens({MODEL}, logits_indices)"
COUNTED = "arange(shape(logits_indices, {0}), like=logits_indices)"
BY_ROW = f"logits_indices + {COUNTED.format(0)}.view(-1, 1) * shape(logits_indices, 1)"
UPDATE = "key_states, value_states = cache.update"
IN_DECODE = "(cache.position_ids[:, 0:1] > 0).view(0, 1, 1, 1).to(query_states.dtype)"


def compared(model_dir: Path, workspace: Path, dtype: str = "float32", tokens: int = 80) -> Report:
    return diff_layers(model_dir, workspace=workspace, dtype=dtype, settings=DiffSettings(tokens=tokens))


def failed(report: Report) -> set[str]:
    return {gate.name for gate in report.gates if gate.verdict is Verdict.FAIL}


def same(report: Report) -> dict[str, str]:
    return {item.what: item.reason for item in report.not_exercised if item.what.startswith("inputs that differ")}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_decode_steps_are_judged_in_float32_whatever_the_port_has(
    model_dir: Path, workspace: Path, edit: Edit, dtype: str
) -> None:
    edit(UPDATE, f"query_states = query_states * (1 + 0.03 * {IN_DECODE})\n        {UPDATE}")
    report = compared(model_dir, workspace, dtype)
    assert (report.verdict, report.first_divergence) == (Verdict.FAIL, "model.layers.0.self_attn")


@pytest.mark.parametrize(
    "gathered",
    [
        f"gather_tokens({MODEL}, logits_indices[0:1] + logits_indices * 0)",
        f"gather_tokens({MODEL}, logits_indices * 0 + {COUNTED.format(1)})",
        f"index_select({MODEL}.view(-1, self.config.hidden_size), 0, {BY_ROW})",
        MODEL,
    ],
    ids=["first row's", "first tokens", "rows as long as what is asked for", "all tokens"],
)
def test_logits_of_other_tokens_than_each_row_asks_for(
    model_dir: Path, workspace: Path, edit: Edit, gathered: str
) -> None:
    edit("    gather_tokens,\n", "    gather_tokens,\n    arange,\n    index_select,\n    shape,\n")
    edit(GATHERED, gathered)
    report = compared(model_dir, workspace)
    assert failed(report) == {"batch.last"}
    assert report.causes[0].id == "logits_indices"
    assert report.first_divergence == "LlamaForCausalLM"


def test_one_row_of_a_batch_that_is_slightly_wrong(model_dir: Path, workspace: Path, edit: Edit) -> None:
    edit("    gather_tokens,\n", "    gather_tokens,\n    arange,\n    shape,\n")
    second = "(arange(shape(x, 0), like=cache.position_ids) == 1).view(-1, 1, 1).to(x.dtype)"
    edit(
        "        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))",
        f"        x = self.mlp(self.post_attention_layernorm(hidden_states))\n        x = x * (1 + 0.001 * {second})\n"
        "        return hidden_states + x",
    )
    report = compared(model_dir, workspace, "bfloat16")
    assert "batch.error" in failed(report)
    assert report.causes[0].id == "batch"
    assert report.first_divergence == "model.layers.0"


def test_every_input_differs_between_rows_and_between_steps(model_dir: Path, workspace: Path) -> None:
    assert same(compared(model_dir, workspace)) == {}


def test_without_a_batch_no_input_differs_between_rows_and_that_is_listed(model_dir: Path, workspace: Path) -> None:
    found = same(compared(model_dir, workspace, tokens=2))
    assert list(found) == ["inputs that differ between rows of a batch"]
    assert "`logits_indices`" in found["inputs that differ between rows of a batch"]


def test_an_input_that_never_differs_is_noticed() -> None:
    log, other = InputLog(), InputLog()
    rows = torch.tensor([[1, 2], [3, 4]])
    log.note({"ids": rows, "constant": torch.ones(2, 2), "cache.0.key": rows, "cache.7.key": rows[:1]})
    log.note({"ids": rows + 1, "constant": torch.ones(2, 2), "cache.0.key": rows, "cache.7.key": rows[:1]})
    assert dict(never_differed([log.differed])) == {"rows": ["constant"], "steps": ["constant", "cache.*.key"]}
    other.note({"constant": rows})
    other.note({"constant": rows[:, :1]})
    assert dict(never_differed([log.differed, other.differed])) == {"steps": ["cache.*.key"]}


@pytest.mark.parametrize("decoded", [True, False])
def test_a_cause_says_only_what_was_run(decoded: bool) -> None:
    verdict = Verdict.PASS if decoded else Verdict.SKIPPED
    decode = Gate(name="decode.error" if decoded else "decode", phase="logic", verdict=verdict, reason="")
    prefill = Gate(name="prefill.error", phase="logic", verdict=Verdict.PASS, reason="")
    batch = Gate(name="batch.error", phase="logic", verdict=Verdict.FAIL, reason="")
    cause = generation_cause([prefill, decode, batch])
    assert cause is not None
    assert ("decode" in cause.evidence) is decoded
