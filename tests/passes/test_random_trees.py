"""`Model.replace` on random trees: a true index, a topological order, and everything else shared."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.ir.index import Index
from eopt.ir.model import Model
from eopt.ir.node import Op, Region
from eopt.ir.text_parse import loads
from eopt.ir.types import DType, Value
from eopt.ir.verify import verify

randoms = st.randoms(use_true_random=False)


def tree(rng: Random) -> Model:
    """Operators over any values before them, in modules up to four deep."""
    lines, depth, names = ['model {"": 20}', "input x: float32[4]"], 0, ["x"]
    for number in range(rng.randint(2, 25)):
        while depth and rng.random() < 0.3:
            lines.append("}")
            depth -= 1
        while depth < 4 and rng.random() < 0.4:
            lines.append(f"m{number}_{depth}: M {{")
            depth += 1
        reads = [rng.choice(names[-6:]) for _ in range(rng.choice([1, 1, 2]))]
        names.append(f"v{number}")
        lines.append(f"v{number}: float32[4] = {'Neg' if len(reads) == 1 else 'Add'}({', '.join(reads)})")
    lines += ["}"] * depth
    outputs = dict.fromkeys([names[-1], rng.choice(names[1:])])
    return loads("\n".join([*lines, *(f"output {name}: float32[4]" for name in outputs)]))


def vector(name: str) -> Value:
    return Value(name, DType.FLOAT32, (4,))


def step(model: Model, rng: Random) -> Model:
    """One random exchange that leaves every value in use with a producer."""
    op = rng.choice(model.leaves())
    way = rng.randrange(4)
    source = op.inputs[0] or ""
    above = model.producer(source)
    if way == 0:
        return model.replace([op], [Op("Abs", (source,), op.outputs)])
    if way == 1:
        middle = vector(model.fresh("m"))
        return model.replace([op], [Op("Exp", op.inputs[:1], (middle,)), Op("Neg", (middle.id,), op.outputs)])
    if way == 2 and above is not None and len(model.users(source)) == 1 and not model.is_output(source):
        reads = tuple(dict.fromkeys([*above.inputs, *(name for name in op.inputs if name != source)]))
        return model.replace([above, op], [Op("Sum", reads, op.outputs)])
    return model.replace([op], [], renames={op.output: source})


def assert_true(model: Model) -> None:
    """The patched index equals one built from scratch, and readers come after what they read."""
    verify(model)
    kept, fresh = model.index, Index.of(model.root)
    assert dict(kept.parents) == dict(fresh.parents)
    assert dict(kept.producers) == dict(fresh.producers)
    assert set(kept.nodes) == set(fresh.nodes)
    assert all(kept.nodes[uid] is node for uid, node in fresh.nodes.items())
    assert {name: sorted(uids) for name, uids in kept.users.items()} == {n: sorted(u) for n, u in fresh.users.items()}
    assert kept.next_uid > max(kept.nodes)
    positions = [kept.position(op.uid) for op in model.leaves()]
    assert positions == sorted(positions)


def assert_shared(before: Model, after: Model) -> None:
    """A region whose operators are all still the same objects is itself the same object.

    Unless the whole tree had to be grown anew, because no place in it was between what is read and who reads.
    """
    if after.root.uid != before.root.uid:
        return
    for region in before.regions():
        found = after.index.nodes.get(region.uid)
        if isinstance(found, Region) and [*map(id, found.leaves())] == [*map(id, region.leaves())]:
            assert found is region or region is before.root


def run(rng: Random) -> None:
    current = tree(rng)
    names = [value.id for value in current.outputs]
    for _ in range(rng.randint(1, 8)):
        if not current.leaves():
            return
        previous, leaves = current, current.leaves()
        current = step(previous, rng)
        assert previous.leaves() == leaves
        assert tuple(previous.root.leaves()) == leaves
        assert_true(current)
        assert_shared(previous, current)
    swept = current.swept()
    assert_true(swept)
    assert [value.id for value in swept.outputs] == names
    assert replace(swept, root=swept.root).index.producers == swept.index.producers


@settings(max_examples=150, derandomize=True)
@given(rng=randoms)
def test_replacing_keeps_the_tree_true(rng: Random):
    run(rng)


@pytest.mark.slow
@settings(max_examples=3000)
@given(rng=randoms)
def test_replacing_keeps_the_tree_true_many_times(rng: Random):
    run(rng)
