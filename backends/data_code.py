"""Samples from `module:function`, which returns or yields arrays by input name, with `labels` if there are any."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eopt.backends.base import Array
from eopt.backends.data_check import MAX_BYTES, checked
from eopt.ir.errors import InputError, UsageError
from eopt.ir.types import Value


def read(reference: str, feeds: Sequence[Value]) -> Iterator[dict[str, Array]]:
    """Import the module, call the function and check every mapping it gives.

    Raises:
        UsageError: no such module or function.
        InputError: it gives something else, too much, or not what the model expects.
    """
    size = 0
    for number, given in enumerate(_given(reference, _function(reference)()), start=1):
        where = f"{reference}, item {number}"
        arrays = _arrays(where, given)
        size += sum(array.nbytes for array in arrays.values())
        if size > MAX_BYTES:
            raise InputError(f"{where}: more than {MAX_BYTES} bytes in all; give fewer samples")
        yield checked(where, arrays, feeds)
    if not size:
        raise InputError(f"{reference}: gives no samples")


def _function(reference: str) -> Any:
    module, _, function = reference.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{reference}: {error}; expected module:function, importable from here") from None
    finally:
        sys.path.pop(0)


def _given(reference: str, result: Any) -> Iterable[Any]:
    if isinstance(result, Mapping):
        return [result]
    if not isinstance(result, Iterable):
        raise InputError(f"{reference}: returned a {type(result).__name__}, not arrays by input name")
    return result


def _arrays(where: str, given: Any) -> dict[str, Array]:
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: a {type(given).__name__}, not arrays by input name")
    try:
        return {name: np.asarray(array) for name, array in given.items()}
    except ValueError as error:
        raise InputError(f"{where}: no array ({error})") from None
