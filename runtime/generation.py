"""Batched generation with a KV cache: one prefill of all prompts, then one token per row and step.

Prompts of different lengths are padded on the right. The padding writes garbage into the cache beyond a row's last
token; the row's next token has that position and overwrites it, and until then the mask hides it (see `kv_cache`). A
state that is no KV cache cannot be overwritten so: padding has the position of the row's last token, by which the
network knows it (`layers.State`).

Shape suffixes: B batch (prompts), L prompt length after padding, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from trtllm_port.errors import EngineError, PortError
from trtllm_port.runtime.sampling import Sampler, SamplingConfig

if TYPE_CHECKING:
    from trtllm_port.runtime.session import Session

__all__ = ["Generation", "check_request", "generate", "pad_prompts"]

PADDING_TOKEN = 0  # any valid token: what it writes is never seen
GREEDY = SamplingConfig()
OnToken = Callable[[int, int], None]
"""Called with (row, token) as soon as a token is chosen."""


class PaddedPrompts(NamedTuple):
    """Prompts of different lengths as a network is fed with them: token ids, positions, each row's last real token."""

    ids_BL: torch.Tensor
    positions_BL: torch.Tensor
    last_B1: torch.Tensor


def pad_prompts(prompts: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> PaddedPrompts:
    """Pad prompts on the right; padding has the position of its row's last token."""
    longest = max(map(len, prompts))
    padded = [[*prompt, *[PADDING_TOKEN] * (longest - len(prompt))] for prompt in prompts]
    ids_BL = torch.tensor(padded, device=device)
    last_B1 = torch.tensor([[len(prompt) - 1] for prompt in prompts], device=device)
    positions_BL = torch.arange(longest, device=device).expand_as(ids_BL).minimum(last_B1).contiguous()
    return PaddedPrompts(ids_BL, positions_BL, last_B1)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The continuations of a batch of prompts.

    Args:
        tokens: per prompt, the new tokens; an end-of-sequence token is the last one where it ended the row.
        stop_reasons: per prompt, "eos" or "length".
        prompt_lengths: per prompt, its tokens.
        executor: what computed the logits.
        prefill_seconds: from the prompts to the first new token of each row.
        decode_seconds: all further tokens.
    """

    tokens: tuple[tuple[int, ...], ...]
    stop_reasons: tuple[str, ...]
    prompt_lengths: tuple[int, ...]
    executor: str
    prefill_seconds: float
    decode_seconds: float

    @property
    def new_tokens(self) -> int:
        return sum(map(len, self.tokens))

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second, prefill included."""
        return self.new_tokens / max(self.prefill_seconds + self.decode_seconds, 1e-9)

    @property
    def decode_tokens_per_second(self) -> float:
        """New tokens per second after the first of each row; 0 where there are none."""
        decoded = self.new_tokens - len(self.tokens)
        return decoded / max(self.decode_seconds, 1e-9) if decoded else 0.0


@torch.inference_mode()
def generate(
    session: Session,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig = GREEDY,
    eos_token_ids: Collection[int] = (),
    on_token: OnToken | None = None,
) -> Generation:
    """Continue every prompt by up to `max_new_tokens` tokens.

    Args:
        session: the executor and the limits that it was built for.
        prompts: token ids, one sequence per prompt; their lengths may differ.
        max_new_tokens: per prompt, at least 1.
        sampling: how tokens are chosen; greedy by default.
        eos_token_ids: a row ends at the first of these, which it keeps.
        on_token: called with (row, token) as tokens come.

    Raises:
        EngineError: the engine is too small for the request, or a token is outside its vocabulary.
    """
    check_request(session, prompts, max_new_tokens)
    started = time.perf_counter()
    decoding = _Decoding(session, prompts, sampling, frozenset(eos_token_ids), on_token)
    decoding.prefill()
    prefilled = time.perf_counter()
    for _ in range(max_new_tokens - 1):
        if not decoding.live:
            break
        decoding.step()
    finished = time.perf_counter()
    return Generation(
        tokens=tuple(map(tuple, decoding.tokens)),
        stop_reasons=tuple("length" if row in decoding.live else "eos" for row in range(len(prompts))),
        prompt_lengths=tuple(map(len, prompts)),
        executor=session.executor.name,
        prefill_seconds=prefilled - started,
        decode_seconds=finished - prefilled,
    )


class _Decoding:
    """The state of one batch: the caches, the tensors that every step reuses, and the rows that still run."""

    def __init__(
        self,
        session: Session,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        eos_token_ids: frozenset[int],
        on_token: OnToken | None,
    ) -> None:
        self.executor = session.executor
        self.device = session.device
        self.sampler = Sampler(sampling, session.device)
        self.eos_token_ids = eos_token_ids
        self.on_token = on_token
        self.tokens: list[list[int]] = [[] for _ in prompts]
        self.live = set(range(len(prompts)))
        self.cache = session.new_cache(len(prompts))
        self.prompts = pad_prompts(prompts, self.device)
        self.input_ids_B1 = torch.zeros(len(prompts), 1, dtype=torch.int64, device=self.device)
        self.position_ids_B1 = self.prompts.last_B1.clone()
        self.feeds = {
            "input_ids": self.input_ids_B1,
            "position_ids": self.position_ids_B1,
            "logits_indices": torch.zeros_like(self.input_ids_B1),
            **self.cache,
        }

    def prefill(self) -> None:
        """All prompts at once; the first new token of each row comes from its last prompt token."""
        feeds = {
            "input_ids": self.prompts.ids_BL,
            "position_ids": self.prompts.positions_BL,
            "logits_indices": self.prompts.last_B1,
            **self.cache,
        }
        self._choose(self.executor.run(feeds)["logits"])

    def step(self) -> None:
        """One token per row. Rows that ended run along: a step costs the same, and their tokens are dropped."""
        self._choose(self.executor.run(self.feeds)["logits"])

    def _choose(self, logits_B1V: torch.Tensor) -> None:
        tokens_B = self.sampler(logits_B1V[:, 0])
        self.input_ids_B1.copy_(tokens_B.unsqueeze(1))
        self.position_ids_B1.add_(1)
        chosen = tokens_B.tolist()
        for row in sorted(self.live):
            token = chosen[row]
            self.tokens[row].append(token)
            if self.on_token is not None:
                self.on_token(row, token)
            if token in self.eos_token_ids:
                self.live.discard(row)


def check_request(session: Session, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, first: int = 0) -> None:
    """Refuse what the engine cannot hold, with the numbers, before anything runs.

    Args:
        session, prompts, max_new_tokens: see `generate`.
        first: number of the first prompt, for the messages.
    """
    if max_new_tokens < 1:
        raise PortError(f"{max_new_tokens} new tokens were asked for, expected at least 1")
    if not prompts:
        raise PortError("there are no prompts to continue")
    if len(prompts) > session.max_batch_size:
        raise EngineError(
            f"{len(prompts)} prompts at once are more than the engine's `max_batch_size` {session.max_batch_size}",
            hint="give fewer at a time, or build with a larger `--max-batch-size`",
        )
    for row, prompt in enumerate(prompts, first):
        _check_prompt(session, row, prompt, max_new_tokens)


def _check_prompt(session: Session, row: int, prompt: Sequence[int], max_new_tokens: int) -> None:
    if not prompt:
        raise PortError(f"prompt {row} has no tokens", hint="start with the tokenizer's beginning-of-sequence token")
    if len(prompt) > session.max_input_len:
        raise EngineError(
            f"prompt {row} has {len(prompt)} tokens, more than the engine's `max_input_len` {session.max_input_len}",
            hint="shorten the prompt, or build with a larger `--max-input-len`",
        )
    if len(prompt) + max_new_tokens > session.max_seq_len:
        raise EngineError(
            f"prompt {row} has {len(prompt)} tokens, with {max_new_tokens} new ones that is more than the engine's "
            f"`max_seq_len` {session.max_seq_len}",
            hint="ask for fewer new tokens, shorten the prompt, or build with a larger `--max-seq-len`",
        )
    if min(prompt) < 0 or max(prompt) >= session.vocab_size:
        raise EngineError(
            f"prompt {row} holds token {max(prompt) if min(prompt) >= 0 else min(prompt)}, "
            f"the engine's vocabulary has {session.vocab_size}",
            hint="the tokenizer does not belong to this engine",
        )
