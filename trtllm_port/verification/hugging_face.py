"""Hugging Face's side: transformers with eager attention, tapped by forward hooks.

B batch, L tokens, V vocabulary
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import trtllm_port
from trtllm_port.errors import CheckpointError, UnsupportedModelError
from trtllm_port.exact import ExactArithmetic
from trtllm_port.hf_cache import cache_argument, keeps_cache, positions_are_slots
from trtllm_port.hf_loading import weights_as_stored
from trtllm_port.layers.foreign import reading, reason
from trtllm_port.layers.weights import HuggingFaceWeights, TensorSource
from trtllm_port.quiet import quiet_transformers
from trtllm_port.verification import hooks
from trtllm_port.verification.cache_contents import Layer, Layers
from trtllm_port.verification.hooks import tapped
from trtllm_port.verification.mapped import MappedCheckpoint
from trtllm_port.verification.runners import OnTap
from trtllm_port.verification.streamed import CastAsUsed, streamed_model
from trtllm_port.verification.taps import ModuleFacts

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
        from transformers import AutoModelForCausalLM

        hint = "check that the directory holds a causal language model with safetensors"
        failed = f"cannot be loaded by transformers in {dtype}"
        with (
            quiet_transformers(),
            weights_as_stored(),
            reading(model_dir, UnsupportedModelError, hint=hint, failed=failed),
        ):
            model, info = AutoModelForCausalLM.from_pretrained(
                model_dir,
                dtype=getattr(torch, dtype),
                attn_implementation="eager",
                experts_implementation="eager",  # the default, `grouped_mm`, knows no float64
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
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

    def forget_weights(self) -> None:
        """Give their memory back at once: modules refer to each other in circles, which Python collects late."""
        self.model.to("meta")

    @property
    def name(self) -> str:
        """The library, its version and the dtype."""
        import transformers

        return f"transformers {transformers.__version__}, eager attention, {self.dtype} on {self.device}" + (
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
        cache: list[Layer] | None = None,
    ) -> Tensor:
        """Return logits [B, L, V] of a full forward (see `Runner.run`).

        Args:
            ids_BL, on_tap, taps: see `Runner.run`.
            cache: is given what the model's KV cache holds of the first row afterwards; None: none is kept.
        """
        with tapped(self.model, on_tap, taps), self._casting(), self._exactly():
            output = self._call(input_ids=ids_BL.to(self.device), use_cache=cache is not None)
        if cache is not None:
            cache[:] = _layers(output, ids_BL.shape[1])
        logits: Tensor = output.logits.cpu()
        return logits

    def _call(self, **arguments: Any) -> Any:
        with self._own_code():
            return self.model(**arguments)

    @contextmanager
    def _own_code(self) -> Iterator[None]:
        """What the model's own code raises, for another transformers or an odd config, is no fault of ours.

        Raises:
            UnsupportedModelError: the model fails; what an observer of its taps raises passes as it is.
        """
        try:
            yield
        except Exception as error:
            files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
            if Path(hooks.__file__) in files or files[-1].is_relative_to(PACKAGE):  # an observer, or an experiment's
                raise
            raise UnsupportedModelError(
                f"Hugging Face's own model cannot run in {self.dtype}: {reason(error)}",
                hint="see that `transformers` itself runs this model: there is nothing to compare a port with",
            ) from error

    def _exactly(self) -> AbstractContextManager[object]:
        return ExactArithmetic() if self.dtype == "float64" else nullcontext()

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
        with self._casting():
            logits_BLV: Tensor = self._call(**arguments, use_cache=False).logits.cpu()
        return tuple(logits_LV[longest - len(row) :] for logits_LV, row in zip(logits_BLV, rows, strict=True))

    @torch.no_grad()
    def greedy(self, prompt: list[int], max_new_tokens: int) -> list[int]:
        """Continue one prompt by exactly `max_new_tokens` of the best tokens, through the KV cache."""
        from transformers import DynamicCache

        tokens: list[int] = []
        argument = cache_argument(self.model)
        step_ids = torch.tensor([prompt], device=self.device)
        more: dict[str, object] = {}
        with self._own_code():
            told = positions_are_slots(self.model, step_ids[:, :2])
        for number in range(max_new_tokens):
            output = self._call(input_ids=step_ids, **more, use_cache=True)
            if not hasattr(output, argument) and keeps_cache(self.model) and not more:  # unless it is given one
                config: Any = self.model.config
                more = {argument: DynamicCache(config=config.get_text_config(decoder=True))}
                output = self._call(input_ids=step_ids, **more, use_cache=True)
            tokens.append(int(output.logits[0, -1].argmax()))
            newest = torch.tensor([[tokens[-1]]], device=self.device)
            if not keeps_cache(self.model):
                step_ids = torch.cat([step_ids, newest], 1)
                continue
            step_ids, more = newest, {argument: getattr(output, argument, more.get(argument))}
            if told:
                more["position_ids"] = torch.tensor([[len(prompt) + number]], device=self.device)
        return tokens


def _layers(output: Any, length: int) -> Layers:
    """What the KV cache in a model's output holds after a prompt of `length` tokens."""
    layers = getattr(getattr(output, "past_key_values", None), "layers", ())
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
