"""What a checkpoint holds: the source's tensors, with those in their place that the compiled model has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from eopt.backends.checkpoint import linear, recover
from eopt.backends.checkpoint.files import Entry, Stored
from eopt.backends.checkpoint.linear import Activations, Array, QuantisedLinear, Scheme
from eopt.backends.checkpoint.recover import LINEAR, NotCarried, Place
from eopt.ir.errors import InputError
from eopt.ir.model import Model
from eopt.ir.node import Op

RESCALED = 0.1  # spread of a weight's columns against its source's; rounding alone spreads them by less than 0.05
UNLIKE = 0.5  # share of a weight that its source does not explain; rounding to 4 bits leaves some 0.2

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""What vLLM runs as one layer in most models, and takes one scheme for."""


@dataclass
class Plan:
    """Gathered in one walk over the source's tensors.

    Attributes:
        schemes: by name of a quantised linear layer.
        ignored: linear layers left in float.
        notes: names by what the checkpoint does not say of them.
        left: linear layers that are quantised in the model and float in the checkpoint.
        moved: parameters that hold scales of others now.
        unknown: float parameters of which the model does not tell whether they are the source's.
    """

    entries: list[Entry] = field(default_factory=list)
    schemes: dict[str, Scheme] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def note(self, name: str, reason: str) -> None:
        """Add to the notes."""
        self.notes.setdefault(reason, []).append(name)

    def lines(self) -> tuple[str, ...]:
        """The notes, one line for each reason."""
        more = {reason: f" and {len(names) - 1} more" if names[1:] else "" for reason, names in self.notes.items()}
        return tuple(f"{names[0]}{more[reason]}: {reason}" for reason, names in self.notes.items())


def plan(model: Model, original: Model, tensors: Mapping[str, Stored]) -> Plan:
    """Plan a checkpoint. Every weight is looked at once, one at a time.

    Args:
        model: the compiled model.
        original: what it was compiled from.
        tensors: of the Hugging Face folder that `original` was made of.

    Raises:
        InputError: the model has other shapes than its source or is not made of it, nothing is quantised as a
            checkpoint can be, or scales were moved between parameters not all of which can be told.
    """
    walk = _Walk(model, original, recover.places(model), recover.places(original))
    keys = named(walk.now, tensors)
    made = Plan()
    for name, stored in tensors.items():
        made.entries.append(walk.entry(made, name, keys.get(name), stored))
        stored.file.release()
    made.ignored = list(dict.fromkeys([*made.ignored, "lm_head"]))  # tied to the embedding, it has no tensor
    _finish(made, walk, set(keys.values()))
    return made


def named(keys: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Places in the model by names of the source, which may lack or add an outer module on either side."""
    known = set(names)
    prefixes = {"", *(f"{'.'.join(name.split('.')[:depth])}." for name in known for depth in (1, 2))}
    best: dict[str, str] = {}
    for inner in (0, 1):
        tails = {key.split(".", inner)[-1]: key for key in keys}
        for prefix in sorted(prefixes):
            found = {prefix + tail: key for tail, key in tails.items() if prefix + tail in known}
            best = max(best, found, key=len)
    return best


@dataclass(frozen=True)
class _Walk:
    """Both models, and where they keep parameters."""

    model: Model
    original: Model
    now: Mapping[str, Place]
    before: Mapping[str, Place]

    def entry(self, made: Plan, name: str, key: str | None, stored: Stored) -> Entry:
        """What the checkpoint has for a tensor of the source."""
        module, _, leaf = name.rpartition(".")
        if key is None:
            self._unseen(made, name, stored)
            return _copy(name, stored)
        place = self.now[key]
        if leaf == "weight" and place.op.op in LINEAR:
            try:
                layer = self._layer(place.op)
            except NotCarried as reason:
                made.note(name, f"left as in the source: {reason}")
                made.left.append(name)
                made.ignored.append(module)
                return _copy(name, stored)
            if layer is not None:
                return self._quantised(made, module, place.op, layer, stored)
            made.ignored.append(module)
        return self._float(made, name, key, stored)

    def _unseen(self, made: Plan, name: str, stored: Stored) -> None:
        module, _, leaf = name.rpartition(".")
        if leaf == "weight" and len(stored.shape) == 2:
            made.ignored.append(module)
        elif len(stored.shape) == 1:
            made.unknown.append(name)

    def _layer(self, op: Op) -> QuantisedLinear | None:
        layer = recover.quantised(self.model, op)
        if layer is None:
            return None
        if self._stored_transposed(op):
            raise NotCarried("it is a Conv1D, and engines look for Linear")
        scale = recover.rescaled_by(self.model, op)
        if scale is not None and not self._scaled_before(scale):
            raise NotCarried("its input is rescaled as the model runs")
        return layer

    def _scaled_before(self, scale: Op) -> bool:
        """Whether the module of this product with a vector had one before, as normalisations do."""
        before = self.before.get(f"{recover.module_of(self.model, scale)}.weight")
        return before is not None and before.op.op not in LINEAR

    def _stored_transposed(self, op: Op) -> bool:
        return self.model.parent(op.uid).cls.endswith("Conv1D")

    def _quantised(self, made: Plan, module: str, op: Op, layer: QuantisedLinear, stored: Stored) -> Entry:
        _same_shape(f"{module}.weight", layer.integers, stored)
        if _rescaled(module, layer.dequantised(), stored.array()):
            made.moved.append(f"{module}.weight")
        made.schemes[module] = layer.scheme
        if layer.scheme.activations is Activations.DYNAMIC:
            made.note(module, "its input has one scale per tensor here and one per token in engines, which is finer")
        if layer.scheme.activations is Activations.FLOAT and recover.quantises_input(self.model, op):
            made.note(module, "its input stays float: that of weights with groups or zero points cannot be quantised")
        specs = {f"{module}.{leaf}": (array.dtype, array.shape) for leaf, array in linear.tensors(layer).items()}
        return Entry(specs, partial(_stored_layer, self.model, op, module))

    def _float(self, made: Plan, name: str, key: str, stored: Stored) -> Entry:
        """A parameter that stays float: new values where a rewrite has changed them."""
        place, before = self.now[key], self.before.get(key)
        values = recover.plain(self.model, place)
        was = recover.plain(self.original, before) if before else None
        if values is None or was is None:
            made.unknown.append(name)
            return _copy(name, stored)
        if self._stored_transposed(place.op):
            values, was = values.T, was.T
        _same_shape(name, values, stored)
        if np.array_equal(was.astype(values.dtype), values):
            return _copy(name, stored)
        if not np.array_equal(was, stored.array().astype(was.dtype)):  # the module computes with something made of it
            made.unknown.append(name)
            return _copy(name, stored)
        made.moved.append(name)
        return Entry({name: (stored.dtype, stored.shape)}, partial(_stored_float, self.model, place, name, stored))


def _copy(name: str, stored: Stored) -> Entry:
    return Entry({name: (stored.dtype, stored.shape)}, lambda: {name: stored.array()})


def _stored_layer(model: Model, op: Op, module: str) -> dict[str, Array]:
    layer = recover.quantised(model, op)
    assert layer is not None, "it was there when this was planned"
    return {f"{module}.{leaf}": array for leaf, array in linear.tensors(layer).items()}


def _stored_float(model: Model, place: Place, name: str, stored: Stored) -> dict[str, Array]:
    values = recover.plain(model, place)
    assert values is not None, "it was there when this was planned"
    return {name: values.reshape(stored.shape).astype(stored.dtype)}


def _same_shape(name: str, values: Array, stored: Stored) -> None:
    if values.shape != stored.shape:
        raise InputError(
            f"{name} is {list(values.shape)} in the compiled model and {list(stored.shape)} in its source, "
            "whose architecture a checkpoint keeps; leave out the pass that changes shapes"
        )


def _rescaled(module: str, weight: Array, source: Array) -> bool:
    """Whether columns, or rows as well, have been multiplied by factors.

    Raises:
        InputError: even with factors for rows and columns it is not the source's weight.
    """
    source = source.astype(np.float32, copy=False)
    weight = weight.astype(np.float32, copy=False)
    columns, unlike = _fitted(weight, source, 0)
    if unlike <= UNLIKE:
        return float(np.sqrt(np.mean((columns - 1) ** 2))) > RESCALED
    for _ in range(3):  # factors for rows too: least squares for one side at a time
        rows, _ = _fitted(weight, source * columns, 1)
        columns, unlike = _fitted(weight, source * rows, 0)
    if unlike > UNLIKE:
        raise InputError(f"{module}: the compiled model's weight is not made of the source's; is it the same model?")
    return True


def _fitted(weight: Array, source: Array, axis: int) -> tuple[Array, float]:
    """Least-squares factors of columns (axis 0) or rows, and the share of the weight they leave unexplained."""
    kept = "ij,ij->j" if axis == 0 else "ij,ij->i"
    energy = np.einsum(kept, source, source)
    product = np.einsum(kept, weight, source)
    factors = np.divide(product, energy, out=np.ones_like(product), where=energy > 0)
    size = float(np.vdot(weight, weight))
    unlike = 1 - float(np.vdot(factors, product)) / size if size else 0.0  # the residual is orthogonal to the fit
    return np.expand_dims(factors, axis), float(np.sqrt(max(unlike, 0.0)))


def _finish(made: Plan, walk: _Walk, matched: set[str]) -> None:
    """Notes that need all layers, and what makes the whole inconsistent."""
    for key, place in walk.now.items():
        if key not in matched and place.op.op in LINEAR and recover.is_quantised(walk.model, place):
            made.note(key, "quantised, but the source has no parameter of that name")
    for op in recover.quantised_elsewhere(walk.model):
        made.note(recover.module_of(walk.model, op) or op.name, f"{op.op} reads quantised values; engines keep float")
    _fused_alike(made)
    if not made.schemes:
        told = "".join(f"; {line}" for line in made.lines()[:3])
        raise InputError(f"no linear layer of the compiled model is quantised as a checkpoint can be{told}")
    doubtful = made.left + made.unknown
    if made.moved and doubtful:
        raise InputError(
            f"{made.moved[0]} was rescaled together with others, and {doubtful[0]} cannot follow it into a checkpoint; "
            "compile without smoothing"
        )


def _fused_alike(made: Plan) -> None:
    layers = {**dict.fromkeys(made.ignored), **made.schemes}
    for parent in dict.fromkeys(module.rpartition(".")[0] for module in made.schemes):
        for group in FUSED:
            schemes = {layers[name] for leaf in group if (name := f"{parent}.{leaf}") in layers}
            if len(schemes) > 1:
                made.note(parent, f"vLLM takes one scheme for {', '.join(group)}, where these differ")
