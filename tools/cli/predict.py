"""Annotate a model with the predicted energy and latency of every operator and module. Nothing is run.

  eopt predict model.onnx --target nvidia-l4 --batch 8
  eopt predict model.onnx --target raspberry-pi-5 --depth 3
  eopt predict model.onnx --target nvidia-a100-80gb-sxm --clock 1005 --power-cap 250
  eopt predict mymodule:make_model --target nvidia-h100-sxm --json
  eopt predict config.json --target nvidia-h100-sxm --bind batch=8,seq=2048

A config.json of transformers is priced without weights, generative models in two phases: prefill reads `seq` tokens at
once, decode makes one token with `past` tokens in the cache (`seq` of them by default).

Figures are gross joules of the named scope (board or package) over the latency, with 90 % intervals. `estimated`
marks the physics prior. What cannot be priced is listed as unknown with the reason, never counted as 0."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from eopt.tools.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    common.add_model(parser)
    common.add_situation(parser)
    parser.add_argument("--depth", type=int, default=4, metavar="N", help="levels of the module tree to print (4)")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Price and print."""
    source = Path(arguments.model)
    if source.name == "config.json" or (source.suffix == ".json" and source.is_file()):
        return _architecture(arguments)
    from eopt.tools import frontdoor
    from eopt.tools.predict import predict_model
    from eopt.tools.report import data as report_data

    model = frontdoor.load(arguments.model, trust=arguments.trust)
    priced, situation = predict_model(
        model,
        arguments.target,
        executor=arguments.executor,
        batch=arguments.batch,
        bind=common.bindings(arguments),
        clock_mhz=arguments.clock,
        power_cap_w=arguments.power_cap,
    )
    _show(arguments, [report_data.predict_report(model, priced, situation, arguments.model)])
    return 0


def _architecture(arguments: argparse.Namespace) -> int:
    from eopt.tools.predict import predict_config
    from eopt.tools.report import data as report_data

    bind = common.bindings(arguments)
    if arguments.batch is not None:
        bind["batch"] = arguments.batch
    phases = predict_config(
        arguments.model,
        arguments.target,
        executor=arguments.executor,
        bind=bind,
        clock_mhz=arguments.clock,
        power_cap_w=arguments.power_cap,
    )
    _show(arguments, [report_data.predict_report(p.model, p, p.situation, arguments.model) for p in phases])
    return 0


def _show(arguments: argparse.Namespace, reports: list[dict[str, Any]]) -> None:
    """One report, or one for each phase; as JSON several are an object by phase."""
    if arguments.json:
        by_phase = {report["situation"]["phase"]: report for report in reports}
        common.print_json(reports[0] if len(reports) == 1 else by_phase)
        return
    from eopt.tools.report import terminal

    for report in reports:
        terminal.print_predict(report, common.console(), arguments.depth)
