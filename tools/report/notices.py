"""Warnings at the top of a report: what a reader must know before believing a figure."""

from __future__ import annotations

from eopt.tools.report.frontier import fruitless
from eopt.tools.report.tree import Json
from eopt.tools.report.units import percent


def of_compilation(report: Json) -> list[str]:
    """What stands out in a compilation."""
    found = [_rolled_back(step) for step in report["passes"] if not step["kept"]]
    found += [
        f"{step['spec']}: nothing could be quantised within the contract"
        for step in report["passes"]
        if fruitless(step)
    ]
    if report["situation"] is None:
        return [*found, "no target given: nothing was priced, and rewrites were not gated on energy"]
    if not any(step["kept"] and step["applied"] for step in report["passes"]):
        found.append("nothing pays here: no rewrite was applied")
    before, after = report["before"]["energy_j"], report["after"]["energy_j"]
    if before and after and after["mid"] > before["mid"]:
        found.append("the result is predicted to use more energy than the original")
    return found + of_prices(report["situation"], report["after"])


def of_prices(situation: Json, priced: Json) -> list[str]:
    """What stands out in the prices of one model."""
    found = []
    if situation["imputed"]:
        missing = ", ".join(situation["imputed"])
        found.append(f"the sheet of {situation['target']} does not state {missing}: estimated")
    unknown = priced["unknown"]
    if unknown["count"]:
        share = percent(unknown["share"])
        found.append(f"{unknown['count']} operators ({share}) cannot be priced and are missing from the totals")
    return found


def _rolled_back(step: Json) -> str:
    where = f"; first broken at {step['broken_at']}" if step["broken_at"] else ""
    return f"{step['spec']} was rolled back: {step['verdict']['text']}{where}"
