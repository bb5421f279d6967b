"""Determinants, inverses and distances of square matrices and point sets."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Unit, Work, declare, traffic
from eopt.ir.opset.shared import mapped, panels, vector, wholes

_MICROSOFT = "com.microsoft"


def _per_matrix(view: OpView, cubic: float) -> Work:
    """The matrix is swept once for every eliminated column."""
    x = view.input(0)
    n = x.shape[-1]
    matrix_bytes = n * x.shape[-2] * x.dtype.bits / 8
    return vector(view, cubic * n * x.numel, again=(max(0, n - 1) * x.nbytes, matrix_bytes))


def _determinant(view: OpView) -> Work:
    """2/3 n^3 per matrix by LU decomposition (Golub and Van Loan, Matrix Computations, 3.2)."""
    return _per_matrix(view, 2 / 3)


def _inverse(view: OpView) -> Work:
    """2 n^3 per matrix: LU decomposition and n triangular solves."""
    return _per_matrix(view, 2.0)


def _distances(view: OpView) -> Work:
    """Difference, square and sum for every pair of points and coordinate, then a root."""
    a, b, y = view.input(0), view.input(1), view.outputs[0]
    read, written = traffic(view)
    again = panels(a.shape[0], b.shape[0], a.nbytes, b.nbytes)
    return Work(3.0 * y.numel * a.shape[-1] + y.numel, read, written, Unit.VECTOR, a.dtype, *again)


def _batch_axes(view: OpView) -> tuple[Tie, ...]:
    rank = len(view.input(0).shape)
    return wholes(view, (mapped(("x0", n, 1), ("y0", n, 1)) for n in range(rank - 2)))


def _pairs_axes(view: OpView) -> tuple[Tie, ...]:
    return wholes(view, [mapped(("x0", 0, 1), ("y0", 0, 1)), mapped(("x1", 0, 1), ("y0", 1, 1))])


declare(["Det"], _determinant, _batch_axes)
declare(["Inverse"], _inverse, _batch_axes, domain=_MICROSOFT)
declare(["CDist"], _distances, _pairs_axes, domain=_MICROSOFT)
