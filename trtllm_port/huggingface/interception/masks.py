"""Masks as models ask transformers for them: which tokens may see which, as a function of their numbers.

B batch, L tokens, S slots
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from transformers import AttentionMaskInterface, PreTrainedModel, masking_utils

from trtllm_port.huggingface.interception.attention import to_additive

WARNING = "warn_if_padding_and_no_attention_mask"  # looks for padding among the tokens; computes nothing
Allows = Callable[..., Any]
"""Which keys a query may see: of (batch, head, query, key), numbers of rows, heads and tokens."""


@dataclass(frozen=True)
class MaskCall:
    """What a model asks of a mask function.

    Attributes:
        batch, tokens, slots: the mask is [B, 1, L, S].
        first_token, first_slot: the numbers of the first ones.
        allows: see `Allows`.
    """

    batch: int
    tokens: int
    slots: int
    first_token: int
    first_slot: int
    allows: Allows

    def compute(self) -> Tensor:
        """The mask, bool."""
        allowed = evaluate_mask(self.allows, self.tokens, self.slots, self.first_token, self.first_slot)
        return allowed.expand(self.batch, 1, self.tokens, self.slots).clone()


MaskFunction = Callable[[MaskCall], Tensor]


def register_masks(name: str, mask: MaskFunction) -> None:
    """Have models that are made with the attention implementation `name` ask a function for bool masks."""
    AttentionMaskInterface.register(name, _interface(mask))


@contextmanager
def eager_masks(mask: MaskFunction) -> Iterator[None]:
    """While it lasts, models with eager attention ask a function for their masks, too, and for nothing else.

    They get 0 where it allows and -inf elsewhere. Nor is the text searched for padding, or for several texts in a row.
    """
    function = _interface(mask)

    def additive(*, dtype: torch.dtype = torch.float32, **asked: Any) -> Tensor:
        return to_additive(function(**asked), dtype)

    known = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS._global_mapping
    with (
        mock.patch.dict(known, {"eager": additive}),
        mock.patch.object(masking_utils, "find_packed_sequence_indices", return_value=None),
        mock.patch.object(PreTrainedModel, WARNING),
    ):
        yield


def _interface(mask: MaskFunction) -> Callable[..., Tensor]:
    """A function of ours as transformers calls one."""

    def asked(
        *,
        batch_size: int,
        q_length: int,
        kv_length: int,
        q_offset: int = 0,
        kv_offset: int = 0,
        mask_function: Allows,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        return mask(MaskCall(batch_size, q_length, kv_length, q_offset, kv_offset, mask_function))

    return asked


def evaluate_mask(allows: Allows, rows: int, columns: int, first_row: int = 0, first_column: int = 0) -> Tensor:
    """[rows, columns] bool: which keys (columns) the queries (rows) may see."""
    query = torch.arange(rows)[:, None] + first_row
    key = torch.arange(columns)[None, :] + first_column
    zero = torch.zeros((), dtype=torch.long)
    allowed = allows(zero, zero, query, key)
    if not isinstance(allowed, Tensor):
        allowed = torch.tensor(bool(allowed))
    return allowed.reshape(allowed.shape[-2:] if allowed.ndim >= 2 else (1, 1)).expand(rows, columns)
