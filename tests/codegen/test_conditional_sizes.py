"""A size that an option shows twice is compared where the option is another one, too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from trtllm_port.codegen.ir.expressions import MISSING, SymbolicValue
from trtllm_port.codegen.write.conditional_sizes import complete_size

HEADS = (2, 4, 6, 8)


class _Projection(nn.Linear):
    """Another class than `nn.Linear`."""


def _scope(kinds: list[type[nn.Linear]], widths: tuple[int, ...]) -> Any:
    instances = []
    for kind, width in zip(kinds, widths, strict=True):
        module = nn.Module()
        module.proj = kind(5, width)
        instances.append(SimpleNamespace(block=SimpleNamespace(module=module), trace=SimpleNamespace(made_with={})))
    return SimpleNamespace(instances=instances, symbols={"config.heads": HEADS}, attributes={}, from_config=True)


def test_the_other_option_rules_out_what_fits_by_chance() -> None:
    scope = _scope([nn.Linear] * 4, tuple(3 * heads for heads in HEADS))
    assert complete_size(SymbolicValue((MISSING, MISSING, 18, 24)), "proj", scope) == SymbolicValue((6, 12, 18, 24))


def test_a_size_that_follows_from_nothing_elsewhere_stays_as_it_is() -> None:
    own = SymbolicValue((MISSING, MISSING, 18, 24))
    assert complete_size(own, "proj", _scope([nn.Linear] * 4, (7, 101, 18, 24))) is own


def test_modules_of_another_class_say_nothing() -> None:
    own = SymbolicValue((MISSING, MISSING, 18, 24))
    kinds = [_Projection, _Projection, nn.Linear, nn.Linear]
    assert complete_size(own, "proj", _scope(kinds, tuple(3 * heads for heads in HEADS))) is own
