"""What others wrote, inside of what we write: one function for each language, used everywhere.

Values of a config, names in a checkpoint, paths and messages of libraries may hold anything: quotes, line ends, markup,
control characters. Where a language has names, they are checked to be names; everything else is escaped.
"""

from __future__ import annotations

import json
import keyword
import math
import os
import re
import shlex
from collections.abc import Iterable
from typing import Any

from trtllm_port.errors import PortError

#: Control characters, marks that turn the direction of writing, line ends that terminals do not know, and what is no
#: character at all. Joiners of letters and of pictures stay.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_NOT_IN_JSON_FILES = re.compile("[\x85\u2028\u2029\ud800-\udfff]")  # line ends for some readers; and no characters


def is_name(text: str) -> bool:
    """Whether a text can name something in Python: an ASCII identifier that is no keyword."""
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text)


def require_name(text: str, what: str) -> str:
    """Return a text that can name something in Python.

    Args:
        text: the name.
        what: it is the name of, for the message.

    Raises:
        PortError: it cannot.
    """
    if not is_name(text):
        raise PortError(
            f"{what} cannot be named `{text}`",
            hint="a name has letters, digits and underscores, starts with a letter, and is no Python keyword",
        )
    return text


def is_word(text: str) -> bool:
    """Whether a text may stand, as a string, in an expression of a port: nothing in it can be taken for code."""
    return re.fullmatch(r"[\w-]+", text, re.ASCII) is not None and "layer_idx" not in text


def literal(value: object) -> str:
    """A Python value as the formatter writes it: double quotes, as few digits as the number needs.

    Raises:
        TypeError: the value is of no type that Python has literals for; that is a mistake of ours.
    """
    if isinstance(value, str):
        text = str.__repr__(value)
        return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in value else text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    if isinstance(value, tuple):
        inner = ", ".join(literal(item) for item in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f'float("{float(value)}")'
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, int):
        return int.__repr__(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as a Python literal")


def docstring(text: str) -> str:
    """A docstring with this text as people read it (see `visible`), which cannot end it."""
    lines = (
        str.__repr__(f'{line}"')[1:-2] for line in visible(text).split("\n")
    )  # with `"` in it, `repr` takes single quotes
    return '"""' + "\n".join(lines).replace("\\'", "'").replace('"', '\\"') + '"""'


def visible(text: str) -> str:
    r"""A text for people to read, on a terminal or a page: what acts, or does not show, becomes `\x1b`.

    Line ends (`\n`) and tabs stay.
    """
    return _UNSEEN.sub(lambda match: _escaped(match[0]), text)


def one_line(text: str) -> str:
    """A text for people to read, on one line."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def json_text(value: Any, indent: int | None = 2) -> str:
    """JSON for a UTF-8 file, with a line end behind it; the only line end without `indent`.

    Characters that UTF-8 does not have come from damaged names; JSON has escapes for them.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _NOT_IN_JSON_FILES.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def shell_command(words: Iterable[object]) -> str:
    """A command for a shell to run and for people to read."""
    return " ".join(map(_shell_word, map(str, words)))


def _shell_word(word: str) -> str:
    if one_line(word) == word:
        return shlex.quote(word)
    characters = (_shell_character(character) for character in word)
    return f"$'{''.join(characters)}'"


def _shell_character(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if one_line(character) == character:
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
