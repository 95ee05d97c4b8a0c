"""Models that bring their own code, written as such code is: ported without a change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.codegen.own_code import (
    ASKED,
    BEYOND,
    BY_HAND,
    BY_TABLES,
    BY_TORCH,
    CACHED,
    COMMON,
    FLAT,
    IN_A_LOOP,
    IN_FLOAT32,
    INNER,
    MIXTURE,
    TABLES,
    TOKENS_FIRST,
    pebble,
    rewritten,
)
from trtllm_port.codegen import check_port, generate_port

CUT_OFF = "        scores = scores.clip(torch.finfo(scores.dtype).min, torch.finfo(scores.dtype).max)"


@pytest.mark.slow
@pytest.mark.parametrize(("attend", "model"), [(BY_HAND, INNER), (IN_FLOAT32, INNER), (BY_TORCH, FLAT)])
def test_new_ports_it(tmp_path: Path, attend: str, model: str) -> None:
    directory = pebble(tmp_path, COMMON.replace("@ATTEND@", attend) + model)
    port = generate_port(directory, trust_remote_code=True)
    assert not port.skeletons
    assert "rope_theta" in port.ledger.used
    assert "rotary_cosines(" in port.files["model.py"]
    check = check_port(directory, source=port, trust_remote_code=True)
    assert check.passed, check


@pytest.mark.slow
def test_masks_and_numbers_may_be_kept_as_tensors(tmp_path: Path) -> None:
    plain = "Attention(nn.Module):\n    def __init__(self, config):\n        super().__init__()\n"
    assert plain in COMMON
    source = COMMON.replace(plain, f"Attention({TABLES}").replace("@ATTEND@", BY_TABLES) + INNER
    directory = pebble(tmp_path, source)
    port = generate_port(directory, trust_remote_code=True)
    assert not port.skeletons
    assert "mask=causal_mask(position_ids, cache), scale=self.size**-0.5" in port.files["model.py"]
    assert "layers.*.attention.shown" in port.files["convert.py"]  # known, and dropped
    check = check_port(directory, source=port, trust_remote_code=True)
    assert check.passed, check


@pytest.mark.slow
def test_what_is_the_same_within_the_context_alone_is_not_followed(tmp_path: Path) -> None:
    source = COMMON.replace("@ATTEND@", BY_TORCH) + FLAT
    changes = (("self.theta))", "self.base(tokens.shape[1])))"), ("\n    def forward(self, tokens):", BEYOND))
    assert [source.count(usual) for usual, _ in changes] == [1, 1]
    source = rewritten(source, changes)
    rope = {"rope_type": "default", "rope_theta": 20000.0}
    port = generate_port(pebble(tmp_path, source, rope_parameters=rope), trust_remote_code=True)
    assert not port.skeletons
    assert 'OneOf("default"' in port.files["config.py"]
    assert '"dynamic"' not in port.files["config.py"]


@pytest.mark.slow
def test_tables_and_a_scale_may_follow_a_dict_as_it_was_spelled(tmp_path: Path) -> None:
    """The config's class is another copy than the one that the modelling file imports."""
    factor = 'config.rope_scaling["factor"]'
    scale = f"        self.scale = (0.1 * math.log({factor}) + 1.0) ** 2\n"
    source = rewritten(
        COMMON.replace("@ATTEND@", BY_HAND) + INNER,
        (
            ("configuration_pebble", ".configuration_pebble"),
            ("size, theta):", "size, theta, factor):"),
            ("torch.arange(length).float()", "torch.arange(length).float() / factor"),
            ("config.rope_theta)", f"config.rope_theta, {factor})"),
            ("        self.query = ", scale + "        self.query = "),
            ("math.sqrt(self.size) + mask", "math.sqrt(self.size) * self.scale + mask\n" + CUT_OFF),
        ),
    )
    directory = pebble(tmp_path, source, rope_scaling={"type": "linear", "factor": 4.0})
    port = generate_port(directory, trust_remote_code=True)
    assert not port.skeletons
    text = port.files["model.py"]
    assert 'math.log(config.rope_parameters["factor"])' in text
    assert "rotary_cosines(position_ids" in text
    assert "self.config.rope_parameters)" in text
    check = check_port(directory, source=port, trust_remote_code=True)
    assert check.passed, check


@pytest.mark.slow
def test_tokens_may_be_the_first_dimension(tmp_path: Path) -> None:
    source = rewritten(COMMON.replace("@ATTEND@", BY_TORCH) + FLAT, TOKENS_FIRST.items())
    directory = pebble(tmp_path, source)
    port = generate_port(directory, trust_remote_code=True)
    assert not port.skeletons
    assert port.files["model.py"].count("rotary_cosines(") == 1  # for queries and keys
    check = check_port(directory, source=port, trust_remote_code=True)
    assert check.passed, check


@pytest.mark.slow
def test_a_cache_that_is_given_back_as_a_tuple(tmp_path: Path) -> None:
    source = rewritten(COMMON.replace("@ATTEND@", BY_HAND) + FLAT, CACHED.items())
    directory = pebble(tmp_path, source)
    port = generate_port(directory, trust_remote_code=True)
    assert not port.skeletons
    check = check_port(directory, source=port, trust_remote_code=True)
    assert check.passed, check


@pytest.mark.slow
@pytest.mark.parametrize("asked", [ASKED, IN_A_LOOP], ids=["by a method", "in a loop"])
def test_experts_in_a_list_are_the_layer_of_experts(tmp_path: Path, asked: str) -> None:
    """The class that is called like one of ours has another name in the port, which imports ours."""
    directory = pebble(
        tmp_path, COMMON.replace("@ATTEND@", BY_TORCH) + MIXTURE.replace(ASKED, asked),
        num_experts=6, num_experts_per_tok=2, moe_intermediate_size=48,
    )  # fmt: skip
    port = generate_port(directory, trust_remote_code=True)
    text = port.files["model.py"]
    assert "self.experts = Experts(config.hidden_size, config.moe_intermediate_size, config.num_experts" in text
    assert "class PebbleEmbedding(Module):" in text
    assert 'Transform("layers.*.mixture.experts.down_proj", [Stack(0)])' in port.files["convert.py"]
    check = check_port(directory, source=port, trust_remote_code=True)
    assert check.passed, check
