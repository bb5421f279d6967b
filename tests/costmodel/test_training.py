"""A step of training: which gradients are computed, what an update moves, and that the parts add up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.backends import executor, target
from eopt.costmodel import training
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Interval, Kernel
from eopt.costmodel.run import Rates, training_run
from eopt.costmodel.training import BACKWARD, FORWARD, OPTIMIZER, OPTIMIZERS, backward, gradients, update_kernel
from eopt.costmodel.tree import Situation, batch_dims, bindings_for, price
from eopt.ir.text_parse import loads

GOLDEN = Path(__file__).parents[1] / "rewrites"
A100 = target.load("nvidia-a100-80gb-sxm")
TORCH = executor.load("torch")

MLP = """
model {"": 20}
input x: float32[batch, 64]
weight w: float32[64, 128] = normal(1)
weight v: float32[128, 32] = normal(2)
weight half: float32[] = [0.5]
a: float32[batch, 128] = MatMul(x, w)
b: float32[batch, 128] = Relu(a)
c: float32[batch, 32] = MatMul(b, v)
y: float32[batch, 32] = Mul(c, half)
output y: float32[batch, 32]
"""


class Listing(Prior):
    """Remembers which kernels it is asked about."""

    def __init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def query(self, kernel, *where):
        self.asked.append(kernel)
        return super().query(kernel, *where)

    __hash__ = object.__hash__  # none is like another, so that no answer is remembered
    __eq__ = object.__eq__


def step(model, batch: int = 8, model_of_cost=None, optimizer: str = "adamw"):
    bindings = bindings_for(model, batch if batch_dims(model) else None, {})
    situation = Situation(A100, TORCH, bindings, model_of_cost or Prior(), training.TRAINING, optimizer)
    return price(model, situation)


def names(model, part) -> list[str]:
    return sorted(model.index.op(uid).outputs[0].id for uid in part)


def test_nothing_runs_backward_that_no_weight_hangs_on_and_the_data_gets_no_gradient():
    listing, model = Listing(), loads(MLP)
    priced = step(model, 8, listing)
    assert names(model, priced.parts[BACKWARD]) == ["a", "b", "c", "y"]
    forward = [(1, 8, 128, 64), (1, 8, 32, 128)]
    first, second = [(1, 64, 128, 8)], [(1, 8, 128, 32), (1, 128, 32, 8)]  # of the weight alone; of both
    assert [kernel.gemm for kernel in listing.asked if kernel.gemm] == [*forward, *first, *second]


def test_without_weights_there_is_nothing_to_train():
    model = loads('model {"": 20}\ninput x: float32[8]\ny: float32[8] = Relu(x)\noutput y: float32[8]')
    priced = step(model)
    assert (priced.parts[BACKWARD], priced.parts[OPTIMIZER]) == ({}, {})
    assert priced.energy_j == price(model, replace(priced.situation, phase=FORWARD)).energy_j


def test_what_no_output_hangs_on_gets_no_gradient():
    model = loads(MLP.replace("output y", "z: float32[batch, 128] = Exp(b)\noutput y"))
    assert "z" not in names(model, step(model).parts[BACKWARD])


def test_shapes_scalars_and_statistics_are_not_trained():
    model = loads(
        'model {"": 20}\ninput x: float32[4, 16, 8, 8]\n'
        + "".join(f"weight {name}: float32[16] = normal(1)\n" for name in ("s", "b", "mean", "var"))
        + "weight one: float32[] = [1]\nweight shape: int64[2] = [4, 1024]\n"
        "n: float32[4, 16, 8, 8] = BatchNormalization(x, s, b, mean, var)\n"
        "a: float32[4, 16, 8, 8] = Add(n, one)\ny: float32[4, 1024] = Reshape(a, shape)\noutput y: float32[4, 1024]"
    )
    weights = gradients(model) & set(model.weights)
    assert weights == {"s", "b"}


def test_a_gradient_does_not_flow_through_a_shape():
    model = loads(
        'model {"": 20}\ninput x: float32[4, 8]\nweight w: float32[8, 8] = normal(1)\n'
        "a: float32[4, 8] = MatMul(x, w)\ns: int64[2] = Shape(a)\ny: float32[4, 8] = Expand(x, s)\n"
        "output y: float32[4, 8]"
    )
    assert gradients(model) == frozenset()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.eopt")), ids=lambda path: path.stem)
def test_parts_add_up_and_a_step_costs_more_than_an_execution(path):
    model = loads(path.read_text().partition("---\n")[0])
    others = {dim: 16 for feed in model.feeds for dim in feed.shape if isinstance(dim, str)}
    situation = Situation(A100, TORCH, bindings_for(model, None, others), Prior(), training.TRAINING)
    priced, forward = price(model, situation), price(model, replace(situation, phase=FORWARD))
    parts = [cost for part in priced.parts.values() for cost in part.values()]
    assert priced.energy_j.mid == pytest.approx(sum(cost.energy_j.mid for cost in parts))
    assert priced.latency_s.hi == pytest.approx(sum(cost.latency_s.hi for cost in parts))
    assert priced.energy_j.mid >= forward.energy_j.mid
    assert priced.latency_s.mid >= forward.latency_s.mid
    shared = [share for part in priced.part_shares.values() for share in part.values()]
    assert sum(joules for joules, _ in shared) == pytest.approx(priced.energy_j.mid)
    assert priced.part_shares[FORWARD].keys() == priced.shares.keys()


# -- the update


@pytest.mark.parametrize(("dtype", "name", "nbytes"), [
    ("float32", "adamw", 28), ("float32", "sgd", 20), ("bfloat16", "adamw", 28), ("float16", "sgd", 20),
    ("float64", "sgd", 32),
])  # fmt: skip
def test_bytes_of_an_update_by_hand(dtype, name, nbytes):
    """float32: read parameter, gradient and states, write parameter and states; bfloat16 keeps a float32 copy."""
    model = loads(MLP.replace("float32", dtype))
    kernel = update_kernel(model, ["w", "v"], OPTIMIZERS[name])
    count = 64 * 128 + 128 * 32
    assert kernel.activation_bytes == nbytes * count
    assert kernel.elements == count


def test_a_tied_weight_is_updated_once_by_whom_reads_it_first():
    model = loads(
        'model {"": 20}\ninput x: int64[4]\n'
        "weight w: float32[1000, 64] = normal(1)\nweight v: float32[64, 64] = normal(2)\n"
        "e: float32[4, 64] = Gather(w, x)\nh: float32[4, 64] = MatMul(e, v)\n"
        "t: float32[64, 1000] = Transpose(w) {perm: [1, 0]}\ny: float32[4, 1000] = MatMul(h, t)\n"
        "output y: float32[4, 1000]"
    )
    listing = Listing()
    priced = step(model, 1, listing)
    assert names(model, priced.parts[OPTIMIZER]) == ["e", "h"]
    (whole,) = [kernel for kernel in listing.asked if kernel.name == OPTIMIZER]
    assert whole.elements == 1000 * 64 + 64 * 64
    shares = {model.index.op(uid).outputs[0].id: cost.energy_j.mid for uid, cost in priced.parts[OPTIMIZER].items()}
    assert shares["e"] / shares["h"] == pytest.approx(1000 / 64)
    cost = Prior().query(whole, A100, TORCH)
    assert sum(shares.values()) == pytest.approx(cost.energy_j.mid)


def test_a_rule_with_fewer_states_is_cheaper():
    model = loads(MLP)
    assert step(model, optimizer="sgd").energy_j.mid < step(model).energy_j.mid


# -- kernels


def test_gradients_of_a_convolution_keep_its_extents():
    conv = Kernel("Conv", (), 8.0, 4.0, (1, 1 << 20, 64, 576), 64 << 20)
    assert [kernel.gemm for kernel in backward(conv)] == [conv.gemm] * 2
    assert all(kernel.elements == conv.elements for kernel in backward(conv))


def test_a_normalisation_keeps_its_rows_and_reads_twice_for_its_weights():
    norm = Kernel("LayerNormalization", (), 8.0, 0.0, None, 1024, row=64)
    (behind,) = backward(norm)
    assert (behind.row, behind.activation_bytes) == (64, 20.0)


@given(first=st.booleans(), other=st.booleans())
def test_a_product_has_as_many_gradients_as_are_asked_for(first, other):
    product = Kernel("MatMul", (), 8.0, 4.0, (1, 2, 3, 4), 6)
    assert len(backward(product, (first, other))) == first + other
    norm = Kernel("LayerNormalization", (), 8.0, 0.0, None, 1024, row=64)
    assert len(backward(norm, (first, other))) == (first or other)


# -- a run

FIGURE = st.floats(1e-6, 1e6)


@given(FIGURE, FIGURE, st.integers(1, 10**9))
def test_a_run_is_linear_in_its_steps(seconds, joules, steps):
    one, many = (
        training_run(Interval(seconds, seconds / 2, seconds * 2), Interval(joules, joules, joules), n, Rates(0.3, 400))
        for n in (1, steps)
    )
    assert many.duration_s.hi == pytest.approx(steps * one.duration_s.hi)
    assert many.bill.money.mid == pytest.approx(steps * one.bill.money.mid)
    assert many.bill.co2e_kg.mid == pytest.approx(many.energy_j.mid / 3.6e6 * 0.4)


def test_what_nobody_priced_is_not_0():
    bill = training_run(Interval(1, 1, 1), Interval(1, 1, 1), 5, Rates()).bill
    assert (bill.money, bill.co2e_kg) == (None, None)
