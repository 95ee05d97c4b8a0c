"""Draws the architecture: the page `docs/architecture.md`, from the rules and what the source tree says of itself."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping

from architecture_rules import (
    COMPOSERS,
    HOMES,
    MAX_FILES,
    MAX_LEVELS,
    ORDER,
    OTHER_ROOM,
    STAGES,
    matches,
    objection,
    stage_of,
)
from architecture_tree import LINKED, PACKAGE, Module, SourceTree

Arrows = Mapping[str, set[str]]

#: Packages that have a picture of their own; the first one shows each of them as one box.
PICTURES = ("codegen", "verification")
#: Packages whose rooms are drawn in a frame.
FRAMES = ("layers", "runtime", "cli")

HEAD = """# Architecture

Written by `make map`, from `tests/architecture/architecture_rules.py` and what every file says of itself; a test fails
where it is not up to date. Change those, not this page.

**A room is a package: the folder in which a file stands.** What stands in `{package}/` itself is the first room, except
{others}. {linked} stand at the top of the checkout, and are imported as `{package}.layers` and so on.

**The rooms have an order. A file may import its own room and those before it in [the order](#the-order), no later
one.** Some rooms know even less: there it says what, and why. All imports count, those in functions and those for type
checkers, too. No files import each other in a circle. {homes}. A room has at most {files} files, and at most
{levels} of them import one another in a row.

**Stages do not know each other**, except that one that is composed of others imports those. They are {stages}.

So the folder of a file is its room, [the order](#the-order) says what the room may import, and the room's section
[below](#the-rooms) what it is for and what it imports today. `pytest tests/test_architecture.py` says where a change
breaks that.

## The picture

An arrow leads from what imports to what is imported. Arrows that follow from others are left out, and so is the root,
which everything imports. What carries out a command is at the top, what everything stands on at the bottom. A box with
double sides is a package of several rooms, and has a picture of its own.
"""


def page(tree: SourceTree) -> str:
    """The whole page."""
    parts = [_head(), picture(_overview(tree), PICTURES)]
    for package in PICTURES:
        parts += [f"### Inside `{package}`\n", picture(_inside(tree, package))]
    parts += ["## The order\n", _order(), "## The rooms\n"]
    parts += [_section(tree, room) for room in ORDER if room in tree.rooms]
    return "\n".join(parts)


def _head() -> str:
    others = _listed([f"`{name.rpartition('.')[2]}.py` (of {_room(room)})" for name, room in OTHER_ROOM.items()])
    homes = _listed(
        [
            f"`{home}`, with the rooms below it, alone imports {_listed(_at_home(home))}"
            for home in dict.fromkeys(HOMES.values())
        ]
    )
    facts = {"package": PACKAGE, "others": others, "homes": homes, "linked": _listed([f"`{x}/`" for x in LINKED])}
    numbers = {"files": MAX_FILES, "levels": MAX_LEVELS}
    text = HEAD.format(**facts, **numbers, stages=_listed([f"`{stage}`" for stage in STAGES]))
    filled = (textwrap.fill(part, 120, break_long_words=False, break_on_hyphens=False) for part in text.split("\n\n"))
    return "\n\n".join(filled) + "\n"


def _at_home(home: str) -> list[str]:
    return [f"`{library}`" for library, room in HOMES.items() if room == home]


def _overview(tree: SourceTree) -> dict[str, set[str]]:
    """Which rooms import which, each package with a picture of its own being one."""

    def drawn(room: str) -> str:
        return next((package for package in PICTURES if matches(room, (package, f"{package}.*"))), room)

    arrows: dict[str, set[str]] = {drawn(room): set() for room in ORDER if room in tree.rooms and room}
    for room, others in tree.room_arrows.items():
        if room:
            arrows[drawn(room)] |= {drawn(other) for other in others if other} - {drawn(room)}
    return arrows


def _inside(tree: SourceTree, package: str) -> dict[str, set[str]]:
    """Which rooms of a package import which."""
    own = [room for room in ORDER if room in tree.rooms and matches(room, (package, f"{package}.*"))]
    return {room: tree.room_arrows[room] & set(own) for room in own}


def reduced(arrows: Arrows) -> dict[str, set[str]]:
    """The arrows that do not follow from others; one that runs against the order, in which the rooms come, is kept."""
    place = {room: number for number, room in enumerate(arrows)}
    right = {room: {other for other in others if place[other] < place[room]} for room, others in arrows.items()}
    return {
        room: (others - right[room])
        | {other for other in right[room] if not any(_reaches(right, more, other) for more in right[room] - {other})}
        for room, others in arrows.items()
    }


def _reaches(arrows: Arrows, start: str, end: str) -> bool:
    found, waiting = {start}, [start]
    while waiting:
        new = arrows.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return end in found


def picture(arrows: Arrows, packages: tuple[str, ...] = ()) -> str:
    """A flow chart in Mermaid, in which some boxes are packages of several rooms."""
    lines = ["```mermaid", "flowchart TB"]
    for frame in FRAMES:
        inside = [room for room in arrows if matches(room, (frame, f"{frame}.*"))]
        if len(inside) > 1:
            lines += [
                f'    subgraph {frame}_frame["{frame}"]',
                *(f"    {_box(room, packages)}" for room in inside),
                "    end",
            ]
    framed = {room for room in arrows for frame in FRAMES if matches(room, (frame, f"{frame}.*"))}
    lines += [_box(room, packages) for room in arrows if room not in framed]
    kept = reduced(arrows)
    for room in reversed(list(arrows)):
        lines += [f"    {_id(room)} --> {_id(other)}" for other in arrows if other in kept[room]]
    return "\n".join([*lines, "```", ""])


def _box(room: str, packages: tuple[str, ...]) -> str:
    return f'    {_id(room)}[["{room}"]]' if room in packages else f'    {_id(room)}["{room}"]'


def _id(room: str) -> str:
    return room.replace(".", "_")


def _order() -> str:
    lines = ["| | room | folder | of what stands before, it may not import |", "|---|---|---|---|"]
    for number, room in enumerate(ORDER, 1):
        lines.append(f"| {number} | {_link(room)} | {_folder(room)} | {'; '.join(_objections(room)) or '–'} |")
    return "\n".join([*lines, ""])


def _objections(room: str) -> Iterator[str]:
    """What a room may not import of those before it, and why, in words."""
    before = ORDER[: ORDER.index(room)]
    stages = dict.fromkeys(stage for stage in map(stage_of, before) if stage not in (None, stage_of(room)))
    allowed = [f"`{stage}`" for stage in stages if stage in COMPOSERS.get(room, ())]
    refused = [f"`{stage}`" for stage in stages if stage not in COMPOSERS.get(room, ())]
    if refused:
        all_of_them = "other stages" if stage_of(room) else "stages"
        few = len(refused) < len(allowed)
        yield _listed(refused) if few else f"{all_of_them}, except {_listed(allowed)}" if allowed else all_of_them
    barred: dict[str, list[str]] = {}
    for other in before:
        why = objection(room, other)
        if why is not None and stage_of(other) in (None, stage_of(room)):
            barred.setdefault(why, []).append(other)
    for why, others in barred.items():
        yield f"{', '.join(_shortened(others, before))}: {why}"


def _shortened(rooms: list[str], before: tuple[str, ...]) -> Iterator[str]:
    """Rooms in words: a package whose rooms are nearly all among them is named once."""
    left = list(rooms)
    while left:
        package = left[0].partition(".")[0]
        whole = [room for room in before if matches(room, (package, f"{package}.*"))]
        missing = [f"`{room}`" for room in whole if room not in rooms]
        if len(whole) - len(missing) > 1 and len(missing) <= 1:
            yield f"all of `{package}`" + "".join(f" but {room}" for room in missing)
            left = [room for room in left if room not in whole]
        else:
            yield _room(left.pop(0))


def _section(tree: SourceTree, room: str) -> str:
    module = tree.describes(room)
    imported = [other for other in ORDER if other in tree.room_arrows[room]]
    lines = [f"### {_title(room)}", "", _description(module.docstring if module else "")]
    lines += ["", f"Stands in {_folder(room)}; imports {', '.join(map(_link, imported)) or 'nothing of ours'}.", ""]
    files = sorted((file for file in tree.rooms[room] if file != module), key=lambda file: file.file)
    if files:
        lines += ["| file | what is in it |", "|---|---|", *map(_row, files), ""]
    return "\n".join(lines)


def _row(module: Module) -> str:
    """A file, and the first paragraph of its docstring."""
    says = " ".join(module.docstring.split("\n\n")[0].split()).replace("|", "\\|")
    return f"| [`{module.file.rpartition('/')[2]}`](../{module.file}) | {says} |"


def _description(docstring: str) -> str:
    """A docstring as Markdown: what is aligned by spaces keeps them."""
    parts = docstring.split("\n\n")
    return "\n\n".join(
        f"```text\n{textwrap.dedent(part)}\n```" if re.search(r"(^| )   ", part) else part for part in parts
    )


def _room(room: str) -> str:
    return f"`{room}`" if room else "the root"


def _title(room: str) -> str:
    return room or "the root"


def _link(room: str) -> str:
    anchor = _title(room).replace(".", "").replace(" ", "-")
    return f"[{_title(room)}](#{anchor})"


def _folder(room: str) -> str:
    files = [name.replace(".", "/") + ".py" for name, other in OTHER_ROOM.items() if other == room]
    if files and room not in (other.rpartition(".")[0] for other in ORDER):
        return ", ".join(f"`{file}`" for file in files)
    place = room.replace(".", "/")
    top = place.partition("/")[0] in LINKED
    return ", ".join([f"`{place if top else f'{PACKAGE}/{place}'.rstrip('/')}/`", *(f"`{file}`" for file in files)])


def _listed(items: list[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
