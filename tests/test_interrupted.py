"""Killed at any file operation, a stage leaves the old or the new, complete; run again it succeeds, nothing else stays.

A child is forked for every operation and killed there with SIGKILL, which no handler and no `finally` sees.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from trtllm_port.building import build_engine
from trtllm_port.building.checkpoint import Checkpoint
from trtllm_port.conversion import convert_checkpoint
from trtllm_port.errors import PortError, WorkspaceError
from trtllm_port.foundation import publishing
from trtllm_port.foundation.publishing import Kind, output_directory
from trtllm_port.porting import transaction, write
from trtllm_port.porting.registry_file import add_port
from trtllm_port.registry.manifest import edited_files
from trtllm_port.registry.ports import list_ports
from trtllm_port.runtime import EngineDirectory
from trtllm_port.verification import DiffSettings, diff, diff_layers
from trtllm_port.verification.bundle import save
from trtllm_port.verification.bundle.files import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.chmod"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
LAST = 30  # operations, among which everything gets its name
Run = Callable[[], object]


class Operations:
    """Counts file operations from now on, and kills this process at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self.count = 0
        self._kill_at = kill_at
        self._lock = threading.RLock()
        sys.addaudithook(self._hear)  # cannot be removed: for a process that ends soon
        for module, name in ((os, "write"), (os, "fsync"), (publishing, "exchange"), (transaction, "exchange")):
            setattr(module, name, self._around(getattr(module, name)))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES):
            self._tick()

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self._tick()
            result = function(*arguments)
            self._tick()
            return result

        return counted

    def _tick(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def in_child(run: Run, kill_at: int | None) -> int | None:
    """Return how many operations a run takes, or None if it was killed."""
    read, written = os.pipe()
    if (child := os.fork()) == 0:
        try:
            operations = Operations(kill_at)
            run()
            count = operations.count
            os.write(written, str(count).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(written)
    with os.fdopen(read) as pipe:
        count = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"the child ended with {status}"
    return int(count) if status == 0 else None


@dataclass(frozen=True, kw_only=True)
class Case:
    """A stage to kill.

    Attributes:
        run: the stage.
        state: what it left: "old", "new", or "none"; raises if that is something else.
        between: states other than "old" and "new" that may be met before it runs again.
    """

    run: Run
    state: Callable[[], str]
    between: tuple[str, ...] = ()


def tree(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


def kill_everywhere(case: Case, sandbox: Path, step: int = 1) -> None:
    """Kill a run at every operation (or at every few, but the last), and run it again from what was before it."""
    template = Path(shutil.copytree(sandbox, sandbox.parent / "template", symlinks=True))

    def put_back() -> None:
        shutil.rmtree(sandbox)
        shutil.copytree(template, sandbox, symlinks=True)

    before = case.state()
    case.run()  # what is imported, rendered or computed once is there from here on
    put_back()
    count = in_child(case.run, None)
    assert count is not None
    assert count > 10
    assert case.state() == "new"
    finished = tree(sandbox)
    met = set()
    for at in [at for at in range(1, count + 1) if at % step == 0 or at > count - LAST]:
        put_back()
        if in_child(case.run, at) is not None:
            continue  # threads make the number of operations differ by a few
        state = case.state()
        assert state in {before, "new", *case.between}, f"killed at operation {at} of {count}: {state}"
        met.add(state)
        try:
            case.run()
        except WorkspaceError as error:
            if state != "new" or "exists already" not in error.message:
                raise
        assert case.state() == "new"
        assert tree(sandbox) == finished, f"killed at operation {at} of {count}"
    assert {before, "new"} <= met


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything is written, temporary files included."""
    (tmp_path / "sandbox" / "tmp").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "sandbox" / "tmp"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a killed process takes nothing along from the cache
    return tmp_path / "sandbox"


FILE_SYSTEMS = ["swaps", "renames", "mounted"]


def behave(file_system: str, output: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Have a file system that swaps names, one that cannot, or a mount point; returns the states in between."""
    if file_system == "renames":
        for module in (publishing, transaction):
            monkeypatch.setattr(module, "exchange", lambda one, other: False)
        return ("none",)
    if file_system == "mounted":
        output.mkdir(exist_ok=True)
        monkeypatch.setattr(publishing, "_mount_points", lambda: {str(output)})
        return ("none",)
    return ()


def complete(check: Callable[[], str]) -> str:
    """What a reader makes of a directory: refused is none; wrong is an error of another kind."""
    try:
        return check()
    except PortError:
        return "none"


BOX = Kind(is_not="no box", marker="mark", names=("mark", "part*"), is_one=lambda place: (place / "mark").is_file())


@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
@pytest.mark.parametrize("replaced", [False, True])
def test_an_output_directory(sandbox: Path, monkeypatch: pytest.MonkeyPatch, file_system: str, replaced: bool) -> None:
    target = sandbox / "box"

    def fill(text: str) -> None:
        with output_directory(target, BOX) as directory:
            for name in ("part0", "part1", "mark"):
                (directory / name).write_text(text)

    def state() -> str:
        if not (target / "mark").is_file():
            return "none"
        found = {path.name: path.read_text() for path in target.iterdir() if not path.name.startswith(".")}
        text = found["mark"]
        assert found == dict.fromkeys(("part0", "part1", "mark"), text)
        return text

    between = behave(file_system, target, monkeypatch)
    if replaced:
        fill("old")
    kill_everywhere(Case(run=lambda: fill("new"), state=state, between=between), sandbox)


@pytest.fixture
def quick_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renders each template once: what is killed is the writing."""
    render = write.render_template

    @cache
    def remembered(template: str, values: tuple[tuple[str, str], ...]) -> dict[str, str]:
        return render(template, dict(values))

    monkeypatch.setattr(
        write, "render_template", lambda template, values: remembered(template, tuple(sorted(values.items())))
    )


@dataclass(frozen=True)
class Toy:
    """A port as small as can be."""

    letter: str
    sizes: int

    @property
    def architecture(self) -> str:
        return f"{self.letter}ForCausalLM"

    port_class = architecture

    @property
    def files(self) -> dict[str, str]:
        model = f'"""Toy."""\n\nfrom .config import SIZES\n\n\nclass {self.architecture}:\n    sizes = SIZES\n'
        return {"config.py": f"SIZES = {self.sizes}\n", "model.py": model, "convert.py": '"""Weights."""\n'}


def write_toy(workspace: Path, letter: str, sizes: int, *, force: bool = False) -> None:
    name = f"toy_{letter.lower()}"
    write.write_port(Toy(letter, sizes), workspace=workspace, name=name, test='"""Test."""\n', force=force)


@pytest.mark.usefixtures("quick_templates")
@pytest.mark.parametrize(
    ("ports", "force", "file_system", "step"),
    [
        ("", False, "swaps", 20),
        ("AC", False, "swaps", 20),
        pytest.param("", False, "renames", 1, marks=pytest.mark.slow),
        pytest.param("AC", False, "swaps", 1, marks=pytest.mark.slow),
        pytest.param("ABC", True, "swaps", 1, marks=pytest.mark.slow),
    ],
)
def test_new(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch, ports: str, force: bool, file_system: str, step: int
) -> None:
    workspace = sandbox / "work"
    behave(file_system, sandbox, monkeypatch)
    for letter in ports:
        write_toy(workspace, letter, 1)

    def state() -> str:
        found = {port.name: port for port in list_ports(workspace) if port.origin == "workspace"}
        for letter in ports:
            assert f"toy_{letter.lower()}" in found
        assert all(edited_files(port.package_dir) == [] for port in found.values())
        assert all(port.cls.sizes == 1 for name, port in found.items() if name != "toy_b")
        new = found.get("toy_b")
        return "none" if new is None else {1: "old", 2: "new"}[new.cls.sizes]

    kill_everywhere(Case(run=lambda: write_toy(workspace, "B", 2, force=force), state=state), sandbox, step)


@pytest.mark.slow
@pytest.mark.parametrize(("file_system", "replaced"), [("swaps", False), *((each, True) for each in FILE_SYSTEMS)])
def test_convert(
    tiny_llama: Path,
    llama_workspace: Path,
    sandbox: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_system: str,
    replaced: bool,
) -> None:
    output = sandbox / "ckpt"
    between = behave(file_system, output, monkeypatch)
    if replaced:
        convert_checkpoint(tiny_llama, output, workspace=llama_workspace)
    dtypes = {"float32": "old", "float16": "new"}
    case = Case(
        run=lambda: convert_checkpoint(tiny_llama, output, workspace=llama_workspace, dtype="float16"),
        state=lambda: complete(lambda: dtypes[Checkpoint.read(output).dtype]),
        between=between,
    )
    kill_everywhere(case, sandbox)


@pytest.mark.slow
@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_build(
    tiny_checkpoint: Path, llama_workspace: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch, file_system: str
) -> None:
    output = sandbox / "engine"
    between = behave(file_system, output, monkeypatch)

    def build(batch: int) -> None:
        build_engine(tiny_checkpoint, output, workspace=llama_workspace, backend="reference", max_batch_size=batch)

    def check() -> str:
        directory = EngineDirectory.read(output)
        directory.verify(directory.digests)
        return {1: "old", 2: "new"}[directory.build.max_batch_size]

    build(1)
    kill_everywhere(Case(run=lambda: build(2), state=lambda: complete(check), between=between), sandbox)


@pytest.fixture
def bundle_parts(
    tiny_llama: Path, llama_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What `verify --save` hands to the saving; Hugging Face's numbers are recorded once."""
    kept: dict[str, Any] = {}

    def keep(target: Path, report: Any, stimulus: Any, phases: Any, load: Any, networks: dict[str, Path]) -> None:
        copies = {dtype: Path(shutil.copytree(path, tmp_path / f"network-{dtype}")) for dtype, path in networks.items()}
        recorded = {phase.name: save.record_phase(phase, load, stimulus) for phase in phases}
        monkeypatch.setattr(save, "record_phase", lambda phase, *_: recorded[phase.name])
        kept.update(report=report, stimulus=stimulus, phases=phases, load=load, networks=copies)

    monkeypatch.setattr(diff, "save_bundle", keep)
    diff_layers(tiny_llama, workspace=llama_workspace, settings=DiffSettings(tokens=32, save=tmp_path / "never"))
    return kept


@pytest.mark.slow
@pytest.mark.parametrize("file_system", FILE_SYSTEMS)
def test_save(bundle_parts: dict[str, Any], sandbox: Path, monkeypatch: pytest.MonkeyPatch, file_system: str) -> None:
    output = sandbox / "bundle"
    between = behave(file_system, output, monkeypatch)

    def save_as(summary: str) -> None:
        report = replace(bundle_parts["report"], summary=summary)
        save.save_bundle(output, **bundle_parts | {"report": report})

    def check() -> str:
        read_manifest(output)
        return str(json.loads((output / "report.json").read_text())["summary"])

    save_as("old")
    kill_everywhere(Case(run=lambda: save_as("new"), state=lambda: complete(check), between=between), sandbox)


@pytest.mark.usefixtures("quick_templates")
def test_ports_that_are_written_at_the_same_time_are_all_there(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, letters = sandbox / "work", "ABCDEF"
    write_toy(workspace, "Z", 1)

    def slowly(*arguments: Any, **more: Any) -> str:
        text = add_port(*arguments, **more)
        time.sleep(0.05)  # between reading the registry and replacing it
        return text

    monkeypatch.setattr(write, "add_port", slowly)
    children = []
    for letter in letters:
        if (child := os.fork()) == 0:
            try:
                write_toy(workspace, letter, 1)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(letters)
    assert [port.architecture[0] for port in list_ports(workspace)] == [*letters, "Z"]
    assert not [path for path in workspace.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("quick_templates")
def test_of_two_that_write_the_same_port_one_is_refused(sandbox: Path) -> None:
    workspace = sandbox / "work"
    children = []
    for sizes in (1, 2, 3):
        if (child := os.fork()) == 0:
            try:
                write_toy(workspace, "A", sizes)
            except WorkspaceError:
                os._exit(2)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes == [0, 2, 2]
    assert [edited_files(port.package_dir) for port in list_ports(workspace)] == [[]]
