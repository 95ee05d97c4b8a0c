"""Models that are read layer by layer: the same numbers, less memory, and what is left out is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.testing import assert_close
from transformers import GPT2Config, LlamaConfig, MixtralConfig, Qwen3Config

from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.random_weights import save_random_checkpoint
from trtllm_port.layers.weights import HuggingFaceWeights, MappingWeights
from trtllm_port.porting.create import create_port
from trtllm_port.verification import DiffSettings, Verdict, diff, diff_layers
from trtllm_port.verification.experiments.judge import replay
from trtllm_port.verification.phases import large_models as large
from trtllm_port.verification.phases import lockstep as in_step
from trtllm_port.verification.phases.lockstep_taps import AlteredError
from trtllm_port.verification.phases.phase import run_phase
from trtllm_port.verification.sides import streamed_model as streamed
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.hugging_face_sides import HuggingFaceFacts
from trtllm_port.verification.sides.mapped_weights import give_back
from trtllm_port.verification.sides.preparation import find_model
from trtllm_port.verification.taps.store import TapStore

IDS = torch.arange(40)[None] % 90
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96}
CONFIGS = [
    LlamaConfig(**SIZES, intermediate_size=48, num_hidden_layers=3),
    Qwen3Config(**SIZES, intermediate_size=48, num_hidden_layers=2, head_dim=8, tie_word_embeddings=True),
    GPT2Config(n_embd=32, n_head=4, n_layer=2, vocab_size=96),
]


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGE_BYTES", 0)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_a_model_gives_the_same_layer_by_layer(tmp_path: Path, config: LlamaConfig, dtype: str) -> None:
    save_random_checkpoint(config, tmp_path, "bfloat16")
    whole, runner = HuggingFaceRunner.load(tmp_path, dtype), HuggingFaceRunner.stream(tmp_path, dtype)
    first, again = runner.run(IDS), runner.run(IDS)
    assert torch.equal(whole.run(IDS), first)
    assert torch.equal(first, again)
    assert all(parameter.is_meta for parameter in runner.model.parameters())
    vectors = HuggingFaceFacts.of(runner).vectors
    assert all(torch.equal(vectors[name], value) for name, value in HuggingFaceFacts.of(whole).vectors.items())


def test_weights_are_cast_as_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "PIECE_BYTES", 7 * 32)
    layer = nn.Linear(4, 10).bfloat16().requires_grad_(False)
    wide = nn.Linear(4, 10).requires_grad_(False)
    wide.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 4)
    with streamed.CastAsUsed(torch.float32):
        assert_close(layer(x), wide(x))
        assert_close(layer.weight @ x.mT, wide.weight @ x.mT)
        assert_close(x @ layer.weight.T, x @ wide.weight.T)
        assert torch.equal(functional.embedding(torch.tensor([3, 1]), layer.weight), wide.weight[[3, 1]])
        assert (layer.weight.dtype, layer.weight.shape) == (torch.float32, (10, 4))
        with pytest.raises(RuntimeError, match="same dtype"):
            layer(x.double())
    assert layer.weight.dtype == torch.bfloat16


def test_known_bugs_are_replayed_on_weights_that_are_cast_as_they_are_used(tmp_path: Path) -> None:
    save_random_checkpoint(CONFIGS[0], tmp_path, "bfloat16")
    stored = HuggingFaceWeights(tmp_path)
    weights = MappingWeights({name: stored.tensor(name).float() for name in stored.names()})
    runner = HuggingFaceRunner.stream(tmp_path, "float64", weights=weights)
    path = "model.layers.0.self_attn.q_proj"
    taps: dict[str, torch.Tensor] = {}
    runner.run(IDS, on_tap=taps.__setitem__)
    for name, edit in {
        "weight.neighbour": lambda: weights.tensor(path.replace("0", "1") + ".weight"),
        "weight.transposed": lambda: weights.tensor(path + ".weight").T,
        "weight.scale": lambda: weights.tensor(path + ".weight") * 3,
    }.items():
        bug = taps[path + ":input"] @ edit().double().T
        assert replay(runner, IDS[0].tolist(), path, [(path, bug, 1e-7)])[0].hypothesis.id == name
    assert torch.equal(runner.run(IDS), HuggingFaceRunner.load(tmp_path, "float64").run(IDS))


def test_only_memory_of_mapped_files_is_given_back(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(1 << 20)}, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        mapped = file.get_tensor("weight")
    stacked = torch.stack([mapped, mapped])
    give_back([mapped, stacked, torch.ones(3)])
    assert mapped.sum() == 1 << 20  # read again from the file
    assert stacked.sum() == 2 << 20


@pytest.mark.slow
@pytest.mark.usefixtures("everything_is_large")
def test_a_large_model_whose_experts_are_stacked_when_loaded_is_refused(tmp_path: Path) -> None:
    sizes = SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2}
    config = MixtralConfig(**sizes, intermediate_size=48, num_hidden_layers=3, dtype="bfloat16")
    save_random_checkpoint(config, tmp_path / "model", "bfloat16")
    create_port(tmp_path / "model", workspace=tmp_path / "workspace")
    with pytest.raises(UnsupportedModelError, match="cannot be read layer by layer"):
        diff_layers(tmp_path / "model", workspace=tmp_path / "workspace", settings=DiffSettings(tokens=150))


def test_tensors_of_other_names_are_refused(tmp_path: Path) -> None:
    save_random_checkpoint(CONFIGS[0], tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"model.norm.weight", b"model.mron.weight"))
    with pytest.raises(UnsupportedModelError, match=r"`model\.norm\.weight` is no tensor of the checkpoint"):
        HuggingFaceRunner.stream(tmp_path, "float32")


def test_taps_on_disk_are_what_was_put_there() -> None:
    store = TapStore()
    values = {"a": torch.randn(2, 3), "b": torch.randn(4).bfloat16(), "c": torch.tensor([[1, 2]])}
    for name, value in values.items():
        store[name] = value
    written = values["a"].clone()
    values["a"].add_(1)  # a later change is not seen, a new value under the same tensor is
    store["d"] = values["a"]
    assert torch.equal(store["a"], written)
    assert torch.equal(store["d"], values["a"])
    assert store["b"].dtype == torch.bfloat16
    assert store.like["c"].is_meta
    assert list(store) == ["a", "b", "c", "d"]


@pytest.mark.usefixtures("everything_is_large")
def test_a_large_port_passes_and_what_is_left_out_is_said(model_dir: Path, workspace: Path, tmp_path: Path) -> None:
    source = in_bfloat16(model_dir, tmp_path / "bfloat16")
    report = diff_layers(source, workspace=workspace, settings=DiffSettings(tokens=150))
    assert (report.verdict, report.subject.dtype) == (Verdict.PASS, "bfloat16")
    assert "layer by layer" in report.reference["precision"]
    assert "batch" in {gate.name for gate in report.gates if gate.verdict is Verdict.SKIPPED}
    left_out = [item.what for item in report.not_exercised]
    assert "the logic phase in the layers 2 to 2" in left_out
    assert "the batch in all layers" in left_out


@pytest.mark.usefixtures("everything_is_large")
def test_sides_in_step_find_what_they_find_one_after_another(
    model_dir: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = in_bfloat16(model_dir, tmp_path / "bfloat16")
    settings = DiffSettings(tokens=in_step.OWN_TOKENS)
    monkeypatch.setattr(diff, "run_phase_in_step", run_phase)
    apart = diff_layers(source, workspace=workspace, settings=settings)
    monkeypatch.setattr(diff, "run_phase_in_step", in_step.run_phase_in_step)
    monkeypatch.setattr(in_step, "run_phase", None)  # in step from the first layer to the last
    together = diff_layers(source, workspace=workspace, settings=settings)
    assert (together.verdict, apart.verdict) == (Verdict.PASS, Verdict.PASS)
    assert [tap.name for tap in together.taps] == [tap.name for tap in apart.taps]
    assert [gate.name for gate in together.gates] == [gate.name for gate in apart.gates]
    for one, other in zip(together.taps, apart.taps, strict=True):
        metrics = [tap.metrics for tap in (one, other) if tap.metrics is not None]
        assert len({each["floor"] for each in metrics}) <= 1
        ratios = [each["ratio"] for each in metrics]  # the port multiplies the rows of all its runs at once
        assert not ratios or ratios[0] == pytest.approx(ratios[1], rel=0.1)


@pytest.mark.parametrize(
    ("failures", "ran"),
    [
        ([AlteredError], [True, False]),
        ([AlteredError, AlteredError], [True, False, "one after another"]),
        ([in_step.NotInStep], [True, "one after another"]),
    ],
)
def test_what_does_not_do_is_run_more_carefully(
    monkeypatch: pytest.MonkeyPatch, failures: list[type[Exception]], ran: list[bool | str]
) -> None:
    tried: list[bool | str] = []

    class Failing:
        def __init__(self, *_sides: object) -> None: ...

        def run(self, whole_layers: bool) -> str:
            tried.append(whole_layers)
            if len(tried) <= len(failures):
                raise failures[len(tried) - 1]
            return "result"

    monkeypatch.setattr(in_step, "_InStep", Failing)
    monkeypatch.setattr(in_step, "run_phase", lambda *_sides: tried.append("one after another"))
    in_step.run_phase_in_step(*[None] * 5)
    assert tried == ran


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize(
    ("old", "new", "module"),
    [
        ("silu(self.gate_proj(x)) * self.up_proj(x)", "silu(self.up_proj(x)) * self.gate_proj(x)", "layers.0.mlp"),
        ("config.rms_norm_eps)\n        self.post", "1e-4)\n        self.post", "layers.0.input_layernorm"),
    ],
)
def test_a_bug_in_a_large_port_is_found(
    model_dir: Path, workspace: Path, tmp_path: Path, edit: Callable[[str, str], None], old: str, new: str, module: str
) -> None:
    edit(old, new)
    source = in_bfloat16(model_dir, tmp_path / "bfloat16")
    report = diff_layers(source, workspace=workspace, settings=DiffSettings(tokens=150))
    assert report.first_divergence == f"model.{module}"
    assert [each.module for each in report.divergences] == [f"model.{module}", f"model.{module}".replace("0", "1")]


@pytest.mark.usefixtures("everything_is_large")
def test_a_large_port_that_forgets_the_past_is_found(
    model_dir: Path, workspace: Path, tmp_path: Path, edit: Callable[[str, str], None]
) -> None:
    edit(
        "self.rotary_emb(hidden_states, position_ids)",
        "self.rotary_emb(hidden_states, position_ids - position_ids[:, 0:1])",
    )
    source = in_bfloat16(model_dir, tmp_path / "bfloat16")
    report = diff_layers(source, workspace=workspace, settings=DiffSettings(tokens=150))
    assert (report.verdict, report.first_divergence) == (Verdict.FAIL, "model.rotary_emb")
    assert "precision" in {gate.phase for gate in report.gates if gate.name == "decode.error"}
    assert all(gate.verdict is Verdict.FAIL for gate in report.gates if gate.name == "decode.error")


def test_all_at_once_is_what_the_runs_give_by_themselves(model_dir: Path, workspace: Path, tmp_path: Path) -> None:
    model = find_model(model_dir, tmp_path, DiffSettings(), workspace=workspace, dtype="float32")
    port = large.open_mapped(model, "float32", length=40, rows=1)
    ids, seen = IDS[0].tolist(), ([], [])
    whole, begun, decoded, cache = port.run_all(
        ids, 30, 10, observers=tuple(partial(_keep, kept) for kept in seen), taps=["model.layers.1"]
    )
    assert_close(whole, port.run(IDS))
    assert_close(begun, port.run(IDS[:, :10]))
    kept: dict[str, torch.Tensor] = {}
    assert_close(decoded, port.run_incrementally([ids], [30], keep=kept)[0])
    assert all(torch.allclose(cache[name], kept[name], atol=1e-5) for name in kept)
    assert [each.shape[1] for kept in seen for each in kept] == [40, 10]


def _keep(kept: list[torch.Tensor], _tap: str, tensor: torch.Tensor) -> None:
    kept.append(tensor)


def test_the_first_layers_show_every_kind(model_dir: Path, tmp_path: Path, workspace: Path) -> None:
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    sizes = {**SIZES, "intermediate_size": 48, "num_hidden_layers": 4, "head_dim": 8}
    config = Qwen3Config(**sizes, layer_types=kinds, use_sliding_window=True, sliding_window=16)
    save_random_checkpoint(config, tmp_path / "model")
    model = find_model(model_dir, tmp_path, DiffSettings(), workspace=workspace, dtype="float32")
    part = large.first_layers(replace(model, source=tmp_path / "model", config=config.to_dict()), tmp_path)
    runner = HuggingFaceRunner.stream(part.source, "float32", weights=part.in_memory)
    assert runner.run(IDS).isfinite().all()
    assert runner.model.config.layer_types == kinds[:3]
    assert len(runner.model.model.layers) == 3


def in_bfloat16(model_dir: Path, target: Path) -> Path:
    """A copy of the tiny model with three layers, in bfloat16."""
    config = LlamaConfig.from_pretrained(model_dir)
    config.num_hidden_layers = 3
    config.dtype = "bfloat16"
    save_random_checkpoint(config, target, "bfloat16")
    return target
