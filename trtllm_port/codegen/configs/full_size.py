"""Whether a model runs at its full size: with tensors that have shapes and no content."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from trtllm_port.huggingface.loading import EAGER, make_model
from trtllm_port.huggingface.quiet import quiet_transformers


def place_of(error: BaseException) -> str:
    """Where an error was raised: the innermost line of modelling code, or of any code."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "modeling_" in f.filename), frames[-1])
    return f"{'/'.join(Path(place.filename).parts[-4:])}:{place.lineno}"


def full_size_error(config: Any, small: Exception, trust_remote_code: bool = False) -> Exception | None:
    """What the model raises at the config's own size, if it is what small versions of it raise; or None.

    Args:
        config: a Hugging Face config.
        small: what was raised there.
        trust_remote_code: run modelling code that comes with the model.
    """
    log = logging.getLogger("torch._subclasses.fake_tensor")  # which prints what is caught here
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with quiet_transformers(), torch.no_grad(), FakeTensorMode():
            model = make_model(
                config, dtype=torch.bfloat16, attention=EAGER, trust_remote_code=trust_remote_code
            ).eval()
            model(input_ids=torch.full((1, 7), 3), use_cache=False)
    except Exception as error:  # any: it is Hugging Face's code that runs here
        return error if (type(error), place_of(error)) == (type(small), place_of(small)) else None
    finally:
        log.setLevel(level)
    return None
