"""Names of taps, and of the modules that they belong to.

A tap is named after the HF module whose first output tensor it is; `name:input` is the module's first input tensor,
`name:1` and so on are the further tensors of a tuple that it returns. `name:input:chosen` and `name:input:weights` are
the experts that it is told to use and their weights, where another module chose them.
"""

from __future__ import annotations

from collections.abc import Collection

INPUT_SUFFIX = ":input"
ROOT = ""  # the model itself; its tap is the logits
LOGITS = "logits"


def input_of(module: str) -> str:
    """Return the name of a module's input tap."""
    return module + INPUT_SUFFIX


def module_of(tap: str) -> str:
    """Return the module that a tap belongs to; the logits belong to the model itself."""
    return ROOT if tap == LOGITS else tap.partition(":")[0]


def is_input(tap: str) -> bool:
    """Whether the tap is one of a module's inputs."""
    return f"{tap}:".partition(":")[2].startswith("input:")


def further_output(module: str, index: int) -> str:
    """Return the name of the tap of what a module returns at `index` of a tuple."""
    return f"{module}:{index}"


def is_further_output(tap: str) -> bool:
    """Whether the tap is an output of a module beside its first."""
    return tap.rpartition(":")[2].isdigit() and ":" in tap


def parent_of(module: str) -> str:
    """Return the path of the module that holds this one."""
    return module.rpartition(".")[0]


def within(module: str, ancestor: str) -> bool:
    """Whether `module` lies below `ancestor` (not itself)."""
    return module != ancestor and (ancestor == ROOT or module.startswith(ancestor + "."))


def nearest_tapped_parent(module: str, tapped: Collection[str]) -> str:
    """Return the closest ancestor that has a tap (a ModuleList has none); the root at last."""
    while module:
        module = parent_of(module)
        if module in tapped:
            return module
    return ROOT
