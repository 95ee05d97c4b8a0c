"""Hugging Face configs for the generator's tests; everything from class defaults, nothing is downloaded."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from trtllm_port.codegen import PortSource, generate_port


def hf_config(model_type: str, **values: Any) -> Any:
    """The default config of a model type, with some values set."""
    return transformers.CONFIG_MAPPING[model_type](**values)


@pytest.fixture(scope="session")
def llama() -> PortSource:
    """The generated Llama; made once for all tests."""
    return generate_port(hf_config("llama"))
