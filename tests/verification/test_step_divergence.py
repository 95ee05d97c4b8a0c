"""A port whose prefill is right and whose next token is not is placed by the taps of that step."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtllm_port.verification import DiffSettings, diff_layers


def test_a_later_step_is_placed_as_the_first_is(model_dir: Path, workspace: Path, edit: object) -> None:
    late = "(cache.position_ids[:, 0:1] > 70).view(0, 0, 1).to(hidden_states.dtype)"
    edit(  # type: ignore[operator]
        "return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))",
        f"return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states)) * (1 + 0.01 * {late})",
    )
    report = diff_layers(model_dir, workspace=workspace, dtype="bfloat16", settings=DiffSettings(tokens=80))
    assert (report.verdict, report.first_divergence) == ("fail", "model.layers.0")
    assert report.divergence is not None
    assert report.divergence.note == "in step 32 after the prefill"
    assert "first differs in step 32 after the prefill" in report.causes[0].evidence


@pytest.mark.parametrize(
    ("old", "new", "module"),
    [
        (
            "self.rotary_emb(hidden_states, position_ids)",
            "self.rotary_emb(hidden_states, position_ids - position_ids[:, 0:1])",
            "model.rotary_emb",
        ),
        (
            "causal_mask(position_ids, cache)",
            "causal_mask(position_ids - position_ids[:, 0:1], cache)",
            "model.layers.0.self_attn",
        ),
    ],
    ids=["positions", "mask"],
)
def test_the_module_that_forgets_the_past_is_named(
    model_dir: Path, workspace: Path, edit: object, old: str, new: str, module: str
) -> None:
    edit(old, new)  # type: ignore[operator]
    settings = DiffSettings(tokens=80)
    report = diff_layers(model_dir, workspace=workspace, dtype="float32", settings=settings)
    assert report.verdict == "fail"
    assert report.first_divergence == module
    assert report.causes[0].id == "decode"
    assert report.divergence is not None
    assert report.divergence.note == "in the first step after the prefill"
