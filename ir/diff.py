"""What differs between two models, operators matched by the values they compute."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.text import format_op, format_value


@dataclass(frozen=True)
class Diff:
    """Differences, each as text: operators as lines of the text form with their module path."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[tuple[str, str], ...]
    weights_added: tuple[str, ...]
    weights_removed: tuple[str, ...]
    weights_changed: tuple[str, ...]
    interface: tuple[str, ...]

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return asdict(self)

    def __str__(self) -> str:
        if not self:
            return "no difference"
        lines = [f"! {line}" for line in self.interface]
        lines += [f"- {line}" for line in self.removed]
        lines += [f"+ {line}" for line in self.added]
        for before, after in self.changed:
            lines += [f"- {before}", f"+ {after}"]
        lines += [f"- weight {name}" for name in self.weights_removed]
        lines += [f"+ weight {name}" for name in self.weights_added]
        lines += [f"~ weight {name}" for name in self.weights_changed]
        return "\n".join(lines)


def diff(before: Model, after: Model) -> Diff:
    """Compare operators, weights (by content) and interface."""
    old, new = _by_output(before), _by_output(after)
    changed = [
        (_line(before, old[name]), _line(after, new[name]))
        for name in old
        if name in new and _line(before, old[name]) != _line(after, new[name])
    ]
    shared = [name for name in before.weights if name in after.weights]
    return Diff(
        tuple(_line(after, new[name]) for name in new if name not in old),
        tuple(_line(before, old[name]) for name in old if name not in new),
        tuple(changed),
        tuple(name for name in after.weights if name not in before.weights),
        tuple(name for name in before.weights if name not in after.weights),
        tuple(name for name in shared if not _same_weight(before, after, name)),
        tuple(_interface(before, after)),
    )


def _by_output(model: Model) -> dict[str, Op]:
    return {op.outputs[0].id if op.outputs else str(op.uid): op for op in model.leaves()}


def _line(model: Model, op: Op) -> str:
    path = model.path(op.uid)
    return f"{path}: {format_op(op)}" if path else format_op(op)


def _same_weight(before: Model, after: Model, name: str) -> bool:
    return before.weights[name] is after.weights[name] or before.weights.digest(name) == after.weights.digest(name)


def _interface(before: Model, after: Model) -> list[str]:
    lines = []
    for kind, old, new in (("input", before.inputs, after.inputs), ("output", before.outputs, after.outputs)):
        was, now = [format_value(value) for value in old], [format_value(value) for value in new]
        lines += [f"{kind} {line} is gone" for line in was if line not in now]
        lines += [f"{kind} {line} is new" for line in now if line not in was]
    if dict(before.opsets) != dict(after.opsets):
        lines.append(f"operator sets {dict(before.opsets)} became {dict(after.opsets)}")
    return lines
