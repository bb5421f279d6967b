"""Steps of decoding of the models that ML.ENERGY serves, as operators of one board."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eopt.costmodel.datasets import architectures, traced

if TYPE_CHECKING:
    import pandas as pd

PROMPT = 256  # tokens; taken, as no version gives the length of prompts
DIVIDED = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "moe_intermediate_size", "vocab_size")
FLOAT8 = "float8_e4m3"


def workloads(rows: pd.DataFrame) -> pd.DataFrame | None:
    """The operators of every run whose architecture is public; a row of them is one step for the whole batch."""
    entries: list[dict[str, Any]] = []
    lists: dict[tuple[Any, ...], list[traced.Operator]] = {}
    for run in rows.to_dict("records"):
        version, _, name = run["workload"].partition(":")
        given = json.loads(run["attrs"])
        document = architectures.GENERATING.get(name)
        if document is None or given["unit"] != "token":
            continue
        dtype = run["dtype"] if isinstance(run["dtype"], str) else "float16" if version == "v1" else "bfloat16"
        kind = (name, given["gpus"], dtype, version == "v1")
        if kind not in lists:
            lists[kind] = _step(divided(document, given["gpus"]), dtype, version == "v1")
        extents = {traced.BATCH: run["batch"], traced.KEYS: PROMPT + given["past"] + 1}
        entries += traced.rows(traced.key(run), lists[kind], extents)
    return traced.frame(entries)


def _step(document: Mapping[str, Any], dtype: str, eager: bool) -> list[traced.Operator]:
    narrow = FLOAT8 if dtype == FLOAT8 else None
    held = {**document, "dtype": "bfloat16" if narrow else dtype}
    operators = traced.decoded(held, traced.Format(products=narrow))
    return operators if eager else traced.served(operators)


def divided(document: Mapping[str, Any], boards: int) -> dict[str, Any]:
    """The part of a model that one board of several holds; a head of keys is on several where there are few."""
    size = document.get("head_dim") or document["hidden_size"] // document.get("num_attention_heads", 1)
    parts = {name: max(1, document[name] // boards) for name in DIVIDED if name in document}
    return {**document, **parts, "head_dim": size} if boards > 1 else dict(document)
