"""TVM's engine: right results in every schedule, one kernel without the VM, refusals that name the workload."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from tvm_models import onnxruntime, product, workload

from eopt.backends.harness import timing
from eopt.backends.harness.base import Setup
from eopt.ir.errors import InputError, UsageError

pytestmark = pytest.mark.slow
draw = np.random.default_rng(1).standard_normal


def engine(folder, schedule="untuned", **attributes):
    pytest.importorskip("tvm")
    from eopt.backends.tvm.engine import TvmEngine

    return TvmEngine(Setup("tvm", threads=1, schedule=schedule, tvm=attributes), folder=folder)


def attention():
    """Two products, a softmax and two results, one of them in the middle."""
    feed = {"q": draw((4, 32, 16), np.float32), "k": draw((4, 16, 32), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "q"], ["y"]),
    ]
    return workload(nodes, feed, {"y": "float32", "p": "float32"}), feed


@pytest.mark.parametrize("schedule", ["", "untuned", "fixed", "tuned:4"])
@pytest.mark.parametrize("case", [product, attention], ids=["kernel", "network"])
def test_every_schedule_gives_what_onnxruntime_gives(tmp_path, schedule, case):
    wanted, feed = case()
    prepared = engine(tmp_path, schedule).prepare(wanted, feed)
    for given, expected in zip(prepared.outputs().values(), onnxruntime(wanted, feed), strict=True):
        np.testing.assert_allclose(given, expected, atol=1e-4)
    measured = timing.time(prepared, repeats=3, window_s=0.005)
    assert 0 < measured.latency_s < 1


def test_one_kernel_is_timed_without_the_vm_and_several_with_it(tmp_path):
    from eopt.backends.tvm.engine import PreparedKernel, PreparedNetwork

    assert isinstance(engine(tmp_path).prepare(*product()), PreparedKernel)
    assert isinstance(engine(tmp_path).prepare(*attention()), PreparedNetwork)


def test_seconds_grow_with_the_calls(tmp_path):
    prepared = engine(tmp_path).prepare(*product(64, 256, 256))
    prepared.run(1)
    assert prepared.run(200) > prepared.run(1)


def test_the_rules_vectorise_and_share_out():
    pytest.importorskip("tvm")
    from eopt.backends.tvm.lower import lowered, target_of
    from eopt.backends.tvm.schedule import by_rules

    (kernel,) = lowered(product()[0], target_of({}, 1)).kernels.values()
    text = by_rules(kernel).script()
    assert "T.vectorized" not in kernel.script()
    assert text.count("T.vectorized") >= 2
    assert "T.parallel" in text


def test_a_tuned_kernel_is_not_searched_again(tmp_path, monkeypatch):
    from eopt.backends.tvm.tune import Tuner

    engine(tmp_path, "tuned:2").prepare(*product())
    monkeypatch.setattr(Tuner, "_search", lambda *args: pytest.fail("searched again"))
    engine(tmp_path, "tuned:2").prepare(*product())


def test_another_number_of_trials_is_another_search(tmp_path, monkeypatch):
    from eopt.backends.tvm.tune import Tuner

    searched = []
    monkeypatch.setattr(Tuner, "_search", lambda self, *args: searched.append(self.trials))
    engine(tmp_path, "tuned:2").prepare(*product())
    engine(tmp_path, "tuned:3").prepare(*product())
    assert searched == [2, 3]


def test_a_schedule_that_computes_something_else_is_not_taken(tmp_path, monkeypatch):
    from eopt.backends.harness.base import Workload
    from eopt.backends.tvm import engine as module
    from eopt.backends.tvm.lower import lowered, target_of

    wanted, feed = product()
    changed = Workload("other", wanted.onnx.replace(b"Relu", b"Tanh"))
    (other,) = lowered(changed, target_of({}, 1)).kernels.values()
    faster = iter([2.0, 1.0])
    monkeypatch.setattr(module.TvmEngine, "_other", lambda self, kernel: other)
    monkeypatch.setattr(module.places, "seconds", lambda *args: next(faster))
    given = engine(tmp_path, "fixed").prepare(wanted, feed).outputs()["y"]
    np.testing.assert_allclose(given, onnxruntime(wanted, feed)[0], atol=1e-4)


def test_what_tvm_cannot_import_is_named(tmp_path):
    feed = {"x": np.zeros((2, 2), np.float32)}
    wanted = workload([helper.make_node("Hardmaxx", ["x"], ["y"])], feed, {"y": "float32"})
    with pytest.raises(InputError, match=r"Hardmaxx: TVM cannot import it: .*Hardmaxx"):
        engine(tmp_path).prepare(wanted, feed)


@pytest.mark.parametrize("schedule", ["fast", "tuned", "tuned:0", "tuned:x", "untuned:3"])
def test_an_unknown_schedule_lists_the_known(tmp_path, schedule):
    with pytest.raises(UsageError, match="untuned, fixed and tuned:TRIALS"):
        engine(tmp_path, schedule)


def test_a_target_tvm_refuses_is_named(tmp_path):
    with pytest.raises(UsageError, match="nosuchkind"):
        engine(tmp_path, kind="nosuchkind")


def test_a_device_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("tvm")
    from eopt.backends.tvm.engine import TvmEngine

    with pytest.raises(UsageError, match="no device vulkan"):
        TvmEngine(Setup("tvm", "vulkan", 1), folder=tmp_path)
