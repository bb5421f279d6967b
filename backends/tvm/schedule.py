"""Schedules without a search: as a kernel comes, and by rules."""

from __future__ import annotations

from math import prod
from typing import Any

from eopt.backends.tvm.lower import on_gpu

LANES = 16  # float32 of the widest vector registers; narrower machines take several steps
_SPATIAL, _REDUCED = 0, 2  # of `IterVar.iter_type`


def as_it_comes(function: Any, target: Any) -> Any:
    """A kernel in the least schedule its target runs: on a CPU none, on a GPU the rules of `dlight`."""
    if not on_gpu(target):
        return function
    import tvm
    from tvm.s_tir import dlight

    gpu = dlight.gpu
    rules = (gpu.Matmul(), gpu.GEMV(), gpu.Reduction(), gpu.GeneralReduction(), gpu.Fallback())
    with target:
        return dlight.ApplyDefaultSchedule(*rules)(tvm.IRModule({"main": function}))["main"]


def by_rules(function: Any) -> Any:
    """A CPU kernel with reductions outside its innermost loop, that loop in vectors, and the outer ones in parallel.

    Blocks whose loops are no plain iteration are left as they are.
    """
    import tvm
    from tvm import s_tir

    schedule = s_tir.Schedule(tvm.IRModule({"main": function}))
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        _arrange(schedule, block)
    return schedule.mod["main"]


def _arrange(schedule: Any, block: Any) -> None:
    loops = schedule.get_loops(block)
    kinds = [int(axis.iter_type) for axis in schedule.get(block).iter_vars]
    spatial = [loop for loop, kind in zip(loops, kinds, strict=False) if kind == _SPATIAL]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=False) if kind == _REDUCED]
    if len(loops) != len(kinds) or not spatial or len(spatial) + len(reduced) != len(loops):
        return
    outer, inner = spatial[:-1], spatial[-1]
    extent = int(schedule.get(inner).extent)
    wide = extent >= LANES
    if wide:
        outer, inner = _split(schedule, outer, inner, extent, 4 * LANES if reduced else LANES)
        if reduced:
            schedule.reorder(*outer, *reduced, inner)
        schedule.vectorize(inner)
    if not outer:
        return
    if prod(int(schedule.get(loop).extent) for loop in outer) > 1:
        schedule.parallel(schedule.fuse(*outer))
    if reduced and wide:
        schedule.decompose_reduction(block, reduced[0])


def _split(schedule: Any, outer: list[Any], inner: Any, extent: int, most: int) -> tuple[list[Any], Any]:
    step = most if extent % most == 0 else LANES
    if extent % step:
        return outer, inner
    first, second = schedule.split(inner, [None, step])
    return [*outer, first], second
