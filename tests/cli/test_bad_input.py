"""Bad input ends with exit code 2, a message that names the cause, a hint, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trtllm_port.cli.app import main

Damage = Callable[[Path], None]


def files(directory: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


def refused(words: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must refuse, write nothing and print nothing but messages, which are returned."""
    before = files(place)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert files(place) == before
    return err


def edit_config(model: Path, **values: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | values))


def edit_weights(model: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(model / "model.safetensors")
    edit(tensors)
    save_file(tensors, model / "model.safetensors")


def no_config(model: Path) -> None:
    (model / "config.json").unlink()


def broken_config(model: Path) -> None:
    (model / "config.json").write_text("{")


def no_architecture(model: Path) -> None:
    edit_config(model, architectures=None, model_type="vit")


def encoder(model: Path) -> None:
    edit_config(model, architectures=["BertForMaskedLM"], model_type="bert")


def unknown_model_type(model: Path) -> None:
    edit_config(model, model_type="no-such-model")


def wrong_type(model: Path) -> None:
    edit_config(model, hidden_size="wide")


def remote_code(model: Path) -> None:
    edit_config(model, model_type="no-such-model", auto_map={"AutoConfig": "evil.EvilConfig"})
    (model / "evil.py").write_text("import pathlib\npathlib.Path('ran').touch()\nclass EvilConfig: pass\n")


def missing_tensor(model: Path) -> None:
    edit_weights(model, lambda tensors: tensors.pop("model.norm.weight"))


def extra_tensor(model: Path) -> None:
    edit_weights(model, lambda tensors: tensors.update({"model.surprise": torch.ones(1)}))


def wrong_shape(model: Path) -> None:
    edit_weights(model, lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}))


def nan(model: Path) -> None:
    edit_weights(model, lambda tensors: tensors.update({"model.norm.weight": torch.full((32,), torch.nan)}))


def truncated(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def adapter(model: Path) -> None:
    (model / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "some/where"}')


def adapter_alone(model: Path) -> None:
    adapter(model)
    (model / "config.json").unlink()


def padding_beyond(model: Path) -> None:
    edit_config(model, pad_token_id=5000)


def pickle(model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def missing_shard(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (no_config, "`model` has no `config.json`"),
        (broken_config, "`model/config.json` cannot be read"),
        (no_architecture, "names no architecture"),
        (encoder, "no port for `BertForMaskedLM`"),
        (unknown_model_type, "no-such-model"),
        (wrong_type, "Field 'hidden_size' expected int, got str (value: 'wide')"),
        (remote_code, "trust_remote_code"),
        (missing_tensor, "missing `model.norm.weight`"),
        (extra_tensor, "unexpected `model.surprise`"),
        (wrong_shape, "shape of `model.norm.weight` is (31,), expected (32,)"),
        (nan, "`model.norm.weight` has NaN"),
        (truncated, "bytes, its header says"),
        (no_weights, "has no `model.safetensors`"),
        (pickle, "pytorch_model.bin"),
        (missing_shard, "model-00002-of-00002.safetensors` is missing"),
    ],
)
def test_convert(damage: Damage, what: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(place / "model")
    err = refused(["convert", "--model-dir", "model", "--output-dir", "ckpt"], place, capsys)
    assert what in err
    assert "\nhint: " in err


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (no_config, "`model` has no `config.json`"),
        (broken_config, "`model/config.json` cannot be read"),
        (encoder, "encoder model"),
        (unknown_model_type, "does not know the model type `no-such-model`"),
        (wrong_type, "Field 'hidden_size' expected int, got str (value: 'wide')"),
        (remote_code, "does not know the model type `no-such-model`"),
    ],
)
def test_new(damage: Damage, what: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(place / "model")
    assert what in refused(["new", "model", "--workspace", "fresh", "--name", "mine"], place, capsys)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (no_config, "`model` has no `config.json`"),
        (broken_config, "`model/config.json` cannot be read"),
        (no_architecture, "names no architecture"),
        (unknown_model_type, "no-such-model"),
        (wrong_type, "Field 'hidden_size' expected int, got str (value: 'wide')"),
        (remote_code, "trust_remote_code"),
        (padding_beyond, "Padding_idx must be within num_embeddings"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "diff-layers"])
def test_verification(command: str, damage: Damage, what: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(place / "model")
    assert what in refused([command, "model", "--random-weights"], place, capsys)


@pytest.mark.parametrize(
    ("damage", "what"), [(adapter, "an adapter beside the weights"), (adapter_alone, "an adapter and no model")]
)
@pytest.mark.parametrize(
    "command",
    ["convert --output-dir ck --model-dir", "verify", "diff-layers", "summarize --engine-dir e --hf-model-dir"],
)
def test_an_adapter_is_not_passed_over(
    command: str, damage: Damage, what: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Transformers applies it where `peft` is installed, and passes it over where it is not."""
    damage(place / "model")
    err = refused([*command.split(), "model", *(["--test-hf"] if "summarize" in command else [])], place, capsys)
    assert what in err
    assert "merge_and_unload" in err


@pytest.mark.parametrize("name", ["not-a-name", "../outside", "class", ""])
def test_new_with_a_name_that_cannot_be(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(place)
    for words in (["new", "model", "--name", name], ["new", "--blank", name]):
        assert main([*words, "--workspace", "fresh"]) == 2
        assert f"a port cannot be named `{name}`" in capsys.readouterr().err
    assert files(place) == before


def test_new_where_a_port_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(place)
    assert main(["new", "model"]) == 2
    assert "port `llama` exists already" in capsys.readouterr().err
    assert main(["new", "model", "--name", "other"]) == 2
    assert "`LlamaForCausalLM` is served by port `llama` already" in capsys.readouterr().err
    assert main(["new", "--blank", "llama"]) == 2
    assert "--force" in capsys.readouterr().err
    assert files(place) == before


def test_new_with_options_that_do_not_go_together(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--blank", "mine", "--name", "yours"]) == 2
    assert "`trtllm-port new --blank yours`" in capsys.readouterr().err
    assert main(["new", "model", "--architecture", "XForCausalLM"]) == 2
    assert "goes with --blank only" in capsys.readouterr().err


def test_a_model_that_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("./absent", "no-such/model"):
        assert main(["convert", "--model-dir", name, "--output-dir", "ckpt"]) == 2
        assert f"`{name}` is " in capsys.readouterr().err


def test_an_output_directory_that_holds_something_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(place)
    for output in ("model", "models", "."):
        assert main(["convert", "--model-dir", "model", "--output-dir", output]) == 2
        assert "is not empty and no checkpoint" in capsys.readouterr().err
    assert files(place) == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_conversion_leaves_what_was_there(place: Path, number: int, code: int) -> None:
    """A slow disk gives the signal time to arrive in the middle."""
    assert main(["convert", "--model-dir", "model", "--output-dir", "ckpt"]) == 0
    before = files(place)
    slow_disk = (
        "import os, sys, time; from trtllm_port.cli.app import main; write = os.write\n"
        "def slowly(descriptor, data):\n    time.sleep(0.2)\n    return write(descriptor, data[:1000])\n"
        "os.write = slowly\n"
        "sys.exit(main(['convert', '--model-dir', 'model', '--output-dir', 'ckpt', '--dtype', 'float16']))"
    )
    process = subprocess.Popen([sys.executable, "-c", slow_disk], cwd=place, stderr=subprocess.PIPE, text=True)
    while not list(place.glob(".ckpt.*.part/rank0.safetensors")):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert files(place) == before


def test_a_full_disk(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The disk takes some bytes and then no more."""
    real = os.write
    room = 20_000

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(28, "No space left on device")
        room -= len(data)
        return real(descriptor, data)

    before = files(place)
    monkeypatch.setattr(os, "write", write)
    assert main(["convert", "--model-dir", "model", "--output-dir", "ckpt"]) == 2
    monkeypatch.undo()
    err = capsys.readouterr().err
    assert "no space left to write" in err
    assert "are free" in err
    assert files(place) == before


def test_not_enough_space_is_told_before_the_work(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
    assert main(["convert", "--model-dir", "model", "--output-dir", "ckpt"]) == 2
    assert "0 MB are free, 0 MB are needed" in capsys.readouterr().err
