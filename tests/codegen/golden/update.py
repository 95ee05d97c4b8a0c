"""Write the approved text of the generated Llama anew; then read the difference."""

from __future__ import annotations

from pathlib import Path

import transformers

from trtllm_port.codegen import generate_port

if __name__ == "__main__":
    for name, text in generate_port(transformers.LlamaConfig()).files.items():
        (Path(__file__).parent / "llama" / name).write_text(text)
