"""One class as a subclass of another: what differs, and of `__init__` what it sets otherwise than the base's."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from trtllm_port.porting.class_texts import ClassText, ModelFile, content, names_in, with_names

INIT = "__init__"
INDENT = " " * 4


def subclass(
    own: ModelFile, ours: ClassText, file: ModelFile, base: ClassText, same: Mapping[str, str], fields: frozenset[str]
) -> str | None:
    """Return the text of a subclass that is the same as a class; None where the other cannot be its base.

    Args:
        own, ours: the file, and the class in it.
        file, base: the other class's file, and that class.
        same: names of our classes → those of the other port's that say the same.
        fields: what the configs have that the class is made with.
    """
    names = {**same, own.config_class: file.config_class, ours.name: base.name}
    parents = [content(node, names) for node in ours.node.bases]
    if parents != [content(node, {}) for node in base.node.bases] or not base.members.keys() <= ours.members.keys():
        return None
    shared = {
        name: node
        for name, node in ours.members.items()
        if name in base.members
        and content(node, names) == content(base.members[name], {})
        and own.means_the_same(file, node, base.members[name])
    }
    can_be_made = _reads(file, base.name) <= fields
    if not shared or (INIT in shared and not can_be_made):
        return None
    variables, kept = list[str](), list[str]()
    for name, node in ours.members.items():
        if name not in shared:
            same_meaning = partial(own.means_the_same, file)
            by_base = name == INIT and can_be_made
            lines = _constructor(ours, node, base.members[name], names, same_meaning) if by_base else None
            text = ours.text({}, node) if lines is None else "\n".join(lines)
            if name == INIT and lines is None:  # nothing of what the base makes is wanted
                text = text.replace("super().__init__(", f"super({base.name}, self).__init__(", 1)
            (kept if isinstance(node, ast.FunctionDef) else variables).append(with_names(text, same))
    parts = ["\n".join(variables)] if variables else []
    return f"class {ours.name}({base.name}):\n" + "\n\n".join([*parts, *kept])


def _constructor(
    ours: ClassText,
    node: ast.stmt,
    base: ast.stmt,
    names: Mapping[str, str],
    same_meaning: Callable[[ast.stmt], bool],
) -> list[str] | None:
    """The lines of `__init__` by way of the base's; None where that would leave something that is not ours."""
    if not isinstance(node, ast.FunctionDef) or not isinstance(base, ast.FunctionDef):
        return None
    if content(node.args, names) != content(base.args, {}):
        return None
    statements, theirs = _own_statements(node), _own_statements(base)
    if statements is None or theirs is None:
        return None
    known = {content(statement, {}) for statement in theirs}
    changed = [each for each in statements if content(each, names) not in known or not same_meaning(each)]
    kept = _with_what_follows(statements, changed)
    said = {content(statement, names) for statement in statements}
    gone = [statement for statement in theirs if content(statement, {}) not in said]
    if not all(_target(statement) in {_target(each) for each in kept} for statement in gone):
        return None
    arguments = ", ".join(argument.arg for argument in node.args.args[1:])
    first = ours.lines[node.lineno - 1 : node.body[0].lineno - 1]
    return [*first, f"{INDENT * 2}super().__init__({arguments})", *(ours.text({}, each) for each in kept)]


def _own_statements(node: ast.FunctionDef) -> list[ast.stmt] | None:
    """What a constructor does behind `super().__init__(…)`; None where it does not begin with that."""
    first = node.body[0]
    return node.body[1:] if ast.unparse(first).startswith("super().__init__(") else None


def _with_what_follows(statements: Sequence[ast.stmt], changed: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Statements that change, those that read what they set, and those that set variables which these need."""
    kept = list(changed)
    touched = {name for statement in changed for name in _sets(statement)}
    for statement in statements:
        if statement not in kept and _reads_any(statement, touched):
            kept.append(statement)
            touched |= set(_sets(statement))
    needed = {name for statement in kept for name in names_in(statement)}
    for statement in reversed(statements):
        local = isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        if local and statement not in kept and needed & set(_sets(statement)):
            kept.append(statement)
            needed |= names_in(statement)
    return sorted(kept, key=lambda statement: statement.lineno)


def _sets(statement: ast.stmt) -> Iterator[str]:
    """What a statement sets or may change: variables, and `self.name` of every attribute that it mentions on the left;
    where it is no assignment, all that it mentions."""
    plain = isinstance(statement, ast.Assign | ast.AnnAssign)
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", statement)]
    for target in targets if plain else [statement]:
        yield from _mentioned(target)


def _mentioned(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self":
            yield f"self.{each.attr}"
        elif isinstance(each, ast.Name) and each.id not in ("self", "config"):
            yield each.id


def _reads_any(statement: ast.stmt, names: set[str]) -> bool:
    return bool(names & set(_mentioned(statement)))


def _target(statement: ast.stmt) -> str:
    """`self.name` where a statement sets that and nothing else, else its whole text."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        return ast.unparse(statement.targets[0])
    return ast.unparse(statement)


def _reads(file: ModelFile, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """The fields of a config that the constructor of a class reads, those of the classes that it makes included."""
    node = file.classes[name].members.get(INIT)
    if node is None or name in seen:
        return set()
    found = {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "config"
    }
    made = names_in(node) & file.classes.keys()
    return found.union(*(_reads(file, each, seen | {name}) for each in made))
