"""Random models through every set of rules: rewritten equals original, and running again changes nothing.

A model is a random surrounding with the motifs that the rules look for in it: commuted, nested otherwise, or with one
thing wrong. All values stay near 1, as each step ends in something bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import pi, sqrt
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io, onnx_out, text
from eopt.ir.model import Model
from eopt.ir.verify import verify
from eopt.passes import tidy
from eopt.passes.base import Context
from eopt.passes.fuse import RULES
from eopt.passes.pipeline import Pipeline
from eopt.passes.rewrite import apply_rules

BATCH, ROWS, COLUMNS = 2, 3, 4
Shape = tuple[int, ...]
randoms = st.randoms(use_true_random=False)


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: Shape


class Builder:
    """Nodes in order, and the tensors they may read."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs = [Tensor("x", (BATCH, ROWS, COLUMNS)), Tensor("z", (BATCH, ROWS, COLUMNS))]
        self.pool = list(self.inputs)
        self.wide: list[Tensor] = []
        self.count = 0
        self.opset = rng.choice([18, 20, 23])
        self.batch = rng.choice(["batch", BATCH])

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def op(self, kind: str, inputs: Sequence[Tensor | str], shape: Shape | None = None, **attrs: Any) -> Tensor:
        names = [item.name if isinstance(item, Tensor) else item for item in inputs]
        shapes = [item.shape for item in inputs if isinstance(item, Tensor)]
        usual = np.broadcast_shapes(*shapes) if kind in ("Div", "Sub", "Pow", "Where") else shapes[0]
        made = Tensor(self.name(), usual if shape is None else shape)
        scope = self.rng.choice(["", "/a", "/a/b", "/c"])
        self.nodes.append(helper.make_node(kind, names, [made.name], name=f"{scope}/{made.name}", **attrs))
        return made

    def constant(self, array: Any, dtype: str = "f") -> Tensor:
        """An initialiser or a Constant node."""
        tensor = numpy_helper.from_array(np.asarray(array, dtype), self.name())
        if self.rng.random() < 0.8:
            self.weights.append(tensor)
        else:
            self.nodes.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
        return Tensor(tensor.name, np.shape(array))

    def number(self, value: float, wrong: bool = False) -> Tensor:
        """A scalar, now and then of a rank that broadcasts; `wrong` makes it another one."""
        shape = self.rng.choices([(), (1,), (1, 1, 1, 1)], [12, 3, 1])[0]
        return self.constant(np.full(shape, value * (1.3 if wrong else 1.0)))

    def vector(self, extent: int) -> Tensor:
        return self.constant(np.random.default_rng(self.rng.randrange(99)).uniform(0.5, 1.5, extent))

    def two(self, kind: str, left: Tensor, right: Tensor) -> Tensor:
        """A commutative operator, either way round."""
        both = [left, right] if self.rng.random() < 0.5 else [right, left]
        return self.op(kind, both, np.broadcast_shapes(left.shape, right.shape))

    def join(self, kind: str, items: list[Tensor]) -> Tensor:
        """A commutative operator over several operands, in any order and nesting."""
        items = list(items)
        while len(items) > 1:
            self.rng.shuffle(items)
            items.append(self.two(kind, items.pop(), items.pop()))
        return items[0]

    def weight(self, shape: Shape) -> Tensor:
        return self.constant(np.random.default_rng(self.rng.randrange(99)).normal(size=shape) / sqrt(shape[-1]))

    def pick(self) -> Tensor:
        return self.rng.choice(self.pool)

    def finish(self) -> Model:
        """Outputs are some of the values, in the middle too; what no output needs is dead."""
        made = [tensor for tensor in self.pool if tensor not in self.inputs] or [self.op("Relu", [self.inputs[0]])]
        hidden = ("Constant", "SplitToSequence", "Dropout")
        inner = [name for node in self.nodes if node.op_type not in hidden for name in node.output]
        names = dict.fromkeys(t.name for t in (made[-1], *self.rng.sample(made, min(2, len(made))), *self.wide))
        if self.rng.random() < 0.3:
            names[self.rng.choice(inner)] = None
        info = lambda t: helper.make_tensor_value_info(t.name, TensorProto.FLOAT, [self.batch, *t.shape[1:]])
        outputs = [helper.make_empty_tensor_value_info(name) for name in names]
        graph = helper.make_graph(self.nodes, "g", [info(t) for t in self.inputs], outputs, self.weights)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        typed = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
        del typed.graph.value_info[:]  # only outputs have to be declared
        return onnx_io.from_proto(typed)


# -- motifs: each takes a tensor (batch, rows, columns) and gives one of the same shape; `wrong` spoils one constant


def gelu(b: Builder, x: Tensor, wrong: int) -> Tensor:
    factor = b.number(1 / sqrt(2), wrong == 1)
    inner = b.two("Mul", x, factor) if b.rng.random() < 0.5 else b.op("Div", [x, b.number(sqrt(2), wrong == 1)])
    shifted = b.two("Add", b.op("Erf", [inner]), b.number(1.0, wrong == 2))
    return b.join("Mul", [x, shifted, b.number(0.5, wrong == 3)])


def gelu_tanh(b: Builder, x: Tensor, wrong: int) -> Tensor:
    factor, cubic = b.number(sqrt(2 / pi), wrong == 1), b.number(0.044715, wrong == 2)
    if b.rng.random() < 0.5:
        cube = b.op("Pow", [x, b.number(3.0)]) if b.rng.random() < 0.5 else b.join("Mul", [x, x, x])
        inner = b.two("Mul", factor, b.two("Add", x, b.two("Mul", cube, cubic)))
    else:
        inner = b.join("Mul", [x, factor, b.two("Add", b.number(1.0), b.join("Mul", [x, x, cubic]))])
    shifted = b.two("Add", b.op("Tanh", [inner]), b.number(1.0))
    return b.join("Mul", [x, shifted, b.number(0.5, wrong == 3)])


def _mean(b: Builder, x: Tensor, wrong: bool) -> Tensor:
    axis = len(x.shape) - 2 if wrong else b.rng.choice([-1, len(x.shape) - 1])
    shape = tuple(1 if place == axis % len(x.shape) else dim for place, dim in enumerate(x.shape))
    return b.op("ReduceMean", [x, b.constant([axis], "q")], shape, keepdims=1)


def _over_root(b: Builder, x: Tensor, factors: list[Tensor], wrong: int) -> Tensor:
    """factors / sqrt(mean(x^2) + e); e is large, so that a difference of roundings is not blown up to size 1."""
    square = b.two("Mul", x, x) if b.rng.random() < 0.5 else b.op("Pow", [x, b.number(2.0)])
    root = b.op("Sqrt", [b.two("Add", _mean(b, square, wrong == 1), b.number(5e-3))])
    if b.rng.random() < 0.3:
        return b.op("Div", [b.join("Mul", factors), root])
    inverse = b.op("Reciprocal", [root]) if b.rng.random() < 0.5 else b.op("Div", [b.number(1.0), root])
    return b.join("Mul", [*factors, inverse])


def rms_norm(b: Builder, x: Tensor, wrong: int) -> Tensor:
    return _over_root(b, x, [x] if b.rng.random() < 0.3 else [x, b.vector(x.shape[-1])], wrong)


def layer_norm(b: Builder, x: Tensor, wrong: int) -> Tensor:
    centred = b.op("Sub", [x, _mean(b, x, wrong == 2)])
    scaled = _over_root(b, centred, [centred, b.vector(x.shape[-1])], wrong)
    return b.two("Add", scaled, b.vector(x.shape[-1] - (wrong == 3) * (x.shape[-1] - 1)))


def attention(b: Builder, x: Tensor, wrong: int) -> Tensor:
    batch, rows, columns = x.shape
    heads = lambda t: b.op("Reshape", [t, b.constant([0, rows, 2, columns // 2], "q")], (batch, rows, 2, columns // 2))
    turn = lambda t, perm: b.op("Transpose", [t], tuple(t.shape[axis] for axis in perm), perm=perm)
    q, v = (turn(heads(b.op("MatMul", [x, b.weight((columns, columns))])), (0, 2, 1, 3)) for _ in range(2))
    keys = heads(b.op("MatMul", [x, b.weight((columns, columns))]))
    transposed = turn(keys, (0, 2, 3, 1)) if b.rng.random() < 0.5 else turn(turn(keys, (0, 2, 1, 3)), (0, 1, 3, 2))
    scale = [] if b.rng.random() < 0.3 else [b.constant(b.rng.choice([0.7, -0.7 if wrong == 1 else 0.4]))]
    side = b.rng.randrange(3)
    q = b.join("Mul", [q, *scale]) if side == 0 else q
    transposed = b.join("Mul", [transposed, *scale]) if side == 1 else transposed
    scores = b.op("MatMul", [q, transposed], (batch, 2, rows, rows))
    scores = b.join("Mul", [scores, *scale]) if side == 2 else scores
    if b.rng.random() < 0.7:
        shape = b.rng.choice(
            [(1, 1, rows, rows), (1, 2, rows, rows), (rows, rows), (1, 1, 1, rows), (rows,), (rows, 1)]
        )
        scores = b.two("Add", scores, b.weight(shape))
    weights = b.op("Softmax", [scores], axis=2 if wrong == 2 else -1)
    if b.rng.random() < 0.3:
        weights = b.op("Where", [b.op("IsNaN", [weights]), b.constant(0.1 if wrong == 3 else 0.0), weights])
    joined = turn(b.op("MatMul", [weights, v], v.shape), (0, 2, 1, 3))
    return b.op("Reshape", [joined, b.constant([0, rows, columns], "q")], x.shape)


def conv_batchnorm(b: Builder, x: Tensor, wrong: int) -> Tensor:
    bias = [b.vector(ROWS)] if b.rng.random() < 0.5 else []
    made = b.op("Conv", [x, b.weight((ROWS, ROWS, 1)), *bias], kernel_shape=[1])
    made = b.op("Relu", [made]) if wrong == 1 else made
    return b.op("BatchNormalization", [made, *(b.vector(ROWS) for _ in range(4))])


def gemm(b: Builder, x: Tensor, wrong: int) -> Tensor:
    flat = b.op("Reshape", [x, b.constant([-1, ROWS * COLUMNS], "q")], (BATCH, ROWS * COLUMNS))
    product = b.op("MatMul", [flat, b.weight((ROWS * COLUMNS, ROWS * COLUMNS))])
    added = b.two("Add", product, b.vector(1 if wrong == 1 else ROWS * COLUMNS))
    return b.op("Reshape", [added, b.constant([-1, ROWS, COLUMNS], "q")], x.shape)


# -- surroundings


def unary(b: Builder, x: Tensor, wrong: int) -> Tensor:
    return b.op(b.rng.choice(["Relu", "Neg", "Abs", "Identity", "Dropout", "Sigmoid", "Softplus", "Erf"]), [x])


def binary(b: Builder, x: Tensor, wrong: int) -> Tensor:
    return b.two(b.rng.choice(["Add", "Mul", "Max"]), x, b.pick())


def neutral(b: Builder, x: Tensor, wrong: int) -> Tensor:
    kind = b.rng.choice(["Mul", "Add"])
    return b.two(kind, x, b.number({"Mul": 1.0, "Add": 0.0}[kind] + wrong / 4))


def transposes(b: Builder, x: Tensor, wrong: int) -> Tensor:
    turned = b.op("Transpose", [x], (BATCH, COLUMNS, ROWS), perm=[0, 2, 1])
    middle = unary(b, turned, 0) if wrong else turned
    return b.op("Transpose", [middle], x.shape, perm=[0, 2, 1])


def views(b: Builder, x: Tensor, wrong: int) -> Tensor:
    wide = b.op("Unsqueeze", [x, b.constant([1], "q")], (BATCH, 1, ROWS, COLUMNS))
    same = b.op("Reshape", [wide, b.constant([-1, 1, ROWS, COLUMNS], "q")], wide.shape)
    return b.op("Squeeze", [same, b.constant([1], "q")], x.shape)


def dynamic(b: Builder, x: Tensor, wrong: int) -> Tensor:
    shape = b.op("Shape", [x], (3,))
    first = b.op("Slice", [shape, b.constant([0], "q"), b.constant([1], "q")], (1,))
    target = b.op("Concat", [first, b.constant([ROWS, COLUMNS], "q")], (3,), axis=0)
    return b.op("Reshape", [unary(b, x, 0), target], x.shape)


def parts(b: Builder, x: Tensor, wrong: int) -> Tensor:
    names = [b.name(), b.name()]
    if b.rng.random() < 0.5:
        b.nodes.append(helper.make_node("Split", [x.name, b.constant([1, 3], "q").name], names, axis=2))
        left, right = Tensor(names[0], (BATCH, ROWS, 1)), Tensor(names[1], (BATCH, ROWS, 3))
    else:
        size = b.rng.choice([2, [2, 2]])  # onnxruntime fails on uneven parts: it takes their extents for equal
        sequence = b.op("SplitToSequence", [x, b.constant(size, "q")], axis=-1)
        right = b.op("SequenceAt", [sequence, b.constant(0, "q")], (BATCH, ROWS, 2))
        left = b.op("SequenceAt", [sequence, b.constant(b.rng.choice([1, -1]), "q")], (BATCH, ROWS, 2))
    return b.op("Concat", [unary(b, left, 0), right], x.shape, axis=-1)


def reduced(b: Builder, x: Tensor, wrong: int) -> Tensor:
    kind = b.rng.choice(["ReduceMax", "ReduceMean", "ReduceSum"])
    return b.op("Sub", [x, b.op(kind, [x, b.constant([1], "q")], (BATCH, 1, COLUMNS))])


def casts(b: Builder, x: Tensor, wrong: int) -> Tensor:
    kind = b.rng.choice([TensorProto.FLOAT, TensorProto.DOUBLE])
    return b.op("CastLike", [b.op("Cast", [x], to=kind), b.pick()])


def folded(b: Builder, x: Tensor, wrong: int) -> Tensor:
    turned = b.op("Transpose", [b.weight((COLUMNS, COLUMNS))], perm=[1, 0])
    return b.op("MatMul", [x, turned], x.shape)


MOTIFS: tuple[Callable[[Builder, Tensor, int], Tensor], ...] = (
    gelu,
    gelu_tanh,
    rms_norm,
    layer_norm,
    attention,
    conv_batchnorm,
    gemm,
)
OTHERS = (unary, binary, neutral, transposes, views, dynamic, parts, reduced, casts, folded)


def build(rng: Random) -> Model:
    b = Builder(rng)
    for _ in range(rng.randint(1, 6)):
        motif = rng.choice(MOTIFS if rng.random() < 0.5 else OTHERS)
        made = motif(b, b.pick(), rng.choice([0, 0, 0, 1, 2, 3]))
        if made.shape != (BATCH, ROWS, COLUMNS):  # a scalar of higher rank made it larger, which has to stay
            b.wide.append(made)
            made = b.op("Reshape", [made, b.constant([-1, ROWS, COLUMNS], "q")], (BATCH, ROWS, COLUMNS))
        b.pool.append(b.op("Softsign", [made]) if rng.random() < 0.7 or motif in OTHERS else made)
        if rng.random() < 0.2:  # computed twice: a shared sub-expression
            again = onnx.NodeProto()
            again.CopyFrom(b.nodes[-1])
            again.output[0] = again.name = b.name()
            b.nodes.append(again)
            b.pool.append(replace(b.pool[-1], name=again.name))
    return b.finish()


# -- properties


def outputs(model: Model) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    feed = {value.id: rng.normal(size=(BATCH, ROWS, COLUMNS)).astype("f") for value in model.feeds}
    (found,) = OrtRunner(threads=1, optimize=False).run(model, [feed])
    return found


def assert_same_results(before: Model, after: Model) -> None:
    """Rounding is 1e-7 of values near 1; a norm of a difference of roundings multiplies it by 1/sqrt(e) = 14, and
    three of them stand in a row at most. A wrong constant is off by 0.01."""
    expected, actual = outputs(before), outputs(after)
    assert list(expected) == list(actual)
    for name, array in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape)
        size = max(1.0, float(np.abs(array).max()))
        np.testing.assert_allclose(actual[name], array, rtol=0, atol=1e-3 * size, err_msg=name, equal_nan=True)


def rewritten(model: Model, passes: str) -> Model:
    """`tidy` is the rules of simplify without onnxsim; the others are pipelines."""
    context = Context(OrtRunner())
    if passes == "tidy":
        outcome = apply_rules(model, tidy.RULES, context, "tidy")
        assert not outcome.notes
        return outcome.model.swept()
    return Pipeline.parse(passes).run(model, context).model


def operators(model: Model) -> list[str]:
    """Without order and modules: simplify numbers the instances of a module anew."""
    return sorted(text.format_op(op) for op in model.leaves())


def check(model: Model, passes: str) -> None:
    root, printed = model.root, text.dumps(model)
    after = rewritten(model, passes)
    assert model.root is root
    assert text.dumps(model) == printed
    verify(after)
    onnx.checker.check_model(onnx_out.to_proto(after), full_check=True)
    assert (after.inputs, [v.id for v in after.outputs]) == (model.inputs, [v.id for v in model.outputs])
    assert_same_results(model, after)
    if "," not in passes.partition("{")[0]:  # what fuse made may be equal, which a second simplify merges
        assert operators(rewritten(after, passes)) == operators(after)


SETS = ("simplify", "tidy", "fuse", "simplify,fuse", *(f"fuse{{only={name}}}" for name in RULES))
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.parametrize("passes", ["tidy", "fuse", "simplify,fuse"])
@settings(max_examples=40, derandomize=True, suppress_health_check=QUIET)
@given(rng=randoms)
def test_rewritten_equals_original(passes: str, rng: Random):
    check(build(rng), passes)


@pytest.mark.slow
@pytest.mark.parametrize("passes", SETS)
@settings(max_examples=400, suppress_health_check=QUIET)
@given(rng=randoms)
def test_rewritten_equals_original_many_times(passes: str, rng: Random):
    check(build(rng), passes)
