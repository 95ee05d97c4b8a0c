"""The skeleton of a port that is written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trtllm_port.foundation.quoting import require_name
from trtllm_port.porting.templates import render_template
from trtllm_port.registry.names import check_name


@dataclass(frozen=True, kw_only=True)
class BlankSource:
    """Bodies with TODO marks, which run as a plain decoder."""

    architecture: str
    port_class: str
    files: Mapping[str, str]
    test: str


def blank_source(name: str, architecture: str | None = None) -> BlankSource:
    """Return the skeleton for a port's name.

    Args:
        name: of the port, `my_model`; its classes are called `MyModel…`.
        architecture: the name in `config.json` that the port serves; `MyModelForCausalLM` if None.

    Raises:
        PortError: the architecture is no name.
        WorkspaceError: the name is not usable.
    """
    check_name(name)
    prefix = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    port_class = f"{prefix}ForCausalLM"
    architecture = architecture or port_class
    require_name(architecture, "an architecture")
    files = render_template("blank", {"name": name, "prefix": prefix, "architecture": architecture})
    test = files.pop("test.py")
    return BlankSource(architecture=architecture, port_class=port_class, files=files, test=test)
