"""A port that is right on one row and wrong in a batch is placed by the taps of the first token that differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from trtllm_port.verification import DiffSettings, Report, diff_layers
from trtllm_port.verification.decode.single_token import Fed, _aligned, _of_row, token_comparisons
from trtllm_port.verification.judge.metrics import token_errors
from trtllm_port.verification.judge.routing import Routing
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.port_run import Expected
from trtllm_port.verification.sides.recording import Recording
from trtllm_port.verification.taps.pairing import Pairing
from trtllm_port.verification.taps.runner import Forced

Edit = Callable[[str, str], None]
FIRST = "position_ids[0:1]"
GATHER = "gather_tokens(self.model(input_ids, position_ids, cache), logits_indices)"
SECOND = "(arange(shape(x, 0), like=cache.position_ids) == 1).view(-1, 1, 1).to(x.dtype)"
STEP = "(cache.position_ids[:, 0:1] > 0).view(-1, 1, 1).to(x.dtype)"
LAYER = "        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))"


def compared(model_dir: Path, workspace: Path, dtype: str = "float32") -> Report:
    return diff_layers(model_dir, workspace=workspace, dtype=dtype, settings=DiffSettings(tokens=80))


def marked(report: Report) -> str:
    excerpt = report.excerpts[0]
    return excerpt.lines[excerpt.marked[0] - excerpt.first_line]


@pytest.mark.parametrize(
    ("old", "new", "module", "cause"),
    [
        (
            "self.rotary_emb(hidden_states, position_ids)",
            f"self.rotary_emb(hidden_states, position_ids * 0 + {FIRST})",
            "model.rotary_emb",
            "batch",
        ),
        (
            "self.rotary_emb(hidden_states, position_ids)",
            f"self.rotary_emb(hidden_states, {FIRST})",
            "model.rotary_emb",
            "batch",
        ),
        (
            "causal_mask(position_ids, cache)",
            f"causal_mask(position_ids * 0 + {FIRST}, cache)",
            "model.layers.0.self_attn",
            "batch",
        ),
        (GATHER, GATHER.replace("indices", "indices * 0 + logits_indices[0:1]"), "LlamaForCausalLM", "logits_indices"),
    ],
    ids=["positions", "positions without rows", "mask", "logits"],
)
def test_the_module_that_takes_one_row_for_another_is_named_with_its_line(
    model_dir: Path, workspace: Path, edit: Edit, old: str, new: str, module: str, cause: str
) -> None:
    edit(old, new)
    report = compared(model_dir, workspace)
    assert (report.verdict, report.first_divergence, report.causes[0].id) == ("fail", module, cause)
    assert new in report.causes[0].place
    assert new in marked(report)


@pytest.mark.parametrize(
    ("factor", "when"),
    [(SECOND, "in row 2 of 4 in a padded batch, in the prefill"), (f"{SECOND} * {STEP}", "in the first step after")],
    ids=["prefill", "steps"],
)
def test_the_row_and_the_call_that_differ_first_are_told(
    model_dir: Path, workspace: Path, edit: Edit, factor: str, when: str
) -> None:
    edit("    gather_tokens,\n", "    gather_tokens,\n    arange,\n    shape,\n")
    wrong = (
        f"        x = self.mlp(self.post_attention_layernorm(hidden_states))\n        x = x * (1 + 0.01 * {factor})\n"
    )
    edit(LAYER, f"{wrong}        return hidden_states + x")
    report = compared(model_dir, workspace, "bfloat16")
    assert (report.verdict, report.first_divergence) == ("fail", "model.layers.0")
    assert report.divergence is not None
    assert when in report.divergence.note
    assert "one row alone is right, prefill and decode" in report.causes[0].evidence
    assert when in report.causes[0].evidence


def test_a_sound_port_costs_no_further_run_of_the_reference(
    model_dir: Path, workspace: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[int, ...]] = []
    run = HuggingFaceRunner.run

    def counted(self: HuggingFaceRunner, ids_BL: torch.Tensor, **arguments: object) -> torch.Tensor:
        runs.append(tuple(ids_BL.shape))
        return run(self, ids_BL, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(HuggingFaceRunner, "run", counted)
    assert compared(model_dir, workspace).verdict == "pass"
    sound = len(runs)
    runs.clear()
    edit("causal_mask(position_ids, cache)", f"causal_mask(position_ids * 0 + {FIRST}, cache)")
    assert compared(model_dir, workspace).verdict == "fail"
    assert len(runs) == sound + 1


LAYOUTS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], int | None]] = {
    "batch and tokens": ((3, 4, 8), (1, 6, 8), 1),
    "heads before tokens": ((3, 2, 4, 8), (1, 2, 6, 8), 2),
    "tokens of all rows in one dimension": ((12, 8), (6, 8), 0),
    "in two with Hugging Face": ((12, 8), (1, 6, 8), 0),
    "in one with Hugging Face": ((3, 4, 8), (6, 8), 0),
    "the same for all rows": ((1, 4, 8), (1, 6, 8), 1),
    "as many features as tokens": ((3, 4, 6), (1, 6, 6), 1),
    "one number of a token": ((12,), (6,), 0),
    "no tokens": ((3, 8), (1, 8), None),
    "neither rows nor tokens": ((5, 4, 8), (1, 6, 8), None),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_one_row_of_a_tap_is_found_in_every_layout(name: str) -> None:
    shape, alone, expected = LAYOUTS[name]
    value = torch.arange(float(torch.Size(shape).numel())).view(shape)
    aligned = _aligned(_of_row(value, 1, 3, 4), torch.zeros(alone), 4, 6)
    if expected is None:
        assert aligned is None
        return
    assert aligned is not None
    own, reference, axis = aligned
    assert (axis, own.shape[axis], reference.shape[axis]) == (expected, 4, 6)
    row = value.view(-1)[: own.numel()] if shape[0] == 1 else value.view(3, -1)[1]
    assert torch.equal(own.reshape(-1), row)


@pytest.mark.parametrize("at", [None, 1, 3])
def test_a_token_that_errs_no_more_than_hugging_faces_worst_is_no_difference(at: int | None) -> None:
    """Of a gate with one feature, a token near zero errs a thousand times as much as most, with Hugging Face, too."""
    alone = torch.tensor([[[1.0], [1.0], [1e-3], [1.0]]]).double()
    given = alone + 1e-7
    if at is not None:
        given[0, at] *= 1.01
    port = OneTap(given.expand(2, -1, -1))
    found = token_comparisons(port, fed(alone), judged_by(alone, alone.float() + 1e-7), ["gate"])
    assert found["gate"].diverged is (at is not None)


def test_only_tokens_up_to_the_wrong_one_are_compared_and_no_padding() -> None:
    alone = torch.ones(1, 4, 2).double()
    given = alone.repeat(2, 1, 1)
    given[1, 3], given[0] = torch.nan, torch.inf
    found = token_comparisons(OneTap(given), fed(alone, position=2), judged_by(alone, alone.float()), ["gate"])
    assert not found["gate"].diverged
    given[1, 1] = 2.0
    found = token_comparisons(OneTap(given), fed(alone, position=2), judged_by(alone, alone.float()), ["gate"])
    assert found["gate"].diverged
    assert found["gate"].note == "here"


def fed(alone: torch.Tensor, position: int = 3) -> Fed:
    """The second of two rows."""
    rows = [(0, 1, 2, 3), (0, 1, 2, 3)]
    taps = {"gate": alone, "logits": torch.ones(1, 4, 5)}
    return Fed(rows=rows, prefill=[4, 4], row=1, position=position, alone=taps, length=4, routing=[{}, {}], note="here")


def judged_by(alone: torch.Tensor, yardstick: torch.Tensor) -> Expected:
    """A tap, and what Hugging Face errs by there."""
    logits = torch.ones(1, 4, 5)
    recording = Recording(taps={"gate": alone, "logits": logits}, length=4, rows=())
    return Expected(
        recording=recording,
        floors={"gate": token_errors(yardstick, alone), "logits": token_errors(logits, logits)},
        routing=Routing(routers=(), reference={}, yardstick={}),
        dtype="float32",
        pairing=Pairing(paired=("gate",), missing=(), extra=(), ignored={}),
        modules={},
    )


class OneTap:
    """A port of one tap."""

    tap_names = ("gate",)

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value

    def run_incrementally(
        self, rows: Sequence[Sequence[int]], prefill: Sequence[int], *, forced: Forced
    ) -> list[torch.Tensor]:
        for tap in forced.taps:
            forced.force(tap, self.value, [range(4) for _ in rows])
        return [torch.ones(4, 5) for _ in rows]
