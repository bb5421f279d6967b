"""Score the shipped cost model on a file of results, beside the physics prior and the roofline, by family and type.

python -m benchmarks.gpu.score RESULTS.jsonl [--target NAME] [--cost-model FOLDER]

Run it before anything is trained on the file. Operators are asked as cost queries: eager ones as `torch`, replayed
graphs as `vllm`, whose kernels are captured. The latency of the roofline is at the sheet's peaks, its energy that times
the TDP. What no query can say (zeros, 2:4) and several operators together stay out; whole models were predicted when
they were measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.gpu import results

if TYPE_CHECKING:
    import pandas as pd

    from eopt.costmodel.query import CostModel

Array = np.ndarray[Any, Any]
CAPTURED = "vllm"
QUANTITIES = ("latency", "energy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it beside the results; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--target", help="name of the sheet, where the board is not recognised")
    parser.add_argument("--cost-model", help="a folder with another artefact than the one shipped")
    options = parser.parse_args(arguments)
    from eopt.costmodel import registry
    from eopt.costmodel.learned import current
    from eopt.ir.errors import EoptError

    try:
        lines = list(results.read(options.results))
        target = options.target or sheet(lines, options.results)
        model = registry.load(options.cost_model) if options.cost_model else current()
        found = scores(lines, target, model)
    except EoptError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    path = options.results.with_suffix(".scores.json")
    path.write_text(json.dumps({"target": target, "results": options.results.name, "scores": found}, indent=1) + "\n")
    _print(found)
    print(f"{target}: wrote {path}")
    return 0


def sheet(lines: Sequence[Mapping[str, Any]], path: Path) -> str:
    """Name of the target sheet of the board that the results are of.

    Raises:
        InputError: nothing was recorded of it, or no sheet fits.
    """
    from eopt.backends.detect import match_gpu
    from eopt.ir.errors import InputError

    board = next((line for line in lines if line.get("kind") == results.BOARD), {})
    stated = [board.get(name) for name in ("name", "memory_bytes", "default_limit_w")]
    found = match_gpu(*stated) if all(stated) else None  # type: ignore[arg-type]
    if found is None:
        raise InputError(f"{path}: no sheet fits the board {board.get('name')!r}; name one with --target")
    return found.name


def scores(lines: Sequence[Mapping[str, Any]], target: str, model: CostModel) -> list[dict[str, Any]]:
    """Absolute errors in percent by family, type, launch and method, of latency and energy; `all` over everything.

    A row without an answer counts as 100 percent and is told in `unanswered`; joules not measured are no row.

    Raises:
        InputError: nothing in the file can be scored.
    """
    from eopt.ir.errors import InputError

    parts = [_operators(lines, target, model), _models(lines)]
    rows = [row for part in parts for row in part]
    if not rows:
        raise InputError("no measured line that a cost query can spell; see benchmarks/gpu/README.md")
    import pandas as pd

    frame = pd.DataFrame(rows)
    whole = frame[frame["family"] != "models"].assign(family="all", dtype="", launch="")
    keys = ["family", "dtype", "launch", "quantity", "method"]
    found = []
    for key, group in pd.concat([frame, whole]).groupby(keys, sort=True):
        ape = 100 * np.abs(np.expm1(group["error"].to_numpy(dtype=float)))
        figures = {"rows": len(ape), "median_ape": float(np.median(ape)), "mean_ape": float(np.mean(ape))}
        unanswered = int(np.isneginf(group["error"]).sum())
        found.append({**dict(zip(keys, key, strict=True)), **figures, "unanswered": unanswered})
    return found


def table(lines: Sequence[Mapping[str, Any]], target: str) -> pd.DataFrame:
    """The operators as rows of the table of measurements, with their `family` and `launch`.

    Where a graph stands for a call, its eager latency is a row as well, of which no energy was read.
    """
    import pandas as pd

    from eopt.costmodel.datasets.base import COLUMNS, attrs_text

    rows = []
    for line in lines:
        if line.get("kind") != results.MEASURED or line["level"] != "operator" or line["variant"]:
            continue
        row = {**dict.fromkeys(COLUMNS), **line, "source": "sweep", "device": target}
        row["attrs"] = attrs_text(**line["attrs"])
        if line["launch"] == "graph":
            read = {"power_w": None, "energy_j": None, "energy_scope": None}
            rows.append({**row, **read, "latency_s": line["latency_eager_s"], "launch": "eager"})
            row["executor"] = CAPTURED
        rows.append(row)
    return pd.DataFrame(rows, columns=[*COLUMNS, "family", "launch"])


def _operators(lines: Sequence[Mapping[str, Any]], target: str, model: CostModel) -> list[dict[str, Any]]:
    from eopt.costmodel import baselines
    from eopt.costmodel.contender import Contender
    from eopt.costmodel.prior import Prior
    from eopt.costmodel.samples import samples

    frame = table(lines, target)
    if frame.empty:
        return []
    asked = samples(frame)
    errors = {
        (name, quantity): found.error
        for name, by in (("eopt", model), ("prior", Prior()))
        for quantity, found in Contender(name, by).errors(asked).items()
    }
    peak = baselines.roofline(asked)
    errors["roofline", "latency"] = peak - np.log(asked.latency_s)
    errors["roofline", "energy"] = peak + baselines.tdp(asked) - np.log(asked.latency_s * asked.power_w)
    own = asked.frame[["family", "dtype", "launch"]].to_dict("records")
    return [
        {**row, "method": method, "quantity": quantity, "error": float(error)}
        for (method, quantity), column in errors.items()
        for row, error in zip(own, column, strict=True)
        if not np.isnan(error)
    ]


def _models(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for line in lines:
        if line.get("kind") != results.MEASURED or line["level"] != "model":
            continue
        row = {"family": "models", "dtype": line["attrs"]["stage"], "launch": line["executor"], "method": "eopt"}
        for quantity, field in zip(QUANTITIES, ("latency_s", "energy_j"), strict=True):
            measured, predicted = line[field], line.get(f"predicted_{field}")
            if measured and predicted:
                found.append({**row, "quantity": quantity, "error": float(np.log(predicted / measured))})
    return found


def _print(found: Sequence[Mapping[str, Any]]) -> None:
    head = ("family", "type", "launch", "quantity", "method")
    print(f"{head[0]:<12}{head[1]:<15}{head[2]:<15}{head[3]:<9}{head[4]:<10}{'rows':>6}{'median %':>10}{'mean %':>9}")
    for row in found:
        start = f"{row['family']:<12}{row['dtype']:<15}{row['launch']:<15}{row['quantity']:<9}{row['method']:<10}"
        print(f"{start}{row['rows']:>6}{row['median_ape']:>10.1f}{row['mean_ape']:>9.1f}")


if __name__ == "__main__":
    sys.exit(main())
