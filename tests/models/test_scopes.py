"""Module trees of real architectures: from exporter metadata, from weight names, and from the bare graph."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import onnx
import pytest

sys.path.append(str(Path(__file__).parent))  # helpers beside this file

import zoo

from eopt.ir import onnx_io
from eopt.ir.model import Model
from eopt.ir.node import Region
from eopt.ir.repeats import repeats

pytestmark = pytest.mark.slow

LAYERS = {  # names of the modules that repeat, how many of them
    "bert": {"layer": 2}, "minilm": {"layer": 6}, "gpt2": {"h": 2}, "llama": {"layers": 2}, "vit": {"layers": 2},
    "resnet": {"stages": 2}, "mobilenet": {"layer": 16}, "t5": {"block": 4}, "whisper": {"layers": 4},
    "clip": {"layers": 4}, "mixture": {"layers": 2},
}  # fmt: skip


def anonymous(path: Path, parameters: bool) -> onnx.ModelProto:
    """The model as a converter leaves it: nodes without names and metadata, parameters renamed if asked for."""
    model = onnx.load(path)
    renamed = {w.name: f"onnx::W_{i}" for i, w in enumerate(model.graph.initializer)} if parameters else {}
    for weight in model.graph.initializer:
        weight.name = renamed.get(weight.name, weight.name)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.name = ""
        inputs = [renamed.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
    return model


def instances(model: Model) -> Counter[str]:
    """Modules named `stem.NUMBER`, pieces of one module counted once."""
    paths = {re.sub(r"#\d+", "", f"{model.path(region.uid)}/{region.name}") for region in model.regions()}
    found = (path.rpartition("/")[2].rpartition(".") for path in paths)
    return Counter(stem for stem, _, number in found if stem and number.isdigit())


@pytest.mark.parametrize("name", LAYERS)
def test_layers_from_metadata(name: str) -> None:
    model = onnx_io.read(zoo.zoo_model(name))
    for stem, count in LAYERS[name].items():
        assert instances(model)[stem] == count
    inside = sum(bool(model.path(op.uid)) for op in model.leaves())
    assert inside >= 0.95 * len(model.leaves())


@pytest.mark.parametrize("name", ["bert", "minilm", "gpt2", "vit", "clip", "whisper", "t5", "mixture", "llama"])
def test_layers_of_a_bare_transformer(name: str) -> None:
    """Nothing is left but the dataflow: blocks of equal kind, each stage as often as the architecture has layers."""
    model = onnx_io.from_proto(anonymous(zoo.zoo_model(name), parameters=True))
    sizes = [sum(1 for _ in region.leaves()) for region in model.regions() if region.name.startswith("block.")]
    layers = [size for size in sizes if size > 10]  # two convolutions in a row are a repeat as well
    assert len(layers) == sum(LAYERS[name].values())
    assert sum(layers) >= 0.6 * len(model.leaves()), "the rest is embeddings, the mask and the head"


@pytest.mark.parametrize("name", ["minilm", "mobilenet"])
def test_layers_from_weight_names(name: str) -> None:
    model = onnx_io.from_proto(anonymous(zoo.zoo_model(name), parameters=False))
    for stem, count in LAYERS[name].items():
        assert instances(model)[stem] == count


@pytest.mark.parametrize("name", ["minilm", "bert", "vit", "clip"])
def test_repeated_layers_have_one_description(name: str) -> None:
    model = onnx_io.read(zoo.zoo_model(name))
    groups = [[model.node(uid) for uid in uids] for uids in repeats(model).values()]
    named = [group for group in groups if isinstance(group[0], Region) and re.fullmatch(r"layers?\.\d+", group[0].name)]
    layers = [len(group) for group in named]
    assert sum(layers) == sum(LAYERS[name].values())
