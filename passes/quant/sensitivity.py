"""How much noise each operator would add at the model's outputs, measured once for every operator and format.

Two models do it, however many operators there are. In the first, every operator that could be quantised has a quantised
twin beside it that reads the same exact values: one run gives the error of each. In the second, an error is added
behind each operator, as an input of the model: a run for each operator, with its own error and all others 0, shows what
of it arrives at the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from eopt.backends.base import Array, Feed
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.surgery import renamed
from eopt.ir.types import DType, Value
from eopt.passes.base import Context
from eopt.passes.quant.choose.problem import FLOAT, Buildable, Option, Problem, Site

SAMPLES = 4  # noise is a power over all outputs: a few samples rank operators
ERROR_BYTES = 1 << 30  # of all errors together; fewer samples are taken where they are more

Pair = tuple[int, str]
"""A site by its key, and the name of an option."""


def measured(choices: Buildable, problem: Problem, context: Context) -> dict[Pair, float]:
    """Noise over signal at the worst output, by operator and option, with only that operator quantised.

    Errors of several operators are small and nearly independent, so that their powers add up.

    Raises:
        InputError: the engine cannot run the twins.
    """
    assert context.data is not None
    pairs = [(site, option) for site in problem.sites for option in site.options if option.name != FLOAT]
    feeds = list(context.data.take(slice(0, SAMPLES)).batches(choices.model.feeds))
    errors = _errors(choices, pairs, feeds, context)
    ranks = {name: array.ndim for error in errors[0].values() for name, array in error.items()}
    arriving = _Arriving(choices.model, ranks)
    tally = _Tally()
    runs = context.runner.run(arriving.model, arriving.batches(feeds, errors))
    for number, (pair, outputs) in enumerate(zip(arriving.order(errors), runs, strict=True), start=1):
        tally.add(pair, outputs)
        context.progress("sensitivity", number, len(errors) * (len(pairs) + 1))
    return {(site.key, option.name): tally.noise((site.key, option.name)) for site, option in pairs}


def _errors(
    choices: Buildable, pairs: Sequence[tuple[Site, Option]], feeds: Sequence[Feed], context: Context
) -> list[dict[Pair, dict[str, Array]]]:
    """By batch and pair, what is to be added to the tensors that the site writes."""
    twins = _Twins(choices.model)
    for site, option in pairs:
        twins.add(site, option, choices)
    taps = [delta for written in twins.deltas.values() for delta in written.values()]
    found: list[dict[Pair, dict[str, Array]]] = []
    for result in islice(context.runner.run(twins.model, feeds, taps), len(feeds)):
        found.append(
            {pair: {name: result[delta] for name, delta in written.items()} for pair, written in twins.deltas.items()}
        )
        if sum(result[delta].nbytes for delta in taps) * (len(found) + 1) > ERROR_BYTES:
            break
    return found


@dataclass
class _Twins:
    """The model with quantised twins of its operators, and the difference to the exact ones.

    Attributes:
        deltas: by pair, the name of the difference by that of the exact tensor.
    """

    model: Model
    deltas: dict[Pair, dict[str, str]] = field(default_factory=dict)

    def add(self, site: Site, option: Option, choices: Buildable) -> None:
        """Put in the twin of a site, as `choices` would write it."""
        built = choices.built({site.key: option})
        new = [op for op in built.leaves() if op.uid not in choices.model.index.nodes]
        mark = f" {site.key} {option.name}"
        weights = {name: f"{name}{mark}" for name in built.weights if name not in choices.model.weights}
        names = {value.id: f"{value.id}{mark}" for op in new for value in op.outputs if value.id} | weights
        written = {name: names[_serving(built, new, name)] for name in choices.written(site.key)}
        twins = [_copied(op, names) for op in new]
        self.deltas[site.key, option.name] = {name: f"{twin} error" for name, twin in written.items()}
        for name, twin in written.items():
            value = replace(choices.model.value(name), id=f"{twin} error")
            twins.append(Op("Sub", (twin, name), (value,)))
        last = choices.model.leaves()[-1]  # everything the twins read is there
        stored = self.model.weights.updated({names[name]: built.weights[name] for name in weights})
        grown = replace(self.model, weights=stored, opsets=_newest(self.model, built), envelope=built.envelope)
        grown = grown.with_index(self.model.index)
        anchor = grown.producer(last.outputs[0].id)
        assert anchor is not None
        self.model = grown.replace([anchor], [anchor, *twins])


def _newest(one: Model, other: Model) -> Mapping[str, int]:
    return {domain: max(m.opsets.get(domain, 0) for m in (one, other)) for domain in {**one.opsets, **other.opsets}}


def _serving(built: Model, new: Sequence[Op], name: str) -> str:
    """What users read instead of a tensor: its dequantised copy, or the tensor itself where it is computed anew."""
    for op in new:
        quantise = built.producer(op.inputs[0] or "") if op.op == "DequantizeLinear" else None
        if quantise is not None and quantise.op == "QuantizeLinear" and quantise.inputs[0] == name:
            return op.output
    return name


def _copied(op: Op, names: Mapping[str, str]) -> Op:
    """Another operator that computes the same on, or under, other names."""
    return replace(renamed(op, names), uid=0, name="")


class _Arriving:
    """The model with an input behind every tensor, to add an error there."""

    def __init__(self, model: Model, ranks: Mapping[str, int]) -> None:
        """`ranks` of the tensors by name."""
        self.inputs = {name: f"{name} error" for name in ranks}
        self.zeros = {self.inputs[name]: np.zeros((1,) * rank, np.float32) for name, rank in ranks.items()}
        for name, added in self.inputs.items():
            producer = model.producer(name)
            assert producer is not None
            exact = f"{name} exact"
            computed = _copied(producer, {name: exact})
            add = Op("Add", (exact, added), (model.value(name),))
            model = model.replace([producer], [computed, add])
        fed = tuple(
            Value(added, DType.FLOAT32, tuple(f"{added} {axis}" for axis in range(ranks[name])))
            for name, added in self.inputs.items()
        )
        self.model = replace(model, inputs=(*model.inputs, *fed)).with_index(model.index)

    def order(self, errors: Sequence[Mapping[Pair, Any]]) -> Iterator[Pair | None]:
        """Whose errors each batch holds; none first, for every batch of samples."""
        for found in errors:
            yield from (None, *found)

    def batches(self, feeds: Sequence[Feed], errors: Sequence[Mapping[Pair, Mapping[str, Array]]]) -> Iterator[Feed]:
        """Samples with the errors of one pair at a time."""
        for feed, found in zip(feeds, errors, strict=False):
            yield {**feed, **self.zeros}
            for error in found.values():
                yield {**feed, **self.zeros, **{self.inputs[name]: array for name, array in error.items()}}


@dataclass
class _Tally:
    """Powers of signal and noise by output, over all batches."""

    signal: dict[str, float] = field(default_factory=dict)
    found: dict[Pair, dict[str, float]] = field(default_factory=dict)
    exact: Mapping[str, Array] = field(default_factory=dict)

    def add(self, pair: Pair | None, outputs: Mapping[str, Array]) -> None:
        """Take in the outputs of a batch; exact ones come before those with errors."""
        floats = {name: array for name, array in outputs.items() if array.dtype.kind == "f"}
        if pair is None:
            self.exact = floats
            _gather(self.signal, {name: _power(array) for name, array in floats.items()})
            return
        differing = {name: _power(array - self.exact[name]) for name, array in floats.items()}
        _gather(self.found.setdefault(pair, {}), differing)

    def noise(self, pair: Pair) -> float:
        """Of the worst output; infinite where something that is no number arrives."""
        shares = [power / max(self.signal[name], 1e-300) for name, power in self.found[pair].items()]
        return math.inf if any(map(math.isnan, shares)) else max(shares, default=0.0)


def _power(array: Array) -> float:
    return float(np.sum(np.square(array, dtype=np.float64)))


def _gather(sums: dict[str, float], more: Mapping[str, float]) -> None:
    for name, power in more.items():
        sums[name] = sums.get(name, 0.0) + power
