"""Is the port right, and if not, which module is wrong?

Runners produce taps, `compare` judges them by numbers alone, a report says what came of it:

    runners, hugging_face      what computes: Hugging Face in several precisions, the port
    taps, recording, sides     named intermediate tensors, paired by exact name
    metrics, compare, logits, gates, thresholds     pure functions and the one table of tolerances
    locate, causes             the guilty module, and why
    report, html, junit        JSON first, the others are renderings of it
    diff, pipeline             the commands `diff-layers` and `verify`
    bundle                     a comparison to take along, and to repeat without Hugging Face

Nothing in here prints.
"""

from __future__ import annotations

from trtllm_port.verification.bundle import is_bundle, replay
from trtllm_port.verification.diff import diff_layers
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.pipeline import verify
from trtllm_port.verification.report.report import Report
from trtllm_port.verification.stimulus.settings import DiffSettings, VerifySettings

__all__ = ["DiffSettings", "Report", "Verdict", "VerifySettings", "diff_layers", "is_bundle", "replay", "verify"]
