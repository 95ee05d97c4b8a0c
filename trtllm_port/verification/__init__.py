"""Is the port right, and if not, which module is wrong?

In: a model directory and its port. Out: a report with one verdict. Nothing in here prints. The rooms:

    taps, stimulus          named tensors, paired by exact name; what both sides are fed
    sides                   what computes: Hugging Face in several precisions, the port
    judge                   pure functions, and the one table of tolerances
    causes, experiments     why a module is wrong, and at which line
    decode, phases          through the cache, row by row; one precision from beginning to end
    report                  JSON first, the others are renderings of it
    bundle                  a comparison to take along, and to repeat without Hugging Face
    prove                   bugs put into a port: is each of them found?
"""

from __future__ import annotations

from trtllm_port.verification.bundle import is_bundle, replay
from trtllm_port.verification.diff import diff_layers
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.pipeline import verify
from trtllm_port.verification.report.report import Report
from trtllm_port.verification.stimulus.settings import DiffSettings, VerifySettings

__all__ = ["DiffSettings", "Report", "Verdict", "VerifySettings", "diff_layers", "is_bundle", "replay", "verify"]
