"""int8 convolutions gather the window of every output place by place; how much that is depends on the engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from immutables import Map

from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.costmodel import tree
from eopt.costmodel.features import windows
from eopt.costmodel.prior import Prior
from eopt.costmodel.tree import Situation
from eopt.ir import onnx_io
from eopt.ir.ops import view

CPU = targets.load("cpu-amd-epyc-9004")
ORT = executors.load("onnxruntime")


def conv(channels: int, size: int, kernel: int, stride: int = 1, group: int = 1):
    graph = f"(float[2,{channels},{size},{size}] x) => (float[2,32,m,m] y) {{ y = Conv<strides=[{stride},{stride}], group={group}>(x, w) }}"  # noqa: E501
    proto = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> g {graph}')
    weight = np.zeros((32, channels // group, kernel, kernel), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return onnx_io.from_proto(onnx.shape_inference.infer_shapes(proto))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(8, 3, 1, 2 * 36 * 9), (9, 3, 2, 2 * 16 * 9), (8, 1, 1, 0), (8, 8, 1, 2 * 64)],
)
def test_windows_are_output_pixels_times_places_of_the_kernel(size: int, kernel: int, stride: int, expected: int):
    model = conv(3, size, kernel, stride)
    assert windows(view(model, model.leaves()[0], Map())) == expected


def quantised(model):
    """Float in, float out, int8 between."""
    from eopt.passes.quant import candidates, placement
    from eopt.passes.quant.bias import Means
    from eopt.passes.quant.build import Builder
    from eopt.passes.quant.calibrate import Calibration
    from eopt.passes.quant.scheme import Activation, WeightType, scheme

    anchors, _ = candidates.find(model, ("Conv",), ())
    clusters = placement.clusters(model, anchors)
    ranges = {name: (-1.0, 1.0) for cluster in clusters for name in cluster.tensors}
    numbers = scheme(WeightType.INT8, Activation.AUTO, CPU, ORT)
    return Builder(model, Calibration(ranges, {}), numbers, True, Means(model, ())).quantised(clusters)


@pytest.mark.parametrize(("channels", "pays"), [(1, False), (3, False), (64, True)])
def test_first_layers_of_few_channels_do_not_pay_on_onnxruntime(channels: int, pays: bool):
    model = conv(channels, 112, 3)
    situation = Situation(CPU, ORT)
    difference = tree.compare(model, quantised(model), situation)
    assert (difference.after_j < difference.before_j) is pays


def test_engines_without_the_figure_are_priced_by_arithmetic_and_traffic():
    model = quantised(conv(3, 112, 3))
    free = replace(ORT, name="another", int8_window_s=0.0)
    slow, quick = (tree.price(model, Situation(CPU, engine, cost_model=Prior())).energy_j.mid for engine in (ORT, free))
    assert quick < slow
