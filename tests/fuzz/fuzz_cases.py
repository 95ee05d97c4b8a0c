"""One case: a seed becomes files in an empty directory, and the words of a command line.

`KINDS` says what is damaged, how often, and which command meets it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz_corpus import link_tree, published_configs
from fuzz_mutations import VALUES, mutate_file

from trtllm_port.foundation.digests import bytes_digest, file_digest

WORKSPACE = ("--workspace", "workspace")
Words = list[str]


@dataclass(frozen=True)
class Place:
    """Where a case may work: its own directory, and the corpus that it takes files from."""

    corpus: Path
    directory: Path

    def take(self, name: str, mutated: tuple[str, ...], rng: random.Random) -> None:
        """Link a part of the corpus into the directory and damage one of the named files."""
        source = self.corpus / name
        target = self.directory / name
        if source.is_dir():
            link_tree(source, target)
        else:
            target.hardlink_to(source)
        if mutated:
            mutate_file(self.directory / name / rng.choice(mutated) if source.is_dir() else target, rng)

    def whole(self, *names: str) -> None:
        """Link parts of the corpus as they are."""
        for name in names:
            self.take(name, (), random.Random(0))


def config(place: Place, rng: random.Random) -> Words:
    place.whole("workspace")
    place.take("model", ("config.json",), rng)
    return ["convert", "--model-dir", "model", "--output-dir", "out", *WORKSPACE]


def safetensors(place: Place, rng: random.Random) -> Words:
    place.whole("workspace")
    place.take("model", ("model.safetensors",), rng)
    return ["convert", "--model-dir", "model", "--output-dir", "out", *WORKSPACE]


def index(place: Place, rng: random.Random) -> Words:
    place.whole("workspace")
    files = ("model.safetensors.index.json",) * 3 + ("model-00001-of-00002.safetensors",)
    place.take("sharded", files, rng)
    return ["convert", "--model-dir", "sharded", "--output-dir", "out", *WORKSPACE]


def tokenizer(place: Place, rng: random.Random) -> Words:
    place.whole("engine")
    place.take("model", ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"), rng)
    more = ["--chat"] if rng.random() < 0.2 else []
    return ["run", "--engine-dir", "engine", "--tokenizer-dir", "model", "--max-output-len", "2", *more]


def checkpoint(place: Place, rng: random.Random) -> Words:
    place.whole("workspace")
    place.take("checkpoint", ("config.json", "config.json", "rank0.safetensors"), rng)
    _sign(place.directory / "checkpoint" / "config.json", "tensors", rng)
    words = ["build", "--checkpoint-dir", "checkpoint", "--output-dir", "out", "--backend", "reference", *WORKSPACE]
    return [*words, "--max-seq-len", "16"]


def engine(place: Place, rng: random.Random) -> Words:
    place.whole("model")
    files = ("config.json", "rank0.network.json", "rank0.network.json", "rank0.safetensors")
    place.take("engine", files, rng)
    _sign(place.directory / "engine" / "config.json", "digests", rng)
    return ["run", "--engine-dir", "engine", "--tokenizer-dir", "model", "--max-output-len", "2"]


def bundle(place: Place, rng: random.Random) -> Words:
    files = ("bundle.json", "bundle.json", "logic.safetensors", "network-float32/config.json")
    place.take("bundle", (*files, "network-float32/rank0.network.json"), rng)
    _sign_bundle(place.directory / "bundle", rng)
    return ["diff-layers", "bundle"]


def prompts(place: Place, rng: random.Random) -> Words:
    place.whole("engine", "model")
    name = rng.choice(("prompts.txt", "prompts.jsonl"))
    place.take(name, (name,), rng)
    run = ["run", "--engine-dir", "engine", "--tokenizer-dir", "model", "--max-output-len", "2"]
    return [*run, "--input-file", name]


def published(place: Place, rng: random.Random) -> Words:
    """A mutated config of a published model: no port serves it, but it is read, with all that transformers fills in."""
    source = rng.choice(published_configs() or [place.corpus / "model"])
    place.whole("workspace")
    (place.directory / "model").mkdir()
    (place.directory / "model" / "config.json").write_bytes((source / "config.json").read_bytes())
    mutate_file(place.directory / "model" / "config.json", rng)
    return ["convert", "--model-dir", "model", "--output-dir", "out", *WORKSPACE]


def inspected(place: Place, rng: random.Random) -> Words:
    published(place, rng)
    return ["inspect", "model"]


def compared(place: Place, rng: random.Random) -> Words:
    place.whole("workspace")
    place.take("model", ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"), rng)
    command = rng.choice(("diff-layers", "verify"))
    more = ["--backend", "reference"] if command == "verify" else []
    return [command, "model", "--random-weights", "--tokens", "16", *more, *WORKSPACE]


COMMANDS: dict[str, Words] = {
    "inspect": ["model", "--workspace", "workspace"],
    "convert": ["--model-dir", "model", "--output-dir", "out", *WORKSPACE, "--dtype", "auto", "--tp-size", "1"],
    "build": [
        *("--checkpoint-dir", "checkpoint", "--output-dir", "out", *WORKSPACE, "--backend", "reference"),
        *("--max-batch-size", "1", "--max-input-len", "8", "--max-seq-len", "16"),
    ],
    "run": [
        *("--engine-dir", "engine", "--tokenizer-dir", "model", "--input-text", "Once", "--max-output-len", "2"),
        *("--temperature", "1", "--top-k", "2", "--top-p", "0.5", "--seed", "1"),
    ],
    "summarize": ["--engine-dir", "engine", "--hf-model-dir", "model", "--dataset", "none.jsonl"],
    "diff-layers": ["absent", *WORKSPACE, "--tokens", "16", "--prompt-file", "prompts.txt", "--seed", "1"],
    "models": [*WORKSPACE],
    "new": ["--blank", "mine", "--workspace", "out"],
}
SLOW = ("inspect",)  # only with what makes it end early


def command_line(place: Place, rng: random.Random) -> Words:
    """Words of a valid command that were replaced, dropped, doubled or added."""
    place.whole("workspace", "model", "checkpoint", "engine", "prompts.txt")
    command = rng.choice(sorted(COMMANDS))
    words = list(COMMANDS[command])
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(words))
        kind = rng.random()
        if kind < 0.7:
            words[at] = _word(rng)
        elif kind < 0.8:
            del words[at]
        elif kind < 0.9:
            words.insert(at, words[at])
        else:
            words.insert(at, rng.choice(("--json", "--no-such", "-", "--", _word(rng))))
    if command in SLOW and "model" in words:
        words[words.index("model")] = "absent"
    return [command, *words]


def _word(rng: random.Random) -> str:
    plain = [str(value) for value in VALUES if isinstance(value, str | int | float) and not str(value).startswith("@@")]
    paths = ("/dev/null", "/proc/self/mem", ".", "model", "engine", "checkpoint", "workspace", "z" * 300, "a/b/c")
    return rng.choice((*plain, *paths)).replace("\0", "")


def _sign(config_json: Path, key: str, rng: random.Random) -> None:
    """State the digests of the files as they are now, so that what reads them meets what was changed."""
    if rng.random() < 0.1 or not _is_small(config_json):
        return
    try:
        config = json.loads(config_json.read_bytes())
        config[key] = {name: _facts(config_json.parent / name)["digest"] for name in config[key]}
        text = json.dumps(config)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError):
        return  # the change left nothing to sign
    config_json.unlink()
    config_json.write_text(text)


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size < 64 << 20


def _facts(path: Path) -> dict[str, int | str]:
    if not _is_small(path):
        raise ValueError(f"{path} is not signed")
    return {"bytes": path.stat().st_size, "digest": file_digest(path)}


def _sign_bundle(directory: Path, rng: random.Random) -> None:
    for network in directory.glob("network-*/config.json"):
        _sign(network, "digests", rng)
    path = directory / "bundle.json"
    if rng.random() < 0.1 or not _is_small(path):
        return
    try:
        content = json.loads(path.read_bytes())
        for name, facts in content["files"].items():
            facts |= _facts(directory / name)
        body = {name: value for name, value in content.items() if name != "digest"}
        digest = bytes_digest(json.dumps(body, sort_keys=True, ensure_ascii=False).encode())
        text = json.dumps(body | {"digest": digest})
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError):
        return
    path.unlink()
    path.write_text(text)


#: What is damaged → (how it is made, how often among 1000 cases). What takes seconds is rare.
KINDS: dict[str, tuple[Callable[[Place, random.Random], Words], int]] = {
    "config": (config, 235),
    "published": (published, 130),
    "safetensors": (safetensors, 140),
    "index": (index, 90),
    "tokenizer": (tokenizer, 110),
    "checkpoint": (checkpoint, 75),
    "engine": (engine, 70),
    "bundle": (bundle, 25),
    "prompts": (prompts, 20),
    "command line": (command_line, 100),
    "compared": (compared, 3),
    "inspected": (inspected, 2),
}


def make_case(seed: int, place: Place, only: str | None = None, *, fast: bool = False) -> tuple[str, Words]:
    """Write a case's files and return its kind and its words.

    Args:
        seed: decides everything that the others leave open.
        place: where the case works.
        only: of this kind.
        fast: of no kind that takes seconds.
    """
    rng = random.Random(seed)
    kinds = [kind for kind in KINDS if not (fast and kind in ("inspected", "compared"))]
    kind = rng.choices(kinds, [KINDS[name][1] for name in kinds])[0]
    kind = only or kind
    return kind, KINDS[kind][0](place, rng)
