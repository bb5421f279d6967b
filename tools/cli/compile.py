"""Rewrite a model so that it uses less energy, verify it, and report where the joules went.

Every rewrite is priced on the target before and after, and kept only if the whole model is predicted to use less;
what was refused is listed with the reason. After each pass the model is checked against the original on data (given
with --data, else seeded random inputs), and a pass that breaks its contract is rolled back.

  eopt compile model.onnx --passes simplify,fuse --target nvidia-l4
  eopt compile model.onnx --passes simplify,fuse,quant --data calibration.npz --target nvidia-h100-sxm --batch 64
  eopt compile model.onnx --passes simplify,fuse --target auto --measure
  eopt compile model.onnx --passes quant --data d.npz --metric top1 --max-loss 0.01 --no-gate

With --measure every pass is also run in turns with the last good model on this machine, and what measures worse is
rolled back; where nothing is left the input is written unchanged.

Writes OUT/model.onnx, OUT/report.json and OUT/report.html, or, when OUT ends in .onnx, that file with the reports
beside it. Nothing is written before everything has succeeded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from eopt.ir.errors import ContractError, OutputError
from eopt.tools.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    common.add_model(parser)
    parser.add_argument(
        "--passes", required=True, metavar="LIST", help="e.g. simplify,fuse,quant{observer=percentile}; or a .yaml file"
    )
    parser.add_argument("--keep-order", action="store_true", help="run the passes in the order given")
    parser.add_argument("--no-gate", action="store_true", help="apply every rewrite, whatever the predicted joules")
    parser.add_argument(
        "--out", "-o", type=Path, default=Path("out"), metavar="PATH", help="folder or .onnx file (out)"
    )
    parser.add_argument(
        "--shard-size",
        type=common.size,
        metavar="SIZE",
        help="put the weights beside the model in files of 500MB, 4GB …",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="write a compressed-tensors checkpoint too, for vLLM and transformers; MODEL is a Hugging Face folder",
    )
    common.add_situation(parser)
    parser.add_argument(
        "--measure",
        action="store_true",
        help="run every pass in turns with what was before it; roll back what is worse",
    )
    data = parser.add_argument_group("data and accuracy")
    data.add_argument(
        "--data",
        metavar="PATH",
        help="calibration samples: file.npz (keys = inputs), a folder of them, file.jsonl or module:function",
    )
    data.add_argument("--tokenizer", metavar="DIR", help="local Hugging Face folder that reads the texts of a .jsonl")
    data.add_argument("--eval-data", metavar="PATH", help="held-out samples; default: a seeded quarter of --data")
    data.add_argument("--metric", metavar="NAME", help="top1, cosine, perplexity or module:function")
    data.add_argument("--max-loss", type=float, metavar="X", help="allowed loss of the metric, in its own unit")
    parser.add_argument("--seed", type=int, default=0, help="seed of splits and random inputs (0)")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compile, print, write."""
    from eopt.tools import checkpoint, frontdoor
    from eopt.tools.compile import compile_model
    from eopt.tools.proving import measured_lines
    from eopt.tools.report import data as report_data

    if arguments.checkpoint:
        checkpoint.check(arguments.model, arguments.checkpoint)
    with common.progress(arguments.json) as progress:
        model = frontdoor.load(arguments.model, trust=arguments.trust)
        result = compile_model(
            model,
            _pipeline(arguments),
            progress=progress,
            target=arguments.target,
            executor=arguments.executor,
            data=arguments.data,
            eval_data=arguments.eval_data,
            tokenizer=arguments.tokenizer,
            metric=arguments.metric,
            max_loss=arguments.max_loss,
            gate=not arguments.no_gate,
            batch=arguments.batch,
            bind=common.bindings(arguments),
            clock_mhz=arguments.clock,
            power_cap_w=arguments.power_cap,
            seed=arguments.seed,
            measure=arguments.measure,
        )
        report = report_data.compile_report(result.compiled, str(result.pipeline), result.situation, arguments.model)
    lines = list(measured_lines(result.proven)) if result.proven else []
    if arguments.checkpoint:  # first: what it refuses leaves nothing written
        made = checkpoint.write(result.compiled, arguments.model, arguments.checkpoint)
        lines += [f"checkpoint {made.folder}: {len(made.schemes)} quantised layers", *made.notes]
    written = _write(result.model, report, arguments.out, arguments.shard_size)
    if arguments.json:
        common.print_json(report)
    else:
        _show(report, written, lines)
    return ContractError.exit_code if result.violated else 0


def _pipeline(arguments: argparse.Namespace) -> Any:
    from eopt.passes.pipeline import Pipeline
    from eopt.tools.files import read_text

    path = Path(arguments.passes)
    if path.suffix in (".yaml", ".yml"):
        return Pipeline.from_yaml(read_text(path), keep_order=arguments.keep_order)
    return Pipeline.parse(arguments.passes, keep_order=arguments.keep_order)


def _write(model: Any, report: dict[str, Any], out: Path, shard_bytes: int | None) -> list[Path]:
    """All files appear together or none does."""
    from eopt.ir import onnx_out
    from eopt.tools.report import html

    paths = _paths(out)
    texts = [html.render(report), json.dumps(report, indent=2, allow_nan=False)]
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{paths[0].parent}: cannot be created ({error.strerror})") from None
    with ExitStack() as stack:
        for path, text in zip(paths[1:], texts, strict=True):
            stack.enter_context(onnx_out.atomic(path)).write(text.encode())
        onnx_out.write(model, paths[0], shard_bytes)
    return paths


def _paths(out: Path) -> list[Path]:
    if out.suffix == ".onnx":
        return [out, out.with_suffix(".report.html"), out.with_suffix(".report.json")]
    return [out / "model.onnx", out / "report.html", out / "report.json"]


def _show(report: dict[str, Any], written: list[Path], measured: Iterable[str]) -> None:
    from eopt.tools.report import terminal

    console = common.console()
    terminal.print_compile(report, console)
    for line in measured:
        console.print(line, markup=False, soft_wrap=True)
    console.print("wrote " + ", ".join(str(path) for path in written))
