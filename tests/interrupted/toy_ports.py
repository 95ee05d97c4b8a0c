"""Ports as small as can be, written as `new` writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trtllm_port.porting import write


@dataclass(frozen=True)
class Toy:
    """A port as small as can be."""

    letter: str
    sizes: int

    @property
    def architecture(self) -> str:
        return f"{self.letter}ForCausalLM"

    port_class = architecture

    @property
    def files(self) -> dict[str, str]:
        model = f'"""Toy."""\n\nfrom .config import SIZES\n\n\nclass {self.architecture}:\n    sizes = SIZES\n'
        return {"config.py": f"SIZES = {self.sizes}\n", "model.py": model, "convert.py": '"""Weights."""\n'}


def write_toy(workspace: Path, letter: str, sizes: int, *, force: bool = False) -> None:
    name = f"toy_{letter.lower()}"
    write.write_port(Toy(letter, sizes), workspace=workspace, name=name, test='"""Test."""\n', force=force)
