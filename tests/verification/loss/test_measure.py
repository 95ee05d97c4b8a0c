"""What is measured grows with the damage, and names the module that was damaged; equal weights cost nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from tests.verification.loss.conftest import to_bits
from trtllm_port.errors import CheckpointError, ConfigError
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.loss import parts as parts_module
from trtllm_port.verification.loss.measure import STREAMED, Pair, measure
from trtllm_port.verification.loss.parts import parts_of
from trtllm_port.verification.loss.result import Loss, describe, loss_gate, word_of
from trtllm_port.verification.loss.windows import Windows, make_windows
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner

MakePair = Callable[..., Pair]


@pytest.fixture(scope="module")
def windows(tiny_llama: Path) -> Windows:
    return make_windows(tiny_llama, vocab_size=61, longest=128)


def test_equal_weights_cost_nothing(tiny_llama: Path, pair_of: MakePair, windows: Windows) -> None:
    loss = measure(pair_of(tiny_llama, torch.clone), windows)
    assert (loss.kl.mean, loss.kl.low, loss.kl.high, loss.kl.max) == (0.0, 0.0, 0.0, 0.0)
    assert (loss.top1.value, loss.top1.low, loss.perplexity.ratio.value) == (1.0, 1.0, 1.0)
    assert loss.perplexity.original == loss.perplexity.quantized
    assert loss.shares is not None
    assert {part.share for part in loss.shares.parts} == {0.0}
    assert set(loss.weights.values()) == {0.0}
    assert loss.word == "negligible"
    assert loss.notes == ()


def test_coarser_codes_cost_more(tiny_llama: Path, pair_of: MakePair, windows: Windows) -> None:
    fine, medium, coarse = (measure(pair_of(tiny_llama, to_bits(bits)), windows) for bits in (8, 5, 3))
    assert 0 < fine.kl.mean < medium.kl.mean < coarse.kl.mean
    assert 1 > fine.top1.value > medium.top1.value > coarse.top1.value
    assert max(fine.weights.values()) < min(medium.weights.values()) < min(coarse.weights.values())
    for loss in (fine, medium, coarse):
        assert loss.kl.low is not None
        assert loss.kl.high is not None
        assert loss.kl.low < loss.kl.mean < loss.kl.high
        assert loss.kl.median < loss.kl.p99 < loss.kl.max
        assert loss.shares is not None
        assert sum(part.share for part in loss.shares.parts) == pytest.approx(1.0)


def test_the_numbers_are_those_of_torch(tiny_llama: Path, pair_of: MakePair, windows: Windows) -> None:
    """Once more, plainly: both models on all windows at once, and torch's own losses."""
    pair = pair_of(tiny_llama, to_bits(4))
    loss = measure(pair, windows)
    ids = torch.tensor(windows.ids)
    own, other = (pair.load(each).run(ids[:, :-1]).double().flatten(0, 1) for each in (pair.original, pair.quantized))
    kl = torch.nn.functional.kl_div(other.log_softmax(-1), own.log_softmax(-1), reduction="none", log_target=True)
    nll = [torch.nn.functional.cross_entropy(each, ids[:, 1:].flatten()) for each in (own, other)]
    assert loss.kl.mean == pytest.approx(float(kl.sum(-1).mean()), rel=1e-6)
    assert loss.kl.median == pytest.approx(float(kl.sum(-1).quantile(0.5)), rel=1e-6)
    assert loss.top1.value == pytest.approx(float((own.argmax(-1) == other.argmax(-1)).double().mean()))
    assert loss.perplexity.original == pytest.approx(math.exp(nll[0]), rel=1e-6)
    assert loss.perplexity.ratio.value == pytest.approx(math.exp(nll[1] - nll[0]), rel=1e-6)
    weights = [HuggingFaceRunner.load(each, "float32").parameters() for each in (pair.original, pair.quantized)]
    name = next(iter(loss.weights))
    expected = (weights[0][name] - weights[1][name]).norm() / weights[0][name].norm()
    assert loss.weights[name] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_damaged_module_has_the_loss(tiny_llama: Path, pair_of: MakePair, windows: Windows) -> None:
    damaged = "model.layers.1.mlp.up_proj"
    fine = to_bits(12)
    pair = pair_of(tiny_llama, fine, more={f"{damaged}.weight": to_bits(3)})
    shares = measure(pair, windows).shares
    assert shares is not None
    assert (shares.by, len(shares.parts)) == ("module", 14)
    assert shares.parts[0].name == damaged
    assert shares.parts[0].share > 0.99
    assert shares.together == pytest.approx(shares.parts[0].kl, rel=0.05)
    assert shares.parts[0].error is not None
    assert shares.parts[0].error > 0.1


def test_many_modules_are_judged_by_layer(
    tiny_llama: Path, pair_of: MakePair, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "MOST_MODULES", 5)
    said: list[tuple[str, int, int]] = []
    pair = pair_of(tiny_llama, to_bits(4), r"(.*_proj|lm_head)\.weight")
    shares = measure(pair, windows, progress=lambda *each: said.append(each)).shares
    assert shares is not None
    assert shares.by == "layer"
    assert {part.name for part in shares.parts} == {"model.layers.0", "model.layers.1", "lm_head"}
    assert said[-1][0] == "loss by layer"
    assert {phase for phase, _, _ in said} == {"loss", "loss of weights", "loss by layer"}
    assert all(done <= total for _, done, total in said)


def test_scales_that_moved_into_a_norm_move_with_their_layer(
    tiny_llama: Path, pair_of: MakePair, windows: Windows
) -> None:
    """As AWQ does it: alone, a weight with its inputs' scales makes no sense. Together they are the same model."""
    scaled = r"model\.layers\.0\.self_attn\.[qkv]_proj\.weight"
    pair = pair_of(
        tiny_llama, lambda weight: weight / 2, scaled, {"model.layers.0.input_layernorm.weight": lambda gain: gain * 2}
    )
    loss = measure(pair, windows)
    assert loss.shares is not None
    assert [(part.name, part.kl < 1e-6) for part in loss.shares.parts] == [("model.layers.0", True)]
    assert "1 tensors that are not quantized differ from the original's" in loss.notes[0]
    assert "`model.layers.0.input_layernorm.weight`" in loss.notes[0]


def test_what_is_stored_in_another_type_is_no_other_model(
    tiny_llama: Path, pair_of: MakePair, windows: Windows
) -> None:
    more = {"model.embed_tokens.weight": lambda table: table.bfloat16().float()}
    assert measure(pair_of(tiny_llama, to_bits(6), more=more), windows).notes == ()


def test_stacked_experts_are_one_part(pair_of: MakePair, windows: Windows, tmp_path: Path) -> None:
    """The checkpoint has a weight for each expert, transformers' model one for all."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=1, vocab_size=61)
    heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2)
    config = Qwen3MoeConfig(**sizes, **heads, max_position_embeddings=128, initializer_range=0.3)
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path / "experts")
    loss = measure(pair_of(tmp_path / "experts", to_bits(4), r".*experts\.\d+\.\w+_proj\.weight"), windows)
    assert loss.shares is not None
    assert [part.name for part in loss.shares.parts] == ["model.layers.0.mlp.experts"]
    assert loss.shares.parts[0].kl == pytest.approx(loss.shares.together)
    assert len(loss.weights) == 12


def test_renamed_tensors_belong_to_the_nearest_module_that_is_known() -> None:
    """What another tensor names directly is not theirs."""

    def layer(*weights: float) -> torch.nn.Module:
        model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.ModuleDict()])})
        for name, weight in zip(("q_proj", "mlp", "norm"), weights, strict=True):
            model.layers[0][name] = torch.nn.Linear(1, 1, bias=False)
            torch.nn.init.constant_(model.layers[0][name].weight, weight)
        return model

    names = ["layers.0.q_proj.weight", "layers.0.feed_forward.w1.weight", "model.layers.0.feed_forward.w2.weight"]
    found = parts_of(layer(1, 1, 1), layer(2, 2, 1), names, ())
    assert found.parameters == {
        "layers.0.q_proj": ("layers.0.q_proj.weight",),
        "layers.0": ("layers.0.mlp.weight",),
        "": ("layers.0.mlp.weight",),
    }
    assert found.weights["layers.0"] == ("layers.0.feed_forward.w1.weight",)


def test_a_model_that_is_read_layer_by_layer(tiny_llama: Path, pair_of: MakePair, windows: Windows) -> None:
    pair = pair_of(tiny_llama, to_bits(4))
    streamed = measure(replace(pair, load=partial(HuggingFaceRunner.stream, dtype="float32")), windows)
    whole = measure(pair, windows)
    assert streamed.kl.mean == pytest.approx(whole.kl.mean, rel=1e-4)
    assert streamed.weights == whole.weights
    assert streamed.shares is None
    assert streamed.notes == (STREAMED,)


def test_an_original_without_some_weights_is_refused(tiny_llama: Path, pair_of: MakePair, windows: Windows) -> None:
    def load(directory: Path) -> HuggingFaceRunner:
        raise CheckpointError("`m` lacks 1 tensors")

    with pytest.raises(ConfigError, match="the original cannot be used: `m` lacks 1 tensors"):
        measure(replace(pair_of(tiny_llama, to_bits(4)), load=load), windows)


def of(kl: float, loss: Loss) -> Loss:
    return replace(loss, kl=replace(loss.kl, mean=kl), word=word_of(kl))


def test_the_gate_and_the_words(tiny_llama: Path, pair_of: MakePair, windows: Windows) -> None:
    loss = measure(pair_of(tiny_llama, to_bits(4)), windows)
    assert loss_gate(of(0.03, loss), 0.03).verdict is Verdict.PASS
    red = loss_gate(of(0.031, loss), 0.03)
    assert red.verdict is Verdict.FAIL
    assert red.reason == (
        "quantization costs a mean KL divergence of 0.031 (small), more than the 0.03 that `--max-kl` allows"
    )
    assert loss_gate(of(math.nan, loss), 0.03).verdict is Verdict.FAIL
    assert loss_gate(of(math.nan, loss), 1e9).verdict is Verdict.FAIL
    bounds = (0.0, 0.0099, 0.01, 0.05, 0.15, 0.5, math.inf, math.nan)
    words = ["negligible", "negligible", "small", "moderate", "large", "very large", "very large", "not a number"]
    assert [word_of(kl) for kl in bounds] == words
    assert describe(of(0.03, loss)).startswith("small: mean KL 0.03 (")
