"""Whatever a user names as MODEL, as a model."""

from __future__ import annotations

import re
from pathlib import Path

from eopt.ir import onnx_io, torch_io
from eopt.ir.errors import InputError
from eopt.ir.model import Model

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def load(model: str | Path, *, trust: bool = False) -> Model:
    """Load `x.onnx`, a local Hugging Face directory, `module:function`, or a `.pt2` with `trust`.

    Raises:
        InputError: missing or unusable.
        UsageError: needs a package that is not installed, or `--trust`.
    """
    path = Path(model)
    if path.is_dir():
        return torch_io.from_pretrained(path)
    if path.suffix == ".pt2":
        return torch_io.from_pt2(path, trust)
    if not path.exists() and _REFERENCE.fullmatch(str(model)):
        return torch_io.from_reference(str(model))
    if path.suffix in (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"):
        raise InputError(f"{path}: a pickle, which can run code when read; export it to ONNX or give module:function")
    return onnx_io.read(path)
