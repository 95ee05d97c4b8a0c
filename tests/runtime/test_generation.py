"""Generation against transformers: greedy, sampled, in batches of different lengths, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from trtllm_port.errors import EngineError, PortError
from trtllm_port.registry.ports import find_port
from trtllm_port.runtime import SamplingConfig, Session, generate

PROMPTS = [[1, 5, 9, 23, 41, 7, 30], [1, 17], [1, 3, 60, 44, 8]]


@pytest.fixture(scope="module")
def session(tiny_llama: Path, llama_workspace: Path) -> Session:
    port = find_port(llama_workspace, "LlamaForCausalLM").cls.from_hugging_face(tiny_llama, "float32")
    return Session.from_network(port.define(max_seq_len=40), max_batch_size=3, max_input_len=8)


@pytest.fixture(scope="module")
def hugging_face(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


def transformers_tokens(model: Any, prompt: list[int], count: int, **options: Any) -> list[int]:
    options = {"do_sample": False, "eos_token_id": 2, "pad_token_id": 0} | options
    return model.generate(torch.tensor([prompt]), max_new_tokens=count, **options)[0, len(prompt) :].tolist()


def without_eos(model: Any, prompt: list[int], count: int) -> list[int]:
    return transformers_tokens(model, prompt, count, eos_token_id=None)


def test_greedy_tokens_are_those_of_transformers(session: Session, hugging_face: Any) -> None:
    for prompt in PROMPTS:
        generated = generate(session, [prompt], max_new_tokens=30)
        assert list(generated.tokens[0]) == without_eos(hugging_face, prompt, 30)


def test_a_batch_of_different_lengths_gives_what_each_prompt_gives_alone(session: Session, hugging_face: Any) -> None:
    generated = generate(session, PROMPTS, max_new_tokens=30)
    assert [list(row) for row in generated.tokens] == [without_eos(hugging_face, prompt, 30) for prompt in PROMPTS]
    assert generated.prompt_lengths == (7, 2, 5)
    assert generated.stop_reasons == ("length",) * 3
    assert generated.new_tokens == 90


def test_rows_end_at_their_own_end_of_sequence(session: Session, hugging_face: Any) -> None:
    free = [without_eos(hugging_face, prompt, 30) for prompt in PROMPTS]
    eos = free[1][4]  # ends row 1 early, by what the model really says
    expected = [row[: row.index(eos) + 1] if eos in row else row for row in free]
    generated = generate(session, PROMPTS, max_new_tokens=30, eos_token_ids=[eos])
    assert [list(row) for row in generated.tokens] == expected
    assert generated.stop_reasons == tuple("eos" if eos in row else "length" for row in free)
    assert expected[1] == transformers_tokens(hugging_face, PROMPTS[1], 30, eos_token_id=eos)


def test_a_seed_gives_the_tokens_of_a_seeded_transformers_run(session: Session, hugging_face: Any) -> None:
    config = SamplingConfig(temperature=0.8, top_k=20, top_p=0.9, seed=5)
    generated = generate(session, [PROMPTS[0]], max_new_tokens=25, sampling=config)
    torch.manual_seed(5)
    expected = transformers_tokens(
        hugging_face, PROMPTS[0], 25, do_sample=True, temperature=0.8, top_k=20, top_p=0.9, eos_token_id=None
    )
    assert list(generated.tokens[0]) == expected


def test_tokens_are_told_as_they_come(session: Session) -> None:
    told: list[tuple[int, int]] = []
    generated = generate(session, PROMPTS[:2], max_new_tokens=5, on_token=lambda row, token: told.append((row, token)))
    assert [token for row, token in told if row == 1] == list(generated.tokens[1])
    assert [row for row, _ in told] == [0, 1] * 5


def test_times_and_executor_are_reported(session: Session) -> None:
    generated = generate(session, PROMPTS, max_new_tokens=3)
    assert generated.executor.startswith("reference executor")
    assert generated.prefill_seconds > 0
    assert generated.decode_seconds > 0
    assert generated.tokens_per_second > 0
    assert generate(session, PROMPTS, max_new_tokens=1).decode_tokens_per_second == 0


@pytest.mark.parametrize(
    ("prompts", "count", "words"),
    [
        ([[1] * 9], 1, "9 tokens, more than the engine's `max_input_len` 8"),
        ([[1] * 8], 33, "8 tokens, with 33 new ones that is more than the engine's `max_seq_len` 40"),
        ([[1]] * 4, 1, "4 prompts at once are more than the engine's `max_batch_size` 3"),
        ([[1], [2, 61]], 1, "prompt 1 holds token 61, the engine's vocabulary has 61"),
        ([[-1]], 1, "token -1"),
    ],
)
def test_what_the_engine_cannot_hold_is_refused_with_the_numbers(
    session: Session, prompts: list[list[int]], count: int, words: str
) -> None:
    with pytest.raises(EngineError, match=words):
        generate(session, prompts, max_new_tokens=count)


@pytest.mark.parametrize(("prompts", "count"), [([], 1), ([[]], 1), ([[1]], 0)])
def test_empty_requests_are_refused(session: Session, prompts: list[list[int]], count: int) -> None:
    with pytest.raises(PortError):
        generate(session, prompts, max_new_tokens=count)


def test_the_limits_themselves_are_allowed(session: Session, hugging_face: Any) -> None:
    prompt = [1, 5, 9, 23, 41, 7, 30, 12]
    assert list(generate(session, [prompt], max_new_tokens=32).tokens[0]) == without_eos(hugging_face, prompt, 32)


def test_a_trained_model_tells_the_same_story(stories: Path, llama_workspace: Path) -> None:
    """200 tokens in float32, five prompts of different lengths in one batch, and each alone."""
    from transformers import AutoTokenizer

    texts = ["Once upon a time, there was a little girl named Lily.", "Tom and his dog", "The sun", "She said: no", "A"]
    tokenizer = AutoTokenizer.from_pretrained(stories)
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).eval()
    port = find_port(llama_workspace, "LlamaForCausalLM").cls.from_hugging_face(stories, "float32")
    trained = Session.from_network(port.define(max_seq_len=512))
    expected = [without_eos(model, prompt, 200) for prompt in prompts]
    assert [list(row) for row in generate(trained, prompts, max_new_tokens=200).tokens] == expected
    assert [list(generate(trained, [prompt], max_new_tokens=200).tokens[0]) for prompt in prompts] == expected
