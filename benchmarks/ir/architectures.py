"""Prediction from a config.json alone, at full size, and what another batch or length costs once a model is analysed.

python benchmarks/ir/architectures.py
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TARGET = "nvidia-h100-sxm"

# Facts of the published configurations.
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "Llama-3-70B": ({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "intermediate_size": 28672,
        "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
        "max_position_embeddings": 8192, "rope_theta": 500000.0, "dtype": "bfloat16",
    }, "batch=8,seq=2048"),
    "Mixtral-8x7B": ({
        "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "hidden_size": 4096, "vocab_size": 32000,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "num_local_experts": 8, "num_experts_per_tok": 2, "dtype": "bfloat16",
    }, "batch=8,seq=2048"),
    "GPT-2": ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "batch=8,seq=1024"),
    "BERT-base": ({"model_type": "bert", "architectures": ["BertModel"]}, "batch=8,seq=512"),
    "T5-base": ({
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 768, "d_ff": 3072,
        "num_layers": 12, "num_heads": 12,
    }, "batch=8,seq=512"),
    "Whisper-small": ({
        "model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "d_model": 768,
        "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 12, "decoder_attention_heads": 12,
        "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
    }, "batch=8"),
    "CLIP-base": ({"model_type": "clip", "architectures": ["CLIPModel"]}, "batch=8"),
    "ViT-base": ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "batch=8"),
    "ResNet-50": ({"model_type": "resnet", "architectures": ["ResNetForImageClassification"]}, "batch=8"),
    "MobileNetV2": ({"model_type": "mobilenet_v2", "architectures": ["MobileNetV2ForImageClassification"]}, "batch=8"),
}  # fmt: skip


def main() -> None:
    print(f"{'architecture':<15}{'s':>7}{'peak MB':>9}  phases: operators, joules, seconds on {TARGET}")
    with tempfile.TemporaryDirectory() as folder:
        for name, (config, bind) in CONFIGS.items():
            path = Path(folder) / "config.json"
            path.write_text(json.dumps(config))
            _config(name, path, bind)
    _late()


def _config(name: str, path: Path, bind: str) -> None:
    """The whole process, imports of torch and transformers included."""
    code = "import resource, sys; from eopt.tools.cli import main; code = main(); " \
           "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"  # fmt: skip
    command = [sys.executable, "-c", code, "predict", str(path), "--target", TARGET, "--bind", bind, "--json"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        print(f"{name:<15} failed: {done.stderr.strip().splitlines()[-2:]}")
        return
    document = json.loads(done.stdout)
    phases = [document] if "situation" in document else document.values()
    said = "; ".join(_phase(report) for report in phases)
    print(f"{name:<15}{seconds:>7.1f}{int(done.stderr.split()[-1]) / 1e3:>9.0f}  {said}", flush=True)


def _phase(report: dict[str, Any]) -> str:
    priced, nodes = report["before"], report["model"]["before"]["nodes"]
    unknown = f", {priced['unknown']['count']} unknown" if priced["unknown"]["count"] else ""
    return (
        f"{report['situation']['phase']} {nodes}, {priced['energy_j']['mid']:.3g} J, "
        f"{priced['latency_s']['mid']:.3g} s{unknown}"
    )


def _late() -> None:
    """Bindings of one analysed model, each priced anew: the examples' vision transformer over batches."""
    from eopt.ir import onnx_io
    from eopt.tools.predict import predict_model

    model = onnx_io.read(ROOT / "examples/vit/model.onnx")
    times = []
    for batch in range(1, 202):
        began = time.perf_counter()
        predict_model(model, TARGET, batch=batch)
        times.append(time.perf_counter() - began)
    first, others = times[0], sorted(times[1:])
    print(
        f"late binding, {len(model.leaves())} operators: first batch {1e3 * first:.0f} ms, "
        f"200 others {1e3 * others[100]:.1f} ms each (p95 {1e3 * others[190]:.1f})"
    )
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
