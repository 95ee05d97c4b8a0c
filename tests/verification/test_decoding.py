"""A port whose prefill is right and whose next token is not is placed by the taps of that step."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtllm_port.verification import DiffSettings, diff_layers


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
