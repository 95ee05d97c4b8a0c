"""What a type that passes shows beyond its row: `verify` in float16, and a port with another combination of options.

Neither counts in the row's status: a port that passes is right as far as anybody can see, so that a verdict against it
in float16 would be a false alarm; and the combinations are drawn at random, so that nobody tuned anything to them.
"""

from __future__ import annotations

import json
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from coverage_measure import DEFECT, PASSES, REFUSED, describe, one_line, quietly, report_on, unlike_a_port, write_tiny
from coverage_options import random_options
from coverage_types import write_config
from coverage_warnings import warnings_of

from trtllm_port.errors import ConfigError, PortError

INVALID = "not valid in Hugging Face"  # of a combination of options
FLOAT16 = "float16"
DRAWS = 5  # of combinations, until Hugging Face accepts one


@dataclass(frozen=True, kw_only=True)
class Beyond:
    """What became of one type that passes.

    Attributes:
        model_type: as in `config.json`.
        float16: the verdict of `verify` in float16, or why there is none.
        options: what the other config had set at random.
        combination: what became of that one: as a row's `status`, with the reason.
        invalid: how many combinations were drawn before that with which Hugging Face's own model does not run.
        seconds: of processor time.
        warnings: of the verification in float16, see `coverage_warnings`.
    """

    model_type: str
    float16: str = ""
    options: dict[str, Any] | None = None
    combination: str = ""
    invalid: int = 0
    seconds: float = 0.0
    warnings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


class BeyondMeasurement:
    """Both, in a directory of their own."""

    def __init__(self, model_type: str, directory: Path) -> None:
        self.directory = directory
        self.row = Beyond(model_type=model_type)

    def run(self) -> Beyond:
        """Make both; neither ends the other."""
        began = time.process_time()
        try:
            self.row = replace(self.row, float16=self._float16())
        except Exception as error:  # any: the row of the type has passed
            self.row = replace(self.row, float16=one_line(describe(error)))
            traceback.print_exc()
        self._combine()
        return replace(self.row, seconds=round(time.process_time() - began, 1))

    def _float16(self) -> str:
        from trtllm_port.porting.create import create_port

        given, tiny = self.directory / "given", self.directory / "tiny"
        write_config(self.row.model_type, given)
        create_port(given, workspace=self.directory)
        write_tiny(given, tiny)
        report = report_on(tiny, workspace=self.directory, dtype=FLOAT16)
        self.row = replace(self.row, warnings={FLOAT16: warnings_of(report)})
        return report.verdict

    def _combine(self) -> None:
        """Port the type once more, with options drawn at random; again where Hugging Face itself refuses them."""
        for draw in range(1, DRAWS + 1):
            outcome = self._combination(draw)
            if outcome is None or outcome[0] != INVALID:
                break
            self.row = replace(self.row, invalid=draw)
        self.row = replace(self.row, combination=one_line(": ".join(outcome or (PASSES,))))

    def _combination(self, draw: int) -> tuple[str, str] | None:
        """Port it with one combination; why that is no right port, as status and reason."""
        from trtllm_port.porting.create import create_port

        directory = self.directory / f"combination{draw}"
        write_config(self.row.model_type, directory)
        file = directory / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        options = random_options(config, f"{self.row.model_type}{draw if draw > 1 else ''}")
        file.write_text(json.dumps(config | options), encoding="utf-8")
        self.row = replace(self.row, options=options)
        try:
            return unlike_a_port(create_port(directory, workspace=directory))
        except ConfigError as error:
            return INVALID, error.message.replace(f"{directory}/", "")
        except PortError as error:
            return REFUSED, error.message
        except Exception as error:  # any other is a defect
            return DEFECT, describe(error)


def measure_beyond_into(model_type: str, directory: str, result: str) -> None:
    """What a process of the pool does: measure one type, and write what became of it to a file."""
    with quietly():
        row = BeyondMeasurement(model_type, Path(directory)).run()
    Path(result).write_text(json.dumps(row.to_dict()), encoding="utf-8")
