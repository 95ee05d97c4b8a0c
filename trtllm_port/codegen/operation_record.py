"""What was traced to write a port, as a text that is kept beside it; and the same once more, with what is there then.

The record has the operations at one small size, and those that follow when a key of the config is changed which the
port follows. Both times it is made in one way: from the small config as JSON, so that a later trace differs from the
first one only where transformers, or the code that comes with the model, computes something else.
"""

from __future__ import annotations

import difflib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtllm_port.codegen.configs.sizes import BATCH, LENGTH, PAST, Sample, config_content
from trtllm_port.codegen.ir.module_paths import of_any_layer
from trtllm_port.codegen.ir.operation_text import COMMENT, INDENT, operation_sections
from trtllm_port.codegen.lower.lowering import Lowered, lower
from trtllm_port.codegen.recognise.constants import stored_tensor
from trtllm_port.codegen.record.tracing import goes_on_by_single_tokens, trace
from trtllm_port.foundation.claims import scratch
from trtllm_port.huggingface.conversion_mapping import stored_tensors
from trtllm_port.huggingface.models import forget_own_code, load_config, require_causal_lm
from trtllm_port.huggingface.quiet import quiet_transformers

WEIGHTS = "weights, as files have them:"
CHANGED = "with "
CONTEXT = 2
"""Lines of a section around one that differs."""


@dataclass(frozen=True)
class TracedConfig:
    """What a record is made from.

    Attributes:
        values: the content of a small model's `config.json`.
        changes: keys of the config that the port follows → another value; each is traced, too.
    """

    values: Mapping[str, Any]
    changes: Mapping[str, Any]


def traced_config(config: Any, architecture: str, changes: Mapping[str, Any]) -> TracedConfig:
    """What a record of a small config's model is made from."""
    return TracedConfig(config_content(config, architecture), dict(sorted(changes.items())))


def operation_record(traced: TracedConfig, *, code: Path | None = None) -> str:
    """Trace a small model, and what follows from each change of its config.

    Args:
        traced: see there.
        code: a model directory whose Python files are run; None: transformers' own.

    Raises:
        PortError: the installed transformers does not know such a model, or it cannot be traced.
        Exception: whatever else Hugging Face's code raises.
    """
    with small_model(traced, code) as directory, quiet_transformers():
        forget_own_code()
        config = load_config(directory, code is not None)
        require_causal_lm(config, code is not None)
        sample, first = _first_sections(Sample(config, BATCH[0], LENGTH[0], PAST[0]), code is not None)
        parts = [_text(first)]
        for key, value in traced.changes.items():
            changed = _sections(sample.with_values({key: value}), code is not None)
            others = {head: lines for head, lines in changed.items() if first.get(head) != lines}
            parts.append(f"{CHANGED}{key} = {json.dumps(value)}:\n\n{_text(others)}")
        return "\n".join(parts)


@contextmanager
def small_model(traced: TracedConfig, code: Path | None) -> Iterator[Path]:
    """A directory with the config of a record, and with the code of a model that brings it along."""
    with scratch() as directory:
        for path in [] if code is None else sorted(code.glob("*.py")):
            shutil.copy(path, directory / path.name)
        (directory / "config.json").write_text(json.dumps(traced.values), encoding="utf-8")
        yield directory


def difference(record: str, now: str) -> str:
    """How two records differ: the sections that do, as a diff; empty where both compute the same.

    Names of classes, which are comments, make no difference.
    """
    before, after = _parsed(record), _parsed(now)
    lines: list[str] = []
    for head in dict.fromkeys([*before, *after]):
        sides = before.get(head, []), after.get(head, [])
        changed = list(difflib.unified_diff(*sides, n=CONTEXT, lineterm=""))[2:]  # without the names of files
        if changed or head not in before or head not in after:
            lines += [head, *(f"{INDENT}…" if line.startswith("@@") else line for line in changed)]
    return "\n".join(lines)


def _parsed(record: str) -> dict[str, list[str]]:
    """The sections of a record: what they are headed, with the changed key that they follow from → lines."""
    sections: dict[str, list[str]] = {}
    changed = head = ""
    for line in record.splitlines():
        if line.startswith(CHANGED):
            changed = f"{line} "
        elif line.startswith(INDENT):
            sections[head].append(line)
        elif line:
            head = changed + line.partition(COMMENT)[0]
            sections[head] = []
    return sections


def _first_sections(sample: Sample, trust_remote_code: bool) -> tuple[Sample, dict[str, list[str]]]:
    """What is traced: a sample, or the first step of a text where a further one cannot be; and its sections."""
    try:
        return sample, _sections(sample, trust_remote_code)
    except Exception:  # any: it is Hugging Face's code that runs here
        if not goes_on_by_single_tokens(sample, trust_remote_code=trust_remote_code):
            raise
    first = replace(sample, past=0)
    return first, _sections(first, trust_remote_code)


def _sections(sample: Sample, trust_remote_code: bool) -> dict[str, list[str]]:
    lowered = lower(trace(sample, trust_remote_code=trust_remote_code))
    model = lowered.trace.model
    sections = operation_sections(lowered.root, lambda path: stored_tensor(model, path))
    weights = list(dict.fromkeys(_weights(lowered)))
    return sections | ({WEIGHTS: weights} if weights else {})


def _weights(lowered: Lowered) -> Iterator[str]:
    """Tensors of files that are not parameters by their names."""
    for stored in stored_tensors(lowered.trace.model):
        sources, targets = (
            ", ".join(dict.fromkeys(of_any_layer(name) for name in names)) for names in (stored.sources, stored.targets)
        )
        yield f"{sources} → {targets}" + "".join(f", {step}" for step in stored.steps)


def _text(sections: Mapping[str, list[str]]) -> str:
    return "\n".join(f"{head}\n" + "".join(f"{INDENT}{line}\n" for line in lines) for head, lines in sections.items())
