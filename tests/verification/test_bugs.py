"""Every check is proven to bite: a bug is put into a copy of the model, and must be found at the right module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers.models.llama.modeling_llama as llama

from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.phases.phase import PhaseResult
from trtllm_port.verification.stimulus.precisions import phases_of

LOGIC = phases_of("float32")[0]
Compare = Callable[..., PhaseResult]


def layer(model: Any) -> Any:
    return model.model.layers[1]


def wrap(module: Any, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    module.forward = change(module.forward)


def gate_and_up_swapped(model: Any) -> None:
    mlp = layer(model).mlp
    mlp.forward = lambda x: mlp.down_proj(mlp.act_fn(mlp.up_proj(x)) * mlp.gate_proj(x))


def gate_and_up_weights_swapped(model: Any) -> None:
    gate, up = layer(model).mlp.gate_proj, layer(model).mlp.up_proj
    gate.weight, up.weight = up.weight, gate.weight


def activation(model: Any) -> None:
    layer(model).mlp.act_fn = llama.ACT2FN["gelu"]


def epsilon(model: Any) -> None:
    layer(model).input_layernorm.variance_epsilon = 1e-6


def gain_plus_one(model: Any) -> None:
    layer(model).post_attention_layernorm.weight.data += 1


def gain_dropped(model: Any) -> None:
    model.model.norm.weight.data.fill_(1.0)


def value_bias_dropped(model: Any) -> None:
    layer(model).self_attn.v_proj.bias.data.zero_()


def key_bias_dropped(model: Any) -> None:
    layer(model).self_attn.k_proj.bias.data.zero_()


@contextmanager
def rotary_on_queries_only() -> Iterator[None]:
    original = llama.apply_rotary_pos_emb
    llama.apply_rotary_pos_emb = lambda q, k, *tables: (original(q, k, *tables)[0], k)
    try:
        yield
    finally:
        llama.apply_rotary_pos_emb = original


def rotary_left_off_the_keys(model: Any) -> None:
    def change(forward: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any, **kwargs: Any) -> Any:
            with rotary_on_queries_only():
                return forward(*args, **kwargs)

        return changed

    wrap(layer(model).self_attn, change)


def rotary_theta(model: Any) -> None:
    model.model.rotary_emb.inv_freq.pow_(0.9)


def attention_scale(model: Any) -> None:
    layer(model).self_attn.scaling *= 1.1


def head_scale(model: Any) -> None:
    wrap(model.lm_head, lambda forward: lambda x: 0.25 * forward(x))


def output_transposed(model: Any) -> None:
    weight = layer(model).self_attn.o_proj.weight
    weight.data = weight.data.T.contiguous()


def residual_scaled(model: Any) -> None:
    own = layer(model)

    def forward(hidden_states: Any, **kwargs: Any) -> Any:
        attended, _ = own.self_attn(hidden_states=own.input_layernorm(hidden_states), **kwargs)
        hidden_states = 0.9 * hidden_states + attended
        return hidden_states + own.mlp(own.post_attention_layernorm(hidden_states))

    own.forward = forward


def output_heads_reversed(model: Any) -> None:
    weight = layer(model).self_attn.o_proj.weight
    weight.data = weight.data.unflatten(1, (4, -1)).flip(1).flatten(1).contiguous()


def gate_of_another_layer(model: Any) -> None:
    layer(model).mlp.gate_proj.weight.data = model.model.layers[0].mlp.gate_proj.weight.data.clone()


def embedding_of_one_token(model: Any) -> None:
    model.model.embed_tokens.weight.data[7] *= 2


def product_in_16_bits(model: Any) -> None:
    wrap(layer(model).mlp.down_proj, lambda forward: lambda x: forward(x.bfloat16().to(x.dtype)))


def result_in_16_bits(model: Any) -> None:
    wrap(layer(model), lambda forward: lambda *args, **kwargs: forward(*args, **kwargs).half().float())


CATALOGUE = [
    (gate_and_up_swapped, "model.layers.1.mlp", "module.swapped"),
    (gate_and_up_weights_swapped, "model.layers.1.mlp.gate_proj", "weight.swapped"),
    (activation, "model.layers.1.mlp.act_fn", "activation"),
    (epsilon, "model.layers.1.input_layernorm", "norm.epsilon"),
    (gain_plus_one, "model.layers.1.post_attention_layernorm", "norm.gain_offset"),
    (gain_dropped, "model.norm", "norm.gain_left_out"),
    (value_bias_dropped, "model.layers.1.self_attn.v_proj", "bias.left_out"),
    (key_bias_dropped, "model.layers.1.self_attn.k_proj", "bias.left_out"),
    (rotary_left_off_the_keys, "model.layers.1.self_attn", "rope.keys"),
    (rotary_theta, "model.rotary_emb", "rope.theta"),
    (attention_scale, "model.layers.1.self_attn", "attention.scale"),
    (head_scale, "lm_head", "weight.scale"),
    (output_transposed, "model.layers.1.self_attn.o_proj", "weight.transposed"),
    (residual_scaled, "model.layers.1", "residual.scale"),
    (output_heads_reversed, "model.layers.1.self_attn.o_proj", "weight.permuted"),
    (gate_of_another_layer, "model.layers.1.mlp.gate_proj", "weight.neighbour"),
    (embedding_of_one_token, "model.embed_tokens", "weight.scale"),
    (result_in_16_bits, "model.layers.1", "precision.cast"),
]
FITTED = (rotary_theta,)  # not to the last bit


@pytest.mark.parametrize(("bug", "module", "cause"), CATALOGUE, ids=[bug.__name__ for bug, *_ in CATALOGUE])
def test_a_bug_is_found_at_its_module(compare_tiny: Compare, bug: Any, module: str, cause: str) -> None:
    found = compare_tiny(LOGIC, bug)
    assert found.divergences[0] == module
    assert len(found.divergences) == (2 if bug is gate_and_up_weights_swapped else 1)
    assert found.causes[module][0].id == cause
    assert found.causes[module][0].status == ("likely" if bug in FITTED else "confirmed")
    verdicts = {gate.name: gate.verdict for gate in found.gates}
    assert verdicts["taps.error"] is Verdict.FAIL


WEIGHTS = [
    (gate_and_up_weights_swapped, "gate_proj.weight` is Hugging Face's `model.layers.1.mlp.up_proj.weight`"),
    (output_transposed, "o_proj.weight` is Hugging Face's transposed"),
    (output_heads_reversed, "o_proj.weight` has Hugging Face's columns in another order: blocks of 8 in the order"),
    (embedding_of_one_token, "embed_tokens.weight` differs in rows 7 only: there it is 2 times Hugging Face's"),
    (key_bias_dropped, "k_proj.bias` is all zeros"),
]


@pytest.mark.parametrize(("bug", "words"), WEIGHTS, ids=[bug.__name__ for bug, _ in WEIGHTS])
def test_weights_that_differ_are_named_and_looked_for_where_they_are_made(
    compare_tiny: Compare, bug: Any, words: str
) -> None:
    found = compare_tiny(LOGIC, bug)
    cause = found.causes[found.divergences[0]][0]
    assert words in cause.cause
    assert cause.look.parameter.rpartition(".")[0] == found.divergences[0]


def test_code_is_not_blamed_on_weights(compare_tiny: Compare) -> None:
    """Weights that differ and a code that is wrong, too: neither alone is confirmed."""

    def both(model: Any) -> None:
        layer(model).mlp.gate_proj.weight.data *= 2
        activation(model)
        gate_and_up_swapped(model)

    found = compare_tiny(LOGIC, both)
    assert found.causes["model.layers.1.mlp.gate_proj"][0].id == "weight.scale"
    assert not any(cause.look.parameter for cause in found.causes["model.layers.1.mlp"])


def test_what_no_known_bug_explains_says_what_was_excluded(compare_tiny: Compare) -> None:
    def odd(model: Any) -> None:
        wrap(layer(model).mlp.act_fn, lambda forward: lambda x: forward(x) + 0.3 * (3 * x).sin() * x.cos())

    found = compare_tiny(LOGIC, odd)
    (cause,) = found.causes["model.layers.1.mlp.act_fn"]
    assert cause.status == "unknown"
    assert "kinds of known bugs were given to Hugging Face's module" in cause.evidence
    assert "wrong activation (" in cause.evidence


def test_every_output_of_a_module_is_looked_at(compare_tiny: Compare) -> None:
    """Sines alone: the first output, the cosines, is right."""

    def sines(model: Any) -> None:
        def half(forward: Any) -> Any:
            return lambda *args, **kwargs: (forward(*args, **kwargs)[0], 0.5 * forward(*args, **kwargs)[1])

        wrap(model.model.rotary_emb, half)

    found = compare_tiny(LOGIC, sines)
    assert found.divergences[0] == "model.rotary_emb"
    causes = found.causes["model.rotary_emb"]
    assert "`model.rotary_emb:1`" in causes[0].evidence
    assert not any(" 1 times" in cause.evidence for cause in causes)


def test_several_bugs_are_found_in_one_run(compare_tiny: Compare) -> None:
    bugs = [value_bias_dropped, attention_scale, gain_plus_one, gate_and_up_swapped, gain_dropped, head_scale]
    expected = {module: cause for bug, module, cause in CATALOGUE if bug in bugs}
    for phase in (LOGIC, phases_of("bfloat16")[1]):
        found = compare_tiny(phase, *bugs)
        assert sorted(found.divergences) == sorted(expected)
        if phase is LOGIC:
            assert {module: found.causes[module][0].id for module in expected} == expected


def test_a_permutation_that_nothing_minds_is_benign_beside_a_bug(compare_tiny: Compare) -> None:
    def permuted(model: Any) -> None:
        attention = layer(model).self_attn
        queries, keys = (torch.arange(heads * 8).view(heads, 8).flip(0).reshape(-1) for heads in (4, 2))
        for name, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
            projection = getattr(attention, name)
            projection.weight.data = projection.weight.data[rows]
            projection.bias.data = projection.bias.data[rows]
        attention.o_proj.weight.data = attention.o_proj.weight.data[:, queries]

    found = compare_tiny(LOGIC, permuted, gate_and_up_swapped)
    assert found.divergences == ("model.layers.1.mlp",)
    assert found.own["model.layers.1.self_attn.q_proj"].benign


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_clean_port_passes(compare_tiny: Compare, dtype: str) -> None:
    for phase in phases_of(dtype):
        found = compare_tiny(phase)
        assert found.divergence is None
        other = {gate.name for gate in found.gates if gate.verdict is not Verdict.PASS}
        assert other <= {"cache.keys", "cache.values"}  # the model that stands in for a port hands out no cache


def rounded_elsewhere(norm: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """A root-mean-square norm that is right, and takes its rounding steps in another order than Hugging Face."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        scale = norm.weight / (x.float().square().sum(-1, keepdim=True) / x.shape[-1] + norm.variance_epsilon).sqrt()
        return (x * scale).to(x.dtype)

    return forward


def test_a_norm_may_round_elsewhere(compare_tiny: Compare) -> None:
    """Its error must be near Hugging Face's own: the reference rounds nothing that the yardstick rounds alike."""

    def rewritten(model: Any) -> None:
        for module in model.modules():
            if isinstance(module, llama.LlamaRMSNorm):
                module.forward = rounded_elsewhere(module)

    result = compare_tiny(LOGIC, rewritten)
    found = [tap for run in (result.taps, result.own) for tap in run.values()]
    assert {tap.verdict for tap in found} == {Verdict.PASS}
    assert max(tap.token_ratio for tap in found if tap.token_ratio is not None) < 1.4


def test_a_wrong_step_after_the_prefill_is_found(compare_tiny: Compare) -> None:
    def stale_positions(model: Any) -> None:
        def change(forward: Callable[..., Any]) -> Callable[..., Any]:
            def changed(x: Any, position_ids: Any) -> Any:
                return forward(x, position_ids if x.shape[1] > 1 else position_ids * 0)

            return changed

        wrap(model.model.rotary_emb, change)

    found = compare_tiny(LOGIC, stale_positions)
    assert found.divergence is None
    failed = {gate.name for gate in found.gates if gate.verdict is Verdict.FAIL}
    assert {"decode.error", "batch.error"} <= failed
    assert not {name for name in failed if name.startswith(("prefill", "taps"))}


def test_nan_is_found_where_it_begins(compare_tiny: Compare) -> None:
    found = compare_tiny(LOGIC, lambda model: layer(model).mlp.up_proj.weight.data.fill_(float("nan")))
    assert found.divergence == "model.layers.1.mlp.up_proj"
    assert "overflow" in found.causes[found.divergence][0].cause


def test_a_missing_module_is_named(compare_tiny: Compare) -> None:
    def renamed(model: Any) -> None:
        own = layer(model)
        own.mlp.projection = own.mlp.up_proj
        del own.mlp.up_proj
        own.mlp.forward = lambda x: own.mlp.down_proj(own.mlp.act_fn(own.mlp.gate_proj(x)) * own.mlp.projection(x))

    found = compare_tiny(LOGIC, renamed)
    assert found.divergence == "model.layers.1.mlp.up_proj"
    assert "model.layers.1.mlp.projection is extra" in next(g.reason for g in found.gates if g.name == "taps.paired")
