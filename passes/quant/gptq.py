"""GPTQ: weights are rounded row by row, and the rows that follow make up for each one's error.

Frantar et al. 2022, arXiv:2210.17323. For y = x W, x [samples, k] and W [k, n], it lowers |x (W - Q)|^2; all it has to
know of the samples is H = x^T x. With H^-1 = R^T R, R upper triangular, the error e of row i, divided by R[i, i], is
taken from the rows j > i times R[i, j].

Rows go in falling order of H[i, i]: those with the most to lose first, while many are left to make up for them. The
formats store groups of consecutive rows, whose turns come at different times, so grids are chosen beforehand, with
1 / R[i, i]^2 as the importance of row i: what a squared error there costs once the later rows did what they can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from eopt.ir.errors import InputError
from eopt.passes.quant.blocks import Blocks, BlockWeight, round_to_nearest
from eopt.passes.quant.candidates import Anchor
from eopt.passes.quant.weight_only import Solve

Array = np.ndarray[Any, Any]

DAMPING = 0.01  # share of the mean diagonal that is added to the diagonal (section 3.3 of the paper)
_LAZY = 128  # rows until the rest of the weight is brought up to date, in one product


class Hessian:
    """x^T x of all activations [..., k] seen, in float32: k^2 numbers, however many samples."""

    def __init__(self, k: int) -> None:
        self.matrix = np.zeros((k, k), np.float32)

    def update(self, activations: Array) -> None:
        """Take in activations, the input features last."""
        rows = activations.reshape(-1, len(self.matrix)).astype(np.float32, copy=False)
        self.matrix += rows.T @ rows


def hessians(anchors: Iterable[Anchor], features: Mapping[str, int]) -> dict[str, Hessian]:
    """An empty Hessian for each activation that products read, by its name: queries, keys and values share one.

    Args:
        features: rows of each weight, by its name.
    """
    return {anchor.data: Hessian(features[anchor.weight]) for anchor in anchors}


def solver(anchors: Iterable[Anchor], seen: Mapping[str, Hessian], spec: Blocks) -> Solve:
    """What quantises the weights of these anchors for `weight_only.quantise`; a tied one for all of its activations."""
    inputs: dict[str, set[str]] = {}
    for anchor in anchors:
        inputs.setdefault(anchor.weight, set()).add(anchor.data)

    def solved(name: str, weight: Array) -> BlockWeight:
        first, *others = (seen[data].matrix for data in sorted(inputs[name]))
        hessian = sum(others, start=first)
        if not np.isfinite(hessian).all():
            told = ", ".join(map(repr, sorted(inputs[name])))
            raise InputError(f"GPTQ of weight {name!r}: calibration saw NaN or infinity in {told}; repair the samples")
        return solve(weight, hessian, spec)

    return solved


def solve(weight: Array, hessian: Array, spec: Blocks) -> BlockWeight:
    """Quantise a weight so that its products with the activations behind `hessian` change least.

    The row of an input that was never anything but 0 goes to the nearest point, and no other makes up for it.

    Args:
        weight: float32 [k, n], finite; left as it is.
        hessian: [k, k], finite, see `Hessian`.
    """
    order = np.argsort(-np.diagonal(hessian), kind="stable")
    factor = inverse_factor(hessian[np.ix_(order, order)])
    importance = np.empty(len(order), np.float32)
    importance[order] = 1 / np.square(np.diagonal(factor))
    result = round_to_nearest(weight, spec, importance)
    rest = weight[order].astype(np.float32)
    for start in range(0, len(order), _LAZY):
        block = slice(start, start + _LAZY)
        errors = _rounded(rest[block], order[block], factor[block, block], result)
        rest[block.stop :] -= factor[block, block.stop :].T @ errors
    return result


def _rounded(rest: Array, rows: Array, factor: Array, result: BlockWeight) -> Array:
    """Round a block of rows in turn, each after what those before left to it; their errors, divided by R[i, i]."""
    errors = np.empty_like(rest)
    for number, row in enumerate(rows):
        grid = result.grid(row)
        rounded = grid.integers(rest[number])
        result.integers[row] = rounded
        errors[number] = (rest[number] - grid.real(rounded)) / factor[number, number]
        rest[number + 1 :] -= np.outer(factor[number, number + 1 :], errors[number])
    return errors


def inverse_factor(hessian: Array) -> Array:
    """R, upper triangular, with R^T R the inverse of the damped Hessian; float32 [k, k].

    The Cholesky factor of H with rows and columns reversed is, reversed back, an upper triangular U with H = U U^T, so
    R = U^-1: one factorisation, and no inverse that rounding could make indefinite.
    """
    damped = hessian.astype(np.float64)
    mean = float(np.diagonal(damped).mean())
    damped[np.diag_indices_from(damped)] += DAMPING * mean if mean > 0 else 1.0
    upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    return _inverse(upper).astype(np.float32)


def _inverse(upper: Array) -> Array:
    """The inverse of an upper triangular matrix by halves, which is nearly all products: NumPy has no solver for it."""
    if len(upper) <= _LAZY:
        return np.triu(np.linalg.inv(upper))
    half = len(upper) // 2
    inverse = np.zeros_like(upper)
    inverse[:half, :half], inverse[half:, half:] = _inverse(upper[:half, :half]), _inverse(upper[half:, half:])
    inverse[:half, half:] = -inverse[:half, :half] @ (upper[:half, half:] @ inverse[half:, half:])
    return inverse
