"""One case from its copies to the figures of its line."""

from __future__ import annotations

import statistics
from math import ceil
from typing import Any

from benchmarks.gpu import meter as limits
from benchmarks.gpu.cases.base import Call, Case
from benchmarks.gpu.meter import Load, Meter, Window, energies, spread

EAGER_S = 0.1  # of a first look at the latency
WARM_UP = 3


def measured(torch: Any, case: Case, meter: Meter) -> dict[str, Any]:
    """The figures of a case: seconds, watts and joules of one call.

    Raises:
        Missing: it needs something that is not here.
    """
    with torch.no_grad(), case.around(torch):
        before = meter.board.sample()
        copies = _copies(torch, case, meter)
        eager = Load(lambda: [call() for call in copies], len(copies))
        for _ in range(WARM_UP):
            eager.unit()
        eager_s = meter.seconds(eager, min(EAGER_S, meter.budget.window_s))
        graph, graph_s, note = _graph(case, meter, eager, eager_s)
        bound = graph is not None and graph_s is not None and graph_s < limits.LAUNCH_BOUND * eager_s
        load, latency_s = (graph, graph_s) if bound else (eager, eager_s)
        assert load is not None
        assert latency_s is not None
        windows = meter.windows(load, latency_s)
    return {
        "launch": "graph" if bound else "eager",
        **_figures(windows, meter.idle_w),
        "latency_eager_s": eager_s,
        "latency_graph_s": graph_s,
        "copies": len(copies),
        "clocks": {"before": before, "during": [window.sample for window in windows], "after": meter.board.sample()},
        "notes": [note] if note else [],
    }


def _copies(torch: Any, case: Case, meter: Meter) -> list[Call]:
    """As many as hold twice the cache: no call finds what the one before it read.

    What a first call leaves behind, as the workspace of a library, is no part of a copy: sizes are taken before it.
    """
    held = meter.device.allocated()
    copies = [case.make(torch, meter.device.kind)]
    each = max(case.touched_bytes or meter.device.allocated() - held, 1)
    wanted = ceil(limits.ROTATED * meter.device.l2_bytes / each)
    if not meter.device.allocated():
        wanted = 2
    more = min(wanted, meter.device.room() // each, case.most_copies) - 1
    return copies + [case.make(torch, meter.device.kind) for _ in range(more)]


def _graph(case: Case, meter: Meter, eager: Load, eager_s: float) -> tuple[Load | None, float | None, str]:
    if not case.graph or eager_s > limits.LONG_S:
        return None, None, ""
    try:
        replay = meter.device.capture(eager.unit)
    except RuntimeError as error:
        return None, None, f"no graph: {str(error).splitlines()[0][:120]}"
    if replay is None:
        return None, None, ""
    load = Load(replay, eager.calls)
    return load, meter.seconds(load, EAGER_S), ""


def _figures(windows: list[Window], idle_w: float | None) -> dict[str, Any]:
    latencies = [window.latency_s for window in windows]
    latency_s = statistics.median(latencies)
    cv = statistics.stdev(latencies) / statistics.mean(latencies)
    joules = energies(windows)
    energy_spread = spread(joules)
    energy_j = statistics.median(joules) if joules else None
    power_w = None if energy_j is None else energy_j / latency_s
    clock_mhz = windows[-1].sample["sm_mhz"]
    return {
        "latency_s": latency_s,
        "latency_cv": cv,
        "power_w": power_w,
        "energy_j": energy_j,
        "energy_net_j": None if energy_j is None or idle_w is None else energy_j - idle_w * latency_s,
        "energy_spread": energy_spread,
        "energy_scope": None if energy_j is None else "board",
        "clock_hz": None if clock_mhz is None else clock_mhz * 1e6,
        "window_s": statistics.median(window.seconds for window in windows),
        "trials": len(windows),
        "noisy": cv > limits.NOISY_CV or (energy_spread or 0.0) > limits.GOOD,
    }
