"""Trace one configuration: build the tiny model, fill its cache, record one step."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from trtllm_port.codegen.configs.depth import require_small
from trtllm_port.codegen.configs.sizes import Sample
from trtllm_port.codegen.ir.dtypes import TRACE_DTYPE
from trtllm_port.codegen.ir.trace import Trace
from trtllm_port.codegen.record.attribute_states import held_tensors
from trtllm_port.codegen.record.cache_operations import recorded_cache
from trtllm_port.codegen.record.hooks import IMPLEMENTATION, hooks, register
from trtllm_port.codegen.record.mixed_products import mixed_products
from trtllm_port.codegen.record.recorder import Recorder, recording
from trtllm_port.errors import UnsupportedModelError
from trtllm_port.huggingface.caches import cache_argument, keeps_cache, positions_are_slots, takes_single_tokens_only
from trtllm_port.huggingface.compatibility.remote_code import is_remote
from trtllm_port.huggingface.interception.construction import absent_keys, constructor_arguments
from trtllm_port.huggingface.interception.expert_lists import stack_expert_lists
from trtllm_port.huggingface.interception.observed_cache import fill_cache
from trtllm_port.huggingface.interception.origins import bare_arguments, numbers_that_tell, take_origins
from trtllm_port.huggingface.loading import EAGER, make_model, make_on_paper
from trtllm_port.huggingface.random_weights import condition


def build_model(config: Any, dtype: torch.dtype, *, implementation: str, trust_remote_code: bool = False) -> nn.Module:
    """A conditioned random model of a config, in eval mode."""
    register()
    with require_small():
        model: nn.Module = make_model(
            config,
            dtype=dtype,
            attention=implementation,
            experts=IMPLEMENTATION,
            trust_remote_code=trust_remote_code,
        )
    if is_remote(type(model)):
        stack_expert_lists(model)
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
        return _trace(sample, EAGER, trust_remote_code)


def goes_on_by_single_tokens(sample: Sample, *, trust_remote_code: bool = False) -> bool:
    """Whether a step cannot be traced because Hugging Face's own code takes single tokens only on top of cached ones.

    The first step of a text can then: a single token would say nothing of several, which most recurrences and
    convolutions compute in another way.
    """
    if not sample.past:
        return False
    try:
        model = build_model(sample.config, torch.float32, implementation=EAGER, trust_remote_code=trust_remote_code)
    except Exception:  # any: it is Hugging Face's code that runs here
        return False
    first, step = _inputs(sample)
    return keeps_cache(model) and takes_single_tokens_only(model, first["input_ids"], step["input_ids"])


def _trace(sample: Sample, implementation: str, trust_remote_code: bool) -> Trace:
    with ExitStack() as stack:
        absent = stack.enter_context(absent_keys())
        with constructor_arguments() as made_with, numbers_that_tell(sample.config):
            model = build_model(
                sample.config, TRACE_DTYPE, implementation=implementation, trust_remote_code=trust_remote_code
            )
        origins = take_origins(model)
        bare_arguments(made_with)
        recorder, before = Recorder(model), held_tensors(model)
        for context in (torch.no_grad(), hooks(model), recording(recorder), mixed_products(model)):
            stack.enter_context(context)
        remembers = keeps_cache(model)
        if not remembers:
            sample = replace(sample, past=0, length=sample.past + sample.length)
        first, step = _inputs(sample)
        more: dict[str, Any] = {}
        slots = positions_are_slots(model, step["input_ids"])
        if not slots:
            require_repeatable(model, step["input_ids"])
        given = list(step) if slots else ["input_ids"]
        if remembers:
            more = {cache_argument(model): recorded_cache(model), "use_cache": True}
            filling = first if sample.past else step
            fill_cache(model, {**{name: filling[name] for name in given}, **more})
            if not sample.past:  # it was filled only to see where states are kept
                more[cache_argument(model)] = recorded_cache(model)
            recorder.states.in_modules = held_tensors(model) != before
            more["use_cache"] = not recorder.states.in_modules
        marker = torch.zeros(())  # stands for the cache, which is no tensor
        inputs = {name: recorder.value(tensor) for name, tensor in {**step, "cache": marker}.items()}
        recorder.model_inputs.update(inputs)
        with recorder, mixed_products(model):  # so that the casts are recorded
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
        origins=origins,
        absent=frozenset(absent),
        in_float32=functools.cache(wide),
        keeps_cache=remembers,
        asked_for_masks="mask" in recorder.asked_for,
        bfloat16_buffers=_bfloat16_buffers(model, sample.config, trust_remote_code),
    )


def require_repeatable(model: nn.Module, ids: torch.Tensor) -> None:
    """Refuse a model that computes something else of the same tokens when it is called again."""
    first, second = (model(input_ids=ids).logits for _ in range(2))
    if not torch.equal(first, second):
        raise UnsupportedModelError(
            f"`{type(model).__name__}` computes something else of the same tokens when it is called again",
            hint="it changes its own weights as it runs, or draws random numbers",
        )


def _bfloat16_buffers(model: nn.Module, config: Any, trust_remote_code: bool) -> frozenset[str]:
    """Names of a model's buffers that no checkpoint holds and that are in bfloat16 in a model of float32, too."""
    stored = model.state_dict()
    half = {name for name, buffer in model.named_buffers() if buffer.dtype == TRACE_DTYPE and name not in stored}
    if not half:
        return frozenset()
    wide = make_on_paper(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
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
