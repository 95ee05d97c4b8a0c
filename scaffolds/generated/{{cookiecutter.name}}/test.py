"""The port of {{ cookiecutter.architecture }} computes what Hugging Face computes: a tiny model, random weights, every module."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trtllm_port.verification import diff_layers

WORKSPACE = Path(__file__).resolve().parents[1]
TINY_CONFIG = {{ cookiecutter.tiny_config }}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_port_computes_what_hugging_face_computes(dtype: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY_CONFIG))
    report = diff_layers(tmp_path, workspace=WORKSPACE, dtype=dtype, random_weights=True)
    assert report.verdict == "pass", report.summary
