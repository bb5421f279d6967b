"""Hand-computed work of operators of each family: (operator, inputs, outputs, attributes, operations)."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.ir.ops import Tensor, Unit
from eopt.ir.types import DType

MS, ML = "com.microsoft", "ai.onnx.ml"
I32 = DType.INT32


def ids(*shape):
    return Tensor(shape, DType.INT64)


def bits(*shape):
    return Tensor(shape, DType.UINT8)


def host(*values):
    return np.array(values, dtype=np.int64)


X = (4, 3, 5)  # steps, batch, input
CASES = [
    ("LSTM", [X, (1, 8, 5), (1, 8, 2)], [(4, 1, 3, 2)], {"hidden_size": 2}, 2 * 4 * 3 * 4 * 2 * (5 + 2)),
    ("GRU", [X, (2, 6, 5), (2, 6, 2)], [(2, 3, 2)], {"direction": "bidirectional"}, 2 * 4 * 3 * 3 * 2 * (5 + 2) * 2),
    ("RNN", [(3, 4, 5), (1, 2, 5), (1, 2, 2)], [(3, 4, 1, 2)], {"layout": 1}, 2 * 4 * 3 * 2 * (5 + 2)),
    ("ConvTranspose", [(2, 3, 4, 4), (3, 5, 3, 3)], [(2, 5, 6, 6)], {}, 2 * (2 * 3 * 16) * (5 * 9)),
    (
        "DeformConv",
        [(1, 4, 6, 6), (8, 4, 3, 3), (1, 18, 4, 4)],
        [(1, 8, 4, 4)],
        {},
        2 * 8 * 16 * 4 * 9 + 16 * 9 * (4 * 7 + 8),
    ),
    ("CausalConvWithState", [(2, 3, 6), (3, 1, 4)], [(2, 3, 6), (2, 3, 3)], {"activation": "silu"}, 36 * (2 * 4 + 13)),
    ("Det", [(5, 6, 6)], [(5,)], {}, 2 / 3 * 6**3 * 5),
    ("DFT", [(3, 64, 1)], [(3, 64, 2)], {}, 3 * 2.5 * 64 * 6),
    ("DFT", [(3, 64, 2)], [(3, 64, 2)], {}, 3 * 5 * 64 * 6),
    ("STFT", [(2, 256, 1), host(32), (64,)], [(2, 7, 33, 2)], {}, 14 * (2.5 * 64 * 6 + 64)),
    (
        "NonMaxSuppression",
        [(2, 16, 4), (2, 3, 16), host(5)],
        [ids(9, 3)],
        {},
        2 * 3 * (16 * 4 + 18 * 16 * 5),
    ),
    ("RoiAlign", [(1, 8, 16, 16), (5, 4), ids(5)], [(5, 8, 4, 4)], {"sampling_ratio": 2}, 5 * 8 * 16 * 4 * 8),
    ("RoiAlign", [(1, 8, 16, 16), (5, 4), ids(5)], [(5, 8, 4, 4)], {}, 5 * 8 * 16 * (4 * 4) * 8),
    ("MaxRoiPool", [(1, 8, 16, 16), (5, 5)], [(5, 8, 4, 4)], {"pooled_shape": [4, 4]}, 5 * 8 * 256),
    ("GridSample", [(1, 3, 8, 8), (1, 5, 5, 2)], [(1, 3, 5, 5)], {}, 75 * 7 + 25 * 12),
    ("GridSample", [(1, 3, 8, 8), (1, 5, 5, 2)], [(1, 3, 5, 5)], {"mode": "cubic"}, 75 * 31 + 25 * 16),
    ("AffineGrid", [(2, 2, 3), host(2, 1, 4, 5)], [(2, 4, 5, 2)], {}, 2 * 20 * 2 * 4),
    ("LRN", [(1, 8, 4, 4)], [(1, 8, 4, 4)], {"size": 5}, 8 * 128),
    ("Einsum", [(2, 3, 4), (2, 4, 5)], [(2, 3, 5)], {"equation": "...ij,...jk->...ik"}, 2 * 2 * 3 * 4 * 5),
    ("Einsum", [(7, 1, 3, 4), (2, 4, 5)], [(7, 2, 3, 5)], {"equation": "...ij,...jk"}, 2 * 7 * 2 * 3 * 4 * 5),
    ("SoftmaxCrossEntropyLoss", [(4, 10, 3), ids(4, 3)], [()], {}, 14 * 120 + 3 * 12),
    ("NegativeLogLikelihoodLoss", [(4, 10), ids(4)], [()], {}, 12),
    ("Multinomial", [(2, 8)], [Tensor((2, 5), I32)], {"sample_size": 5}, 11 * 16 + 10 * (28 + log2(8) - 1)),
    ("Bernoulli", [(3, 4)], [(3, 4)], {}, 12 * 28),
    ("RandomUniformLike", [(3, 4)], [(3, 4)], {}, 12 * 27),
    ("HannWindow", [host(16)], [(16,)], {}, 16 * 23),
    ("Col2Im", [(1, 12, 9), host(4, 4), host(2, 2)], [(1, 3, 4, 4)], {}, 108),
    ("CumProd", [(3, 4), host(1)], [(3, 4)], {}, 12),
    ("SwiGLU", [(3, 4), (3, 4)], [(3, 4)], {}, 12 * 15),
    ("TfIdfVectorizer", [ids(2, 6)], [(2, 5)], {"min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 1}, 58),
    ("RegexFullMatch", [Tensor((7,), DType.STRING)], [Tensor((7,), DType.BOOL)], {"pattern": "a*"}, 7),
    ("ImageDecoder", [bits(999)], [bits(8, 8, 3)], {}, 12 * 192),
    ("ScatterND", [(4, 3), ids(2, 1), (2, 3)], [(4, 3)], {"reduction": "add"}, 6),
    (
        "LinearAttention",
        [(2, 3, 8), (2, 3, 4), (2, 3, 6), None, (2, 3, 2), (2, 3, 2)],
        [(2, 3, 12), (2, 2, 2, 3)],
        {"q_num_heads": 4, "kv_num_heads": 2},
        (2 * 3) * (2 * 3) * (2 * 5 + 4 * 2),
    ),
]
CONTRIB = [
    ("FusedMatMul", [(2, 4, 3), (2, 4, 5)], [(2, 3, 5)], {"transA": 1}, 2 * 2 * 3 * 5 * 4),
    ("MatMulNBits", [(2, 32), bits(4, 2, 8), (8,)], [(2, 4)], {"K": 32, "N": 4}, 2 * 2 * 32 * 4),
    ("MatMulBnb4", [(2, 32), bits(64), (8,)], [(2, 4)], {"K": 32, "N": 4}, 2 * 2 * 32 * 4),
    (
        "MatMulNBitsQkv",
        [(2, 32), None, (32,), bits(64, 2, 8)],
        [(2, 8), (2, 4), (2, 4)],
        {"K": 32, "Nq": 8, "Nkv": 4},
        2 * 2 * 32 * 16,
    ),
    ("QGemm", [bits(3, 4), (), bits(), bits(4, 5)], [bits(3, 5)], {}, 2 * 3 * 4 * 5),
    ("QOrderedMatMul", [bits(3, 4), (), bits(4, 5)], [bits(3, 5)], {}, 2 * 3 * 4 * 5),
    ("FusedConv", [(2, 3, 5, 5), (4, 3, 3, 3)], [(2, 4, 3, 3)], {}, 2 * 72 * 27),
    ("NhwcConv", [(2, 5, 5, 3), (4, 3, 3, 3)], [(2, 3, 3, 4)], {}, 2 * 72 * 27),
    ("BiasGelu", [(3, 4), (4,)], [(3, 4)], {}, 21 * 12),
    ("BiasSplitGelu", [(3, 8), (8,)], [(3, 4)], {}, 23 * 12),
    ("BiasDropout", [(3, 4), (4,), (3, 4)], [(3, 4)], {}, 24),
    ("BiasSoftmax", [(2, 3, 4), (3, 4)], [(2, 3, 4)], {"axis": 2, "is_inner_broadcast": 1}, 15 * 24),
    ("SkipGroupNorm", [(1, 4, 4, 8), (8,), (8,), (8,)], [(1, 4, 4, 8)], {"groups": 2, "activation": 1}, 128 * 22),
    ("SkipLayerNormalization", [(2, 8), (2, 8), (8,)], [(2, 8)], {}, 9 * 16),
    (
        "DynamicQuantizeLSTM",
        [X, (1, 5, 8), (1, 2, 8)],
        [(4, 1, 3, 2)],
        {"hidden_size": 2},
        2 * 4 * 3 * 4 * 2 * (5 + 2),
    ),
    ("Inverse", [(5, 6, 6)], [(5, 6, 6)], {}, 2 * 6**3 * 5),
    ("Rfft", [(3, 64)], [(3, 33, 2)], {"signal_ndim": 1}, 3 * 2.5 * 64 * 6),
    ("CDist", [(3, 4), (5, 4)], [(3, 5)], {"metric": "euclidean"}, 15 * 13),
    ("CropAndResize", [(1, 3, 8, 8), (2, 4), ids(2), host(4, 4)], [(2, 3, 4, 4)], {}, 8 * 96),
    ("NhwcMaxPool", [bits(1, 4, 4, 3)], [bits(1, 2, 2, 3)], {"kernel_shape": [2, 2]}, 48),
    ("GatherBlockQuantized", [bits(100, 16), ids(2, 3), (100, 1)], [(2, 3, 32)], {"bits": 4}, 3 * 192),
    (
        "MultiHeadAttention",
        [(2, 3, 8), (2, 5, 8), (2, 5, 8)],
        [(2, 3, 8)],
        {"num_heads": 2},
        2 * 2 * 3 * 5 * (4 * 4 + 14),
    ),
    ("MultiHeadAttention", [(2, 3, 2, 3, 4)], [(2, 3, 8)], {"num_heads": 2}, 2 * 2 * 9 * (4 * 4 + 14)),
    (
        "QAttention",
        [bits(2, 3, 8), bits(8, 24), (24,), (), ()],
        [(2, 3, 8)],
        {"num_heads": 2},
        2 * 48 * 24 + 2 * 2 * 9 * 30,
    ),
    ("PackedAttention", [(7, 8), (8, 24), (24,), ids(2, 4)], [(7, 8)], {"num_heads": 2}, 2 * 56 * 24 + 2 * 7 * 4 * 30),
    (
        "GroupQueryAttention",
        [(1, 1, 32), (1, 1, 16), (1, 1, 16), (1, 2, 9, 8), (1, 2, 9, 8)],
        [(1, 1, 32)],
        {"num_heads": 4, "kv_num_heads": 2},
        4 * 10 * (4 * 8 + 14),
    ),
    ("MoE", [(6, 8), (6, 4), (4, 16, 8), None, (4, 8, 16)], [(6, 8)], {"k": 2}, 6 * (2 * 2 * 2 * 8 * 16 + 14 * 4)),
]
LEARNT = [
    ("LinearRegressor", [(3, 4)], [(3, 2)], {"coefficients": [0.5] * 8}, 3 * (2 * 8 + 14 * 2)),
    ("Scaler", [(3, 4)], [(3, 4)], {}, 24),
    (
        "TreeEnsembleRegressor",
        [(5, 4)],
        [(5, 1)],
        {"nodes_treeids": [0] * 7 + [1] * 7},
        5 * 2 * (3 * 3 + 2),
    ),
]


@pytest.mark.parametrize(("op", "inputs", "outputs", "attrs", "flops"), CASES, ids=lambda value: str(value)[:16])
def test_flops(work, op, inputs, outputs, attrs, flops):
    assert work(op, inputs, outputs, **attrs).flops == pytest.approx(flops)


@pytest.mark.parametrize(("op", "inputs", "outputs", "attrs", "flops"), CONTRIB, ids=lambda value: str(value)[:16])
def test_flops_of_onnxruntimes_own(work, op, inputs, outputs, attrs, flops):
    assert work(op, inputs, outputs, MS, **attrs).flops == pytest.approx(flops)


@pytest.mark.parametrize(("op", "inputs", "outputs", "attrs", "flops"), LEARNT, ids=lambda value: str(value)[:16])
def test_flops_of_classical_models(work, op, inputs, outputs, attrs, flops):
    assert work(op, inputs, outputs, ML, **attrs).flops == pytest.approx(flops)


@given(st.integers(1, 64), st.integers(2, 9))
def test_recurrence_is_linear_in_steps_and_batch(work, steps, factor):
    def once(steps, batch):
        return work("LSTM", [(steps, batch, 5), (1, 8, 5), (1, 8, 2)], [(steps, 1, batch, 2)]).flops

    assert once(steps * factor, 3) == once(steps, 3) * factor == once(steps, 3 * factor)


@given(st.integers(1, 32), st.integers(1, 32), st.integers(2, 5))
def test_attention_is_linear_in_batch_and_quadratic_in_length(work, batch, length, factor):
    def once(batch, length):
        return work("Attention", [(batch, 4, length, 8)] * 3, [(batch, 4, length, 8)]).flops

    assert once(batch * factor, length) == once(batch, length) * factor
    assert once(batch, length * factor) == once(batch, length) * factor**2


def test_attention_of_every_kind(work):
    plain = work("Attention", [(2, 4, 3, 8)] * 3, [(2, 4, 3, 8)])
    assert plain.flops == 2 * 4 * 9 * (4 * 8 + 14)
    packed = work("Attention", [(2, 3, 32)] * 3, [(2, 3, 32)], q_num_heads=4, kv_num_heads=4)
    assert packed.flops == plain.flops
    capped = work("Attention", [(2, 4, 3, 8)] * 3, [(2, 4, 3, 8)], softcap=30.0)
    assert capped.flops == plain.flops + 2 * 4 * 9 * 22
    shared = work("Attention", [(2, 4, 3, 8), (2, 2, 3, 8), (2, 2, 3, 8)], [(2, 4, 3, 8)])
    assert shared.flops == plain.flops
    assert shared.read_bytes == 4 * 2 * 3 * 8 * (4 + 2 + 2), "shared heads are read once"
    windowed = work("Attention", [(1, 1, 64, 8)] * 3, [(1, 1, 64, 8)], left_window_size=3, right_window_size=0)
    assert windowed.flops == 64 * 4 * (4 * 8 + 14)
    causal = work("Attention", [(1, 1, 64, 8)] * 3, [(1, 1, 64, 8)], left_window_size=3, is_causal=1)
    assert causal.flops == (1 + 2 + 3 + 61 * 4) * (4 * 8 + 14), "the first three queries see fewer keys"
    one = work("Attention", [(1, 1, 1, 8), *[(1, 1, 64, 8)] * 2], [(1, 1, 1, 8)], left_window_size=3)
    assert one.flops == 4 * (4 * 8 + 14), "the last query has nothing ahead of it"


def test_attention_with_a_cache(work):
    past, new = (1, 2, 9, 8), (1, 2, 1, 8)
    done = work("Attention", [(1, 4, 1, 8), new, new, None, past, past], [(1, 4, 1, 8), (1, 2, 10, 8), (1, 2, 10, 8)])
    assert done.flops == 4 * 10 * (4 * 8 + 14)
    assert done.write_bytes == 4 * (32 + 2 * 160), "the cache is a new tensor"
    in_place = work(
        "GroupQueryAttention",
        [(1, 1, 32), (1, 1, 16), (1, 1, 16), past, past],
        [(1, 1, 32), past, past],
        MS,
        num_heads=4,
        kv_num_heads=2,
    )
    assert in_place.write_bytes == 4 * (32 + 2 * 16), "of a shared buffer only the new position"


def test_experts_that_nobody_meets_are_not_read(work):
    def read(tokens):
        done = work("MoE", [(tokens, 8), (tokens, 64), (64, 16, 8), None, (64, 8, 16)], [(tokens, 8)], MS, k=2)
        return done.read_bytes - 4 * tokens * (8 + 64)

    assert read(1) == pytest.approx(4 * 2 * 2 * 8 * 16)
    assert read(64) == 4 * 64 * 2 * 8 * 16


def test_a_quantised_gather_reads_its_rows(work):
    table, scales = bits(1000, 16), (1000, 1)
    done = work("GatherBlockQuantized", [table, ids(2, 3), scales], [(2, 3, 32)], MS, bits=4)
    assert done.read_bytes == pytest.approx(6 * 16 + 6 * 4 + 6 * 8)


def test_a_likelihood_reads_one_score_per_label(work):
    assert work("NegativeLogLikelihoodLoss", [(4, 1000), ids(4)], [()]).read_bytes == 4 * 8 + 4 * 4


@pytest.mark.parametrize("op", ["SequenceAt", "SequenceConstruct", "OptionalGetElement", "BitCast"])
def test_references_move_nothing(work, op):
    done = work(op, [(3, 4)], [(3, 4)])
    assert (done.flops, done.read_bytes, done.write_bytes, done.unit) == (0, 0, 0, Unit.NONE)


def test_depthwise_kernels_are_for_vector_units(work):
    assert work("NhwcConv", [(1, 5, 5, 8), (8, 3, 3, 1)], [(1, 3, 3, 8)], MS, group=8).unit is Unit.VECTOR


def test_softmax_rows_are_longer_before_opset_13(work):
    old = work("Softmax", [(2, 3, 4)], [(2, 3, 4)], opsets={"": 11})
    new = work("Softmax", [(2, 3, 4)], [(2, 3, 4)], opsets={"": 13})
    assert (old.held_bytes, new.held_bytes) == (4 * 12, 4 * 4)
    assert old.reread_bytes == new.reread_bytes == 2 * 4 * 24
