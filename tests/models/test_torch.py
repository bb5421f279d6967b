"""Whole architectures in torch.fx compute what onnxruntime computes, as exported and as rewritten."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))  # helpers beside this file

import zoo

from eopt.backends import data
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io
from eopt.ir.analysis import index_limits
from eopt.passes.base import Context
from eopt.passes.pipeline import Pipeline

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", (*zoo.NAMES, *zoo.MULTI))
def test_lowered_architectures(name):
    torch = pytest.importorskip("torch")
    from eopt.backends.torch_fx import lower

    exported = onnx_io.read(zoo.zoo_model(name))
    rewritten = Pipeline.parse("simplify,fuse").run(exported, Context(OrtRunner())).model
    (feed,) = data.synthetic(exported.feeds, index_limits(exported), seed=0).batches(exported.feeds)
    (expected,) = OrtRunner().run(exported, [feed])
    for model in (exported, rewritten):
        module = lower(model)
        with torch.inference_mode():
            results = module(*(torch.from_numpy(feed[value.id]) for value in model.feeds))
        assert len(module.graph.nodes) > len(model.leaves()) / 2
        for value, actual in zip(model.outputs, results, strict=True):
            wanted = expected[value.id]
            # float32 through tens of layers: 1e-4 of the largest element; a wrong kernel is off by its order
            assert np.abs(wanted - actual.numpy()).max() <= 1e-4 * np.abs(wanted).max(), value.id
