"""Where tensors turn into integers and back."""

from __future__ import annotations

import pytest

from eopt.passes.quant import candidates, placement

RESIDUAL = """(float[N,4,8,8] x) => (float[N,3] y) {
  a = Conv<pads=[1,1,1,1]>(x, w1)
  r = Relu(a)
  b = Conv<pads=[1,1,1,1]>(r, w2)
  s = Add(b, r)
  t = Relu(s)
  u = Add(t, r)
  p = GlobalAveragePool(u)
  f = Flatten(p)
  y = Gemm(f, w3)
}"""


def placed(model, blocked=frozenset()):
    anchors, _ = candidates.find(model, ("Conv", "Gemm", "MatMul"), ())
    return placement.clusters(model, anchors, blocked)


def residual(build, normal):
    return build(RESIDUAL, w1=normal(4, 4, 3, 3), w2=normal(4, 4, 3, 3), w3=normal(4, 3))


def test_a_residual_block_is_one_cluster(build, normal):
    (cluster,) = placed(residual(build, normal))
    assert [op.output for op in cluster.bridges] == ["s", "u", "p", "f"]
    assert cluster.writes == {"r", "b", "t", "u", "p", "f"}  # behind Relu where there is one
    assert cluster.reads == {"x"}


def test_tensors_that_only_move_share_a_grid(build, normal):
    model = residual(build, normal)
    (cluster,) = placed(model)
    assert placement.handed_on(model, cluster) == {"f": "p"}


def test_a_bridge_needs_int8_on_both_sides(build, normal):
    graph = """(float[N,4,8,8] x) => (float[N,4,8,8] y) {
      a = Conv<pads=[1,1,1,1]>(x, w1)
      e = Exp(x)
      s = Add(a, e)
      b = Conv<pads=[1,1,1,1]>(s, w2)
      y = Add(b, s)
    }"""
    first, second = placed(build(graph, w1=normal(4, 4, 3, 3), w2=normal(4, 4, 3, 3)))
    assert not first.bridges and not second.bridges  # Exp is float, and behind y nothing computes in int8
    assert (first.writes, second.writes) == ({"a"}, {"b"})
    assert (first.reads, second.reads) == ({"x"}, {"s"})


@pytest.mark.parametrize(
    ("bridge", "kept"), [("Add(a, x)", True), ("GlobalAveragePool(a)", True), ("Flatten(a)", False)]
)
def test_in_front_of_float_a_bridge_has_to_leave_less(build, normal, bridge, kept):
    graph = f"(float[N,4,8,8] x) => (float y) {{ a = Conv<pads=[1,1,1,1]>(x, w) b = {bridge} y = Exp(b) }}"
    (cluster,) = placed(build(graph, w=normal(4, 4, 3, 3)))
    assert [op.output for op in cluster.bridges] == (["b"] if kept else [])


def test_a_graph_output_is_bridged_only_for_others(build, normal):
    graph = "(float[N,4,8,8] x) => (float[N,4,8,8] y) { a = Conv<pads=[1,1,1,1]>(x, w) y = Add(a, x) }"
    (cluster,) = placed(build(graph, w=normal(4, 4, 3, 3)))
    assert not cluster.bridges


def test_matrix_products_write_float_and_share_their_input(build, normal):
    graph = """(float[N,4] x) => (float[N,4] y) {
      q = MatMul(x, w1)
      k = MatMul(x, w2)
      p = Add(q, k)
      y = MatMul(p, w3)
    }"""
    first, second = placed(build(graph, w1=normal(4, 4), w2=normal(4, 4), w3=normal(4, 4)))
    assert [anchor.weight for anchor in first.anchors] == ["w1", "w2"]
    assert first.tensors == {"x"} and second.tensors == {"p"} and not first.bridges


def test_an_activation_with_other_users_is_not_absorbed(build, normal):
    graph = """(float[N,4,8,8] x) => (float[N,4,8,8] y, float[N,4,8,8] z) {
      y = Conv<pads=[1,1,1,1]>(x, w)
      z = Relu(y)
    }"""
    (cluster,) = placed(build(graph, w=normal(4, 4, 3, 3)))
    assert cluster.writes == {"y"}


def test_a_blocked_tensor_ends_a_chain_of_bridges(build, normal):
    model = residual(build, normal)
    first, head = placed(model, blocked=frozenset({"p"}))
    assert [op.output for op in first.bridges] == ["s", "u"]
    assert head.reads == {"f"}
