"""A comparison to take along: Hugging Face's side as few numbers, and the network, to be compared again anywhere.

In: a comparison (`save.py`), or a bundle (`replay.py`). Out: a directory of JSON and safetensors whose digests are all
checked, or a report, made without Hugging Face, its weights or a GPU. A newcomer adds what else a phase must record.
"""

from __future__ import annotations

from trtllm_port.verification.bundle.files import is_bundle
from trtllm_port.verification.bundle.replay import replay
from trtllm_port.verification.bundle.save import save_bundle

__all__ = ["is_bundle", "replay", "save_bundle"]
