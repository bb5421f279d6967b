"""Layers that repeat: sibling regions with the same structure, so that one description stands for all of them."""

from __future__ import annotations

from collections.abc import Hashable
from math import prod

from eopt.ir.model import Model
from eopt.ir.node import Op, Region

CONTENT_ELEMENTS = 16  # constants up to this size (axes, shapes, scales) are part of the structure, larger are weights


def repeats(model: Model) -> dict[int, tuple[int, ...]]:
    """By uid of the first, the uids of all sibling regions that are built alike, in execution order.

    Alike means: the same operators with the same attributes, wired the same way inside, in equally named modules, over
    weights of the same types and shapes. Names of values, contents of weights and extents of activations may differ.
    """
    numbers: dict[Hashable, int] = {}
    leaf_keys: dict[int, Hashable] = {op.uid: (op.domain, op.op, op.attrs, len(op.outputs)) for op in model.leaves()}
    found: dict[int, tuple[int, ...]] = {}
    for region in model.regions():
        inner = [child for child in region.children if isinstance(child, Region)]
        alike: dict[int, list[int]] = {}
        for child in inner if len(inner) > 1 else ():
            key = _Signature(model, leaf_keys).of(child)
            alike.setdefault(numbers.setdefault(key, len(numbers)), []).append(child.uid)
        found.update({uids[0]: tuple(uids) for uids in alike.values() if len(uids) > 1})
    return found


class _Signature:
    """The structure of one region, values numbered in the order in which they appear."""

    def __init__(self, model: Model, leaf_keys: dict[int, Hashable]) -> None:
        self.model, self.leaf_keys = model, leaf_keys
        self.numbers: dict[str, int] = {}

    def of(self, region: Region) -> tuple[Hashable, ...]:
        """Recursion is bounded: scopes are at most `scopes.MAX_DEPTH` deep."""
        parts: list[Hashable] = [region.cls]
        for child in region.children:
            if isinstance(child, Region):
                parts.append((child.name, self.of(child)))
                continue
            parts.append((self.leaf_keys[child.uid], tuple(self._read(name) for name in (*child.inputs, *child.reads))))
            self._made(child)
        return tuple(parts)

    def _made(self, op: Op) -> None:
        for value in op.outputs:
            self.numbers[value.id] = len(self.numbers)

    def _read(self, name: str | None) -> Hashable:
        if name is None or name in self.numbers:
            return None if name is None else self.numbers[name]
        if name not in self.model.weights:
            self.numbers[name] = len(self.numbers)  # comes from outside; the same one is the same number again
            return "outer", self.numbers[name]
        weights = self.model.weights
        small = prod(weights.shape(name)) <= CONTENT_ELEMENTS and not weights.is_parameter(name)
        return weights.dtype(name), weights.shape(name), weights.digest(name) if small else ""
