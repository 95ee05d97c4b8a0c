"""Every tolerance of the verification: one table, each with its reason and its source.

`r` is the noise ratio: the port's error over the error that Hugging Face itself makes in the port's dtype, both
measured against a more precise run of Hugging Face (float32 for 16-bit ports, float64 for float32 ports).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trtllm_port.verification.judge.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Values up to `passes` pass, up to `warns` warn, beyond it fail."""

    metric: str
    passes: float
    warns: float
    reason: str
    source: str

    def judge(self, value: float) -> Verdict:
        """Judge a value; NaN fails."""
        if math.isnan(value) or value > self.warns:
            return Verdict.FAIL
        return Verdict.PASS if value <= self.passes else Verdict.WARN

    def text(self) -> str:
        """Return the bounds as a person would write them."""
        if self.passes == self.warns:
            return f"≤ {self.passes:g}"
        return f"≤ {self.passes:g} passes, ≤ {self.warns:g} warns"


# One rounding relative to the values' rms: a copying operation has an error of zero on Hugging Face's side, and a
# ratio to zero says nothing. [mine: half an ulp is uniform over the mantissa]
ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-12, "bfloat16": 2.0**-9}

# A yardstick that is itself this wrong cannot judge anybody.
USELESS_FLOOR = 0.5

# Smallest distance between the best two logits that counts as a decision. [AWS Neuron logit validation]
CONFIDENT_MARGIN = 1e-3
# The margin must also exceed this multiple of the 99th percentile of Hugging Face's own error of the best logits.
# [derived; at 2 one of 42 clean ports made a confident miss]
CONFIDENT_NOISE_MULTIPLE = 3.0

RATIO = Threshold(
    metric="ratio",
    passes=1.5,
    warns=3.0,
    reason="a port that rounds like Hugging Face errs like Hugging Face; clean ports measure 0.7 to 1.25",
    source="FlashAttention tests 2x; PyTorch same() 2x and 3x; AWS three-way 3x",
)
LINF_RATIO = Threshold(
    metric="linf_ratio",
    passes=3.0,
    warns=5.0,
    reason="one wrong element drowns in an L2 norm",
    source="AWS three-way 5x; clean ports measure up to 2.1 over seven architectures and three seeds",
)
TOKEN_RATIO = Threshold(
    metric="token_ratio",
    passes=1.5,
    warns=3.0,
    reason="massive activations at a few tokens blind a whole-tensor norm, not the 95th percentile over tokens",
    source="Sun et al. 2402.17762; the ratio as for L2",
)
REL_L2_FLOAT32 = Threshold(
    metric="rel_l2",
    passes=1e-5,
    warns=1e-4,
    reason="float32 leaves no room for larger rounding errors, unless Hugging Face's own are as large",
    source="NeMo Automodel L2; AWS single operation 1e-5; Keras-hub 1e-4",
)

ROUNDING_FLIPS = Threshold(
    metric="flips",
    passes=3.0,
    warns=10.0,
    reason="codes of inputs near the middle between two are chance; a wrong scale or rounding moves many",
    source="derived: Hugging Face in float32 against float64 moves 8e-5 of the codes of a small Llama's inputs",
)
# So many inputs rounded to other codes count for nothing, or this share of them if that is more.
ROUNDING_FLIPS_FREE = (3, 1e-4)

ROUTING_FLIPS = Threshold(
    metric="routing_flips",
    passes=3.0,
    warns=6.0,
    reason="tokens that choose other experts, as a multiple of those that Hugging Face's own run makes choose others",
    source="derived; only where the margins of the decisions are not known",
)

TAP_THRESHOLDS: dict[str, tuple[Threshold, ...]] = {
    "float32": (RATIO, TOKEN_RATIO, REL_L2_FLOAT32),
    "float16": (RATIO, LINF_RATIO, TOKEN_RATIO),
    "bfloat16": (RATIO, LINF_RATIO, TOKEN_RATIO),
}

KL_RATIO = Threshold(
    metric="kl_ratio",
    passes=9.0,
    warns=36.0,
    reason="the divergence is quadratic in the error: 3 squared; a maximum scatters, so only 6 squared fails, and the "
    "floor is no less than what an error as large as Hugging Face's does to the token that is nearest to a tie",
    source="MaxText and NeMo Automodel compare KL; the squares are derived, clean ports measure up to 8",
)
KL = {
    "float32": Threshold(
        metric="kl_max",
        passes=1e-4,
        warns=1e-4,
        reason="the largest divergence of any token's distribution",
        source="NeMo Automodel",
    ),
    "float16": Threshold(
        metric="kl_max",
        passes=5e-3,
        warns=5e-3,
        reason="the largest divergence of any token's distribution, dense models",
        source="NeMo Automodel",
    ),
}
KL["bfloat16"] = KL["float16"]
COSINE_DISTANCE = Threshold(
    metric="cosine_distance",
    passes=5e-4,
    warns=5e-4,
    reason="direction of the logits: cosine at least 0.9995",
    source="NeMo Automodel, dense models",
)
NMSE = Threshold(
    metric="nmse",
    passes=1e-4,
    warns=1e-2,
    reason="squared error over squared signal",
    source="llama.cpp check-nmse",
)
CONFIDENT_MISSES = Threshold(
    metric="confident_misses",
    passes=0.0,
    warns=0.0,
    reason="where the best two logits are further apart than the noise, both sides must choose the same token",
    source="AWS 0.001; three times the 99th percentile of the floor is derived",
)
AFFINE_SCALE = Threshold(
    metric="affine_scale",
    passes=3.0,
    warns=3.0,
    reason="least squares port = a·HF + b: a missing multiplier shows as a ≠ 1 though the cosine is perfect",
    source="derived; distance of a from 1 in units of Hugging Face's own relative error",
)
