"""Convert Hugging Face weights of {{ cookiecutter.architecture }} into a checkpoint, as `trtllm-port convert` does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trtllm_port.cli.app import main

WORKSPACE = Path(__file__).resolve().parents[2]


def parse_arguments() -> argparse.Namespace:
    """Parse the flags that conversion scripts have always had."""
    parser = argparse.ArgumentParser(description="Convert Hugging Face weights of {{ cookiecutter.architecture }}.")
    parser.add_argument("--model_dir", required=True, help="Hugging Face model: a local directory or a hub id")
    parser.add_argument("--output_dir", default="tllm_checkpoint", help="where to write the checkpoint")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "float16", "bfloat16"])
    parser.add_argument("--tp_size", type=int, default=1, help="tensor parallel size")
    parser.add_argument("--pp_size", type=int, default=1, help="pipeline parallel size")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse_arguments()
    flags = [word for name, value in vars(arguments).items() for word in (f"--{name}", str(value))]
    sys.exit(main(["convert", *flags, "--workspace", str(WORKSPACE)]))
