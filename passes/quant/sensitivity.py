"""How much noise each operator would add at the model's outputs, measured once for every operator and format."""

from __future__ import annotations

from collections.abc import Sequence

from eopt.backends.base import Array, Feed
from eopt.ir.errors import InputError
from eopt.ir.model import Model
from eopt.passes.base import Context
from eopt.passes.contract import Sqnr
from eopt.passes.quant.choose.problem import FLOAT, Buildable, Problem

SAMPLES = 8  # noise is a power over all outputs of all samples: a few samples rank operators


def measured(choices: Buildable, problem: Problem, context: Context) -> dict[tuple[int, str], float]:
    """Noise over signal at the worst output, by operator and option, with only that operator quantised.

    Errors of several operators are small and nearly independent, so that their powers add up. An operator that breaks
    the model counts infinite.
    """
    model, data = choices.model, context.data
    assert data is not None
    feeds = list(data.take(slice(0, SAMPLES)).batches(model.feeds))
    reference = list(context.runner.run(model, feeds))
    pairs = [(site, option) for site in problem.sites for option in site.options if option.name != FLOAT]
    found: dict[tuple[int, str], float] = {}
    for number, (site, option) in enumerate(pairs):
        quantised = choices.built({site.key: option})
        found[site.key, option.name] = _noise(reference, context, quantised, feeds)
        context.progress("sensitivity", number + 1, len(pairs))
    return found


def _noise(reference: Sequence[dict[str, Array]], context: Context, quantised: Model, feeds: Sequence[Feed]) -> float:
    try:
        outputs = list(context.runner.run(quantised, feeds))
    except InputError:
        return float("inf")
    return float(10 ** (-Sqnr(0.0).check(reference, outputs).measured / 10))
