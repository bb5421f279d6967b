"""Price operators that no model has to hold: one on the command line, or millions as JSON lines.

  eopt query --target nvidia-h100-sxm --op MatMul --inputs 8x512x1024,1024x4096 --dtype bfloat16
  eopt query --target nvidia-l4 --op Conv --inputs 8x64x56x56,64x64x3x3 --dtype float16 --attr pads=[1,1,1,1]
  eopt query queries.jsonl --target nvidia-l40s > answers.jsonl
  eopt query --target nvidia-a100-80gb-sxm --executor vllm --total < queries.jsonl
  eopt query queries.jsonl --target auto --executor tvm --tune 32 --with measured

A line is {"op": "MatMul", "inputs": [[8, 512, 1024], [1024, 4096]], "dtype": "bfloat16"}; weight_dtype, math, scale,
attrs, phase and count may be added. It comes back with the latency and energy of one execution and their 90 %
intervals, in the order given; what cannot be priced is null, with reasons. Nothing is printed when a line is wrong."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from math import isfinite
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any

from eopt.ir.errors import InputError, UsageError
from eopt.tools.cli import common

if TYPE_CHECKING:
    from eopt.backends.executor import Executor
    from eopt.backends.target import Target
    from eopt.costmodel.query import CostModel

Row = dict[str, Any]
MAX_LINES, MAX_LINE_BYTES = 10_000_000, 1 << 20
PARTIAL = 5  # exit code where something asked for has no figure
CHUNK = 8192  # lines that are priced together
HELD_BYTES = 64 << 20  # answers beyond wait on disk until the last line has been read
_TEXTS = ("dtype", "weight_dtype", "math", "scale", "phase")
_ADDED = (
    "latency_s", "latency_s_lo", "latency_s_hi", "energy_j", "energy_j_lo", "energy_j_hi", "power_w", "energy_scope",
    "basis", "reasons",
)  # fmt: skip
_FIGURES = ",".join([f'"{name}":%.7g' for name in _ADDED[:7]] + [f'"{name}":"%s"' for name in _ADDED[7:9]])
_encoded = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="queries, one JSON object a line; - or none: from stdin"
    )
    add_query(parser)
    common.add_cost_model(common.add_hardware(parser))
    parser.add_argument("--total", action="store_true", help="end with the whole list executed back to back")
    parser.add_argument(
        "--with", dest="by", choices=("measured",), help="measure now, or take what was measured before"
    )
    add_tuning(parser)
    common.add_json(parser)


def add_query(parser: argparse.ArgumentParser) -> None:
    """One query from the command line."""
    group = parser.add_argument_group("one query")
    group.add_argument("--op", metavar="NAME", help="ONNX operator, as MatMul or com.microsoft.MoE")
    group.add_argument(
        "--inputs", metavar="SHAPES", help="8x512x1024,1024x4096; scalar for no extents, - for an operand left out"
    )
    group.add_argument("--dtype", metavar="TYPE", help="of the activations: bfloat16, float8_e4m3, ...")
    group.add_argument("--weight-dtype", metavar="TYPE", help="of the weights, where it differs")
    group.add_argument("--math", metavar="KIND", help="of float32 products: ieee or tf32")
    group.add_argument("--scale", metavar="KIND", help="of scaled formats: tensor, channel, block:N, nvfp4 or mx")
    group.add_argument(
        "--attr", action="append", default=[], metavar="NAME=VALUE", help="attribute as JSON; repeatable"
    )
    group.add_argument("--phase", metavar="PHASE", help="forward (default), backward or training")


def query_of(arguments: argparse.Namespace) -> Row:
    """The query that the options say.

    Raises:
        UsageError: some are missing, or are no shapes or attributes.
    """
    if not arguments.op or not arguments.inputs or not arguments.dtype:
        raise UsageError("a query needs --op, --inputs and --dtype")
    given = {name: getattr(arguments, name) for name in _TEXTS if getattr(arguments, name)}
    shapes = [_shape(text) for text in arguments.inputs.split(",")]
    attrs = dict(_attribute(text) for text in arguments.attr)
    return {"op": arguments.op, "inputs": shapes, **given, **({"attrs": attrs} if attrs else {})}


def given_query(arguments: argparse.Namespace) -> bool:
    """True when any option of a query is there."""
    return any(getattr(arguments, name) for name in ("op", "inputs", "attr", *_TEXTS))


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """`--tune`, `--cache`, and the tracker of devices elsewhere."""
    parser.add_argument("--tune", type=common.positive, metavar="N", help="with tvm: search schedules with N trials")
    parser.add_argument("--cache", metavar="DIR", help="for measurements; default $EOPT_CACHE, else ~/.cache/eopt")
    common.add_reach(parser)


def run(arguments: argparse.Namespace) -> int:
    """Price and print."""
    from eopt.tools.situation import cost_model_of, hardware

    if arguments.target is None:
        raise UsageError("a cost query needs a target; give --target NAME (eopt targets list)")
    where = hardware(arguments.target, arguments.executor, arguments.clock, arguments.power_cap)
    model = cost_model_of(arguments.cost_model, *where)
    if given_query(arguments) and arguments.file is not None:
        raise UsageError("either a FILE of queries or one with --op, not both")
    if arguments.by:
        return _measured(arguments, *where, model)
    _only_measured(arguments)
    if not given_query(arguments):
        return _stream(arguments, where[0], model)
    return _single(arguments, where[0], model)


def _only_measured(arguments: argparse.Namespace) -> None:
    for option, value in (("--tune", arguments.tune), ("--rpc", arguments.rpc), ("--key", arguments.key)):
        if value is not None:
            raise UsageError(f"{option} needs --with measured: predictions ask no device")


def _measured(arguments: argparse.Namespace, target: Target, executor: Executor, model: CostModel) -> int:
    """One query or many, from the cache or the device; the exit code is 5 where some have no figure."""
    from eopt.costmodel.service import total
    from eopt.tools.asking import checked, measured
    from eopt.tools.measuring import reach

    if given_query(arguments):
        rows = [query_of(arguments)]
        checked(rows[0])  # so that what is wrong is said without the number of a line
    else:
        rows = _all_rows(arguments.file or "-")
    away = reach(arguments.rpc, arguments.key, arguments.trust_network)
    with common.progress(arguments.json) as progress:
        answers = measured(
            rows, target, executor, model, tune=arguments.tune, away=away, cache=arguments.cache, progress=progress
        )
    code = PARTIAL if any(found["energy_j"] is None for found in answers) else 0
    if arguments.total:
        answers.append(total(rows, answers))
    if arguments.json or not given_query(arguments):
        sys.stdout.writelines(f"{_encoded(found)}\n" for found in answers)
    else:
        _print(answers, target.name)
    return code


def _all_rows(name: str) -> list[Row]:
    from eopt.tools.asking import MAX_ROWS, checked

    where = "standard input" if name == "-" else name
    with opened(name) as file:
        rows = list(islice((row for _, _, rows in chunks(file, where) for row in rows), MAX_ROWS + 1))
    for line, row in enumerate(rows, 1):
        try:
            checked(row)
        except InputError as error:
            raise InputError(f"{where}: line {line}: {error}") from None
    return rows


def _single(arguments: argparse.Namespace, target: Target, model: CostModel) -> int:
    from eopt.costmodel.records import record
    from eopt.costmodel.service import answer, total

    rows = [query_of(arguments)]
    record(rows[0])  # so that what is wrong is said without the number of a line
    answers = answer(rows, target, arguments.executor, model)
    if arguments.total:
        answers.append(total(rows, answers))
    if arguments.json:
        sys.stdout.writelines(f"{_encoded(found)}\n" for found in answers)
    else:
        _print(answers, target.name)
    return 0


def _stream(arguments: argparse.Namespace, target: Target, model: CostModel) -> int:
    from eopt.costmodel.service import Total, answer

    whole, name = Total(), arguments.file or "-"
    where = "standard input" if name == "-" else name
    with opened(name) as file, SpooledTemporaryFile(HELD_BYTES, "w+", encoding="utf-8", newline="") as held:
        for first, texts, rows in chunks(file, where):
            try:
                answers = answer(rows, target, arguments.executor, model, first)
                held.writelines(map(_line, texts, rows, answers))
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
            if arguments.total:
                whole.add(rows, answers)
        if arguments.total:
            held.write(f"{_encoded(whole.to_dict())}\n")
        held.seek(0)
        shutil.copyfileobj(held, sys.stdout)
    return 0


def opened(name: str) -> IO[bytes]:
    """A file of queries, or standard input for `-`.

    Raises:
        InputError: it cannot be read.
    """
    if name == "-":
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None


def chunks(file: IO[bytes], where: str) -> Iterator[tuple[int, list[str], list[Row]]]:
    """Lines in parts, as text and as rows, with the number of the first one of each part.

    Raises:
        InputError: too many lines, or one that is no JSON object, by `where` and its number.
    """
    texts: list[str] = []
    rows: list[Row] = []
    number = 0
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
        if number > MAX_LINES:
            raise InputError(f"{where}: more than {MAX_LINES} lines; split it")
        text, row = _row(line, f"{where}: line {number}")
        texts.append(text)
        rows.append(row)
        if len(rows) == CHUNK:
            yield number - CHUNK + 1, texts, rows
            texts, rows = [], []
    if rows:
        yield number - len(rows) + 1, texts, rows


def _row(line: bytes, where: str) -> tuple[str, Row]:
    if len(line) > MAX_LINE_BYTES:
        raise InputError(f"{where}: longer than a megabyte; that is no query")
    try:
        text = line.decode()
        row = _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a JSON object on one line ({error})") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a JSON object")
    return text, row


def _line(text: str, row: Row, found: Row) -> str:
    """The text that came with the answer behind it, seven digits of each figure: to encode it anew takes longer than to
    price it. That is left for what is unknown, what held such fields before, and texts a terminal may not be able to
    show."""
    if found["latency_s"] is None or len(found) < len(row) + len(_ADDED) or not text.isascii():
        return f"{_encoded(found)}\n"
    figures = _FIGURES % tuple([found[name] for name in _ADDED[:-1]])
    return f'{text.rstrip()[:-1]},{figures},"reasons":{_listed(tuple(found["reasons"]))}}}\n'


@lru_cache(maxsize=1 << 10)
def _listed(reasons: tuple[str, ...]) -> str:
    return _encoded(reasons)


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text[:20]} is no number")
    return value


_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def _shape(text: str) -> list[int] | None:
    if text in ("-", "scalar"):
        return None if text == "-" else []
    extents = text.lower().split("x")
    if not all(extent.isascii() and extent.isdigit() and len(extent) < 14 for extent in extents):
        raise UsageError(f"--inputs: {text!r} is no shape; write 8x512x1024,1024x4096")
    return [int(extent) for extent in extents]


def _attribute(text: str) -> tuple[str, Any]:
    """A value that is no JSON is a text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--attr {text}: expected NAME=VALUE, as strides=[2,2]")
    try:
        return name, _decoder.decode(value)
    except (ValueError, RecursionError):
        return name, value


def _print(answers: list[Row], target: str) -> None:
    from rich import box
    from rich.table import Table

    from eopt.tools.report.units import si

    console = common.console()
    table = Table(title=f"one execution on {target}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("operator", "latency", "90 %", "energy", "90 %", "power", "basis"):
        table.add_column(name, justify="left" if name in ("operator", "basis") else "right", no_wrap=True)
    for found in answers:
        cells = [found["op"]]
        for name, unit in (("latency_s", "s"), ("energy_j", "J")):
            low, high = si(found[f"{name}_lo"], unit), si(found[f"{name}_hi"], unit)
            cells += [si(found[name], unit), f"{low} – {high}"]
        table.add_row(*cells, si(found["power_w"], "W"), f"{found['basis']}, {found['energy_scope']}")
    console.print(table)
    for reason in dict.fromkeys(reason for found in answers for reason in found["reasons"]):
        console.print(f"! {reason}", markup=False)
