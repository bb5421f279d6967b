"""The torch.fx lowering computes what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eopt.backends import data
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io
from eopt.ir.analysis import index_limits
from eopt.ir.model import Model
from eopt.ir.specialize import specialize
from eopt.passes.base import Context
from eopt.passes.pipeline import Pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def largest_difference(model: Model) -> float:
    """Relative to the largest output, on seeded inputs."""
    torch = pytest.importorskip("torch")
    from eopt.backends.torch_fx import lower

    (feed,) = data.synthetic(model.feeds, index_limits(model), seed=0).batches(model.feeds)
    (expected,) = OrtRunner().run(model, [feed])
    actual = lower(model)(*(torch.from_numpy(feed[value.id]) for value in model.feeds))
    pairs = [(expected[value.id], tensor.numpy()) for value, tensor in zip(model.outputs, actual, strict=True)]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


@pytest.mark.parametrize("example", ["cnn", "vit"])
@pytest.mark.parametrize(
    ("passes", "tolerance"), [("simplify", 1e-4), ("simplify,fuse", 1e-4), ("simplify,fuse,cast", 2e-2)]
)
def test_examples(example, passes, tolerance):
    # float32 rounding through some 30 layers stays below 1e-4, float16 (11 bits) below 2e-2; a wrong kernel is far off
    model = specialize(onnx_io.read(EXAMPLES / example / "model.onnx"), {"batch": 4})
    compiled = Pipeline.parse(passes).run(model, Context(OrtRunner())).model
    assert largest_difference(compiled) < tolerance
