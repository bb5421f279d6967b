"""Whole models before and after `eopt compile`, through torch.fx with real kernels, eager and through torch.compile.

`before` has constant shapes and the arithmetic of the original. What the shipped model predicts is in each line.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.board import Board
from benchmarks.gpu.cases.base import COMPILED, FIRST, SECOND, TORCH, Call, Case, Missing, compiled, tf32_or_ieee

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
PASSES = {"before": "simplify", "after": "simplify,fuse,cast"}
BATCH = {"cnn": 256, "vit": 256, "transformer": 32}
CPU = "cpu-amd-epyc-9004"  # what is priced where there is no GPU; any sheet will do


def cases(quick: bool) -> Iterator[Case]:
    """Each model before and after, eager and compiled; only one eager pair where it is to be quick."""
    for name in ("cnn",) if quick else BATCH:
        for executor in (TORCH,) if quick else (TORCH, COMPILED):
            for stage in PASSES:
                yield _case(name, stage, executor, 2 if quick else BATCH[name])


def predicted(case: Case, device: str) -> dict[str, Any]:
    """Seconds and joules the shipped model predicts for a case of this family."""
    _, name, stage, executor, batch = case.name.split("/")
    from eopt.tools.predict import predict_model

    target = _target(device)
    model = _model(name, stage, executor, int(batch), target)
    found, _ = predict_model(model, target, executor=_priced(executor, target))
    return {"predicted_latency_s": found.latency_s.mid, "predicted_energy_j": found.energy_j.mid}


def _case(name: str, stage: str, executor: str, batch: int) -> Case:
    def make(torch: Any, device: str) -> Call:
        try:
            from eopt.backends import torch_fx

            model = _model(name, stage, executor, batch, _target(device))
            module = torch_fx.lower(model, device)
        except ImportError as error:
            raise Missing(f"whole models need eopt and what it depends on ({error})") from None
        feeds = [torch.rand(tuple(feed.shape), device=device) for feed in model.feeds]
        return partial(compiled(torch, module) if executor == COMPILED else module, *feeds)

    return Case(
        f"models/{name}/{stage}/{executor}/{batch}",
        {"op": "Model", "inputs": [], "dtype": "float32", "attrs": {"model": name, "stage": stage, "batch": batch}},
        make,
        FIRST if executor == TORCH or name == "transformer" else SECOND,
        executor,
        level="model",
        around=tf32_or_ieee("default"),
        graph=False,
        most_copies=1,
    )


@cache
def _target(device: str) -> str:
    """The sheet of this board, found without nvidia-ml-py.

    Raises:
        Missing: no sheet fits.
    """
    if device == "cpu":
        return CPU
    import torch

    from eopt.backends.detect import match_gpu

    state = Board.of(torch).state()
    known = state["name"] and state["memory_bytes"] and state["default_limit_w"]
    sheet = match_gpu(state["name"], state["memory_bytes"], state["default_limit_w"]) if known else None
    if sheet is None:
        raise Missing(f"no target sheet fits {state['name'] or 'a board that does not say its name and limits'}")
    return sheet.name


@cache
def _model(name: str, stage: str, executor: str, batch: int, target: str) -> Any:
    """The model as it is measured, at one batch."""
    import eopt
    from eopt.ir import onnx_io
    from eopt.ir.specialize import specialize

    if name == "transformer":
        from benchmarks.gpu.cases.transformer import encoder

        original = onnx_io.from_proto(encoder())
    else:
        original = eopt.read(EXAMPLES / name / "model.onnx")
    bound = specialize(original, {"batch": batch})
    return eopt.compile(bound, PASSES[stage], target=target, executor=_priced(executor, target)).model


def _priced(executor: str, target: str) -> str:
    return "onnxruntime" if target == CPU else executor
