"""Arrays between processes, as files without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eopt.backends.base import Array


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays of any element type, bfloat16 and the like as their bytes with the type beside them."""
    held: dict[str, Any] = {}
    for number, (name, array) in enumerate(arrays.items()):
        held[f"name{number}"] = np.array(name)
        held[f"type{number}"] = np.array(array.dtype.name)
        held[f"shape{number}"] = np.array(array.shape, np.int64)
        held[f"bytes{number}"] = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, **held)


def read_arrays(path: Path) -> dict[str, Array]:
    """Arrays as they were written."""
    import ml_dtypes

    found: dict[str, Array] = {}
    with np.load(path, allow_pickle=False) as held:
        for number in range(len(held.files) // 4):
            name, text = str(held[f"name{number}"]), str(held[f"type{number}"])
            dtype = np.dtype(getattr(ml_dtypes, text, text))
            found[name] = np.frombuffer(held[f"bytes{number}"].tobytes(), dtype).reshape(held[f"shape{number}"])
    return found
