"""Keys that act only together, and expressions that fit by chance."""

from __future__ import annotations

import random
from typing import Any

import pytest
import transformers

from trtllm_port.codegen import generate_port
from trtllm_port.codegen.configs.mixing import changed, differing, mixed
from trtllm_port.codegen.configs.sizes import make_samples


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
