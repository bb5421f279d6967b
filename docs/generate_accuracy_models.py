"""Write the tables of docs/accuracy-models.md from a built table of measurements.

python docs/generate_accuracy_models.py --table DIR [--networks DIR]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from eopt.costmodel import baselines, folds, whole_scores, whole_tables
from eopt.costmodel.datasets import table as tables
from eopt.costmodel.datasets.draw import draw
from eopt.costmodel.samples import samples
from eopt.costmodel.train import Settings
from eopt.costmodel.wholes import matched

PAGE = Path(__file__).parent / "accuracy-models.md"
ABOVE = "<!-- tables: everything below is written by docs/generate_accuracy_models.py -->"
SOURCES = ("energaizer", "joulepoint", "llmperf", "mlenergy", "neusight", "zeus")
GENERATIONS = ("ampere", "blackwell", "hopper", "pascal", "turing", "volta")
CAP = 200
SHORTEST_S = 50e-6  # below it a host is measured, not a device
GROUPS = {
    "Latency": ("latency", "latency prior"),
    "Energy, from the sheet alone": ("energy", "energy prior", "energy, known", "ridge", "others"),
    "Energy, the time given": ("energy, time given", "TDP"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="made by eopt data build")
    parser.add_argument("--networks", type=Path, help="folder that keeps the networks of the folds")
    options = parser.parse_args()
    wholes, missing = matched(tables.read(options.table, SOURCES), tables.workloads(options.table, SOURCES))
    found = samples(draw(options.table, CAP))
    without = whole_scores.networks(found, whole_scores.smaller(Settings()), options.networks)
    scores = whole_scores.evaluate_wholes(wholes, without, GENERATIONS)
    left = whole_scores.workload_out(wholes, without("nothing"), "joulepoint")
    parts = [_errors(scores, name, methods) for name, methods in GROUPS.items()]
    parts += [
        _section("A workload left out, all devices known (joulepoint)", whole_scores.summary(left)),
        _section("float16 over float32, joulepoint", whole_tables.format_ratios(scores, "energy")),
        _section("The same, workload known", whole_tables.format_ratios(scores, "energy, known")),
        _section("Joules over those at another clock, energaizer", whole_tables.clock_ratios(scores, "energy")),
        _section("The same, time given", whole_tables.clock_ratios(scores, "energy, time given")),
        _section("Choice of a power cap, Zeus", whole_tables.cap_choices(scores, "energy")),
        _section("Weights of four bits, llmperf", whole_tables.rewrites(scores, "energy")),
        _section("Operators in models, NeuSight, forward", _in_models(options.table, without)),
        _section("Rows without a list of operators", missing),
    ]
    head = PAGE.read_text(encoding="utf-8").partition(ABOVE)[0] if PAGE.exists() else "# Accuracy on whole models\n\n"
    PAGE.write_text(head + ABOVE + "\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")


def _errors(scores: pd.DataFrame, title: str, methods: tuple[str, ...]) -> str:
    """Mean and median error by source and device, of several methods."""
    long = whole_tables.by_device(scores)
    long = long[long["method"].isin(methods)]
    long["cell"] = [f"{mean:.0f} / {median:.0f}" for mean, median in zip(long["mean"], long["median"], strict=True)]
    keys = ["source", "generation", "device"]
    wide = long.pivot_table(index=keys, columns="method", values="cell", aggfunc="first")
    wide = wide[[name for name in methods if name in wide]].rename(columns=whole_tables.METHODS)
    mine = long[long["method"] == methods[0]].set_index(keys)
    wide.insert(0, "rows", mine["rows"])
    wide.insert(1, "bias", mine["bias"].map("{:+.2f}".format))
    return _section(title, wide.reset_index())


def _in_models(table: Path, without: whole_scores.Networks) -> pd.DataFrame:
    """Operators of 50 us and more as they were measured inside of models, whose generation is left out."""
    rows = tables.read(table, ["neusight"])
    inside = (rows["level"] == "operator") & ~rows["workload"].astype(str).str.startswith("micro")
    inside &= (rows["phase"] == "forward") & (rows["latency_s"] >= SHORTEST_S) & ~rows["noisy"].fillna(False)
    found = samples(rows[inside].reset_index(drop=True))
    found = found.take(folds.left_out(found, generations=GENERATIONS))
    names = np.array(found.devices)[found.device]
    error, roofline = np.full(len(names), np.nan), baselines.roofline(found) - np.log(found.latency_s)
    for name in GENERATIONS:
        gone = folds.left_out(found, generations=[name])
        if gone.any():
            error[gone] = folds.residuals(without(name), found.take(gone)).latency
    apes = pd.DataFrame({"device": names, "eopt": error, "roofline": roofline}).set_index("device")
    apes = 100 * np.abs(np.expm1(apes))
    grouped = apes.groupby("device")
    wide = grouped.mean().round(0).astype(int).astype(str) + " / " + grouped.median().round(0).astype(int).astype(str)
    wide.insert(0, "operators", grouped.size())
    return wide.reset_index()


def _section(title: str, table: pd.DataFrame) -> str:
    lines = [f"## {title}", "", f"| {' | '.join(table.columns)} |", "|" + "---|" * len(table.columns)]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
