"""A port in terms of another one defines the network that it defines on its own, in fewer lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from trtllm_port.codegen import PortSource
from trtllm_port.codegen.checked_port import port_class_of
from trtllm_port.codegen.write.ledger import Ledger
from trtllm_port.errors import WorkspaceError
from trtllm_port.porting.inheritance import base_texts, inherited, most_alike, require_base, taken_over
from trtllm_port.porting.write import write_port
from trtllm_port.registry.inheritance import packages_used
from trtllm_port.registry.ports import find_port
from trtllm_port.runtime.network.file import NetworkFile

GOLDEN = Path(__file__).parents[1] / "codegen" / "golden" / "llama"
FILES = {path.name: path.read_text() for path in GOLDEN.glob("*.py")}
TINY = {
    "architectures": ["PebbleForCausalLM"],
    "model_type": "llama",
    "vocab_size": 50,
    "tie_word_embeddings": True,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "attention_bias": True,
    "mlp_bias": False,
    "head_dim": 8,
}


def pebble(*edits: tuple[str, str]) -> PortSource:
    """A port as Llama's, but for some pieces of its texts."""
    files = {name: text.replace("Llama", "Pebble") for name, text in FILES.items()}
    for before, after in edits:
        assert any(before in text for text in files.values())
        files = {name: text.replace(before, after) for name, text in files.items()}
    return PortSource(
        name="pebble",
        architecture="PebbleForCausalLM",
        model_type="llama",
        port_class="PebbleForCausalLM",
        config_class="PebbleConfig",
        files=files,
        skeletons=(),
        ledger=Ledger(used={}, ignored={}, fixed={}),
        hf_class="PebbleForCausalLM",
    )


def without(field: str, value: str) -> tuple[tuple[str, str], ...]:
    """Edits: the config has no such field."""
    kind = re.search(rf"    {field}: .*\n", FILES["config.py"])
    assert kind is not None
    return (kind[0], ""), (f"config.{field}", value)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace that has Llama's port."""
    llama = pebble(("Pebble", "Llama"))
    llama = PortSource(**{**vars(llama), "name": "llama", "architecture": "LlamaForCausalLM"} | NAMES)
    write_port(llama, workspace=tmp_path, name="llama", test="")
    return tmp_path


NAMES = {"port_class": "LlamaForCausalLM", "config_class": "LlamaConfig"}


def network(source: PortSource, directory: Path) -> NetworkFile:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(TINY))
    with port_class_of(None, source, directory, "PebbleForCausalLM") as port_class:
        port: Any = port_class(port_class.config_class.from_hugging_face(directory, "float32"))
        port.load({name: torch.zeros(each.shape) for name, each in port.named_parameters()})
        return NetworkFile.from_network(port.define(max_seq_len=16))


def content(found: NetworkFile) -> dict[str, Any]:
    constants = {name: repr(constant) for name, constant in found.constants.items()}
    return vars(found) | {"constants": constants}


CHANGES: dict[str, tuple[tuple[tuple[str, str], ...], list[str]]] = {
    "nothing": (
        (),
        ["class PebbleForCausalLM(LlamaForCausalLM):\n    config_class = PebbleConfig\n    weight_map = WEIGHT_MAP\n"],
    ),
    "what a class computes": (
        (("self.up_proj(x))", "self.up_proj(x) * 2.0)"),),
        [
            "class PebbleMLP(LlamaMLP):\n    def forward(self, x: Tensor)",
            "        super().__init__(config, layer_idx)\n        self.mlp = PebbleMLP(config)\n\n",
            "        super().__init__(config)\n        self.layers = DecoderLayerList(PebbleDecoderLayer, config)\n\n",
        ],
    ),
    "a value that others are made with": (
        (("self.head_dim = config.head_dim", "self.head_dim = config.hidden_size // config.num_attention_heads"),),
        ["self.head_dim = config.hidden_size", "self.scaling = self.head_dim**-0.5", "self.k_proj = Linear("],
    ),
    "a part, to which a weight is tied": (
        (("Embedding(config.vocab_size, config.hidden_size)", "Embedding(config.vocab_size, config.hidden_size * 1)"),),
        ["self.lm_head.weight = self.model.embed_tokens.weight"],
    ),
    "a field that the config lacks": (
        without("attention_bias", "True"),
        ["super(LlamaAttention, self).__init__()", "self.layer_idx = layer_idx", "bias=True"],
    ),
}


@pytest.mark.parametrize(("edits", "there"), CHANGES.values(), ids=CHANGES)
def test_the_network_is_the_same(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory, edits: tuple[tuple[str, str], ...], there: list[str]
) -> None:
    own = pebble(*edits)
    like = taken_over(own, workspace, "llama")
    text = like.files["model.py"]
    assert [each for each in there if each not in text] == []
    assert len(text.splitlines()) < len(own.files["model.py"].splitlines())
    work = tmp_path_factory.mktemp("networks")
    expected, found = network(own, work / "own"), network(like, work / "like")
    assert content(found) == content(expected)


def test_what_is_taken_and_nothing_more_is_imported(workspace: Path) -> None:
    text = taken_over(pebble(("self.up_proj(x))", "self.up_proj(x) * 2.0)")), workspace, "llama").files["model.py"]
    assert "from trtllm_port.layers import DecoderLayerList, Tensor\n" in text
    assert "from ..llama.model import LlamaDecoderLayer, LlamaForCausalLM, LlamaMLP, LlamaModel\n" in text
    assert text.startswith(
        '"""Pebble for TensorRT: the network of Hugging Face\'s `PebbleForCausalLM`, as port `llama`'
    )


def in_terms_of(base: str) -> str:
    """The plain port in terms of a changed Llama."""
    own = pebble()
    text = inherited(own.files["model.py"], own.files["config.py"], {"llama": base}, like="llama")
    assert text is not None
    return text


def test_names_that_mean_something_else_are_not_shared() -> None:
    shadowed = FILES["model.py"].replace("    Activation,\n", "") + "\n\ndef Activation(name: str) -> None: ...\n"
    text = in_terms_of(shadowed)
    assert "class PebbleMLP(LlamaMLP):\n    def __init__(" in text
    assert "self.act_fn = Activation(config.hidden_act)" in text


def test_a_class_that_makes_more_is_no_base() -> None:
    more = FILES["model.py"].replace(
        "        self.act_fn = Act", "        self.gain = Linear(1, 1)\n        self.act_fn = Act"
    )
    text = in_terms_of(more)
    assert "super(LlamaMLP, self).__init__()\n        self.gate_proj = Linear(" in text


def test_a_base_whose_class_says_more_is_none() -> None:
    more = FILES["model.py"].replace(
        "class LlamaMLP(Module):", "class LlamaMLP(Module):\n    computed_elsewhere = {}\n"
    )
    text = in_terms_of(more)
    assert "class PebbleMLP(Module):" in text


def test_nothing_in_common_is_told(workspace: Path) -> None:
    own = pebble()
    other = PortSource(**{**vars(own), "files": {**own.files, "model.py": "class Pebble:\n    size = 1\n"}})
    with pytest.raises(WorkspaceError, match="no class in common with port `llama`"):
        taken_over(other, workspace, "llama")
    assert taken_over(other, workspace, "auto") == other


def test_the_port_that_leaves_least_is_found(workspace: Path) -> None:
    own = pebble(("self.up_proj(x))", "self.up_proj(x) * 2.0)"))
    found = most_alike(own, workspace)
    assert found is not None
    assert found[0] == "llama"
    alike = taken_over(own, workspace, "auto")
    assert alike.files["model.py"] == found[1]
    (workspace / "models" / "near").mkdir()
    near = own.files["model.py"].replace("Pebble", "Near")
    (workspace / "models" / "near" / "model.py").write_text(near)
    assert taken_over(own, workspace, "auto").like == "near"
    (workspace / "models" / "near" / "model.py").write_text("def (")
    assert taken_over(own, workspace, "auto").like == "llama"


@pytest.mark.parametrize(
    ("like", "told"),
    [("lama", "has no port `lama`: it has `llama`"), ("../llama", "has no port"), ("pebble", "has no port `pebble`")],
)
def test_a_port_that_is_not_there_is_told(workspace: Path, like: str, told: str) -> None:
    with pytest.raises(WorkspaceError, match=re.escape(told)):
        require_base(workspace, "pebble", like)


def test_a_heir(workspace: Path) -> None:
    """It is found with its base; the base cannot be replaced by what lacks the classes, nor be like its heir."""
    like = taken_over(pebble(("self.up_proj(x))", "self.up_proj(x) * 2.0)")), workspace, "llama")
    write_port(like, workspace=workspace, name="pebble", test="")
    before = find_port(workspace, "PebbleForCausalLM")
    assert [path.name for path in before.packages] == ["pebble", "llama"]
    assert list(base_texts(workspace, "pebble")) == ["pebble", "llama"]
    model = workspace / "models" / "llama" / "model.py"
    model.write_text(model.read_text() + "# edited\n")
    assert find_port(workspace, "PebbleForCausalLM").digest != before.digest
    with pytest.raises(WorkspaceError, match="`llama` cannot be like `pebble`, which takes classes from port `llama`"):
        require_base(workspace, "llama", "pebble")
    with pytest.raises(WorkspaceError, match="cannot be like `pebble`, which is the port itself"):
        require_base(workspace, "pebble", "pebble")
    bare = PortSource(**{**vars(pebble()), **NAMES, "architecture": "LlamaForCausalLM", "name": "llama"})
    bare.files["model.py"] = FILES["model.py"].replace("LlamaMLP", "LlamaFeedForward")
    with pytest.raises(WorkspaceError, match="port `pebble` takes `LlamaMLP` from port `llama`"):
        write_port(bare, workspace=workspace, name="llama", test="", force=True)
    assert model.read_text().endswith("# edited\n")


def test_packages_that_import_each_other_end(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.py").write_text(f"from ..{other}.model import X\n")
    assert [path.name for path in packages_used(tmp_path / "a")] == ["a", "b"]


def test_names_that_both_ports_have(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A class of ours that says something else is not taken for the other port's of that name."""
    own = pebble(("self.up_proj(x))", "self.up_proj(x) * 2.0)"), ("PebbleMLP", "LlamaAttention"))
    like = taken_over(own, workspace, "llama")
    work = tmp_path_factory.mktemp("networks")
    assert content(network(like, work / "like")) == content(network(own, work / "own"))
    text = like.files["model.py"]
    assert "class LlamaAttention(LlamaMLP):" in text
    assert "class PebbleAttention(Module):" in text  # the other port's `LlamaAttention` cannot be named here
