"""All files of one model that are compared: the float one, ours by pipeline, and the peers'."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import peers
import zoo
from zoo import Case

from eopt.backends.base import Array
from eopt.backends.ort import OrtRunner
from eopt.costmodel import tree
from eopt.ir import onnx_io, onnx_out
from eopt.ir.errors import EoptError, UsageError
from eopt.ir.model import Model
from eopt.passes.base import Context
from eopt.passes.gate import Gate
from eopt.passes.pipeline import Pipeline
from eopt.tools.situation import situation

FLOAT = "float32"
OURS = ("float32:simplify,fuse", "int8:simplify,fuse,quant", "float16:simplify,fuse,cast")
THREADS = 2


@dataclass(frozen=True)
class Variant:
    """One file, or why there is none.

    Attributes:
        format: variants of one format are peers; `float32` computes what the original computes.
    """

    name: str
    format: str
    ours: bool
    path: Path
    error: str = ""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What all benchmarks of variants take."""
    parser.add_argument("models", nargs="+", choices=zoo.NAMES, metavar="MODEL", help=", ".join(zoo.NAMES))
    parser.add_argument("--ours", nargs="*", default=OURS, metavar="FORMAT:PASSES")
    parser.add_argument("--peers", nargs="*", default=None, metavar="NAME", help="all that can run, by default")
    parser.add_argument("--peers-python", type=Path, help="interpreter with NNCF, neural-compressor 2.x or Olive")
    parser.add_argument("--target", help="turns the cost gate of ours on")
    parser.add_argument("--folder", type=Path, help="keep the peers' files here, and take those that are here")
    parser.add_argument("--out", type=Path, help="JSON")


@contextmanager
def variants(case: Case, options: argparse.Namespace) -> Iterator[list[Variant]]:
    """The original first, then ours, then the peers'; files that are not kept vanish afterwards."""
    with TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)) / case.name
        folder.mkdir(parents=True, exist_ok=True)
        found = [Variant("original", FLOAT, False, case.model)]
        found += _ours(case, options.ours, options.target, Path(scratch))
        found += _theirs(case, _named(options.peers, options.peers_python), options.peers_python, folder)
        yield found


def _ours(case: Case, pipelines: Sequence[str], target: str | None, folder: Path) -> Iterator[Variant]:
    model = onnx_io.read(case.model)
    context = Context(OrtRunner(threads=THREADS), case.calibration)
    priced = situation(model, target, None, None, bindings(model, case)) if target else None
    if priced is not None:
        gate = Gate(partial(tree.compare, situation=priced))
        context = Context(context.runner, context.data, gate, priced.target, priced.executor)
    for number, text in enumerate(pipelines):
        name, colon, passes = text.partition(":")
        if not colon:
            raise UsageError(f"--ours {text!r}: give FORMAT:PASSES, as in {OURS[1]}")
        path, error = folder / f"ours{number}.onnx", ""
        try:
            onnx_out.write(Pipeline.parse(passes).run(model, context).model, path)
        except EoptError as refusal:
            error = str(refusal)
        yield Variant(f"eopt {passes}", name, True, path, error)


def bindings(model: Model, case: Case) -> dict[str, int]:
    """Extents of the symbolic dims as they are where speed is measured."""
    found: dict[str, int] = {}
    for feed in model.feeds:
        sizes = (case.batch, *case.heldout.arrays[feed.id].shape[1:])
        found |= {dim: size for dim, size in zip(feed.shape or (), sizes, strict=True) if isinstance(dim, str)}
    return found


def _named(names: Sequence[str] | None, python: Path | None) -> list[str]:
    wanted = names if names is not None else [name for name, peer in peers.PEERS.items() if python or not peer.outside]
    unknown = [name for name in wanted if name not in peers.PEERS]
    if unknown:
        raise UsageError(f"no peer {unknown[0]!r}; choose from {', '.join(peers.PEERS)}")
    return list(wanted)


def _theirs(case: Case, names: Sequence[str], python: Path | None, folder: Path) -> Iterator[Variant]:
    """Each in a process of its own, so that none leaves memory or settings behind."""
    for name in names:
        peer, path = peers.PEERS[name], folder / f"{name.replace(' ', '-')}.onnx"
        interpreter = python if peer.outside and python else Path(sys.executable)
        calibration = case.model.parent / "calibration.npz"
        command = [str(interpreter), peers.__file__, name, str(case.model), str(calibration), str(path)]
        error = "" if path.exists() else _failure(command)
        yield Variant(name, peer.format, False, path, error)


def _failure(command: Sequence[str]) -> str:
    """The last line a process complained with, '' where it did its work."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    complaints = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return complaints[-1] if done.returncode else ""


def session(path: Path) -> Any:
    """onnxruntime as users get it, on `THREADS` threads.

    Raises:
        Exception: onnxruntime's own, where it has no kernels for the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(running: Any, case: Case) -> list[dict[str, Array]]:
    """By batch of held-out samples, the first output by name."""
    name = running.get_outputs()[0].name
    feeds: Iterator[Mapping[str, Array]] = case.heldout.batches((), case.batch)
    return [{name: running.run([name], dict(feed))[0]} for feed in feeds]
