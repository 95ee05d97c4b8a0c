"""`make prove`: bugs put into generated ports of several architectures; writes docs/verification.md and .json.

Every architecture is generated from a tiny config, then verified with random weights, with one bug at a time. What a
run that was interrupted had found is kept in `--work`, so the next one goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from trtllm_port.porting.create import create_port
from trtllm_port.verification.prove import Outcome, Proof, prove
from trtllm_port.verification.prove.catalogue import CATALOGUE
from trtllm_port.verification.prove.proof_page import document

TINY: dict[str, Any] = dict(
    hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4, vocab_size=320
) | dict(max_position_embeddings=512)
GROUPED: dict[str, Any] = TINY | dict(num_key_value_heads=2, head_dim=16)
# Of different make: norms before and after a block, with gains w and 1 + w, on heads and on all of them; RMS and layer
# norms; rotary embeddings of whole heads and of parts, learned positions; gated and plain MLPs, experts; sequential and
# parallel residuals; windows; soft caps; multipliers; fused and split projections, with biases and without; Conv1D;
# routers and stacked experts of several kinds, sinks, latent attention; recurrences and short convolutions.
MIXTURE: dict[str, Any] = dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32)
SIZES: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": GROUPED,
    "Qwen3ForCausalLM": GROUPED | dict(head_dim=32),
    "Gemma2ForCausalLM": GROUPED | dict(sliding_window=64, query_pre_attn_scalar=24),
    "PhiForCausalLM": TINY | dict(hidden_size=128),
    "GPTNeoXForCausalLM": TINY | dict(hidden_size=128),
    "GPT2LMHeadModel": dict(n_embd=64, n_layer=2, n_head=4, vocab_size=320, n_positions=512),
    "Olmo2ForCausalLM": TINY | dict(num_key_value_heads=2),
    "GraniteForCausalLM": TINY
    | dict(num_key_value_heads=2, embedding_multiplier=6.0, logits_scaling=4.0)
    | dict(residual_multiplier=0.3, attention_multiplier=0.2),
    "MixtralForCausalLM": GROUPED | dict(num_local_experts=4, num_experts_per_tok=2),
    "Qwen3MoeForCausalLM": GROUPED | MIXTURE,
    "GptOssForCausalLM": GROUPED
    | dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=64)
    | dict(layer_types=["sliding_attention", "full_attention"]),
    "DeepseekV3ForCausalLM": TINY
    | dict(num_hidden_layers=3, first_k_dense_replace=1, n_routed_experts=8, num_experts_per_tok=2, n_group=2)
    | dict(topk_group=1, moe_intermediate_size=32, n_shared_experts=1, q_lora_rank=32, kv_lora_rank=32)
    | dict(qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16, num_key_value_heads=4),
    "Qwen3NextForCausalLM": GROUPED
    | MIXTURE
    | dict(num_hidden_layers=4, shared_expert_intermediate_size=32, linear_num_key_heads=2, linear_num_value_heads=4)
    | dict(linear_key_head_dim=16, linear_value_head_dim=16)
    | dict(layer_types=["linear_attention", "linear_attention", "linear_attention", "full_attention"]),
    "JambaForCausalLM": GROUPED
    | dict(num_hidden_layers=4, num_experts=4, num_experts_per_tok=2, attn_layer_period=2, attn_layer_offset=1)
    | dict(expert_layer_period=2, expert_layer_offset=1, mamba_d_state=8, mamba_dt_rank=8, use_mamba_kernels=False),
    "RecurrentGemmaForCausalLM": TINY | dict(num_hidden_layers=3, num_key_value_heads=1, lru_width=64),
}
KEPT = ("bug", "status", "gate", "module", "cause", "cause_status", "placed", "explained")  # of an outcome
FIELDS = ("architecture", "port", "dtype", "tokens", "executor", "seconds", "quantization")  # of a proof
DTYPES = ("float32", "bfloat16")


def write_config(architecture: str, directory: Path) -> Path:
    """Write a model directory without weights."""
    from transformers import AutoModelForCausalLM

    classes = {model.__name__: config for config, model in AutoModelForCausalLM._model_mapping.items()}
    config = classes[architecture](**SIZES[architecture])
    config.architectures = [architecture]
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, token, None if token == "pad_token_id" else 1)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    return directory


def run(architecture: str, work: Path) -> list[Proof]:
    """Prove one architecture in every dtype."""
    proofs = []
    for dtype in DTYPES:
        report = work / architecture / dtype
        done = report / "prove.json"
        if not done.is_file():
            model_dir = write_config(architecture, work / architecture / "model")
            if not (work / architecture / "workspace" / "models").is_dir():
                create_port(model_dir, workspace=work / architecture / "workspace")
            workspace = work / architecture / "workspace"
            prove(model_dir, workspace=workspace, dtype=dtype, random_weights=True, report_dir=report)
        proofs.append(read_proof(done))
        print(f"{architecture} {dtype}: {proofs[-1].summary}", flush=True)
    return proofs


def read_proof(path: Path) -> Proof:
    """Read what `prove` wrote."""
    values = json.loads(path.read_text())
    outcomes = tuple(Outcome.from_dict(each) for each in values["outcomes"])
    return Proof(**{name: values[name] for name in FIELDS}, outcomes=outcomes)


def write_pages(output: Path, page: str, proofs: list[Proof]) -> None:
    """Write a page, and the numbers beside it."""
    output.write_text(page)
    summary = [proof.to_dict() for proof in proofs]
    for values in summary:
        values["outcomes"] = [{name: each.get(name) for name in KEPT} for each in values["outcomes"]]
    rows = ",\n".join(json.dumps(values) for values in summary)
    output.with_suffix(".json").write_text(f"[\n{rows}\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/verification.md"))
    parser.add_argument("--work", type=Path, default=Path("build/prove"))
    parser.add_argument("--only", nargs="*", choices=SIZES, help="run these, write no document")
    chosen = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    proofs = [proof for architecture in chosen.only or SIZES for proof in run(architecture, chosen.work)]
    if chosen.only:
        return
    write_pages(chosen.output, document(proofs, [bug for bug in CATALOGUE if bug.kind != "quantized"]), proofs)


if __name__ == "__main__":
    main()
