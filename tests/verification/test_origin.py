"""An engine of another checkpoint is refused before anything is compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from trtllm_port.building import build_engine
from trtllm_port.conversion import convert_checkpoint
from trtllm_port.errors import BundleError, EngineError
from trtllm_port.huggingface.random_weights import save_random_checkpoint
from trtllm_port.verification import DiffSettings, Verdict, diff_layers, replay
from trtllm_port.verification.bundle.files import BUNDLE_JSON, write_manifest


@pytest.fixture(scope="module")
def engine(model_dir: Path, llama_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine of the model."""
    work = tmp_path_factory.mktemp("engine")
    convert_checkpoint(model_dir, work / "checkpoint", workspace=llama_workspace)
    build_engine(work / "checkpoint", work / "engine", workspace=llama_workspace, backend="reference", max_batch_size=4)
    return work / "engine"


def test_the_engine_of_a_model_is_compared(model_dir: Path, llama_workspace: Path, engine: Path) -> None:
    settings = DiffSettings(tokens=48, engine_dir=engine)
    assert diff_layers(model_dir, workspace=llama_workspace, settings=settings).verdict is Verdict.PASS


@pytest.mark.parametrize("part", ["model.safetensors", "config.json"])
def test_an_engine_of_another_checkpoint_is_an_error_of_the_input(
    model_dir: Path, llama_workspace: Path, engine: Path, tmp_path: Path, part: str
) -> None:
    other = Path(shutil.copytree(model_dir, tmp_path / "other"))
    save_random_checkpoint(model_dir, tmp_path / "again", seed=7)
    if part == "model.safetensors":
        shutil.copyfile(tmp_path / "again" / part, other / part)
    else:
        (other / part).write_text(json.dumps(json.loads((other / part).read_text()) | {"rms_norm_eps": 1e-6}))
    settings = DiffSettings(tokens=48, engine_dir=engine)
    with pytest.raises(EngineError, match=f"engine of another checkpoint than .*{part}` differs") as caught:
        diff_layers(other, workspace=llama_workspace, settings=settings)
    assert caught.value.exit_code == 2


def test_an_engine_that_does_not_know_is_refused(
    model_dir: Path, llama_workspace: Path, engine: Path, tmp_path: Path
) -> None:
    unknown = Path(shutil.copytree(engine, tmp_path / "engine"))
    content = json.loads((unknown / "config.json").read_text())
    del content["pretrained_config"]["source"]
    (unknown / "config.json").write_text(json.dumps(content))
    with pytest.raises(EngineError, match="does not say which checkpoint"):
        diff_layers(model_dir, workspace=llama_workspace, settings=DiffSettings(tokens=48, engine_dir=unknown))


def test_a_bundle_refuses_an_engine_of_another_checkpoint(
    model_dir: Path, llama_workspace: Path, engine: Path, tmp_path: Path
) -> None:
    save_random_checkpoint(model_dir, tmp_path / "other", seed=7)
    settings = DiffSettings(tokens=48, save=tmp_path / "bundle")
    diff_layers(tmp_path / "other", workspace=llama_workspace, dtype="float32", settings=settings)
    with pytest.raises(EngineError, match="than the bundle"):
        replay(tmp_path / "bundle", engine_dir=engine)
    network = tmp_path / "bundle" / "network-float32" / "config.json"
    config = json.loads(network.read_text())
    for damaged in (config | {"pretrained_config": []}, config | {"pretrained_config": {"source": 1}}, [], None):
        network.write_text(json.dumps(damaged))
        listed = read_content(tmp_path / "bundle")
        if damaged is None:
            network.unlink()
        write_manifest(tmp_path / "bundle", listed)
        with pytest.raises(BundleError, match=r"network-float32/config\.json`"):
            replay(tmp_path / "bundle", engine_dir=engine)


def read_content(bundle: Path) -> dict[str, Any]:
    content = json.loads((bundle / BUNDLE_JSON).read_text())
    (bundle / BUNDLE_JSON).unlink()  # it does not list itself
    return {name: value for name, value in content.items() if name not in ("format", "version", "files", "digest")}


@pytest.mark.parametrize("source", [1, "x", [1]])
def test_an_engine_whose_source_is_no_list_of_files_is_refused(
    model_dir: Path, llama_workspace: Path, engine: Path, tmp_path: Path, source: object
) -> None:
    odd = Path(shutil.copytree(engine, tmp_path / "engine"))
    content = json.loads((odd / "config.json").read_text())
    content["pretrained_config"]["source"] = source
    (odd / "config.json").write_text(json.dumps(content))
    with pytest.raises(EngineError, match="is not the configuration of an engine"):
        diff_layers(model_dir, workspace=llama_workspace, settings=DiffSettings(tokens=48, engine_dir=odd))
