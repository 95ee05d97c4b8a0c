"""A trace: the record of one step of one model, with what is known of the model."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from trtllm_port.codegen.configs.sizes import Sample
from trtllm_port.codegen.ir.record import Call, Value

ConstructorArguments = dict[nn.Module, dict[str, Any]]


@dataclass(eq=False)
class Trace:
    """The record of one step of one model.

    Attributes:
        inputs: "input_ids", "position_ids" and "cache": what the root call starts from.
        logits: the value of the logits.
        made_with: module → the arguments of its class's `__init__`, by name; modules among them are made by the port.
            The model's config is called `config`, whatever the class calls it.
        origins: module → the arithmetic over the config that made the numbers which it keeps, by name.
        absent: config keys that the modelling code asks for, with a default, and that the config does not have.
        in_float32: gives the same model in float32, which is built when it is first asked for.
        keeps_cache: whether the model has a cache; if not, the step is all tokens, and a port has to keep one itself.
        asked_for_masks: whether the model asked transformers for masks; those of others are told by their content.
        bfloat16_buffers: buffers that no checkpoint holds and that are in bfloat16 in a model of float32, too.
    """

    sample: Sample
    model: nn.Module
    root: Call
    inputs: dict[str, Value]
    logits: Value
    made_with: ConstructorArguments
    origins: dict[nn.Module, dict[str, ast.expr]]
    absent: frozenset[str]
    in_float32: Callable[[], nn.Module]
    keeps_cache: bool = True
    asked_for_masks: bool = True
    bfloat16_buffers: frozenset[str] = frozenset()
