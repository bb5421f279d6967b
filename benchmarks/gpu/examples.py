"""The examples on this GPU before and after compilation: measured beside predicted, eager and compiled.

python benchmarks/gpu/examples.py [--batch 256] [--passes simplify,fuse,cast] [--out benchmarks/gpu/results]
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import eopt
from eopt.backends import torch_fx
from eopt.ir.specialize import specialize
from eopt.tools.predict import predict_model

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ("cnn", "vit")
EXECUTORS = {"eager": "torch", "compiled": "torch-compile"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--passes", default="simplify,fuse,cast")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/gpu/results")
    options = parser.parse_args()
    import pynvml
    import torch
    from meter import state

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
    board = {**state(pynvml, handle), "torch": torch.__version__, "date": datetime.now(UTC).isoformat("T", "seconds")}
    rows = [row for name in EXAMPLES for row in _example(torch, pynvml, handle, name, options)]
    board["after"] = state(pynvml, handle)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"examples-{board['name'].replace(' ', '-')}-{board['date'][:10]}.json"
    path.write_text(json.dumps({"board": board, "batch": options.batch, "rows": rows}, indent=2) + "\n")
    print(f"wrote {path}")


def _example(torch: Any, nvml: Any, handle: Any, name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    from meter import measure

    folder = ROOT / "examples" / name
    original = specialize(eopt.read(folder / "model.onnx"), {"batch": options.batch})
    plain = eopt.compile(original, "simplify").model  # shapes become constants; the arithmetic stays the original's
    rows = []
    for mode, executor in EXECUTORS.items():
        rewritten = eopt.compile(original, options.passes, target="auto", executor=executor).model
        for stage, model in (("before", plain), ("after", rewritten)):
            module = torch_fx.lower(model, "cuda")
            module = torch.compile(module) if mode == "compiled" else module
            feeds = [torch.rand(tuple(feed.shape), device="cuda") for feed in model.feeds]
            with torch.inference_mode():
                reading = measure(torch, nvml, handle, lambda: module(*feeds))  # noqa: B023
            predicted, _ = predict_model(model, "auto", executor=executor)
            rows.append(
                {
                    "example": name, "mode": mode, "stage": stage, **vars(reading),
                    "predicted_latency_s": predicted.latency_s.mid, "predicted_energy_j": predicted.energy_j.mid,
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    main()
