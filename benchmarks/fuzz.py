"""Fuzz the ONNX reader and the text parser for minutes; crashes, hangs and foreign errors are counted and kept.

python benchmarks/fuzz.py [--minutes 8] [--seed 1] [--processes 2] [--keep FOLDER]

Every input follows from its kind and number, so a finding can be repeated; `--keep` stores the inputs as well.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests/fuzz"))

import corpus  # noqa: E402
import target  # noqa: E402

MEMORY_BYTES = 4 << 30
CASE_S = 20
STEP = 200  # cases between two reports
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^]]*\]|\bb'|-?\d+|/\S+")


@dataclass
class Log:
    """What happened so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    rss_mb: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the inputs behind findings")
    options = parser.parse_args()
    corpus.encoded(), corpus.printed(), target.situation()  # before the workers fork
    log, start = Log(), time.monotonic()
    workers = [_Worker(number, options) for number in range(options.processes)]
    while time.monotonic() - start < options.minutes * 60:
        for worker in workers:
            worker.poll(log)
    for worker in workers:
        worker.stop(log)
    _report(log, time.monotonic() - start)


class _Worker:
    """A process that may die: the number of its current case lies in shared memory, and the next one goes on there."""

    def __init__(self, number: int, options: argparse.Namespace) -> None:
        self.current: Any = mp.Value("Q", options.seed * 10**9 + number)
        self.stride, self.keep = options.processes, options.keep
        self._start()

    def _start(self) -> None:
        self.reports, end = mp.Pipe(duplex=False)
        self.process = mp.Process(target=_work, args=(self.current, self.stride, end), daemon=True)
        self.process.start()
        end.close()

    def poll(self, log: Log) -> None:
        """Take one report, or start again after a death."""
        try:
            if self.reports.poll(0.2):
                self._take(log, self.reports.recv())
            return
        except EOFError:
            self.process.join()
        number = self.current.value
        kind = target.KINDS[number % len(target.KINDS)]
        self._found(log, number, f"crash, exit code {self.process.exitcode}: {kind} {number}")
        self.current.value = number + self.stride
        self._start()

    def stop(self, log: Log) -> None:
        while self.reports.poll(0):
            self._take(log, self.reports.recv())
        self.process.terminate()

    def _take(self, log: Log, report: tuple[Counter[str], list[tuple[int, str]], int]) -> None:
        outcomes, findings, rss_mb = report
        log.outcomes += outcomes
        log.rss_mb = max(log.rss_mb, rss_mb)
        for number, text in findings:
            self._found(log, number, text)

    def _found(self, log: Log, number: int, text: str) -> None:
        log.findings.append(text)
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            content = _case(number)[1]
            (self.keep / str(number)).write_bytes(content if isinstance(content, bytes) else content.encode())


def _case(number: int) -> tuple[str, bytes | str]:
    kind = target.KINDS[number % len(target.KINDS)]
    return kind, target.make(kind, number, corpus.encoded(), corpus.printed())


def _work(current: Any, stride: int, reports: Connection) -> None:
    """Cases without end, under limits of memory and time; a signal or a crash ends the process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as folder:
        while True:
            outcomes: Counter[str] = Counter()
            findings: list[tuple[int, str]] = []
            for _ in range(STEP):
                _one(current.value, Path(folder), outcomes, findings)
                current.value += stride
            reports.send((outcomes, findings, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))


def _one(number: int, folder: Path, outcomes: Counter[str], findings: list[tuple[int, str]]) -> None:
    kind, content = _case(number)
    signal.alarm(CASE_S)
    try:
        refusal = target.attempt(content, folder)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        findings.append((number, f"{type(error).__name__}: {error!s:.80} at {where.name}: {kind} {number}"))
        refusal = "finding"
    signal.alarm(0)
    outcomes[f"{kind}: {'refused' if refusal else 'accepted'}"] += 1
    if refusal:
        outcomes[f"  {_VALUES.sub('_', refusal)[:90]}"] += 1


def _report(log: Log, seconds: float) -> None:
    kinds = {name: count for name, count in log.outcomes.items() if not name.startswith(" ")}
    accepted = sum(count for name, count in kinds.items() if name.endswith("accepted"))
    total = sum(kinds.values())
    crashes = sum(text.startswith("crash") for text in log.findings)
    print(
        f"{seconds:.0f} s: {total} cases, {accepted} accepted, {total - accepted} refused, {crashes} crashes or hangs, "
        f"{len(log.findings) - crashes} foreign errors, at most {log.rss_mb} MB resident"
    )
    for name, count in sorted(kinds.items()):
        print(f"{count:>9}  {name}")
    print("refused most often:")
    reasons = {name: count for name, count in log.outcomes.items() if name.startswith(" ")}
    for name, count in sorted(reasons.items(), key=lambda item: -item[1])[:25]:
        print(f"{count:>9}{name}")
    for text in log.findings[:40]:
        print(f"finding: {text}")


if __name__ == "__main__":
    main()
