"""Valid files made invalid: their structure, their bytes, and what stands at their place on the disk.

Each mutation takes a seeded generator, so that the same seed makes the same file.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEEP = 100_000  # levels of nesting
SPARSE = 3 << 30  # bytes of a file that takes none on the disk
RAW = "@@raw@@"  # before the number of a text that stands in the file as it is, not as a string
RAW_TEXTS = (
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "1" + "}" * DEEP,
    "9" * 5000,
    "NaN",
    "-Infinity",
    "1e400",
    '{"a": 1, "a": 2}',
    '"\\ud800"',
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 7, 10**6, 10**12, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.5, 1e308),
    *("", "x", "fp16", "float16", "torch.float32", "auto", "0", "../../outside", "/etc/passwd", "C:\\Users\\me"),
    *("'\"\\\n\r\x00", "{{ 1 }}{% if %}", "\x1b[31m", "\u202eabc", "🤖" * 50, "y" * 100_000, "a.b.c", "__class__"),
    *([], {}, [[]], [None], {"": None}, [1, 2, 3], ["x"], [-1], {"a": {"b": []}}, [0.5, "x", None, {}]),
    *(f"{RAW}{number}" for number in range(len(RAW_TEXTS))),
)

Place = tuple[Any, Any]
"""A container and the key or index of a value in it."""


def places(value: Any) -> Iterator[Place]:
    """Every value within a JSON value, with its container."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def text_of(value: Any) -> str:
    """The JSON text of a value, with raw texts in their places."""
    text = json.dumps(value)
    for number, raw in enumerate(RAW_TEXTS):
        text = text.replace(f'"{RAW}{number}"', raw)
    return text


def _value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(VALUES))  # what is put into a document may be changed there


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Change one to three values of a JSON document; the document itself may be changed, too."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = list(places(value))
        if not found or rng.random() < 0.02:
            return _value(rng)
        upper = [place for place in found if place[0] is value]
        container, key = rng.choice(upper if rng.random() < 0.6 else found)
        _mutate(container, key, rng.choice(found), rng)
    return value


def _mutate(container: Any, key: Any, other: Place, rng: random.Random) -> None:
    kind = rng.random()
    if kind < 0.65:
        container[key] = _value(rng)
    elif kind < 0.75:
        del container[key]
    elif kind < 0.85:
        container[key] = [container[key]] if rng.random() < 0.5 else {"a": container[key]}
    elif kind < 0.95:
        container[key] = json.loads(json.dumps(other[0][other[1]]))
    elif isinstance(container, dict):
        container[str(_value(rng))[:80]] = container.pop(key)
    else:
        container.append(_value(rng))


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change a file's bytes without regard to what they mean."""
    at = rng.randrange(len(data) + 1)
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: data[:at],
        lambda: data[:at] + rng.randbytes(rng.randrange(1, 20)) + data[at:],
        lambda: data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
        lambda: data[:at] + data[at + rng.randrange(1, 50) :],
        lambda: b"\xef\xbb\xbf" + data,
        lambda: data.decode("latin-1").encode("utf-16"),
        lambda: data[:at] + b"\xff\xfe\x80" + data[at:],
        lambda: b"",
        lambda: b"\0" * len(data),
        lambda: data + data,
        lambda: rng.randbytes(200),
    )
    return rng.choice(changes)()


def replace_on_disk(path: Path, rng: random.Random) -> None:
    """Put something else at a file's place: nothing, a directory, a link to nowhere or to itself, a sparse file."""
    path.unlink()
    kind = rng.randrange(6)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        path.symlink_to("nowhere")
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        os.mkfifo(path)
    elif kind == 4:
        with path.open("wb") as file:
            file.truncate(SPARSE)


def safetensors_parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Change the header's structure, its stated length, or the data behind it."""
    header, body = safetensors_parts(data)
    if rng.random() < 0.75:
        header = mutate_json(header, rng)
    elif rng.random() < 0.5:
        body = mutate_bytes(body, rng)
    text = text_of(header).encode("utf-8", "replace")
    size = len(text) if rng.random() < 0.9 else rng.choice((0, 1, len(text) + 1, 2**31, 2**63, 2**64 - 1))
    return size.to_bytes(8, "little") + text + body


def mutate_file(path: Path, rng: random.Random) -> None:
    """Change a file in the way that its name suggests; it must not be shared with others (a hard link, say)."""
    data = path.read_bytes()
    kind = rng.random()
    if kind < 0.04:
        replace_on_disk(path, rng)
        return
    if kind < 0.2:
        changed = mutate_bytes(data, rng)
    elif path.suffix == ".safetensors":
        changed = mutate_safetensors(data, rng)
    elif path.suffix == ".json":
        changed = text_of(mutate_json(json.loads(data), rng)).encode("utf-8", "replace")
    else:
        changed = mutate_bytes(data, rng)
    path.unlink()  # the file may be a hard link
    path.write_bytes(changed)
