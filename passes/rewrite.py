"""The driver: applies rules until none matches, under the cost gate and within a budget.

Rules are imported from here: `from eopt.passes.rewrite import Matcher, Replacement, rule`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.passes.base import Change, Context, Outcome
from eopt.passes.match import Array, Fact, Matcher, Miss
from eopt.passes.rules import Replacement, Rule, explain, rule, where
from eopt.passes.worklist import Attempt, Worklist

__all__ = ["Array", "Matcher", "Miss", "Replacement", "Rule", "apply_rules", "explain", "rule", "where"]

LAST = 32  # rewrites a note on an exhausted budget looks back on


def apply_rules(
    model: Model, rules: Iterable[Rule], context: Context, label: str, budget: int | None = None
) -> Outcome:
    """Apply rules until none matches any more, each rewrite only if the gate accepts it.

    Every rule is tried once at each operator it starts from, and again when a rewrite changes a fact it was told
    (see `View`): attempts are linear in operators and rewrites, and no rule has to declare how far it looks. When all
    is quiet every operator is tried once more, so what ends is a fixpoint even for a rule that looks elsewhere.

    Args:
        budget: most rewrites, by default 4 for each operator and 64. Rules that undo each other end there; the notes
            of the outcome say which.
    """
    run = _Run(model, tuple(rules), context, label)
    limit = 4 * len(model.leaves()) + 64 if budget is None else budget
    notes: tuple[str, ...] = ()
    for attempt in run.attempts():
        found = run.match(attempt)
        if found is None:
            continue
        if len(run.applied) == limit:
            notes = (_exhausted(run.rules[attempt[0]], run.applied),)
            break
        run.apply(attempt, found)
    return Outcome(run.model, tuple(run.applied), tuple(run.refused.values()), notes)


def _exhausted(following: Rule, applied: Sequence[Change]) -> str:
    last = Counter(change.rule for change in applied[-LAST:]).most_common(3)
    listed = ", ".join(f"{name} {count} times" for name, count in last) or "none"
    return (
        f"stopped after {len(applied)} rewrites with {following.name} still matching; the last ones: {listed}. "
        "Rules that undo each other never end"
    )


class _Run:
    """The state of one run of `apply_rules`."""

    def __init__(self, model: Model, rules: tuple[Rule, ...], context: Context, label: str) -> None:
        self.model, self.rules, self.context, self.label = model, rules, context, label
        self.applied: list[Change] = []
        self.refused: dict[Attempt, Change] = {}
        self.work = Worklist([item.anchors for item in rules])

    def attempts(self) -> Iterator[Attempt]:
        """What to try next, until a round over all operators has changed nothing.

        Operators that a rewrite left without users go before each round: they would count as users of what they read.
        """
        tried, confirmed = 0, -1
        while len(self.applied) > confirmed:
            confirmed = len(self.applied)
            self.model = self.model.swept()
            self.work.add(self.model.leaves())
            while self.work:
                tried += 1
                attempt = self.work.pop()
                self.context.progress(self.label, tried, tried + len(self.work))
                yield attempt

    def match(self, attempt: Attempt) -> Replacement | None:
        """What the rule would exchange; where it misses, it waits for the facts it was told to change."""
        number, uid = attempt
        if uid not in self.model.index.nodes or attempt in self.refused:
            return None
        op = self.model.index.op(uid)
        matcher = Matcher(self.model)
        try:
            return self.rules[number].rewrite(matcher, op)
        except Miss:
            self.work.wait(attempt, [*matcher.model.asked, *(("producer", value.id) for value in op.outputs)])
            return None

    def apply(self, attempt: Attempt, found: Replacement) -> None:
        """Exchange, if the gate accepts it, and queue whatever may match now."""
        candidate, op = self.rules[attempt[0]], self.model.index.op(attempt[1])
        rewritten = self.model.replace(found.old, found.new, weights=found.weights, renames=found.renames)
        change = self._decided(candidate, op, rewritten)
        if change.reason:
            self.refused[attempt] = change
            return
        self.applied.append(change)
        before, self.model = self.model, rewritten
        touched = _touched(before, rewritten, found)
        self.work.push(attempt)
        self.work.add(touched.new)
        self.work.wake(touched.facts)

    def _decided(self, candidate: Rule, op: Op, rewritten: Model) -> Change:
        place = where(self.model, op)
        if self.context.gate is None or candidate.exempt:
            return Change(candidate.name, place)
        decision = self.context.gate.decide(self.model, rewritten)
        return Change(candidate.name, place, decision.saved_j, decision.reason)


@dataclass(frozen=True)
class _Touched:
    """What a rewrite changed: operators that are new, and facts rules may have been told."""

    new: tuple[Op, ...]
    facts: tuple[Fact, ...]


def _touched(before: Model, after: Model, found: Replacement) -> _Touched:
    """The operators that went or came or read other values now; what they compute, and whom else they read from."""
    went = [*found.old, *(user for name in found.renames for user in before.users(name))]
    names = dict.fromkeys(value.id for op in (*went, *found.new) for value in op.outputs)
    came = [op for op in map(after.producer, names) if op is not None]
    facts: dict[Fact, None] = {("producer", name): None for name in (*names, *found.weights)}
    for name in (name for op in (*went, *came) for name in op.reads):
        facts["users", name] = None
    new = tuple(dict.fromkeys(op for op in came if op.uid not in before.index.nodes))
    return _Touched(new, tuple(facts))
