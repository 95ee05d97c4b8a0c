from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from trtllm_port.verification.greedy import (
    Continuation,
    PromptResult,
    arbitrate,
    continue_prompts,
    describe,
    make_prompts,
    prompt_gate,
    routed_alike,
)
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.taps.runner import OnTap


class Fixed:
    """A model whose logits do not depend on its input."""

    def __init__(self, last: Sequence[float]) -> None:
        self.last = torch.tensor(last)

    def run(self, ids_BL: Tensor) -> Tensor:
        return self.last.expand(1, ids_BL.shape[1], -1)


def judged(precise: Sequence[float], rough: Sequence[float]) -> Continuation:
    found = Continuation(prompt="", port=(1, 2), hugging_face=(1, 0), first_difference=1)
    yardstick: Any = Fixed(rough)
    reference: Any = Fixed(precise)
    return arbitrate(found, [5, 6], yardstick, reference)


def gate(*continuations: Continuation) -> Verdict:
    result = PromptResult(executor="", new_tokens=2, tokens_per_second=1.0, continuations=continuations)
    return prompt_gate(result).verdict


def test_another_choice_within_the_noise_is_excused() -> None:
    found = judged([1.0, 0.0, 0.95], [0.9, 0.1, 1.0])
    assert found.excused
    assert gate(found) is Verdict.PASS


def test_another_choice_beyond_the_noise_fails() -> None:
    found = judged([2.0, 0.0, 1.0], [2.01, 0.0, 1.0])
    assert (found.lead, found.excused) == (1.0, False)
    assert gate(found) is Verdict.FAIL


def test_equal_tokens_pass() -> None:
    assert gate(Continuation(prompt="", port=(1, 2), hugging_face=(1, 2))) is Verdict.PASS


def test_prompts_without_a_tokenizer_are_seeded_ids(tmp_path: Path) -> None:
    ids, tokenizer = make_prompts(tmp_path, 11, 0)
    assert tokenizer is None
    assert len({len(prompt) for prompt in ids}) == len(ids) == 5
    assert max(max(prompt) for prompt in ids) < 11
    assert make_prompts(tmp_path, 11, 0)[0] == ids


class Scripted:
    """A model that continues a prompt of two tokens in one way, whatever it is given."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.steps: list[int] = []

    tap_names = ()

    def run(self, ids_BL: Tensor, *, on_tap: OnTap | None = None, taps: Collection[str] | None = None) -> Tensor:
        chosen = torch.tensor([0, *self.tokens])[: ids_BL.shape[1]]
        return torch.nn.functional.one_hot(chosen, 5).float()[None]

    def greedy(self, prompt: list[int], max_new_tokens: int) -> list[int]:
        self.steps.append(max_new_tokens)
        return self.tokens[len(prompt) - 2 :][:max_new_tokens]


def continued(
    monkeypatch: pytest.MonkeyPatch, tokens: tuple[int, ...], models: dict[str, Scripted]
) -> tuple[PromptResult, Continuation]:
    """What becomes of a port that continues the prompt with some tokens."""
    generation = SimpleNamespace(tokens=(tokens,), executor="reference", tokens_per_second=1.0)
    monkeypatch.setattr("trtllm_port.runtime.generation.generate", lambda *_, **__: generation)
    port: Any = SimpleNamespace(session=None, tap_names=())
    load: Any = models.__getitem__
    result = continue_prompts(port, load, ("float16", "float32"), ([[1, 2]], None), len(tokens))
    return result, result.continuations[0]


def test_tokens_that_hugging_face_would_choose_need_no_steps_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"float16": Scripted([4, 2, 2, 2])}
    _, found = continued(monkeypatch, (4, 2, 2, 2), models)
    assert (found.first_difference, found.hugging_face) == (None, (4, 2, 2, 2))
    assert models["float16"].steps == []


@pytest.mark.parametrize("at", range(4))
def test_hugging_face_goes_on_by_itself_where_the_tokens_part(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    models = {"float16": Scripted([4, 2, 3, 1]), "float32": Scripted([4, 2, 3, 1])}
    tokens = [4, 2, 3, 1]
    tokens[at] = 0
    _, found = continued(monkeypatch, tuple(tokens), models)
    assert (found.first_difference, found.hugging_face, found.excused) == (at, (4, 2, 3, 1), False)
    assert models["float16"].steps == [4 - at]


def test_the_first_difference_stands_beside_hugging_faces_own(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"float16": Scripted([4, 2, 2, 2]), "float32": Scripted([4, 2, 0, 2])}
    result, found = continued(monkeypatch, (4, 2, 2, 0), models)
    assert (found.first_difference, found.own_difference) == (3, 2)
    assert "prompt 0 at token 3" in describe(result)
    assert "its two precisions part at 2" in describe(result)


class Routed:
    """A mixture of two experts, each of which prefers a token, and whose router prefers one of them."""

    tap_names = ("router:0", "router:1")

    def __init__(self, expert: int, preferred: tuple[int, int]) -> None:
        self.expert, self.preferred = expert, preferred

    def run(self, ids_BL: Tensor, *, on_tap: OnTap | None = None, taps: Collection[str] | None = None) -> Tensor:
        length = ids_BL.shape[1]
        values = {"router:0": torch.ones(length, 1), "router:1": torch.full((length, 1), self.expert)}
        for tap, value in values.items() if on_tap is not None else ():
            if taps is None or tap in taps:
                replaced = on_tap(tap, value)
                values[tap] = value if replaced is None else replaced
        chosen = torch.tensor(self.preferred)[values["router:1"][:, 0]]
        return torch.nn.functional.one_hot(chosen, 5).float()[None]


@pytest.mark.parametrize(("second_expert", "excused"), [((3, 4), True), ((1, 4), False)], ids=["a tie", "a wrong port"])
def test_another_choice_with_other_experts_is_asked_for_again(second_expert: tuple[int, int], excused: bool) -> None:
    reference: Any = Routed(0, (3, 4))
    port: Any = Routed(1, second_expert)
    found = Continuation(
        prompt="", port=(4,), hugging_face=(3,), first_difference=0, lead=1.0, margin=0.01, excused=False
    )
    again = routed_alike(found, [1, 2], port, reference)
    assert (again.excused, again.routed_lead) == (excused, 0.0 if excused else 1.0)
    assert (
        "with its experts"
        in describe(PromptResult(executor="", new_tokens=1, tokens_per_second=1.0, continuations=(again,)))
    ) is True
