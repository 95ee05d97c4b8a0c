"""What models keep of earlier tokens otherwise than in a cache of transformers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.interception.observed_cache import fill_cache


class WithList(nn.Module):
    def forward(self, input_ids: Tensor, state: list[Tensor] | None = None, use_cache: bool = False) -> Any:
        given: Any = [torch.zeros(2)] if state is None else state
        return SimpleNamespace(state=[given[0] + input_ids])


class WithMistake(nn.Module):
    def forward(self, input_ids: Tensor, past_key_values: Any = None, use_cache: bool = False) -> Any:
        if past_key_values is not None:
            raise TypeError("a mistake of its own")
        return SimpleNamespace(past_key_values=DynamicCache())


def test_a_list_of_tensors_is_refused_by_name() -> None:
    given = {"input_ids": torch.ones(2), "state": object(), "use_cache": True}
    with pytest.raises(UnsupportedModelError, match=r"`WithList` keeps .* as a list \(`state`\)"):
        fill_cache(WithList(), given)
    fill_cache(WithList(), {**given, "state": [torch.ones(2)]})


def test_other_mistakes_stay_what_they_are() -> None:
    with pytest.raises(TypeError, match="a mistake of its own"):
        fill_cache(WithMistake(), {"input_ids": torch.ones(2), "past_key_values": object()})
