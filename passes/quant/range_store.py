"""Calibrated ranges on disk, by all that they depend on: what was calibrated once is read back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np

from eopt.backends.data import Dataset
from eopt.backends.harness.store import default_folder
from eopt.ir.errors import OutputError
from eopt.ir.model import Model
from eopt.ir.onnx_out import atomic, made, skeleton
from eopt.passes.base import Context
from eopt.passes.quant.calibrate import Calibration, observe
from eopt.passes.quant.observers import Observing

FORMAT = 1  # goes up whenever an observer finds other ranges in the same values


def calibrated(
    model: Model, tensors: Iterable[str], data: Dataset, context: Context, observing: Observing
) -> Calibration:
    """What `observe` finds, kept below `$EOPT_CACHE`; a folder that cannot be written remembers nothing.

    Raises:
        InputError: the model does not run on the samples.
    """
    names = sorted(set(tensors))
    identity = [FORMAT, model.get(content), samples(data), names, asdict(observing)]
    key = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    path = default_folder() / "ranges" / key[:2] / f"{key}.json"
    found = _read(path, names)
    if found is not None:
        return found
    found = observe(model, names, data, context, observing)
    with suppress(OutputError), atomic(made(path.parent) / path.name) as file:
        file.write(json.dumps(asdict(found), sort_keys=True).encode())
    return found


def content(model: Model) -> str:
    """SHA-256 of a model with its weights, each read once; meant for `Model.get`."""
    digest = sha256(skeleton(model).SerializeToString(deterministic=True))
    for name in model.weights:
        digest.update(f"{name}\0{model.weights.digest(name)}\0".encode())
    return digest.hexdigest()


def samples(data: Dataset) -> str:
    """SHA-256 of the arrays of a data set; labels do not count."""
    digest = sha256()
    for part in data.parts:
        for name, array in sorted(part.arrays.items()):
            digest.update(f"{name}\0{array.dtype}{array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _read(path: Path, names: list[str]) -> Calibration | None:
    """None where there is no such file, or none that holds a range or a reason for every name."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in found["ranges"].items()}
        unusable = {str(name): str(reason) for name, reason in found["unusable"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    finite = all(math.isfinite(end) for ends in ranges.values() for end in ends)
    return Calibration(ranges, unusable) if finite and sorted([*ranges, *unusable]) == names else None
