"""A session: a network, an executor that computes it, and the limits that it was built for.

Everything above (generation, evaluation, verification) sees only this, so it is the same code over TensorRT and over
the reference executor. Which of the two computed is `session.executor.name`, and belongs beside every number.

Shape suffixes: B batch, L tokens, T tokens whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trtllm_port.errors import EngineError
from trtllm_port.runtime.backends import choose_backend, reference_executor, tensorrt_executor, torch_device
from trtllm_port.runtime.engines.devices import this_machine
from trtllm_port.runtime.engines.directory import BuildConfig, EngineDirectory
from trtllm_port.runtime.network.kv_cache import allocate_cache

if TYPE_CHECKING:
    from trtllm_port.layers import Network
    from trtllm_port.runtime.network.executor import Executor, OnTap
    from trtllm_port.runtime.reference.executor import Continued, Observer

__all__ = ["Session"]


class Session:
    """An executor with the limits of what it executes.

    Args:
        executor: what computes.
        build: the limits.
        pretrained_config: the checkpoint's configuration; empty for a network that came from no checkpoint.
        device: where inputs and caches live.
        note: why this executor was taken, where the choice was ours; else empty.
    """

    def __init__(
        self,
        executor: Executor,
        build: BuildConfig,
        *,
        pretrained_config: dict[str, Any] | None = None,
        device: torch.device | str = "cpu",
        note: str = "",
    ) -> None:
        self.executor = executor
        self.build = build
        self.config = {"pretrained_config": pretrained_config or {}, "build_config": build.to_dict()}
        self.device = torch.device(device)
        self.note = note
        self.vocab_size = _vocab_size(executor)

    @property
    def max_batch_size(self) -> int:
        return self.build.max_batch_size

    @property
    def max_input_len(self) -> int:
        return self.build.max_input_len

    @property
    def max_seq_len(self) -> int:
        return self.build.max_seq_len

    @classmethod
    def load(cls, engine_dir: str | Path, *, backend: str = "auto", device: str = "auto") -> Session:
        """Open an engine directory.

        Args:
            engine_dir: what `trtllm-port build` wrote.
            backend: "tensorrt", "tensorrt_rtx", "reference", or "auto": the engine where this machine can run it, else
                the reference executor.
            device: of the reference executor: "cpu", "cuda", or "auto" (CUDA where torch has it).

        Raises:
            EngineError: the directory is incomplete or altered, or holds no engine for that backend.
            EnvironmentLackError: that backend needs a library or a GPU that is not there.
        """
        directory = EngineDirectory.read(Path(engine_dir))
        if directory.build.world_size > 1:
            raise EngineError(
                f"`{directory.path}` is split over {directory.build.world_size} ranks, a session runs one",
                hint="convert and build with `--tp-size 1`",
            )
        chosen, note = choose_backend(backend, directory, this_machine())
        if chosen == "reference":
            device = torch_device(device)
            executor = reference_executor(directory, device)
        else:
            device = torch_device("cuda")
            executor = tensorrt_executor(directory, chosen)
        return cls(executor, directory.build, pretrained_config=directory.pretrained_config, device=device, note=note)

    @classmethod
    def from_network(
        cls,
        network: Network,
        *,
        max_batch_size: int = 16,
        max_input_len: int | None = None,
        device: str = "cpu",
        release: Callable[[], None] | None = None,
    ) -> Session:
        """Run a network that was just defined on the reference executor, without writing anything.

        Args:
            network: its weights stay where they are.
            max_batch_size: prompts at once.
            max_input_len: tokens of a prompt; the cache's length by default.
            device: "cpu" or "cuda".
            release: see `ReferenceExecutor`.
        """
        from trtllm_port.runtime.network import NetworkFile, parameter_values
        from trtllm_port.runtime.reference import ReferenceExecutor

        build = BuildConfig(
            backend="reference",
            library_version=network.trt.__version__,
            max_batch_size=max_batch_size,
            max_input_len=max_input_len or network.max_seq_len,
            max_seq_len=network.max_seq_len,
        )
        device = torch_device(device)
        file, weights = NetworkFile.from_network(network), parameter_values(network)
        executor = ReferenceExecutor(file, weights, device=device, release=release)
        return cls(executor, build, device=device)

    def new_cache(self, batch: int) -> dict[str, torch.Tensor]:
        """Zeroed caches for `batch` rows, by the names of the network's inputs."""
        return allocate_cache(self.executor.inputs, batch, self.device)

    @torch.inference_mode()
    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        cache: dict[str, torch.Tensor],
        logits_indices: torch.Tensor | None = None,
        *,
        on_tap: OnTap | None = None,
        taps: Collection[str] = (),
    ) -> torch.Tensor:
        """Compute logits and extend the cache in place.

        Args:
            input_ids: int64 [B, L].
            position_ids: int64 [B, L]; also the slots of the cache that are written.
            cache: from `new_cache`.
            logits_indices: int64 [B, T], the tokens within L whose logits are wanted; the last one by default.
            on_tap: called with (name, tensor) for each of `taps`; the tensor is valid only during the call. What it
                returns takes the tensor's place (see `Executor.run`).
            taps: names of intermediate tensors, from `executor.tap_names`.

        Returns:
            Logits [B, T, V] in the port's data type.
        """
        feeds = self._feeds(input_ids, position_ids, logits_indices, cache)
        return self.executor.run(feeds, on_tap=on_tap, taps=taps)["logits"]

    @torch.inference_mode()
    def forward_to(self, tap: str, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Compute one intermediate tensor, with an empty cache, and nothing behind it.

        Args:
            tap: its name, from `executor.tap_names`.
            input_ids, position_ids: int64 [B, L].
        """
        feeds = self._feeds(input_ids, position_ids, None, self.new_cache(len(input_ids)))
        return self.executor.run(feeds, taps=(tap,), stop_after=tap)[tap]

    @torch.inference_mode()
    def forward_together(
        self,
        inputs: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, dict[str, torch.Tensor]]],
        *,
        observers: Sequence[Observer] = (),
        continued: Continued | None = None,
    ) -> list[torch.Tensor]:
        """Compute several steps layer by layer: each weight is read once for all of them.

        Args:
            inputs: per step `input_ids`, `position_ids`, `logits_indices` and the cache, as for `forward`; steps of the
                same cache in their order.
            observers, continued: see `ReferenceExecutor.run_together`.

        Raises:
            EngineError: the executor cannot do that, or the network has states.
        """
        from trtllm_port.runtime.reference import ReferenceExecutor

        if not isinstance(self.executor, ReferenceExecutor):
            raise EngineError(f"{self.executor.name} runs one step after another")
        feeds = [self._feeds(*each) for each in inputs]
        results = self.executor.run_together(feeds, observers=observers, continued=continued)
        return [result["logits"] for result in results]

    def _feeds(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        logits_indices: torch.Tensor | None,
        cache: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        if logits_indices is None:
            logits_indices = torch.full_like(input_ids[:, :1], input_ids.shape[1] - 1)
        feeds = {"input_ids": input_ids, "position_ids": position_ids, "logits_indices": logits_indices, **cache}
        return {name: tensor.to(self.device) for name, tensor in feeds.items()}


def _vocab_size(executor: Executor) -> int:
    """The size of the logits' last dimension."""
    shape = next((spec.shape for spec in executor.outputs if spec.name == "logits"), ())
    if not shape or shape[-1] < 1:
        raise EngineError("the network has no output `logits`", hint="run `trtllm-port build` again")
    return shape[-1]
