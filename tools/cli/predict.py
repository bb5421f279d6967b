"""Annotate a model with the predicted energy and latency of every operator and module. Nothing is run.

  eopt predict model.onnx --target nvidia-l4 --batch 8
  eopt predict model.onnx --target raspberry-pi-5 --depth 3
  eopt predict mymodule:make_model --target nvidia-h100-sxm --json

Figures are gross joules of the named scope (board or package) over the latency, with 90 % intervals. `estimated`
marks the physics prior. What cannot be priced is listed as unknown with the reason, never counted as 0."""

from __future__ import annotations

import argparse

from eopt.tools.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    common.add_model(parser)
    common.add_situation(parser)
    parser.add_argument("--depth", type=int, default=4, metavar="N", help="levels of the module tree to print (4)")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Price and print."""
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
    )
    report = report_data.predict_report(model, priced, situation, arguments.model)
    if arguments.json:
        common.print_json(report)
        return 0
    from eopt.tools.report import terminal

    terminal.print_predict(report, common.console(), arguments.depth)
    return 0
