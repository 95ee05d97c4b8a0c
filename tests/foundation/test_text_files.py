"""The reader of texts: encodings, line ends, and where a file that is no text goes wrong."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from trtllm_port.errors import PortError
from trtllm_port.foundation.text_files import read_lines, read_text

TEXT = "Möwe\u2028eins\n\n  \nzwei\x85drei\x0b"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_every_encoding_and_line_end_gives_the_same_lines(tmp_path: Path, mark: bytes, encoding: str, end: str) -> None:
    path = tmp_path / "some.txt"
    for text in (TEXT, TEXT + "\n"):
        path.write_bytes(mark + text.replace("\n", end).encode(encoding))
        assert read_lines(path) == [(1, "Möwe\u2028eins"), (4, "zwei\x85drei\x0b")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Möwe".encode("latin-1"), r"is not UTF-8: .* at byte 1 \(0xf6\)"),
        (codecs.BOM_UTF8 + b"ab\xff", r"is not UTF-8: .* at byte 5 \(0xff\)"),
        (codecs.BOM_UTF16_LE + "a".encode("utf-16-le") + b"b", r"is not UTF-16-LE: .* at byte 4"),
        (codecs.BOM_UTF16_BE + b"\0a\xd8\0\0b", r"is not UTF-16-BE: .* at byte 4"),
        ("ab".encode("utf-16-le"), "zero at byte 1"),
        (codecs.BOM_UTF16_LE + "ä\0".encode("utf-16-le"), "zero at byte 4"),
    ],
)
def test_what_is_no_text_is_refused_at_its_byte(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "some.txt"
    path.write_bytes(content)
    with pytest.raises(PortError, match=said):
        read_text(path)
