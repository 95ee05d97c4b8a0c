"""Trace one configuration: build the tiny model, fill its cache, record one step."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from trtllm_port.codegen.configs.depth import require_small
from trtllm_port.codegen.configs.sizes import Sample
from trtllm_port.codegen.ir.dtypes import TRACE_DTYPE
from trtllm_port.codegen.ir.trace import ConstructorArguments, Trace
from trtllm_port.codegen.record.attribute_states import held_tensors
from trtllm_port.codegen.record.custom_caches import fill_cache, recorded_cache
from trtllm_port.codegen.record.hooks import IMPLEMENTATION, hooks, register
from trtllm_port.codegen.record.recorder import Recorder, recording
from trtllm_port.huggingface.caches import cache_argument, keeps_cache, positions_are_slots
from trtllm_port.huggingface.random_weights import condition


def build_model(config: Any, dtype: torch.dtype, *, implementation: str, trust_remote_code: bool = False) -> nn.Module:
    """A conditioned random model of a config, in eval mode."""
    register()
    with require_small():
        model: nn.Module = AutoModelForCausalLM.from_config(
            config,
            dtype=dtype,
            attn_implementation=implementation,
            experts_implementation=IMPLEMENTATION,
            trust_remote_code=trust_remote_code,
        )
    condition(model, seed=0)
    model.eval()
    return model


def trace(sample: Sample, *, trust_remote_code: bool = False) -> Trace:
    """Record one step of `sample.length` tokens on top of `sample.past` cached ones.

    Attention is one operation where the model looks it up among transformers' attention functions; a model that has an
    attention of its own is recorded operation by operation.
    """
    try:
        return _trace(sample, IMPLEMENTATION, trust_remote_code)
    except KeyError as error:
        if error.args != (IMPLEMENTATION,):
            raise
        return _trace(sample, "eager", trust_remote_code)


def _trace(sample: Sample, implementation: str, trust_remote_code: bool) -> Trace:
    with ExitStack() as stack:
        absent = stack.enter_context(_absent_keys())
        with _constructor_arguments() as (made_with, config_names):
            model = build_model(
                sample.config, TRACE_DTYPE, implementation=implementation, trust_remote_code=trust_remote_code
            )
        recorder, before = Recorder(model), held_tensors(model)
        for context in (torch.no_grad(), hooks(model), recording(recorder)):
            stack.enter_context(context)
        remembers = keeps_cache(model)
        if not remembers:
            sample = replace(sample, past=0, length=sample.past + sample.length)
        first, step = _inputs(sample)
        cache = recorded_cache(model)
        more = {cache_argument(model): cache, "use_cache": True} if remembers else {}
        given = list(step) if positions_are_slots(model, step["input_ids"]) else ["input_ids"]
        if remembers:
            fill_cache(model, {**{name: first[name] for name in given}, **more})
            recorder.states.in_modules = held_tensors(model) != before
            more["use_cache"] = not recorder.states.in_modules
        marker = torch.zeros(())  # stands for the cache, which is no tensor
        inputs = {name: recorder.value(tensor) for name, tensor in {**step, "cache": marker}.items()}
        recorder.model_inputs.update(inputs)
        with recorder:
            out = model(**{name: step[name] for name in given}, **more)
        recorder.states.check_empty()
    assert recorder.root is not None  # the model was called
    if implementation == IMPLEMENTATION and recorder.asked_for == {"mask"}:  # with masks for the registered attention
        raise KeyError(IMPLEMENTATION)
    wide = functools.partial(build_model, sample.config, torch.float32, implementation=IMPLEMENTATION)
    return Trace(
        sample,
        model,
        recorder.root,
        inputs,
        logits=recorder.value(out.logits),
        made_with=made_with,
        config_names=config_names,
        absent=frozenset(absent),
        in_float32=functools.cache(wide),
        keeps_cache=remembers,
        bfloat16_buffers=_bfloat16_buffers(model, sample.config, trust_remote_code),
    )


def _bfloat16_buffers(model: nn.Module, config: Any, trust_remote_code: bool) -> frozenset[str]:
    """Names of a model's buffers that no checkpoint holds and that are in bfloat16 in a model of float32, too."""
    stored = model.state_dict()
    half = {name for name, buffer in model.named_buffers() if buffer.dtype == TRACE_DTYPE and name not in stored}
    if not half:
        return frozenset()
    with torch.device("meta"):
        wide = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
    return frozenset(name for name, buffer in wide.named_buffers() if name in half and buffer.dtype == TRACE_DTYPE)


def _inputs(sample: Sample) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tokens that fill the cache, and those of the step that is recorded."""
    generator = torch.Generator().manual_seed(0)
    total = sample.past + sample.length
    vocabulary = int(sample.config.get_text_config(decoder=True).vocab_size)
    ids = torch.randint(3, vocabulary, (sample.batch, total), generator=generator)
    positions = torch.arange(total).expand(sample.batch, total)
    parts = (slice(0, sample.past), slice(sample.past, total))
    first, step = ({"input_ids": ids[:, p].clone(), "position_ids": positions[:, p].clone()} for p in parts)
    return first, step


@contextmanager
def _constructor_arguments() -> Iterator[tuple[ConstructorArguments, dict[type, str]]]:
    """Collect what every module is made with while the context lasts, other modules apart; see `Trace`."""
    found: ConstructorArguments = {}
    config_names: dict[type, str] = {}
    original = nn.Module.__init__

    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and _makes(frame.f_back, self):
            frame = frame.f_back
        if _makes(frame, self):  # the outermost `__init__`: that of the module's own class
            code = frame.f_code
            names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
            taken = {name: frame.f_locals[name] for name in names if name in frame.f_locals}
            config = next((name for name, value in taken.items() if isinstance(value, PreTrainedConfig)), "config")
            if "config" not in names and config in taken:
                config_names[type(self)] = config
                taken = {"config" if name == config else name: value for name, value in taken.items()}
            found[self] = {name: value for name, value in taken.items() if not isinstance(value, nn.Module)}
        original(self, *args, **kwargs)

    with mock.patch.object(nn.Module, "__init__", init):
        yield found, config_names


@contextmanager
def _absent_keys() -> Iterator[set[str]]:
    """Collect the attributes that modelling files look for on configs in vain while the context lasts."""
    found: set[str] = set()

    def missing(self: PreTrainedConfig, name: str) -> Any:
        file = Path(sys._getframe(1).f_code.co_filename)
        is_model = file.name.startswith("modeling_") and file.parent.name != "transformers"  # whose helpers serve all
        if is_model and not name.startswith("_"):
            found.add(name)
        raise AttributeError(f"`{type(self).__name__}` has no attribute `{name}`")

    with mock.patch.object(PreTrainedConfig, "__getattr__", missing, create=True):
        yield found


def _makes(frame: FrameType, module: nn.Module) -> bool:
    return frame.f_code.co_name == "__init__" and frame.f_locals.get("self") is module
