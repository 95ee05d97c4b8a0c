"""Where the numbers that a model's modules keep come from: the arithmetic that made them of the config's keys.

While a model is made, modelling files read numbers of its config that remember what was done to them: they are numbers
like others, and every sum or product of them is one that remembers, too. What the modules then hold is told, and plain
numbers are put in its place.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from torch import nn
from transformers import PreTrainedConfig

from trtllm_port.huggingface.compatibility.config_classes import SPELLINGS
from trtllm_port.huggingface.configs import parts_of
from trtllm_port.huggingface.interception.modelling_code import is_modelling_file
from trtllm_port.huggingface.text_part import listed_class

Origins = dict[nn.Module, dict[str, ast.expr]]
LAYER = "layer_idx"
LARGEST = 250  # nodes of an expression; what is longer is no size that anybody would write
_BINARY: dict[str, type[ast.operator]] = {
    **{"add": ast.Add, "sub": ast.Sub, "mul": ast.Mult, "truediv": ast.Div, "floordiv": ast.FloorDiv},
    **{"mod": ast.Mod, "pow": ast.Pow},
}
_FUNCTIONS = ("abs", "float", "int", "max", "min", "round")
_OF_MATH = ("ceil", "exp", "floor", "log", "log2", "sqrt")


class _Told:
    """A number with its origin; the mixin of `_Whole` and `_Real`."""

    origin: ast.expr

    def __copy__(self) -> Any:
        return plain(self)

    def __deepcopy__(self, memo: Any) -> Any:
        return plain(self)

    def __reduce__(self) -> Any:
        return type(plain(self)), (plain(self),)


class _Whole(_Told, int):
    __hash__ = int.__hash__


class _Real(_Told, float):
    __hash__ = float.__hash__


class _Table(dict[str, Any]):
    """A dict of a config whose numbers tell their origin when they are read; what is written goes to the config."""

    def __init__(self, source: dict[str, Any], origin: ast.expr) -> None:
        super().__init__(source)
        self.source, self.origin = source, origin

    def __getitem__(self, key: str) -> Any:
        return _told(super().__getitem__(key), ast.Subscript(self.origin, ast.Constant(key), ast.Load()))

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self.source[key] = plain(value)

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self:
            return default
        return self[key]

    def __deepcopy__(self, memo: Any) -> Any:
        return dict(self.source)


def plain(value: Any) -> Any:
    """A number without its origin; anything else as it is."""
    if isinstance(value, _Whole):
        return int.__int__(value)
    if isinstance(value, _Real):
        return float.__float__(value)
    return value.source if isinstance(value, _Table) else value


def _told(value: Any, origin: ast.expr) -> Any:
    """A value with its origin, if it is a number or a dict."""
    if type(value) not in (int, float, dict) or sum(1 for _ in ast.walk(origin)) > LARGEST:
        return value
    if isinstance(value, dict):
        return _Table(value, origin)
    made: Any = _Whole(value) if isinstance(value, int) else _Real(value)
    made.origin = origin
    return made


def _origin(value: Any) -> ast.expr | None:
    """The origin of a number; None of what is none, or a truth value."""
    if isinstance(value, _Told):
        return value.origin
    if (type(value) is float and value < 0) or (type(value) is int and value < 0):
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value) if type(value) in (int, float) else None


def _binary(name: str, *, swapped: bool) -> Callable[[Any, Any], Any]:
    compute, node = getattr(operator, name), _BINARY[name]

    def method(self: Any, other: Any) -> Any:
        origin = _origin(other)
        if origin is None:
            return NotImplemented if not isinstance(other, bool) else compute(*_ordered(plain(self), other, swapped))
        value = compute(*_ordered(plain(self), plain(other), swapped))
        return _told(value, ast.BinOp(*_ordered(self.origin, origin, swapped, node())))

    return method


def _ordered(first: Any, second: Any, swapped: bool, between: Any = None) -> tuple[Any, ...]:
    left, right = (second, first) if swapped else (first, second)
    return (left, right) if between is None else (left, between, right)


def _negated(self: Any) -> Any:
    return _told(-plain(self), ast.UnaryOp(ast.USub(), self.origin))


for _kind in (_Whole, _Real):
    for _name in _BINARY:
        setattr(_kind, f"__{_name}__", _binary(_name, swapped=False))
        setattr(_kind, f"__r{_name}__", _binary(_name, swapped=True))
    setattr(_kind, "__neg__", _negated)  # noqa: B010  # with the others


def _calling(function: Callable[..., Any], called: ast.expr) -> Callable[..., Any]:
    """A function that tells the origin of its result, where those of its arguments are told."""

    def call(*args: Any, **kwargs: Any) -> Any:
        value = function(*map(plain, args), **kwargs)
        if kwargs or not any(isinstance(arg, _Told) for arg in args):
            return value
        origins = [origin for origin in map(_origin, args) if origin is not None]
        return value if len(origins) < len(args) else _told(value, ast.Call(called, origins, []))

    return call


class _Kind(type):
    """Of what stands for `int` and `float` in a modelling file: it tells origins when called, and is the type else."""

    base: type[Any]

    def __call__(cls, *args: Any) -> Any:
        return _calling(cls.base, ast.Name(cls.base.__name__, ast.Load()))(*args)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.base)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, cls.base)

    def __eq__(cls, other: object) -> bool:
        return other is cls.base or other is cls

    def __hash__(cls) -> int:
        return hash(cls.base)


def _names() -> dict[str, Any]:
    """What functions are called in a modelling file, and what stands for them."""
    found: dict[str, Any] = {
        name: _calling(getattr(builtins, name), ast.Name(name, ast.Load()))
        for name in _FUNCTIONS
        if name not in ("int", "float")
    }
    for base in (int, float):
        found[base.__name__] = _Kind(base.__name__, (), {"base": base})
    told = {
        name: _calling(getattr(math, name), ast.Attribute(ast.Name("math", ast.Load()), name, ast.Load()))
        for name in _OF_MATH
    }
    return {**found, "range": _layers, "math": SimpleNamespace(**{**vars(math), **told})}


def _layers(*args: int) -> Any:
    """As `range`; the numbers up to one of the config's tell that they number layers, which is to be checked."""
    if len(args) != 1 or not isinstance(args[0], _Told):
        return range(*args)
    return [_told(number, ast.Name(LAYER, ast.Load())) for number in range(args[0])]


@contextmanager
def numbers_that_tell(config: PreTrainedConfig) -> Iterator[None]:
    """While it lasts, modelling files read numbers of a config, and of configs within it, that tell their origin."""
    names: dict[int, ast.expr] = {id(config): ast.Name("config", ast.Load())}
    for name, part in parts_of(config).items():
        names[id(part)] = ast.Attribute(ast.Name("config", ast.Load()), name, ast.Load())
    original = PreTrainedConfig.__getattribute__

    def read(self: PreTrainedConfig, name: str) -> Any:
        value = original(self, name)
        if name.startswith("_") or type(value) not in (int, float, dict) or id(self) not in names:
            return value
        if not is_modelling_file(sys._getframe(1).f_code.co_filename):
            return value
        key = (original(self, "attribute_map") or {}).get(name, name)
        if key not in vars(self):
            key = SPELLINGS.get(key, key)
        return _told(value, ast.Attribute(names[id(self)], key, ast.Load()))

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(PreTrainedConfig, "__getattribute__", read))
        for source in _sources(config):
            known = {
                name: other for name, other in _names().items() if name != "math" or vars(source).get(name) is math
            }
            stack.enter_context(mock.patch.dict(vars(source), known))
            for function in _functions(source):
                stack.callback(setattr, function, "__code__", function.__code__)
                function.__code__ = _with_constants(function.__code__)
        yield


def _sources(config: PreTrainedConfig) -> list[ModuleType]:
    """The modelling files of a config's model: of its class and those that it is derived from."""
    kinds = getattr(listed_class(config), "__mro__", ())
    names = dict.fromkeys(kind.__module__ for kind in kinds)
    sources = [sys.modules[name] for name in names if name in sys.modules]
    return [source for source in sources if is_modelling_file(getattr(source, "__file__", None) or "")]


def _functions(source: ModuleType) -> Iterator[FunctionType]:
    """The functions and methods that a file defines."""
    for found in list(vars(source).values()):
        for value in list(vars(found).values()) if isinstance(found, type) else [found]:
            function = inspect.unwrap(value) if callable(value) else None
            if isinstance(function, FunctionType) and function.__module__ == source.__name__:
                yield function


def _with_constants(code: CodeType) -> CodeType:
    """Code whose fractions tell their origin, too: a plain one would make a plain number of a size."""
    constants = [
        _with_constants(item)
        if isinstance(item, CodeType)
        else _told(item, ast.Constant(item))
        if type(item) is float
        else item
        for item in code.co_consts
    ]
    return code.replace(co_consts=tuple(constants))


def take_origins(model: nn.Module) -> Origins:
    """The origins of the numbers that a model's modules keep; plain numbers are put in their place."""
    found: Origins = {}
    for module in model.modules():
        table = vars(module)
        for name, value in list(table.items()):
            if isinstance(value, _Told):
                found.setdefault(module, {})[name] = value.origin
            table[name] = _bare(value)
    return found


def _bare(value: Any) -> Any:
    """A value without origins in it."""
    if isinstance(value, _Told | _Table):
        return plain(value)
    if type(value) in (list, tuple) and any(isinstance(item, _Told | _Table) for item in value):
        return type(value)(map(_bare, value))
    if type(value) is dict and any(isinstance(item, _Told | _Table) for item in value.values()):
        return {key: _bare(item) for key, item in value.items()}
    return value


def bare_arguments(made_with: dict[nn.Module, dict[str, Any]]) -> None:
    """Put plain numbers in the place of those that tell their origin, in what modules were made with."""
    for table in made_with.values():
        for name, value in table.items():
            table[name] = _bare(value)
