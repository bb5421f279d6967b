"""Whatever an operator is given, its specification answers with sensible numbers or with our error."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from eopt.ir.errors import InputError
from eopt.ir.node import Attrs
from eopt.ir.ops import OpView, Tensor, known, spec
from eopt.ir.types import DType

EXTENTS = st.sampled_from([0, 1, 2, 3, 4, 8, 12, 2**40])
SHAPES = st.lists(EXTENTS, max_size=5).map(tuple)
NUMBERS = st.sampled_from([-(2**62), -7, -1, 0, 1, 2, 3, 2**62])
NAMES = """alpha axes axis batch_axis batch_dims block_size blocksize channels_last coefficients dim equation group
    groups gather_axis hidden_size is_causal K keepdims kernel_shape kernel_type k kv_num_heads layout left_window_size
    local_window_size max_gram_length max_skip_count min_gram_length mode N ngram_size nodes_treeids Nkv Nq
    nodes_featureids num_groups num_heads num_scan_inputs offset_group onesided pads perm q_num_heads
    qkv_hidden_sizes reduction sampling_ratio scales signal_ndim size sparse_block_size swiglu_fusion time_axis transA
    transB tree_roots unidirectional update_rule window activation activation_type axes""".split()
VALUES = st.one_of(
    NUMBERS,
    st.lists(NUMBERS, min_size=1, max_size=5),
    st.sampled_from(["", "nearest", "linear", "none", "CRD", "gated", "ij,jk->ik", "...a,b...", "swiglu", "a->aa"]),
    st.just(helper.make_graph([], "body", [], [])),
)


@st.composite
def tensors(draw) -> Tensor:
    shape = draw(SHAPES)
    if len(shape) == 1 and shape[0] < 8 and draw(st.booleans()):
        return Tensor(shape, DType.INT64, np.array([draw(NUMBERS) for _ in range(shape[0])], dtype=np.int64))
    return Tensor(shape, draw(st.sampled_from([DType.FLOAT32, DType.INT4, DType.INT64, DType.STRING])))


@st.composite
def views(draw) -> OpView:
    inputs = draw(st.lists(st.one_of(tensors(), st.none()), max_size=9))
    outputs = draw(st.lists(tensors(), max_size=3))
    attrs = draw(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
    opset = draw(st.sampled_from([1, 7, 11, 13, 23]))
    return OpView("", "", tuple(inputs), tuple(outputs), Attrs.of(**attrs), opsets={"": opset})


@settings(max_examples=60, deadline=None)
@given(views())
def test_nothing_but_numbers_and_our_error(view):
    """Every specification is given the same nonsense: most examples are nonsense to all of them."""
    for domain, op in known():
        check(replace(view, op=op, domain=domain))


@pytest.mark.slow
@pytest.mark.parametrize(("domain", "op"), known(), ids=lambda value: value or "onnx")
@settings(max_examples=100, deadline=None)
@given(view=views())
def test_each_on_nonsense_of_its_own(domain, op, view):
    check(replace(view, op=op, domain=domain))


def check(view: OpView) -> None:
    described = spec(view.op, view.domain)
    try:
        work = described.work(view)
        amounts = (work.flops, work.read_bytes, work.write_bytes, work.reread_bytes, work.held_bytes)
        assert all(isfinite(amount) and amount >= 0 for amount in amounts)
    except InputError as error:
        assert view.op in str(error)
    try:
        assert all(tie.members for tie in described.axes(view))
    except InputError as error:
        assert view.op in str(error)


@pytest.mark.parametrize("batch", [-1, 3, 1 << 40])
def test_batch_axes_that_are_not_there_end_at_once(batch):
    """As many ties as an attribute asks for would fill the memory."""
    data, indices = Tensor((2, 3), DType.FLOAT32), Tensor((2, 1), DType.INT64)
    view = OpView("GatherND", "", (data, indices), (Tensor((2,), DType.FLOAT32),), Attrs.of(batch_dims=batch))
    with pytest.raises(InputError, match="batch_dims"):
        spec("GatherND", "").axes(view)
