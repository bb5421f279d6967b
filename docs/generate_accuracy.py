"""Write docs/accuracy.md from the scores that `eopt evaluate --dump` leaves.

python docs/generate_accuracy.py scores.parquet [more.parquet …]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

PAGE = Path(__file__).parent / "accuracy.md"
ABOVE = "<!-- scores: everything below is written by docs/generate_accuracy.py -->"
METHODS = {
    "latency": ("eopt", "eopt, 5 shots", "eopt, 20 shots", "eopt, 60 shots", "roofline", "nearest device", "ridge",
                "trees"),
    "power": ("eopt", "TDP"),
    "energy": ("eopt", "TDP x roofline"),
}  # fmt: skip
TITLES = {
    "latency": "Latency, from the sheet alone",
    "power": "Power, given the measured latency",
    "energy": "Energy, from the sheet alone",
}
KEYS = ["fold", "device", "family", "dtype", "scale", "source"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores", type=Path, nargs="+")
    options = parser.parse_args()
    scores = pd.concat([pd.read_parquet(path) for path in options.scores], ignore_index=True)
    head = PAGE.read_text(encoding="utf-8").partition(ABOVE)[0] if PAGE.exists() else "# Accuracy\n\n"
    parts = [_summary(scores), *(_table(scores, quantity) for quantity in METHODS)]
    PAGE.write_text(head + ABOVE + "\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")


def _summary(scores: pd.DataFrame) -> str:
    """Means over devices of each family."""
    lines = ["## By family", "", "Mean and median error in percent, averaged over devices and types.", ""]
    for quantity, methods in METHODS.items():
        own = scores[scores["quantity"] == quantity]
        found = own.groupby(["family", "method"])[["mean_ape", "median_ape"]].mean()
        lines += ["", f"| {quantity} | devices | {' | '.join(methods)} |", "|---|" + "---|" * (len(methods) + 1)]
        for family in sorted(own["family"].unique()):
            devices = own[own["family"] == family]["device"].nunique()
            cells = [
                _pair(found.loc[(family, method)]) if (family, method) in found.index else "–" for method in methods
            ]
            lines.append(f"| {family} | {devices} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _table(scores: pd.DataFrame, quantity: str) -> str:
    methods = METHODS[quantity]
    own = scores[scores["quantity"] == quantity]
    interval = quantity != "power"
    columns = [*methods, *(["in 90 %", "hi/lo"] if interval else [])]
    lines = [
        f"## {TITLES[quantity]}", "",
        "Mean / median error in percent; bias is the mean logarithm of predicted over measured.", "",
        f"| left out | device | kernels | source | rows | bias | {' | '.join(columns)} |",
        "|" + "---|" * (6 + len(columns)),
    ]  # fmt: skip
    for key, group in own.groupby(KEYS):
        by_method = group.set_index("method")
        if "eopt" in by_method.index:
            lines.append(_line(key, by_method, methods, interval))
    return "\n".join(lines)


def _line(key: Any, by_method: pd.DataFrame, methods: tuple[str, ...], interval: bool) -> str:
    fold, device, family, dtype, scale, source = key
    mine = by_method.loc["eopt"]
    cells = [_pair(by_method.loc[method]) if method in by_method.index else "–" for method in methods]
    if interval:
        known = pd.notna(mine["coverage"])
        cells += [f"{100 * mine['coverage']:.0f}" if known else "–", f"{mine['width']:.1f}" if known else "–"]
    kernels = " ".join(filter(None, (family, dtype, scale)))
    first = [fold.removeprefix("without "), device, kernels, source, str(mine["rows"]), f"{mine['bias']:+.2f}"]
    return f"| {' | '.join([*first, *cells])} |"


def _pair(row: pd.Series) -> str:
    return f"{row['mean_ape']:.0f} / {row['median_ape']:.0f}"


if __name__ == "__main__":
    main()
