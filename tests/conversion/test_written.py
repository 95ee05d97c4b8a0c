"""Every tensor arrives as its transform made it, however slow the disk is; and one that does not is noticed."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trtllm_port.conversion import convert_checkpoint, pipeline, safetensors_writer
from trtllm_port.conversion.written import IntendedFile, check_written
from trtllm_port.errors import CheckpointError
from trtllm_port.foundation.digests import file_digest
from trtllm_port.layers import Mapping

Tensors = dict[str, torch.Tensor]
LAYERS, EXPERTS = 3, 4
CUT = {"plain": 0, "row": 1, "l.1.qk": 0, "l.0.down": 2}  # parameter → dimension, where there are two ranks
PORT = '''
import json
from pathlib import Path

from trtllm_port.layers import Module, Parameter, PretrainedConfig, PretrainedModel
from trtllm_port.layers.weights import Chunk, Concat, Drop, Stack, Transform, Transpose


def regroup(config, weight):
    return weight.view(2, 3, -1, weight.shape[-1]).transpose(0, 1).reshape(weight.shape)


def in_place(config, first, second):
    """Tensors that a transform sees are its own."""
    return first.mul_(2), second.add_(first[:1])


class Port(PretrainedModel):
    config_class = PretrainedConfig
    weight_map = {
        "old.*": "new.*",
        "*.junk": Drop("junk"),
        "l.*.experts.*.down": Transform("l.*.down", [Stack(0)]),
        ("l.*.experts.*.gate", "l.*.experts.*.up"): Transform("l.*.gate_up", [Stack(0), Concat(1)]),
        "l.*.experts.*.out": Transform("l.*.out", [Stack(0), Transpose(1, 2)]),
        ("l.*.q", "l.*.k"): Transform("l.*.qk", [Concat(0)]),
        "l.*.cut": Transform(("l.*.cut_a", "l.*.cut_b"), [Chunk(2, 1)]),
        "l.*.qkv": Transform("l.*.qkv", regroup),
        ("l.*.first", "l.*.second"): Transform(("l.*.twice", "l.*.sum"), in_place),
    }

    def __init__(self, config):
        super().__init__(config)
        ranks = config.mapping.tp_size
        for name, (shape, dim, dtype) in json.loads((Path(__file__).parent / "parameters.json").read_text()).items():
            *path, last = name.split(".")
            module = self
            for part in path:
                if not hasattr(module, part):
                    setattr(module, part, Module())
                module = getattr(module, part)
            cut = dim is not None and ranks > 1
            sizes = [size // ranks if cut and i == dim else size for i, size in enumerate(shape)]
            setattr(module, last, Parameter(sizes, dtype, shard=(dim, ranks) if cut else None))
'''


def tensors(rng: random.Random) -> tuple[Tensors, Tensors]:
    """What the files hold, and what the port's parameters should be, before the cast."""
    width, height = 2 * rng.randint(1, 9), 6 * rng.randint(1, 3)
    dtypes = [torch.float32, torch.float32, torch.float16, torch.float64]

    def some(count: int) -> list[torch.Tensor]:
        return list(torch.rand(count, height, width).to(rng.choice(dtypes)).unbind())

    (plain,), row = some(1), torch.rand(4, width)
    given = {"plain": plain, "old.name": torch.rand(5, width), "row": row, "l.0.junk": torch.ones(3)}
    given |= {"ids": torch.arange(width), "scalar": torch.tensor(1.5), "empty": torch.ones(0, 3)}
    made = {"new.name" if name == "old.name" else name: t for name, t in given.items() if name != "l.0.junk"}
    for i in range(LAYERS):
        (q, k), (cut, qkv, alone), (first, second) = some(2), some(3), some(2)
        experts = {"down": some(EXPERTS), "out": some(EXPERTS)}
        both = some(2 * EXPERTS)
        experts |= {"gate": both[:EXPERTS], "up": both[EXPERTS:]}
        layer = {"q": q, "k": k, "cut": cut, "qkv": qkv, "alone": alone, "first": first, "second": second}
        layer |= {f"experts.{e}.{kind}": parts[e] for kind, parts in experts.items() for e in range(EXPERTS)}
        own = {
            "down": torch.stack(experts["down"]),
            "gate_up": torch.stack([torch.cat(pair) for pair in zip(experts["gate"], experts["up"], strict=True)]),
            "out": torch.stack([part.T for part in experts["out"]]),
            "qk": torch.cat([q, k]),
            "cut_a": cut[:, : width // 2],
            "cut_b": cut[:, width // 2 :],
            "qkv": torch.cat([qkv.view(2, 3, -1, width)[:, n].reshape(-1, width) for n in range(3)]),
            "alone": alone,
            "twice": first * 2,
            "sum": second + (first * 2)[:1],
        }
        given |= {f"l.{i}.{name}": tensor for name, tensor in layer.items()}
        made |= {f"l.{i}.{name}": tensor for name, tensor in own.items()}
    return given, made


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The function (seed) that converts a random model in small pieces and compares every tensor."""
    package = tmp_path / "work" / "models" / "port"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.py").write_text(PORT)
    (package.parent / "__init__.py").write_text(
        "from .port.model import Port\nMODEL_MAP = {'LlamaForCausalLM': Port}\n"
    )
    (package.parent / "trtllm-port.toml").touch()
    model = tmp_path / "model"
    model.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 9}
    (model / "config.json").write_text(json.dumps(config))

    def convert(seed: int) -> None:
        rng = random.Random(seed)
        torch.manual_seed(seed)
        given, made = tensors(rng)
        dtype, ranks = rng.choice(["float32", "float16", "bfloat16"]), rng.choice([1, 1, 2])
        monkeypatch.setattr(pipeline, "PIECE", 8 * rng.choice([5, 20, 60]))
        kinds = {name: "int64" if name == "ids" else None for name in made}
        facts = {name: (list(tensor.shape), CUT.get(name), kinds[name]) for name, tensor in made.items()}
        (package / "parameters.json").write_text(json.dumps(facts))
        write(model, given, rng)
        result = convert_checkpoint(
            model, tmp_path / "ck", workspace=tmp_path / "work", dtype=dtype, mapping=Mapping(tp_size=ranks)
        )
        found = [load_file(result.output_dir / f"rank{rank}.safetensors") for rank in range(ranks)]
        for name, tensor in made.items():
            wanted = tensor if name == "ids" else tensor.to(getattr(torch, dtype))
            parts = wanted.chunk(ranks, CUT[name]) if name in CUT else [wanted] * ranks
            for rank, part in enumerate(parts):
                assert torch.equal(found[rank].pop(name), part), f"seed {seed}: {name} of rank {rank}"
        assert not any(found)

    return convert


def write(model: Path, given: Tensors, rng: random.Random) -> None:
    """One file, or two."""
    for path in model.glob("model*"):
        path.unlink()
    if rng.random() < 0.5:
        save_file({name: tensor.contiguous() for name, tensor in given.items()}, model / "model.safetensors")
        return
    files: dict[str, Tensors] = {"model-1.safetensors": {}, "model-2.safetensors": {}}
    index = {name: rng.choice(list(files)) for name in given}
    for name, file in index.items():
        files[file][name] = given[name].contiguous()
    for file, content in files.items():
        save_file(content, model / file)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes its time, now and then."""
    rng = random.Random(0)
    original = safetensors_writer._write_all

    def write_all(descriptor: int, data: memoryview) -> None:
        if rng.random() < 0.01:
            time.sleep(rng.random() * 0.002)
        original(descriptor, data)

    monkeypatch.setattr(safetensors_writer, "_write_all", write_all)


@pytest.mark.usefixtures("slow")
def test_a_slow_disk_changes_no_tensor(convert: Callable[[int], None]) -> None:
    for seed in range(15):
        convert(seed)


@pytest.mark.slow
@pytest.mark.usefixtures("slow")
def test_a_slow_disk_changes_no_tensor_of_a_thousand_models(convert: Callable[[int], None]) -> None:
    for seed in range(1000):
        convert(seed)


@pytest.mark.parametrize("number", [1, 2, 7, 40, 61])
def test_a_byte_that_changes_on_its_way_to_the_file_is_noticed(
    convert: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    original = safetensors_writer._write_all
    written = bytearray()
    wrong = ""

    def write_all(descriptor: int, data: memoryview) -> None:
        nonlocal number, wrong
        copy = bytearray(data)
        number -= bool(copy)
        if number == 0 and copy:
            copy[0] ^= 1
            wrong = tensor_at(bytes(written), len(written)) if written else "the header"
        written.extend(data)
        original(descriptor, memoryview(copy))

    monkeypatch.setattr(safetensors_writer, "_write_all", write_all)
    with pytest.raises(CheckpointError, match="not those that were converted: ") as caught:
        convert(0)
    assert f"converted: {wrong} in `rank0.safetensors`" in caught.value.message
    assert not (tmp_path / "ck").exists()


def tensor_at(content: bytes, position: int) -> str:
    """The tensor at a place in a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    for name, entry in header.items():
        if (
            name != "__metadata__"
            and 8 + length + entry["data_offsets"][1] > position >= 8 + length + entry["data_offsets"][0]
        ):
            return f"`{name}`"
    raise AssertionError(position)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda content: b"x" + content[1:], "the header in"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "`b` in"),
        (lambda content: content + b"x", "the end in"),
        (lambda content: content[:-1], "was cut off"),
    ],
)
def test_a_file_is_compared_from_its_first_byte_to_its_last(
    tmp_path: Path, damage: Callable[[bytes], bytes], what: str
) -> None:
    intended = IntendedFile(b"header")
    for name in ("a", "b"):
        intended.add(memoryview(name.encode() * 5))
        intended.mark(f"`{name}`")
    path = tmp_path / "file"
    path.write_bytes(b"headeraaaaabbbbb")
    check_written({path: intended})
    assert intended.digest == file_digest(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=what):
        check_written({path: intended})


def test_a_buffer_is_free_once_it_is_in_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More pieces than buffers: the reader waits for the writer, also where that one has failed."""
    monkeypatch.setattr(pipeline, "PIECE", 8)
    (tmp_path / "source").write_bytes(bytes(range(250)))
    reader = pipeline.DigestingReader(tmp_path / "source", pipeline.BufferPool())
    header = [safetensors_writer.TensorHeader("a", "U8", (200,))]

    def write() -> None:
        out = safetensors_writer.SafetensorsWriter(tmp_path / "out", header, {})
        with out as writer, pipeline.WriterThread() as thread:
            for piece in reader.pieces(0, 250):
                thread.put([writer], piece)

    with pytest.raises(ValueError, match="more than announced"):
        write()
    assert (tmp_path / "out").read_bytes().endswith(bytes(range(200)))
    assert reader.finish() == file_digest(tmp_path / "source")
