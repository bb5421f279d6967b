"""The torch lowering against the operator cases of the onnx backend suite."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # cases divide by zero, and torch warns about writing to their arrays
]

LEAST_RIGHT = 1790  # of the 1884 cases of onnx 1.23; 12 are random
NO_KERNEL = {
    "float4e2m1", "float8e8m0", "strings", "round_mode",  # types torch does not compute with
    "FlexAttention", "Adagrad", "Adam", "Momentum",  # previews of ONNX
    "ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer",
    "ArrayFeatureExtractor", "Binarizer", "LabelEncoder", "TreeEnsemble",  # no tensor programs
}  # fmt: skip


def test_operator_cases_come_out_right_or_are_refused():
    pytest.importorskip("torch")
    import torch_cases

    results = torch_cases.run_all()
    count = Counter(result.outcome for result in results)
    assert not [result for result in results if result.outcome in ("wrong", "failed")]
    refused = [result for result in results if result.outcome == "refused"]
    assert not [result for result in refused if not any(name in result.detail for name in NO_KERNEL)]
    assert count["right"] >= LEAST_RIGHT, count
    assert count["right"] + count["refused"] + count["random"] == len(results)
