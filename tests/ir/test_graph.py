"""The networkx view: parallel edges and uids."""

from __future__ import annotations

from eopt.ir.graph import view
from eopt.ir.text_parse import loads


def test_a_square_has_two_edges():
    text = "input x: float32[4]\na: float32[4] = Relu(x)\ny: float32[4] = Mul(a, a)\noutput y: float32[4]"
    model = loads(text)
    graph = view(model)
    relu, mul = model.leaves()
    assert sorted(graph.edges(keys=False)) == [(relu.uid, mul.uid)] * 2
    assert {data["position"] for *_, data in graph.edges(data=True)} == {0, 1}
    assert graph.nodes[mul.uid]["op"] is mul
