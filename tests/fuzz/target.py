"""What is done with a hostile input: read it, and if it is accepted, everything a verb may do before it runs."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random

import mutate
import numpy as np

from eopt.backends import executor, target
from eopt.costmodel.tree import Situation, price
from eopt.ir import onnx_io, onnx_out, text, text_parse
from eopt.ir.diff import diff
from eopt.ir.errors import EoptError
from eopt.ir.model import Model
from eopt.ir.verify import verify

KINDS = ("damaged", "altered", "edited", "invented", "proto text")


@cache
def situation() -> Situation:
    chip = target.load("nvidia-l4")
    return Situation(chip, executor.default_for(chip))


def make(kind: str, seed: int, corpus: list[bytes], texts: list[str]) -> bytes | str:
    """The input number `seed` of a kind."""
    rng = Random(f"{kind} {seed}")
    if kind == "damaged":
        return mutate.damaged(rng, corpus)
    if kind == "altered":
        return mutate.altered(rng, corpus)
    if kind == "edited":
        return mutate.edited(rng, texts)
    return mutate.invented(rng) if kind == "invented" else mutate.proto_text(rng, corpus)


def attempt(content: bytes | str, folder: Path) -> str:
    """'' when the model was accepted, else the refusal; anything but an `EoptError` escapes."""
    try:
        model = _read(content, folder)
    except EoptError as error:
        return _refusal(error)
    for step in (_print, _write, _price):
        with suppress(EoptError):
            step(model, folder)
    return ""


def _read(content: bytes | str, folder: Path) -> Model:
    if isinstance(content, str):
        return text_parse.loads(content)
    path = folder / "hostile.onnx"
    path.write_bytes(content)
    return onnx_io.read(path)


def _refusal(error: EoptError) -> str:
    """In one line."""
    message = f"{type(error).__name__}: {error}"
    assert "\n" not in message, message[:200]
    return message


def _print(model: Model, folder: Path) -> None:
    verify(model)
    assert not diff(model, model)
    printed = text.dumps(model)
    assert text.dumps(text_parse.loads(printed, model.weights)) == printed


def _write(model: Model, folder: Path) -> None:
    """What is written reads back the same; operators that a text did not name get names once."""
    onnx_out.write(model, folder / "out.onnx")
    again = onnx_io.read(folder / "out.onnx")
    onnx_out.write(again, folder / "again.onnx")
    assert (folder / "again.onnx").read_bytes() == (folder / "out.onnx").read_bytes()
    assert len(again.leaves()) == len(model.leaves())


def _price(model: Model, folder: Path) -> None:
    priced = price(model, situation())
    assert all(np.isfinite(value) and value >= 0 for value in (priced.energy_j.lo, priced.latency_s.lo))
    assert len(priced.shares) <= len(model.leaves())
