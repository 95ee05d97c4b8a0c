"""Keeps libraries from drawing their own progress bars among ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR, getLogger

__all__ = ["quiet_datasets", "quiet_transformers"]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar of transformers within the block, and no advice: its own, or of code that comes with a model."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    of_models = getLogger("transformers_modules")
    level = of_models.level
    of_models.setLevel(ERROR)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        of_models.setLevel(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """No progress bar of `datasets` within the block."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if bars:
            enable_progress_bars()
