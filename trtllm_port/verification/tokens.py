"""Token ids: does the runtime make of a text what Hugging Face makes of it, and do the special tokens agree?

Everything after a wrong token id differs, so this comes before any number. What the files of a checkpoint disagree on
among themselves is a warning: both sides read the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trtllm_port.errors import ConfigError, EnvironmentLackError
from trtllm_port.evaluation.prompts import Tokenizer, declared_tokens
from trtllm_port.evaluation.prompts import load_tokenizer as load_runtime_tokenizer
from trtllm_port.foundation.foreign import reading
from trtllm_port.huggingface.configs import whole_config
from trtllm_port.huggingface.generation import declared_ends
from trtllm_port.verification.judge.gates import Gate, skipped
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.stimulus.inputs import load_tokenizer
from trtllm_port.verification.stimulus.passages import PASSAGE, PROMPTS

PHASE = "tokens"
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
FILES = ("config.json", "generation_config.json")
SAMPLE = 400  # characters that must come back from encoding and decoding
SOURCE = "G0 comparability: equal token ids; doubled or missing BOS: lm-eval #2049, llama.cpp #21500"


def token_gates(model_dir: Path, vocab_size: int, *, trust_remote_code: bool = False) -> list[Gate]:
    """Compare the runtime's tokenizer with Hugging Face's, and the checkpoint's special tokens with each other.

    Args:
        model_dir: a Hugging Face model directory.
        vocab_size: rows of the embedding.
        trust_remote_code: run Python code that comes with the model.
    """
    tokenizer, lack = load_tokenizer(model_dir, trust_remote_code)
    if tokenizer is None:
        return [skipped("tokenizer", PHASE, lack)]
    try:
        runtime = load_runtime_tokenizer(model_dir, trust_remote_code=trust_remote_code)
    except (ConfigError, EnvironmentLackError) as error:
        return [skipped("tokenizer", PHASE, error.message)]
    gates = [
        _parity(runtime, tokenizer, _ends(tokenizer, model_dir, trust_remote_code)),
        _vocabulary(tokenizer, vocab_size),
        _special(tokenizer, model_dir, vocab_size),
        _first_token(tokenizer),
        _round_trip(tokenizer),
    ]
    return [*gates, _chat(runtime, tokenizer)] if tokenizer.chat_template else gates


def _parity(runtime: Tokenizer, tokenizer: Any, expected: set[int]) -> Gate:
    """Token ids of the prompts, and the ids that end a text, as `run` and `summarize` use them."""
    problems = [
        f"`{text[:24]}…` gives other ids" for text in PROMPTS if runtime.encode(text) != tokenizer(text)["input_ids"]
    ]
    if set(runtime.eos_token_ids) != expected:
        problems.append(f"texts end at {sorted(runtime.eos_token_ids)}, Hugging Face's at {sorted(expected)}")
    return _gate("tokens.parity", problems, Verdict.FAIL, "the runtime's token ids are Hugging Face's")


def _ends(tokenizer: Any, model_dir: Path, trust_remote_code: bool) -> set[int]:
    """Return what ends a text for `generate` of transformers."""
    with reading(model_dir, ConfigError, failed="has a generation config that cannot be read"):
        if (model_dir / "generation_config.json").is_file():
            declared = declared_ends(model_dir)
        else:
            config = whole_config(model_dir, trust_remote_code)
            declared = getattr(config.get_text_config(), "eos_token_id", None)
    if declared is None:
        declared = tokenizer.eos_token_id
    return set() if declared is None else set(declared if isinstance(declared, list) else [declared])


def _vocabulary(tokenizer: Any, vocab_size: int) -> Gate:
    beyond = sorted(name for name, index in tokenizer.get_vocab().items() if index >= vocab_size)
    problems = [f"{len(beyond)} tokens have no embedding, such as `{beyond[0]}`"] if beyond else []
    return _gate("tokens.vocabulary", problems, Verdict.WARN, f"every token is below {vocab_size:,}")


def _special(tokenizer: Any, model_dir: Path, vocab_size: int) -> Gate:
    problems = [text for name in SPECIAL for text in _disagreements(name, tokenizer, model_dir, vocab_size)]
    return _gate("tokens.special", problems, Verdict.WARN, "tokenizer and config files agree on bos, eos and pad")


def _disagreements(name: str, tokenizer: Any, model_dir: Path, vocab_size: int) -> Iterator[str]:
    own = getattr(tokenizer, name, None)
    for file in FILES:
        declared = list(declared_tokens(model_dir / file, name))
        if declared and own is not None and own not in declared:
            yield f"`{name}` is {own} in the tokenizer, {_text(declared)} in `{file}`"
        if any(not 0 <= index < vocab_size for index in declared):
            yield f"`{name}` of `{file}` is {_text(declared)}, beyond the vocabulary of {vocab_size}"


def _text(ids: list[int]) -> str:
    return str(ids[0]) if len(ids) == 1 else str(ids)


def _first_token(tokenizer: Any) -> Gate:
    """A prompt begins with one BOS or with none."""
    ids, bos = tokenizer(PROMPTS[0])["input_ids"], tokenizer.bos_token_id
    doubled = bos is not None and ids[:2] == [bos, bos]
    begins = "one BOS" if bos is not None and ids[:1] == [bos] else "no BOS"
    return _gate("tokens.bos", ["a prompt begins with two BOS"] if doubled else [], Verdict.WARN, f"prompts: {begins}")


def _round_trip(tokenizer: Any) -> Gate:
    """A text comes back from encoding and decoding, but for white space."""
    text = PASSAGE[:SAMPLE]
    back = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    wanted, found = text.split(), back.split()
    at = next((i for i, pair in enumerate(zip(wanted, found, strict=False)) if pair[0] != pair[1]), None)
    problems = []
    if at is not None:
        problems.append(f"`{wanted[at]}` comes back as `{found[at]}`")
    elif len(wanted) != len(found):
        problems.append(f"{len(wanted)} words come back as {len(found)}")
    return _gate("tokens.round_trip", problems, Verdict.WARN, "the passage survives encoding and decoding")


def _chat(runtime: Tokenizer, tokenizer: Any) -> Gate:
    """One turn in the chat template: the same ids on both sides, and one BOS at most."""
    turn = [{"role": "user", "content": PROMPTS[0]}]
    try:
        expected = list(tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)["input_ids"])
    except Exception as error:  # any: a template is a program of the model's, and some want a system's turn first
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return skipped("tokens.chat", PHASE, f"Hugging Face does not render one turn of the user: {reason}")
    bos = tokenizer.bos_token_id
    if runtime.encode(PROMPTS[0], chat=True) != expected:
        return _gate("tokens.chat", ["a turn in the chat template gives other ids"], Verdict.FAIL, "")
    doubled = bos is not None and expected[:2] == [bos, bos]
    problems = ["a turn in the chat template begins with two BOS"] if doubled else []
    return _gate("tokens.chat", problems, Verdict.WARN, "a turn in the chat template is Hugging Face's")


def _gate(name: str, problems: list[str], severity: Verdict, good: str) -> Gate:
    return Gate(
        name=name,
        phase=PHASE,
        verdict=severity if problems else Verdict.PASS,
        value=float(len(problems)),
        threshold=0.0,
        reason="; ".join(problems) or good,
        source=SOURCE,
    )
