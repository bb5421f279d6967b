"""Models for the benchmarks of quantisation, each as an ONNX file with samples to calibrate on and held-out ones.

python benchmarks/quant/zoo.py [NAME ...]     makes them, all by default

`cnn` and `vit` are the trained examples of this repository, `minilm` is trained too; the others have the shape of the
architecture they are named after and seeded random weights (`shapes.py`): their speed is that of the trained model, but
their error only ranks quantisers, since random weights lack the outliers of trained ones. Files lie in
`$EOPT_BENCH_CACHE`, else `~/.cache/eopt-bench`; a folder that exists is not made again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from eopt.backends import data
from eopt.backends.data import Dataset
from eopt.ir import onnx_io
from eopt.ir.errors import UsageError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BATCHES = {"cnn": 8, "vit": 8, "minilm": 8, "resnet50": 1, "mobilenetv2": 1, "bert": 1, "gpt2": 1}
NAMES = tuple(BATCHES)
PATH = os.pathsep.join(str(ROOT / folder) for folder in ("examples", "tests/models"))
HELP = f"{', '.join(NAMES)}, or a folder with model.onnx, calibration.npz and heldout.npz"


@dataclass(frozen=True, eq=False)
class Case:
    """A model with its samples.

    Attributes:
        batch: samples in one run where speed is measured.
    """

    name: str
    model: Path
    calibration: Dataset
    heldout: Dataset
    batch: int


def case(name: str) -> Case:
    """A case by name, made where it is not there yet, or that of a folder.

    Raises:
        UsageError: no such model, or its export failed.
        InputError: its files cannot be read.
    """
    folder = _folder(name)
    model = folder / "model.onnx"
    feeds = onnx_io.read(model).feeds
    calibration, heldout = (data.load(folder / f"{part}.npz", feeds) for part in ("calibration", "heldout"))
    return Case(folder.name, model, calibration, heldout, BATCHES.get(name, 1))


def _folder(name: str) -> Path:
    if name not in BATCHES:
        if not Path(name).is_dir():
            raise UsageError(f"no model {name!r}; give {HELP}")
        return Path(name).resolve()
    known = [folder for folder in (ROOT / "examples" / name, _cache() / name) if folder.is_dir()]
    return known[0] if known else _made(name, _cache() / name)


def _cache() -> Path:
    folder = os.environ.get("EOPT_BENCH_CACHE")
    return Path(folder) if folder else Path.home() / ".cache/eopt-bench"


def _made(name: str, folder: Path) -> Path:
    """Export in a process of its own, which takes torch's memory with it, then move into place in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    script = ROOT / "tests/models/export.py" if name == "minilm" else HERE / "shapes.py"
    with TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / name
        command = [sys.executable, str(script), name, "--out", str(made)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": PATH}
        )
        if done.returncode:
            raise UsageError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return made.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=NAMES)
    for name in parser.parse_args().models:
        print(name, case(name).model)


if __name__ == "__main__":
    main()
