"""Token ids before numbers: the runtime's against Hugging Face's, and a checkpoint's files against each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from trtllm_port.evaluation import prompts
from trtllm_port.shipped_model import MODEL_DIR
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.tokenizer_gates import token_gates

VOCABULARY = 1024


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The demo model's tokenizer and configs, to be edited."""
    for path in MODEL_DIR.glob("*.json"):
        shutil.copy(path, tmp_path)
    return tmp_path


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def gates(model: Path, vocab_size: int = VOCABULARY) -> dict[str, Gate]:
    return {gate.name: gate for gate in token_gates(model, vocab_size)}


def test_a_consistent_checkpoint_passes(model: Path) -> None:
    found = gates(model)
    assert {gate.verdict for gate in found.values()} == {Verdict.PASS}
    assert "tokens.chat" not in found  # the demo model has no template


@pytest.mark.parametrize(
    ("file", "changes", "gate", "said"),
    [
        ("generation_config.json", {"eos_token_id": 7}, "tokens.special", "`eos_token_id` is 0 in the tokenizer, 7 in"),
        ("config.json", {"pad_token_id": 5}, "tokens.special", "`pad_token_id` is 0 in the tokenizer, 5 in"),
        ("config.json", {"bos_token_id": 4000}, "tokens.special", "beyond the vocabulary"),
    ],
)
def test_files_that_disagree_are_named(model: Path, file: str, changes: dict[str, Any], gate: str, said: str) -> None:
    edit(model / file, **changes)
    found = gates(model)[gate]
    assert found.verdict is Verdict.WARN
    assert said in found.reason


def test_several_ends_that_hold_the_tokenizers_agree(model: Path) -> None:
    edit(model / "generation_config.json", eos_token_id=[3, 0])
    found = gates(model)
    assert found["tokens.special"].verdict is Verdict.PASS
    assert found["tokens.parity"].verdict is Verdict.PASS


def test_a_token_without_an_embedding_is_named(model: Path) -> None:
    assert gates(model, 1000)["tokens.vocabulary"].verdict is Verdict.WARN


def test_another_tokenization_fails(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_bos(self: prompts.Tokenizer, text: str, *, chat: bool = False) -> list[int]:
        return [0, *self.tokenizer(text)["input_ids"]]

    monkeypatch.setattr(prompts.Tokenizer, "encode", with_bos)
    assert gates(model)["tokens.parity"].verdict is Verdict.FAIL


def test_other_ends_fail(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "_eos_token_ids", lambda directory, tokenizer: (9,))
    found = gates(model)["tokens.parity"]
    assert found.verdict is Verdict.FAIL
    assert "texts end at [9], Hugging Face's at [0]" in found.reason


def test_a_doubled_first_token_is_seen(model: Path) -> None:
    content = json.loads((model / "tokenizer.json").read_text())
    bos = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    (model / "tokenizer.json").write_text(json.dumps(content))
    found = gates(model)["tokens.bos"]
    assert (found.verdict, found.reason) == (Verdict.WARN, "a prompt begins with two BOS")


@pytest.mark.parametrize(("template", "verdict"), [("{{ messages[0]['content'] }}", "pass"), ("X", "pass")])
def test_a_chat_template_is_compared(model: Path, template: str, verdict: str) -> None:
    edit(model / "tokenizer_config.json", chat_template=template)
    assert gates(model)["tokens.chat"].verdict == verdict


def test_a_chat_template_with_two_bos_is_seen(model: Path) -> None:
    edit(model / "tokenizer_config.json", chat_template="<|endoftext|><|endoftext|>{{ messages[0]['content'] }}")
    assert gates(model)["tokens.chat"].verdict is Verdict.WARN


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('a system turn first') }}", [{"name": "rag", "template": "X"}], "{{ messages[1].content }}"],
)
def test_a_chat_template_that_renders_no_turn_is_not_judged(model: Path, template: Any) -> None:
    edit(model / "tokenizer_config.json", chat_template=template)
    found = gates(model)
    assert found["tokens.chat"].verdict is Verdict.SKIPPED
    assert found["tokens.parity"].verdict is Verdict.PASS


def test_of_named_chat_templates_the_default_is_compared(model: Path) -> None:
    edit(model / "tokenizer_config.json", chat_template=[{"name": "default", "template": "X"}])
    assert gates(model)["tokens.chat"].verdict is Verdict.PASS


def test_a_tokenizer_of_own_code_is_compared_where_it_is_trusted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(model / "cache"))
    (model / "mine.py").write_text("from transformers import PreTrainedTokenizerFast as F\n\nclass Mine(F): pass\n")
    edit(model / "tokenizer_config.json", tokenizer_class="Mine", auto_map={"AutoTokenizer": [None, "mine.Mine"]})
    found = {gate.name: gate for gate in token_gates(model, VOCABULARY, trust_remote_code=True)}
    assert found["tokens.parity"].verdict is Verdict.PASS


def test_a_text_that_does_not_come_back_is_named(model: Path) -> None:
    content = json.loads((model / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Lowercase"}
    (model / "tokenizer.json").write_text(json.dumps(content))
    assert "`Once` comes back as `once`" in gates(model)["tokens.round_trip"].reason


def test_without_a_tokenizer_nothing_is_claimed(tmp_path: Path) -> None:
    found = token_gates(tmp_path, VOCABULARY)
    assert [(gate.name, gate.verdict) for gate in found] == [("tokenizer", Verdict.SKIPPED)]
