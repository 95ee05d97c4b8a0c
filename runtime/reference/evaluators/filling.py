"""FILL: tensors made of a rule instead of an input."""

from __future__ import annotations

import torch
from torch import Tensor

from trtllm_port.runtime.reference.evaluators.layer import Evaluator, Layer


def fill(layer: Layer) -> Evaluator:
    """LINSPACE: `alpha + sum over axes of beta[axis] * index[axis]`.

    Shape, alpha and beta are attributes or the inputs 0, 1 and 2. Random numbers are refused: TensorRT's generator is
    not documented.
    """
    if layer["operation"] != "LINSPACE":
        layer.refuse(f"operation {layer['operation']}")
    dtype, device = layer.dtype(layer["to_type"]), layer.device
    fixed, alpha, beta = (layer[name] for name in ("shape", "alpha", "beta"))

    def evaluate(sizes: Tensor | None = None, start: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
        shape = fixed if sizes is None else sizes.tolist()
        total = torch.as_tensor(alpha if start is None else start, dtype=dtype, device=device).reshape(())
        step = torch.as_tensor(beta if steps is None else steps, dtype=dtype, device=device).reshape(-1)
        if step.numel() not in (1, len(shape)):
            raise ValueError(f"{step.numel()} steps for {len(shape)} axes")
        for axis, size in enumerate(shape):
            index = torch.arange(size, dtype=dtype, device=device)
            along = [1] * axis + [size] + [1] * (len(shape) - axis - 1)
            total = total + (step[axis if step.numel() > 1 else 0] * index).reshape(along)
        return total

    return evaluate
