from __future__ import annotations

import torch

from trtllm_port.verification.judge.divergence import first_divergence, mark_benign
from trtllm_port.verification.judge.metrics import token_errors
from trtllm_port.verification.judge.tap_errors import TapComparison, compare_tap

ORDER = (
    "layer:input",
    "layer.attn:input",
    "layer.attn.q:input",
    "layer.attn.q",
    "layer.attn.o:input",
    "layer.attn.o",
    "layer.attn",
    "layer.mlp:input",
    "layer.mlp",
    "layer",
    "logits",
)
REFERENCE = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
FLOOR = token_errors(REFERENCE * (1 + 1e-7), REFERENCE)


def compared(wrong: dict[str, torch.Tensor]) -> dict[str, TapComparison]:
    return {tap: compare_tap(tap, wrong.get(tap, REFERENCE), REFERENCE, FLOOR, "float32") for tap in ORDER}


def wrong(*taps: str) -> dict[str, TapComparison]:
    return compared(dict.fromkeys(taps, REFERENCE * 1.01))


def test_nothing_wrong() -> None:
    assert first_divergence(ORDER, wrong()) is None


def test_the_deepest_module_with_a_clean_input() -> None:
    later = ORDER[ORDER.index("layer.attn.o:input") :]
    assert first_divergence(ORDER, wrong("layer.attn.q", *later)) == "layer.attn.q"


def test_the_parent_if_it_wires_its_children_wrongly() -> None:
    assert first_divergence(ORDER, wrong(*ORDER[ORDER.index("layer.attn.o:input") :])) == "layer.attn"


def test_the_layer_if_it_adds_wrongly() -> None:
    assert first_divergence(ORDER, wrong("layer", "logits")) == "layer"


def test_the_model_itself_if_only_the_logits_differ() -> None:
    assert first_divergence(ORDER, wrong("logits")) == ""


def test_an_input_that_is_not_tapped_is_no_excuse() -> None:
    taps = {tap: found for tap, found in wrong("layer.mlp", "layer", "logits").items() if tap != "layer.mlp:input"}
    assert first_divergence(ORDER, taps) == "layer"  # a module whose input is known comes first
    del taps["layer:input"], taps["layer"], taps["logits"]
    assert first_divergence(ORDER, taps) == "layer.mlp"


def test_permuted_features_that_nothing_sees_are_benign() -> None:
    marked = mark_benign(ORDER, compared({"layer.attn.q": REFERENCE.flip(-1)}))
    assert marked["layer.attn.q"].benign
    assert first_divergence(ORDER, marked) is None


def test_a_wrong_value_that_nothing_sees_is_not_benign() -> None:
    marked = mark_benign(ORDER, wrong("layer.attn.q"))
    assert first_divergence(ORDER, marked) == "layer.attn.q"


def test_a_permutation_that_is_seen_is_not_benign() -> None:
    marked = mark_benign(ORDER, compared({"layer.attn.q": REFERENCE.flip(-1), "layer.attn": REFERENCE * 1.01}))
    assert not marked["layer.attn.q"].benign
