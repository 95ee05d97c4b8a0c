"""Keys that act only together, and expressions that fit by chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from trtllm_port.codegen import generate_port, proof
from trtllm_port.codegen.configs.mixing import changed, differing, mixed
from trtllm_port.codegen.configs.sizes import make_samples
from trtllm_port.codegen.proof import Tries, fewest
from trtllm_port.codegen.write.classes import ClassText, Skeleton, same_classes
from trtllm_port.codegen.write.ledger import Ledger

KEYS = [f"key_{number}" for number in range(12)]


@pytest.fixture(scope="module")
def samples() -> Any:
    return make_samples(transformers.LlamaConfig())


def test_sizes_of_several_configurations_in_one(samples: Any) -> None:
    base, found = mixed(samples, {"attention_bias": [True]}, random.Random(0), share=1.0)  # type: ignore[misc]
    assert found.config.attention_bias is True
    sizes = {key: found.values[key] for key in ("hidden_size", "intermediate_size", "head_dim", "vocab_size")}
    assert all(any(one.values[key] == size for one in samples.traced) for key, size in sizes.items())
    assert not any(all(one.values[key] == size for key, size in sizes.items()) for one in samples.traced)
    assert {"attention_bias"} <= differing(base, found).keys()


def test_what_hugging_face_does_not_run_is_none(samples: Any) -> None:
    assert changed(samples.traced[0], {"num_key_value_heads": 3}) is None
    assert changed(samples.traced[0], {"num_key_value_heads": 1}) is not None


@given(st.sets(st.sampled_from(KEYS), min_size=1), st.permutations(KEYS))
def test_exactly_those_that_fail_together_are_left(guilty: set[str], keys: list[str]) -> None:
    assert {*fewest([], keys, lambda some: guilty <= {*some})} == guilty


def test_what_is_there_in_any_case_is_not_named() -> None:
    assert fewest(["size"], KEYS, lambda some: {"size", "key_3"} <= {*some}) == ["key_3"]


def test_a_few_of_many_are_found_in_few_tries() -> None:
    tried: list[Sequence[str]] = []

    def fails(some: Sequence[str]) -> bool:
        tried.append(some)
        return {"key_3", "key_9"} <= {*some}

    fewest([], KEYS, fails)
    assert len(tried) < len(KEYS)


OPTIONS: dict[str, list[Any]] = {"attention_bias": [True], "mlp_bias": [True], "hidden_act": ["gelu"]}


class Unfollowed:
    """What is known of a model of which no port ever follows some keys, whatever it is refined for.

    Attributes:
        written: how often classes were.
    """

    def __init__(self, samples: Any, keys: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.small, self.options = samples, {key: [*values] for key, values in OPTIONS.items()}
        self.samples, self.classes, self.pinned, self.ledger = list[Any](), list[Any](), set[str](), Ledger()
        self.values = samples.traced[0].values
        self.keys, self.written = keys, 0
        monkeypatch.setattr(proof, "_untraced_problem", self.problem)

    def problem(self, found: Any, sample: Any, *, refine: bool = False) -> str | None:
        self.written += 1
        assert self.written < 100
        if self.keys.isdisjoint(differing(self.small.traced[0], sample)):
            return None
        self.classes = [] if refine else self.classes  # others
        return None if refine else "the classes are not the same"

    def write_classes(self, samples: Any) -> list[Any]:
        return []

    def prove(self, tries: Tries) -> None:
        base = self.small.traced[0]
        other = changed(base, {key: value for key, (value,) in OPTIONS.items()})
        assert other is not None
        proof._prove(self, base, other, tries)  # type: ignore[arg-type]


def test_a_key_that_is_never_followed_is_built_in(samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Unfollowed(samples, {"mlp_bias"}, monkeypatch)
    found.prove(Tries())
    assert found.ledger.fixed == {"mlp_bias": False}


def test_keys_are_narrowed_down_in_so_many_tries(samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Unfollowed(samples, {"mlp_bias", "attention_bias"}, monkeypatch)
    found.prove(Tries(1))
    assert found.ledger.fixed.keys() == OPTIONS.keys()  # one is suspected only
    for key in OPTIONS:
        assert f"{key}=" in found.ledger.notes[key]
        assert "which of these matter was not found out" in found.ledger.notes[key]
    assert found.written <= 1 + len(OPTIONS) + 1


def test_why_a_class_is_not_written_makes_no_other_class() -> None:
    def text(number: int, *lines: str, reason: str = "a size is") -> ClassText:
        why = f"{reason} {number}"
        message = f"raise NotImplementedError({why!r})"
        return ClassText("A", [*lines, message], set(), set(), set(), Skeleton("A", "a", why))

    assert same_classes([text(3, "x")], [text(4, "x")])
    assert not same_classes([text(3, "x")], [text(3, "y")])
    assert not same_classes([text(3, "x")], [text(3, "x", reason="a mask is")])
    assert not same_classes([ClassText("A", ["x"], set(), set(), set())], [ClassText("A", [], set(), set(), set())])


@pytest.mark.slow
def test_sizes_that_do_not_go_together_cost_no_option() -> None:
    """An odd number of rotary dimensions comes of mixing alone; it once built in a size, and what was tried before."""
    config = transformers.Phi3Config()
    found = generate_port(config).ledger
    places = [*found.used, *found.fixed, *found.ignored]
    assert len(places) == len({*places})
    assert {*config.to_dict()} <= {*places}
    assert {"num_key_value_heads", "hidden_act", "sliding_window", "tie_word_embeddings"} <= found.used.keys()
    assert not found.fixed


@pytest.mark.slow
def test_a_key_that_changes_nothing_alone_is_no_sign_of_two_that_act_together() -> None:
    """Where many keys differ at once, any of them tells that configuration from the others."""
    found = generate_port(transformers.BloomConfig())
    assert found.ledger.fixed == {"slow_but_exact": False}
    assert "pretraining_tp=2, slow_but_exact=True" in found.ledger.notes["slow_but_exact"]
    assert "bos_token_id" in found.ledger.ignored


@pytest.mark.slow
def test_a_number_that_two_sizes_do_not_share_is_not_printed() -> None:
    """A factor that an entry of a dict brings, at one size, is what any expression gives."""
    found = generate_port(transformers.DeepseekV3Config(rope_interleave=True))
    assert found.ledger.accepted["rope_parameters.mscale_all_dim"] == [None]
    assert "rope_type" not in found.files["model.py"]


@pytest.mark.slow
def test_keys_that_act_only_together_are_not_ignored() -> None:
    """A window without its switch changes nothing, nor does the switch without a window."""
    found = generate_port(transformers.Qwen3MoeConfig())
    assert {"use_sliding_window", "sliding_window"} & found.ledger.used.keys()
    assert not {"use_sliding_window", "sliding_window"} <= found.ledger.ignored.keys()
    assert "config.sliding_window" in found.files["model.py"]


@pytest.mark.slow
def test_a_scale_that_follows_the_entries_of_a_dict() -> None:
    rope = {
        **{"rope_type": "yarn", "rope_theta": 1e4, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0},
        "original_max_position_embeddings": 4096,
    }
    found = generate_port(transformers.DeepseekV3Config(rope_parameters=rope))
    assert not found.skeletons
    text = found.files["model.py"]
    assert '0.1 * config.rope_parameters["mscale_all_dim"] * math.log(config.rope_parameters["factor"]) + 1.0' in text
