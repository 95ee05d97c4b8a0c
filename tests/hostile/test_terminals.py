"""Nothing that is printed acts on a terminal, and a command that is told is the one that is meant."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hostile_texts import KEYS, acts, hostile, shell_words

from trtllm_port.cli.app import main
from trtllm_port.cli.terminal import console
from trtllm_port.foundation.quoting import one_line, shell_command, visible
from trtllm_port.verification.report.assembly import command
from trtllm_port.verification.sides.preparation import Model


@hostile
def test_a_terminal_is_not_told_to_do_anything(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = text[:1000]
    console.line(text)
    console.note(text)
    console.warning(text)
    console.error(text, hint=text, kind="x", exit_code=1, as_json=False)
    console.table(["a", "b"], [[text, 1], [text, 2]], title=text)
    try:
        raise ValueError(text)
    except ValueError as error:
        console.trace(error)
    out, err = capsys.readouterr()
    for printed in (out, err):
        assert not acts(printed)
        assert printed.encode()
    assert out.split("\n")[0] == one_line(text)
    assert err.split("\n")[0] == one_line(text)
    lines = err.split("\n")
    assert sum(line.startswith("warning: ") for line in lines) == 1
    assert sum(line.startswith("hint: ") for line in lines) == 1
    if "\n" not in text and "\t" not in text:
        assert f"error: {visible(text)}".rstrip() in [line.rstrip() for line in lines]


def test_the_text_of_a_model_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console.piece("one\ntwo\t\x1b[2J\rthree")
    assert capsys.readouterr().out == "one\ntwo\t\\x1b[2J\\rthree"


def test_messages_of_the_command_line_are_escaped(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sly = "\x1b[2JPASS\nhint: [red]run `rm`\u202e"
    for words in (
        ["new", "--blank", "mine", "--workspace", str(tmp_path), "--architecture", sly],
        ["new", "--blank", sly, "--workspace", str(tmp_path)],
        ["inspect", f"./{sly}"],
        ["convert", "--model-dir", f"./{sly}", "--output-dir", sly],
        ["diff-layers", f"./{sly}"],
        ["inspect", "./\udcff"],
        ["run", "--engine-dir", sly, "--tokenizer-dir", sly],
        ["verify", f"--{sly}"],
        [sly],
    ):
        assert main(words) == 2
        printed = "".join(capsys.readouterr())
        assert not acts(printed)
        assert "\nhint: [red]" not in printed


#: A word cannot hold a NUL, nor surrogates that stand for no byte.
SHELL = [text for text in KEYS if "\0" not in text and not any("\ud800" <= c < "\udc80" for c in text)]


def test_a_command_gives_a_shell_the_words_that_it_was_made_of() -> None:
    script = shell_command(SHELL)
    assert one_line(script) == script
    assert shell_words(script) == SHELL


def test_what_repeats_a_run_is_a_command_for_a_shell() -> None:
    model = cast(
        "Model", SimpleNamespace(given="a b", workspace="$(c)", dtype="float32", random_weights=True, quantize=None)
    )
    words = shell_words(command("verify", model, {"prompt-file": Path("it's"), "tokens": 5, "x": None}))
    expected = (
        "trtllm-port verify MODEL --workspace $(c) --dtype float32 --random-weights --prompt-file it's --tokens 5"
    )
    assert words == [word.replace("MODEL", "a b") for word in expected.split()]
