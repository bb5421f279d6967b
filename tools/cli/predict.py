"""Annotate a model with the predicted energy and latency of every operator and module. Nothing is run.

  eopt predict model.onnx --target nvidia-l4 --batch 8
  eopt predict model.onnx --target raspberry-pi-5 --depth 3
  eopt predict model.onnx --target nvidia-a100-80gb-sxm --clock 1005 --power-cap 250
  eopt predict mymodule:make_model --target nvidia-h100-sxm --json
  eopt predict config.json --target nvidia-h100-sxm --bind batch=8,seq=2048
  eopt predict model.onnx --target nvidia-l4 --load 200 --slo 50 --price 0.25 --carbon 380
  eopt predict model.onnx --target nvidia-h100-sxm --batch 64 --phase training --run steps=90000

A config.json of transformers is priced without weights, generative models in two phases: prefill reads `seq` tokens at
once, decode makes one token with `past` tokens in the cache (`seq` of them by default).

Figures are gross joules of the named scope (board or package) over the latency, with 90 % intervals. `estimated`
marks the physics prior. What cannot be priced is listed as unknown with the reason, never counted as 0."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.ir.errors import UsageError
from eopt.tools.cli import common

if TYPE_CHECKING:
    from eopt.costmodel.run import Rates
    from eopt.costmodel.tree import Priced
    from eopt.ir.model import Model
    from eopt.tools.situation import Options

_TRAINING = "training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    common.add_model(parser)
    group = common.add_situation(parser)
    group.add_argument(
        "--phase", choices=("forward", _TRAINING), default="forward", help="an execution, or a step of training"
    )
    group.add_argument("--optimizer", metavar="NAME", help="of a step of training: adamw (default) or sgd")
    group.add_argument("--graph", action="store_true", help="kernels in a captured graph, not launched one by one")
    common.add_cost_model(group)
    usage = parser.add_argument_group("use that is priced")
    usage.add_argument("--load", type=common.number, metavar="QPS", help="requests a second, batched as they come")
    usage.add_argument("--slo", type=common.number, metavar="MS", help="with --load: bound of the 99th percentile")
    usage.add_argument("--run", metavar="steps=N", help="with --phase training: a whole run on one device")
    usage.add_argument("--price", type=common.number, metavar="MONEY", help="of a kWh, for --load and --run")
    usage.add_argument("--carbon", type=common.number, metavar="G", help="grams of CO2e of a kWh, for --load and --run")
    parser.add_argument("--depth", type=int, default=4, metavar="N", help="levels of the module tree to print (4)")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Price and print."""
    _check(arguments)
    source = Path(arguments.model)
    if source.name == "config.json" or (source.suffix == ".json" and source.is_file()):
        return _architecture(arguments)
    from eopt.tools import frontdoor
    from eopt.tools.predict import predict_model
    from eopt.tools.report import data as report_data

    model = frontdoor.load(arguments.model, trust=arguments.trust)
    priced, situation = predict_model(
        model, arguments.target, batch=arguments.batch, bind=common.bindings(arguments), **_options(arguments)
    )
    usage = _served(arguments, model, priced) if arguments.load else _trained(arguments, priced)
    _show(arguments, [report_data.predict_report(model, priced, situation, arguments.model, usage)])
    return 0


def _check(arguments: argparse.Namespace) -> None:
    trains = arguments.phase == _TRAINING
    for wrong, message in (
        (arguments.slo and not arguments.load, "--slo needs --load QPS: it bounds the latency under a load"),
        (arguments.run and not trains, "--run needs --phase training: a run is many steps of it"),
        (arguments.optimizer and not trains, "--optimizer needs --phase training: an execution updates no weights"),
        (arguments.load and trains, "--load serves executions; leave out --phase training"),
        (
            (arguments.price or arguments.carbon) and not (arguments.load or arguments.run),
            "--price and --carbon need --load or --run: they price the energy of a month or of a run",
        ),
    ):
        if wrong:
            raise UsageError(message)


def _options(arguments: argparse.Namespace) -> Options:
    options: Options = {
        "executor": arguments.executor,
        "clock_mhz": arguments.clock,
        "power_cap_w": arguments.power_cap,
        "graph": arguments.graph,
        "phase": arguments.phase,
        "cost_model": arguments.cost_model,
    }
    if arguments.optimizer:
        options["optimizer"] = arguments.optimizer
    return options


def _rates(arguments: argparse.Namespace) -> Rates:
    from eopt.costmodel.run import Rates

    return Rates(arguments.price, arguments.carbon)


def _served(arguments: argparse.Namespace, model: Model, priced: Priced) -> dict[str, Any]:
    from eopt.tools.predict import predict_serving
    from eopt.tools.report import usage

    slo_s = None if arguments.slo is None else arguments.slo / 1000
    bind = common.bindings(arguments)
    plan = predict_serving(model, priced.situation, arguments.load, slo_s=slo_s, batch=arguments.batch, bind=bind)
    return usage.of_serving(plan, arguments.load, slo_s, _rates(arguments))


def _trained(arguments: argparse.Namespace, priced: Priced) -> dict[str, Any]:
    from eopt.costmodel.run import training_run
    from eopt.tools.report import usage

    if not arguments.run:
        return {}
    matched = re.fullmatch(r"steps=([1-9]\d{0,14})", arguments.run)
    if matched is None:
        raise UsageError(f"--run {arguments.run}: expected steps=N with a positive integer")
    whole = training_run(priced.latency_s, priced.energy_j, int(matched[1]), _rates(arguments))
    return usage.of_run(whole)


def _architecture(arguments: argparse.Namespace) -> int:
    from eopt.tools.predict import predict_config
    from eopt.tools.report import data as report_data

    if arguments.load:
        raise UsageError("--load needs a model with a symbolic batch; a config.json is traced at fixed extents")
    bind = common.bindings(arguments)
    if arguments.batch is not None:
        bind["batch"] = arguments.batch
    phases = predict_config(arguments.model, arguments.target, bind=bind, **_options(arguments))
    _show(
        arguments,
        [report_data.predict_report(p.model, p, p.situation, arguments.model, _trained(arguments, p)) for p in phases],
    )
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
