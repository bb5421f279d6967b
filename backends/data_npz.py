"""Samples from a `.npz` file, whose keys are input names, or from a folder of them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eopt.backends.base import Array
from eopt.backends.data_check import MAX_BYTES, checked, expected
from eopt.ir.errors import InputError
from eopt.ir.types import Value


def read(path: Path, feeds: Sequence[Value]) -> Iterator[dict[str, Array]]:
    """The arrays of each file, checked.

    Raises:
        InputError: missing, damaged, or not what the model expects.
    """
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no .npz file in this folder; {expected(feeds)}")
    for file in files:
        yield checked(file, _read(file), feeds)


def _read(path: Path) -> dict[str, Array]:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise InputError(f"{path}: {size} bytes unpacked, more than {MAX_BYTES}; split it into a folder of files")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: no readable .npz file ({reason})") from None
