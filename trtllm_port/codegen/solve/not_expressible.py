"""Why something cannot be written: nothing that the port may mention tells what it is, or when."""

from __future__ import annotations

from trtllm_port.codegen.ir.expressions import Values


class NotExpressible(Exception):
    """A value of the traced computation follows from nothing that the config says."""

    def __init__(self, values: Values, what: str) -> None:
        super().__init__(f"{what} is {', '.join(dict.fromkeys(map(str, values)))} in the traced configurations")
        self.values = values


class Undecided(NotExpressible):
    """Nothing that the config says tells apart what computes different things."""

    def __init__(self, values: Values, paths: tuple[str, str], where: object) -> None:
        Exception.__init__(
            self,
            f"`{paths[0]}` and `{paths[1]}` compute different things, and nothing in the config tells when"
            f"{f' ({where})' if where else ''}",
        )
        self.values = values


class SometimesComputed(NotExpressible):
    """A tensor is used where some of the traced configurations do not compute it."""

    def __init__(self) -> None:
        Exception.__init__(self, "a tensor is used that some of the traced configurations do not compute")
        self.values = ()
