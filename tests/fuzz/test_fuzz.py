"""Some of `make fuzz`; and that it would notice what it is there to notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ORACLE = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
import fuzz_oracle, fuzz_cases, trtllm_port.cli.app as app
fuzz_oracle.SECONDS = 1
place = Path({place!r})
(place / "corpus").mkdir()
oracle = fuzz_oracle.Oracle(place / "corpus", place)
fuzz_oracle.make_case = lambda seed, case, only, fast: ("made up", ["x"])

def outcome(main):
    app.main = main
    return oracle.run(0).problems

def says(code, text=""):
    def main(words):
        sys.stderr.write(text)
        return code
    return main

def writes(words):
    open("inside.txt", "w").close()
    open({outside!r}, "w").close()
    return 0

def moves(words):
    open("inside.txt", "w").close()
    os.rename("inside.txt", {outside!r})
    return 0

def works(words):
    while True:
        pass

def raises(words):
    raise ValueError("x")

oracle.limit_memory()

def fills(words):
    try:
        bytearray(3 << 30)
    except MemoryError:
        return 70
    return 0

assert outcome(says(0)) == []
assert outcome(says(2, "error: this and that")) == []
assert outcome(says(2)) == ["exit code 2 without a message"]
assert outcome(says(1)) == ["exit code 1 without a message"]
assert outcome(says(70, "error: a bug")) == ["exit code 70"]
assert outcome(says(2, "error: Traceback (most recent call last)")) == ["a traceback"]
assert outcome(raises) == ["the command line let ValueError pass: x"]
assert outcome(works) == ["not done after 1 s"]
assert outcome(writes) == ["wrote outside: open " + {outside!r}]
assert outcome(moves) == ["wrote outside: os.rename " + {outside!r}]
assert outcome(fills) == ["exit code 70"]
print("noticed")
"""


def test_some_cases() -> None:
    words = [sys.executable, HERE / "run.py", "--count", "200", "--jobs", "1", "--fast"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "200 passed, 0 failed" in done.stdout


def test_the_same_seed_makes_the_same_case(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "import random, json, fuzz_mutations as m\n"
        "made = [m.text_of(m.mutate_json({'a': [1, {'b': 2}], 'c': {'d': None}}, random.Random(i))) for i in SEEDS]\n"
        "print(made[-1] * (len(made[-1]) < 1000))"
    )
    alone, after = (
        subprocess.run([sys.executable, "-c", code.replace("SEEDS", seeds)], capture_output=True, text=True, check=True)
        for seeds in ("[303]", "range(304)")
    )
    assert alone.stdout == after.stdout


def test_the_oracle_notices(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    place = tmp_path / "work"
    place.mkdir()
    code = ORACLE.format(here=str(HERE), place=str(place), outside=str(outside))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "noticed\n", done.stderr[-3000:]


@pytest.mark.parametrize("words", [["--count", "0"]])
def test_no_cases_are_no_pass(words: list[str]) -> None:
    done = subprocess.run([sys.executable, HERE / "run.py", *words], capture_output=True, text=True, check=False)
    assert done.returncode != 0
