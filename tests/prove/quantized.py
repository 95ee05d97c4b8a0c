"""`make prove-quantized`: bugs put into ports with quantized weights; writes docs/verification-quantized.md and .json.

Random weights are packed as published models are stored, or quantized by rounding when they are converted. What a run
that was interrupted had found is kept in `--work`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tests.prove.run import DTYPES, read_proof, write_config, write_pages
from tests.quantized_models import BY_MODELOPT, GROUP, METHODS, mxfp4, quantize, quantize_with
from trtllm_port.huggingface.random_weights import save_random_checkpoint
from trtllm_port.layers.quantization import ROUNDED, QuantizeOptions
from trtllm_port.porting.create import create_port
from trtllm_port.verification.prove import Proof, prove
from trtllm_port.verification.prove.catalogue import CATALOGUE
from trtllm_port.verification.prove.proof_page import QUANTIZED_HEAD, document
from trtllm_port.verification.stimulus.settings import DiffSettings

#: How an architecture's weights are quantized: a packer of `quantized_models.py`, or an algorithm of `--quant-algo`.
MODELS: dict[str, tuple[str, ...]] = {
    "LlamaForCausalLM": (*METHODS, *BY_MODELOPT, *ROUNDED),
    "MixtralForCausalLM": ("W4A16",),
    "Qwen3MoeForCausalLM": ("W4A16", "W8A16"),
    "GptOssForCausalLM": ("mxfp4",),
}


def write_model(architecture: str, way: str, work: Path) -> Path:
    """Write the port, and a model that is quantized, or is to be."""
    config, plain = work / "config", work / "plain"
    if not plain.is_dir():
        write_config(architecture, config)
        create_port(config, workspace=work / "workspace")
        save_random_checkpoint(config, plain)
    if way in ROUNDED:
        return plain
    model = work / way
    if not model.is_dir():
        if way == "mxfp4":
            quantize_with(plain, model, {"quant_method": "mxfp4"}, mxfp4, r".*experts\.\w+_proj")
        else:
            quantize(plain, model, way)
    return model


def run(architecture: str, way: str, work: Path) -> list[Proof]:
    """Prove one quantized model in every dtype."""
    proofs = []
    for dtype in DTYPES:
        report = work / f"{way}-{dtype}"
        if not (report / "prove.json").is_file():
            model = write_model(architecture, way, work)
            options = QuantizeOptions(algorithm=way, group_size=GROUP) if way in ROUNDED else None
            settings = DiffSettings(quantize=options)
            prove(model, workspace=work / "workspace", dtype=dtype, settings=settings, report_dir=report)
        proofs.append(read_proof(report / "prove.json"))
        print(f"{architecture} {way} {dtype}: {proofs[-1].summary}", flush=True)
    return proofs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/verification-quantized.md"))
    parser.add_argument("--work", type=Path, default=Path("build/prove-quantized"))
    parser.add_argument("--only", nargs="*", choices=MODELS, help="run these, write no document")
    chosen = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    pairs = [(architecture, way) for architecture in chosen.only or MODELS for way in MODELS[architecture]]
    proofs = [proof for architecture, way in pairs for proof in run(architecture, way, chosen.work / architecture)]
    if not chosen.only:
        write_pages(chosen.output, document(proofs, CATALOGUE, QUANTIZED_HEAD), proofs)


if __name__ == "__main__":
    main()
