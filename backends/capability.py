"""Which low-precision formats an executor has kernels for, operator by operator, and where that is known from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eopt.backends.target import Target

MATRIX = "matrix"  # instead of a feature: the sheet has a matrix rate for the format's type


@dataclass(frozen=True)
class Capability:
    """A row of an executor's table.

    Attributes:
        format: `static-int8`, `dynamic-int8`, `float8`, `weight-int8` or `weight-int4`: operands as QDQ writes them.
        ops: operator types with a kernel that reads them so.
        needs: target features, or `matrix`, one of which must be present; none listed: always.
        source: a vendor's document, or what was measured here.
    """

    format: str
    ops: frozenset[str]
    needs: tuple[str, ...]
    source: str

    def on(self, target: Target) -> bool:
        """True when the target has what this needs."""
        dtype = "float8" if self.format == "float8" else "int8"
        in_sheet = MATRIX in self.needs and dtype in target.matrix
        return not self.needs or in_sheet or bool(target.features.intersection(self.needs))


def read(rows: Sequence[Mapping[str, Any]]) -> tuple[Capability, ...]:
    """The rows of an executor's file."""
    return tuple(
        Capability(row["format"], frozenset(row["ops"]), tuple(row.get("needs", ())), row["source"]) for row in rows
    )
