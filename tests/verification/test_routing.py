"""Mixtures of experts: ties are no failure, decisions that are not near a tie are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    DbrxConfig,
    DbrxForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    OlmoeConfig,
    OlmoeForCausalLM,
)

from tests.verification.conftest import TorchPort, stimulus
from trtllm_port.huggingface.random_weights import condition
from trtllm_port.verification.judge.routing import Routing, force_rows
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.phases.phase import PhaseResult, run_phase
from trtllm_port.verification.report.assembly import divergences_of
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.stimulus.precisions import phases_of
from trtllm_port.verification.taps.routers import routers_of

SCORES = torch.tensor([[5.0, 4.0, 1.0, 0.0], [3.0, 2.0, 1.99, 0.0], [1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)


def routed(scores: Tensor, experts: list[list[int]]) -> dict[str, Tensor]:
    indices = torch.tensor(experts)
    return {"gate": scores, "gate:1": scores.gather(-1, indices), "gate:2": indices, "gate:input": scores}


REFERENCE = routed(SCORES, [[0, 1], [0, 1], [3, 2]])
YARDSTICK = routed(SCORES + 0.01, [[0, 1], [0, 1], [3, 2]])


def judged(port: dict[str, Tensor]) -> tuple[dict[str, Any], Any]:
    routing = Routing(routers=routers_of(REFERENCE), reference=REFERENCE, yardstick=YARDSTICK)
    taps, (facts,) = routing.judge(port, "bfloat16")
    return taps, facts


def test_a_router_returns_integers_and_floats_of_the_same_shape() -> None:
    (router,) = routers_of(REFERENCE)
    assert (router.module, router.indices, router.weights, router.scores) == ("gate", "gate:2", ("gate:1",), "gate")
    assert routers_of({"embed": torch.zeros(1, 3, 4), "ids": torch.zeros(1, 3, dtype=torch.int64)}) == ()


def test_the_order_of_a_tokens_experts_does_not_matter() -> None:
    taps, facts = judged(routed(SCORES, [[1, 0], [0, 1], [2, 3]]))
    assert (facts.flips, facts.unused) == (0, ())
    assert {tap: found.verdict for tap, found in taps.items()} == {"gate:2": Verdict.PASS, "gate:1": Verdict.PASS}


def test_weights_gathered_by_forced_decisions_are_in_their_order() -> None:
    port = routed(SCORES, [[1, 0], [0, 1], [2, 3]])
    taps, _ = judged(port | {"gate:1": REFERENCE["gate:1"]})
    assert taps["gate:1"].ratio == 0.0
    swapped, _ = judged(port | {"gate:1": port["gate:1"].roll(1, 0)})
    assert swapped["gate:1"].diverged


def test_another_choice_near_a_tie_is_none_and_its_token_is_left_out() -> None:
    taps, facts = judged(routed(SCORES, [[0, 1], [0, 2], [3, 2]]))
    assert (facts.flips, facts.excused) == (1, 1)
    assert taps["gate:2"].verdict is Verdict.PASS
    assert "1 of 3 tokens choose other experts" in taps["gate:2"].note
    assert taps["gate:1"].verdict is Verdict.PASS


def test_a_clear_choice_of_others_fails() -> None:
    taps, facts = judged(routed(SCORES, [[0, 2], [0, 1], [3, 2]]))
    assert (facts.flips, facts.excused) == (1, 0)
    assert taps["gate:2"].diverged
    assert "not near a tie" in taps["gate:2"].note


UNEVEN = torch.tensor([[0.01], [0.01], [0.5]], dtype=torch.float64)  # the yardstick errs far more at one token


@pytest.mark.parametrize(
    ("lead", "error", "excused"),
    [(0.4, 0.2, 1), (0.4, 0.01, 0), (0.4, None, 0), (2.0, 2.0, 0)],
    ids=["the port errs there", "the port errs little", "unknown", "more than Hugging Face ever"],
)
def test_noise_that_hits_another_token_than_in_the_yardstick_is_noise(
    lead: float, error: float | None, excused: int
) -> None:
    scores = SCORES.clone()
    scores[1] = torch.tensor([5.0, 4.0, 4.0 - lead, 0.0])
    right, other = [[0, 1], [0, 1], [3, 2]], [[0, 1], [0, 2], [3, 2]]
    reference, yardstick = routed(scores, right), routed(scores + UNEVEN, right)
    port = routed(scores, other)
    if error is None:
        del port["gate"]
    else:
        port["gate"] = scores + torch.tensor([[0.01], [error], [0.01]])
    routing = Routing(routers=routers_of(reference), reference=reference, yardstick=yardstick)
    taps, (facts,) = routing.judge(port, "float16")
    assert (facts.flips, facts.excused) == (1, excused)
    assert taps["gate:2"].diverged is not bool(excused)


def test_wrong_weights_of_the_right_experts_fail() -> None:
    port = routed(SCORES, [[0, 1], [0, 1], [3, 2]])
    taps, _ = judged(port | {"gate:1": port["gate:1"] * 1.1})
    assert taps["gate:2"].verdict is Verdict.PASS
    assert taps["gate:1"].diverged


@pytest.mark.parametrize(
    ("dtype", "tokens", "expected"),
    [
        ("float16", 0, Verdict.PASS),
        ("float16", 2, Verdict.PASS),
        ("float16", 5, Verdict.WARN),
        ("float16", 9, Verdict.FAIL),
        ("bfloat16", 2, Verdict.PASS),
        ("float32", 2, Verdict.FAIL),  # nothing is rounded that much there
    ],
)
def test_a_few_tokens_may_be_beyond_a_threshold_within_a_router(dtype: str, tokens: int, expected: Verdict) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(200, 4, dtype=torch.float64, generator=generator) + 0.5
    right = scores.argsort(-1, descending=True)[:, :2].tolist()
    rounding = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-23}[dtype]
    noise = (rounding * torch.randn(200, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    reference = routed(scores, right)
    yardstick, port = (reference | {"gate:1": reference["gate:1"] * (1 + each)} for each in noise)
    port["gate:1"][:tokens] *= 1.7
    taps, _ = Routing(routers=routers_of(reference), reference=reference, yardstick=yardstick).judge(port, dtype)
    assert taps["gate:1"].verdict is expected
    assert (f"{tokens} of 200 tokens weigh" in taps["gate:1"].note) is (expected is not Verdict.FAIL and tokens > 0)


def test_weights_that_are_a_little_wrong_everywhere_are_no_thresholds() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(200, 4, dtype=torch.float64, generator=generator) + 0.5
    right = scores.argsort(-1, descending=True)[:, :2].tolist()
    reference = routed(scores, right)
    noise = 2.0**-11 * torch.randn(200, 2, dtype=torch.float64, generator=generator)
    yardstick = reference | {"gate:1": reference["gate:1"] * (1 + noise)}
    port = yardstick | {"gate:1": yardstick["gate:1"] * 1.01}
    port["gate:1"][0] *= 1.7
    taps, _ = Routing(routers=routers_of(reference), reference=reference, yardstick=yardstick).judge(port, "float16")
    assert taps["gate:1"].diverged


def weighed(scores: Tensor, experts: list[list[int]]) -> dict[str, Tensor]:
    """A router that returns the weights of all experts, zero of those not chosen, beside the scores."""
    indices = torch.tensor(experts)
    return {
        "gate": torch.zeros_like(scores).scatter(-1, indices, scores.gather(-1, indices).sigmoid()),
        "gate:1": scores,
    }


def judged_of_all(port: dict[str, Tensor]) -> tuple[Any, Any]:
    scores = SCORES + 0.5  # none is zero
    reference, yardstick = (weighed(each, [[0, 1], [0, 1], [3, 2]]) for each in (scores, scores + 0.01))
    routing = Routing(routers=routers_of(reference), reference=reference, yardstick=yardstick)
    taps, (facts,) = routing.judge(port, "bfloat16")
    return taps["gate"], facts


def test_weights_of_all_experts_are_a_choice() -> None:
    scores = SCORES + 0.5
    reference = weighed(scores, [[0, 1], [0, 1], [3, 2]])
    (router,) = routers_of(reference)
    assert (router.indices, router.taps, router.scores, router.chosen) == ("gate", ("gate",), "gate:1", 2)
    assert routers_of({**reference, "gate": reference["gate"].clamp(min=0.1)}) == ()
    assert routers_of({"gate": reference["gate"]}) == ()  # zeros alone tell no scores


@pytest.mark.parametrize(
    ("experts", "factor", "excused", "verdict"),
    [
        ([[0, 1], [0, 2], [3, 2]], 1.0, 1, Verdict.PASS),
        ([[0, 2], [0, 1], [3, 2]], 1.0, 0, Verdict.FAIL),
        ([[0, 1], [0, 1], [3, 2]], 1.1, 0, Verdict.FAIL),
        ([[0, 1, 2], [0, 1, 2], [3, 2, 1]], 1.0, 0, Verdict.FAIL),
    ],
    ids=["near a tie", "clearly others", "wrong weights", "one more"],
)
def test_a_choice_among_weights_of_all_experts(
    experts: list[list[int]], factor: float, excused: int, verdict: Verdict
) -> None:
    port = weighed(SCORES + 0.5, experts)
    tap, facts = judged_of_all(port | {"gate": port["gate"] * factor})
    assert (tap.verdict, facts.excused) == (verdict, excused)


def test_rows_of_a_padded_batch_get_their_own_routing() -> None:
    known = [{"gate:2": torch.tensor([[1, 2], [3, 4], [5, 6]])}, {"gate:2": torch.tensor([[7, 8]])}]
    forced = force_rows(known, "gate:2", torch.zeros(4, 2, dtype=torch.int32), [range(1, 3), range(2)])
    assert forced.tolist() == [[3, 4], [5, 6], [7, 8], [0, 0]]


def test_slots_behind_a_token_do_not_matter_whoever_chose_them() -> None:
    """Of three tokens the first sees one slot, the second two: there is nothing to choose before the third."""
    chosen = {"indexer": torch.tensor([[[0, 2], [1, 0], [2, 0]]], dtype=torch.int32)}
    (router,) = routers_of(chosen)
    assert (router.indices, router.weights, router.of_slots) == ("indexer", (), True)
    routing = Routing(routers=(router,), reference=chosen, yardstick=chosen)
    same, (facts,) = routing.judge({"indexer": torch.tensor([[[0, 1], [0, 1], [0, 2]]])}, "bfloat16")
    assert (facts.flips, facts.unused, same["indexer"].verdict) == (0, (), Verdict.PASS)
    many = torch.arange(40).expand(2, 40).T.reshape(1, 40, 2).contiguous()
    wide = {"indexer": many.clone()}
    wrong, (facts,) = Routing(routers=routers_of(wide), reference=wide, yardstick=wide).judge(
        {"indexer": torch.zeros_like(many)}, "bfloat16"
    )
    assert facts.flips == 39
    assert wrong["indexer"].diverged
    assert "39 of 40 tokens choose other slots" in wrong["indexer"].note


def test_what_chooses_all_slots_is_no_router_and_is_not_forced() -> None:
    everything = {"indexer": torch.zeros(1, 3, 3, dtype=torch.int32)}
    assert routers_of(everything) == ()
    own = torch.zeros(1, 3, 4, dtype=torch.int32)
    assert torch.equal(force_rows([everything], "indexer", own, [range(3)]), own)


def tiny_olmoe(dtype: str) -> OlmoeForCausalLM:
    config = OlmoeConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=160,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    model = OlmoeForCausalLM(config)
    condition(model)
    return model.to(getattr(torch, dtype)).eval()


def swap_weights(mlp: Any) -> None:
    """The router gives each expert the weight of another."""
    mlp.gate.register_forward_hook(lambda _module, _args, output: (output[0], output[1].flip(-1), *output[2:]))


def compare(dtype: str, change: Any = None) -> PhaseResult:
    phase = phases_of(dtype)[-1]
    model = tiny_olmoe(dtype)
    if change is not None:
        change(model.model.layers[1].mlp)
    return run_phase(phase, lambda each: HuggingFaceRunner(tiny_olmoe(each)), TorchPort(model), stimulus())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_clean_mixture_of_experts_passes(dtype: str) -> None:
    found = compare(dtype)
    prefill = {gate.name: gate.verdict for gate in found.gates if gate.name.startswith(("taps", "routing", "prefill"))}
    assert set(prefill.values()) == {Verdict.PASS}
    assert len(found.routing) == 2


def one_expert(mlp: Any) -> None:
    mlp.experts.down_proj.data[3] = mlp.experts.down_proj.data[2]


GATE, EXPERTS = "model.layers.1.mlp.gate", "model.layers.1.mlp.experts"


@pytest.mark.parametrize(
    ("change", "module", "cause"),
    [
        (lambda mlp: setattr(mlp.gate, "norm_topk_prob", True), GATE, "router.weights"),
        (lambda mlp: mlp.gate.weight.data.copy_(mlp.gate.weight.flip(0)), GATE, "weight.permuted"),
        (swap_weights, GATE, None),
        (lambda mlp: mlp.experts.down_proj.data.copy_(mlp.experts.down_proj.flip(0)), EXPERTS, "weight.permuted"),
        (one_expert, EXPERTS, "weight.permuted"),
    ],
    ids=["normalised", "router permuted", "weights swapped", "experts permuted", "one expert twice"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bug_is_placed_at_the_router_or_at_the_experts(dtype: str, change: Any, module: str, cause: str) -> None:
    found = compare(dtype, change)
    assert found.divergences == (module,)
    assert not any(" 1 times" in each.evidence for each in found.causes[module])
    if dtype == "float32" and cause is not None:
        assert (found.causes[module][0].id, found.causes[module][0].status) == (cause, "confirmed")


def test_a_router_is_told_by_its_further_outputs_alone() -> None:
    """What only the injected run sees, in a tensor that is not the first that the module returns."""
    found = compare("float32", lambda mlp: setattr(mlp.gate, "norm_topk_prob", True))
    (divergence,) = divergences_of([replace(found, taps={})], None)
    assert (divergence.module, divergence.tap) == ("model.layers.1.mlp.gate", "model.layers.1.mlp.gate:1")


def handed_on(dtype: str) -> DbrxForCausalLM:
    ffn = {"ffn_hidden_size": 24, "moe_num_experts": 8, "moe_top_k": 2, "hidden_size": 32}
    attention = {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}
    sizes = {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 160, "vocab_size": 96}
    config = DbrxConfig(**sizes, ffn_config=ffn, attn_config=attention, attn_implementation="eager")
    model = DbrxForCausalLM(config)
    condition(model)
    return model.to(getattr(torch, dtype)).eval()


def compare_handed_on(dtype: str, change: Any = None) -> PhaseResult:
    model = handed_on(dtype)
    if change is not None:
        change(model.transformer.blocks[1].ffn)
    return run_phase(
        phases_of(dtype)[-1], lambda each: HuggingFaceRunner(handed_on(each)), TorchPort(model), stimulus()
    )


def other_experts(ffn: Any) -> None:
    """The block chooses the least of the router's experts, with the weights of the largest."""
    right = ffn.route_tokens_to_experts
    ffn.route_tokens_to_experts = lambda logits: (right(logits)[0], right(-logits)[1])


def test_a_choice_made_between_router_and_experts_is_judged_at_the_experts() -> None:
    found = compare_handed_on("bfloat16")
    prefill = {gate.name: gate.verdict for gate in found.gates if gate.name.startswith(("taps", "routing", "prefill"))}
    assert set(prefill.values()) == {Verdict.PASS}
    assert [each.module for each in found.routing] == [f"transformer.blocks.{layer}.ffn.experts" for layer in range(2)]


@pytest.mark.parametrize(
    ("change", "tap"),
    [
        (other_experts, "experts:input:chosen"),
        (lambda ffn: setattr(ffn, "moe_normalize_expert_weights", None), "experts:input:weights"),
        (lambda ffn: ffn.router.layer.weight.data.copy_(ffn.router.layer.weight.flip(0)), "router"),
    ],
    ids=["other experts", "not normalised", "router permuted"],
)
def test_a_wrong_choice_between_router_and_experts_fails(change: Any, tap: str) -> None:
    assert compare_handed_on("bfloat16", change).taps[f"transformer.blocks.1.ffn.{tap}"].diverged


def weighing(dtype: str) -> Llama4ForCausalLM:
    sizes = {"hidden_size": 32, "intermediate_size": 24, "intermediate_size_mlp": 24, "head_dim": 8, "vocab_size": 96}
    counts = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 8}
    config = Llama4TextConfig(**sizes, **counts, num_experts_per_tok=2, attn_implementation="eager")
    model = Llama4ForCausalLM(config)
    condition(model)
    return model.to(getattr(torch, dtype)).eval()


@pytest.mark.parametrize(
    "change",
    [
        lambda router: router.weight.data.copy_(router.weight.flip(0)),
        lambda router: router.weight.data.neg_(),
        lambda router: setattr(router, "top_k", 3),
    ],
    ids=["permuted", "the least", "one more"],
)
def test_a_router_that_weighs_all_experts_is_judged_by_its_choice(change: Any) -> None:
    model = weighing("float16")

    def found() -> PhaseResult:
        return run_phase(
            phases_of("float16")[-1], lambda each: HuggingFaceRunner(weighing(each)), TorchPort(model), stimulus()
        )

    right = found()
    assert right.divergences == ()
    assert [each.module for each in right.routing] == [
        f"model.layers.{layer}.feed_forward.router" for layer in range(2)
    ]
    change(model.model.layers[1].feed_forward.router)
    assert found().divergences == ("model.layers.1.feed_forward.router",)
