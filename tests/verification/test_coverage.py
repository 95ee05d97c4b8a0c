from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from trtllm_port.verification.phases.not_exercised import not_exercised
from trtllm_port.verification.phases.phase import PhaseResult
from trtllm_port.verification.stimulus.inputs import Stimulus
from trtllm_port.verification.stimulus.precisions import phases_of

CACHE = ("cache.keys (logic)", "cache.values (logic)")  # the port here is Hugging Face's model, without a port's cache
STIMULUS = Stimulus(ids=tuple(range(100)), source="", decode_steps=1, rows=(), row_steps=0)


@pytest.fixture(scope="module")
def phase(compare_tiny: Callable[..., PhaseResult]) -> PhaseResult:
    return compare_tiny(phases_of("float32")[0])


def listed(phase: PhaseResult, config: dict[str, Any], **options: Any) -> dict[str, str]:
    found = not_exercised(config, STIMULUS, [phase], phase.gates, random_weights=options.get("random_weights", False))
    return {item.what: item.reason for item in found if item.what not in CACHE}


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"sliding_window": 100}, "sliding window"),
        ({"max_position_embeddings": 128}, "positions 100 to 127"),
        ({"final_logit_softcapping": 1e6}, "soft cap of the logits"),
        ({"attn_logit_softcapping": 50.0}, "soft cap of the attention scores"),
        (
            {"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 4096}},
            "rotary scaling (yarn)",
        ),
    ],
)
def test_what_the_prompt_does_not_reach_is_listed(phase: PhaseResult, config: dict[str, Any], what: str) -> None:
    assert what in listed(phase, config)


@pytest.mark.parametrize(
    "config",
    [
        {"sliding_window": 99},
        {"sliding_window": 4096, "use_sliding_window": False},
        {"max_position_embeddings": 100},
        {"final_logit_softcapping": 1.0},
        {"rope_parameters": {"rope_type": "default"}},
    ],
)
def test_what_it_reaches_is_not(phase: PhaseResult, config: dict[str, Any]) -> None:
    assert listed(phase, config) == {}


@pytest.mark.parametrize(("peak", "reached"), [(None, False), (0.29, False), (0.4, True)])
def test_a_soft_cap_of_scores_must_be_approached(phase: PhaseResult, peak: float | None, reached: bool) -> None:
    seen = replace(phase, facts=replace(phase.facts, score_peak=peak))
    assert ("soft cap of the attention scores" not in listed(seen, {"attn_logit_softcapping": 50.0})) is reached


def test_parameters_that_do_nothing_are_listed(phase: PhaseResult) -> None:
    vectors = dict(phase.facts.vectors)
    vectors["model.norm.weight"] = vectors["model.norm.weight"] * 0 + 1
    vectors["model.layers.0.self_attn.q_proj.bias"] = vectors["model.layers.0.self_attn.q_proj.bias"] * 0
    neutral = replace(phase, facts=replace(phase.facts, vectors=vectors))
    found = listed(neutral, {})
    assert "`model.norm.weight`" in found["gains that are all one"]
    assert "`model.layers.0.self_attn.q_proj.bias`" in found["biases that are all zero"]


def test_an_epsilon_that_large_inputs_hide_is_listed(phase: PhaseResult) -> None:
    large = replace(phase, variances=dict.fromkeys(phase.variances, 1e4))
    assert "`model.layers.0.input_layernorm`" in listed(large, {})["epsilon of some normalisations"]


def test_random_weights_are_listed(phase: PhaseResult) -> None:
    assert "trained weights" in listed(phase, {}, random_weights=True)
