"""What a type that passes shows beyond its row: `verify` in float16, a port with another combination of options, and
what the port makes of other configs.

Neither counts in the row's status: a port that passes is right as far as anybody can see, so that a verdict against it
in float16 would be a false alarm; and the combinations are drawn at random, so that nobody tuned anything to them.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from pathlib import Path

import coverage_page
from coverage_claims import judge_others
from coverage_measure import Measurement, describe, one_line, unlike_a_port, write_tiny
from coverage_options import random_options
from coverage_rows import DEFECT, PASSES, REFUSED, BeyondRow
from coverage_types import write_config

from trtllm_port.errors import ConfigError, PortError

INVALID = "not valid in Hugging Face"  # of a combination of options
FLOAT16, COMBINATION, OTHERS = PARTS = ("float16", "combination", "others")
DRAWS = 5  # of combinations, until Hugging Face accepts one


class BeyondMeasurement(Measurement[BeyondRow]):
    """All of it, or some; what is not asked for stays as it was measured before.

    Args:
        parts: of `PARTS`; all where none is named.
    """

    def __init__(self, model_type: str, directory: Path, parts: Sequence[str] = ()) -> None:
        self.parts = parts or PARTS
        rows = coverage_page.load()[coverage_page.BEYOND]["rows"] if parts else ()
        known = {row["model_type"]: row for row in rows}
        super().__init__(BeyondRow(**known.get(model_type, {"model_type": model_type})), directory)

    def measure(self) -> None:
        """Make what is asked for; none ends the others, whatever is raised is told: the row of the type has passed."""
        if FLOAT16 in self.parts:
            try:
                self.note(float16=self._float16())
            except Exception as error:  # any, as above
                self.note(float16=one_line(describe(error)))
                traceback.print_exc()
        if COMBINATION in self.parts:
            self._combine()
        if OTHERS in self.parts:
            try:
                self._judge_others()
            except Exception as error:  # any, as above
                self.note(others_differ=[one_line(describe(error))])
                traceback.print_exc()

    def _port(self) -> Path:
        """A port of the class's default config; the directory of that config."""
        from trtllm_port.porting.create import create_port

        given = self.directory / "given"
        if not given.is_dir():
            write_config(self.row.model_type, given)
            create_port(given, workspace=self.directory)
        return given

    def _float16(self) -> str:
        """The verdict."""
        tiny = self.directory / "tiny"
        write_tiny(self._port(), tiny)
        return self.verify(tiny, FLOAT16).verdict

    def _judge_others(self) -> None:
        """See what the port of the class's default config makes of others."""
        from trtllm_port.huggingface.text_part import load_hf_config

        counts, told = judge_others(load_hf_config(self._port()), self.directory, self.row.model_type)
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
