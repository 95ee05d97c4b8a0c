"""Classes of configs and models that were written for older releases of transformers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from trtllm_port.errors import EnvironmentLackError
from trtllm_port.huggingface.caches import cache_argument, keeps_cache
from trtllm_port.huggingface.configs import whole_config
from trtllm_port.huggingface.loading import load_model, make_model
from trtllm_port.huggingface.models import load_config, require_causal_lm
from trtllm_port.huggingface.random_weights import save_random_checkpoint
from trtllm_port.huggingface.text_part import listed_class


@contextmanager
def known_types() -> Iterator[None]:
    """While it lasts, classes may be registered for a type that transformers knows; then they are forgotten."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    with (
        mock.patch.dict(CONFIG_MAPPING._extra_content),
        mock.patch.dict(MODEL_FOR_CAUSAL_LM_MAPPING._extra_content),
    ):
        yield


IDS = torch.tensor([[3, 4, 5]])


def test_a_config_has_what_all_had(odd_model: Callable[..., Path]) -> None:
    config = load_config(odd_model(), trust_remote_code=True)
    assert (config.use_cache, config.is_decoder, config.pad_token_id) == (True, False, None)
    assert config.rope_scaling is None  # the defaults are no scaling


def test_a_config_has_the_parameters_of_generation_and_saves_none_of_them(
    odd_model: Callable[..., Path], tmp_path: Path
) -> None:
    config = load_config(odd_model(), trust_remote_code=True)
    assert (config.max_length, config.num_beams) == (20, 1)
    config.save_pretrained(tmp_path / "saved")
    assert "max_length" not in (tmp_path / "saved" / "config.json").read_text()


def test_rope_scaling_is_spelled_as_it_was(odd_model: Callable[..., Path]) -> None:
    scaled = odd_model(config={"rope_scaling": {"type": "linear", "factor": 2.0}})
    config = load_config(scaled, trust_remote_code=True)
    assert config.rope_scaling == {"type": "linear", "rope_type": "linear", "factor": 2.0}


def test_a_config_class_need_not_name_its_type(odd_model: Callable[..., Path]) -> None:
    directory = odd_model(config={"model_type": "odd_without_type"})
    file = directory / "configuration_odd.py"
    file.write_text(file.read_text().replace('    model_type = "odd"\n', ""))
    config = load_config(directory, trust_remote_code=True)
    assert config.model_type == "odd_without_type"
    require_causal_lm(config, trust_remote_code=True)


@pytest.mark.parametrize(
    ("attributes", "init"),
    [
        ('_tied_weights_keys = ["head.weight"]', "self.post_init()"),
        ("", "self.post_init(); self.head.weight = self.embed.weight"),
        ("", "self.head.weight = self.embed.weight"),
        ("tie_weights = lambda self, **_: setattr(self.head, 'weight', self.embed.weight)", "self.post_init()"),
    ],
    ids=["a list", "not declared", "no post_init", "by itself"],
)
def test_tied_weights_are_saved_once_and_loaded_tied(
    odd_model: Callable[..., Path], tmp_path: Path, attributes: str, init: str
) -> None:
    directory = odd_model(attributes=attributes, init=init)
    require_causal_lm(load_config(directory, trust_remote_code=True), trust_remote_code=True)
    save_random_checkpoint(directory, tmp_path / "random", trust_remote_code=True)
    config = whole_config(tmp_path / "random", trust_remote_code=True)
    model, info = load_model(tmp_path / "random", config, torch.float32, trust_remote_code=True)
    assert not info["missing_keys"]
    assert torch.equal(model.head.weight, model.embed.weight)


@pytest.mark.parametrize(
    "result",
    ["logits", "(None, logits)", "[logits, states]", "{'hidden': states, 'logits': logits}"],
)
def test_logits_come_first_whatever_a_model_gives(odd_model: Callable[..., Path], result: str) -> None:
    forward = f"states = self.embed(tokens); logits = self.head(states); return {result}"
    config = load_config(odd_model(parameters="tokens, labels=None", forward=forward), trust_remote_code=True)
    require_causal_lm(config, trust_remote_code=True)
    output = make_model(config)(input_ids=IDS, use_cache=False)
    assert output.logits.shape == (1, 3, 31)
    assert next(value for value in output.values() if isinstance(value, torch.Tensor)) is output.logits


def test_functions_of_a_file_are_not_compiled(odd_model: Callable[..., Path]) -> None:
    """What is compiled computes behind the back of those who watch."""
    imports = """
@torch.jit.script
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x

@torch.compile(mode="max-autotune")
def thrice(x):
    return 3 * x
"""
    directory = odd_model(imports=imports, forward="return {'logits': thrice(twice(self.head(self.embed(input_ids))))}")
    found = require_causal_lm(load_config(directory, trust_remote_code=True), trust_remote_code=True)
    module = vars(sys.modules[found.__module__])
    assert [type(module[name]).__name__ for name in ("twice", "thrice")] == ["function", "function"]


def test_what_is_left_for_the_checkpoint_to_fill_is_the_same_anew(odd_model: Callable[..., Path]) -> None:
    directory = odd_model(init="self.gain = nn.Parameter(torch.empty(5)); self.post_init()")
    config = load_config(directory, trust_remote_code=True)
    require_causal_lm(config, trust_remote_code=True)
    assert torch.equal(make_model(config, trust_remote_code=True).gain, torch.ones(5))


def test_what_remote_code_prints_is_no_result_and_is_said_once(
    odd_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = odd_model(imports="print('imported')", init="print('made'); self.post_init()")
    config = load_config(directory, trust_remote_code=True)
    require_causal_lm(config, trust_remote_code=True)
    for _ in range(3):
        make_model(config)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.split().count("made") == captured.err.split().count("imported") == 1


def test_a_table_that_no_file_holds_is_made_anew(odd_model: Callable[..., Path], tmp_path: Path) -> None:
    init = (
        "self.register_buffer('table', torch.arange(5.0), persistent=False); "
        "self.plain = (torch.arange(3.0),); self.post_init()"
    )
    directory = odd_model(init=init)
    require_causal_lm(load_config(directory, trust_remote_code=True), trust_remote_code=True)
    save_random_checkpoint(directory, tmp_path / "random", trust_remote_code=True)
    config = whole_config(tmp_path / "random", trust_remote_code=True)
    model, _ = load_model(tmp_path / "random", config, torch.float32, trust_remote_code=True)
    assert torch.equal(model.table, torch.arange(5.0))
    assert torch.equal(model.plain[0], torch.arange(3.0))


def test_a_class_of_the_name_of_one_of_transformers_is_the_directorys_own(odd_model: Callable[..., Path]) -> None:
    directory = odd_model(config={"model_type": "llama"})
    for name in ("configuration_odd", "modeling_odd"):
        file = directory / f"{name}.py"
        file.write_text(file.read_text().replace("OddConfig", "LlamaConfig").replace('"odd"', '"llama"'))
    raw = directory / "config.json"
    raw.write_text(raw.read_text().replace("OddConfig", "LlamaConfig"))
    config = load_config(directory, trust_remote_code=True)
    assert listed_class(config) is None
    with known_types():
        with pytest.warns(UserWarning, match=r"`llama`.*the model's own code is taken"):
            found = require_causal_lm(config, trust_remote_code=True)
        assert listed_class(config) is found
    assert found.__name__ == "OddForCausalLM"


@pytest.mark.parametrize(
    ("imports", "forward", "keeps"),
    [
        ("", "past_key_values[0][0].shape", False),
        ("from transformers import Cache", "past_key_values[0][0].shape", False),
        (
            "from transformers import DynamicCache",
            "past_key_values.update(0, 1, past_key_values.get_seq_length())",
            True,
        ),
    ],
    ids=["a tuple", "a tuple, and a class for annotations", "a cache"],
)
def test_a_model_that_remembers_tuples_is_run_without_memory(
    odd_model: Callable[..., Path], imports: str, forward: str, keeps: bool
) -> None:
    directory = odd_model(imports=imports, parameters="input_ids, past_key_values=None", forward=forward)
    config = load_config(directory, trust_remote_code=True)
    require_causal_lm(config, trust_remote_code=True)
    model = make_model(config)
    assert keeps_cache(model) is keeps
    assert cache_argument(model) == "past_key_values"


def test_what_is_loaded_is_not_initialised_again(odd_model: Callable[..., Path], tmp_path: Path) -> None:
    directory = odd_model(
        attributes=(
            "_init_weights = lambda self, module: "
            "[p.data.normal_() for name, p in module.named_parameters() if name == 'head.weight']"
        ),
        init="self.register_buffer('table', torch.ones(2), persistent=False); self.post_init()",
    )
    require_causal_lm(load_config(directory, trust_remote_code=True), trust_remote_code=True)
    save_random_checkpoint(directory, tmp_path / "random", trust_remote_code=True)
    config = whole_config(tmp_path / "random", trust_remote_code=True)
    model, _ = load_model(tmp_path / "random", config, torch.float32, trust_remote_code=True)
    stored = load_file(tmp_path / "random" / "model.safetensors")["head.weight"]
    assert torch.equal(model.head.weight, stored.to(torch.float32))


def test_no_weight_of_a_new_model_is_what_memory_held(odd_model: Callable[..., Path]) -> None:
    directory = odd_model(
        attributes="_init_weights = lambda self, module: None",
        init="self.head = skip_init(nn.Linear, 8, 31); self.post_init()",
    )
    file = directory / "modeling_odd.py"
    file.write_text("from torch.nn.utils import skip_init\n" + file.read_text())
    config = load_config(directory, trust_remote_code=True)
    require_causal_lm(config, trust_remote_code=True)
    with mock.patch.object(torch, "empty_like", lambda like, **_: torch.full(like.shape, torch.nan)):
        model = make_model(config, trust_remote_code=True)
    assert bool(model.head.weight.isfinite().all())


def test_a_package_that_is_imported_late_is_named(odd_model: Callable[..., Path]) -> None:
    directory = odd_model(init="__import__('absent_package.part'); self.post_init()")
    config = load_config(directory, trust_remote_code=True)
    require_causal_lm(config, trust_remote_code=True)
    with pytest.raises(EnvironmentLackError, match="own code needs the package `absent_package`"):
        make_model(config)
