"""A model whose config holds all of it goes the whole way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hostile_texts import KEYS, acts, shell_words

from trtllm_port.cli.app import main
from trtllm_port.registry.ports import find_port


@pytest.mark.slow
def test_a_model_whose_config_is_hostile(tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`inspect`, `new` and `convert` take it; what its keys hold is built in, and what its port is tested with."""
    model, work = tmp_path / "a 'model' \x1b[2J\u202e", tmp_path / "a\n$(work)\udcff"
    shutil.copytree(tiny_llama, model)
    config = json.loads((model / "config.json").read_text())
    # flat ones are also changed one by one, which takes long: a few of them
    flat = {f"{text}_heads": 4 for text in [*KEYS[-12:], "\ud800"]} | {f"{text}_kind": text for text in KEYS[:6]}
    nested = {text: {text: [text, 1]} for text in KEYS if not text.startswith("_")}
    (model / "config.json").write_text(json.dumps(config | flat | {"nested": nested}))
    assert main(["inspect", str(model)]) == 0
    assert main(["new", str(model), "--workspace", str(work)]) == 0
    assert (
        main(["convert", "--model-dir", str(model), "--output-dir", str(tmp_path / "c"), "--workspace", str(work)]) == 0
    )
    report = tmp_path / "report"
    words = ["diff-layers", str(model), "--workspace", str(work), "--tokens", "40", "--report-dir", str(report)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert not acts(out + err)
    place = ["--workspace", str(work)]
    told = [line.removeprefix("next: ") for line in err.split("\n") if line.startswith("next: ")]
    assert [shell_words(line) for line in told] == [
        ["trtllm-port", "new", str(model)],
        ["trtllm-port", "verify", str(model), *place],
        ["trtllm-port", "build", "--checkpoint-dir", str(tmp_path / "c"), "--output-dir", "ENGINE", *place],
    ]
    (again,) = json.loads((report / "report.json").read_text(encoding="utf-8"))["commands"]
    assert shell_words(again)[:5] == ["trtllm-port", "diff-layers", str(model), *place]
    ElementTree.parse(report / "junit.xml")
    assert not acts((report / "report.html").read_text(encoding="utf-8"))
    fixed = find_port(work, "LlamaForCausalLM").cls.config_class.FIXED
    assert fixed["nested"] == nested
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "float32", "tests"],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
