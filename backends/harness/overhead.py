"""What a call of an executor costs besides its operators: an operator inside of a network does not pay for it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from onnx import TensorProto, helper

from eopt.backends.base import Feed
from eopt.backends.harness.base import Prepared, Workload
from eopt.backends.harness.timing import time

COPIES = 33
_OPSET, _IR_VERSION = 20, 10


class Raw(Protocol):
    """An engine that prepares without taking anything off."""

    def raw(self, workload: Workload, feed: Feed) -> Prepared:
        """See `Engine.prepare`."""
        ...


def per_call_s(engine: Raw) -> float:
    """Seconds of a call with nothing in it: that of one tiny operator, less what each further one adds."""
    one, many = (_seconds(engine, copies) for copies in (1, COPIES))
    return max(0.0, one - (many - one) / (COPIES - 1))


def _seconds(engine: Raw, copies: int) -> float:
    names = [(f"x{number}", f"y{number}") for number in range(copies)]
    graph = helper.make_graph(
        [helper.make_node("Neg", [x], [y]) for x, y in names],
        "empty",
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1]) for x, _ in names],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, [1]) for _, y in names],
    )
    model = helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=[helper.make_opsetid("", _OPSET)])
    feed = {x: np.ones(1, np.float32) for x, _ in names}
    return time(engine.raw(Workload("a call", model.SerializeToString()), feed)).latency_s


def own_s(taken_s: float, calls: int, per_call_s: float) -> float:
    """What is left of a window for the operators; a tenth at least, as the cost of a call is known no better."""
    return max(taken_s - calls * per_call_s, 0.1 * taken_s)
