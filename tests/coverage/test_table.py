"""The committed table covers every type, and is what the page says; a dozen types are measured again."""

from __future__ import annotations

from pathlib import Path

import coverage_page
import pytest
from coverage_beyond import BeyondMeasurement
from coverage_measure import TableMeasurement, quietly
from coverage_rows import STATUSES
from coverage_types import DENSE, family_of, model_types, sample, sizes_of_families, table, write_config

from trtllm_port.errors import ConfigError, UnsupportedModelError

of_the_pinned_release = pytest.mark.skipif(
    coverage_page.FOLDER.name != "docs",
    reason=f"docs/coverage.json is of transformers {coverage_page.pinned_transformers()}",
)
DOZEN = (
    "llama",
    "smollm3",
    "gpt2",
    "phi3",
    "cohere2",
    "mixtral",
    "falcon",
    "olmo3",
    "opt",
    "bert",
    "bart",
    "mamba",
)


@pytest.fixture(scope="module")
def committed() -> dict[str, dict[str, object]]:
    return {row["model_type"]: row for row in coverage_page.load()["table"]["rows"]}


@of_the_pinned_release
def test_a_row_says_why_it_falls_short(committed: dict[str, dict[str, object]]) -> None:
    assert set(committed) <= set(model_types())
    assert all(row["family"] == family_of(name) for name, row in committed.items())
    assert all(row["reason"] for row in committed.values() if row["status"] != "passes")


@of_the_pinned_release
def test_a_type_without_a_row_is_told() -> None:
    data = coverage_page.load()
    first, *others = data["table"]["rows"]
    shorter = {**data, "table": {**data["table"], "rows": others}}
    assert f"| {first['model_type']} | not measured |" in coverage_page.render(shorter)


@of_the_pinned_release
def test_the_page_is_made_from_the_data() -> None:
    assert coverage_page.PAGE.read_text(encoding="utf-8") == coverage_page.render(coverage_page.load())


def test_options_that_hugging_face_refuses_are_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def refuse(model_dir: Path, **_: object) -> object:
        drawn.append((model_dir / "config.json").read_text(encoding="utf-8"))
        raise ConfigError("no") if len(drawn) < 3 else UnsupportedModelError("here")

    monkeypatch.setattr("trtllm_port.porting.create.create_port", refuse)
    measurement = BeyondMeasurement("llama", tmp_path)
    measurement._combine()
    assert len(set(drawn)) == 3
    assert (measurement.row.invalid, measurement.row.combination) == (2, "refused: here")


def test_what_another_release_measures_leaves_the_docs_alone() -> None:
    assert coverage_page.place("5.23.1", "5.23.0") == coverage_page.ROOT / "docs"
    assert coverage_page.place("5.24.0", "5.23.0") == coverage_page.ROOT / "build" / "coverage-5.24"


def test_the_sample_has_types_of_every_family_that_any_release_has() -> None:
    assert len(sample()) == len(set(sample())) == 30
    assert set(sample()) <= set(model_types())
    assert {family: {family_of(name) for name in types} for family, types in table()["sample"].items()} == {
        family: {family} for family in (DENSE, *table()["families"])
    }


@of_the_pinned_release
def test_the_table_of_types_names_types_of_transformers() -> None:
    named = [name for types in table()["families"].values() for name in types]
    named += [name for change in table()["changes"] for name in change["types"]]
    assert set(named) <= set(model_types())
    assert all(change["reason"] for change in table()["changes"])
    assert set(table()["targets"]) == set(sizes_of_families()) == {DENSE, *table()["families"]}


@pytest.mark.parametrize("model_type", ["bert", "bart", "llama"])
def test_a_config_that_is_a_decoder(model_type: str, tmp_path: Path) -> None:
    config = write_config(model_type, tmp_path)
    assert config.is_encoder_decoder is False
    assert getattr(config, "is_decoder", True) is True
    assert (tmp_path / "config.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("model_type", DOZEN)
def test_a_type_is_no_worse_than_the_table_says(
    model_type: str, committed: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    if model_type not in committed:
        pytest.skip("not measured yet")
    with quietly():
        row = TableMeasurement(model_type, tmp_path).run()
    assert STATUSES.index(row.status) <= STATUSES.index(str(committed[model_type]["status"])), row.reason
