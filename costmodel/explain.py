"""Where a figure comes from: the prior's terms, what the network adds, devices alike, and what of the sheet matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any

from eopt.backends.executor import Executor
from eopt.backends.impute import completed
from eopt.backends.target import Target
from eopt.costmodel.embedding import device
from eopt.costmodel.learned import Learned
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Basis, Cost, CostModel, Kernel, Unknown
from eopt.costmodel.roofline import Latency, latency
from eopt.costmodel.service import FIGURES, Figures, estimate, in_model, scope
from eopt.costmodel.tree import Priced, Situation, price
from eopt.ir.model import Model

STEP = 1.5  # what a figure of the sheet is multiplied by
NEAREST = 5


@dataclass(frozen=True)
class Explanation:
    """One kernel on one target.

    Attributes:
        engines: executors that the network and the prior were asked about.
        figures: as of a cost query; None where unknown.
        reasons: what was assumed, or why there is no figure.
        joules: by cause (static, flops, dram, llc, launch) of the prior, and the correction to what the network says.
        correction_log: the network over the prior, natural logarithm, of latency and energy; 0 where there is none.
        prior: the terms of the roofline: seconds of arithmetic, memory and launch, and bytes by level.
        nearest: devices of the training set with their distances, nearest first; none where the prior answers.
        imputed: fields the sheet does not state, and the factor within which nine in ten estimates lie.
        elasticities: by field of the sheet, relative change of latency and energy when it is `STEP` times as much.
    """

    kernel: Kernel
    engines: tuple[str, str]
    figures: Mapping[str, float | None]
    scope: str
    basis: Basis
    reasons: tuple[str, ...]
    joules: Mapping[str, float]
    correction_log: Mapping[str, float]
    prior: Mapping[str, float]
    nearest: tuple[tuple[str, float], ...]
    imputed: Mapping[str, float]
    elasticities: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "op": self.kernel.name,
            "family": self.kernel.family,
            "executor": {"network": self.engines[0], "prior": self.engines[1]},
            **self.figures,
            "energy_scope": self.scope,
            "basis": str(self.basis),
            "reasons": list(self.reasons),
            "joules": dict(self.joules),
            "correction_log": dict(self.correction_log),
            "prior": dict(self.prior),
            "nearest": [{"device": name, "distance": distance} for name, distance in self.nearest],
            "imputed": dict(self.imputed),
            "elasticities": {name: dict(changes) for name, changes in self.elasticities.items()},
        }


def explain_query(
    kernels: Sequence[Kernel],
    engines: Sequence[str],
    target: Target,
    default: Executor,
    model: CostModel,
    said: bool = True,
) -> list[Explanation]:
    """Kernels by themselves, as `eopt query` prices them.

    Args:
        engines: by kernel, the name of the executor the network is asked about.
        default: the executor the prior is asked about.
        said: as in `service.estimate`.
    """
    ask = lambda sheet: estimate(kernels, engines, sheet, default, model, said)
    return _explain(kernels, engines, ask, target, default, model)


def explain_model(kernels: Sequence[Kernel], target: Target, executor: Executor, model: CostModel) -> list[Explanation]:
    """Kernels of a model, as `eopt predict` prices them."""
    engines = [executor.name] * len(kernels)
    return _explain(kernels, engines, lambda sheet: in_model(kernels, sheet, executor, model), target, executor, model)


def _explain(
    kernels: Sequence[Kernel],
    engines: Sequence[str],
    ask: Callable[[Target], Figures],
    target: Target,
    default: Executor,
    model: CostModel,
) -> list[Explanation]:
    found = ask(target)
    changes = _elasticities(ask, target) if any(found.known) else [{}] * len(kernels)
    return [
        _explained(kernel, (engines[row], default.name), found, row, changes[row], target, default, model)
        for row, kernel in enumerate(kernels)
    ]


def _explained(
    kernel: Kernel,
    engines: tuple[str, str],
    found: Figures,
    row: int,
    changes: Mapping[str, Mapping[str, float]],
    target: Target,
    default: Executor,
    model: CostModel,
) -> Explanation:
    prior, time = Prior().query(kernel, target, default), latency(kernel, target, default)
    head = (kernel, engines)
    if isinstance(prior, Unknown) or isinstance(time, Unknown):
        nothing = dict.fromkeys(FIGURES)
        return Explanation(*head, nothing, scope(target), Basis.UNKNOWN, found.reasons[row], {}, {}, {}, (), {}, {})
    figures = dict(zip(FIGURES, found.values[row].tolist(), strict=True))
    learned = found.basis[row] is not prior.basis
    return Explanation(
        *head,
        figures,
        scope(target),
        found.basis[row],
        found.reasons[row],
        _joules(prior, figures["energy_j"]),
        {
            "latency": log(figures["latency_s"] / prior.latency_s.mid),
            "energy": log(figures["energy_j"] / prior.energy_j.mid),
        },
        _terms(time, prior),
        nearest(model, target) if learned and isinstance(model, Learned) else (),
        completed(target).imputed,
        changes,
    )


class _Listing:
    """A cost model that prices nothing and remembers which kernels it is asked about."""

    def __init__(self) -> None:
        self.asked: list[tuple[Unknown, Kernel]] = []

    def query(self, kernel: Kernel, target: Target, executor: Executor) -> Cost | Unknown:
        """See `CostModel.query`."""
        return self.query_many([kernel], target, executor)[0]

    def query_many(self, kernels: Sequence[Kernel], target: Target, executor: Executor) -> list[Cost | Unknown]:
        """An answer of its own for every kernel, by which it is found again."""
        answers = [Unknown(("not asked",)) for _ in kernels]
        self.asked += zip(answers, kernels, strict=True)
        return list(answers)


def kernels_of_model(model: Model, situation: Situation) -> tuple[Priced, dict[int, Kernel | Unknown]]:
    """What is executed for a model, without figures, and the kernel by uid of the first operator in it."""
    listing = _Listing()
    plan = price(model, replace(situation, cost_model=listing))
    kernels = {id(answer): kernel for answer, kernel in listing.asked}
    return plan, {uid: kernels.get(id(cost), cost) for uid, cost in plan.unknown.items()}


def nearest(model: Learned, target: Target) -> tuple[tuple[str, float], ...]:
    """Devices of the training set whose sheets are most like this one, and how far they are (1: their usual spread)."""
    ranked = sorted(model.distances(device(target)).items(), key=lambda item: item[1])
    return tuple(ranked[:NEAREST])


def changed(target: Target) -> dict[str, Target]:
    """The target with one figure of its sheet `STEP` times as much, by the name of the figure.

    Gaps are filled in first, or a figure that is estimated from the changed one would change with it.
    """
    sheet = _filled(target)
    peaks = {unit: {name: STEP * rate for name, rate in getattr(sheet, unit).items()} for unit in ("matrix", "vector")}
    return {
        "bandwidth_bytes_per_s": replace(sheet, bandwidth_bytes_per_s=_times(sheet.bandwidth_bytes_per_s)),
        "peaks": replace(sheet, matrix=peaks["matrix"], vector=peaks["vector"]),
        "cores": replace(sheet, cores=round(_times(sheet.cores) or 0)),
        "llc_bytes": replace(sheet, l2_bytes=_times(sheet.l2_bytes)),
        "tdp_w": replace(sheet, tdp_w=_times(sheet.tdp_w)),
        "clock_hz": replace(
            sheet,
            clock_hz=_times(sheet.clock_hz),
            clock_base_hz=_times(sheet.clock_base_hz),
            clock_boost_hz=_times(sheet.clock_boost_hz),
        ),
    }


def _times(value: float | None) -> float | None:
    return None if value is None else STEP * value


def _filled(target: Target) -> Target:
    """The same device with every gap filled by its estimate, so that the network reads the same sheet."""
    known = completed(target)
    return replace(
        target,
        release_year=round(known.release_year),
        process_nm=known.process_nm,
        cores=round(known.cores),
        lanes_per_core=known.lanes_per_core,
        clock_base_hz=target.clock_base_hz or known.clock_hz,
        clock_boost_hz=known.clock_boost_hz,
        tdp_w=known.tdp_w,
        idle_w=known.idle_w,
        memory_type=known.memory_type,
        l2_bytes=known.llc_bytes,
        l2_bandwidth_bytes_per_s=known.llc_bandwidth_bytes_per_s,
        l1_bytes_per_core=known.l1_bytes_per_core,
    )


def _elasticities(ask: Callable[[Target], Figures], target: Target) -> list[dict[str, dict[str, float]]]:
    base = ask(_filled(target)).values
    found: list[dict[str, dict[str, float]]] = [{} for _ in base]
    for name, sheet in changed(target).items():
        relative = ask(sheet).values / base - 1
        for row, changes in enumerate(relative[:, [0, 3]].tolist()):
            found[row][name] = dict(zip(("latency", "energy"), changes, strict=True))
    return found


def _joules(prior: Cost, energy_j: float) -> dict[str, float]:
    """Static power is drawn while launching as well; that part is told apart."""
    launch_j = prior.terms["static"] * prior.launch_s / prior.latency_s.mid
    named = {name: prior.terms[name] for name in ("flops", "dram", "llc")}
    return {
        "static": prior.terms["static"] - launch_j,
        **named,
        "launch": launch_j,
        "correction": energy_j - prior.energy_j.mid,
    }


def _terms(time: Latency, prior: Cost) -> dict[str, float]:
    return {
        "compute_s": time.compute_s,
        "memory_s": time.memory_s,
        "launch_s": time.launch_s,
        "latency_s": prior.latency_s.mid,
        "energy_j": prior.energy_j.mid,
        "dram_bytes": time.dram_bytes,
        "llc_bytes": time.llc_bytes,
    }
