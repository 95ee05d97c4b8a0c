"""Where a network is while it is being defined: the module whose `forward` runs, and what is named after modules.

A layer is named by the path of the module whose `forward` made it and by its operation
(`model.layers.0.self_attn.q_proj/matmul`).
"""

from __future__ import annotations

from collections.abc import Mapping

from trtllm_port.errors import NetworkError
from trtllm_port.layers.definition.protocols import ModuleLike


class Scopes:
    """The part of a network that knows modules: their paths, the names of their parameters, which of them runs.

    Attributes:
        computed_elsewhere: path of a module of HF's → path of the port's module that computes it, or None, as the
            modules declare.
    """

    def __init__(self) -> None:
        self.computed_elsewhere: dict[str, str | None] = {}
        self._layer_names: dict[str, int] = {}
        self._scope: list[str] = []
        self._calls: dict[str, int] = {}
        self._module_paths: dict[int, str] = {}
        self._parameter_names: dict[int, str] = {}
        self._bound: list[ModuleLike] = []  # keeps the ids above valid

    def bind(self, module: ModuleLike) -> None:
        """Tell the network the names of a module tree: of its modules for taps, of its parameters for weights."""
        self._bound.append(module)
        modules = dict(module.named_modules())
        for path, child in modules.items():
            self._module_paths.setdefault(id(child), path)
            self._declare(path, child, modules)
        for name, parameter in module.named_parameters():
            self._parameter_names.setdefault(id(parameter), name)
            parameter.network = self

    def _declare(self, path: str, module: ModuleLike, modules: Mapping[str, ModuleLike]) -> None:
        """Note what a module declares to be computed elsewhere."""
        start = f"{path}." if path else ""
        for name, place in module.computed_elsewhere.items():
            wrong = f"`{type(module).__name__}.computed_elsewhere` has `{name}`"
            if start + name in modules:
                raise NetworkError(f"{wrong}, which is a module of the port itself", hint="leave it out")
            if place is not None and start + place not in modules:
                raise NetworkError(
                    f"{wrong} in `{place}`, and `{path or 'the model'}` has no such module",
                    hint="name one of the port's modules, or None where no module's output holds it",
                )
            self.computed_elsewhere[start + name] = None if place is None else start + place

    def enter(self, module: ModuleLike) -> str:
        """Begin a module's `forward`; returns the name of this call's tap, "" for an unnamed module."""
        path = self._module_paths.get(id(module), "")
        self._scope.append(path or (self._scope[-1] if self._scope else ""))
        if not path:
            return ""
        count = self._calls[path] = self._calls.get(path, 0) + 1
        return path if count == 1 else f"{path}#{count}"

    def leave(self) -> None:
        """End a module's `forward`."""
        self._scope.pop()

    def path_of(self, module: ModuleLike) -> str | None:
        """A module's path, None where it is not of this network."""
        return self._module_paths.get(id(module))

    def where(self) -> str:
        """The module whose `forward` is running, as the beginning of an error message."""
        return f"in `{self._scope[-1]}`: " if self._scope and self._scope[-1] else ""

    def _layer_name(self, operation: str) -> str:
        path = self._scope[-1] if self._scope else ""
        name = f"{path}/{operation}" if path else operation
        count = self._layer_names[name] = self._layer_names.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"
