"""Gradients of lowered models: those of the torch original, numeric differences, and the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from eopt.backends import data
from eopt.ir import onnx_io, torch_io
from eopt.ir.analysis import index_limits
from eopt.ir.specialize import specialize

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
torch = pytest.importorskip("torch")


@pytest.mark.parametrize("example", ["cnn", "vit"])
def test_gradients_are_numeric_differences(example):
    from eopt.backends.torch_fx import lower

    model = specialize(onnx_io.read(EXAMPLES / example / "model.onnx"), {"batch": 2})
    module = lower(model, trainable=True).double()
    (feed,) = data.synthetic(model.feeds, index_limits(model), seed=0).batches(model.feeds)
    inputs = [torch.from_numpy(feed[value.id]).double() for value in model.feeds]
    learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
    learnt = learnt[:: len(learnt) // 8]  # each costs two runs in float64

    def loss():
        return module(*inputs)[0].square().sum()

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    for parameter in learnt:
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        step = 1e-6 / direction.norm()
        slopes = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
                slopes.append(sign * loss().item())
                parameter -= sign * step * direction
        numeric, exact = sum(slopes) / (2 * float(step)), (parameter.grad * direction).sum().item()
        # float64, steps of 1e-6: 1e-16 / 1e-6 of rounding and 1e-12 of curvature, on values of order 1 to 100; a kink
        # of a Relu within the step would show as more, and there is none at this seed
        assert abs(numeric - exact) <= 1e-4 * max(abs(exact), parameter.grad.norm().item(), 1e-3)


@pytest.fixture(scope="module")
def bert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32,
    )  # fmt: skip

    class Text(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = transformers.BertModel(config, add_pooling_layer=False)

        def forward(self, input_ids, attention_mask):
            return self.bert(input_ids, attention_mask=attention_mask)[0]

    original = Text().eval()
    with torch.no_grad():  # biases of zero and scales of one would be one shared weight in the export
        for parameter in original.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    example = {name: torch.ones(2, 16, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    dims = {name: {0: "batch", 1: "sequence"} for name in example}
    return original, torch_io.from_module(original, example, dims)


def counterpart(weight, originals):
    """The original parameter with these values and whether it was transposed by the exporter."""
    for name, parameter in originals.items():
        if parameter.shape == weight.shape and torch.equal(parameter, weight):
            return name, False
        if parameter.dim() == 2 and parameter.T.shape == weight.shape and torch.equal(parameter.T, weight):
            return name, True
    return None, False


def test_gradients_are_those_of_the_original(bert):
    from eopt.backends.torch_fx import lower

    original, model = bert
    module = lower(model, trainable=True)
    # not the shape of the export, and no token 0: torch keeps the gradient of a padding row to itself, ONNX has no such
    ids, mask = torch.randint(1, 100, (3, 12)), torch.ones(3, 12, dtype=torch.long)
    mask[1, 9:] = 0
    expected, (actual,) = original(ids, mask), module(ids, mask)
    assert torch.allclose(expected, actual, atol=1e-5), "float32, two layers of order 1"
    weighting = torch.randn_like(expected)
    (expected * weighting).sum().backward()
    (actual * weighting).sum().backward()
    originals, matched = dict(original.named_parameters()), set()
    for parameter in (parameter for parameter in module.parameters() if parameter.requires_grad):
        name, transposed = counterpart(parameter, originals)
        assert name is not None, "every learnable weight is one of the original"
        matched.add(name)
        want = originals[name].grad.T if transposed else originals[name].grad
        # sums of some hundred float32 products in another order; gradients of key biases are zero but for rounding
        largest = max(float(want.abs().max()), 1e-2)
        assert float((parameter.grad - want).abs().max()) <= 1e-4 * largest, name
    # the second row of token types is never read, but belongs to the same parameter
    assert matched == set(originals)


def test_a_trained_module_goes_back(bert):
    from eopt.backends.torch_fx import lower, trained

    _, model = bert
    module = lower(model, trainable=True)
    names = module.meta["weight_names"]
    ids = torch.randint(0, 100, (2, 8))
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.01)
    module(ids, torch.ones_like(ids))[0].square().mean().backward()
    optimizer.step()
    back = trained(model, module)
    parameters = dict(module.named_parameters())
    changed = 0
    for attribute, name in names.items():
        assert np.array_equal(back.weights.array(name), parameters[attribute].detach().numpy())
        changed += not np.array_equal(back.weights.array(name), model.weights.array(name))
    assert changed > 20
    before, after = module(ids, torch.ones_like(ids))[0], lower(back)(ids, torch.ones_like(ids))[0]
    assert torch.equal(before.detach(), after)
    assert back.leaves() == model.leaves()


def test_named_weights_only(bert):
    from eopt.backends.torch_fx import lower

    _, model = bert
    chosen = "bert.embeddings.word_embeddings.weight"
    module = lower(model, trainable={chosen})
    learnt = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    assert [module.meta["weight_names"][name] for name in learnt] == [chosen]


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.FLOAT8E4M3FN])
def test_quantisation_passes_gradients_straight_through(kind):
    from eopt.backends.torch_fx import lower

    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=kind),
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        helper.make_node("Mul", ["d", "w"], ["y"]),
    ]
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])
    arrays = {"s": np.array(0.5, "f"), "w": np.arange(1, 5, dtype="f")}
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [info("x")], [info("y")], weights)
    model = onnx_io.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    x = torch.tensor([0.3, -1.2, 1e4, 2.0], requires_grad=True)
    trainable, plain = lower(model, trainable=True), lower(model)
    (y,) = trainable(x)
    assert torch.equal(y, plain(x.detach())[0]), "the forward pass is the exact one"
    assert trainable.meta["kernels"]["QuantizeLinear:q"].kernel == "eopt.FakeQuantize"
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 0.0, 4.0], "the weight inside of the range, nothing outside"
    assert torch.equal(trainable.w.grad, y.detach() / torch.arange(1, 5))
