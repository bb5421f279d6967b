"""Time and peak memory of the main job as whole processes: the median of several runs beside the budget.

python benchmarks/main_job.py [--runs 5] [--minilm model.onnx]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """A command, its time budget, and a memory budget as a multiple of a file."""

    name: str
    command: list[str]
    budget_s: float
    model: Path | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--minilm", type=Path, help="exported by tests/models/export.py")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'case':<34}{'median s':>9}{'budget s':>9}{'peak MB':>9}{'x file':>8}")
        for case in _cases(folder, options.minilm):
            _report(case, [_run(case.command) for _ in range(options.runs)])


def _cases(out: str, minilm: Path | None) -> list[Case]:
    python, cnn = sys.executable, ROOT / "examples/cnn/model.onnx"
    compiling = [python, "-m", "eopt", "compile"]
    cases = [
        Case("python -c pass (baseline)", [python, "-c", "pass"], 0.2),
        Case("import eopt", [python, "-c", "import eopt"], 0.2),
        Case("eopt --help", [python, "-m", "eopt", "--help"], 0.4),
        Case(
            "cnn, simplify+fuse, h100",
            [*compiling, str(cnn), "--passes", "simplify,fuse", "--target", "nvidia-h100-sxm", "--out", out],
            5.0,
            cnn,
        ),
    ]
    if minilm is not None:
        command = [*compiling, str(minilm), "--passes", "simplify,fuse", "--out", out]
        cases.append(Case("minilm, simplify+fuse", command, 10.0, minilm))
        command = [*command, "--target", "nvidia-h100-sxm", "--bind", "sequence=32"]
        cases.append(Case("minilm, simplify+fuse, h100", command, 10.0, minilm))
    return cases


def _run(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident bytes of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def _report(case: Case, runs: list[tuple[float, float]]) -> None:
    seconds = statistics.median(run[0] for run in runs)
    peak = max(run[1] for run in runs)
    share = f"{peak / case.model.stat().st_size:.2f}" if case.model else ""
    print(f"{case.name:<34}{seconds:>9.2f}{case.budget_s:>9.1f}{peak / 1e6:>9.0f}{share:>8}", flush=True)


if __name__ == "__main__":
    main()
