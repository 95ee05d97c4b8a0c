"""How large a model's inputs are, for a comparison with quantized ones: the stage `evaluation` looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from trtllm_port.foundation.progress import Progress
from trtllm_port.verification.stimulus.settings import DiffSettings, VerifySettings

SettingsT = TypeVar("SettingsT", bound=DiffSettings)


def with_calibration(settings: SettingsT) -> SettingsT:
    """The settings, with what finds out how large inputs are."""
    return settings if settings.calibrate is not None else replace(settings, calibrate=input_ranges)


def input_ranges(model_dir: Path, settings: DiffSettings, progress: Progress | None = None) -> Mapping[str, float]:
    """Module → its input's greatest absolute value, on the articles of the settings."""
    from trtllm_port.evaluation.calibration import calibrate

    return calibrate(
        model_dir,
        dataset=settings.dataset if isinstance(settings, VerifySettings) else None,
        device=settings.device,
        seed=settings.seed,
        trust_remote_code=settings.trust_remote_code,
        progress=progress,
    ).ranges
