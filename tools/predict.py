"""`eopt predict` as a library: the energy and latency of every operator and module of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from immutables import Map

from eopt.costmodel.tree import Priced, Situation, price
from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.tools import frontdoor
from eopt.tools.situation import hardware
from eopt.tools.situation import situation as make_situation

_NO_TARGET = "a prediction needs a target; give --target NAME (eopt targets list)"


def predict_model(
    model: Model | str | Path,
    target: str,
    *,
    executor: str | None = None,
    batch: int | None = None,
    bind: Mapping[str, int] | None = None,
    clock_mhz: float | None = None,
    power_cap_w: float | None = None,
) -> tuple[Priced, Situation]:
    """Price a model on a target, at a clock in MHz and under a power cap in W where given; nothing is run.

    Raises:
        UsageError: unknown target or executor, a clock or power the target does not have, or a symbolic dim without a
            value.
        InputError: unusable model.
    """
    model = model if isinstance(model, Model) else frontdoor.load(model)
    chosen = make_situation(model, target, executor, batch, bind or {}, clock_mhz, power_cap_w)
    if chosen is None:
        raise UsageError(_NO_TARGET)
    return price(model, chosen), chosen


def predict_config(
    path: str | Path,
    target: str | None,
    *,
    executor: str | None = None,
    bind: Mapping[str, int] | None = None,
    clock_mhz: float | None = None,
    power_cap_w: float | None = None,
) -> tuple[Priced, ...]:
    """Price every phase of the architecture in a `config.json`: prefill and decode, or forward.

    Raises:
        UsageError: unknown target, executor or dim, or a clock or power the target does not have; torch or transformers
            is not installed.
        InputError: not the configuration of an architecture that can be traced.
    """
    from eopt.ir.trace import config

    if target is None:
        raise UsageError(_NO_TARGET)
    runs_on, runs_it = hardware(target, executor, clock_mhz, power_cap_w)
    architecture = config.read(Path(path), bind or {})
    extents = {phase: {**architecture.bindings} for phase in architecture.phases}
    if "prefill" in extents:
        del extents["prefill"]["past"]
    return tuple(
        price(model, Situation(runs_on, runs_it, Map(extents[phase]), phase=phase))
        for phase, model in architecture.phases.items()
    )
