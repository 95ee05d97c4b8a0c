"""Activations by HF's names against HF's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.activations import ACT2FN as HF

from trtllm_port.errors import ConfigError
from trtllm_port.layers import ACT2FN, Activation


@pytest.mark.parametrize("name", sorted(ACT2FN))
def test_every_name_is_hfs_function(evaluate: Any, name: str) -> None:
    x = torch.linspace(-12, 12, 97)[None]
    torch.testing.assert_close(evaluate(Activation(name), x), HF[name](x))


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="`xielu` is not supported") as caught:
        Activation("xielu")
    assert "silu" in str(caught.value.hint)
