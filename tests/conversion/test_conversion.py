from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trtllm_port.conversion import ConvertResult, convert_checkpoint
from trtllm_port.conversion import pipeline as pipeline_module
from trtllm_port.errors import CheckpointError, ConfigError, DiskSpaceError, PortError, RegistryError
from trtllm_port.foundation.digests import file_digest
from trtllm_port.layers import Mapping


@pytest.fixture
def model_dir(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    copy = tmp_path / "model"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((tiny_llama / name).read_bytes())
    return copy


def rewrite(model_dir: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors (by name with `__` for `.`), or drop those that are None."""
    path = model_dir / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, path, metadata={"format": "pt"})


def shard(model_dir: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(model_dir / "model.safetensors")
    (model_dir / "model.safetensors").unlink()
    weight_map = {}
    for number in range(3):
        part = {name: tensors[name] for name in sorted(tensors)[number::3]}
        file = f"model-{number + 1:05}-of-00003.safetensors"
        save_file(part, model_dir / file)
        weight_map |= dict.fromkeys(part, file)
    (model_dir / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tensors


def convert(model_dir: Path, workspace: Path, dtype: str = "auto") -> tuple[ConvertResult, dict[str, torch.Tensor]]:
    result = convert_checkpoint(model_dir, model_dir.parent / "ckpt", workspace=workspace, dtype=dtype)
    return result, load_file(result.output_dir / "rank0.safetensors")


def assert_nothing_left(model_dir: Path) -> None:
    assert [path.name for path in model_dir.parent.iterdir()] == ["model"]


def test_every_tensor_arrives_unchanged(model_dir: Path, llama_workspace: Path) -> None:
    result, made = convert(model_dir, llama_workspace)
    source = load_file(model_dir / "model.safetensors")
    assert made.keys() == source.keys()
    assert all(torch.equal(made[name], source[name]) for name in source)
    assert (result.tensors, result.dtype, result.ranks) == (len(source), "float32", 1)
    assert result.size == sum(tensor.nbytes for tensor in source.values())


def test_config_json_tells_what_went_in_and_out(model_dir: Path, llama_workspace: Path) -> None:
    result, _ = convert(model_dir, llama_workspace)
    config = json.loads((result.output_dir / "config.json").read_text())
    assert config["architecture"] == "LlamaForCausalLM"
    assert config["source"] == {name: file_digest(model_dir / name) for name in ("config.json", "model.safetensors")}
    assert config["tensors"] == {"rank0.safetensors": file_digest(result.output_dir / "rank0.safetensors")}
    assert config["port"]["name"] == "llama"
    assert config["producer"]["name"] == "trtllm-port convert"
    assert sorted(path.name for path in result.output_dir.iterdir()) == ["config.json", "rank0.safetensors"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_cast_is_torchs_cast(model_dir: Path, llama_workspace: Path, dtype: str) -> None:
    _, made = convert(model_dir, llama_workspace, dtype)
    for name, tensor in load_file(model_dir / "model.safetensors").items():
        assert torch.equal(made[name], tensor.to(getattr(torch, dtype)))


def test_auto_follows_the_weights_where_the_config_names_no_type(model_dir: Path, llama_workspace: Path) -> None:
    tensors = load_file(model_dir / "model.safetensors")
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    save_file(halves, model_dir / "model.safetensors")
    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "dtype"}))
    result, made = convert(model_dir, llama_workspace)
    assert result.dtype == "float16"
    assert {tensor.dtype for tensor in made.values()} == {torch.float16}


def test_shards_are_one_model(model_dir: Path, llama_workspace: Path) -> None:
    source = shard(model_dir)
    result, made = convert(model_dir, llama_workspace)
    assert all(torch.equal(made[name], source[name]) for name in source)
    names = [path.name for path in model_dir.glob("*.safetensors")]
    assert result.source == {name: file_digest(model_dir / name) for name in ["config.json", *names]}


def test_small_pieces_make_no_difference(
    model_dir: Path, llama_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = convert(model_dir, llama_workspace)
    digest = file_digest(whole.output_dir / "rank0.safetensors")
    monkeypatch.setattr(pipeline_module, "PIECE", 64)
    pieces, _ = convert(model_dir, llama_workspace)
    assert file_digest(pieces.output_dir / "rank0.safetensors") == digest
    assert pieces.source == whole.source


def test_a_checkpoint_is_replaced_and_nothing_else(model_dir: Path, llama_workspace: Path) -> None:
    convert(model_dir, llama_workspace)
    result, _ = convert(model_dir, llama_workspace, "float16")
    assert result.dtype == "float16"
    for output in (model_dir, model_dir.parent):
        before = sorted(output.rglob("*"))
        with pytest.raises(PortError, match="is not empty and no checkpoint"):
            convert_checkpoint(model_dir, output, workspace=llama_workspace)
        assert sorted(output.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("model__norm__weight", torch.full((32,), torch.nan), "`model.norm.weight` has NaN"),
        ("model__embed_tokens__weight", torch.full((61, 32), -torch.inf), "has infinity"),
    ],
)
def test_weights_that_are_not_finite_are_named(
    model_dir: Path, llama_workspace: Path, name: str, value: torch.Tensor, what: str
) -> None:
    rewrite(model_dir, **{name: value})
    with pytest.raises(CheckpointError, match=what):
        convert(model_dir, llama_workspace)
    assert_nothing_left(model_dir)


def test_a_single_nan_among_many_values_is_found(model_dir: Path, llama_workspace: Path) -> None:
    weight = load_file(model_dir / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    weight[-1, -1] = torch.nan
    rewrite(model_dir, model__layers__1__mlp__up_proj__weight=weight)
    with pytest.raises(CheckpointError) as caught:
        convert(model_dir, llama_workspace)
    assert caught.value.message == "weights are not finite:\n  `model.layers.1.mlp.up_proj.weight` has NaN"


@pytest.mark.parametrize("shift", [-4, 4])
def test_a_header_that_contradicts_itself_is_refused(model_dir: Path, llama_workspace: Path, shift: int) -> None:
    path = model_dir / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["model.norm.weight"]["data_offsets"][0] += shift
    text = json.dumps(header).encode().ljust(length)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(CheckpointError, match=r"no safetensors file: `model\.norm\.weight` of shape \(32,\)"):
        convert(model_dir, llama_workspace)
    assert_nothing_left(model_dir)


def test_large_finite_values_are_no_reason_to_refuse(model_dir: Path, llama_workspace: Path) -> None:
    rewrite(model_dir, model__norm__weight=torch.full((32,), 3e38))
    _, made = convert(model_dir, llama_workspace)
    assert float(made["model.norm.weight"][0]) == float(torch.tensor(3e38))
    with pytest.raises(CheckpointError, match=r"has values beyond float16 \(up to 3e\+38\)") as caught:
        convert(model_dir, llama_workspace, "float16")
    assert "bfloat16" in str(caught.value.hint)


def test_all_that_does_not_fit_is_told_at_once(model_dir: Path, llama_workspace: Path) -> None:
    rewrite(
        model_dir,
        model__norm__weight=None,
        extra=torch.zeros(1),
        model__layers__0__mlp__up_proj__weight=torch.zeros(3, 32),
    )
    with pytest.raises(CheckpointError) as caught:
        convert(model_dir, llama_workspace)
    for what in ("missing `model.norm.weight`", "unexpected `extra`", "shape of `model.layers.0.mlp.up_proj.weight`"):
        assert what in str(caught.value)
    assert_nothing_left(model_dir)


def test_tied_embeddings_follow_the_config(model_dir: Path, llama_workspace: Path) -> None:
    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(CheckpointError, match=r"`lm_head\.weight` differs .* though the config ties them"):
        convert(model_dir, llama_workspace)
    rewrite(model_dir, lm_head__weight=None)
    _, made = convert(model_dir, llama_workspace)
    assert "lm_head.weight" not in made
    (model_dir / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"missing `lm_head\.weight`"):
        convert(model_dir, llama_workspace)


@pytest.mark.parametrize("given", [None, ["LLaMAForCausalLM"], ["LlamaModel"]])
def test_a_port_is_found_whatever_the_config_calls_the_class(
    model_dir: Path, llama_workspace: Path, given: list[str] | None
) -> None:
    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps(config | {"architectures": given}))
    result, _ = convert(model_dir, llama_workspace)
    made = json.loads((result.output_dir / "config.json").read_text())
    assert result.architecture == made["architecture"] == "LlamaForCausalLM"


def test_a_port_under_a_name_of_its_own(model_dir: Path, tmp_path: Path, llama_workspace: Path) -> None:
    """As `new --blank --architecture` registers it: the checkpoint names it so, for `build` looks it up again."""
    workspace = tmp_path / "model" / "work"
    shutil.copytree(llama_workspace, workspace)
    registry = workspace / "models" / "__init__.py"
    registry.write_text(registry.read_text().replace("'LlamaForCausalLM'", "'Storyteller'"))
    config = json.loads((model_dir / "config.json").read_text())
    (model_dir / "config.json").write_text(json.dumps(config | {"architectures": ["Storyteller"]}))
    result, _ = convert(model_dir, workspace)
    assert json.loads((result.output_dir / "config.json").read_text())["architecture"] == "Storyteller"


def test_what_a_port_cannot_do_is_refused(model_dir: Path, llama_workspace: Path, tmp_path: Path) -> None:
    for mapping, what in (
        (Mapping(tp_size=2), "no layer that can be cut"),
        (Mapping(pp_size=2), "no pipeline stages"),
    ):
        with pytest.raises(ConfigError, match=what):
            convert_checkpoint(model_dir, tmp_path / "ckpt", workspace=llama_workspace, mapping=mapping)
    with pytest.raises(RegistryError, match="no port for `LlamaForCausalLM`"):
        convert_checkpoint(model_dir, tmp_path / "ckpt", workspace=tmp_path / "elsewhere")
    assert_nothing_left(model_dir)


def test_a_full_disk_leaves_nothing(model_dir: Path, llama_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_descriptor: int, _data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(DiskSpaceError, match=r"no space left to write .*ckpt"):
        convert(model_dir, llama_workspace)
    assert_nothing_left(model_dir)


def test_columns_and_rows_are_cut_for_every_rank(tmp_path: Path, tiny_llama: Path) -> None:
    workspace = tmp_path / "work"
    write_sharded_port(workspace)
    result = convert_checkpoint(tiny_llama, tmp_path / "ckpt", workspace=workspace, mapping=Mapping(tp_size=2))
    ranks = [load_file(result.output_dir / f"rank{rank}.safetensors") for rank in range(2)]
    for name, tensor in load_file(tiny_llama / "model.safetensors").items():
        parts = [rank[name] for rank in ranks if name in rank]
        dim = 0 if "up_proj" in name else 1 if "down_proj" in name else None
        if parts and dim is not None:
            assert torch.equal(torch.cat(parts, dim), tensor)
        elif parts:
            assert all(torch.equal(part, tensor) for part in parts)
        else:
            assert result.dropped[name] == "not used here"
    assert json.loads((result.output_dir / "config.json").read_text())["mapping"]["tp_size"] == 2


def write_sharded_port(workspace: Path) -> None:
    package = workspace / "models" / "cut"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package.parent / "trtllm-port.toml").touch()
    (workspace / "models" / "__init__.py").write_text(
        "from .cut.model import Cut\nMODEL_MAP = {'LlamaForCausalLM': Cut}\n"
    )
    (package / "model.py").write_text(
        "from trtllm_port.layers import Drop, Module, Parameter, PretrainedConfig, PretrainedModel\n"
        "class Cut(PretrainedModel):\n"
        "    config_class = PretrainedConfig\n"
        "    unused = ['*.1.*', '*attn.*', '*layernorm*', 'lm_head*', '*gate*', '*embed*']\n"
        "    weight_map = dict.fromkeys(unused, Drop('not used here'))\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        n = config.mapping.tp_size\n"
        "        self.model = Module()\n"
        "        self.model.norm = Holder((32,), None)\n"
        "        self.model.layers = Module()\n"
        "        layer = Module()\n"
        "        setattr(self.model.layers, '0', layer)\n"
        "        layer.mlp = Module()\n"
        "        layer.mlp.up_proj = Holder((48 // n, 32), (0, n))\n"
        "        layer.mlp.down_proj = Holder((32, 48 // n), (1, n))\n"
        "class Holder(Module):\n"
        "    def __init__(self, shape, shard):\n"
        "        super().__init__()\n"
        "        self.weight = Parameter(shape, shard=shard)\n"
    )


def test_the_format_is_what_safetensors_reads(model_dir: Path, llama_workspace: Path) -> None:
    result, _ = convert(model_dir, llama_workspace)
    with safe_open(result.output_dir / "rank0.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_slice("model.norm.weight").get_shape() == [32]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(tmp_path: Path, tiny_llama: Path, llama_workspace: Path) -> None:
    """The same process converts a tiny and a 250 MB model: the peak grows by the pieces in flight."""
    big = tmp_path / "big"
    big.mkdir()
    config = json.loads((tiny_llama / "config.json").read_text())
    (big / "config.json").write_text(json.dumps(config | {"vocab_size": 1_000_000}))
    tensors = load_file(tiny_llama / "model.safetensors")
    table = torch.zeros(1_000_000, 32)
    save_file(
        tensors | {"model.embed_tokens.weight": table, "lm_head.weight": table.clone()}, big / "model.safetensors"
    )
    code = (
        "import resource, sys; from pathlib import Path; from trtllm_port.conversion import convert_checkpoint as c\n"
        "peaks = []\n"
        "for model, out in zip(sys.argv[2::2], sys.argv[3::2]):\n"
        "    c(Path(model), Path(out), workspace=Path(sys.argv[1]))\n"
        "    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "print(*peaks)"
    )
    places = [tiny_llama, tmp_path / "a", big, tmp_path / "b"]
    done = subprocess.run(
        [sys.executable, "-c", code, llama_workspace, *places], capture_output=True, text=True, check=True
    )
    small, large = map(int, done.stdout.split())
    assert large - small < 64 * 1024  # KiB; the model has 250 MB


def test_a_piece_holds_while_it_waits_whatever_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "PIECE", 8)
    content = bytes(range(240))
    (tmp_path / "file").write_bytes(content)
    reader = pipeline_module.DigestingReader(tmp_path / "file", pipeline_module.BufferPool())
    waiting = list(reader.pieces(0, 8 * pipeline_module.DEPTH))
    following = reader.pieces(200, 240)  # the gap is read for the digest
    assert bytes(next(following).data) == content[200:208]
    whole = bytearray(100)
    reader.read_into(memoryview(whole), 100)
    assert whole == content[100:200]
    assert b"".join(piece.data for piece in waiting) == content[: 8 * pipeline_module.DEPTH]
    assert reader.finish() == file_digest(tmp_path / "file")
