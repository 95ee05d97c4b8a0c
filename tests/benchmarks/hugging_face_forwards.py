"""The two forwards of transformers that a noise floor needs: float32 and the port's dtype.

python hugging_face_forwards.py MODEL_DIR DTYPE TOKENS

Both run layer by layer, as a model does that does not fit in memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner

if __name__ == "__main__":
    ids_BL = torch.randint(1000, (1, int(sys.argv[3])), generator=torch.Generator().manual_seed(0))
    for dtype in ("float32", sys.argv[2]):
        HuggingFaceRunner.stream(Path(sys.argv[1]), dtype).run(ids_BL)
