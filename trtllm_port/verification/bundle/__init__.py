"""A verification to take along: Hugging Face's side as numbers, and the network, to be compared again anywhere.

sketch      few numbers that stand for a tensor
record      Hugging Face's two runs of a phase, as sketches and logits
files       the directory: `bundle.json`, one safetensors file per phase, the networks; all digests are checked
save        from a comparison to that directory
replay      from that directory to a report, without Hugging Face, its weights or a GPU
"""

from __future__ import annotations

from trtllm_port.verification.bundle.files import is_bundle
from trtllm_port.verification.bundle.replay import replay
from trtllm_port.verification.bundle.save import save_bundle

__all__ = ["is_bundle", "replay", "save_bundle"]
