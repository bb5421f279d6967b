"""The main job on real architectures: everything is specified, rewrites are exact, MiniLM survives int8."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

sys.path.append(str(Path(__file__).parent))  # helpers beside this file

import zoo

from eopt.ir import onnx_io, onnx_out, ops
from eopt.tools.compile import compile_model
from eopt.tools.predict import predict_model

pytestmark = pytest.mark.slow

# What fuse finds after simplify; zero where the exporter has already written the operator.
FUSED = {
    "minilm": {"attention": 6},
    "bert": {"attention": 2},
    "vit": {"attention": 2},
    "gpt2": {"attention": 2, "gelu-tanh": 2},
    "llama": {"attention": 2, "rms-norm": 5},
    "resnet": {"conv-batchnorm": 15},
    "mobilenet": {"pad-conv": 52, "conv-batchnorm": 52},
}


@pytest.mark.parametrize("name", zoo.NAMES)
def test_every_operator_has_a_specification(name):
    model = onnx_io.read(zoo.zoo_model(name))
    missing = {op.op for op in model.leaves() if ops.spec(op.op, op.domain) is None}
    assert missing <= {"SplitToSequence", "SequenceAt"}, "sequences become Split in simplify"


@pytest.mark.parametrize("name", zoo.NAMES)
def test_round_trip(name, tmp_path):
    path = zoo.zoo_model(name)
    onnx_out.write(onnx_io.read(path), tmp_path / "again.onnx")
    assert onnx_out.to_proto(onnx_io.read(tmp_path / "again.onnx")) == onnx_out.to_proto(onnx_io.read(path))


@pytest.mark.parametrize("name", zoo.NAMES)
def test_simplify_and_fuse_are_exact_and_find_what_is_there(name):
    result = compile_model(zoo.zoo_model(name), "simplify,fuse")
    assert not result.compiled.violated
    applied = Counter(change.rule for change in result.compiled.steps[1].outcome.applied)
    assert applied == FUSED[name]
    assert len(result.model.leaves()) < 0.8 * len(result.compiled.original.leaves())


@pytest.mark.parametrize("name", zoo.NAMES)
def test_modules_survive(name):
    model = compile_model(zoo.zoo_model(name), "simplify,fuse").model
    deep = [op for op in model.leaves() if model.path(op.uid).count("/") >= 2]
    assert len(deep) > 0.4 * len(model.leaves())
    assert not any("#" in region.name for region in model.regions())


@pytest.mark.parametrize("name", zoo.NAMES)
def test_simplified_models_are_priced_whole(name):
    model = compile_model(zoo.zoo_model(name), "simplify").model
    dims = {dim for feed in model.feeds for dim in feed.shape if isinstance(dim, str)} - {"batch"}
    priced, _ = predict_model(model, "nvidia-l4", batch=4, bind=dict.fromkeys(dims, 16))
    assert len(priced.unknown) <= 0.02 * len(priced.costs), list(priced.unknown.values())[:3]


def test_minilm_int8_keeps_its_sentences():
    path = zoo.zoo_model("minilm")
    result = compile_model(path, "simplify,fuse,quant", gate=False, data=path.parent / "calibration.npz")
    assert not result.compiled.violated
    held_out = dict(np.load(path.parent / "heldout.npz"))
    (expected,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, held_out)
    encoded = onnx_out.to_proto(result.model).SerializeToString()
    (actual,) = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"]).run(None, held_out)
    cosine = np.sum(expected * actual, 1) / (np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1))
    assert cosine.mean() >= 0.98
