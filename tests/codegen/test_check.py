"""The self-check finds what a careless hand changes in a port, and says where."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers

from trtllm_port.codegen import PortSource, check_port
from trtllm_port.codegen.check import _errors, _noise, _verdict, outputs_of
from trtllm_port.codegen.soundness import unsound
from trtllm_port.errors import PortError

MUTATIONS = {
    "gate and up swapped": (
        "self.act_fn(self.gate_proj(x)) * self.up_proj(x)",
        "self.act_fn(self.up_proj(x)) * self.gate_proj(x)",
        "prefill: model.layers.0.mlp.act_fn",
    ),
    "another epsilon": (
        "self.post_attention_layernorm = RmsNorm(config.hidden_size, eps=config.rms_norm_eps)",
        "self.post_attention_layernorm = RmsNorm(config.hidden_size, eps=10 * config.rms_norm_eps)",
        "prefill: model.layers.0.post_attention_layernorm",
    ),
    "keys not rotated": (
        "        key_states = rotary_embedding(key_states, cos, sin)\n",
        "",
        "prefill: model.layers.0.self_attn.o_proj",
    ),
    "no mask": ("mask=attention_mask, ", "", "prefill: model.layers.0.self_attn.o_proj"),
    "scale left out": ("scale=self.scaling", "scale=1.0", "prefill: model.layers.0.self_attn.o_proj"),
}


def _edited(port: PortSource, old: str, new: str) -> PortSource:
    assert old in port.files["model.py"]
    return replace(port, files={**port.files, "model.py": port.files["model.py"].replace(old, new)})


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_port_is_found_at_the_wrong_module(llama: PortSource, name: str) -> None:
    old, new, where = MUTATIONS[name]
    check = check_port(transformers.LlamaConfig(), source=_edited(llama, old, new))
    assert not check.passed
    assert check.first_divergence == where


def test_a_port_that_does_not_fit_the_weights_is_a_problem(llama: PortSource) -> None:
    wrong = _edited(llama, "Linear(config.intermediate_size, config.hidden_size", "Linear(config.hidden_size, 7")
    check = check_port(transformers.LlamaConfig(), source=wrong)
    assert not check.passed
    assert check.taps == 0
    assert "down_proj" in str(check.problem)


def test_a_port_has_to_take_the_config_that_it_was_written_from(llama: PortSource) -> None:
    config = llama.files["config.py"].replace("    hidden_size: int\n", "    hidden_size: int\n    lost_size: int\n")
    check = check_port(transformers.LlamaConfig(), source=replace(llama, files={**llama.files, "config.py": config}))
    assert not check.passed
    assert "does not take this config" in str(check.problem)
    assert "`lost_size` is missing" in str(check.problem)


def test_a_port_must_be_named() -> None:
    with pytest.raises(PortError, match="neither a workspace nor"):
        check_port(transformers.LlamaConfig())


def test_result_is_data(llama: PortSource) -> None:
    found = check_port(transformers.LlamaConfig(), source=llama).to_dict()
    assert found["passed"] is True
    assert found["tokens"] == 512
    assert found["sizes"]["hidden_size"] == 320


def test_what_a_module_chooses_is_told_by_its_place_among_the_outputs() -> None:
    states, weights, slots = torch.rand(2, 5, 8), torch.rand(2, 4, 5, 5), torch.zeros(2, 5, 3, dtype=torch.int32)
    assert outputs_of((states, weights, slots)).keys() == {"", ":2"}  # weights of pairs of tokens are a by-product
    assert outputs_of((states, None, slots)).keys() == {"", ":2"}
    assert outputs_of((states, weights)).keys() == {""}
    assert outputs_of({"states": (states, slots)}) == {"": states}
    assert outputs_of(slots) == {"": slots}
    assert outputs_of(None) == {}


def test_weights_are_in_the_order_of_the_own_choice_or_of_the_given_one() -> None:
    weights, choice = torch.tensor([[0.7, 0.3], [0.6, 0.4]]), torch.tensor([[5, 2], [1, 4]])
    expected = {"gate": torch.rand(2, 8), "gate:1": weights, "gate:2": choice}
    noise = dict.fromkeys(expected, 0.0)

    def error(found: torch.Tensor) -> float:
        return _errors({"gate:1": found, "gate:2": choice.flip(-1)}, expected, noise, 0)["gate:1"][0]

    assert error(weights.flip(-1)) == error(weights) == 0.0
    assert error(weights * 1.1) > 0.05 < error(weights.flip(-1).flip(0))


def _another_in_each_model(table: torch.Tensor, module: object) -> torch.Tensor:
    """What a buffer is that nobody fills."""
    return torch.rand(table.shape, generator=torch.Generator().manual_seed(id(module))).to(table.dtype)


def _another_each_time(table: torch.Tensor, _module: object) -> torch.Tensor:
    return torch.rand_like(table)


UNSOUND = {"% off those in float64": _another_in_each_model, "are others each time": _another_each_time}


@pytest.mark.parametrize("said", UNSOUND)
def test_who_cannot_judge_does_not_say_that_a_port_agrees(
    llama: PortSource, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding
    right = rotary.forward

    def forward(module: object, *args: torch.Tensor, **kwargs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(UNSOUND[said](table, module) for table in right(module, *args, **kwargs))

    monkeypatch.setattr(rotary, "forward", forward)
    check = check_port(transformers.LlamaConfig(), source=llama)
    assert not check.passed
    assert check.first_divergence is None
    assert "`model.rotary_emb`" in str(check.problem)
    assert said in str(check.problem)


def test_values_that_are_not_finite_judge_nobody() -> None:
    expected = {"a": torch.ones(2, 3), "b": torch.tensor([1.0, float("nan")]), "": torch.ones(2, 4)}
    noise = {"a": 1e-7, "b": float("inf"), "": 1e-7}
    assert unsound(expected, noise, ("a", ""), "prefill") is None
    assert "at `b` (prefill) are not finite" in str(unsound(expected, noise, expected, "prefill"))
    assert "at the logits (prefill) are in float32 inf% off" in str(
        unsound(expected, {**noise, "": float("inf")}, ("a", ""), "prefill")
    )


def test_another_choice_of_experts_is_no_unsound_value() -> None:
    expected = {"gate:1": torch.rand(5, 2), "gate:2": torch.randint(8, (5, 2))}
    assert unsound(expected, {"gate:1": 0.4, "gate:2": 0.4}, expected, "prefill") is None


def test_what_is_right_of_a_wrong_port_does_not_hide_that_it_differs() -> None:
    errors, limits = {"prefill: a": 0.5, "prefill: b": 1.0}, {"prefill: a": 1e-6, "prefill: b": float("inf")}
    assert _verdict(errors, limits, "the values at `b` are not finite").first_divergence == "prefill: a"
    assert _verdict({}, {}, None).passed is False


def test_a_step_may_round_as_the_worst_token_of_the_prefill_did() -> None:
    """Its few numbers tell by chance how much rounding matters there: tokens differ by orders of magnitude."""
    expected, worst = {"router": torch.ones(2, 6, 4)}, dict[str, float]()
    exact = torch.ones(2, 6, 4, dtype=torch.float64)
    exact[1, 3] += 4e-5
    assert _noise(expected, worst, "router", exact) == pytest.approx(4e-5 / 12**0.5, rel=1e-2)
    assert worst["router"] == pytest.approx(4e-5, rel=1e-2)
