"""The committed table is what the page says; formats are packed alike plainly and by libraries; cells are measured.

One cell is measured in the fast tests, one row in the slow ones.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import quantization_page as page
import torch
from quantization_cells import EXACT, Cell, Engine, Measurement, measured_in, prepare
from quantization_formats import ARCHITECTURES, FORMATS
from quantization_packers import PLAINLY, installed

from trtllm_port.layers.quantization import QuantizedSource, open_weights

PACKED = [name for name, column in FORMATS.items() if column.pack is not None and not column.only]
LIBRARIES = [name for name in PACKED if FORMATS[name].by_library is not None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A port of Llama, and a tiny one with random weights."""
    directory = tmp_path_factory.mktemp("prepared")
    prepare("Llama", directory)
    return directory


def measured(name: str, prepared: Path) -> Cell:
    with measured_in(prepared / "cell") as directory:
        return Measurement("Llama", name, prepared, directory).run()


def test_the_page_is_made_from_the_data() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.render(page.load())


def test_every_cell_is_one_of_the_table_and_says_what_fell_short() -> None:
    cells = [Cell.from_dict(content) for content in page.load()["cells"]]
    assert cells
    assert [cell.key for cell in cells] == [
        key
        for row in ARCHITECTURES
        for name, column in FORMATS.items()
        if column.exists(row) and (key := f"{row}, {name}") in {cell.key for cell in cells}
    ]
    text = page.render(page.load())
    for cell in cells:
        assert Cell.from_dict(cell.to_dict()) == cell
        if not page.passes(cell):
            assert any(cell.key in line for line in text.partition("## What fell short")[2].splitlines())


def test_what_falls_short_is_shown() -> None:
    broken = Cell(
        architecture="Llama",
        format="gptq",
        packed_by=PLAINLY,
        weights=14,
        read="0.5",
        verdict="fail",
        ratio=2.0,
        warnings=("fail: taps (precision): because",),
        widened=("its scales | are odd",),
        engines={"8.9": Engine(built=False, reason="refused it"), "12.0": Engine(built=True, times=2.0, narrow=False)},
        problem="convert: no",
    )
    text = page.render(page.merge({"versions": {}, "cells": []}, [broken], {"torch": "2"}))
    assert "| gptq | 14, some widened | 0.5 | fail 2.00 | – | refused | 2.00, widened |" in text
    assert "| awq | not measured |" in text
    for reason in (
        "convert: no",
        "an error of 0.5",
        "verify: fail: taps",
        "not kept: its scales \\| are odd",
        "refused it",
    ):
        assert reason in text
    assert "0 of 1 cells pass" in text
    assert not page.passes(replace(broken, problem="", read=EXACT, verdict="pass"))
    whole = replace(broken, problem="", read=EXACT, verdict="pass", widened=())
    assert not page.passes(whole)
    lacking = Engine(built=False, reason="is int4, which compute capability 8.9 does not have")
    assert page.passes(replace(whole, engines=whole.engines | {"8.9": lacking}))


def test_new_cells_take_the_place_of_old_ones() -> None:
    old = page.merge({"versions": {}, "cells": []}, [Cell(architecture="Qwen3", format="awq", weights=1)], {})
    new = page.merge(old, [Cell(architecture="Llama", format="awq"), Cell(architecture="Qwen3", format="awq")], {})
    assert [(cell["architecture"], cell["weights"]) for cell in new["cells"]] == [("Llama", 0), ("Qwen3", 0)]


@pytest.mark.parametrize("name", PACKED)
def test_what_is_packed_plainly_is_read_to_the_bit(prepared: Path, tmp_path: Path, name: str) -> None:
    plainly = replace(FORMATS[name], by_library=None)
    measurement = Measurement("Llama", name, prepared, tmp_path)
    measurement.format = plainly
    measurement._read()
    assert (measurement.cell.read, measurement.cell.packed_by, measurement.cell.weights) == (EXACT, PLAINLY, 14)
    source = open_weights(measurement.model, dtype="float32")
    assert isinstance(source, QuantizedSource)
    original = open_weights(prepared / "model", dtype="float32")
    for number, weight in enumerate(source.names()):
        if source.is_quantized(weight) and number % 5 == 0:
            wanted = original.tensor(weight).float()
            assert (source.tensor(weight) - wanted).norm() / wanted.norm() < 0.2


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_packs_alike(name: str) -> None:
    column = FORMATS[name]
    assert column.by_library is not None
    assert column.pack is not None
    if not installed(column.by_library[0].replace("-", "_")):
        pytest.skip("the library is absent")
    weight = torch.randn(256, 128, generator=torch.Generator().manual_seed(0)) * 0.05
    (own, own_weight), (other, other_weight) = (pack(weight) for pack in (column.pack, column.by_library[1]))
    assert {key: (value.dtype, value.shape) for key, value in own.items() if "scale" not in key} == {
        key: (value.dtype, value.shape) for key, value in other.items() if "scale" not in key
    }
    assert set(own) == set(other)
    assert (own_weight - other_weight.float()).norm() / weight.norm() < 0.06


def test_a_cell(prepared: Path) -> None:
    cell = measured("gptq", prepared)
    assert page.passes(cell), cell
    assert (cell.weights, cell.kept, cell.packed_by) == (14, 14, PLAINLY)
    assert cell.kl is not None
    assert 0.001 < cell.kl < 0.1
    assert all(engine.built and engine.narrow for engine in cell.engines.values())


def test_a_stage_that_falls_short_is_noted(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measurement = Measurement("Llama", "gptq", prepared, tmp_path)
    measurement.format = replace(measurement.format, config={"quant_method": "unheard of"})
    assert "is not read" in measurement.run().problem or "unheard of" in measurement.cell.problem
    monkeypatch.setattr("trtllm_port.conversion.convert_checkpoint", lambda *_, **__: 1 / 0)
    defect = measured("W8A16", prepared)
    assert defect.problem.startswith("verify, defect: ZeroDivisionError")
    assert defect.engines == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, column in FORMATS.items() if column.exists("Llama")])
def test_a_row(prepared: Path, name: str) -> None:
    cell = measured(name, prepared)
    assert page.passes(cell), cell
    assert cell.engines["12.0"].built
