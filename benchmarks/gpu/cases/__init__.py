"""All cases, one family a file, in the order they are worth measuring."""

from __future__ import annotations

from itertools import zip_longest

from benchmarks.gpu.cases import attention, conv, fused, gemm, models, norm, pointwise, pruned, values, weight_only
from benchmarks.gpu.cases.base import FIRST, SECOND, THIRD, Case

FAMILIES = (gemm, attention, conv, norm, pointwise, fused, pruned, weight_only, values, models)


def ordered(quick: bool = False) -> list[Case]:
    """Every case by rank; within a rank the families take turns, so that a short run has seen them all.

    Pairs that are compared (`fused`, `values`) come in pairs.
    """
    found = []
    for rank in (FIRST, SECOND, THIRD):
        own = [[case for case in family.cases(quick) if case.rank == rank] for family in FAMILIES]
        turns = zip_longest(*([part[place : place + 2] for place in range(0, len(part), 2)] for part in own))
        found += [case for turn in turns for pair in turn if pair for case in pair]
    return found
