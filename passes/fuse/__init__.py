"""`fuse`: several operators that together are one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.passes import opset
from eopt.passes.base import Change, Context, Granularity, Outcome, Pass
from eopt.passes.fuse.attention import attention
from eopt.passes.fuse.conv_batchnorm import conv_batchnorm
from eopt.passes.fuse.gelu import gelu, gelu_tanh
from eopt.passes.fuse.layer_norm import layer_norm
from eopt.passes.fuse.matmul_add import matmul_add
from eopt.passes.fuse.pad_conv import pad_conv
from eopt.passes.fuse.rms_norm import rms_norm
from eopt.passes.rewrite import Rule, apply_rules, explain

RULES = {r.name: r for r in (pad_conv, conv_batchnorm, gelu, gelu_tanh, layer_norm, rms_norm, attention, matmul_add)}

# Operators the rules emit, and the opset that introduced them (https://onnx.ai/onnx/operators/).
_NEEDS = {"gelu": 20, "gelu-tanh": 20, "layer-norm": 17, "rms-norm": 23, "attention": 23}


@dataclass(frozen=True)
class Fuse(Pass):
    """Fuse operators: padding and batch norm into convolutions, bias into products, GELU, normalisations, attention.

    The operator set is raised once, and only if a rule that matches needs it.
    """

    name: ClassVar[str] = "fuse"
    after: ClassVar[tuple[str, ...]] = ("simplify",)
    granularity: ClassVar[Granularity] = Granularity.REWRITE

    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """All fusion rules, in the order they are tried."""
        return tuple(RULES.values())

    def run(self, model: Model, context: Context) -> Outcome:
        """See `Pass.run`."""
        chosen = self._chosen()
        current, applied, notes = model.swept(), list[Change](), list[str]()  # the dead count as users
        while True:
            lifted, ready, told = _lifted(current, chosen)
            outcome = apply_rules(lifted, ready, context, "fuse")
            applied += outcome.applied
            notes += [*told, *outcome.notes]
            current = outcome.model if outcome.applied else current
            # A fusion may let a rule match that needs a newer operator set than the model was raised to.
            if not outcome.applied or not _out_of_reach(current, chosen):
                return Outcome(current, tuple(applied), outcome.refused, tuple(dict.fromkeys(notes)))

    def _chosen(self) -> tuple[Rule, ...]:
        for name in (*self.only, *self.exclude):
            if name not in RULES:
                raise UsageError(f"fuse: no rule {name!r}; known are {', '.join(RULES)}")
        wanted = self.only or tuple(RULES)
        return tuple(RULES[name] for name in RULES if name in wanted and name not in self.exclude)


def _lifted(model: Model, chosen: tuple[Rule, ...]) -> tuple[Model, tuple[Rule, ...], tuple[str, ...]]:
    """Raise the operator set as far as the rules that match need; rules out of reach are left out with a note."""
    wanted = _out_of_reach(model, chosen)
    if not wanted:
        return model, _within(model, chosen), ()
    version = max(_NEEDS[r.name] for r in wanted)
    lifted, reason = opset.lift(model, version)
    if not reason:
        note = f"operator set raised from {model.opsets.get('')} to {version}"
        return lifted, _within(lifted, chosen), (note,)
    names = ", ".join(r.name for r in wanted)
    return model, _within(model, chosen), (f"{names} left out: needs opset {version}, but {reason}",)


def _within(model: Model, chosen: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Rules whose operators the model's operator set has."""
    return tuple(r for r in chosen if _NEEDS.get(r.name, 0) <= model.opsets.get("", 0))


def _out_of_reach(model: Model, chosen: tuple[Rule, ...]) -> list[Rule]:
    """Rules that match but need a newer operator set."""
    return [r for r in chosen if _NEEDS.get(r.name, 0) > model.opsets.get("", 0) and _matches(model, r)]


def _matches(model: Model, candidate: Rule) -> bool:
    return any(candidate.anchored_at(op) and explain(model, candidate, op) is None for op in model.leaves())
