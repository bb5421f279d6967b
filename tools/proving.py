"""`eopt compile --measure`: every pass is run in turns with the last good model; what measures worse is rolled back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from eopt.backends.base import Unknown
from eopt.ir.model import Model
from eopt.passes.contract import Verdict
from eopt.passes.pipeline import Compiled, Step
from eopt.tools.against import Comparison
from eopt.tools.report.units import si
from eopt.tools.turns import SAME, WORSE, Saved

Compare = Callable[[Model, Model], Comparison]


@dataclass(frozen=True)
class Proven:
    """A compilation whose passes were measured.

    Attributes:
        compiled: with the last good model; passes that measured worse are not kept, their verdict says by how much.
        trials: by pass that changed the model: its place among the steps, and the comparison with the last good one.
        whole: the original against the result; None where nothing was kept.
    """

    compiled: Compiled
    trials: tuple[tuple[int, Comparison], ...]
    whole: Comparison | None


def prove(compiled: Compiled, compare: Compare) -> Proven:
    """Keep the passes up to the last that does not measure worse than the last good model before it.

    A pass that measures worse stays only where a later one makes up for it: its work is in the later one's model.
    """
    good, last = compiled.original, -1
    trials: list[tuple[int, Comparison]] = []
    for place, step in enumerate(compiled.steps):
        if not step.kept or step.outcome.model is good:
            continue
        found = compare(good, step.outcome.model)
        trials.append((place, found))
        if found.verdict != WORSE:
            good, last = step.outcome.model, place
    measured = dict(trials)
    steps = tuple(_proven(step, measured.get(place), place > last) for place, step in enumerate(compiled.steps))
    proven = replace(compiled, model=good, steps=steps)
    if good is compiled.original:
        return Proven(proven, tuple(trials), None)
    alone = len(trials) == 1
    return Proven(proven, tuple(trials), trials[0][1] if alone else compare(compiled.original, good))


def _proven(step: Step, found: Comparison | None, dropped: bool) -> Step:
    """The step with what was measured in its notes, and a failed verdict where it is rolled back."""
    if found is None:
        return step
    noted = replace(step, outcome=replace(step.outcome, notes=(*step.outcome.notes, f"measured: {sentence(found)}")))
    if not dropped:
        return noted
    figure = decisive(found)
    unit = "J" if found.by == "energy" else "s"
    return replace(noted, verdict=Verdict(False, figure.after, figure.before, unit, "this machine"))


def decisive(found: Comparison) -> Saved:
    """The figure that decides: joules where they were metered, else seconds."""
    return found.latency if isinstance(found.energy, Unknown) else found.energy


def sentence(found: Comparison) -> str:
    """The verdict in words, with the figures that decide."""
    figure, unit = decisive(found), "J" if found.by == "energy" else "s"
    saves = f"{si(figure.mean, unit)} ({si(figure.lo, unit)} to {si(figure.hi, unit)}, 95 %)"
    verdict = f"{found.verdict}, the interval contains 0" if found.verdict == SAME else found.verdict
    return f"{verdict}: {si(figure.before, unit)} before, {si(figure.after, unit)} after, saves {saves} by {found.by}"


def measured_lines(proven: Proven) -> Iterator[str]:
    """What was measured, for people: by pass, and of all that is left."""
    for place, found in proven.trials:
        step = proven.compiled.steps[place]
        kept = "kept" if step.kept else "rolled back"
        yield f"measured {step.spec}: {kept}; {sentence(found)}"
    if proven.whole is not None:
        yield f"measured in all: {sentence(proven.whole)}"
        return
    yield "measured: nothing is left of the passes; the input is written unchanged"
