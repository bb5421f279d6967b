"""Models larger than memory: all batches through one segment of the model after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from eopt.backends.base import Array, Feed, Runner
from eopt.backends.ort import OrtRunner
from eopt.backends.segments_cut import Segment, segments
from eopt.ir.errors import InputError
from eopt.ir.model import Model

# An engine holds the weights and a copy of them packed for its kernels: together half of what a small machine has.
WHOLE_BYTES = 2 << 30


def runner_for(model: Model) -> Runner:
    """Whoever runs this model in the memory of a small machine."""
    size = sum(map(model.weights.nbytes, model.weights))
    return OrtRunner() if size <= WHOLE_BYTES else SegmentedRunner()


@dataclass(frozen=True)
class SegmentedRunner:
    """Runs a model in consecutive segments; the weights of one of them at a time are in memory.

    Every operator sees the operands it sees in the whole model, so an engine that takes them one by one gives equal
    bits. One that optimises cannot fuse across a cut: sums are rounded elsewhere, and a quantised model may land on the
    next step. Nor can one that lacks half precision keep single precision across it, as onnxruntime does on CPUs.

    Attributes:
        runner: runs the segments.
        max_bytes: weights of a segment; an operator that has more is a segment of its own.
        max_live_bytes: what batches together may hold between segments, results and tapped values included. Batches go
            in groups that fit, at least one at a time; the weights are read once for each group.
    """

    runner: Runner = field(default_factory=OrtRunner)
    max_bytes: int = 512 << 20
    max_live_bytes: int = 1 << 30

    def run(self, model: Model, batches: Iterable[Feed], taps: Sequence[str] = ()) -> Iterator[dict[str, Array]]:
        """See `Runner.run`."""
        tapped = tuple(model.value(name) for name in dict.fromkeys(taps) if not model.is_output(name))
        model = replace(model, outputs=(*model.outputs, *tapped)).swept()
        parts = segments(model, self.max_bytes)
        waiting, size = iter(batches), 1  # what the first holds tells how many can go together
        while group := [dict(feed) for feed in islice(waiting, size)]:
            largest = max(map(_nbytes, group))
            for part in parts:
                largest = max(largest, self._advance(part, group))
            size = max(1, self.max_live_bytes // max(1, largest))
            yield from (_results(model, live) for live in group)

    def _advance(self, part: Segment, group: list[dict[str, Array]]) -> int:
        """Run a segment on a group in place; bytes of the largest batch behind it."""
        fed = {value.id for value in part.model.inputs}
        feeds = ({name: live[name] for name in fed & live.keys()} for live in map(group.__getitem__, range(len(group))))
        for place, made in enumerate(self.runner.run(part.model, feeds)):
            live = group[place] | made
            group[place] = {name: live[name] for name in live if name in part.kept}
        return max(map(_nbytes, group))


def _results(model: Model, live: Mapping[str, Array]) -> dict[str, Array]:
    """What a graph returns may be computed, fed, or a weight."""
    results: dict[str, Array] = {}
    for name in (value.id for value in model.outputs):
        if name not in live and name not in model.weights:
            raise InputError(f"the model computes no value {name!r}, and none is fed")
        results[name] = live[name] if name in live else model.weights.array(name)
    return results


def _nbytes(live: Mapping[str, Any]) -> int:
    """Bytes of arrays, and of those in sequences; what else an engine may return is small."""
    found = [item for value in live.values() for item in (value if isinstance(value, list) else (value,))]
    return sum(getattr(item, "nbytes", 0) for item in found)
