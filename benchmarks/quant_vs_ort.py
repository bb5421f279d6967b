"""Our int8 beside the original and beside onnxruntime's own static quantiser: accuracy, speed and size.

python benchmarks/quant_vs_ort.py model.onnx calibration.npz heldout.npz [--passes simplify,fuse,quant] [--batch 1 8]

Both quantisers calibrate on the same samples with the extremes they saw. `onnxruntime` is `quantize_static` as its
documentation gives it (QDQ, per channel, all operator types, int8 activations); `onnxruntime u8` has uint8 activations,
which its x86 kernels are made for; `onnxruntime u8 products` quantises Conv, Gemm and MatMul alone. Speed is measured
interleaved: each round times every model in a rotated order for the same short while after one untimed run. A ratio is
the median over rounds of the ratio within a round, so that load from elsewhere hits all alike.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eopt.backends import data
from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io, onnx_out
from eopt.ir.model import Model
from eopt.passes.base import Context
from eopt.passes.pipeline import Pipeline

THREADS = 2
PRODUCTS = ["Conv", "Gemm", "MatMul"]
Feed = Mapping[str, np.ndarray[Any, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("heldout", type=Path)
    parser.add_argument("--passes", default="simplify,fuse,quant")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=0.05, help="of one timing")
    options = parser.parse_args()
    model = onnx_io.read(options.model)
    calibration, heldout = (data.load(path, model.feeds) for path in (options.calibration, options.heldout))
    with tempfile.TemporaryDirectory() as folder:
        models = {"original": options.model}
        models |= dict(_ours(model, calibration, options.passes, Path(folder)))
        models |= dict(_theirs(model, options.model, calibration, Path(folder)))
        sessions = {name: _session(path) for name, path in models.items()}
        _accuracy(models, sessions, heldout)
        for batch in options.batch:
            feed = {name: array[:batch] for name, array in heldout.arrays.items()}
            _speed(sessions, feed, batch, options.rounds, options.seconds)


def _ours(model: Model, calibration: Dataset, passes: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The pipeline, and the same without quant to see what quantisation itself brings."""
    whole = Pipeline.parse(passes)
    others = Pipeline(*(item for item in whole.passes if item.name != "quant"), keep_order=True)
    context = Context(OrtRunner(threads=THREADS), calibration)
    for number, pipeline in enumerate((others, whole)):
        path = folder / f"eopt{number}.onnx"
        onnx_out.write(pipeline.run(model, context).model, path)
        yield f"eopt {pipeline}", path


def _theirs(model: Model, source: Path, calibration: Dataset, folder: Path) -> Iterator[tuple[str, Path]]:
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    unsigned = {"activation_type": ort.QuantType.QUInt8}
    variants: dict[str, dict[str, Any]] = {
        "onnxruntime": {},
        "onnxruntime u8": unsigned,
        "onnxruntime u8 products": {**unsigned, "op_types_to_quantize": PRODUCTS},
    }

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = calibration.batches(model.feeds, 8)

        def get_next(self) -> Feed | None:
            return next(self.batches, None)

    for number, (name, settings) in enumerate(variants.items()):
        path = folder / f"ort{number}.onnx"
        settings = {"quant_format": ort.QuantFormat.QDQ, "per_channel": True, **settings}
        ort.quantize_static(str(prepared), str(path), Reader(), **settings)
        yield name, path


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _accuracy(models: Mapping[str, Path], sessions: Mapping[str, Any], heldout: Dataset) -> None:
    figure = "cosine" if heldout.labels is None else "top-1"
    print(f"{'':<34}{figure:>9}{'SQNR dB':>9}{'MB':>8}")
    outputs = {name: np.asarray(session.run(None, dict(heldout.arrays))[0]) for name, session in sessions.items()}
    expected = outputs["original"]
    for name, actual in outputs.items():
        value = _cosine(actual, expected) if heldout.labels is None else _top1(actual, heldout.labels)
        noise = float(np.sum(np.square(actual - expected)))
        sqnr = 10 * np.log10(float(np.sum(np.square(expected))) / noise) if noise else np.inf
        print(f"{name:<34}{value:>9.4f}{sqnr:>9.1f}{models[name].stat().st_size / 1e6:>8.2f}")


def _cosine(actual: Any, expected: Any) -> float:
    norms = np.linalg.norm(actual, axis=-1) * np.linalg.norm(expected, axis=-1)
    return float(np.mean(np.sum(actual * expected, axis=-1) / norms))


def _top1(actual: Any, labels: Any) -> float:
    return float(np.mean(actual.argmax(axis=-1) == labels))


def _speed(sessions: Mapping[str, Any], feed: Feed, batch: int, rounds: int, seconds: float) -> None:
    names = list(sessions)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        shift = number % len(names)
        for name in (*names[shift:], *names[:shift]):
            times[name].append(_timed(sessions[name], feed, seconds))
    times = {name: series[1:] for name, series in times.items()}  # the first round warms up
    print(f"\n{f'batch {batch}':<34}{'ms':>9}{'x original':>12}{'x onnxruntime':>15}")
    for name, series in times.items():
        ratios = [_ratio(series, times[other]) for other in ("original", "onnxruntime")]
        print(f"{name:<34}{statistics.median(series) * 1e3:>9.3f}{ratios[0]:>12.3f}{ratios[1]:>15.3f}")


def _ratio(series: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(series, other, strict=True))


def _timed(session: Any, feed: Feed, seconds: float) -> float:
    """Median seconds of a run; the first one is not counted, other sessions' threads may still be spinning then."""
    session.run(None, feed)
    runs: list[float] = []
    while sum(runs) < seconds or len(runs) < 3:
        start = time.perf_counter()
        session.run(None, feed)
        runs.append(time.perf_counter() - start)
    return statistics.median(runs)


if __name__ == "__main__":
    main()
