"""Modules from the names of weights: `encoder.layer.0.attention.query.weight` lies in module `...attention.query`.

For files whose nodes say nothing of themselves, as converters and optimisers leave them. Operators without a weight of
their own join what their neighbours share (`scopes.inherited`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from eopt.ir.node import Op
from eopt.ir.scopes import MAX_DEPTH, Scope, shared
from eopt.ir.weights import WeightStore

_SEPARATORS = re.compile(r"[./]")
_NUMBER = re.compile(r"\d+")
_USUAL = re.compile(r"[A-Za-z_][\w-]*|\d+")  # `onnx::MatMul_12`, `(1).w` are made up by exporters and say nothing
MIN_SHARE = 0.5  # of the operators that read parameters have to name a module, or the names are not module paths


def prefix_scopes(ops: Sequence[Op], weights: WeightStore) -> dict[int, Scope]:
    """Scopes of the operators that read named parameters, by uid; empty when the names are no module paths."""
    found: dict[int, Scope] = {}
    uses = Counter(name for op in ops for name in op.reads if weights.is_parameter(name))
    readers = 0
    for op in ops:
        read = [name for name in op.reads if uses[name] == 1]  # one that is shared has the name of either module
        paths = [path for path in map(module_of, read) if path]
        readers += bool(read)
        if paths:
            found[op.uid] = shared(paths)
    modules = {scope for scope in found.values() if scope}
    return found if len(modules) > 1 and len(found) >= MIN_SHARE * readers else {}


def module_of(weight: str) -> Scope:
    """The module a weight belongs to; numbers stay with the name before, as in `layer.0`. () when it names none."""
    parts = _SEPARATORS.split(weight)[:-1]
    if not parts or not all(_USUAL.fullmatch(part) for part in parts):
        return ()
    names: list[str] = []
    for part in parts:
        if names and _NUMBER.fullmatch(part):
            names[-1] = f"{names[-1]}.{part}"
        else:
            names.append(part)
    return tuple((name, "") for name in names[:MAX_DEPTH])
