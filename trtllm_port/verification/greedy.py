"""The prompt stage: greedy tokens of the port beside Hugging Face's, and whether a difference means anything.

Two precise computations of the same model choose different tokens where the best two are closer together than rounding
errors. So tokens must be equal, or Hugging Face's own margin at the first difference must be below its own noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trtllm_port.foundation.progress import Progress
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.logit_metrics import confident_margin
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.recording import forced_row_logits, record_row
from trtllm_port.verification.sides.session_runner import SessionRunner
from trtllm_port.verification.stimulus.passages import PROMPTS
from trtllm_port.verification.stimulus.stimulus import load_tokenizer, random_ids
from trtllm_port.verification.taps.routers import routers_of

RANDOM_LENGTHS = (7, 12, 5, 16, 9)
BEGIN = 16  # tokens that tell which modules are routers
REASON = "greedy tokens are equal, or differ first where Hugging Face's own margin is below its own noise"


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """One prompt, continued by both sides.

    Attributes:
        prompt: its text, or "" for token ids alone.
        port, hugging_face: new tokens.
        port_text, hugging_face_text: the same as text, "" without a tokenizer.
        first_difference: index of the first token that differs, or None.
        own_difference: the same between Hugging Face in this dtype and in the more precise one; of no meaning where
            the port's tokens are equal, for then it was not asked.
        lead: by how much Hugging Face's more precise run prefers its choice over the port's there, in logits.
        margin: what the lead must exceed to mean anything.
        routed_lead: the same of what the port chooses with the experts of that run; None where nobody asked.
        excused: whether the difference is within the noise.
    """

    prompt: str
    port: tuple[int, ...]
    hugging_face: tuple[int, ...]
    port_text: str = ""
    hugging_face_text: str = ""
    first_difference: int | None = None
    own_difference: int | None = None
    lead: float | None = None
    margin: float | None = None
    routed_lead: float | None = None
    excused: bool = True


@dataclass(frozen=True, kw_only=True)
class PromptResult:
    """All prompts."""

    executor: str
    new_tokens: int
    tokens_per_second: float
    continuations: tuple[Continuation, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def make_prompts(
    model_dir: Path, vocab_size: int, seed: int, padding: int | None = None, trust_remote_code: bool = False
) -> tuple[list[list[int]], Any]:
    """Return five prompts as token ids, and the tokenizer or None; without one the ids are random, none `padding`."""
    tokenizer, _ = load_tokenizer(model_dir, trust_remote_code)
    if tokenizer is not None:
        ids: list[list[int]] = [tokenizer(text)["input_ids"] for text in PROMPTS]
        if max(map(max, ids)) < vocab_size:
            return ids, tokenizer
    drawn = iter(random_ids(sum(RANDOM_LENGTHS), vocab_size, seed, padding))
    return [[next(drawn) for _ in range(n)] for n in RANDOM_LENGTHS], None


def continue_prompts(
    port: SessionRunner,
    load: Callable[[str], HuggingFaceRunner],
    precisions: tuple[str, str],
    prompts: tuple[Sequence[list[int]], Any],
    max_new_tokens: int,
    progress: Progress | None = None,
) -> PromptResult:
    """Continue every prompt on both sides and explain the first difference of each.

    Args:
        port: with a cache that is long enough.
        load: gives Hugging Face's model in a dtype.
        precisions: the port's dtype, and the more precise one that arbitrates.
        prompts: token ids, and a tokenizer or None.
        max_new_tokens: exactly so many are generated; the end of the sequence is ignored.
        progress: called per prompt.
    """
    from trtllm_port.runtime.generation import generate

    ids, tokenizer = prompts
    generation = generate(port.session, ids, max_new_tokens=max_new_tokens)
    yardstick = load(precisions[0])
    found = []
    for number, (prompt, tokens) in enumerate(zip(ids, generation.tokens, strict=True)):
        if progress is not None:
            progress("prompt", number, len(ids))
        expected = _continued(yardstick, prompt, tokens)
        found.append(_continuation(prompt, tokens, expected, tokenizer))
    if any(each.first_difference is not None for each in found):
        reference = load(precisions[1])
        found = [arbitrate(each, prompt, yardstick, reference) for each, prompt in zip(found, ids, strict=True)]
        found = [routed_alike(each, prompt, port, reference) for each, prompt in zip(found, ids, strict=True)]
        found = [_beside_itself(each, prompt, reference) for each, prompt in zip(found, ids, strict=True)]
    if progress is not None:
        progress("prompt", len(ids), len(ids))
    return PromptResult(
        executor=generation.executor,
        new_tokens=max_new_tokens,
        tokens_per_second=generation.tokens_per_second,
        continuations=tuple(found),
    )


def _beside_itself(found: Continuation, prompt: list[int], reference: HuggingFaceRunner) -> Continuation:
    """Add where Hugging Face's two precisions part, which tells what the port's first difference is worth."""
    if found.first_difference is None:
        return found
    return replace(found, own_difference=_departure(reference, prompt, found.hugging_face))


def _continued(runner: HuggingFaceRunner, prompt: list[int], draft: Sequence[int]) -> tuple[int, ...]:
    """As many greedy tokens as a draft has: one forward tells how far they are the draft's, steps give the others."""
    agreed = _departure(runner, prompt, draft)
    if agreed is None:
        return tuple(draft)
    return (*draft[:agreed], *runner.greedy([*prompt, *draft[:agreed]], len(draft) - agreed))


def _departure(runner: HuggingFaceRunner, prompt: list[int], tokens: Sequence[int]) -> int | None:
    """Index of the first of some tokens after a prompt that a model would not choose, or None."""
    logits_LV = runner.run(torch.tensor([[*prompt, *tokens[:-1]]]))[0]
    return _first_difference(tokens, logits_LV[len(prompt) - 1 :].argmax(-1).tolist())


def _first_difference(left: Sequence[int], right: Sequence[int]) -> int | None:
    return next((i for i, pair in enumerate(zip(left, right, strict=True)) if pair[0] != pair[1]), None)


def _continuation(prompt: list[int], port: tuple[int, ...], expected: tuple[int, ...], tokenizer: Any) -> Continuation:
    difference = _first_difference(port, expected)
    if tokenizer is None:
        return Continuation(prompt="", port=port, hugging_face=expected, first_difference=difference)
    return Continuation(
        prompt=tokenizer.decode(prompt, skip_special_tokens=True),
        port=port,
        hugging_face=expected,
        port_text=tokenizer.decode(port),
        hugging_face_text=tokenizer.decode(expected),
        first_difference=difference,
    )


def arbitrate(
    found: Continuation, prompt: list[int], yardstick: HuggingFaceRunner, reference: HuggingFaceRunner
) -> Continuation:
    """Ask the more precise run how much it prefers Hugging Face's token to the port's."""
    at = found.first_difference
    if at is None:
        return found
    ids_BL = torch.tensor([[*prompt, *found.hugging_face[:at]]])
    precise, rough = reference.run(ids_BL)[0], yardstick.run(ids_BL)[0]
    margin = confident_margin(rough, precise)
    lead = float(precise[-1].max() - precise[-1, found.port[at]])
    return replace(found, lead=lead, margin=margin, excused=lead <= margin)


def routed_alike(
    found: Continuation, prompt: list[int], port: SessionRunner, reference: HuggingFaceRunner
) -> Continuation:
    """Where the margin does not explain the difference, ask the port again with the reference's experts.

    Near a tie two precise computations choose other experts, and what follows differs by more than rounding. Whether
    that was a tie is asked where layers are compared; here it is asked whether anything else differs.
    """
    if found.excused:
        return found
    at = found.first_difference
    ids = [*prompt, *found.hugging_face[:at]]
    taps: dict[str, Tensor] = {}
    reference.run(torch.tensor([ids[:BEGIN]]), on_tap=taps.__setitem__)
    routers = [router for router in routers_of(taps) if {*router.taps} & {*port.tap_names}]
    if not routers:
        return found
    precise_LV, routing = record_row(reference, ids, routers)
    routing = {tap: chosen for tap, chosen in routing.items() if tap in port.tap_names}
    chosen = int(forced_row_logits(port, [ids], [routing])[0][-1].argmax())
    lead = float(precise_LV[-1].max() - precise_LV[-1, chosen])
    assert found.margin is not None  # it has been asked for
    return replace(found, routed_lead=lead, excused=lead <= found.margin)


def prompt_gate(result: PromptResult) -> Gate:
    """Judge the continuations."""
    wrong = [each for each in result.continuations if not each.excused]
    return Gate(
        name="prompt.tokens",
        phase="prompt",
        verdict=Verdict.FAIL if wrong else Verdict.PASS,
        value=float(len(wrong)),
        threshold=0.0,
        reason=f"{describe(result)}; {REASON}",
        source="AWS 0.001; three times the 99th percentile of the floor is derived",
    )


def describe(result: PromptResult) -> str:
    """Say in one line how the tokens compare."""
    differing = [(i, each) for i, each in enumerate(result.continuations) if each.first_difference is not None]
    total = len(result.continuations)
    if not differing:
        return f"{result.new_tokens} greedy tokens on each of {total} prompts equal Hugging Face's"
    said = ", ".join(
        f"prompt {i} at token {each.first_difference} ({each.lead:.2g}{_routed(each)} for noise {each.margin:.2g}; "
        f"its two precisions part {_at(each.own_difference)})"
        for i, each in differing
    )
    noise = "within" if all(each.excused for _, each in differing) else "NOT all within"
    return (
        f"{total - len(differing)} of {total} prompts give {result.new_tokens} equal tokens, "
        f"the others first differ at choices whose margin is {noise} Hugging Face's noise: {said}"
    )


def _routed(found: Continuation) -> str:
    return "" if found.routed_lead is None else f", with its experts {found.routed_lead:.2g},"


def _at(index: int | None) -> str:
    return "nowhere" if index is None else f"at {index}"
