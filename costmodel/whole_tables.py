"""What the scores of whole models say: errors by device, and of what a format, clock, power cap or rewrite changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
METHODS = {
    "latency": "eopt", "latency prior": "operators alone", "energy": "eopt", "energy prior": "operators alone",
    "energy, known": "eopt, known workload", "energy, time given": "eopt", "ridge": "log-ridge",
    "others": "other GPUs' mean", "TDP": "TDP x time",
}  # fmt: skip
NEAR = 1  # steps of the power cap


def by_device(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean and median absolute error in percent and the mean logarithm, by source, device and method."""
    long = scores.melt(["source", "generation", "device"], list(METHODS), "method", "log").dropna()
    grouped = long.assign(ape=100 * np.abs(np.expm1(long["log"].astype(float)))).groupby(
        ["source", "generation", "device", "method"]
    )
    return grouped.agg(
        rows=("ape", "size"), mean=("ape", "mean"), median=("ape", "median"), bias=("log", "mean")
    ).reset_index()


def format_ratios(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """Error in percent of joules in float16 over those in float32, of the same workload, batch and device.

    Args:
        column: errors of the method; beside it the mean of other generations, and one constant for all of them.
    """
    own = scores[scores["source"] == "joulepoint"]
    keys = ["generation", "device", "workload", "batch"]
    log = np.log(own["energy_j"])
    pairs = [
        own.assign(log=value).pivot_table(index=keys, columns="dtype", values="log")
        for value in (log, log + own[column])
    ]
    measured, predicted = (pair["float16"] - pair["float32"] for pair in pairs)
    table = measured.rename("measured").reset_index().assign(eopt=predicted.to_numpy())
    table["other GPUs' mean"] = [_elsewhere(table, row, ["workload", "batch"]) for row in table.to_dict("records")]
    table["constant"] = [_elsewhere(table, row, []) for row in table.to_dict("records")]
    return _apes(table, ["eopt", "other GPUs' mean", "constant"])


def _elsewhere(table: pd.DataFrame, row: dict[str, Any], same: list[str]) -> float:
    like = table["generation"] != row["generation"]
    for name in same:
        like &= table[name] == row[name]
    return float(table.loc[like, "measured"].mean())


def clock_ratios(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """Error in percent of joules over those at the clock that most runs of the workload have, one device.

    Beside it, that a clock changes nothing.
    """
    own = scores[scores["clock_hz"].notna()].copy()
    own["clock"] = (own["clock_hz"] / 1e6).round()
    usual = own.groupby("device")["clock"].transform(lambda clocks: clocks.mode()[0])
    own["log"], own["own"] = np.log(own["energy_j"]), np.log(own["energy_j"]) + own[column]
    reference = own[own["clock"] == usual].groupby(["device", "key"])[["log", "own"]].mean()
    moved = (
        own[own["clock"] != usual].join(reference, on=["device", "key"], rsuffix=" there").dropna(subset="log there")
    )
    table = moved[["device"]].assign(measured=moved["log"] - moved["log there"], eopt=moved["own"] - moved["own there"])
    return _apes(table.assign(unchanged=0.0), ["eopt", "unchanged"])


def cap_choices(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """How many steps the cap of least predicted joules is from that of least measured ones, by device.

    Returns:
        Share of curves within `NEAR` steps, that of leaving the cap at its highest, and joules above the least in
        percent, of both.
    """
    own = scores[scores["power_cap_w"].notna()].assign(own=lambda frame: np.log(frame["energy_j"]) + frame[column])
    found = []
    for (device, _, _), curve in own.groupby(["device", "workload", "key"]):
        curve = curve.sort_values("power_cap_w")
        joules, chosen = curve["energy_j"].to_numpy(), int(np.argmin(curve["own"]))
        if len(joules) < 3:
            continue
        best = int(np.argmin(joules))
        found.append((device, abs(chosen - best) <= NEAR, len(joules) - 1 - best <= NEAR,
                      100 * (joules[chosen] / joules[best] - 1), 100 * (joules[-1] / joules[best] - 1)))  # fmt: skip
    columns = ["device", "within one step", "highest cap within one step", "regret", "regret of the highest cap"]
    return _frame(found, columns).groupby("device").mean().reset_index()


def rewrites(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """Weights of four bits by a library against float16: is the sign of the change right, and the best of three.

    Returns:
        By device: balanced accuracy of the sign (nan with one sign alone), its plain accuracy, share of models whose
        best variant is chosen, and energy of the best over the chosen one in percent; `fall` is how many do.
    """
    own = scores[scores["source"] == "llmperf"].copy()
    own["variant"], own["log"] = own["library"].fillna("float16"), np.log(own["energy_j"])
    own["own"] = own["log"] + own[column]
    keys = ["device", "workload"]
    measured, predicted = (own.pivot_table(index=keys, columns="variant", values=name) for name in ("log", "own"))
    found = []
    for device in own["device"].unique():
        table, guess = measured.loc[device], predicted.loc[device]
        change, guessed = (
            np.concatenate([(frame[name] - frame["float16"]).dropna() for name in ("bnb", "gptq")])
            for frame in (table, guess)
        )
        several = table.notna().sum(axis=1) > 1
        chosen = np.array(guess[several].fillna(np.inf)).argmin(1)
        logs = np.array(table[several].fillna(np.inf))
        best, taken = logs.min(1), logs[np.arange(len(logs)), chosen]
        right = (change > 0) == (guessed > 0)
        balanced = np.mean([right[change > 0].mean(), right[change < 0].mean()]) if (change < 0).any() else np.nan
        found.append((device, len(change), 100 * (change < 0).mean(), 100 * balanced, 100 * right.mean(),
                      100 * (taken == best).mean(), 100 * np.exp(best - taken).mean()))  # fmt: skip
    columns = ["device", "pairs", "fall", "balanced", "sign", "best chosen", "best over chosen"]
    return _frame(found, columns)


def _apes(table: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    for name in methods:
        table[name] = 100 * np.abs(np.expm1(table[name] - table["measured"]))
    table["rows"] = 1
    return table.groupby("device").agg({"rows": "sum", **dict.fromkeys(methods, "mean")}).reset_index()


def _frame(found: list[Any], columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(found, columns=columns)
