"""Some rows of a built table, without reading all of it: the choice looks at the flat columns only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eopt.costmodel.datasets.base import COLUMNS
from eopt.costmodel.samples import GROUP, learnable, thinned
from eopt.ir.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_FLAT = (*dict.fromkeys((*GROUP, "level", "phase", "latency_s", "noisy")),)


def draw(out: Path, cap: int, seed: int = 0) -> pd.DataFrame:
    """Forward operators on devices with a sheet, at most `cap` of each kind of measurement, of all sources.

    Raises:
        InputError: the table was not built.
    """
    import pandas as pd
    import pyarrow.parquet as parquet

    paths = sorted(out.glob("rows-*.parquet"))
    if not paths:
        raise InputError(f"{out}: no table here; run `eopt data build --from DIR --out {out}`")
    parts = []
    for path in paths:
        flat = parquet.read_table(path, columns=list(_FLAT)).to_pandas()
        usable = (flat["level"] == "operator") & (flat["phase"] == "forward") & (flat["latency_s"] > 0)
        kept = [name for name in flat["device"].astype(str).unique() if learnable(name)]
        usable &= flat["device"].astype(str).isin(kept)
        chosen = sorted(thinned(flat[usable], cap, seed).index)
        if not chosen:
            continue
        rows = parquet.read_table(path, columns=list(COLUMNS)).take(chosen)
        parts.append(rows.to_pandas().astype(dict.fromkeys(GROUP, "string")))
    return pd.concat(parts, ignore_index=True)
