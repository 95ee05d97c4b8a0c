"""What a step through a Hugging Face model's cache is given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BambaConfig,
    Cache,
    LlamaConfig,
    MptConfig,
    OpenAIGPTConfig,
    RobertaConfig,
)

from trtllm_port.huggingface.caches import (
    Continuation,
    cache_argument,
    cache_of,
    keeps_cache,
    positions_are_slots,
    takes_single_tokens_only,
    wants_mask,
)

SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(**SMALL, intermediate_size=24),
    "roberta": RobertaConfig(**SMALL, intermediate_size=24, is_decoder=True),
    "openai-gpt": OpenAIGPTConfig(vocab_size=60, n_positions=32, n_embd=16, n_layer=2, n_head=2),  # keeps no cache
    "mpt": MptConfig(vocab_size=60, d_model=16, n_heads=2, n_layers=2),
    "bamba": BambaConfig(**SMALL, intermediate_size=24, num_key_value_heads=1, mamba_n_heads=4, attn_layer_indices=[1]),
}


def model_of(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    return model


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama", True),
        ("roberta", False),  # begins behind the padding token's number
        ("mpt", False),  # takes none
        ("bamba", True),
    ],
)
def test_which_models_are_told_their_slots(name: str, expected: bool) -> None:
    assert positions_are_slots(model_of(name), torch.tensor([[5, 6, 7]])) is expected


def test_a_model_that_does_not_count_its_cache_needs_them() -> None:
    model = model_of("bamba")
    ids, last = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[3]])
    with torch.no_grad():
        whole = model(input_ids=ids).logits[:, -1]
        errors = []
        for more in ({}, {"position_ids": last}):
            cache = model(input_ids=ids[:, :3], use_cache=True)[cache_argument(model)]
            step = model(input_ids=ids[:, 3:], **{cache_argument(model): cache}, **more).logits[:, -1]
            errors.append(float((step - whole).abs().max()))
    assert errors[1] < 1e-5 < errors[0]


class _Renamed:
    """As models of transformers 5.24 take their cache."""

    def forward(self, input_ids: torch.Tensor, cache: Cache | None = None, use_cache: bool = False) -> None: ...


class _Table:
    """As XLM takes what it calls its cache."""

    def forward(self, input_ids: torch.Tensor, cache: dict[str, torch.Tensor] | None = None) -> None: ...


class _Masked(torch.nn.Module):
    """Takes the mask for granted that transformers makes for a text, or of one that it is given."""

    __module__ = "transformers_modules.masked"

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
    ) -> SimpleNamespace:
        if input_ids.shape[1] == 1 and attention_mask is None:
            raise AssertionError
        return SimpleNamespace(past_key_values=past_key_values, logits=input_ids[..., None].float())


def test_a_file_that_takes_a_mask_for_granted_is_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtllm_port.huggingface.caches.keeps_cache", lambda model: True)
    monkeypatch.setattr("trtllm_port.huggingface.caches.cache_argument", lambda model: "past_key_values")
    monkeypatch.setattr("trtllm_port.huggingface.caches.first_cache", lambda model: {"past_key_values": object()})
    assert wants_mask(_Masked(), torch.tensor([[1, 2]]))
    feed = Continuation(_Masked(), torch.tensor([[1, 2, 3]]))
    assert [feed(torch.tensor([part])).shape[1] for part in ([1, 2], [3])] == [2, 1]


def test_others_are_given_none() -> None:
    assert not wants_mask(model_of("llama"), torch.tensor([[5, 6]]))


class _OneByOne(torch.nn.Module):
    """Counts the tokens that it was given, and takes single ones only behind others, or from some length on none."""

    def __init__(self, most: int = 99) -> None:
        super().__init__()
        self.most = most

    def forward(
        self, input_ids: torch.Tensor, past_key_values: int | None = None, use_cache: bool = False
    ) -> SimpleNamespace:
        before, new = past_key_values or 0, input_ids.shape[1]
        if (before and new > 1) or before + new > self.most:
            raise IndexError
        return SimpleNamespace(past_key_values=before + new, logits=input_ids[..., None].float())


class _Broken(torch.nn.Module):
    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> SimpleNamespace:
        raise RuntimeError


def test_a_model_that_takes_single_tokens_only_behind_others() -> None:
    first, more = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5]])
    assert takes_single_tokens_only(_OneByOne(), first, more)
    assert not takes_single_tokens_only(_OneByOne(most=3), first, more)  # nor a single one
    assert not takes_single_tokens_only(_OneByOne(most=2), first, more)  # nor the first ones
    assert not takes_single_tokens_only(_Broken(), first, more)
    assert not takes_single_tokens_only(model_of("llama"), first, more)


def test_the_argument_for_a_cache_has_several_names() -> None:
    model = model_of("llama")
    assert cache_argument(model) in ("past_key_values", "cache")
    assert isinstance(cache_of(model, model(input_ids=torch.ones(1, 2, dtype=torch.int64), use_cache=True)), Cache)
    assert cache_argument(_Renamed()) == "cache"
    assert keeps_cache(_Renamed())
    assert not keeps_cache(_Table())


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_fed_piece_by_piece_gives_what_all_at_once_gives(name: str) -> None:
    model, ids = model_of(name), torch.arange(5, 14)[None]
    feed = Continuation(model, ids)
    with torch.no_grad():
        pieces = torch.cat([feed(part) for part in (ids[:, :6], ids[:, 6:7], ids[:, 7:8], ids[:, 8:])], 1)
        whole = model(input_ids=ids).logits
    assert torch.allclose(pieces, whole, atol=1e-5)
