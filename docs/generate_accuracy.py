"""Write sections of docs/accuracy.md from the scores that `eopt evaluate --dump` leaves; the others stay as they are.

python docs/generate_accuracy.py scores.parquet [more.parquet …]

Files of all kinds go together: generations left out, devices left out, back-tests (--as-of) and the ablation, which
is averaged over its seeds.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd

from eopt.costmodel import ablation, folds
from eopt.costmodel.scores import Score

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
FAMILIES, DEVICES, BACK_TEST, ABLATION = "By family", "Single devices left out", "Back-test", "Ablation"
ORDER = (FAMILIES, BACK_TEST, ABLATION, *TITLES.values(), DEVICES)
KEYS = ["fold", "device", "family", "dtype", "scale", "source"]
APE = ["mean_ape", "median_ape"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores", type=Path, nargs="+")
    options = parser.parse_args()
    scores = pd.concat([pd.read_parquet(path) for path in options.scores], ignore_index=True)
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Accuracy\n\n"
    PAGE.write_text(page(text, scores), encoding="utf-8")


def page(text: str, scores: pd.DataFrame) -> str:
    """The page with the sections there are scores for written anew."""
    head, _, below = text.partition(ABOVE)
    found = dict(_parts(below)) | dict(_sections(scores))
    ordered = [f"## {title}\n\n{found[title]}" for title in ORDER if title in found]
    return "\n\n".join([head.rstrip("\n"), ABOVE, *ordered]) + "\n"


def _parts(below: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^## ", below, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        yield title, body.strip("\n")


def _sections(scores: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Title and text."""
    variant = scores["method"].isin(list(ablation.VARIANTS))
    past = scores["fold"].str.startswith("as of") & ~variant
    single = (scores["fold"] == "without " + scores["device"]) & ~variant
    generations = scores[~variant & ~past & ~single]
    if len(generations):
        yield FAMILIES, _families(generations)
        yield from ((title, _table(generations, quantity)) for quantity, title in TITLES.items())
    if past.any():
        yield BACK_TEST, _back_test(scores[past])
    if variant.any():
        yield ABLATION, _ablation(scores[variant])
    if single.any():
        yield DEVICES, _table(scores[single], "latency")


def _families(scores: pd.DataFrame) -> str:
    """Means over devices of each family."""
    lines = ["Mean and median error in percent, averaged over devices and types."]
    for quantity, methods in METHODS.items():
        own = scores[scores["quantity"] == quantity]
        found = own.groupby(["family", "method"])[APE].mean()
        lines += ["", _row([quantity, "devices", *methods]), "|---|" + "---|" * (len(methods) + 1)]
        for family in sorted(own["family"].unique()):
            devices = own[own["family"] == family]["device"].nunique()
            lines.append(_row([family, devices, *(_pair(found, (family, method)) for method in methods)]))
    return "\n".join(lines)


def _back_test(scores: pd.DataFrame) -> str:
    """By year and later generation; devices count the same, and of each its kinds of measurement."""
    methods = ("eopt", "roofline", "nearest device", "trees")
    own = scores[scores["quantity"] == "latency"].assign(generation=scores["device"].map(folds.generation))
    lines = [
        _text(
            "Trained on the devices released by the end of a year, scored on every later one. Years between which no"
            " device was released have the same figures. Mean / median error of latency in percent; a device's error is"
            " the mean over its kinds of measurement, and devices count the same. The interval score is that of 90 %"
            " intervals on logarithms (Gneiting and Raftery 2007), lower is better."
        ), "",
        _row(["as of", "later generation", "devices", *methods, *(f"gemm: {name}" for name in methods), "in 90 %",
              "interval score"]),
        "|" + "---|" * (5 + 2 * len(methods)),
    ]  # fmt: skip
    for (fold, generation), part in own.groupby(["fold", "generation"]):
        every, products = _by_method(part), _by_method(part[part["family"] == "gemm"])
        mine = part[part["method"] == "eopt"].groupby("device")[["coverage", "interval_score"]].mean().mean()
        cells = [_pair(found, method) for found in (every, products) for method in methods]
        interval = [f"{100 * mine['coverage']:.0f}", f"{mine['interval_score']:.2f}"]
        lines.append(_row([fold.removeprefix("as of "), generation, part["device"].nunique(), *cells, *interval]))
    return "\n".join(lines)


def _by_method(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.groupby(["method", "device"])[APE].mean().groupby("method").mean()


def _ablation(scores: pd.DataFrame) -> str:
    rows = ablation.summary(_scores(scores))
    mine = scores[scores["method"] == ablation.SHIPPED]
    left, scored, seeds = mine["fold"].nunique(), mine["rows"].sum(), mine.groupby(KEYS).size().max()
    settings = ablation.RECIPE.settings
    lines = [
        _text(
            f"Latency, {left} generations left out, {scored:,} rows scored over {seeds} seeds, which are averaged. All"
            f" networks have {settings.members} member, {settings.steps} steps of {settings.batch} samples, and see at"
            f" most {ablation.RECIPE.cap} rows of each kind; no hyper-parameter was changed for any. Mean / median"
            " error in percent; a device's error is the mean over its kinds of measurement, and devices count the same,"
            " also those that share a die."
        ), "",
        _row(["variant", "all kinds", "gemm", "better than plain sheet features, all kinds", "gemm"]),
        "|" + "---|" * 5,
    ]  # fmt: skip
    for row in rows:
        errors = [f"{row[f'{kind}mean']:.1f} / {row[f'{kind}median']:.1f}" for kind in ("", "gemm_")]
        wins = [f"{row[f'{kind}beats_plain']} of {row[f'{kind}devices']}" for kind in ("", "gemm_")]
        lines.append(_row([row["variant"], *errors, *wins]))
    named = {row["variant"]: row for row in rows}
    lines += ["", *(_verdict(named, kinds, prefix) for kinds, prefix in (("all kinds", ""), ("products", "gemm_")))]
    return "\n".join(lines)


def _verdict(named: dict[str, dict[str, Any]], kinds: str, prefix: str) -> str:
    """Whether the embedding is worth anything, from the figures alone."""
    shipped, plain, none = (named[name] for name in (ablation.SHIPPED, ablation.PLAIN, ablation.NO_EMBEDDING))
    wins, devices = shipped[f"{prefix}beats_plain"], shipped[f"{prefix}devices"]
    better = "better" if 2 * wins > devices else "not better"
    means = [f"{row[f'{prefix}mean']:.1f} %" for row in (shipped, plain, none)]
    return _text(
        f"- For {kinds} the embedding as shipped is {better} than plain sheet features on most devices left out ({wins}"
        f" of {devices}); mean error {means[0]}, with plain sheet features {means[1]}, without an embedding {means[2]}."
    )


def _scores(scores: pd.DataFrame) -> Iterable[Score]:
    return [Score(**row) for row in scores[list(Score.__dataclass_fields__)].to_dict("records")]


def _table(scores: pd.DataFrame, quantity: str) -> str:
    methods = METHODS[quantity]
    own = scores[scores["quantity"] == quantity]
    interval = ["in 90 %", "hi/lo", "interval score"]
    lines = [
        _text(
            "Mean / median error in percent; bias is the mean logarithm of predicted over measured. A device with † has"
            " a sibling, a board with the same die, among those that were trained on."
        ), "",
        _row(["left out", "device", "kernels", "source", "rows", "bias", *methods, *interval]),
        "|" + "---|" * (6 + len(methods) + len(interval)),
    ]  # fmt: skip
    for key, group in own.groupby(KEYS):
        by_method = group.set_index("method")
        if "eopt" in by_method.index:
            lines.append(_line(key, by_method, methods))
    return "\n".join(lines)


def _line(key: Any, by_method: pd.DataFrame, methods: tuple[str, ...]) -> str:
    fold, device, family, dtype, scale, source = key
    mine = by_method.loc["eopt"]
    interval = ["–"] * 3
    if pd.notna(mine["coverage"]):
        interval = [f"{100 * mine['coverage']:.0f}", f"{mine['width']:.1f}", f"{mine['interval_score']:.2f}"]
    kernels = " ".join(filter(None, (family, dtype, scale)))
    name = f"{device} †" if mine["sibling"] else device
    first = [fold.removeprefix("without "), name, kernels, source, mine["rows"], f"{mine['bias']:+.2f}"]
    return _row([*first, *(_pair(by_method, method) for method in methods), *interval])


def _pair(found: pd.DataFrame, key: Any) -> str:
    if key not in found.index:
        return "–"
    return f"{found.loc[key, 'mean_ape']:.0f} / {found.loc[key, 'median_ape']:.0f}"


def _text(paragraph: str) -> str:
    return fill(paragraph, 120, subsequent_indent="  " if paragraph.startswith("-") else "")


def _row(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
