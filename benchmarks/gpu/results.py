"""A file of results: JSON lines that are only ever appended to, each written at once."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BOARD, BEGUN, MEASURED, SKIPPED, FAILED = "board", "begun", "measured", "skipped", "failed"
"""Kinds of lines: a call's machine before and after, a case about to be measured, and what came of it."""
ENDED = (MEASURED, SKIPPED, FAILED)
TRIES = 3  # of a case that ended the process, as a crash of a kernel does; after that it is left alone


def place(folder: Path, board: str, torch: str, date: str) -> Path:
    """The newest file of this board and torch in a folder, so that a later day goes on; else one of this date."""
    start = re.sub(r"[^A-Za-z0-9.]+", "-", f"{board}-torch-{torch.partition('+')[0]}").strip("-").lower()
    older = sorted(folder.glob(f"{start}-[0-9]*.jsonl"))
    return older[-1] if older else folder / f"{start}-{date}.jsonl"


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line; one that was cut is passed over."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def append(path: Path, line: dict[str, Any]) -> None:
    """Write one line and see it on the disk; what a cut left behind stays a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
        torn = bool(size) and file.read(1) != b"\n"
        file.write(b"\n" * torn + json.dumps(line, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def done(path: Path) -> set[str]:
    """Names of cases that need not be measured: they ended, or were begun `TRIES` times and never did."""
    ended, begun = set[str](), Counter[str]()
    for line in read(path):
        if line.get("kind") in ENDED:
            ended.add(line["case"])
        if line.get("kind") == BEGUN:
            begun[line["case"]] += 1
    return ended | {name for name, count in begun.items() if count >= TRIES}
