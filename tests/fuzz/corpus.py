"""What mutation starts from: the handwritten models of the conformance suite, in both forms."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "conformance"))

import features

from eopt.ir import onnx_io, text


@cache
def encoded() -> list[bytes]:
    return [case.message().SerializeToString() for case in features.cases()]


@cache
def printed() -> list[str]:
    return [text.dumps(onnx_io.from_proto(case.message())) for case in features.cases()]
