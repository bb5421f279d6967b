"""Where modules come from, and how interleaved ones become instances."""

from __future__ import annotations

import pytest
from onnx import NodeProto, StringStringEntryProto

from eopt.ir import scopes
from eopt.ir.node import Op, Region
from eopt.ir.types import Value


def dynamo(names: list[str], classes: list[str]) -> NodeProto:
    written = {"pkg.torch.onnx.name_scopes": names, "pkg.torch.onnx.class_hierarchy": classes}
    return NodeProto(metadata_props=[StringStringEntryProto(key=key, value=str(v)) for key, v in written.items()])


def test_dynamo_metadata():
    found = scopes.scope_of(dynamo(["", "enc", "enc.layer.0", "linear"], ["m.Net", "m.Encoder", "m.Layer", "aten.mm"]))
    assert found == (("enc", "Encoder"), ("layer.0", "Layer"))


def test_slash_names():
    assert scopes.scope_of(NodeProto(name="/enc/layer.0/MatMul")) == (("enc", ""), ("layer.0", ""))
    assert scopes.scope_of(NodeProto(name="MatMul_3")) is None


def test_own_scope_wins_and_round_trips():
    scope = (("enc", "Encoder"), ("layer.0", ""))
    entry = StringStringEntryProto(key=scopes.OWN_KEY, value=scopes.format_own(scope))
    assert scopes.scope_of(NodeProto(name="/other/x", metadata_props=[entry])) == scope


@pytest.mark.parametrize("text", ["[1, 2", "__import__('os')", "[" * 5000, "['a'" + ", 'b'" * 50000 + "]"])
def test_hostile_metadata_is_ignored_or_capped(text):
    entry = StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value=text)
    assert len(scopes.scope_of(NodeProto(metadata_props=[entry])) or ()) <= scopes.MAX_DEPTH


def chain(*scope_names: str) -> tuple[list[Op], list[scopes.Scope]]:
    ops = [Op("Neg", (f"v{i}",), (Value(f"v{i + 1}"),), uid=i + 1) for i in range(len(scope_names))]
    return ops, [((name, "C"),) if name else () for name in scope_names]


def names(region: Region) -> list[str]:
    return [child.name if isinstance(child, Region) else child.op for child in region.children]


def test_contiguous_modules():
    assert names(scopes.grow(*chain("a", "a", "", "b"), 10)) == ["a", "Neg", "b"]


def test_an_interrupted_module_becomes_instances():
    assert names(scopes.grow(*chain("a", "b", "a"), 10)) == ["a#0", "b", "a#1"]


def test_independent_modules_are_made_contiguous():
    ops = [Op("Neg", ("x",), (Value(f"o{i}"),), uid=i + 1) for i in range(4)]
    found = scopes.grow(ops, [(("a", ""),), (("b", ""),)] * 2, 10)
    assert names(found) == ["a", "b"]
    assert [op.uid for op in found.leaves()] == [1, 3, 2, 4]


def test_two_modules_woven_into_each_other_end():
    found = scopes.grow(*chain("a", "b", "a", "b", "a", "b"), 10)
    assert [op.uid for op in found.leaves()] == [1, 2, 3, 4, 5, 6]


def test_a_node_that_says_nothing_joins_its_neighbours():
    ops, told = chain("a", "", "a")
    known = {op.uid: scope for op, scope in zip(ops, told, strict=True) if scope}
    assert names(scopes.grow(ops, list(scopes.inherited(ops, known).values()), 10)) == ["a"]


def test_shared_prefix():
    a, b, c = ("a", ""), ("b", ""), ("c", "")
    assert scopes.shared([(a, b, c), (a, b), (a, b, a)]) == (a, b)
    assert scopes.shared([]) == ()
