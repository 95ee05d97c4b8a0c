"""Attention scores of random weights: spread as usual, whatever factors a model applies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from trtllm_port.errors import ConfigError
from trtllm_port.huggingface import score_spread
from trtllm_port.huggingface.random_weights import condition, save_random_checkpoint
from trtllm_port.huggingface.score_spread import TOKENS, spread_scores

SMALL: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 89}


def _granite(factor: float, implementation: str = "eager") -> Any:
    """A model with a factor for its scores; 1 / sqrt(16) is what Llama has for such heads."""
    config = transformers.GraniteConfig(**SMALL, num_hidden_layers=3, attention_multiplier=factor)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    condition(model)
    return model


def _weights(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _spreads(model: Any) -> list[float]:
    """The standard deviation of each layer's scores, of what its attention gives: log-probabilities are shifted scores.

    Not measured as the tested module does: from the probabilities that Hugging Face returns.
    """
    model.set_attn_implementation("eager")
    ids = torch.randint(89, (1, TOKENS), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found = model(input_ids=ids, output_attentions=True, use_cache=False).attentions
    rows = [[layer[0, :, n, : n + 1].double().clamp(min=1e-300).log() for n in range(8, TOKENS)] for layer in found]
    return [float(torch.cat([row.std(-1) for row in layer]).mean()) for layer in rows]


@pytest.mark.parametrize("factor", [0.005, 2.0])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_scores_spread_as_usual_whatever_the_factor(factor: float, implementation: str) -> None:
    model = _granite(factor, implementation)
    before = _spreads(_granite(factor))
    assert all(spread < 0.2 or spread > 4 for spread in before)
    spread_scores(model)
    assert all(0.8 < spread < 2.6 for spread in _spreads(model))


def test_what_is_usual_stays() -> None:
    model = _granite(0.25)
    before = _weights(model)
    spread_scores(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_one_weight_of_an_attention_is_scaled_by_a_power_of_two() -> None:
    model = _granite(2.0)
    before = _weights(model)
    spread_scores(model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.rpartition("self_attn.")[2] for name in changed} <= {"q_proj.weight", "k_proj.weight"}
    assert len(changed) == 3
    for name in changed:
        factor = (model.state_dict()[name] / before[name]).unique()
        assert factor.log2().frac().tolist() == [0.0]


def test_it_is_the_same_again_and_in_half_precision() -> None:
    models = [_granite(2.0), _granite(2.0), _granite(2.0).bfloat16()]
    for model in models:
        spread_scores(model)
    first = models[0].state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, models[1].state_dict()[name])
        assert torch.equal(tensor.bfloat16(), models[2].state_dict()[name])


def test_a_model_is_left_as_it_was_found() -> None:
    model = _granite(2.0).train()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    spread_scores(model)
    assert model.training
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


def test_large_models_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_spread, "MOST", 1000)
    model = _granite(2.0)
    before = _weights(model)
    spread_scores(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_without_attention_stays() -> None:
    config = transformers.MambaConfig(hidden_size=32, state_size=4, num_hidden_layers=2, vocab_size=89)
    model = transformers.MambaForCausalLM(config)
    before = _weights(model)
    spread_scores(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_config_with_which_the_model_does_not_run_is_refused(tmp_path: Path) -> None:
    config = transformers.Qwen3Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=96
    )
    config.layer_types = ["sliding_attention", "full_attention"]  # and no window
    with pytest.raises(ConfigError, match="Hugging Face's own `qwen3` does not run with this config: ValueError"):
        save_random_checkpoint(config, tmp_path)
