"""`eopt predict` as a library: energy and latency of every operator and module of a model, of a step of training, and
of a model that is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from immutables import Map

from eopt.backends.impute import completed
from eopt.costmodel import serving
from eopt.costmodel.serving import Plan, Server
from eopt.costmodel.training import TRAINING
from eopt.costmodel.tree import Priced, Situation, batch_dims, bindings_for, price
from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.tools import frontdoor
from eopt.tools.situation import Options, unbound


def predict_model(
    model: Model | str | Path,
    target: str | None,
    *,
    batch: int | None = None,
    bind: Mapping[str, int] | None = None,
    **options: Unpack[Options],
) -> tuple[Priced, Situation]:
    """Price a model on a target; nothing is run.

    Args:
        batch, bind: extents of symbolic dims.
        options: how it is run, as of `eopt.tools.situation.Options`.

    Raises:
        UsageError: no target; an unknown target, executor, phase, optimiser or cost model; a clock or power the target
            does not have; an executor that does not train or capture; a symbolic dim without a value.
        InputError: unusable model or cost model.
    """
    where = unbound(target, **options)
    model = model if isinstance(model, Model) else frontdoor.load(model)
    chosen = replace(where, bindings=bindings_for(model, batch, bind or {}))
    return price(model, chosen), chosen


def predict_config(
    path: str | Path,
    target: str | None,
    *,
    bind: Mapping[str, int] | None = None,
    **options: Unpack[Options],
) -> tuple[Priced, ...]:
    """Price every phase of the architecture in a `config.json`: prefill and decode, or forward.

    A step of training goes over all tokens at once, as a prefill does. Options are those of `predict_model`.

    Raises:
        UsageError: as of `predict_model`; torch or transformers is not installed.
        InputError: not the configuration of an architecture that can be traced, or unusable cost model.
    """
    from eopt.ir.trace import config

    where = unbound(target, **options)
    architecture = config.read(Path(path), bind or {})
    extents = {name: {**architecture.bindings} for name in architecture.phases}
    if "prefill" in extents:
        del extents["prefill"]["past"]
    if where.phase == TRAINING:
        name = next(iter(architecture.phases))
        return (price(architecture.phases[name], replace(where, bindings=Map(extents[name]))),)
    return tuple(
        price(model, replace(where, bindings=Map(extents[name]), phase=name))
        for name, model in architecture.phases.items()
    )


def predict_serving(
    model: Model,
    situation: Situation,
    qps: float,
    *,
    slo_s: float | None = None,
    batch: int | None = None,
    bind: Mapping[str, int] | None = None,
) -> Plan:
    """How a load in requests a second is served, each a batch of one.

    Args:
        slo_s: bound of the 99th percentile of the latency.
        batch: the largest batch; chosen among powers of two by default.

    Raises:
        UsageError: the inputs have no symbolic dim that counts samples, nothing of the model can be priced, or less of
            it in some batch.
    """
    if not set(batch_dims(model)) - set(bind or {}):
        raise UsageError("--load: no symbolic dim of the inputs counts samples; export the model with a symbolic batch")
    largest = batch or serving.LARGEST_BATCH
    sizes = [size for size in (1 << power for power in range(largest.bit_length())) if size < largest] + [largest]
    priced = [price(model, replace(situation, bindings=bindings_for(model, size, bind or {}))) for size in sizes]
    known = priced[0].known.keys()
    if not known:
        raise UsageError("--load: nothing of the model can be priced; without --load its reasons are listed")
    partial = [size for size, found in zip(sizes, priced, strict=True) if found.known.keys() != known]
    if partial:
        raise UsageError(f"--load: at batch {partial[0]} fewer operators can be priced; give a smaller --batch")
    idle_w = completed(situation.target).idle_w
    latencies = tuple(found.latency_s.mid for found in priced)
    server = Server(tuple(sizes), latencies, tuple(found.energy_j for found in priced), idle_w)
    return serving.plan(server, qps, slo_s, (batch,) if batch else None)
