"""The way to an engine without this package: export to ONNX, parse, build. Run as a process of its own.

python onnx_route.py HF_DIR OUTPUT_DIR: the network has no KV cache, which makes it the smaller job of the two.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tensorrt_rtx as trt
import torch
from transformers import AutoModelForCausalLM

MAX_BATCH, MAX_LENGTH = 4, 1024


class Logits(torch.nn.Module):
    """The model as a function of token ids."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """[B, L] token ids → [B, L, V] logits."""
        return self.model(input_ids=input_ids, use_cache=False).logits


def export(model_dir: Path, onnx_path: Path) -> None:
    """Write the ONNX file, weights beside it."""
    model = Logits(AutoModelForCausalLM.from_pretrained(model_dir).eval())
    dynamic = {
        "input_ids": {0: torch.export.Dim("batch", max=MAX_BATCH), 1: torch.export.Dim("length", max=MAX_LENGTH)}
    }
    ids = torch.zeros(2, 16, dtype=torch.int64)
    torch.onnx.export(model, (ids,), onnx_path, dynamo=True, external_data=True, dynamic_shapes=dynamic)


def build(onnx_path: Path, engine_path: Path) -> None:
    """Parse and compile for compute capability 8.9."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        sys.exit("\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    for shapes in (((1, 1), (1, 1), (MAX_BATCH, 1)), ((1, 1), (1, 64), (MAX_BATCH, MAX_LENGTH))):
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name, *shapes)
        config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        sys.exit("the builder gave no engine")
    engine_path.write_bytes(engine)


if __name__ == "__main__":
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    export(source, output / "model.onnx")
    build(output / "model.onnx", output / "model.engine")
