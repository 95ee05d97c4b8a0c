"""`make fuzz`: thousands of damaged files and command lines; each passes, or ends with a message and exit code 1 to 3.

python tests/fuzz/run.py --count 10000 --jobs 2
python tests/fuzz/run.py --first 4711 --count 1      # one case again; what it printed is shown
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

PATIENCE = 240  # seconds without a result: for what no signal of Python's interrupts, or what waits without working
CASES = 1000  # of one process: what libraries keep in memory from case to case is no case's fault
SHOWN = 12  # failures that are printed whole
Result = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Run cases and print what failed; 0 if none did."""
    options = _parser().parse_args(arguments)
    if options.count < 1:
        raise SystemExit("no cases, no pass")
    if options.worker is not None:
        return _work(options)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)  # torch names it to child processes; each case has one of its own
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        os.environ["HF_HOME"] = place
        results = fuzz(Path(place), options)
    if sorted(result["seed"] for result in results) != list(range(options.first, options.first + options.count)):
        raise SystemExit(f"{len(results)} results for {options.count} cases")
    failed = [result for result in results if result["problems"]]
    _show(results, failed, options, time.monotonic() - began)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="how many cases")
    parser.add_argument("--first", type=int, default=0, help="seed of the first; each has the next one's")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument("--only", help="cases of one kind: see `KINDS`")
    parser.add_argument("--fast", action="store_true", help="without the kinds of which one takes seconds")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--step", type=int, default=1, help=argparse.SUPPRESS)
    return parser


def fuzz(place: Path, options: argparse.Namespace) -> list[Result]:
    """Spread the seeds over processes; one that hangs or dies is replaced after the case that did it."""
    _run_once("from fuzz_corpus import make_corpus", f"make_corpus(__import__('pathlib').Path({str(place)!r}))")
    results: list[Result] = []
    threads = [
        threading.Thread(target=_supervise, args=(place, options, number, results)) for number in range(options.jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(results, key=lambda result: int(result["seed"]))


def _run_once(*lines: str) -> None:
    code = "\n".join((f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})", *lines))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the corpus cannot be made:\n{done.stderr}")


def _supervise(place: Path, options: argparse.Namespace, number: int, results: list[Result]) -> None:
    seed, end = options.first + number, options.first + options.count
    while seed < end:
        lines: queue.Queue[str] = queue.Queue()
        worker = _start(place, options, number, seed, lines)
        for result in _results(worker, lines):
            results.append(result)
            seed = result["seed"] + options.jobs
        code = worker.wait()
        if code and seed < end:  # it did not come to its end: the next one goes on behind the case that did it
            what = "hung and was killed" if code == -9 else f"ended with {code}"
            said = _said(place, number).read_text(errors="replace")
            facts = {"kind": "?", "words": [], "problems": [f"the process {what}"], "seconds": 0.0, "err": said}
            results.append({"seed": seed, **facts})
            seed += options.jobs


def _said(place: Path, number: int) -> Path:
    return place / f"worker-{number}" / "stderr"


def _start(
    place: Path, options: argparse.Namespace, number: int, seed: int, lines: queue.Queue[str]
) -> subprocess.Popen[str]:
    work = place / f"worker-{number}"
    work.mkdir(exist_ok=True)
    words = [sys.executable, __file__, "--worker", str(work), "--first", str(seed), "--step", str(options.jobs)]
    count = min(options.first + options.count - seed, CASES * options.jobs)
    words += ["--count", str(count), *(["--only", options.only] if options.only else [])]
    words += ["--fast"] if options.fast else []
    with _said(place, number).open("w") as said:
        worker = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True)

    def read() -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    return worker


def _results(worker: subprocess.Popen[str], lines: queue.Queue[str]) -> Iterator[Result]:
    """A worker's results until it ends, or says nothing for longer than a case may take."""
    while True:
        try:
            line = lines.get(timeout=PATIENCE)
        except queue.Empty:
            worker.kill()
            return
        if not line:
            return
        yield json.loads(line)


def _work(options: argparse.Namespace) -> int:
    """Run this process's share of the cases and write each result as a line."""
    from fuzz_oracle import Oracle

    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no result
    oracle = Oracle(options.worker.parent, options.worker)
    oracle.run(options.first, "tokenizer")  # loads the libraries
    oracle.limit_memory()
    for seed in range(options.first, options.first + options.count, options.step):
        outcome = asdict(oracle.run(seed, options.only, fast=options.fast))
        if not outcome["problems"] and options.count > 1:
            outcome |= {"out": "", "err": ""}
        results.write(json.dumps(outcome) + "\n")
        results.flush()
    return 0


def _show(results: list[Result], failed: list[Result], options: argparse.Namespace, seconds: float) -> None:
    shown = results if options.count == 1 else failed[:SHOWN]
    for result in shown:
        print(f"seed {result['seed']}, {result['kind']}: {' '.join(result['words'])!r}")
        print(f"  {'; '.join(result['problems'])}\n  {result.get('out', '')[-2000:]}")
        print(f"  {result.get('err', '')[-4000:]}")
    for result in failed[SHOWN:]:
        last = (result.get("err", "").strip().splitlines() or [""])[-2:]
        print(f"seed {result['seed']}, {result['kind']}: {'; '.join(result['problems'])}: {' '.join(last)[:300]}")
    codes = Counter(f"{result['kind']}: {result.get('code')}" for result in results)
    times: Counter[str] = Counter()
    for result in results:
        times[result["kind"]] += result["seconds"]
    print("exit codes: " + ", ".join(f"{name} {count} times" for name, count in sorted(codes.items())))
    print("seconds: " + ", ".join(f"{kind} {time:.0f}" for kind, time in sorted(times.items())))
    if failed:
        print(f"one again: {sys.executable} {__file__} --count 1 --first SEED")
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed in {seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
