"""The rules of the code base that a linter does not know: which package may import which, and how long things get."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 400, 60, 8

#: Package → what of ours it may import. `trtllm_port.errors` is a leaf open to all.
MAY_IMPORT = {
    "trtllm_port.layers": ("trtllm_port.layers",),
    "trtllm_port.runtime": ("trtllm_port.layers", "trtllm_port.runtime"),
}

#: The stages. Each is a function from inputs to a result and knows no other.
STAGES = ("codegen", "scaffold", "conversion", "building", "evaluation")
#: What composes stages beside the command line, and which.
COMPOSERS = {
    "scaffold": ("codegen",),  # `new` is done when the generated port has passed its check
    "verification": STAGES,  # `verify` is the verdict on the whole way from convert to diff-layers
}

HEAVY = ("datasets", "evaluate", "numpy", "onnx", "tensorrt", "tensorrt_rtx", "torch", "transformers")
#: Ours, and heavy because of what they import; the command line names them inside command bodies only.
HEAVY_OURS = ("trtllm_port.layers", "trtllm_port.runtime")

#: file or file:function → why it may exceed a limit.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
MANY_PARAMETERS: dict[str, str] = {}


def sources() -> list[Path]:
    """Our Python files, each once: the symlinks below `trtllm_port/` lead to the top-level folders."""
    folders = [ROOT / name for name in ("trtllm_port", "layers", "runtime", "scaffolds")]
    linked = {ROOT / "trtllm_port" / name for name in ("layers", "runtime", "scaffolds")}
    files = (path for folder in folders for path in sorted(folder.rglob("*.py")))
    # below the folders of `scaffolds/` are templates, no modules
    return [
        path
        for path in files
        if not linked & set(path.parents)
        and not (path.is_relative_to(ROOT / "scaffolds") and path.parent.name != "scaffolds")
    ]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "trtllm_port" else ("trtllm_port", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(module, line) of every import below a node; `from a import b` counts as `a.b` too, b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def belongs(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def top_level(tree: ast.Module) -> list[ast.stmt]:
    """What runs on import: all but the bodies of functions and of `if TYPE_CHECKING`."""
    statements: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            statements.append(node)
    return statements


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sources()}


def report(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(sorted(problems))


def test_the_sources_are_found(trees: dict[Path, ast.Module]) -> None:
    names = {module_name(path) for path in trees}
    assert {
        "trtllm_port.errors",
        "trtllm_port.layers.definition.network",
        "trtllm_port.runtime.network.executor",
    } <= names
    assert len(names) == len(trees)


def test_imports_point_one_way(trees: dict[Path, ast.Module]) -> None:
    problems = []
    for path, tree in trees.items():
        package = next((name for name in MAY_IMPORT if belongs(module_name(path), (name,))), None)
        if package is None:
            continue
        allowed = (*MAY_IMPORT[package], "trtllm_port.errors")
        problems += [
            f"{path.relative_to(ROOT)}:{line} imports {name}; {package} may import {', '.join(allowed)}"
            for name, line in imports(tree)
            if belongs(name, ("trtllm_port",)) and not belongs(name, allowed)
        ]
    report(problems)


def test_errors_import_nothing_of_ours(trees: dict[Path, ast.Module]) -> None:
    (tree,) = (tree for path, tree in trees.items() if module_name(path) == "trtllm_port.errors")
    assert not [name for name, _ in imports(tree) if belongs(name, ("trtllm_port",))]


def test_stages_do_not_import_each_other(trees: dict[Path, ast.Module]) -> None:
    problems = []
    for path, tree in trees.items():
        stages = (*STAGES, *COMPOSERS)
        own = next((stage for stage in stages if belongs(module_name(path), (f"trtllm_port.{stage}",))), None)
        if own is None:
            continue
        allowed = {own, *COMPOSERS.get(own, ())}
        others = tuple(f"trtllm_port.{stage}" for stage in stages if stage not in allowed)
        problems += [
            f"{path.relative_to(ROOT)}:{line} imports {name}; a stage knows no other"
            for name, line in imports(tree)
            if belongs(name, others)
        ]
    report(problems)


def test_nothing_but_the_command_line_imports_it(trees: dict[Path, ast.Module]) -> None:
    report(
        [
            f"{path.relative_to(ROOT)}:{line} imports {name}"
            for path, tree in trees.items()
            if not belongs(module_name(path), ("trtllm_port.cli", "trtllm_port.__main__"))
            for name, line in imports(tree)
            if belongs(name, ("trtllm_port.cli",))
        ]
    )


def test_the_command_line_starts_without_heavy_imports(trees: dict[Path, ast.Module]) -> None:
    """`--help` is instant: what a command needs is imported in its body."""
    problems = []
    for path, tree in trees.items():
        if not belongs(module_name(path), ("trtllm_port.cli", "trtllm_port.errors", "trtllm_port.__main__")):
            continue
        for node in top_level(tree):
            problems += [
                f"{path.relative_to(ROOT)}:{line} imports {name} on start"
                for name, line in imports(node)
                if belongs(name, (*HEAVY, *HEAVY_OURS))
            ]
    report(problems)


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(qualified name, function) of all functions, nested ones included."""

    def below(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if not isinstance(child, ast.ClassDef):
                    yield name, child
                yield from below(child, f"{name}.")
            else:
                yield from below(child, prefix)

    return below(tree, "")


def test_files_are_short(trees: dict[Path, ast.Module]) -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in trees}
    report(
        [
            f"{name}: {n} lines, at most {MAX_FILE}"
            for name, n in lengths.items()
            if n > MAX_FILE and name not in LONG_FILES
        ]
    )


def test_functions_are_short(trees: dict[Path, ast.Module]) -> None:
    problems = []
    for path, tree in trees.items():
        for name, node in functions(tree):
            key = f"{path.relative_to(ROOT)}:{name}"
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION and key not in LONG_FUNCTIONS:
                problems.append(f"{key}: {lines} lines, at most {MAX_FUNCTION}")
    report(problems)


def test_functions_have_few_parameters(trees: dict[Path, ast.Module]) -> None:
    """Commands are exempt: their parameters are the options of the command line."""
    problems = []
    for path, tree in trees.items():
        if belongs(module_name(path), ("trtllm_port.cli",)):
            continue
        for name, node in functions(tree):
            arguments = node.args
            named = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            count = len([argument for argument in named if argument not in ("self", "cls")])
            key = f"{path.relative_to(ROOT)}:{name}"
            if count > MAX_PARAMETERS and key not in MANY_PARAMETERS:
                problems.append(f"{key}: {count} parameters, at most {MAX_PARAMETERS}")
    report(problems)


def test_exemptions_are_needed(trees: dict[Path, ast.Module]) -> None:
    """An exemption for what no longer exists is removed."""
    files = {str(path.relative_to(ROOT)) for path in trees}
    names = {f"{path.relative_to(ROOT)}:{name}" for path, tree in trees.items() for name, _ in functions(tree)}
    assert set(LONG_FILES) <= files
    assert {*LONG_FUNCTIONS, *MANY_PARAMETERS} <= names


def test_the_linked_packages_are_the_top_level_folders() -> None:
    for name in ("layers", "runtime", "scaffolds"):
        link = ROOT / "trtllm_port" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name
