"""How a cell of the table is measured: a tiny model, quantized in one format, to a verified port and to engines.

Random weights → the format's tensors → are they read, to the bit → `verify` against Hugging Face with the same weights,
and their loss against the random original → a float16 checkpoint → an engine for each compute capability.
"""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from coverage_measure import describe, largest_ratio, one_line, quietly
from coverage_types import write_config
from quantization_formats import ARCHITECTURES, FORMATS, Format
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.quantized_models import quantize_with
from trtllm_port.errors import PortError
from trtllm_port.layers.quantization import QuantizeOptions, WeightsChoice

DTYPE, CAPABILITIES = "float16", ("8.9", "12.0")
TOKENS, ANSWER = 96, 4
EXACT = "exact"


@dataclass(frozen=True)
class Engine:
    """What became of an engine.

    Attributes:
        built: whether the compiler took the network.
        reason: why not.
        times: bytes of the engine's weights over those of the checkpoint; None: the compiler did not say.
        narrow: whether the engine has the codes as they are, all of them; None: nothing is quantized in it.
        how: what becomes of quantized weights.
    """

    built: bool
    reason: str = ""
    times: float | None = None
    narrow: bool | None = None
    how: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One format of one architecture.

    Attributes:
        architecture, format: keys of `ARCHITECTURES` and `FORMATS`.
        packed_by: the library that packed the tensors, with its version, or "plainly"; "" for the conversion itself.
        weights: how many are quantized in the model.
        read: "exact", or the largest relative error of a weight; "" where nothing is read.
        verdict, ratio, warnings: of `verify`, the largest noise ratio, and gates that do not pass.
        kl: mean divergence from the original.
        kept: parameters of the checkpoint that are quantized.
        widened: why others are not, each reason once.
        engines: by compute capability.
        problem: the stage that fell short, and why; "" if none did.
        seconds: of processor time.
    """

    architecture: str
    format: str
    packed_by: str = ""
    weights: int = 0
    read: str = ""
    verdict: str = ""
    ratio: float | None = None
    warnings: tuple[str, ...] = ()
    kl: float | None = None
    kept: int = 0
    widened: tuple[str, ...] = ()
    engines: dict[str, Engine] = field(default_factory=dict)
    problem: str = ""
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """Its name in a table of all."""
        return f"{self.architecture}, {self.format}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Cell:
        """Read the JSON form."""
        engines = {name: Engine(**{**each, "how": tuple(each["how"])}) for name, each in content["engines"].items()}
        listed = {name: tuple(content[name]) for name in ("warnings", "widened")}
        return cls(**content | listed | {"engines": engines})


def prepare(architecture: str, directory: Path) -> None:
    """Write an architecture's port into `directory`, and a tiny model with random weights into `directory/model`."""
    import transformers

    from trtllm_port.huggingface.random_weights import save_random_checkpoint
    from trtllm_port.porting.create import create_port

    model_type, sizes = ARCHITECTURES[architecture]
    with quietly():
        given = write_config(model_type, directory / "given")
        create_port(directory / "given", workspace=directory)
        config = transformers.CONFIG_MAPPING[model_type](**sizes)
        config.architectures = given.architectures
        save_random_checkpoint(config, directory / "model")
        _enlarge_experts(directory / "model" / "model.safetensors")


def _enlarge_experts(file: Path) -> None:
    """Give experts weights of 1/√inputs, as others have: random ones are drawn smaller, and would count for nothing."""
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if ".experts." in name and tensor.ndim > 1 and "bias" not in name:
            inputs = tensor.shape[-1] if tensor.ndim == 2 else tensor.shape[-2]  # stacked ones are transposed
            tensors[name] = tensor / (tensor.float().std() * math.sqrt(inputs)).to(tensor.dtype)
    save_file(tensors, file, {"format": "pt"})


class Measurement:
    """Measures one cell.

    Args:
        architecture: of the row.
        format_name: of the column.
        prepared: as `prepare` left it.
        directory: empty.
    """

    def __init__(self, architecture: str, format_name: str, prepared: Path, directory: Path) -> None:
        self.format: Format = FORMATS[format_name]
        self.cell = Cell(architecture=architecture, format=format_name)
        self.workspace, self.original = prepared, prepared / "model"
        self.model = self.original if self.format.own is not None else directory / "quantized"
        self.directory = directory

    def run(self) -> Cell:
        """Measure; a stage that falls short is noted, and those that do not need it are measured nevertheless."""
        began = time.process_time()
        with quietly():
            if self.format.own is None and self._stage("read", self._read) is None:
                return self._finished(began)
            self._stage("verify", self._verify)
            if self._stage("convert", self._convert) is not None:
                for capability in CAPABILITIES:
                    self._engine(capability)
        return self._finished(began)

    def _finished(self, began: float) -> Cell:
        return replace(self.cell, seconds=round(time.process_time() - began, 1))

    def note(self, **values: Any) -> None:
        """Fields of the cell."""
        self.cell = replace(self.cell, **values)

    def _stage(self, name: str, work: Callable[[], None]) -> bool | None:
        """Whether it worked; None: not."""
        try:
            work()
        except PortError as error:
            self._falls_short(f"{name}: {one_line(error.message)}")
        except Exception as error:  # a defect, of this package or of a packer
            traceback.print_exc()
            self._falls_short(f"{name}, defect: {one_line(describe(error))}")
        else:
            return True
        return None

    def _falls_short(self, problem: str) -> None:
        self.note(problem="; ".join(filter(None, (self.cell.problem, problem))))

    def _read(self) -> None:
        from trtllm_port.layers.quantization import QuantizedSource, open_weights

        by, pack = self.format.packer
        self.note(packed_by=_with_version(by))
        stands_for = quantize_with(self.original, self.model, dict(self.format.config or {}), pack, self.format.which)
        if self.format.file:
            _move_config(self.model, self.format.file)
        source = open_weights(self.model, dtype="float32")
        if not isinstance(source, QuantizedSource):
            raise TypeError("it is not read as quantized")
        names = [name for name in stands_for if source.is_quantized(name)]
        worst = max(_error(source.tensor(name), stands_for[name]) for name in names)
        self.note(weights=len(names), read=EXACT if worst == 0.0 else f"{worst:.2g}")

    def _verify(self) -> None:
        from trtllm_port.verification import VerifySettings, verify

        own = self.format.own
        settings = VerifySettings(
            tokens=TOKENS,
            max_new_tokens=ANSWER,
            backend="reference",
            quantize=own,
            original=None if own is not None else self.original,
        )
        report = verify(self.model, workspace=self.workspace, dtype=DTYPE, settings=settings)
        self.note(
            verdict=str(report.verdict.value),
            ratio=largest_ratio(report),
            kl=None if report.loss is None else float(f"{report.loss['kl']['mean']:.3g}"),
            warnings=tuple(
                f"{gate.verdict.value}: {gate.name} ({gate.phase}): {one_line(gate.reason)}"
                for gate in report.gates
                if gate.verdict.value in ("warn", "fail", "cannot_tell")
            ),
        )
        if own is not None and report.loss is not None:
            self.note(weights=len(report.loss["weights"]))

    def _convert(self) -> None:
        from trtllm_port.conversion import convert_checkpoint
        from trtllm_port.evaluation.calibration import calibrate

        weights: WeightsChoice = self.format.own or "keep"
        if isinstance(weights, QuantizeOptions) and weights.wants_ranges:
            weights = replace(weights, ranges=calibrate(self.model).ranges)
        found = convert_checkpoint(
            self.model, self.directory / "checkpoint", workspace=self.workspace, dtype=DTYPE, weights=weights
        )
        self.note(kept=len(found.quantized), widened=tuple(dict.fromkeys(found.dequantized.values())))

    def _engine(self, capability: str) -> None:
        from trtllm_port.building import build_engine

        def build() -> None:
            result = build_engine(
                self.directory / "checkpoint",
                self.directory / f"engine-{capability}",
                workspace=self.workspace,
                backend="tensorrt_rtx",
                compute_capabilities=(capability,),
                max_batch_size=2,
                max_input_len=TOKENS,
                max_seq_len=TOKENS + ANSWER,
            )
            engine = result.engines[0]
            stored = _bytes(self.directory / "checkpoint" / "rank0.safetensors")
            made = Engine(
                built=True,
                times=None if engine.weights_bytes is None else round(engine.weights_bytes / stored, 3),
                narrow=all(each.kept for each in engine.quantized) if engine.quantized else None,
                how=tuple(sorted({how for each in engine.quantized for how in each.how})),
            )
            self.note(engines=self.cell.engines | {capability: made})

        before = self.cell.problem
        if self._stage(f"engine {capability}", build) is None:
            reason = self.cell.problem.removeprefix(before).removeprefix("; ").partition(": ")[2]
            self.note(engines=self.cell.engines | {capability: Engine(built=False, reason=reason)}, problem=before)


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    difference = found.to(expected.dtype).double() - expected.double()
    return float(difference.norm() / expected.double().norm())


def _with_version(library: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    for distribution in (library, f"nvidia-{library}"):
        try:
            return f"{distribution} {version(distribution)}"
        except PackageNotFoundError:
            continue
    return library


def _move_config(model: Path, file: str) -> None:
    """To a file of its own."""
    path = model / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    (model / file).write_text(json.dumps(config.pop("quantization_config")), encoding="utf-8")
    path.write_text(json.dumps(config), encoding="utf-8")


def _bytes(file: Path) -> int:
    with safe_open(file, "pt") as tensors:
        return sum(tensors.get_tensor(name).nbytes for name in tensors.keys())  # noqa: SIM118  (it is no dict)


@contextmanager
def measured_in(directory: Path) -> Iterator[Path]:
    """Give an empty folder for one cell, and remove it afterwards."""
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
