"""What using a model costs: a load that is served, and a whole training run, as plain data and as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eopt.costmodel.costs import times
from eopt.costmodel.query import Interval
from eopt.costmodel.run import MONTH_S, Bill, Rates, Run, bill
from eopt.costmodel.serving import Plan, Served
from eopt.tools.report.data import interval
from eopt.tools.report.tree import Json
from eopt.tools.report.units import percent, si


def of_serving(plan: Plan, qps: float, slo_s: float | None, rates: Rates) -> Json:
    """The key `serving` of a report; figures of all devices together are null where the objective cannot be held."""
    power_w = times(plan.each.power_w, plan.devices) if plan.each and plan.devices else None
    month = None if power_w is None else bill(times(power_w, MONTH_S), rates)
    return {
        "serving": {
            "qps": qps,
            "slo_s": slo_s,
            "devices": plan.devices,
            "sustained_qps": plan.sustained_qps,
            "each": None if plan.each is None else _served(plan.each),
            "power_w": None if power_w is None else interval(power_w),
            "month": None if month is None else _bill(month),
        }
    }


def of_run(run: Run) -> Json:
    """The key `run` of a report."""
    figures = {"duration_s": interval(run.duration_s), "energy_j": interval(run.energy_j)}
    return {"run": {"steps": run.steps, **figures, **_bill(run.bill)}}


def lines(report: Json) -> Iterator[str]:
    """Both for people."""
    if "serving" in report:
        yield from _serving_lines(report["serving"])
    if "run" in report:
        run = report["run"]
        hours = run["duration_s"]["mid"] / 3600
        yield f"run of {run['steps']} steps: {hours:.4g} h, {_costs(run)}"


def _serving_lines(serving: Json) -> Iterator[str]:
    each, devices, slo_s = serving["each"], serving["devices"], serving["slo_s"]
    within = "" if slo_s is None else f" within {si(slo_s, 's')} for 99 of 100"
    if each is None:
        yield f"serving: not even a light load is answered{within}; no number of devices helps"
        return
    if devices > 1:
        yield (
            f"serving: one device sustains {serving['sustained_qps']:.4g} requests/s{within}; "
            f"{serving['qps']:g} need {devices} devices, and each gets {each['qps']:.4g}"
        )
    else:
        yield f"serving {serving['qps']:g} requests/s{within}; one device sustains {serving['sustained_qps']:.4g}"
    yield (
        f"  batches of up to {each['max_batch']}, {each['mean_batch']:.3g} on average; "
        f"busy {percent(each['utilisation'])}; "
        f"latency {si(each['latency_mean_s'], 's')} on average, {si(each['latency_p99_s'], 's')} for 99 of 100"
    )
    joules = each["request_j"]
    yield f"  {si(joules['mid'], 'J')} [{si(joules['lo'], 'J')}, {si(joules['hi'], 'J')}] a request with idle time"
    yield f"  {si(serving['power_w']['mid'], 'W')}, in a month {_costs(serving['month'])}"


def _costs(figures: Json) -> str:
    kwh, money, co2e = figures["energy_kwh"], figures["money"], figures["co2e_kg"]
    found = [f"{kwh['mid']:.4g} kWh [{kwh['lo']:.3g}, {kwh['hi']:.3g}]"]
    found += [f"{money['mid']:.4g} for energy"] if money else []
    found += [f"{co2e['mid']:.4g} kg CO2e"] if co2e else []
    return ", ".join(found)


def _served(served: Served) -> Json:
    plain: dict[str, Any] = {name: getattr(served, name) for name in served.__dataclass_fields__}
    return {name: interval(value) if isinstance(value, Interval) else value for name, value in plain.items()}


def _bill(bill: Bill) -> Json:
    figures = {name: getattr(bill, name) for name in ("energy_kwh", "money", "co2e_kg")}
    return {name: None if figure is None else interval(figure) for name, figure in figures.items()}
