"""Write the tables of docs/accuracy-others.md: sources that are no GPU kernels.

EOPT_DATA=DIR python docs/generate_accuracy_others.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, spearmanr
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eopt.backends import executor, target
from eopt.costmodel import cells, composites, operator_energy, ranking
from eopt.costmodel.datasets import getzner, help_nas, hwnas_pi5, irene
from eopt.costmodel.prior import Prior
from eopt.costmodel.records import kernels_of, row_kernels

PAGE = Path(__file__).parent / "accuracy-others.md"
ABOVE = "<!-- scores: everything below is written by docs/generate_accuracy_others.py -->"
DATA = Path(os.environ["EOPT_DATA"])
SHOTS, DRAWS = 10, 20
GPU_BATCHES = {"nasbench201": 256, "fbnet": 64}
PHONES = ("silver_4114", "silver_4210r", "samsung_a50", "pixel3", "essential_ph_1", "samsung_s7")
TRAINED = {"nasbench201": 900, "fbnet": 4000}  # first architectures of the list; the next 1000 are asked, as in HELP
ASKED = 1000
TESTED = {
    "nasbench201": ("titan_rtx_256", "gold_6226", "pixel2", "raspi4", "eyeriss", "fpga"),
    "fbnet": ("raspi4", "eyeriss", "fpga"),
}
FOLDS = 5
FAMILIES = {  # left out together, as their shapes are the same
    "the three of BERT": ["bert-base-uncased", "roberta-base", "distilbert-base-uncased"],
    "the three of GPT": ["gpt2", "distilgpt2", "openai-gpt"],
}
Array = np.ndarray[Any, Any]


def main() -> None:
    parts = [*help_tables(), pi5_table(), *irene_tables(), getzner_table()]
    head = PAGE.read_text(encoding="utf-8").partition(ABOVE)[0]
    PAGE.write_text(head + ABOVE + "\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")


def table(title: str, columns: list[str], rows: list[list[Any]]) -> str:
    lines = [f"## {title}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {' | '.join(_cell(value) for value in row)} |" for row in rows)])


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def off(found: Array, measured: Array) -> Array:
    """Absolute error in percent; what could not be said counts as 100."""
    return np.nan_to_num(100 * np.abs(found / measured - 1), nan=100.0)


def pair(errors: Array) -> str:
    return f"{errors.mean():.1f} / {np.median(errors):.1f}"


# HELP


def chip(column: str) -> str:
    """Batches on one chip are twins."""
    return column.rpartition("_")[0] if column.startswith(("1080", "2080", "titan")) else column


def space(name: str) -> tuple[Array, Array, pd.DataFrame]:
    """Features, work as one number, and latencies of the architectures of a search space."""
    latency = pd.read_parquet(DATA / help_nas.SOURCE.folder / f"{name}_latency.parquet")
    if name == "fbnet":
        chains = pd.read_csv(DATA / help_nas.SOURCE.folder / "fbnet_archs.csv.gz").to_numpy()
        work = cells.block_work(chains)
        return work, work.reshape(len(work), -1, 5)[:, :, :2].sum((1, 2)), latency
    counts = cells.cell_counts(all_cells())
    return counts, counts @ [0.0, 1.0, 9.0, 0.0], latency


def all_cells() -> list[tuple[int, ...]]:
    index = pd.read_csv(DATA / help_nas.SOURCE.folder / "nasbench201_arch_index.csv.gz").sort_values("idx")
    return [cells.parse_cell(text) for text in index["arch"]]


def known_devices(name: str) -> list[str]:
    batches = (1, 32, GPU_BATCHES[name])
    return [*(f"{gpu}_{batch}" for gpu in ("1080ti", "titanx") for batch in batches), *PHONES, "gold_6240"]


def help_tables() -> Iterator[str]:
    columns = ["device", "eopt, at random", "eopt, by design", "k = 0", "ridge", "FLOPs", "nearest device",
               "all measured", "at random, middle 80 %", "by design, middle 80 %"]  # fmt: skip
    for name in TRAINED:
        features, flops, latency = space(name)
        rows = [
            [device, *scores(name, features, flops, latency, device, known_devices(name))] for device in TESTED[name]
        ]
        title = f"HELP, {name}: Spearman, ten measurements"
        yield table(title, columns, [*rows, ["mean", *_means(rows)]])
        inner = [
            [device, *scores(name, features, flops, latency, device, others)]
            for device in known_devices(name)
            if (others := [own for own in known_devices(name) if chip(own) != chip(device)])
        ]
        yield table(f"{title}, each known chip left out (choices were made here)", columns, [["mean", *_means(inner)]])


def _means(rows: list[list[Any]]) -> list[float]:
    return [float(np.mean([row[place] for row in rows])) for place in range(1, len(rows[0]))]


def scores(
    name: str, features: Array, flops: Array, latency: pd.DataFrame, device: str, known: list[str]
) -> list[float]:
    count = TRAINED[name]
    pool, asked = np.arange(count), np.arange(count, count + ASKED)
    cost, others = latency[device].to_numpy(float), latency[known].to_numpy(float)
    model = ranking.fit(features[:count], others[:count], [chip(own) for own in known])
    chosen = [np.random.default_rng(seed).choice(pool, SHOTS, replace=False) for seed in range(DRAWS)]
    designed = model.design(features[:count], SHOTS)
    rank = lambda found, rows: float(spearmanr(found, cost[rows]).statistic)
    ours = lambda shots, rows: rank(model.adapt(features[shots], cost[shots], features[rows]), rows)
    by_ridge = lambda shots: rank(scaled_ridge(features[shots], cost[shots], features[asked]), asked)
    middle = trimmed(cost, asked)
    inner_pool = trimmed(cost, pool)
    inner = [np.random.default_rng(seed).choice(inner_pool, SHOTS, replace=False) for seed in range(DRAWS)]
    inner_design = inner_pool[model.design(features[inner_pool], SHOTS)]
    return [
        float(np.mean([ours(shots, asked) for shots in chosen])),
        ours(designed, asked),
        rank(model.predict(features[asked]), asked),
        float(np.mean([by_ridge(shots) for shots in chosen])),
        rank(flops[asked], asked),
        float(np.mean([rank(nearest(others, cost, shots)[asked], asked) for shots in chosen])),
        by_ridge(pool),
        float(np.mean([ours(shots, middle) for shots in inner])),
        ours(inner_design, middle),
    ]


def trimmed(cost: Array, rows: Array) -> Array:
    """HELP leaves out the fastest and the slowest tenth of the device that is tested."""
    order, tenth = rows[np.argsort(cost[rows])], len(rows) // 10
    return order[tenth : len(rows) - tenth]


def scaled_ridge(known: Array, cost: Array, asked: Array) -> Array:
    return make_pipeline(StandardScaler(), Ridge(1.0)).fit(known, cost).predict(asked)


def nearest(others: Array, cost: Array, shots: Array) -> Array:
    """Latencies of the known device that ranks the measured architectures most alike."""
    alike = [spearmanr(others[shots, place], cost[shots]).statistic for place in range(others.shape[1])]
    return others[:, int(np.nanargmax(alike))]


# Raspberry Pi 5


def pi5_table() -> str:
    every = all_cells()
    rows = hwnas_pi5.SOURCE.load(DATA / hwnas_pi5.SOURCE.folder).rows
    rows = rows.assign(number=rows["workload"].str.rpartition("/")[2].astype(int))
    features = np.concatenate([cells.cell_counts(every), cells.cell_borders(every)], axis=1)
    latency = space("nasbench201")[2]
    known = known_devices("nasbench201")
    model = ranking.fit(features[:900], latency[known].to_numpy(float)[:900], [chip(name) for name in known])
    sheet = cells.cell_counts(every, dead_too=False) @ pi5_prices()
    flops = cells.cell_counts(every) @ [0.0, 1.0, 9.0, 0.0]
    lines = []
    for key, group in rows.groupby(["library", "attrs"], observed=True):
        for quantity in ("latency_s", "energy_j"):
            cost = np.full(len(every), np.nan)
            cost[group["number"]] = group[quantity]
            lines.append([*key, quantity[:-2], *pi5_scores(model, features, sheet, flops, latency, cost)])
    lines = [[name, task.partition(":")[2].strip('"}'), *rest] for name, task, *rest in lines]
    columns = ["runtime", "task", "quantity", "sheet alone", "other devices", "FLOPs", "Pi 4 (sibling)",
               "k = 10, at random", "k = 10, by design", "ridge, k = 10", "ridge, all measured"]  # fmt: skip
    return table("Raspberry Pi 5: Kendall, networks not used in any fit", columns, lines)


def pi5_scores(
    model: ranking.Ranking, features: Array, sheet: Array, flops: Array, latency: pd.DataFrame, cost: Array
) -> list[float]:
    """The first 900 numbers, and of the rest every second, are for fits and measurements; the others are scored."""
    measured = np.flatnonzero(~np.isnan(cost))
    later = measured[measured >= 900]
    asked, pool = later[::2], np.append(measured[measured < 900], later[1::2])
    rank = lambda found: float(kendalltau(found, cost[asked]).statistic)
    chosen = [np.random.default_rng(seed).choice(pool, SHOTS, replace=False) for seed in range(DRAWS)]
    ours = lambda shots: rank(model.adapt(features[shots], cost[shots], features[asked]))
    by_ridge = lambda shots: rank(scaled_ridge(features[shots], cost[shots], features[asked]))
    return [
        rank(sheet[asked]),
        rank(model.predict(features[asked])),
        rank(flops[asked]),
        rank(latency["raspi4"].to_numpy(float)[asked]),
        float(np.mean([ours(shots) for shots in chosen])),
        ours(pool[model.design(features[pool], SHOTS)]),
        float(np.mean([by_ridge(shots) for shots in chosen])),
        by_ridge(pool),
    ]


def pi5_prices() -> Array:
    """float64[4] seconds the prior asks on the sheet for an addition, and for 1x1, 3x3 and pooling with theirs, summed
    over the stages."""
    sheet, runs, prior = target.load("raspberry-pi-5"), executor.load("onnxruntime"), Prior()

    def price(op: str, *shapes: tuple[int, ...], attrs: str = "") -> float:
        (kernel,) = kernels_of(op, shapes, "float32", attrs=attrs)
        return prior.query(kernel, sheet, runs).latency_s.mid

    total = np.zeros(4)
    for width, extent in ((16, 32), (32, 16), (64, 8)):
        x = (1, width, extent, extent)
        add, relu = price("Add", x, x), price("Relu", x)
        convs = [price("Conv", x, (width, width, k, k), attrs=f'{{"pads":[{k // 2},{k // 2},{k // 2},{k // 2}]}}')
                 for k in (1, 3)]  # fmt: skip
        pool = price("AveragePool", x, attrs='{"kernel_shape":[3,3],"pads":[1,1,1,1]}')
        total += [add, *(add + relu + conv for conv in convs), add + pool]
    return total


# IrEne


def irene_tables() -> Iterator[str]:
    folder = DATA / irene.SOURCE.folder
    rows = irene.SOURCE.load(folder).rows
    rows = rows[rows["level"] == "operator"].reset_index(drop=True)
    wholes = irene.composites(folder)
    lines = [line for name, own in rows.groupby("device") for line in within(own, wholes[wholes["device"] == name])]
    yield table("IrEne: wall joules, a model left out on one machine, mean / median error in percent",
                ["machine", "model", "operators", "log-ridge", "modules", "sum of operators", "models",
                 "sum of operators"], lines)  # fmt: skip
    names = rows["device"].unique()
    yield table("IrEne: operators, from one machine to the other, mean / median error in percent",
                ["from", "to", "as measured there", "sheet alone", "5 measured", "20 measured"],
                [across(rows, here, there) for here, there in (names, names[::-1])])  # fmt: skip


def worked(rows: pd.DataFrame, name: str) -> tuple[Array, operator_energy.Work]:
    kernels = [row_kernels(*row)[0] for row in zip(rows["op"], rows["inputs"], rows["dtype"], *[[""] * len(rows)] * 3,
                                                   rows["attrs"], strict=True)]  # fmt: skip
    return rows["op"].to_numpy(str), operator_energy.work(kernels, target.load(name))


def within(rows: pd.DataFrame, wholes: pd.DataFrame) -> list[list[Any]]:
    name = rows["device"].iloc[0]
    names, work = worked(rows, name)
    latency_s, energy_j = rows["latency_s"].to_numpy(), rows["energy_j"].to_numpy()
    inside = parts_of(wholes, name)
    errors: list[tuple[str, list[Array]]] = []
    models = rows["workload"].unique().tolist()
    for label, left in [*((model, [model]) for model in models), *FAMILIES.items()]:
        gone = rows["workload"].isin(left).to_numpy()
        machine = operator_energy.fit(
            names[~gone], work.take(~gone), latency_s[~gone], energy_j[~gone], target.load(name)
        )
        found = [off(machine.energy_j(names[gone], work.take(gone)), energy_j[gone])]
        found.append(off(ridge_by_kind(names, work, energy_j, gone), energy_j[gone]))
        for level in ("module", "model"):
            chosen = wholes[wholes["level"] == level]
            found += of_wholes(inside(machine, chosen), chosen, left)
        errors.append((label, found))
    single = errors[: len(models)]
    lines = [[name, model, *map(pair, found)] for model, found in errors]
    for label, kept in (("all", single), ("all but tiny-ctrl", [row for row in single if "tiny" not in row[0]])):
        lines.append(
            [name, label, *(pair(np.concatenate(column)) for column in zip(*(found for _, found in kept), strict=True))]
        )
    return lines


def parts_of(wholes: pd.DataFrame, name: str) -> Callable[[operator_energy.Machine, pd.DataFrame], Any]:
    """From a machine to the parts of modules and models; every distinct operator is priced once."""
    key = lambda part: (part[0], part[1], tuple(map(tuple, part[2])))
    every = sorted({key(part) for parts in wholes["operators"] for part in parts})
    kernels = [row_kernels(op, shapes, "float32")[0] for _, op, shapes in every]
    names, work = np.array([op for _, op, _ in every]), operator_energy.work(kernels, target.load(name))

    def parts(machine: operator_energy.Machine, chosen: pd.DataFrame) -> list[list[composites.Part]]:
        energy_j = np.nan_to_num(machine.energy_j(names, work))
        known = {
            what: composites.Part(what[0], float(joules), float(kernel.elements))
            for what, joules, kernel in zip(every, energy_j, kernels, strict=True)
        }
        return [[known[key(part)] for part in inside] for inside in chosen["operators"]]

    return parts


def of_wholes(parts: list[list[composites.Part]], chosen: pd.DataFrame, left: list[str]) -> list[Array]:
    gone, energy_j = chosen["workload"].isin(left).to_numpy(), chosen["energy_j"].to_numpy()
    asked = [parts[row] for row in np.flatnonzero(gone)]
    glue = composites.fit([parts[row] for row in np.flatnonzero(~gone)], energy_j[~gone])
    sums = np.array([sum(part.energy_j for part in own) for own in asked])
    return [off(glue.energy_j(asked), energy_j[gone]), off(sums, energy_j[gone])]


def across(rows: pd.DataFrame, here: str, there: str) -> list[Any]:
    known, asked = rows[rows["device"] == here], rows[rows["device"] == there]
    machine = operator_energy.fit(
        *worked(known, here), known["latency_s"].to_numpy(), known["energy_j"].to_numpy(), target.load(here)
    )
    names, work = worked(asked, there)
    energy_j = asked["energy_j"].to_numpy()
    moved = machine.moved(target.load(there))
    same = off(machine.energy_j(*worked(asked, here)), energy_j)
    return [here, there, pair(same), pair(off(moved.energy_j(names, work), energy_j)),
            *(pair(few(moved, names, work, energy_j, count)) for count in (5, 20))]  # fmt: skip


def few(moved: operator_energy.Machine, names: Array, work: operator_energy.Work, energy_j: Array, count: int) -> Array:
    """Errors on the rest, over all draws."""
    found = []
    for seed in range(DRAWS):
        shots = np.random.default_rng(seed).choice(len(names), count, replace=False)
        rest = np.setdiff1d(np.arange(len(names)), shots)
        own = moved.adapt(names[shots], work.take(shots), energy_j[shots])
        found.append(off(own.energy_j(names[rest], work.take(rest)), energy_j[rest]))
    return np.concatenate(found)


def ridge_by_kind(names: Array, work: operator_energy.Work, energy_j: Array, gone: Array) -> Array:
    """Ridge on logarithms of extents and amounts, kind by kind."""
    result = np.full(gone.sum(), np.nan)
    for name in np.unique(names[gone]):
        known, asked = ~gone & (names == name), gone & (names == name)
        if known.any():
            logs = scaled_ridge(work.shape[known], np.log(energy_j[known]), work.shape[asked])
            result[names[gone] == name] = np.exp(logs)
    return result


# getzner


def getzner_table() -> str:
    rows = getzner.SOURCE.load(DATA / getzner.SOURCE.folder).rows
    rows = rows[rows["level"] == "operator"].reset_index(drop=True)
    name = rows["device"].iloc[0]
    sheet = target.load(name)
    names, work = worked(rows, name)
    latency_s, energy_j = rows["latency_s"].to_numpy(), rows["energy_j"].to_numpy()
    errors = {}
    for split, fold in (("at random", at_random(names)), ("blocks", blocks(names, work))):
        for method in ("eopt", "log-ridge"):
            errors[split, method] = np.zeros(len(rows))
        for place in range(FOLDS):
            gone = fold == place
            machine = operator_energy.fit(names[~gone], work.take(~gone), latency_s[~gone], energy_j[~gone], sheet)
            errors[split, "eopt"][gone] = off(machine.energy_j(names[gone], work.take(gone)), energy_j[gone])
            errors[split, "log-ridge"][gone] = off(ridge_by_kind(names, work, energy_j, gone), energy_j[gone])
    errors["given", "TDP x time"] = off(sheet.tdp_w * latency_s, energy_j)
    errors["sheet", "prior"] = off(prior_j(rows, name), energy_j)
    kinds = [("all", np.ones(len(rows), bool)), *((kind, names == kind) for kind in np.unique(names))]
    lines = [[kind, int(own.sum()), *(pair(found[own]) for found in errors.values())] for kind, own in kinds]
    columns = ["operator", "rows", *(", ".join(key[::-1]) for key in errors)]
    return table("getzner: package joules of operators on a CPU, mean / median error in percent", columns, lines)


def at_random(names: Array) -> Array:
    return np.random.default_rng(0).integers(0, FOLDS, len(names))


def blocks(names: Array, work: operator_energy.Work) -> Array:
    """Regions of shapes: clusters of logarithms of extents and amounts, so that no neighbour is in training."""
    result = np.zeros(len(names), int)
    for name in np.unique(names):
        own = names == name
        shapes = StandardScaler().fit_transform(work.shape[own])
        result[own] = KMeans(FOLDS, n_init=3, random_state=0).fit_predict(shapes)
    return result


def prior_j(rows: pd.DataFrame, name: str) -> Array:
    sheet, runs, prior = target.load(name), executor.load("torch"), Prior()
    columns = zip(rows["op"], rows["inputs"], rows["dtype"], *[[""] * len(rows)] * 3, rows["attrs"], strict=True)
    return np.array([prior.query(row_kernels(*row)[0], sheet, runs).energy_j.mid for row in columns])


if __name__ == "__main__":
    main()
