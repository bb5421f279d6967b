"""All files of one model that are compared: the float one, ours by pipeline, and the peers'."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import peers
import zoo
from zoo import Case

from eopt.backends.base import Array
from eopt.ir import onnx_io, onnx_out
from eopt.ir.errors import EoptError, UsageError
from eopt.ir.model import Model
from eopt.tools.compile import compile_model

FLOAT = "float32"
# Peers hold no contract: with that of 13 dB, ours would keep some of the products of a hard model out of int4.
OURS = (
    "float32:simplify,fuse",
    "int8:simplify,fuse,quant",
    "int8@auto:simplify,fuse,quant",
    "dynamic:simplify,fuse,quant{format=dynamic}",
    "int4:simplify,fuse,quant{weight=int4,form=nbits,sqnr=0}",
    "int4:simplify,fuse,quant{weight=int4,form=nbits,rounding=gptq,sqnr=0}",
    "float16:simplify,fuse,cast",
)
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
    parser.add_argument("models", nargs="+", metavar="MODEL", help=zoo.HELP)
    parser.add_argument("--ours", nargs="*", default=OURS, metavar="FORMAT[@TARGET]:PASSES", help="a target gates")
    parser.add_argument("--peers", nargs="*", metavar="NAME", help="all there is an interpreter for, by default")
    parser.add_argument("--peers-python", nargs="*", default=(), metavar="PACKAGE=PYTHON", help="of nncf and others")
    parser.add_argument("--folder", type=Path, help="keep the peers' files here, and take those that are here")
    parser.add_argument("--out", type=Path, help="JSON")


@contextmanager
def variants(case: Case, options: argparse.Namespace) -> Iterator[list[Variant]]:
    """The original first, then ours, then the peers'; files that are not kept vanish afterwards."""
    with TemporaryDirectory() as scratch:
        folder = (options.folder.resolve() if options.folder else Path(scratch)) / case.name
        folder.mkdir(parents=True, exist_ok=True)
        found = [Variant("original", FLOAT, False, case.model)]
        found += [_ours(case, text, Path(scratch) / f"{number}.onnx") for number, text in enumerate(options.ours)]
        found += _theirs(case, options, folder, scratch)
        yield found


def _ours(case: Case, text: str, path: Path) -> Variant:
    """What `eopt compile` writes, verified on the calibration samples: it has seen no more than the peers."""
    head, colon, passes = text.partition(":")
    if not colon:
        raise UsageError(f"--ours {text!r}: give FORMAT:PASSES, as in {OURS[1]}")
    kind, _, target = head.partition("@")
    model, data = onnx_io.read(case.model), case.calibration
    bind = bindings(model, case) if target else {}
    try:
        found = compile_model(model, passes, data=data, eval_data=data, target=target or None, bind=bind)
        broken = [f"{step.spec}: {step.verdict}" for step in found.compiled.violated]
        onnx_out.write(found.model, path)
    except EoptError as refusal:
        broken = [str(refusal)]
    return Variant(f"eopt {passes}{'@' if target else ''}{target}", kind, True, path, "; ".join(broken))


def bindings(model: Model, case: Case) -> dict[str, int]:
    """Extents of the symbolic dims as they are where speed is measured."""
    found: dict[str, int] = {}
    for feed in model.feeds:
        sizes = (case.batch, *case.heldout.arrays[feed.id].shape[1:])
        found |= {dim: size for dim, size in zip(feed.shape or (), sizes, strict=True) if isinstance(dim, str)}
    return found


def _theirs(case: Case, options: argparse.Namespace, folder: Path, scratch: str) -> Iterator[Variant]:
    """Each in a process of its own, so that none leaves memory or settings behind."""
    pythons = {"": sys.executable, **dict(entry.split("=", 1) for entry in options.peers_python)}
    runnable = [name for name, peer in peers.PEERS.items() if peer.package in pythons]
    for name in runnable if options.peers is None else options.peers:
        if name not in runnable:
            raise UsageError(f"no peer {name!r}, or no interpreter for it; there are {', '.join(runnable)}")
        peer, path = peers.PEERS[name], folder / f"{name.replace(' ', '-')}.onnx"
        calibration = case.model.parent / "calibration.npz"
        command = [pythons[peer.package], peers.__file__, name, str(case.model), str(calibration), str(path)]
        error = "" if path.exists() else _failure(command, scratch)
        yield Variant(name, peer.format, False, path, error)


def _failure(command: Sequence[str], folder: str) -> str:
    """The last line a process complained with, '' where it did its work."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    complaints = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return complaints[-1] if done.returncode else ""


def session(model: Path | bytes) -> Any:
    """onnxruntime as users get it, on `THREADS` threads, with a file or an encoded model.

    Raises:
        Exception: onnxruntime's own, where it has no kernels for the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def outputs(running: Any, case: Case) -> list[dict[str, Array]]:
    """By batch of held-out samples, the first output by name."""
    name = running.get_outputs()[0].name
    feeds: Iterator[Mapping[str, Array]] = case.heldout.batches((), case.batch)
    return [{name: running.run([name], dict(feed))[0]} for feed in feeds]
