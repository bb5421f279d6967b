"""The torch front door: modules and Hugging Face directories arrive with their module tree and symbolic dims."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eopt.backends.ort import OrtRunner
from eopt.ir import torch_io, torch_program
from eopt.ir.errors import InputError, UsageError
from eopt.tools import frontdoor

pytestmark = pytest.mark.slow

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))

def make():
    torch.manual_seed(0)
    return Net(), (torch.zeros(2, 3, 16, 16),)

def graph():
    return torch.fx.symbolic_trace(make()[0].eval()), (torch.zeros(2, 3, 16, 16),)

def program():
    return torch.export.export(make()[0].eval(), (torch.zeros(2, 3, 16, 16),))

def wrong():
    return 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("onnxscript")
    (tmp_path / "my_nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_module_by_reference(here):
    model = frontdoor.load("my_nets:make")
    assert model.feeds[0].shape == ("batch", 3, 16, 16)
    assert {"stem", "head"} <= {region.name for region in model.regions()}
    feed = {model.feeds[0].id: np.ones((5, 3, 16, 16), "f")}
    (result,) = OrtRunner().run(model, [feed])
    assert next(iter(result.values())).shape == (5, 4)


def test_an_fx_graph_keeps_the_names_of_its_nodes(here):
    import torch

    spec = importlib.util.spec_from_file_location("nets", here / "my_nets.py")
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    graph, (example,) = nets.graph()
    assert [node.name for node in graph.graph.nodes][1:-1] == ["stem_0", "stem_1", "stem_2", "mean", "head"]
    model = torch_io.from_graph_module(graph, (example,))
    names = {op.op: torch_program.fx_names(model, op) for op in model.leaves()}
    # the exporter folds stem_0 and stem_1 into one Conv, which it calls by the second
    assert names == {"Conv": ("stem_1",), "Relu": ("stem_2",), "ReduceMean": ("mean",), "Gemm": ("head",)}
    assert model.feeds[0].shape == ("batch", 3, 16, 16)
    x = torch.rand(5, 3, 16, 16)
    (result,) = OrtRunner().run(model, [{model.feeds[0].id: x.numpy()}])
    assert np.allclose(next(iter(result.values())), graph(x).detach(), atol=1e-5), "float32, a handful of layers"


def test_a_replaced_operator_stands_for_all_its_fx_nodes(here):
    model = frontdoor.load("my_nets:graph")
    relu, mean = (next(op for op in model.leaves() if op.op == kind) for kind in ("Relu", "ReduceMean"))
    both = replace(mean, uid=0, origin=frozenset(), inputs=(relu.inputs[0], *mean.inputs[1:]))
    merged = model.replace([relu, mean], [both])
    assert torch_program.fx_names(merged, merged.producer(mean.output)) == ("stem_2", "mean")


@pytest.mark.parametrize("function", ["graph", "program"])
def test_other_things_a_reference_may_return(here, function):
    model = frontdoor.load(f"my_nets:{function}")
    assert {"stem", "head"} <= {region.name for region in model.regions()}
    assert all(torch_program.fx_names(model, op) for op in model.leaves())


def test_an_archive(here):
    import torch

    spec = importlib.util.spec_from_file_location("nets", here / "my_nets.py")
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    torch.export.save(nets.program(), here / "net.pt2")
    with pytest.raises(UsageError, match="--trust"):
        frontdoor.load(here / "net.pt2")
    model = frontdoor.load(here / "net.pt2", trust=True)
    assert ("linear",) in [torch_program.fx_names(model, op) for op in model.leaves()]


def test_references_that_lead_nowhere(here):
    with pytest.raises(UsageError, match="must return"):
        frontdoor.load("my_nets:wrong")
    with pytest.raises(UsageError, match="no attribute"):
        frontdoor.load("my_nets:gone")
    with pytest.raises(UsageError, match="No module named"):
        frontdoor.load("nobody:make")


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_a_hugging_face_directory(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config, cls = {
        "bert": (transformers.BertConfig(vocab_size=100, **small), transformers.BertModel),
        "vit": (transformers.ViTConfig(image_size=32, patch_size=8, **small), transformers.ViTModel),
    }[kind]
    cls(config).save_pretrained(tmp_path)
    model = frontdoor.load(tmp_path)
    expected = {"bert": ("batch", "sequence"), "vit": ("batch", 3, 32, 32)}[kind]
    assert model.feeds[0].shape == expected
    assert len({model.path(op.uid) for op in model.leaves()}) > 10, "two layers of several modules each"


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json here"):
        frontdoor.load(tmp_path)
