"""Build and read the table of measurements: one Parquet file per source, all with the schema of `base.COLUMNS`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.backends import target
from eopt.costmodel import datasets
from eopt.costmodel.datasets.base import COLUMNS, QUERY, Dataset
from eopt.ir.errors import InputError, OutputError, UsageError
from eopt.ir.onnx_out import atomic

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

WORKLOADS = ("workload", "position", "count", *QUERY)
LEVELS = {"operator", "module", "model"}
FOREIGN = "other-"  # devices that have no sheet and will get none: phones, FPGAs
_UNITS = ("_s", "_w", "_j", "_hz")
_INTEGERS = {"batch", "position", "count"}


@dataclass(frozen=True)
class Built:
    """Numbers of rows that were written for a source."""

    rows: int
    workload_rows: int


def build(folder: Path, out: Path, names: Iterable[str]) -> dict[str, Built]:
    """Write `rows-<source>.parquet`, and `workloads-<source>.parquet` where there are workloads, below `out`.

    Raises:
        UsageError: an unknown source.
        InputError: a source's folder is missing, or its rows break the schema.
        OutputError: a file cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be created ({error.strerror})") from None
    return {name: _build(folder, out, name) for name in names}


def _build(folder: Path, out: Path, name: str) -> Built:
    source = datasets.load(name)
    place = folder / source.folder
    if not place.is_dir():
        raise InputError(f"{place}: no such folder; {name} needs the files of {source.upstream}")
    found = source.load(place)
    rows = _checked(name, found)
    _write(rows, out / f"rows-{name}.parquet")
    beside = out / f"workloads-{name}.parquet"
    beside.unlink(missing_ok=True)
    if found.workloads is None:
        return Built(len(rows), 0)
    workloads = _typed(found.workloads, WORKLOADS, name)
    _write(workloads, beside)
    return Built(len(rows), len(workloads))


def _write(rows: pa.Table, path: Path) -> None:
    import pyarrow.parquet as parquet

    with atomic(path) as file:
        parquet.write_table(rows, file, compression="zstd")


def schema(columns: Iterable[str] = tuple(COLUMNS)) -> pa.Schema:
    """Arrow types of columns: quantities are doubles, texts are dictionaries."""
    import pyarrow as pa

    return pa.schema([(name, _type(name)) for name in columns])


def _type(name: str) -> Any:
    import pyarrow as pa

    if name == "inputs":
        return pa.list_(pa.list_(pa.int64()))
    if name == "noisy":
        return pa.bool_()
    if name in _INTEGERS:
        return pa.int64()
    return pa.float64() if name.endswith(_UNITS) else pa.dictionary(pa.int32(), pa.string())


def _checked(name: str, found: Dataset) -> pa.Table:
    """The rows in the schema, once they hold what it promises."""
    rows = found.rows
    devices = {str(device) for device in rows["device"].unique()}
    unknown = {device for device in devices if not device.startswith(FOREIGN)} - set(target.names())
    if unknown:
        raise InputError(f"{name}: no target sheet {', '.join(sorted(unknown))}")
    if not set(rows["level"].unique()) <= LEVELS:
        raise InputError(f"{name}: a level must be one of {', '.join(sorted(LEVELS))}")
    for column in (column for column in rows if column.endswith(_UNITS)):
        if not (rows[column].isna() | (rows[column].astype(float) > 0)).all():
            raise InputError(f"{name}: {column} has values that are not positive; what was not read is null")
    return _typed(rows, tuple(COLUMNS), name)


def _typed(frame: pd.DataFrame, columns: tuple[str, ...], name: str) -> pa.Table:
    import pyarrow as pa

    if extra := set(frame) - set(columns):
        raise InputError(f"{name}: the table has no columns {', '.join(sorted(extra))}")
    fixed = schema(columns)
    return pa.Table.from_arrays([_array(frame, field) for field in fixed], schema=fixed)


def _array(frame: pd.DataFrame, field: pa.Field) -> Any:
    import pyarrow as pa

    if field.name not in frame:
        return pa.nulls(len(frame), field.type)
    column = frame[field.name]
    if field.name == "inputs":
        return pa.array(column.tolist(), type=field.type)
    if not pa.types.is_dictionary(field.type):
        return pa.array(column, type=field.type, from_pandas=True)
    codes, texts = column.astype(object).factorize()
    present = pa.array(codes, type=pa.int32(), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(present, pa.array(texts.tolist(), type=pa.string()))


def read(out: Path, sources: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """Rows of a built table; texts are categories.

    Args:
        sources: None for all that were built.
        columns: None for all.

    Raises:
        InputError: it was not built.
        UsageError: an unknown column.
    """
    wanted = list(COLUMNS if columns is None else columns)
    if unknown := set(wanted) - set(COLUMNS):
        raise UsageError(f"the table has no columns {', '.join(sorted(unknown))}; it has {', '.join(COLUMNS)}")
    return _read(out, "rows", sources, wanted)


def workloads(out: Path, sources: Iterable[str] | None = None) -> pd.DataFrame:
    """Operators of the models measured whole, with the source's name in front.

    Raises:
        InputError: none was built.
    """
    return _read(out, "workloads", sources, list(WORKLOADS))


def traced(out: Path) -> list[str]:
    """Sources with lists of operators."""
    return [path.stem.partition("-")[2] for path in _written(out, "workloads")]


def _read(out: Path, kind: str, sources: Iterable[str] | None, columns: list[str]) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    paths = [out / f"{kind}-{name}.parquet" for name in sources] if sources is not None else _written(out, kind)
    missing = [path.name for path in paths if not path.is_file()]
    if missing or not paths:
        raise InputError(f"{out}: {', '.join(missing) or kind} not built; run `eopt data build --out {out}`")
    tables = [parquet.read_table(path, columns=columns) for path in paths]
    if kind == "workloads":
        tables = [_named(table, path) for table, path in zip(tables, paths, strict=True)]
    return pa.concat_tables(tables).unify_dictionaries().to_pandas()


def _named(table: pa.Table, path: Path) -> pa.Table:
    import pyarrow as pa

    name = pa.array([path.stem.partition("-")[2]] * len(table), type=pa.string()).dictionary_encode()
    return table.add_column(0, pa.field("source", name.type), name)


def _written(out: Path, kind: str) -> list[Path]:
    return sorted(out.glob(f"{kind}-*.parquet"))


def fingerprint(out: Path) -> str:
    """SHA-256 of what was built: names and contents of its files, in the order of their names."""
    digest = sha256()
    for path in _written(out, "*"):
        digest.update(path.name.encode() + b"\0" + sha256(path.read_bytes()).digest())
    return digest.hexdigest()
