"""Hugging Face's two sides of a phase, reference and yardstick. They do not depend on the port: run once, they serve
for any number of ports.

S steps, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from trtllm_port.foundation.progress import Progress
from trtllm_port.verification.judge.routing import force_rows
from trtllm_port.verification.sides.embedding_tables import EmbeddingTable, TableIndex, table_indices
from trtllm_port.verification.sides.hugging_face import HuggingFaceRunner
from trtllm_port.verification.sides.noise_floor import Yardstick, run_yardstick
from trtllm_port.verification.sides.recording import Recording, record
from trtllm_port.verification.stimulus.precisions import Phase
from trtllm_port.verification.stimulus.stimulus import Stimulus
from trtllm_port.verification.taps.names import input_of
from trtllm_port.verification.taps.pairing import ModuleFacts
from trtllm_port.verification.taps.runner import CacheLayer
from trtllm_port.verification.taps.soft_caps import ScorePeak

LoadHuggingFace = Callable[[str], HuggingFaceRunner]
"""Loads the model in a dtype; two precisions need not be in memory together."""


@dataclass(frozen=True, kw_only=True)
class HuggingFaceFacts:
    """What is kept of Hugging Face's model when its weights are gone.

    Attributes:
        root: class name of the model.
        modules: every module by path.
        vectors: the one-dimensional parameters (gains, biases).
        name: library, version and dtype of the run.
        source: the Python file of the model's class, None if there is none.
        score_peak: how near attention scores came to a soft cap (1 is the cap itself), None where there is no cap.
    """

    root: str
    modules: Mapping[str, ModuleFacts]
    vectors: Mapping[str, Tensor] = field(repr=False)
    name: str
    source: Path | None = None
    score_peak: float | None = None

    @classmethod
    def of(cls, runner: HuggingFaceRunner) -> HuggingFaceFacts:
        """Read them from a loaded model."""
        vectors = runner.vectors()
        return cls(
            root=type(runner.model).__name__,
            modules=runner.modules(),
            vectors={name: p.detach().to("cpu", torch.float64) for name, p in vectors.items()},
            name=runner.name,
            source=runner.source,
        )


@dataclass(frozen=True, kw_only=True)
class HuggingFaceSides:
    """Reference and yardstick of a phase: what a port is compared with, and several ports can be.

    Attributes:
        phase: the precisions.
        load: gives Hugging Face's model in a dtype.
        stimulus: the input.
        recording, yardstick: the two runs.
        caches: what the KV caches of the two hold after the prompt; empty where that was not asked for.
        variances: per normalisation, the smallest mean square of a token of its input.
        tables: the yardstick's embedding tables.
        indices: what they are looked up by.
        left: the yardstick's logits of the rows from a left-padded batch, None if it cannot run one.
        facts: about the model.
    """

    phase: Phase
    load: LoadHuggingFace
    stimulus: Stimulus
    recording: Recording = field(repr=False)
    yardstick: Yardstick = field(repr=False)
    variances: Mapping[str, float]
    left: tuple[Tensor, ...] | None = field(repr=False)
    caches: tuple[Sequence[CacheLayer], Sequence[CacheLayer]] = field(default=((), ()), repr=False)
    tables: Mapping[str, EmbeddingTable] = field(repr=False)
    indices: Mapping[str, TableIndex] = field(repr=False)
    facts: HuggingFaceFacts = field(repr=False)

    @cached_property
    def own_steps(self) -> Tensor | None:
        """The yardstick's logits [S, V] of its own decode steps, run when first asked for; None if it makes none."""
        return own_steps(self.load(self.phase.dtype), self.stimulus, self.recording)


def run_hugging_face(
    phase: Phase, load: LoadHuggingFace, stimulus: Stimulus, progress: Progress | None = None
) -> HuggingFaceSides:
    """Run reference and yardstick (arguments as `run_phase`)."""

    def step(done: int) -> None:
        if progress is not None:
            progress(f"compare {phase.dtype}", done, 3)

    step(0)
    runner = load(phase.reference_dtype)
    # Of a large model the first layers' cache is compared.
    with_cache = stimulus.decode_steps > 0 and not runner.streamed
    caches: tuple[list[CacheLayer], list[CacheLayer]] = ([], [])
    recording, facts = _reference(runner, stimulus, caches[0] if with_cache else None)
    step(1)
    runner.forget_weights()  # two precisions need not be in memory together
    runner = load(phase.dtype)
    yardstick = run_yardstick(runner, stimulus, recording, caches[1] if with_cache else None)
    left = runner.run_left_padded(stimulus.rows)
    tables = runner.tables()
    runner.forget_weights()
    step(2)
    return HuggingFaceSides(
        phase=phase,
        load=load,
        stimulus=stimulus,
        recording=recording,
        yardstick=yardstick,
        variances=input_variances(recording.taps, facts.modules),
        left=left,
        caches=caches,
        tables=tables,
        indices=table_indices(recording.taps, tables, stimulus.ids),
        facts=facts,
    )


def _reference(
    runner: HuggingFaceRunner, stimulus: Stimulus, cache: list[CacheLayer] | None
) -> tuple[Recording, HuggingFaceFacts]:
    with ScorePeak() as scores:
        recording = record(runner, stimulus, on_disk=runner.streamed, cache=cache)
    return recording, replace(HuggingFaceFacts.of(runner), score_peak=scores.peak)


def input_variances(taps: Mapping[str, Tensor], modules: Mapping[str, ModuleFacts]) -> dict[str, float]:
    """Return, per normalisation with an epsilon, the smallest mean square of any token of its input."""
    found = {}
    for path, facts in modules.items():
        tensor = taps.get(input_of(path)) if facts.epsilon is not None else None
        if tensor is not None and tensor.is_floating_point():
            found[path] = float(tensor.to(torch.float32).square().mean(-1).min())
    return found


def own_steps(runner: HuggingFaceRunner, stimulus: Stimulus, recording: Recording) -> Tensor | None:
    """Return logits [S, V] of Hugging Face's decode steps, with the reference's experts; None where it has none."""
    prefill = len(stimulus.ids) - stimulus.decode_steps
    logits_LV = runner.run_steps(stimulus.ids, prefill, partial(force_rows, [recording.taps]), recording.forced)
    return None if logits_LV is None else logits_LV[prefill:]
