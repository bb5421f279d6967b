"""Costs without a device, beside what one computes by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from tvm_models import product, workload

from eopt.ir.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture
def static():
    pytest.importorskip("tvm")
    from eopt.backends.tvm import static

    return static


def test_a_product_has_two_operations_for_each_of_its_terms(static):
    assert static.flops(product(16, 128, 64)[0].onnx) == pytest.approx(2 * 16 * 128 * 64, rel=0.02)


def test_a_kernel_that_is_called_twice_counts_twice(static):
    feed = {"a": np.zeros((16, 16), np.float32), "b": np.zeros((16, 16), np.float32)}
    nodes = [helper.make_node("MatMul", ["a", "b"], ["t"]), helper.make_node("MatMul", ["t", "b"], ["y"])]
    assert static.flops(workload(nodes, feed, {"y": "float32"}).onnx) == 2 * 2 * 16**3


def test_bytes_are_those_of_the_arguments(static):
    assert static.moved_bytes(product(16, 128, 64)[0].onnx) == 4 * (16 * 128 + 128 * 64 + 16 * 64)


def test_features_have_a_row_for_each_store(static):
    found = static.features(product()[0].onnx)
    assert found.shape[1] == static.FEATURES
    assert found.shape[0] >= 2
    assert np.isfinite(found).all()
    assert found.any()


def test_features_of_a_gpu_need_no_gpu(static):
    found = static.features(product(64, 128, 64)[0].onnx, {"tag": "nvidia/nvidia-h100"})
    assert found.shape[1] == static.FEATURES


def test_what_tvm_cannot_import_is_refused(static):
    feed = {"x": np.zeros((2, 2), np.float32)}
    with pytest.raises(InputError, match="Hardmaxx"):
        static.flops(workload([helper.make_node("Hardmaxx", ["x"], ["y"])], feed, {"y": "float32"}).onnx)
