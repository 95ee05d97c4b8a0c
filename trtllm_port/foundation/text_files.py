"""The one reader of files that people write text into: prompts and articles.

UTF-8, or UTF-16 or UTF-32 with a byte-order mark. A line ends at LF, CR LF or CR and nowhere else: what
`str.splitlines` ends lines at besides (U+2028, U+0085, form feeds) is part of the text, and of JSON strings.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from trtllm_port.errors import PortError

__all__ = ["read_lines", "read_text"]

MARKS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
HINT = "save the file as UTF-8, or as UTF-16 or UTF-32 with a byte-order mark"


def read_text(path: Path) -> str:
    """The text of a file, without its byte-order mark, its lines ended by LF.

    Raises:
        PortError: it is no text in one of the encodings, with the position of the first byte that is wrong.
    """
    content = path.read_bytes()
    mark, encoding = next((pair for pair in MARKS if content.startswith(pair[0])), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = len(mark) + error.start
        raise PortError(
            f"`{path}` is not {encoding.upper()}: {error.reason} at byte {at} (0x{content[at]:02x})", hint=HINT
        ) from error
    if (zero := text.find("\0")) >= 0:  # what UTF-16 without a mark looks like
        at = len(mark) + len(text[:zero].encode(encoding))
        raise PortError(f"`{path}` is no text: there is a zero at byte {at}", hint=HINT)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, each with its number; see `read_text`."""
    return [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
