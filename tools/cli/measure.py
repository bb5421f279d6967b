"""Measure every operator of a model and the model whole on this machine, beside what is predicted.

  eopt measure model.onnx
  eopt measure model.onnx --executor torch --batch 8 --out measured
  eopt measure queries.jsonl --executor tvm --tune 32
  eopt measure model.onnx --against compiled.onnx

A file that ends in .jsonl holds cost queries as `eopt query` reads them, one a line. The table has the worst predicted
operators first. Energy is measured where there is a meter; where there is none it is unknown, and the output says why.

With --against both models run in turns on the same inputs, and the output says what the second saves with its 95 %
interval. Joules decide where they are metered, else latency; an interval that contains 0 is no difference. One in forty
comparisons of equal models is called worse by chance: that is what 95 % says.

--out writes measured.json, measured.svg (predicted against measured) and rows-measured.parquet, the typed table that
`eopt data train` reads. Operators that fail are named, the rest goes on, and the exit code is 5; worse is 6."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.ir.errors import OutputError, UsageError
from eopt.tools.cli import common
from eopt.tools.cli.calibrate import PARTIAL

if TYPE_CHECKING:
    from eopt.tools.measurement import Measurement

CHECK_FAILED = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    common.add_model(parser)
    parser.add_argument("--against", metavar="MODEL", help="another model of one kind: what does it save?")
    parser.add_argument("--target", default="auto", metavar="NAME", help="the device (auto: this machine)")
    parser.add_argument("--executor", metavar="NAME", help="who runs models there; default by target")
    parser.add_argument("--batch", type=common.positive, metavar="N", help="extent of the batch dim (default 1)")
    parser.add_argument(
        "--bind", action="append", default=[], metavar="NAME=VALUE[,...]", help="extents of other dims; repeatable"
    )
    parser.add_argument("--tune", type=common.positive, metavar="N", help="with tvm: search schedules with N trials")
    common.add_reach(parser)
    parser.add_argument("--out", "-o", type=Path, metavar="DIR", help="write measured.json, .svg and the table here")
    parser.add_argument("--cache", metavar="DIR", help="for latencies; default $EOPT_CACHE, else ~/.cache/eopt")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write."""
    from eopt.tools.measuring import reach

    away = reach(arguments.rpc, arguments.key, arguments.trust_network)
    if arguments.against is None:
        return _measure(arguments, away)
    for option, given in (("--rpc", away), ("--tune", arguments.tune)):
        if given is not None:
            raise UsageError(f"--against runs models in turns on this machine; leave out {option}")
    return _against(arguments)


def _measure(arguments: argparse.Namespace, away: Any) -> int:
    from eopt.tools.measure import measure_model, measure_operators
    from eopt.tools.report import measured

    options = {
        "executor": arguments.executor, "tune": arguments.tune, "away": away, "cache": arguments.cache,
        "name": _name(Path(arguments.model)),
    }  # fmt: skip
    with common.progress(arguments.json) as progress:
        if arguments.model.endswith(".jsonl"):
            if arguments.batch or arguments.bind:
                raise UsageError("--batch and --bind are of models; queries have fixed extents")
            queries = _queries(Path(arguments.model))
            found = measure_operators(queries, arguments.target, progress=progress, **options)
        else:
            model, bind = _load(arguments.model, arguments.trust), common.bindings(arguments)
            found = measure_model(
                model, arguments.target, batch=arguments.batch, bind=bind, progress=progress, **options
            )
    report = measured.document(found)
    notes = _write(found, report, arguments.out) if arguments.out else []
    if arguments.json:
        common.print_json(report)
    else:
        console = common.console()
        measured.print_measured(report, console)
        for note in notes:
            console.print(note, markup=False, soft_wrap=True)
    return PARTIAL if found.failed else 0


def _name(path: Path) -> str:
    """Of the workload in the table; exporters call every file model.onnx, so there the folder tells more."""
    folder = path.resolve().parent.name
    return folder if path.stem == "model" and folder else path.stem


def _load(path: str, trust: bool) -> Any:
    from eopt.tools import frontdoor

    return frontdoor.load(path, trust=trust)


def _queries(path: Path) -> list[dict[str, Any]]:
    from eopt.tools.cli.query import chunks, opened

    with opened(str(path)) as file:
        rows = [row for _, _, part in chunks(file, str(path)) for row in part]
    if not rows:
        raise UsageError(f"{path}: no queries; a line is as {{'op': 'Relu', 'inputs': [[8, 8]], 'dtype': 'float32'}}")
    return rows


def _write(found: Measurement, report: dict[str, Any], out: Path) -> list[str]:
    """All files together or none; returns what to say about it."""
    from importlib.util import find_spec

    from eopt.costmodel import measured_rows
    from eopt.ir.onnx_out import atomic
    from eopt.tools.report import measured

    _folder(out)
    texts = {"measured.json": json.dumps(report, indent=2, allow_nan=False), "measured.svg": measured.svg(report)}
    rows = found.rows()
    tabled = bool(rows) and find_spec("pyarrow") is not None
    with ExitStack() as stack:
        for name, text in texts.items():
            stack.enter_context(atomic(out / name)).write(text.encode())
        if tabled:
            measured_rows.write(rows, out)
    names = [*texts, *([measured_rows.FILE] if tabled else [])]
    notes = ["wrote " + ", ".join(str(out / name) for name in names)]
    missing = f"! no {measured_rows.FILE}: it needs pyarrow; pip install 'eopt[data]'"
    return notes if tabled or not rows else [*notes, missing]


def _folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be created ({error.strerror})") from None


def _against(arguments: argparse.Namespace) -> int:
    from eopt.ir.onnx_out import atomic
    from eopt.tools.against import compare_models
    from eopt.tools.report import measured
    from eopt.tools.turns import WORSE

    before, after = (_load(path, arguments.trust) for path in (arguments.model, arguments.against))
    with common.progress(arguments.json) as progress:
        found = compare_models(
            before,
            after,
            arguments.target,
            arguments.executor,
            batch=arguments.batch,
            bind=common.bindings(arguments),
            names=(arguments.model, arguments.against),
            progress=progress,
        )
    report = {"before": arguments.model, "after": arguments.against, **measured.comparison(found)}
    if arguments.out:
        _folder(arguments.out)
        with atomic(arguments.out / "measured.json") as file:
            file.write(json.dumps(report, indent=2, allow_nan=False).encode())
    if arguments.json:
        common.print_json(report)
    else:
        measured.print_comparison(found, common.console())
    return CHECK_FAILED if found.verdict == WORSE else 0
