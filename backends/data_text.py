"""Samples from a `.jsonl` file: a line each, with the token ids or the text they are made from.

    {"text": "The soup needed salt.", "label": 1}
    {"input_ids": [101, 1996, 11350], "attention_mask": [1, 1, 1], "label": 1}

Inputs the model has besides are filled in: `attention_mask` with 1, `token_type_ids` with 0, `position_ids` from 0 up.
Nothing is padded unless the model's length is fixed; labels are numbers, or lists of them for a label per token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eopt.backends.base import Array
from eopt.backends.data_check import LABELS, checked
from eopt.ir.errors import InputError, UsageError
from eopt.ir.types import Value

MAX_LINES = 100_000
MAX_LINE_BYTES = 1 << 20
MAX_BYTES = 1 << 28  # a byte of text is at most a token, and a token some 24 bytes of arrays
_TEXT, _LABEL, _IDS = "text", "label", "input_ids"
_DEFAULTS: Mapping[str, Callable[[int], Array]] = {
    "attention_mask": np.ones,
    "token_type_ids": np.zeros,
    "position_ids": np.arange,
}

Tokens = Callable[[str], Mapping[str, Any]]


def read(path: Path, feeds: Sequence[Value], tokenizer: str | Path | None) -> Iterator[dict[str, Array]]:
    """The arrays of each line, one sample long, checked.

    Args:
        tokenizer: a local Hugging Face folder; lines with `text` need one.

    Raises:
        InputError: a line that is no sample, or too many or too long ones; the message names file and line.
        UsageError: a tokenizer without transformers installed.
    """
    tokens = None if tokenizer is None else _tokens(Path(tokenizer), feeds)
    types = {value.id: value.dtype.numpy for value in feeds if value.dtype is not None}
    labelled: bool | None = None
    for where, line in _lines(path):
        sample = _parsed(where, line)
        if labelled not in (None, _LABEL in sample):
            raise InputError(f"{where}: some lines have a {_LABEL!r} and some have none; give it to all or to none")
        labelled = _LABEL in sample
        named = _named(where, sample, tokens)
        arrays = {name: _array(f"{where}: {name!r}", values, types.get(name)) for name, values in named}
        yield checked(where, _completed(arrays, types), feeds)
    if labelled is None:
        raise InputError(f"{path}: has no lines")


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every line that is not empty, and its name for errors."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
                where = f"{path}, line {number}"
                if number > MAX_LINES or len(line) > MAX_LINE_BYTES or file.tell() > MAX_BYTES:
                    limits = f"{MAX_LINES} lines, {MAX_LINE_BYTES} bytes in one or {MAX_BYTES} in all"
                    raise InputError(f"{where}: more than {limits}; give fewer or shorter samples")
                if line.strip():
                    yield where, line
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _parsed(where: str, line: bytes) -> dict[str, Any]:
    try:
        sample = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: no JSON") from None
    if not isinstance(sample, dict):
        raise InputError(f'{where}: expected {{"text": ...}} or {{"input_ids": [...]}}, not a {type(sample).__name__}')
    return sample


def _named(where: str, sample: dict[str, Any], tokens: Tokens | None) -> Iterator[tuple[str, Any]]:
    """Values by the name of their input."""
    text = sample.pop(_TEXT, None)
    if text is not None and tokens is None:
        raise InputError(f"{where}: a text needs a tokenizer; give its folder with --tokenizer")
    if text is not None and not isinstance(text, str):
        raise InputError(f"{where}: {_TEXT!r} is a {type(text).__name__}, not a string")
    if text is not None and tokens is not None:
        yield from tokens(text).items()
    for name, values in sample.items():
        yield (LABELS if name == _LABEL else name), values


def _array(where: str, values: Any, dtype: np.dtype[Any] | None) -> Array:
    """Values of one sample, with an axis of length 1 before them; no number is turned into another."""
    try:
        array = np.asarray([values])
        converted = array if dtype is None else np.asarray([values], dtype)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{where}: no numbers of type {dtype}, or lists of different lengths") from None
    whole = dtype is None or dtype.kind == "f" or np.array_equal(array, converted)
    if array.dtype.kind not in "biuf" or not whole:
        raise InputError(f"{where}: holds something that is no {dtype or 'number'}")
    return converted


def _completed(arrays: dict[str, Array], types: Mapping[str, np.dtype[Any]]) -> dict[str, Array]:
    """With the inputs that follow from the length."""
    if _IDS not in arrays or arrays[_IDS].ndim != 2:
        return arrays
    length = arrays[_IDS].shape[1]
    implied = {name: make(length)[None] for name, make in _DEFAULTS.items() if name in types and name not in arrays}
    return arrays | {name: array.astype(types[name]) for name, array in implied.items()}


def _tokens(folder: Path, feeds: Sequence[Value]) -> Tokens:
    """Turns a text into lists of numbers by the names of the model's inputs; no code from the folder is run."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --tokenizer takes a local Hugging Face folder")
    try:
        import transformers
    except ImportError:
        raise UsageError("a tokenizer needs transformers: pip install 'eopt[hf]'") from None
    transformers.logging.set_verbosity_error()
    names = {value.id for value in feeds}
    fixed = [value.shape[1] for value in feeds if value.id == _IDS and value.shape and len(value.shape) == 2]
    padding = {"padding": "max_length", "max_length": fixed[0]} if fixed and isinstance(fixed[0], int) else {}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer("", truncation=True, **padding)
    except Exception as error:  # the folder is arbitrary input and transformers raises anything
        reason = str(error).strip().partition("\n")[0][:200]
        raise InputError(f"{folder}: no usable tokenizer ({reason})") from None

    def tokens(text: str) -> Mapping[str, Any]:
        found = tokenizer(text, truncation=True, **padding)
        return {name: values for name, values in found.items() if name in names}

    return tokens
