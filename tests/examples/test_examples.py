"""The committed example models do what examples/README.md says."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("cnn", "vit")
SCOPES = "pkg.torch.onnx.name_scopes"

each = pytest.mark.parametrize("name", NAMES)


@cache
def arrays(name: str, file: str) -> dict[str, np.ndarray]:
    with np.load(EXAMPLES / name / file) as data:
        return dict(data)


@cache
def model(name: str) -> onnx.ModelProto:
    return onnx.load(EXAMPLES / name / "model.onnx")


def hashes(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@each
def test_top1_on_the_held_out_images(name: str) -> None:
    held_out = arrays(name, "heldout.npz")
    session = onnxruntime.InferenceSession(EXAMPLES / name / "model.onnx", providers=["CPUExecutionProvider"])
    predicted = np.concatenate(
        [session.run(["logits"], {"image": part})[0].argmax(1) for part in np.array_split(held_out["image"], 8)]
    )
    top1 = float((predicted == held_out["labels"]).mean())
    assert top1 >= 0.97
    # the figure written into the file; one image of 360 may flip with the order of float32 sums
    (noted,) = [pair.value for pair in model(name).metadata_props if pair.key == "eopt.example.top1"]
    assert top1 == pytest.approx(float(noted), abs=1 / len(predicted) + 1e-4)


@each
def test_names_and_shapes(name: str) -> None:
    graph = model(name).graph
    (image,), (logits,) = graph.input, graph.output
    assert (image.name, dims(image)) == ("image", ["batch", 1, 64, 64])
    assert (logits.name, dims(logits)) == ("logits", ["batch", 10])


@each
def test_model_is_one_small_file(name: str) -> None:
    onnx.checker.check_model(model(name), full_check=True)
    assert (EXAMPLES / name / "model.onnx").stat().st_size <= 8_000_000
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model(name).graph.initializer)


@each
def test_every_node_knows_its_module(name: str) -> None:
    strays = {
        node.op_type for node in model(name).graph.node if SCOPES not in {pair.key for pair in node.metadata_props}
    }
    assert strays <= {"Split"}  # what the exporter's constant folder makes of torch's chunk has no scope


def test_operators_are_as_the_module_wrote_them() -> None:
    cnn, vit = (Counter(node.op_type for node in model(name).graph.node) for name in NAMES)
    assert cnn["BatchNormalization"] == cnn["Conv"] == 27
    assert vit["Softmax"] == vit["Gelu"] == 5
    assert vit["LayerNormalization"] == 11


@each
def test_calibration_and_held_out_images_are_disjoint(name: str) -> None:
    calibration, held_out = arrays(name, "calibration.npz"), arrays(name, "heldout.npz")
    assert set(calibration) == {"image"} and set(held_out) == {"image", "labels"}
    assert calibration["image"].shape == (128, 1, 64, 64)
    assert held_out["image"].shape == (360, 1, 64, 64)
    assert not hashes(calibration["image"]) & hashes(held_out["image"])


@each
def test_images_are_float32_between_0_and_1(name: str) -> None:
    for file in ("calibration.npz", "heldout.npz"):
        images = arrays(name, file)["image"]
        assert images.dtype == np.float32
        assert images.min() >= 0 and images.max() <= 1
