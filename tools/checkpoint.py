"""A compiled Hugging Face model as a compressed-tensors checkpoint, which vLLM, SGLang and transformers load.

Numbers come from the compiled model, names and everything else from the folder it was made of.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eopt.backends.checkpoint import files, linear
from eopt.backends.checkpoint import plan as planning
from eopt.backends.checkpoint.linear import Scheme
from eopt.ir.errors import InputError, OutputError, UsageError
from eopt.ir.onnx_out import made
from eopt.passes.pipeline import Compiled
from eopt.tools.files import read_text

COPIED = (
    "generation_config.json",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "LICENSE*",
)
MAX_COPIED_BYTES = 1 << 28

ELSEWHERE = {
    "simplify": "what is computed in advance is the engine's own business",
    "fuse": "which operators run as one is the engine's own business",
    "cast": "the numbers stay in the source's types; choose the engine's dtype",
    "lower-qop": "integer operators are the engine's own business",
}


@dataclass(frozen=True)
class Written:
    """A checkpoint.

    Attributes:
        schemes: by name of a quantised linear layer.
        notes: what was done to the model that the checkpoint does not say, one line each.
    """

    folder: Path
    schemes: Mapping[str, Scheme]
    notes: tuple[str, ...]


def check(source: str | Path, folder: Path) -> None:
    """Refuse before anything is compiled.

    Raises:
        UsageError: the model is no Hugging Face folder.
        InputError: it is quantised already, or its weights cannot be read.
        OutputError: the checkpoint's folder holds something.
    """
    if not Path(source).is_dir():
        raise UsageError(f"--checkpoint needs a Hugging Face folder as MODEL, with its weights; {source} is none")
    _config(Path(source))
    files.opened(Path(source))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: is there already; name a new or empty folder for the checkpoint")


def write(compiled: Compiled, source: str | Path, folder: Path, shard_bytes: int = files.SHARD_BYTES) -> Written:
    """Write a checkpoint; the folder appears whole or not at all.

    Args:
        source: the Hugging Face folder the model was made of.
        shard_bytes: size of one safetensors file.

    Raises:
        InputError: the compiled model has other shapes than its source, or is not made of it, or nothing in it is
            quantised in a way checkpoints can be.
        UsageError, OutputError: see `check`.
    """
    check(source, folder)
    source = Path(source)
    plan = planning.plan(compiled.model, compiled.original, files.opened(source))
    config = _config(source) | {"quantization_config": linear.quantization_config(plan.schemes, plan.ignored)}
    parent = made(folder.absolute().parent)
    try:
        with TemporaryDirectory(dir=parent, prefix=f".{folder.name}.") as place:
            whole = made(Path(place) / folder.name)
            files.write(whole, plan.entries, shard_bytes)
            (whole / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            left = _copied(source, whole)
            if folder.exists():
                folder.rmdir()
            whole.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})") from None
    return Written(folder, plan.schemes, (*_steps(compiled), *plan.lines(), *left))


def _config(source: Path) -> dict[str, Any]:
    path = source / "config.json"
    try:
        config = json.loads(read_text(path))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON") from None
    if not isinstance(config, dict) or "quantization_config" in config:
        raise InputError(f"{path}: describes no float model; compile the one it was quantised from")
    return config


def _copied(source: Path, folder: Path) -> list[str]:
    """Copy tokenizer and generation files; what is left behind, one line each."""
    left = []
    for path in sorted({path for pattern in COPIED for path in source.glob(pattern) if path.is_file()}):
        # The hub's cache keeps files as links into its own folder `blobs`; any other link may lead anywhere.
        inside = path.resolve().parent in (source.resolve(), source.resolve().parents[1] / "blobs")
        if not inside or path.stat().st_size > MAX_COPIED_BYTES:
            left.append(f"{path.name}: not copied, it is a link or larger than {MAX_COPIED_BYTES} bytes")
            continue
        shutil.copyfile(path, folder / path.name)
    return left


def _steps(compiled: Compiled) -> list[str]:
    names = [step.spec.partition("{")[0] for step in compiled.steps if step.kept]
    return [f"{name}: {ELSEWHERE[name]}" for name in dict.fromkeys(names) if name in ELSEWHERE]
