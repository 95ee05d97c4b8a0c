"""Which taps are compared: those of equal names, and which must exist on both sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from trtllm_port.verification.taps.names import is_further_output, is_input, module_of, parent_of, within

DECLARED_START = "the port declares that it is computed"
DECLARED = f"{DECLARED_START} elsewhere, and no module's output holds it by itself"
WHOLE = "the port computes `{}` in one, for all tokens"
UNLIKE = f"{DECLARED_START} in `{{}}`, whose output has not the size of all that it is to hold"


@dataclass(frozen=True, kw_only=True)
class ModuleFacts:
    """What the comparison needs to know of one HF module.

    Attributes:
        class_name: HF's class.
        holds_parameters: it or a module below has parameters.
        epsilon: of a normalisation, else None.
    """

    class_name: str
    holds_parameters: bool
    epsilon: float | None = None


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Which taps are compared, and which are wrong by their mere presence or absence.

    Attributes:
        paired: taps of both sides, in HF's execution order.
        missing: output taps of HF modules with parameters that the port does not have.
        extra: the port's taps with parameters that HF does not have.
        ignored: taps of one side only that need no counterpart, with the reason.
    """

    paired: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    ignored: Mapping[str, str]


def pair(
    hf_taps: Sequence[str],
    port_taps: Collection[str],
    modules: Mapping[str, ModuleFacts],
    port_parameters: Collection[str],
    elsewhere: Mapping[str, str | None] | None = None,
) -> Pairing:
    """Pair taps by exact name.

    Args:
        hf_taps: HF's taps in the order of execution.
        port_taps: the port's taps.
        modules: every HF module by its path.
        port_parameters: names of the port's parameters; a tap with none below it is a helper of the port's own.
        elsewhere: modules of HF's that the port declares to compute elsewhere → the tap that holds them, or None.
    """
    offered, known = set(port_taps), set(hf_taps)
    declared = {name: place for name, place in (elsewhere or {}).items() if place is None or place in offered}
    missing, extra, ignored = [], [], {}
    for tap in (tap for tap in hf_taps if tap not in offered):
        facts = modules[module_of(tap)]
        if is_input(tap) or is_further_output(tap):
            ignored[tap] = "the port does not tap this"
        elif place := next((name for name in declared if name == tap or within(tap, name)), None):
            ignored[tap] = DECLARED if declared[place] is None else UNLIKE.format(declared[place])
        elif (whole := _list_around(tap, modules)) in offered:
            ignored[tap] = WHOLE.format(whole)
        elif facts.holds_parameters:
            missing.append(tap)
        else:
            ignored[tap] = f"{facts.class_name} has no parameters and the port does without it"
    for tap in sorted(offered - known):
        module = module_of(tap)
        if module in modules:
            ignored[tap] = "Hugging Face passes no tensor here"
        elif any(_holds(module, name, place, modules) for name, place in declared.items()):
            ignored[tap] = "it holds what the port declares to compute elsewhere"
        elif any(within(name, module) for name in port_parameters):
            extra.append(tap)
        else:
            ignored[tap] = "a helper of the port without parameters"
    paired = tuple(tap for tap in hf_taps if tap in offered)
    return Pairing(paired=paired, missing=tuple(missing), extra=tuple(extra), ignored=ignored)


def _list_around(tap: str, modules: Mapping[str, ModuleFacts]) -> str:
    """The list of modules that a tap lies in: experts, each of which Hugging Face gives the tokens that chose it."""
    path = parent_of(module_of(tap))
    while path and modules[path].class_name != "ModuleList":
        path = parent_of(path)
    return path


def _holds(module: str, name: str, place: str | None, modules: Collection[str]) -> bool:
    """Whether what Hugging Face does not have may be where `name` is computed: the declared place, else beside it."""
    if place is not None:
        return module == place or within(module, place)
    while parent_of(module) and parent_of(module) not in modules:
        module = parent_of(module)
    return parent_of(module) == parent_of(name)


def declaration(pairing: Pairing) -> str:
    """Return the line that a class would have if what is missing first, and its siblings, are computed elsewhere."""
    parent = parent_of(pairing.missing[0])

    def names(taps: Sequence[str]) -> list[str]:
        modules = dict.fromkeys(map(module_of, taps))
        return [module.rpartition(".")[2] for module in modules if parent_of(module) == parent]

    extra = names(pairing.extra)
    place = repr(extra[0]).replace("'", '"') if len(extra) == 1 else "None"
    return "computed_elsewhere = {" + ", ".join(f'"{name}": {place}' for name in names(pairing.missing)) + "}"
