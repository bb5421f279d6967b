"""The trained model as files: arrays in safetensors, the rest in JSON. Nothing in them is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from eopt.costmodel.network import Network
from eopt.costmodel.whole_head import Head
from eopt.ir.errors import InputError, OutputError

VERSION = 3
ARRAYS, ABOUT = "model.safetensors", "model.json"
MAX_BYTES = 64 << 20
VARIABLE = "EOPT_MODEL"  # a folder with another model than the one shipped


@dataclass(frozen=True)
class Artifact:
    """A trained model with what is known of it.

    Attributes:
        executors: by family, those it was trained on, most measured first.
        spread: by quantity (`latency`, `energy`) and kind of kernel (see `intervals`) the logarithm of half the 90 %
            interval on devices left out and on those trained on: `{"latency": {"gemm": {"unseen": 0.4, "known": 0.2}}}`
        head, whole_spread: of whole models, and by quantity the logarithm of half their 90 % interval on devices left
            out; None and nothing where no whole model was in the table.
        about: date, command, data fingerprint, settings, scores.
    """

    network: Network
    executors: Mapping[str, tuple[str, ...]]
    spread: Mapping[str, Mapping[str, Mapping[str, float]]]
    about: Mapping[str, Any] = field(default_factory=dict)
    head: Head | None = None
    whole_spread: Mapping[str, float] = field(default_factory=dict)


def save(artifact: Artifact, folder: Path) -> None:
    """Write both files; they appear whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    from safetensors.numpy import save as encoded

    network = artifact.network
    document = {
        "version": VERSION,
        "members": network.members,
        "devices": list(network.devices),
        "executors": {name: list(found) for name, found in artifact.executors.items()},
        "spread": artifact.spread,
        "about": artifact.about,
        "whole": None if artifact.head is None else {"head": artifact.head.to_dict(), "spread": artifact.whole_spread},
    }
    arrays = encoded(dict(sorted(network.weights.items())))
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in ((ARRAYS, arrays), (ABOUT, text.encode())):
            partial = folder / f".{name}.{os.getpid()}"
            partial.write_bytes(content)
            partial.replace(folder / name)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})") from None


def available() -> bool:
    """True when there is a model to load: the one shipped, or that of `$EOPT_MODEL`."""
    return bool(os.environ.get(VARIABLE)) or (_own_folder() / ABOUT).is_file()


def _own_folder() -> Path:
    return Path(str(files("eopt.costmodel") / "artifact_data"))


@cache
def shipped() -> Artifact:
    """The model in use: that of `$EOPT_MODEL`, else the one in the package.

    Raises:
        InputError: the folder holds no model.
    """
    own = os.environ.get(VARIABLE)
    return load(Path(own)) if own else load(_own_folder())


def load(folder: Path) -> Artifact:
    """Read both files.

    Raises:
        InputError: missing, too large, or not a model of this version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as decoded

    try:
        content = [_content(folder / name) for name in (ARRAYS, ABOUT)]
        weights, document = decoded(content[0]), json.loads(content[1])
        if document["version"] != VERSION:
            raise InputError(f"{folder}: a model of version {document['version']}; this eopt reads {VERSION}")
        network = Network(weights, int(document["members"]), tuple(document["devices"]))
        executors = {name: tuple(found) for name, found in document["executors"].items()}
        whole = document["whole"] or {"head": None, "spread": {}}
        head = Head.of(whole["head"]) if whole["head"] else None
        spread = {name: float(whole["spread"][name]) for name in ("latency", "energy")} if head else {}
        return Artifact(network, executors, document["spread"], document["about"], head, spread)
    except OSError as error:
        raise InputError(f"{folder}: no cost model here ({error.strerror})") from None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: not a cost model ({error})") from None


def _content(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES} bytes; that is no cost model")
    return path.read_bytes()
