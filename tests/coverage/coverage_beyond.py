"""What a type that passes shows beyond its row: `verify` in float16, a port with another combination of options, and
what the port makes of other configs.

Neither counts in the row's status: a port that passes is right as far as anybody can see, so that a verdict against it
in float16 would be a false alarm; and the combinations are drawn at random, so that nobody tuned anything to them.
"""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import coverage_page
from coverage_claims import judge_others
from coverage_measure import Measurement, describe, one_line, unlike_a_port, write_tiny
from coverage_options import random_options
from coverage_rows import DEFECT, PASSES, REFUSED, BeyondRow
from coverage_types import write_config

from trtllm_port.errors import ConfigError, PortError

INVALID = "not valid in Hugging Face"  # of a combination of options
FLOAT16 = "float16"
DRAWS = 5  # of combinations, until Hugging Face accepts one


class Float16Measurement(Measurement[BeyondRow]):
    """`verify` in float16 alone; what became of another combination stays as it was measured."""

    def __init__(self, model_type: str, directory: Path) -> None:
        known = {row["model_type"]: row for row in coverage_page.load()[coverage_page.BEYOND]["rows"]}
        super().__init__(BeyondRow(**known.get(model_type, {"model_type": model_type})), directory)

    def measure(self) -> None:
        """Verify; whatever is raised is told."""
        try:
            self.note(float16=self.float16())
        except Exception as error:  # any: the row of the type has passed
            self.note(float16=one_line(describe(error)))
            traceback.print_exc()

    def float16(self) -> str:
        """The verdict of a port of the class's default config."""
        from trtllm_port.porting.create import create_port

        given, tiny = self.directory / "given", self.directory / "tiny"
        write_config(self.row.model_type, given)
        create_port(given, workspace=self.directory)
        write_tiny(given, tiny)
        return self.verify(tiny, FLOAT16).verdict


class BeyondMeasurement(Float16Measurement):
    """All of it."""

    def __init__(self, model_type: str, directory: Path) -> None:
        super().__init__(model_type, directory)
        self.row = BeyondRow(model_type=model_type)

    def measure(self) -> None:
        """Make all; none ends the others."""
        super().measure()
        self._combine()
        try:
            self._claim()
        except Exception as error:  # any, as above
            self.note(others_differ=[one_line(describe(error))])
            traceback.print_exc()

    def _claim(self) -> None:
        """See what the port of the class's default config makes of others."""
        from trtllm_port.huggingface.text_part import load_hf_config

        if (self.directory / "given").is_dir():
            counts, told = judge_others(load_hf_config(self.directory / "given"), self.directory, self.row.model_type)
            self.note(others=counts, others_differ=[one_line(each) for each in told])

    def _combine(self) -> None:
        """Port the type once more, with options drawn at random; again where Hugging Face itself refuses them."""
        for draw in range(1, DRAWS + 1):
            outcome = self._combination(draw)
            if outcome is None or outcome[0] != INVALID:
                break
            self.note(invalid=draw)
        self.note(combination=one_line(": ".join(outcome or (PASSES,))))

    def _combination(self, draw: int) -> tuple[str, str] | None:
        """Port it with one combination; why that is no right port, as status and reason."""
        from trtllm_port.porting.create import create_port

        directory = self.directory / f"combination{draw}"
        write_config(self.row.model_type, directory)
        file = directory / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        options = random_options(config, f"{self.row.model_type}{draw if draw > 1 else ''}")
        file.write_text(json.dumps(config | options), encoding="utf-8")
        self.note(options=options)
        try:
            return unlike_a_port(create_port(directory, workspace=directory))
        except ConfigError as error:
            return INVALID, error.message.replace(f"{directory}/", "")
        except PortError as error:
            return REFUSED, error.message
        except Exception as error:  # any other is a defect
            return DEFECT, describe(error)
