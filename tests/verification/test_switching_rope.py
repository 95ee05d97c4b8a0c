"""Rotary embeddings whose frequencies change with the length of a text: below, across and above that length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from trtllm_port.huggingface.caches import cache_argument, cache_of
from trtllm_port.huggingface.random_weights import save_random_checkpoint
from trtllm_port.registry.ports import find_port
from trtllm_port.runtime.session import Session
from trtllm_port.verification import DiffSettings, Verdict, diff_layers
from trtllm_port.verification.sides.session_runner import SessionRunner
from trtllm_port.verification.stimulus.stimulus import Stimulus, switch_lengths, without_crossings

SWITCH = 40
LISTS = {"short_factor": [1.0 + i / 50 for i in range(4)], "long_factor": [1.0 + i for i in range(4)]}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": SWITCH, **LISTS}


@pytest.fixture(scope="module")
def longrope_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory: a tiny Llama with a longrope."""
    directory = tmp_path_factory.mktemp("longrope")
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=160,
        rope_parameters=LONGROPE,
        architectures=["LlamaForCausalLM"],
    )
    save_random_checkpoint(config, directory)
    return directory


@pytest.mark.parametrize("tokens", [SWITCH - 8, SWITCH, SWITCH + 1, SWITCH + 8, SWITCH + 64, SWITCH + 100])
def test_a_right_port_passes_whatever_the_length(longrope_dir: Path, llama_workspace: Path, tokens: int) -> None:
    report = diff_layers(longrope_dir, workspace=llama_workspace, settings=DiffSettings(tokens=tokens))
    assert report.verdict is Verdict.PASS
    assert f"a text that grows past {SWITCH} tokens as it is generated" in [item.what for item in report.not_exercised]


@pytest.mark.parametrize("prefix", [SWITCH - 8, SWITCH, SWITCH + 1])
def test_steps_past_the_length_are_those_of_hugging_faces_forward(
    longrope_dir: Path, llama_workspace: Path, prefix: int
) -> None:
    """The cache keeps the keys of the shorter text, on both sides."""
    ids = torch.randint(96, (1, SWITCH + 12), generator=torch.Generator().manual_seed(3))
    model = AutoModelForCausalLM.from_pretrained(longrope_dir, attn_implementation="eager").eval()
    with torch.no_grad():
        output = model(ids[:, :prefix], use_cache=True)
        expected = [output.logits[0]]
        for place in range(prefix, ids.shape[1]):
            kept = {cache_argument(model): cache_of(model, output)}
            output = model(ids[:, place : place + 1], **kept, use_cache=True)
            expected.append(output.logits[0])
    port = find_port(llama_workspace, "LlamaForCausalLM").cls.from_hugging_face(longrope_dir, "float32")
    runner = SessionRunner(Session.from_network(port.define(max_seq_len=64)))
    found = runner.run_incrementally([ids[0].tolist()], [prefix])[0]
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "lengths"),
    [
        ({"rope_parameters": {"rope_type": "default"}}, ()),
        ({"rope_parameters": LONGROPE, "max_position_embeddings": 160}, (SWITCH,)),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 160}, (160,)),
        ({"rope_parameters": {"full": LONGROPE, "window": {"rope_type": "default"}}}, (SWITCH,)),
        ({}, ()),
    ],
)
def test_lengths_past_which_all_angles_change(config: dict[str, Any], lengths: tuple[int, ...]) -> None:
    assert switch_lengths(config) == lengths


@pytest.mark.parametrize(
    ("tokens", "length", "steps", "rows"),
    [(200, 300, 64, 3), (200, 136, 63, 3), (200, 135, 64, 3), (200, 199, 0, 3), (200, 100, 64, 2), (200, 20, 64, 0)],
)
def test_nothing_grows_past_the_length(tokens: int, length: int, steps: int, rows: int) -> None:
    ids = tuple(range(tokens))
    given = Stimulus(ids=ids, source="", decode_steps=64, rows=(ids[:104], ids[:69], ids[:25]), row_steps=8)
    kept = without_crossings(given, (length,))
    assert (kept.decode_steps, len(kept.rows)) == (steps, rows)
    assert not tokens - kept.decode_steps <= length < tokens or not kept.decode_steps
    assert bool(kept.limits) == (kept.decode_steps != 64 or len(kept.rows) != 3)
