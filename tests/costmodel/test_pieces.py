"""Kernels cut out of models compute what they compute inside of them, however many copies there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import eopt
from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.backends.base import Unknown
from eopt.backends.ort import OrtRunner
from eopt.costmodel import suite
from eopt.costmodel.cut import MAX_BYTES, cut
from eopt.costmodel.pieces import COPIED_BYTES, pieces
from eopt.costmodel.tree import Situation, bindings_for
from eopt.ir import onnx_out
from eopt.ir.errors import InputError
from eopt.ir.specialize import specialize

CNN = Path(__file__).parents[2] / "examples/cnn/model.onnx"
TARGET = targets.load("cpu-amd-epyc-7003")


@pytest.fixture(scope="module")
def model():
    return eopt.read(CNN)


def situation(model, executor="onnxruntime"):
    return Situation(TARGET, executors.load(executor), bindings_for(model, 2, {}))


def run(workload, feed):
    session = ort.InferenceSession(workload.onnx, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


@pytest.mark.parametrize("executor", ["onnxruntime", "torch"])
@pytest.mark.parametrize("copied", [True, False])
def test_every_kernel_computes_what_it_computes_in_the_model(model, executor, copied):
    found = list(pieces(model, situation(model, executor), copied))
    fixed = specialize(model, situation(model).bindings)
    names = [value.id for op in fixed.leaves() for value in op.outputs if value.id]
    feed = {"image": np.random.default_rng(0).standard_normal((2, *fixed.feeds[0].shape[1:])).astype("f")}
    feed = {fixed.feeds[0].id: next(iter(feed.values()))}
    (inside,) = OrtRunner(threads=1, optimize=False).run(fixed, [feed], names)
    inside |= feed
    assert found
    for piece in found:
        proto = onnx.load_from_string(piece.workload.onnx)
        given = {info.name: inside[info.name.rpartition(".")[0] if is_copy(info.name) else info.name]
                 for info in proto.graph.input}  # fmt: skip
        for name, array in run(piece.workload, given).items():
            wanted = inside[name.rpartition(".")[0] if is_copy(name) else name]
            np.testing.assert_allclose(array, wanted, rtol=1e-3, atol=1e-4)  # another order of summing
        assert len(proto.graph.output) % piece.workload.copies == 0


def is_copy(name: str) -> bool:
    return name.rpartition(".")[2].isdigit()


def test_every_place_of_the_model_is_in_one_piece(model):
    found = list(pieces(model, situation(model)))
    uids = [uid for piece in found for uid in piece.uids]
    assert len(uids) == len(set(uids))
    assert sum(len(piece.uids) * len(piece.names) for piece in found) <= len(model.leaves())


def test_copies_are_few_where_they_would_fill_the_cache(model):
    for piece in pieces(model, situation(model)):
        copies = piece.workload.copies
        held = piece.kernel.activation_bytes + piece.kernel.weight_bytes
        assert copies == 1 or copies * held <= COPIED_BYTES


def test_what_has_no_shape_cannot_be_cut_and_says_which_value(model):
    with pytest.raises(InputError, match="the shape or type of"):
        cut(model, model.leaves()[:1], {})


def test_what_would_fill_the_memory_is_refused(model):
    fixed = specialize(model, {"batch": 2})
    with pytest.raises(InputError, match=f"more than {MAX_BYTES}"):
        cut(fixed, fixed.leaves()[:1], {}, copies=MAX_BYTES)


def test_a_pool_is_the_same_for_a_seed_and_of_all_kinds():
    pool = suite.draw(300, 3)
    assert pool == suite.draw(300, 3)
    assert pool != suite.draw(300, 4)
    assert {one.kind for one in pool} == set(suite.TEMPLATES)
    assert len({one.text for one in pool}) == 300


@pytest.mark.parametrize("seed", range(3))
def test_every_graph_of_the_pool_is_valid_and_within_its_bounds(seed):
    for one in suite.draw(80, seed, ("float", "float16")):
        found = one.model()
        onnx.checker.check_model(onnx_out.to_proto(found), full_check=True)
        for value in found.feeds:
            assert np.prod(value.shape, dtype=float) <= suite.MAX_ELEMENTS


def test_a_pool_runs_in_onnxruntime():
    for one in suite.draw(40, 7):
        (piece, *_) = pieces(one.model(), Situation(TARGET, executors.load("onnxruntime")), copied=False)
        assert not isinstance(piece.workload, Unknown)
        ort.InferenceSession(piece.workload.onnx, providers=["CPUExecutionProvider"])
