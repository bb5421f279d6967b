"""Scores of folds on disk, found by what they were made from: an evaluation that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from eopt.backends import target as targets
from eopt.costmodel.release import Recipe, fingerprint
from eopt.costmodel.samples import GROUP, Samples
from eopt.costmodel.scores import Score
from eopt.ir.errors import OutputError

Array = np.ndarray[Any, Any]
_LIBRARIES = ("numpy", "torch", "scikit-learn")


@dataclass(frozen=True)
class ScoreCache:
    """A folder with one file for each fold; None remembers nothing.

    Attributes:
        note: is told the label of every fold that was not computed again.
    """

    folder: Path | None = None
    note: Callable[[str], None] = lambda label: None

    def scores(
        self, found: Samples, gone: Array, label: str, recipe: Recipe, made: Callable[[], Iterable[Score]]
    ) -> list[Score]:
        """Those of the same fold on the same rows by the same code, else `made` ones, which are kept.

        Raises:
            OutputError: the folder cannot be written.
        """
        if self.folder is None:
            return list(made())
        path = self.folder / f"{address(found, gone, label, recipe)}.json"
        kept = _read(path)
        if kept is not None:
            self.note(label)
            return kept
        scored = list(made())
        _write(path, scored)
        return scored


def address(found: Samples, gone: Array, label: str, recipe: Recipe) -> str:
    """Digest of all that a fold's scores depend on: rows, split, recipe, target sheets, code and libraries."""
    digest = hashlib.sha256(f"{label}\n{_code()}\n{fingerprint(found)}".encode())
    digest.update(json.dumps(asdict(recipe), sort_keys=True).encode())
    digest.update(np.packbits(gone).tobytes())
    for column in (*(found.frame[name].astype("string").fillna("") for name in GROUP), found.family):
        digest.update("\n".join(column).encode())
    return digest.hexdigest()


@cache
def _code() -> str:
    """Of all source files of the cost model, of libraries, and of every sheet, as gaps of one are filled from others.

    A list of the files that matter would go stale, and say so by wrong scores.
    """
    digest = hashlib.sha256()
    sources = [file for package in ("eopt.costmodel", "eopt.backends") for file in files(package).iterdir()]
    for file in sorted(sources, key=str):
        if file.name.endswith(".py"):
            digest.update(file.read_bytes())
    sheets = [targets.load(name).to_dict() for name in targets.names()]
    digest.update(json.dumps(sheets, sort_keys=True, default=str).encode())
    digest.update(" ".join(_version(name) for name in _LIBRARIES).encode())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _read(path: Path) -> list[Score] | None:
    """None where there is no such file, or none that can be used."""
    try:
        return [Score(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, scored: list[Score]) -> None:
    from eopt.ir.onnx_out import atomic

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be created ({error.strerror}); name another with --cache") from None
    with atomic(path) as file:
        file.write(json.dumps([asdict(score) for score in scored]).encode())
