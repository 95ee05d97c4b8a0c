"""Makes a port: generates it from a model, checks it, writes it into a workspace; or writes a blank one.

This composes the stages `codegen` and `scaffold` for the command line and for `demo`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtllm_port.foundation.digests import file_digest
from trtllm_port.foundation.foreign import reason
from trtllm_port.foundation.progress import Progress
from trtllm_port.foundation.quoting import literal
from trtllm_port.huggingface.configs import read_config
from trtllm_port.layers.quantization import method_of
from trtllm_port.porting.blank import blank_source
from trtllm_port.porting.inheritance import most_alike, require_base, taken_over
from trtllm_port.porting.staleness import written_from
from trtllm_port.porting.templates import render_template
from trtllm_port.porting.write import WrittenPort, refuse_existing, write_port
from trtllm_port.registry.names import default_name

if TYPE_CHECKING:
    from trtllm_port.codegen import PortSource, SelfCheck


@dataclass(frozen=True, kw_only=True)
class PortResult:
    """A port that was written.

    Attributes:
        port: where it is.
        source: what the generator found out; None for a blank port.
        check: the comparison with Hugging Face on random weights; None for a blank port.
        part_of: Hugging Face's class of the whole model, where the port is of its text part.
        quantized: the method by which the model's weights are quantized, which the port knows nothing of.
        alike: another port of the workspace that has most of it, and the lines that would be left of its `model.py`.
    """

    port: WrittenPort
    source: PortSource | None = None
    check: SelfCheck | None = None
    part_of: str | None = None
    quantized: str | None = None
    alike: tuple[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.port.name,
            "architecture": self.port.architecture,
            "part_of": self.part_of,
            "quantized": self.quantized,
            "like": None if self.source is None else self.source.like,
            "alike": None if self.alike is None else {"port": self.alike[0], "lines": self.alike[1]},
            "workspace": str(self.port.workspace),
            "written": list(self.port.written),
            "skeletons": [] if self.source is None else [asdict(skeleton) for skeleton in self.source.skeletons],
            "remarks": [] if self.source is None else list(self.source.remarks),
            "ledger": None if self.source is None else self.source.ledger.to_dict(),
            "check": None if self.check is None else self.check.to_dict(),
        }


def create_port(
    model_dir: Path,
    *,
    workspace: Path = Path("."),
    name: str | None = None,
    like: str | None = None,
    force: bool = False,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> PortResult:
    """Generate a port from a Hugging Face model, check it, and write it into a workspace whatever the check found.

    Args:
        model_dir: a directory with `config.json`; weights are not needed.
        workspace: made if it does not exist.
        name: of the port; made from the model's type if None.
        like: another port of the workspace, whose classes are taken where they say the same; "auto": the best one.
        force: replace a port of that name, or another one that serves the architecture.
        trust_remote_code: let transformers run the code that the model directory brings along.
        progress: called with (phase, done, total).

    Raises:
        ConfigError, UnsupportedModelError: the model cannot be ported; nothing was written.
        WorkspaceError: the name is not usable, a port exists and `force` is not given, or there is none to be `like`.
        DiskSpaceError: the disk is full.
    """
    from trtllm_port.codegen import check_port, generate_port

    config = read_config(model_dir)
    name = default_name(str(config.get("model_type", ""))) if name is None else name
    given = next(iter(config.get("architectures") or []), None)
    refuse_existing(workspace, name, given, force=force)
    require_base(workspace, name, like)
    source = generate_port(model_dir, name=name, trust_remote_code=trust_remote_code, progress=progress)
    refuse_existing(workspace, name, source.architecture, force=force)
    source, alike = _in_terms_of(source, workspace, like)
    check = check_port(model_dir, source=source, trust_remote_code=trust_remote_code, progress=progress)
    own_code = trust_remote_code and "auto_map" in config
    record, traced = _record(source, model_dir, own_code)
    port = write_port(
        source,
        workspace=workspace,
        name=name,
        test=_test(source, _tiny_config(source, model_dir, trust_remote_code)),
        force=force,
        origin=_origin(source, check, model_dir) | {"traced": traced},
        record=record,
    )
    whole = given if config.get("model_type") != source.model_type else None
    quantized = method_of(model_dir)
    return PortResult(port=port, source=source, check=check, part_of=whole, quantized=quantized, alike=alike)


def _in_terms_of(source: PortSource, workspace: Path, like: str | None) -> tuple[PortSource, tuple[str, int] | None]:
    """The port as it is written; and where it stands on its own, the one that has most of it."""
    if like is not None:
        return taken_over(source, workspace, like), None
    found = most_alike(source, workspace)
    return source, None if found is None else (found[0], len(found[1].splitlines()))


def create_blank_port(
    name: str, *, workspace: Path = Path("."), architecture: str | None = None, force: bool = False
) -> PortResult:
    """Write the skeleton of a port to fill in by hand.

    Args:
        name: of the port, `my_model`.
        workspace: made if it does not exist.
        architecture: the name in `config.json` that the port serves; made from `name` if None.
        force: replace what is there.

    Raises:
        WorkspaceError, DiskSpaceError: as `create_port`.
    """
    source = blank_source(name, architecture)
    port = write_port(source, workspace=workspace, name=name, test=source.test, force=force)
    return PortResult(port=port)


def _tiny_config(source: PortSource, model_dir: Path, trust_remote_code: bool) -> dict[str, Any]:
    """The `config.json` of a model of the same kind, as small as can be."""
    from trtllm_port.codegen.configs.sizes import config_content, unseen_config
    from trtllm_port.codegen.generate import load_config

    tiny = unseen_config(load_config(model_dir, trust_remote_code))
    return config_content(tiny, source.architecture)


def _test(source: PortSource, tiny: dict[str, Any]) -> str:
    """The port's own test: a comparison with Hugging Face on a tiny config."""
    from trtllm_port.codegen.ir.formatting import formatted

    values = {"name": source.name, "architecture": source.architecture, "tiny_config": literal(tiny)}
    return formatted(render_template("generated", values)["test.py"])


def _record(source: PortSource, model_dir: Path, own_code: bool) -> tuple[str | None, dict[str, Any]]:
    """The operations that were traced, and what they were traced from; or why there is no record."""
    from trtllm_port.codegen import operation_record

    assert source.traced is not None  # of every port that the generator writes
    try:
        record = operation_record(source.traced, code=model_dir if own_code else None)
    except Exception as error:  # any: it is Hugging Face's code that runs here, and the port is written all the same
        return None, {"problem": f"what was traced could not be traced again: {reason(error)}"}
    made_from = {"config": dict(source.traced.values), "changes": dict(source.traced.changes)}
    return record, made_from | written_from(source.sources, model_dir, own_code=own_code)


def _origin(source: PortSource, check: SelfCheck, model_dir: Path) -> dict[str, Any]:
    return {
        "model_type": source.model_type,
        "hf_class": source.hf_class,
        "transformers": source.transformers_version,
        "like": source.like,
        "config": file_digest(model_dir / "config.json"),
        "ledger": source.ledger.to_dict(),
        "remarks": list(source.remarks),
        "skeletons": [asdict(skeleton) for skeleton in source.skeletons],
        "check": {"passed": check.passed, "problem": check.problem, "taps": check.taps, "tokens": check.tokens},
    }
