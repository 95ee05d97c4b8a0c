"""A port is stale where it was written from something else; whether that computes something else is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from trtllm_port.codegen.operation_record import operation_record, traced_config
from trtllm_port.errors import WorkspaceError
from trtllm_port.foundation.digests import file_digest
from trtllm_port.huggingface.loading import make_on_paper
from trtllm_port.huggingface.models import load_config, source_files
from trtllm_port.porting import staleness
from trtllm_port.porting.staleness import Staleness, check_ports, written_from
from trtllm_port.registry.manifest import RECORD, manifest_text

SIZES = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=61,
)
CONFIGURATION = """\
from transformers import LlamaConfig


class OwnConfig(LlamaConfig):
    model_type = "own"
"""
MODELLING = """\
import torch.nn.functional as F
from torch import nn
from transformers import LlamaForCausalLM

from .configuration_own import OwnConfig


class OwnMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        gate = F.silu(self.gate_proj(x))
        return self.down_proj(gate * self.up_proj(x))


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = OwnMLP(config)
"""
Written = Callable[..., Path]


@pytest.fixture
def workspace(llama_workspace: Path, tmp_path: Path) -> Path:
    shutil.copytree(llama_workspace / "models", tmp_path / "workspace" / "models")
    return tmp_path / "workspace"


def write_record(workspace: Path, config: Any, model_dir: Path, *, own_code: bool = False) -> Path:
    """What `new` writes beside a port, of a model of this config; returns the path of `port.json`."""
    traced = traced_config(config, config.architectures[0], {"attention_bias": True})
    package = workspace / "models" / "llama"
    model = make_on_paper(config, trust_remote_code=own_code)
    sources = {name: file_digest(path) for name, path in source_files(model).items()}
    facts = {"config": dict(traced.values), "changes": dict(traced.changes)}
    facts |= written_from(sources, model_dir, own_code=own_code)
    origin = {"name": "llama", "model_type": config.model_type, "transformers": staleness.version("transformers")}
    (package / RECORD).write_text(operation_record(traced, code=model_dir if own_code else None), encoding="utf-8")
    (package / "port.json").write_text(manifest_text(origin=origin | {"traced": facts}, files={}), encoding="utf-8")
    return package / "port.json"


@pytest.fixture
def manifest(workspace: Path, tmp_path: Path) -> Path:
    """`port.json` of a port of a Llama, as it is in transformers."""
    return write_record(workspace, LlamaConfig(**SIZES, architectures=["LlamaForCausalLM"]), tmp_path)


@pytest.fixture
def own_model(workspace: Path, tmp_path: Path) -> Path:
    """The directory of a model that brings its own code, from which the port was written."""
    directory = tmp_path / "own"
    directory.mkdir()
    (directory / "configuration_own.py").write_text(CONFIGURATION)
    (directory / "modeling_own.py").write_text(MODELLING)
    names = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    values = {**SIZES, "model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": names}
    (directory / "config.json").write_text(json.dumps(values))
    write_record(workspace, load_config(directory, trust_remote_code=True), directory, own_code=True)
    return directory


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def only(workspace: Path, *, trust_remote_code: bool = False) -> Staleness:
    (found,) = check_ports(workspace, trust_remote_code=trust_remote_code)
    return found


def test_a_port_is_current_where_nothing_differs_and_nothing_is_traced(
    workspace: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtllm_port.codegen.operation_record", None)
    assert only(workspace).state == "current"


def test_another_release_that_computes_the_same(workspace: Path, manifest: Path) -> None:
    now = staleness.version("transformers")
    edit(manifest, f'"transformers": "{now}"', '"transformers": "5.1.0"')
    found = only(workspace)
    assert (found.state, found.stale, found.diff) == ("unchanged", True, "")
    assert found.because == (f"transformers 5.1.0 → {now}",)


def test_a_modelling_file_that_computes_something_else(
    workspace: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "transformers/models/llama/modeling_llama.py"
    digest = json.loads(manifest.read_text())["traced"]["sources"][name]
    edit(manifest, digest, "xxh3_128:0")

    def forward(self: Any, x: Any) -> Any:
        return self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x))

    monkeypatch.setattr(LlamaMLP, "forward", forward)
    found = only(workspace)
    assert found.state == "changed"
    assert found.because == (f"`{name}` has changed",)
    changed = [line for line in found.diff.splitlines() if line[:1] in "+-"]
    assert "-    act_fn = self.act_fn(gate_proj): Activation(silu)" in changed
    assert "+    act_fn = self.act_fn(up_proj): Activation(silu)" in changed
    assert not any("q_proj" in line for line in changed)


def test_own_code_whose_comments_have_changed(workspace: Path, own_model: Path) -> None:
    edit(own_model / "modeling_own.py", "gate = F.silu", "# a comment\n        opened = F.silu")
    edit(own_model / "modeling_own.py", "(gate * ", "(opened * ")
    found = only(workspace, trust_remote_code=True)
    assert found.because == ("`modeling_own.py` has changed",)
    assert (found.state, found.diff) == ("unchanged", "")


def test_own_code_that_computes_something_else(workspace: Path, own_model: Path) -> None:
    edit(own_model / "modeling_own.py", "F.silu", "F.relu")
    found = only(workspace, trust_remote_code=True)
    assert found.state == "changed"
    assert "relu" in found.diff


def test_own_code_is_not_run_unasked_and_may_be_gone(workspace: Path, own_model: Path) -> None:
    assert only(workspace).state == "current"  # digests alone
    edit(own_model / "modeling_own.py", "F.silu", "F.relu")
    found = only(workspace)
    assert (found.state, found.stale) == ("unknown", True)
    assert "--trust-remote-code" in found.because[-1]
    shutil.rmtree(own_model)
    found = only(workspace, trust_remote_code=True)
    assert found.state == "unknown"
    assert "is gone" in found.because[-1]


def test_code_that_can_no_longer_be_traced(workspace: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(manifest, '"transformers": "', '"transformers": "0.')

    def forward(self: Any, x: Any) -> Any:
        raise RuntimeError("a new release")

    monkeypatch.setattr(LlamaMLP, "forward", forward)
    found = only(workspace)
    assert (found.state, found.stale) == ("unknown", True)
    assert "a new release" in found.because[-1]


def test_another_tensorrt_has_the_port_checked_again(
    workspace: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staleness, "flavour_version", lambda flavour: "9.9" if flavour == "tensorrt_rtx" else None)
    found = only(workspace)
    assert found.state == "unchanged"
    (because,) = found.because
    assert because.startswith("tensorrt_rtx ")
    assert because.endswith(" → 9.9")
    edit(workspace / "models" / "llama" / "model.py", ") * self.up_proj(x)", ") + self.up_proj(x)")
    assert only(workspace).state == "unknown"


def test_ports_without_a_record_are_told(workspace: Path, manifest: Path) -> None:
    (manifest.parent / RECORD).unlink()
    found = only(workspace)
    assert (found.state, found.stale) == ("unknown", False)
    assert "no record" in found.because[0]
    manifest.unlink()
    found = only(workspace)
    assert (found.state, found.because) == ("unknown", ("it was written by hand",))


@pytest.mark.parametrize("traced", ['"some text"', '{"sources": []}', '{"own_code": 1}'])
def test_a_damaged_port_json_is_told(traced: str, workspace: Path, manifest: Path) -> None:
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(values | {"traced": json.loads(traced)}))
    with pytest.raises(WorkspaceError, match="is not what `trtllm-port new` writes"):
        check_ports(workspace)
