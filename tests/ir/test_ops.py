"""Operator specifications: hand-computed work, axes that are true, and nothing but our error on nonsense."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.ir.errors import InputError
from eopt.ir.node import Attrs
from eopt.ir.ops import OpView, Tensor, Unit, Work, level_bytes, spec, view
from eopt.ir.text_parse import loads
from eopt.ir.types import DType

F32, I8 = DType.FLOAT32, DType.INT8


def seen(op: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], dtype=F32, domain="", **attrs) -> OpView:
    tensors = tuple(Tensor(shape, dtype) for shape in inputs)
    return OpView(op, domain, tensors, (Tensor(output, dtype),), Attrs.of(**attrs))


def work(*args, **kwargs):
    looked_at = seen(*args, **kwargs)
    described = spec(looked_at.op, looked_at.domain)
    assert described is not None
    return described.work(looked_at)


def test_matmul():
    done = work("MatMul", [(8, 512, 1024), (1024, 4096)], (8, 512, 4096))
    assert done.flops == 2 * 8 * 512 * 1024 * 4096
    assert done.read_bytes == 4 * (8 * 512 * 1024 + 1024 * 4096)
    assert (done.write_bytes, done.unit, done.dtype) == (4 * 8 * 512 * 4096, Unit.MATRIX, F32)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64), st.integers(2, 5))
def test_matmul_flops_are_linear_in_every_dim(m, n, k, factor):
    base = work("MatMul", [(m, k), (k, n)], (m, n)).flops
    assert work("MatMul", [(m * factor, k), (k, n)], (m * factor, n)).flops == base * factor
    assert work("MatMul", [(m, k), (k, n * factor)], (m, n * factor)).flops == base * factor
    assert work("MatMul", [(m, k * factor), (k * factor, n)], (m, n)).flops == base * factor


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_b):
    weight = (32, 16) if trans_b else (16, 32)
    assert work("Gemm", [(4, 16), weight, (32,)], (4, 32), transB=trans_b).flops == 2 * 4 * 16 * 32


def test_convolutions():
    dense = work("Conv", [(2, 16, 10, 10), (32, 16, 3, 3)], (2, 32, 8, 8))
    assert (dense.flops, dense.unit) == (2 * 2 * 32 * 64 * 16 * 9, Unit.MATRIX)
    grouped = work("Conv", [(2, 16, 10, 10), (32, 4, 3, 3)], (2, 32, 8, 8), group=4)
    assert grouped.flops == dense.flops / 4
    depthwise = work("Conv", [(2, 16, 10, 10), (16, 1, 3, 3)], (2, 16, 8, 8), group=16)
    assert depthwise.unit is Unit.VECTOR


def test_integer_products_are_int8():
    assert work("MatMulInteger", [(4, 8), (8, 2)], (4, 2), dtype=I8).dtype is I8


def test_a_gather_reads_its_rows_not_the_table():
    table, ids = Tensor((30000, 384), F32), Tensor((2, 16), DType.INT64)
    looked_at = OpView("Gather", "", (table, ids), (Tensor((2, 16, 384), F32),), Attrs.of(axis=0))
    assert spec("Gather").work(looked_at).read_bytes == 2 * 16 * 384 * 4 + 2 * 16 * 8


def test_views_move_nothing():
    for op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"):
        done = work(op, [(4, 8)], (32,))
        assert (done.flops, done.read_bytes, done.write_bytes, done.unit) == (0, 0, 0, Unit.NONE)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention(causal):
    batch, heads, queries, size = 2, 4, 8, 16
    shape = (batch, heads, queries, size)
    done = work("Attention", [shape] * 3, shape, is_causal=causal)
    pairs = queries * (queries + 1) // 2 if causal else queries**2
    assert done.flops == batch * heads * pairs * (4 * size + 14)
    assert done.read_bytes == 3 * prod(shape) * 4, "scores stay on chip"


def test_sub_byte_types_count_fractions():
    assert Tensor((3,), DType.INT4).nbytes == 1.5


def test_einsum():
    assert work("Einsum", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), equation="bij,bjk->bik").flops == 2 * 2 * 3 * 4 * 5


@pytest.mark.parametrize(
    "looked_at",
    [
        seen("Softmax", [(4, 8)], (4, 8), axis=7),
        seen("Gather", [(4, 8)], (4, 8)),
        seen("Conv", [(2, 16, 8, 8)], (2, 16, 8, 8)),
        seen("Conv", [(2, 16, 8, 8), (16, 16, 3, 3)], (2, 16, 8, 8), group=0),
        seen("Einsum", [(2, 3)], (2, 3), equation="ij,jk->ik"),
        seen("MatMulNBits", [(2, 3)], (2, 3), domain="com.microsoft"),
        seen("MaxPool", [(2, 3, 8, 8)], (2, 3, 4, 4)),
    ],
    ids=lambda looked_at: looked_at.op,
)
def test_nonsense_ends_in_our_error(looked_at):
    described = spec(looked_at.op, looked_at.domain)
    with pytest.raises(InputError, match=looked_at.op):
        described.work(looked_at)
        described.axes(looked_at)


def test_symbolic_dims_are_bound_late():
    model = loads(
        'model {"": 20}\ninput x: float32[batch, 4]\ny: float32[batch, 4] = Relu(x)\noutput y: float32[batch, 4]'
    )
    (op,) = model.leaves()
    assert view(model, op, {}) is None
    assert view(model, op, {"batch": 3}).outputs[0].shape == (3, 4)


def priced(reread: float, held: float) -> Work:
    return Work(0.0, 30.0, 10.0, Unit.VECTOR, F32, reread, held)


def test_levels_inside_the_one_that_holds_it_move_what_is_used_again():
    """40 bytes are compulsory; 100 are used again 50 bytes apart, which the second level holds."""
    assert level_bytes(priced(100.0, 50.0), (10, 60, 1e9)) == (140.0, 140.0, 40.0)
    assert level_bytes(priced(100.0, 5.0), (10, 60, 1e9)) == (140.0, 40.0, 40.0)
    assert level_bytes(priced(100.0, 1e6), (10, 60, 1e9)) == (140.0, 140.0, 140.0)


BYTES = st.floats(0, 1e12)


@given(BYTES, BYTES, st.lists(BYTES, min_size=1, max_size=5))
def test_outer_levels_move_no_more_than_inner_ones(reread, held, capacities):
    moved = level_bytes(priced(reread, held), sorted(capacities))
    assert list(moved) == sorted(moved, reverse=True)
    assert moved[0] == 40.0 + reread
    assert moved[-1] >= 40.0


def test_a_product_sweeps_its_smaller_operand_once_for_every_panel_of_the_larger():
    done = work("MatMul", [(1024, 256), (256, 64)], (1024, 64))
    assert done.reread_bytes == (1024 / 128 - 1) * 256 * 64 * 4
    assert done.held_bytes == 256 * 64 * 4 + 128 * 256 * 4
    assert work("MatMul", [(128, 256), (256, 64)], (128, 64)).reread_bytes == 0


def test_a_normalisation_passes_over_a_row_three_times():
    done = work("LayerNormalization", [(8, 16, 64), (64,)], (8, 16, 64), axis=-1)
    assert (done.reread_bytes, done.held_bytes) == (2 * 4 * 8 * 16 * 64, 4 * 64)


def test_attention_sweeps_the_keys_of_a_head_once_for_every_block_of_queries():
    done = work("Attention", [(2, 4, 512, 64)] * 3, (2, 4, 512, 64))
    head = 2 * 512 * 64 * 4
    assert (done.reread_bytes, done.held_bytes) == (2 * 4 * 3 * head, head)


def test_a_recurrence_uses_the_weights_of_its_state_at_every_step():
    done = work("LSTM", [(10, 3, 5), (1, 8, 5), (1, 8, 2)], (10, 1, 3, 2))
    assert (done.reread_bytes, done.held_bytes) == (9 * 64, 64)
