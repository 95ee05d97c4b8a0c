"""Is the port right, and if not, which module is wrong?

`diff.py` and `pipeline.py` are `diff-layers` and `verify`, the other files beside them stages of these. The rooms, each
of which imports earlier ones only:

    taps          named tensors of a running model, paired by exact name
    stimulus      what is fed, and in which precisions
    judge         numbers to verdicts: error measures, one table of tolerances, gates
    sides         what computes: Hugging Face as reference and as yardstick, and the port
    causes        why a module is wrong, and in which line of the source
    experiments   causes by replay: known bugs, given to Hugging Face's own modules
    decode        decode steps, batches and embedding tables
    phases        one phase from beginning to end, in each of the precisions
    loss          what the quantized weights of a model cost, whatever the port
    report        JSON first, HTML and JUnit are renderings of it
    bundle        a comparison to take along, and to repeat without Hugging Face
    prove         bugs put into a port: does the check find them?

Nothing in here prints.
"""

from __future__ import annotations

from trtllm_port.verification.bundle import is_bundle, replay
from trtllm_port.verification.diff import diff_layers
from trtllm_port.verification.judge.verdict import Verdict
from trtllm_port.verification.pipeline import verify
from trtllm_port.verification.report.report import Report
from trtllm_port.verification.stimulus.loss_bound import LossBound
from trtllm_port.verification.stimulus.settings import DiffSettings, VerifySettings

__all__ = [
    "DiffSettings",
    "LossBound",
    "Report",
    "Verdict",
    "VerifySettings",
    "diff_layers",
    "is_bundle",
    "replay",
    "verify",
]
