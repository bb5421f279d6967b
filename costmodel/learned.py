"""The learned cost model behind the same protocol as the prior, and for many kernels at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import Any

import numpy as np

from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.costmodel import artifact, intervals, whole_head
from eopt.costmodel.artifact import Artifact
from eopt.costmodel.embedding import Device, device
from eopt.costmodel.network import SIMILAR
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Basis, Cost, CostModel, Interval, Kernel, Unknown, Whole
from eopt.costmodel.samples import KINDS
from eopt.costmodel.table import BACK_TO_BACK, FAMILIES, Table, table
from eopt.costmodel.whole_sum import summed

Array = np.ndarray[Any, Any]
FAR = 1.5  # from the nearest known device, in units of the spread between known devices: what is beyond extrapolates
WIDEN = 0.25  # logarithm of half an interval for each unit of distance
UNTRIED_SPREAD = log(3.0)
# Engines that were not measured launch like one that was: each operator from the host, or from a captured graph.
ALIKE = {"torch-compile": "torch", "onnxruntime-cuda": "torch", "onnxruntime": "torch", "tvm": "torch"}


@dataclass(frozen=True)
class Prediction:
    """Of each row: seconds, joules, and the logarithms of half their 90 % intervals."""

    latency_s: Array
    energy_j: Array
    launch_s: Array
    latency_spread: Array
    energy_spread: Array


@dataclass(frozen=True)
class Learned:
    """Predicts GPUs from their sheets. Kernels or targets it knows nothing of go to the physics prior.

    Attributes:
        latent: use what was learnt from measurements of the very device; off, the sheet alone answers.
    """

    model: Artifact
    latent: bool = True

    @classmethod
    def shipped(cls) -> Learned:
        """The model of this release."""
        return cls(artifact.shipped())

    def __hash__(self) -> int:
        return id(self.model) ^ self.latent

    def covers(self, kernel: Kernel, target: Target) -> bool:
        """True when the network, and not the prior, answers."""
        return target.kind in KINDS and self._trained(kernel.family)

    def predict(self, rows: Table, target: Target, executor: str) -> Prediction:
        """Every row of a table whose families are all covered."""
        chip = device(target)
        seconds, watts, launch = np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows))
        spreads, away = np.empty((2, len(rows))), self.distance(chip)[0]
        for code in np.unique(rows.family):
            places = np.flatnonzero(rows.family == code)
            name = FAMILIES[code]
            found = self.model.network.answer(rows.take(places), chip, self._executor(name, executor), self.latent)
            seconds[places], watts[places], launch[places] = found.latency_s, found.power_w, found.launch_s
            asked = rows.dtype[places], rows.scale[places], found.latency_s
            kinds, place = intervals.kinds(SIMILAR.get(name, name), *asked)
            for number, quantity in enumerate(("latency", "energy")):
                spreads[number, places] = self._spread(quantity, kinds, chip, away)[place] + found.log_spread
        return Prediction(seconds, seconds * watts, launch, *spreads)

    def query(self, kernel: Kernel, target: Target, executor: Executor) -> Cost | Unknown:
        """See `CostModel.query`."""
        return self.query_many([kernel], target, executor)[0]

    def query_many(self, kernels: Sequence[Kernel], target: Target, executor: Executor) -> list[Cost | Unknown]:
        """Costs of many kernels in one go, as they follow each other in a model.

        Each takes what it takes alone, or what the executor needs to launch it, whichever is longer: the next launch is
        prepared while a kernel runs.
        """
        prior = [Prior().query(kernel, target, executor) for kernel in kernels]
        places = [
            place
            for place, kernel in enumerate(kernels)
            if self.covers(kernel, target) and isinstance(prior[place], Cost)
        ]
        if not places:
            return prior
        found = self.predict(table([settled(kernels[place], executor) for place in places]), target, BACK_TO_BACK)
        basis, reasons = self.basis(target)
        for row, place in enumerate(places):
            estimate = prior[place]
            assert isinstance(estimate, Cost)
            prior[place] = _cost(found, row, estimate, executor, basis, reasons)
        return prior

    def whole(
        self, kernels: Sequence[Kernel], counts: Sequence[int], target: Target, executor: Executor, training: bool
    ) -> Whole | None:
        """See `WholeCostModel.whole`: by the head fitted to whole models."""
        head = self.model.head
        if head is None or not kernels or not all(self.covers(kernel, target) for kernel in kernels):
            return None
        rows = table([settled(kernel, executor) for kernel in kernels])
        found = whole_head.apply(
            head, summed(self.model.network, rows, np.array(counts), target, not executor.captured, training)
        )
        chip = device(target)
        further = _further(chip, self.distance(chip)[0])
        seconds, joules = (
            _around(float(found[name][0]), self.model.whole_spread[quantity] + further)
            for name, quantity in (("latency_s", "latency"), ("energy_j", "energy"))
        )
        return Whole(seconds, joules)

    def basis(self, target: Target) -> tuple[Basis, tuple[str, ...]]:
        """`predicted` near devices it knows, `extrapolated` far from all of them, and what was assumed."""
        chip = device(target)
        reasons = tuple(f"{name} imputed" for name in chip.imputed if "." not in name)
        distance, nearest = self.distance(chip)
        if distance > FAR:
            return Basis.EXTRAPOLATED, (*reasons, f"unlike any device measured; the nearest is {nearest}")
        return Basis.PREDICTED, reasons

    def distance(self, chip: Device) -> tuple[float, str]:
        """From the nearest device of the training set, in spreads of their embeddings, and its name."""
        if chip.name in self.model.network.devices and self.latent:
            return 0.0, chip.name
        name, away = min(self.distances(chip).items(), key=lambda item: item[1])
        return away, name

    def distances(self, chip: Device) -> dict[str, float]:
        """By device of the training set, how far its sheet is, in spreads of their embeddings."""
        network = self.model.network
        sizes = []
        for member in range(network.members):
            own = network.sheet(member, chip)
            known = network.weights[f"{member}/known"]
            spread = np.maximum(known.std(0), 1e-6)
            sizes.append(np.sqrt(np.mean(((known - own) / spread) ** 2, axis=1)))
        return dict(zip(network.devices, np.mean(sizes, axis=0).tolist(), strict=True))

    def _trained(self, family: str) -> bool:
        return f"0/{SIMILAR.get(family, family)}/w1" in self.model.network.weights

    def _executor(self, family: str, wanted: str) -> str:
        """Who launches as this one does, where it was not measured itself; by default who was measured most."""
        if wanted == BACK_TO_BACK:
            return wanted
        measured = {name for names in self.model.executors.values() for name in names}
        known = self.model.executors.get(SIMILAR.get(family, family), ())
        alike = wanted if wanted in measured else ALIKE.get(wanted, "")
        return alike if alike in measured or not known else known[0]

    def _spread(self, quantity: str, kind: Array, chip: Device, away: float) -> Array:
        known = chip.name in self.model.network.devices and self.latent
        half = {name: both["known" if known else "unseen"] for name, both in self.model.spread[quantity].items()}
        return intervals.widths(half, kind, UNTRIED_SPREAD) + _further(chip, away)


def _further(chip: Device, away: float) -> float:
    """What half an interval grows by far from every known device, and with figures that the sheet leaves open."""
    return WIDEN * max(0.0, away - FAR) + 0.5 * chip.log_uncertainty


def settled(kernel: Kernel, executor: Executor) -> Kernel:
    """float32 arithmetic as the executor does it where nothing is said."""
    if kernel.math or kernel.family != "conv":
        return kernel
    return replace(kernel, math=executor.conv_math)


def current() -> CostModel:
    """The cost model of this release; the physics prior where no trained one is there.

    Raises:
        InputError: EOPT_MODEL names a folder without one.
    """
    return Learned.shipped() if artifact.available() else Prior()


def _cost(
    found: Prediction, row: int, estimate: Cost, executor: Executor, basis: Basis, reasons: tuple[str, ...]
) -> Cost:
    alone_s, alone_j = float(found.latency_s[row]), float(found.energy_j[row])
    launch_s = min(float(found.launch_s[row]), alone_s)
    waiting_w = min(estimate.terms["static"] / estimate.latency_s.mid, alone_j / alone_s)
    latency_s = max(alone_s, executor.launch_s)
    energy_j = alone_j + waiting_w * (latency_s - alone_s)
    scale = energy_j / estimate.energy_j.mid  # the prior says how joules divide, the network how many there are
    return Cost(
        _around(latency_s, float(found.latency_spread[row])),
        _around(energy_j, float(found.energy_spread[row])),
        estimate.energy_scope,
        basis,
        {name: joules * scale for name, joules in estimate.terms.items()},
        latency_s - (alone_s - launch_s),
        reasons,
    )


def _around(value: float, spread: float) -> Interval:
    return Interval(value, value * exp(-spread), value * exp(spread))
