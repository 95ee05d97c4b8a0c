"""Fixtures shared by all tests: no network, a quiet torch, and the real model where it is present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: tests never reach for the hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

STORIES = Path(__file__).parents[2] / "shared" / "models" / "stories260K"


@pytest.fixture(scope="session")
def stories() -> Path:
    """The directory of a small trained Llama; the test is skipped where it is absent."""
    if not (STORIES / "model.safetensors").is_file():
        pytest.skip("the trained test model is not present")
    return STORIES
