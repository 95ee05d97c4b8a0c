"""The KV cache beside Hugging Face's: right, in another form, or wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from trtllm_port.verification.decode.cache_contents import cache_gates
from trtllm_port.verification.judge.gates import Gate
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.taps.runner import CacheLayer

REFERENCE = [(torch.randn(2, 6, 8), torch.randn(2, 6, 8)), None, (torch.randn(2, 6, 8), torch.randn(2, 6, 8))]
ROUGH = [None if pair is None else (pair[0].bfloat16(), pair[1].bfloat16()) for pair in REFERENCE]


def port_cache(change: str = "") -> dict[str, Tensor]:
    """The yardstick's cache in a longer one, changed in the last layer."""
    cache = {}
    for layer, pair in enumerate(ROUGH):
        for part, values in zip(("key", "value"), pair or (), strict=False):
            own = values.flip(-1) if (layer, part) == (2, change) else values
            cache[f"past_key_values.{layer}.{part}"] = torch.nn.functional.pad(own, (0, 0, 0, 4))[None]
    return cache


def verdicts(cache: dict[str, Tensor], decode: Verdict) -> dict[str, Verdict]:
    gates = [Gate(name="decode.error", phase="precision", verdict=decode, reason="")]
    found = cache_gates(("precision", "bfloat16"), cache, (REFERENCE, ROUGH), gates)
    return {gate.name: gate.verdict for gate in found}


@pytest.mark.parametrize(
    ("change", "decode", "keys", "values"),
    [
        ("", Verdict.PASS, Verdict.PASS, Verdict.PASS),
        ("key", Verdict.PASS, Verdict.WARN, Verdict.PASS),
        ("key", Verdict.FAIL, Verdict.FAIL, Verdict.PASS),
        ("value", Verdict.FAIL, Verdict.PASS, Verdict.FAIL),
    ],
)
def test_a_difference_counts_if_the_decode_steps_are_wrong(
    change: str, decode: Verdict, keys: Verdict, values: Verdict
) -> None:
    assert verdicts(port_cache(change), decode) == {"cache.keys": keys, "cache.values": values}


def test_a_cache_of_another_kind_is_not_compared() -> None:
    assert set(verdicts({}, Verdict.PASS).values()) == {Verdict.SKIPPED}


def test_hugging_faces_cache_is_read(model_dir: Path) -> None:
    runner = HuggingFaceRunner.load(model_dir, "float32")
    layers: list[CacheLayer] = []
    kept: dict[str, Tensor] = {}
    ids_1L = torch.tensor([[1, 2, 3, 4, 5]])
    logits_1LV = runner.run(ids_1L, on_tap=lambda tap, x: kept.update({tap: x.clone()}), cache=layers)
    assert torch.equal(runner.run(ids_1L), logits_1LV)
    assert [tuple(pair[0].shape) for pair in layers if pair is not None] == [(2, 5, 8)] * 2
    values_LE = kept["model.layers.1.self_attn.v_proj"][0]
    assert layers[1] is not None
    assert torch.equal(layers[1][1], values_LE.view(5, 2, 8).transpose(0, 1))
