"""From a comparison to a bundle directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import save as serialise

from trtllm_port.errors import BundleError
from trtllm_port.foundation.atomic_files import require_writable, write_json
from trtllm_port.foundation.publishing import Kind, check_output, output_directory
from trtllm_port.runtime.engines.directory import CONFIG, EngineDirectory, network_name
from trtllm_port.verification.bundle.files import BUNDLE_JSON, is_bundle, write_manifest
from trtllm_port.verification.bundle.record import record_phase
from trtllm_port.verification.bundle.store import to_parts
from trtllm_port.verification.report.report import REPORT_JSON, Report
from trtllm_port.verification.sides.hugging_face_sides import LoadHuggingFace
from trtllm_port.verification.stimulus.inputs import Stimulus
from trtllm_port.verification.stimulus.precisions import Phase

WEIGHTS_LIMIT = 256 << 20  # of all networks together; beyond it a replay needs an engine directory


BUNDLE = Kind(
    is_not="is no bundle",
    marker=BUNDLE_JSON,
    names=(
        *(BUNDLE_JSON, REPORT_JSON, "logic.safetensors", "precision.safetensors"),
        *(f"network-*/{name}" for name in (CONFIG, "build_report.json", "rank*.network.json", "rank*.safetensors")),
    ),
    is_one=is_bundle,
    error=BundleError,
)


def check_target(target: Path | None, inputs: Iterable[Path | None], report_dir: Path | None) -> None:
    """Refuse before the work starts what could not be written or replaced at its end; None is fine.

    Raises:
        BundleError: something that is no bundle is there, or an input or the report would lie in the bundle.
        PortError: the report's directory cannot be written.
    """
    if report_dir is not None:
        require_writable(report_dir)
    if target is not None:
        read, kept = ([path for path in paths if path is not None] for paths in (inputs, [report_dir]))
        check_output(target, BUNDLE, read, kept=kept)


def save_bundle(
    target: Path,
    report: Report,
    stimulus: Stimulus,
    phases: Sequence[Phase],
    load: LoadHuggingFace,
    networks: Mapping[str, Path],
) -> None:
    """Run Hugging Face once more for its sketches, and write all that a replay needs.

    Args:
        target: the directory to write; a bundle that is there is replaced.
        report: of the comparison.
        stimulus: what was fed.
        phases: of the comparison.
        load: gives Hugging Face's model in a dtype.
        networks: dtype → engine directory.

    Raises:
        BundleError: something that is no bundle is there.
        DiskSpaceError: the disk is full.
    """
    directories = {dtype: EngineDirectory.read(path) for dtype, path in networks.items()}
    whole = sum(_size(directory) for directory in directories.values()) <= WEIGHTS_LIMIT
    with output_directory(target, BUNDLE, networks.values()) as directory:
        recorded = []
        for phase in phases:
            content, tensors = to_parts(record_phase(phase, load, stimulus))
            (directory / f"{phase.name}.safetensors").write_bytes(serialise(tensors))
            recorded.append(content)
        for dtype, network in directories.items():
            _copy(network, directory / f"network-{dtype}", whole=whole)
        write_json(directory / REPORT_JSON, report.to_dict())
        write_manifest(
            directory,
            {
                "subject": asdict(report.subject),
                "not_exercised": [asdict(item) for item in report.not_exercised],
                "stimulus": asdict(stimulus),
                "phases": recorded,
                "networks": sorted(directories),
                "weights": whole,
            },
        )


def _size(directory: EngineDirectory) -> int:
    return sum((directory.path / name).stat().st_size for name in directory.digests if not name.endswith(".engine"))


def _copy(source: EngineDirectory, target: Path, *, whole: bool) -> None:
    """Copy a network for the reference executor; without the weights its definition and all digests stay."""
    target.mkdir()
    kept = {name: digest for name, digest in source.digests.items() if not name.endswith(".engine")}
    for name in kept if whole else (network_name(0),):
        shutil.copyfile(source.path / name, target / name)
    build = replace(source.build, backend="reference", compute_capabilities=())
    content = replace(source, build=build, digests=kept).to_dict()
    (target / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
