"""Hugging Face's side: transformers with eager attention, tapped by forward hooks.

B batch, L tokens, V vocabulary
"""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import trtllm_port
from trtllm_port.errors import CheckpointError, UnsupportedModelError
from trtllm_port.foundation.foreign import reading, reason
from trtllm_port.huggingface.caches import Continuation, cache_of, first_cache, keeps_cache
from trtllm_port.huggingface.compatibility.attributes import PlainAttributes
from trtllm_port.huggingface.configs import whole_config
from trtllm_port.huggingface.exact_arithmetic import ExactArithmetic, tensors_as_they_are
from trtllm_port.huggingface.loading import load_model
from trtllm_port.huggingface.quiet import quiet_transformers
from trtllm_port.layers.weights import HuggingFaceWeights, TensorSource
from trtllm_port.verification.sides.embedding_tables import EmbeddingTable
from trtllm_port.verification.sides.mapped_weights import MappedCheckpoint
from trtllm_port.verification.sides.streamed_model import CastAsUsed, streamed_model
from trtllm_port.verification.taps import hooks
from trtllm_port.verification.taps.hooks import tapped
from trtllm_port.verification.taps.pairing import ModuleFacts
from trtllm_port.verification.taps.runner import CacheLayer, Force, OnTap

PACKAGE = Path(trtllm_port.__file__).parent
EPSILON_NAMES = ("variance_epsilon", "eps", "epsilon", "layer_norm_eps")


class HuggingFaceRunner:
    """A transformers model in one dtype.

    Args:
        model: in evaluation mode; its hooks are removed after every run.
        vectors: the one-dimensional parameters, where the model does not hold its weights all the time.
        computes_in: its data type, where some of its weights are stored in another one.
    """

    def __init__(
        self, model: nn.Module, vectors: Mapping[str, Tensor] | None = None, computes_in: torch.dtype | None = None
    ) -> None:
        self.model = model
        self._as_loaded = PlainAttributes(model)
        self._vectors = vectors
        self._computes_in = computes_in

    @classmethod
    def load(
        cls,
        model_dir: Path,
        dtype: str,
        *,
        device: str = "cpu",
        trust_remote_code: bool = False,
        exactly: bool = False,
    ) -> HuggingFaceRunner:
        """Load a model directory with eager attention.

        Args:
            model_dir: a Hugging Face model with safetensors.
            dtype: "float64", "float32", "float16" or "bfloat16".
            device: a torch device.
            trust_remote_code: run Python code that comes with the model.
            exactly: refuse tensors that the model does not use, too.

        Raises:
            UnsupportedModelError: transformers cannot build the model.
            CheckpointError: weights are missing from the directory, so that transformers would invent them.
        """
        hint = "check that the directory holds a causal language model with safetensors"
        failed = f"cannot be loaded by transformers in {dtype}"
        config = whole_config(model_dir, trust_remote_code)
        with reading(model_dir, UnsupportedModelError, hint=hint, failed=failed):
            model, info = load_model(
                model_dir, config, getattr(torch, dtype), eager=True, trust_remote_code=trust_remote_code
            )
        _refuse_invented_weights(model_dir, info)
        if exactly and info.get("unexpected_keys"):
            raise CheckpointError(f"`{model_dir}` has tensors that transformers does not use")
        return cls(model.to(device).eval())

    @classmethod
    def stream(
        cls, model_dir: Path, dtype: str, *, trust_remote_code: bool = False, weights: TensorSource | None = None
    ) -> HuggingFaceRunner:
        """Open a model directory whose weights are read layer by layer, on every run, on the CPU.

        Args:
            model_dir, dtype, trust_remote_code: see `load`.
            weights: those to take instead of the directory's; they are in memory, and the model holds them.

        Raises:
            UnsupportedModelError: its tensors cannot be read one by one.
        """
        checkpoint = MappedCheckpoint(weights or HuggingFaceWeights(model_dir))
        wanted: torch.dtype = getattr(torch, dtype)
        with quiet_transformers():
            model, names = streamed_model(model_dir, wanted, trust_remote_code, checkpoint, hold=weights is not None)
        computes_in = wanted if any(checkpoint.source.dtype(name) != dtype for name in names.values()) else None
        if weights is not None:
            return cls(model, computes_in=computes_in)
        one_dimensional = [name for name, parameter in model.named_parameters() if parameter.ndim == 1]
        vectors = {name: checkpoint.tensor(names[name], torch.float64) for name in one_dimensional}
        checkpoint.release()
        return cls(model, vectors, computes_in)

    def tables(self) -> dict[str, EmbeddingTable]:
        """Return the embedding tables by path. They can be looked up when the other weights were forgotten."""
        found = {}
        for path, module in self.model.named_modules():
            if isinstance(module, nn.Embedding):
                own = module if self.streamed else copy.deepcopy(module)
                found[path] = EmbeddingTable(module.num_embeddings, partial(self._look_up, own))
        return found

    @torch.no_grad()
    def _look_up(self, table: nn.Embedding, ids_L: Tensor) -> Tensor:
        device = "cpu" if self.streamed else table.weight.device
        with self._casting():
            rows_1LE: Tensor = table(ids_L[None].to(device))
        return rows_1LE[0].cpu()

    def forget_weights(self) -> None:
        """Give their memory back at once: modules refer to each other in circles, which Python collects late."""
        self.model.to("meta")

    @property
    def name(self) -> str:
        """The library, its version and the dtype."""
        return f"transformers {version('transformers')}, eager attention, {self.dtype} on {self.device}" + (
            ", layer by layer" if self.streamed else ""
        )

    @property
    def streamed(self) -> bool:
        """Whether the weights are read layer by layer."""
        return self._vectors is not None

    @property
    def dtype(self) -> str:
        """What the model computes in, as "float32"."""
        return str(self._computes_in or next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return torch.device("cpu") if self.streamed else next(self.model.parameters()).device

    @property
    def source(self) -> Path | None:
        """The Python file that the model's class is written in."""
        try:
            return Path(inspect.getfile(type(self.model)))
        except (TypeError, OSError):
            return None

    def modules(self) -> dict[str, ModuleFacts]:
        """Return the facts of every module but the model itself, by path."""
        return {
            path: ModuleFacts(
                class_name=type(module).__name__,
                holds_parameters=next(module.parameters(), None) is not None,
                epsilon=_epsilon(module),
            )
            for path, module in self.model.named_modules()
            if path
        }

    def parameters(self) -> Mapping[str, Tensor]:
        """Return all parameters by name, tied ones once."""
        return dict(self.model.named_parameters())

    def vectors(self) -> Mapping[str, Tensor]:
        """Return the one-dimensional parameters (gains, biases) by name."""
        if self._vectors is not None:
            return self._vectors
        return {name: parameter for name, parameter in self.parameters().items() if parameter.ndim == 1}

    @torch.no_grad()
    def run(
        self,
        ids_BL: Tensor,
        *,
        on_tap: OnTap | None = None,
        taps: Collection[str] | None = None,
        cache: list[CacheLayer] | None = None,
    ) -> Tensor:
        """Return logits [B, L, V] of a full forward (see `Runner.run`).

        Args:
            ids_BL, on_tap, taps: see `Runner.run`.
            cache: is given what the model's KV cache holds of the first row afterwards; None: none is kept.
        """
        exactly = ExactArithmetic() if self.dtype == "float64" else None
        seen = None if on_tap is None else tensors_as_they_are()(on_tap)
        with self._own_code(), tapped(self.model, seen, taps), self._casting(), exactly or nullcontext():
            given = {} if cache is None else first_cache(self.model)
            output = self.model(input_ids=ids_BL.to(self.device), use_cache=cache is not None, **given)
        if cache is not None:
            cache[:] = _layers(cache_of(self.model, output), ids_BL.shape[1])
        logits: Tensor = output.logits.cpu()
        return logits

    @contextmanager
    def _own_code(self) -> Iterator[None]:
        """A text that the model has seen none before; what its own code raises is no fault of ours.

        Raises:
            UnsupportedModelError: the model fails; what an observer of its taps raises passes as it is.
        """
        self._as_loaded.restore()
        try:
            yield
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            asked = takewhile(lambda frame: frame.name != "__torch_function__", frames)  # for a call of torch's
            files = [Path(frame.filename) for frame in asked]
            if Path(hooks.__file__) in files or files[-1].is_relative_to(PACKAGE):  # an observer, or an experiment's
                raise
            raise UnsupportedModelError(
                f"Hugging Face's own model cannot run in {self.dtype}: {reason(error)}",
                hint="see that `transformers` itself runs this model: there is nothing to compare a port with",
            ) from error

    def _casting(self) -> AbstractContextManager[object]:
        return nullcontext() if self._computes_in is None else CastAsUsed(self._computes_in)

    @torch.no_grad()
    def run_left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, ...] | None:
        """Return logits [L_b, V] of every row from one batch that is padded on the left, as `generate` pads.

        None if there are no rows, or the model takes no attention mask.
        """
        accepted = inspect.signature(self.model.forward).parameters
        if not rows or "attention_mask" not in accepted:
            return None
        longest = max(map(len, rows))
        ids_BL = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows], device=self.device)
        mask_BL = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.device)
        arguments = {"input_ids": ids_BL, "attention_mask": mask_BL}
        if "position_ids" in accepted:
            arguments["position_ids"] = (mask_BL.cumsum(-1) - 1).clamp(min=0)
        with self._own_code(), self._casting():
            logits_BLV: Tensor = self.model(**arguments, use_cache=False).logits.cpu()
        return tuple(logits_LV[longest - len(row) :] for logits_LV, row in zip(logits_BLV, rows, strict=True))

    @torch.no_grad()
    def greedy(self, prompt: list[int], max_new_tokens: int) -> list[int]:
        """Continue one prompt by exactly `max_new_tokens` of the best tokens, through the KV cache."""
        tokens: list[int] = []
        ids = torch.tensor([prompt], device=self.device)
        with self._own_code():
            feed = Continuation(self.model, ids)
            for _ in range(max_new_tokens):
                tokens.append(int(feed(ids)[0, -1].argmax()))
                ids = torch.tensor([[tokens[-1]]], device=self.device)
        return tokens

    @torch.no_grad()
    def run_steps(self, ids: Sequence[int], prefill: int, force: Force, taps: Collection[str]) -> Tensor | None:
        """Return logits [L, V] of a prefix and of the tokens after it, which go one by one through the KV cache.

        None where weights are read anew in every step, which takes too long, or where there is no cache.

        Args:
            ids: the tokens.
            prefill: how many of them are the prefix.
            force: gives the values that take the place of each of `taps`.
            taps: names of taps.
        """
        if self.streamed or not keeps_cache(self.model):
            return None
        ids_1L = torch.tensor([list(ids)], device=self.device)
        logits = list[Tensor]()
        with self._own_code():
            feed = Continuation(self.model, ids_1L)
            for place in (range(prefill), *(range(n, n + 1) for n in range(prefill, len(ids)))):
                with tapped(self.model, partial(_at, place, force), taps):
                    logits.append(feed(ids_1L[:, place.start : place.stop])[0].cpu())
        return torch.cat(logits)


def _at(place: range, force: Force, tap: str, tensor: Tensor) -> Tensor:
    return force(tap, tensor, [place])


def _layers(kept: Any, length: int) -> Sequence[CacheLayer]:
    """What a KV cache holds after a prompt of `length` tokens; nothing of states."""
    layers = getattr(kept, "layers", ())
    pairs = ((getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in layers)
    return [
        (keys[0].cpu(), values[0].cpu())
        if isinstance(keys, Tensor) and isinstance(values, Tensor) and keys.shape[-2:-1] == (length,)
        else None
        for keys, values in pairs
    ]


def _epsilon(module: nn.Module) -> float | None:
    if next(module.children(), None) is not None:
        return None
    values = (getattr(module, name, None) for name in EPSILON_NAMES)
    return next((value for value in values if isinstance(value, float)), None)


def _refuse_invented_weights(model_dir: Path, info: dict[str, Any]) -> None:
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        named = ", ".join(missing[:5])
        raise CheckpointError(
            f"`{model_dir}` lacks {len(missing)} tensors that transformers would fill at random: {named}",
            hint="complete the checkpoint, or verify with `--random-weights`",
        )
