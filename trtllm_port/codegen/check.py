"""`check_port`: a port against Hugging Face on tiny random weights, at a size and a shape that no trace has seen.

Every module that both have is compared on prompts of 512 tokens, then several decode steps through the KV cache. The
port's network runs on the reference executor, so this needs neither a GPU nor a compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trtllm_port.codegen.checked_port import port_class_of, refusal
from trtllm_port.codegen.configs.full_size import place_of
from trtllm_port.codegen.configs.sizes import config_values, unseen_config
from trtllm_port.codegen.discrete_choices import (
    choices,
    forced,
    integer,
    most_others,
    other_choices,
    where_chosen_alike,
)
from trtllm_port.codegen.generate import PortSource
from trtllm_port.codegen.ir.trees import leaves
from trtllm_port.codegen.soundness import unsound, unsteady
from trtllm_port.codegen.write.classes import Skeleton
from trtllm_port.errors import PortError, UnsupportedModelError
from trtllm_port.foundation.claims import scratch
from trtllm_port.foundation.progress import Progress
from trtllm_port.huggingface.caches import (
    cache_argument,
    empty_cache,
    first_cache,
    keeps_cache,
    positions_are_slots,
    takes_single_tokens_only,
    wants_mask,
)
from trtllm_port.huggingface.configs import whole_config
from trtllm_port.huggingface.exact_arithmetic import ExactArithmetic
from trtllm_port.huggingface.interception.observed_cache import whole_cache
from trtllm_port.huggingface.loading import load_model
from trtllm_port.huggingface.models import load_config, require_causal_lm
from trtllm_port.huggingface.module_outputs import choice_given, made_beside, of_tokens
from trtllm_port.huggingface.quiet import quiet_transformers
from trtllm_port.huggingface.random_weights import save_random_checkpoint

if TYPE_CHECKING:
    from trtllm_port.runtime.session import Session

ROWS = 2
TOKENS = 512
STEPS = 8
TOLERANCE = 1e-6  # relative, in float32: rounding; a norm's epsilon of 1e-5 instead of 1e-6 is 4e-6
NOISE = 5.0  # or this many times Hugging Face's own rounding error at that tap


@dataclass(frozen=True)
class SelfCheck:
    """What the comparison found.

    Attributes:
        passed: every tap of every pass agrees, and there were taps. A tap agrees if its error is at most `TOLERANCE`,
            or `NOISE` times the error of HF in float32 against HF in float64.
        taps: how many tensors were compared.
        worst: the tap that differs most, as "prefill: model.norm".
        worst_error: its relative error, ‖port - HF‖ / ‖HF‖, HF in float32.
        first_divergence: the first tap beyond the tolerance, in the order of execution; None if there is none.
        problem: why no comparison was possible, or why it cannot tell a right port from a wrong one; None if it can.
        tokens, decode_steps: how long the prompt was, and how many steps went through the cache.
        sizes: the config keys that were other than in the traces.
        executor: what ran the port.
    """

    passed: bool
    taps: int = 0
    worst: str | None = None
    worst_error: float | None = None
    first_divergence: str | None = None
    problem: str | None = None
    tokens: int = TOKENS
    decode_steps: int = STEPS
    sizes: dict[str, Any] | None = None
    executor: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def check_port(
    model: str | Path | Any,
    *,
    workspace: str | Path | None = None,
    source: PortSource | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> SelfCheck:
    """Compare a port with Hugging Face.

    Args:
        model: a directory with `config.json`, or a `transformers` config; weights are random.
        workspace: where the port is registered; or
        source: the port's source, which is imported from a temporary directory.
        trust_remote_code: run modelling code that comes with the model.
        progress: called with (phase, done, total).

    Raises:
        PortError: neither workspace nor source is given; no port is registered.
    """
    config = load_config(model, trust_remote_code) if isinstance(model, str | Path) else model
    architecture = require_causal_lm(config, trust_remote_code).__name__
    if source is not None and source.skeletons:
        return SelfCheck(passed=False, problem=_to_be_written(source.skeletons))
    tiny = unseen_config(config)
    with quiet_transformers(), scratch() as directory:
        save_random_checkpoint(tiny, directory / "model")
        with port_class_of(workspace, source, directory, architecture) as port_class:
            refused = refusal(port_class, config, architecture)
            if refused is not None:
                return SelfCheck(passed=False, problem=refused)
            return _compare(port_class, directory / "model", tiny, progress or (lambda phase, done, total: None))


def _to_be_written(skeletons: Sequence[Skeleton]) -> str:
    classes = "1 class is" if len(skeletons) == 1 else f"{len(skeletons)} classes are"
    reasons = (f"`{skeleton.name}`: {skeleton.reason}" for skeleton in skeletons)
    return f"{classes} to be written by hand: {'; '.join(reasons)}"


def _compare(port_class: type[Any], model_dir: Path, config: Any, progress: Progress) -> SelfCheck:
    from trtllm_port.runtime.session import Session

    sizes = {key: value for key, value in config_values(config).items() if isinstance(value, int | float)}
    progress("check", 0, 1 + STEPS)
    try:
        port = port_class.from_hugging_face(model_dir, dtype="float32")
        network = port.define(max_seq_len=TOKENS + STEPS)
        session = Session.from_network(network)
    except (PortError, NotImplementedError) as error:
        return SelfCheck(passed=False, problem=str(error), sizes=sizes)
    single, double = (
        load_model(model_dir, whole_config(model_dir), dtype, eager=True)[0].eval()
        for dtype in (torch.float32, torch.float64)
    )
    errors: dict[str, float] = {}
    limits: dict[str, float] = {}
    usual: dict[str, float] = {}  # of a number in the prefill's worst token: a step's few numbers tell it by chance
    total = TOKENS + STEPS
    ids = torch.randint(3, config.vocab_size, (ROWS, total), generator=torch.Generator().manual_seed(1))
    cache, (past, exact_past) = session.new_cache(ROWS), _first_caches(single, double, ids)
    told, masked = positions_are_slots(single, ids[:, :STEPS]), wants_mask(single, ids[:, :2])
    problem = unsteady(lambda: _hf_taps(single, {"input_ids": ids[:, :STEPS]}, None, STEPS)[0])
    bounds = [(0, TOKENS), *((TOKENS + i, TOKENS + i + 1) for i in range(STEPS))]
    for index, (start, stop) in enumerate(bounds):
        positions = torch.arange(start, stop).expand(ROWS, -1).contiguous()
        first = start if keeps_cache(single) else 0  # all tokens anew
        step = {"input_ids": ids[:, first:stop]}
        step |= {"position_ids": torch.arange(first, stop).expand(ROWS, -1)} if told else {}
        step |= {"attention_mask": torch.ones_like(ids[:, :stop])} if start and masked else {}
        expected, past = _hf_taps(single, step, past, stop - start)
        with ExactArithmetic():
            worst = usual if index == 0 else {}
            noise, exact_past = _hf_taps(double, step, exact_past, stop - start, partial(_noise, expected, worst))
        noise = {name: max(error, usual.get(name, 0.0) / _rms(expected[name])) for name, error in noise.items()}
        found = _port_taps(session, ids[:, start:stop], positions, cache, expected)
        phase = "prefill" if index == 0 else f"decode step {index}"
        problem = problem or unsound(expected, noise, found, phase)
        for name, judged in _errors(found, expected, noise, start).items():
            errors[f"{phase}: {name}"], limits[f"{phase}: {name}"] = judged
        if index == 0:
            found_B1V, expected_B1V = _one_token(session, ids[:, :stop], expected)
            errors["prefill: logits of one token"] = _relative_error(found_B1V, expected_B1V)
            limits["prefill: logits of one token"] = limits["prefill: "]
        progress("check", index + 1, 1 + STEPS)
    return replace(_verdict(errors, limits, problem), sizes=sizes, executor=session.executor.name)


def _first_caches(single: nn.Module, double: nn.Module, ids: Tensor) -> tuple[Any, Any]:
    """Caches that forget nothing for two models whose own ones do; else None, for which they make what they need.

    Their own ones where masks do not count what a cache holds: that alone hides what is behind a window then. It is
    asked of the model in float32: a file's own code need not run in float64 as it is.
    """
    whole = whole_cache(single), whole_cache(double)
    if whole[0] is not None and takes_single_tokens_only(single, ids[:, :STEPS], ids[:, STEPS : 2 * STEPS]):
        return empty_cache(single), empty_cache(double)
    return whole


def _errors(
    found: dict[str, Tensor], expected: dict[str, Tensor], noise: dict[str, float], start: int
) -> dict[str, tuple[float, float]]:
    """Every tap's error, and how large it may be."""
    errors: dict[str, tuple[float, float]] = {}
    chosen = choices(expected)
    for name in (name for name in expected if name in found):
        ours, theirs, choice = _filled(found[name], expected[name]), expected[name], chosen.get(name)
        if choice == name:
            alone = list(chosen.values()).count(name) == 1
            errors[name] = other_choices(found[name], theirs, start if alone else None), most_others(theirs)
            continue
        pairs = [(ours, theirs)]
        if choice is not None and choice in found:  # weights of its own choice, or of the one it was given
            orders = found[choice], expected[choice]
            pairs = [where_chosen_alike(ours, theirs, order, expected[choice]) for order in orders]
        limit = max(TOLERANCE, NOISE * noise[name])
        errors[name] = min(_relative_error(*pair) for pair in pairs), limit
    return errors


def _rms(tensor: Tensor) -> float:
    return max(float(tensor.abs().double().square().mean().sqrt()), 1e-30) if tensor.numel() else 1.0


def _copied(name: str, tensor: Tensor) -> Tensor:
    return tensor.clone()


def _noise(expected: dict[str, Tensor], worst: dict[str, float], name: str, exact: Tensor) -> float:
    """The error of Hugging Face's own tensor: told of each at once, as all in float64 would take much memory.

    The error of a number in the worst of its vectors goes to `worst`.
    """
    found = expected[name]
    if found.shape == exact.shape and found.numel() and found.ndim:
        vectors = (found.double() - exact.double()).square().mean(-1)
        worst[name] = float(vectors.max().sqrt())
    return _relative_error(found, exact)


def _hf_taps(
    model: nn.Module,
    step: dict[str, Tensor],
    past: Any,
    count: int,
    keep: Callable[[str, Tensor], Any] = _copied,
) -> tuple[dict[str, Any], Any]:
    """The first output of every module for the last tokens, in the order in which modules finish; and the cache.

    Of a module that chooses, the further ones, too: see `outputs_of`.

    Args:
        keep: name and tensor → what to keep of it.
    """
    taps: dict[str, Any] = {}
    numbers: list[str] = []  # modules that choose
    length = step["input_ids"].shape[1]

    def listen(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if name in taps:
                return
            for suffix, tensor in outputs_of(of_tokens(module, args, output)).items():
                taps[f"{name}{suffix}"] = keep(f"{name}{suffix}", _last_tokens(tensor, length, count).detach())
                if integer(tensor):
                    numbers.append(name)

        return hook

    def listen_before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
            if made_beside(name, numbers):
                return
            for suffix, key in choice_given(given).items():
                if f"{name}{suffix}" not in taps:
                    taps[f"{name}{suffix}"] = keep(f"{name}{suffix}", given[key].detach())

        return hook

    modules = dict(model.named_modules())
    handles = [module.register_forward_hook(listen(name)) for name, module in modules.items()]
    handles += [m.register_forward_pre_hook(listen_before(name), with_kwargs=True) for name, m in modules.items()]
    argument = cache_argument(model)
    given: dict[str, Any] = {"use_cache": True} if keeps_cache(model) else {"use_cache": False}
    if keeps_cache(model):
        given |= first_cache(model) if past is None else {argument: past}
    try:
        with torch.no_grad():
            out = model(**step, **given)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        raise UnsupportedModelError(
            f"Hugging Face's own model cannot run in {model.dtype}: {error} ({place_of(error)})"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return taps, getattr(out, argument, past)


def _last_tokens(tensor: Tensor, length: int, count: int) -> Tensor:
    """Of `length` tokens the last ones: all were computed anew, perhaps with heads before them, or rows in one."""
    if tensor.ndim > 1 and len(tensor) == ROWS * length:
        return tensor.reshape(ROWS, length, *tensor.shape[1:])[:, -count:].flatten(0, 1)
    first = 0 if tensor.shape[:2] == (length, ROWS) else 1  # rows come first, mostly
    dim = next((dim for dim in range(first, min(3, tensor.ndim)) if tensor.shape[dim] == length), None)
    return tensor if dim is None else tensor.narrow(dim, length - count, count)


def outputs_of(output: Any) -> dict[str, Tensor]:
    """The first tensor that a module returns, and if it chooses, the further ones by their numbers, `:1` and so on.

    What is larger than the first is a by-product, such as the attention weights of every pair of tokens.
    """
    first = next((x for x in leaves(output) if isinstance(x, Tensor)), None)
    if first is None:
        return {}
    further = enumerate(output[1:], 1) if isinstance(output, tuple) else ()
    tensors = {f":{number}": x for number, x in further if isinstance(x, Tensor) and x.numel() <= first.numel()}
    return {"": first, **(tensors if any(map(integer, (first, *tensors.values()))) else {})}


def _port_taps(
    session: Session, ids: Tensor, positions: Tensor, cache: dict[str, Tensor], wanted: dict[str, Tensor]
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def keep(name: str, tensor: Tensor) -> Tensor | None:
        found[name] = tensor.clone()
        return forced(chosen, name, tensor)

    chosen = {name: wanted[name] for name in choices(wanted)}
    names = [name for name in session.executor.tap_names if name in wanted]
    indices = torch.arange(ids.shape[1]).expand(ROWS, -1).contiguous()
    logits = session.forward(ids, positions, cache, indices, on_tap=keep, taps=names)
    return {**found, "": logits}


def _one_token(session: Session, ids: Tensor, expected: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The port's logits where those of one token in the middle are asked for, and the expected ones."""
    rows, length = ids.shape
    positions = torch.arange(length).expand(rows, -1).contiguous()
    wanted = length // 2
    cache = session.new_cache(rows)
    chosen = {name: expected[name] for name in choices(expected) if name in session.executor.tap_names}
    indices = torch.full((rows, 1), wanted, dtype=torch.int64)
    found = session.forward(ids, positions, cache, indices, on_tap=partial(forced, chosen), taps=chosen)
    return found, expected[""][:, wanted : wanted + 1]


def _filled(found: Tensor, expected: Tensor) -> Tensor:
    """What a port computes for all slots of its cache, for the slots that hold tokens: Hugging Face's cache grows."""
    differing = [dim for dim, size in enumerate(found.shape) if expected.shape[dim : dim + 1] != (size,)]
    if found.ndim != expected.ndim or len(differing) != 1 or found.shape[differing[0]] != TOKENS + STEPS:
        return found
    return found.narrow(differing[0], 0, expected.shape[differing[0]])


def _relative_error(found: Tensor, expected: Tensor) -> float:
    """‖found - expected‖ / ‖expected‖; infinite where shapes differ or something is not finite."""
    if expected.is_complex() and not found.is_complex():  # cosines and sines in one, where the port's first are cosines
        expected = expected.real
    if expected.ndim == found.ndim - 1 or expected.shape[:1] == (1,):  # what HF computes once, for all rows
        expected = expected.expand(found.shape[0], *expected.shape[expected.ndim - found.ndim + 1 :])
    if found.shape != expected.shape:
        if expected.shape[:-1] == found.shape[:-1] and expected.shape[-1] == 2 * found.shape[-1]:
            twice = (expected.chunk(2, -1)[0], expected[..., ::2])  # HF's rotary tables hold every angle twice
            return min(_relative_error(found, once) for once in twice)
        return float("inf")
    difference = torch.linalg.vector_norm(found.double() - expected.double())
    norm = torch.linalg.vector_norm(expected.double()).clamp_min(1e-30)
    error = float(difference / norm)
    return error if error == error else float("inf")


def _verdict(errors: dict[str, float], limits: dict[str, float], problem: str | None) -> SelfCheck:
    """What the errors say. Where Hugging Face's values tell a difference, there is one, whatever others cannot tell."""
    worst = max(errors, key=lambda name: errors[name], default=None)
    beyond = [name for name, error in errors.items() if error > limits[name]]
    return SelfCheck(
        passed=bool(errors) and not beyond and problem is None,
        problem=None if beyond else problem,
        taps=len(errors),
        worst=worst,
        worst_error=errors[worst] if worst is not None else None,
        first_divergence=beyond[0] if beyond else None,
    )
