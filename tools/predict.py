"""`eopt predict` as a library: the energy and latency of every operator and module of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eopt.costmodel.tree import Priced, Situation, price
from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.tools import frontdoor
from eopt.tools.situation import situation as make_situation


def predict_model(
    model: Model | str | Path,
    target: str,
    *,
    executor: str | None = None,
    batch: int | None = None,
    bind: Mapping[str, int] | None = None,
) -> tuple[Priced, Situation]:
    """Price a model on a target; nothing is run.

    Raises:
        UsageError: unknown target or executor, or a symbolic dim without a value.
        InputError: unusable model.
    """
    model = model if isinstance(model, Model) else frontdoor.load(model)
    chosen = make_situation(model, target, executor, batch, bind or {})
    if chosen is None:
        raise UsageError("a prediction needs a target; give --target NAME (eopt targets list)")
    return price(model, chosen), chosen
