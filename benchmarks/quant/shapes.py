"""Export a model of full size with seeded random weights, and its samples.

`zoo.py` starts this, with the folders on the path that it imports from:

shapes.py resnet50 --out DIR     writes model.onnx, calibration.npz and heldout.npz

Batch normalisations have the statistics of one seeded batch, so that activations neither die nor explode. Images are
normal noise on three scales, for neighbouring pixels of photographs are alike; token ids are uniform.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import transformers
from export import IMAGES, SEED, ImageModel, TextModel
from export import TOKENS as DIMS
from to_onnx import to_onnx
from torch import nn

SAMPLES, SIDE, LENGTH = 8, 224, 128
CLASSES = 1000
SCALES = (7, 28, 224)  # pixels along a side of the noise an image is a sum of


def resnet50() -> nn.Module:
    return ImageModel(transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=CLASSES)))


def mobilenetv2() -> nn.Module:
    config = transformers.MobileNetV2Config(num_labels=CLASSES)
    return ImageModel(transformers.MobileNetV2ForImageClassification(config))


def bert() -> nn.Module:
    return TextModel(transformers.BertModel(transformers.BertConfig(), add_pooling_layer=False))


def gpt2() -> nn.Module:
    return TextModel(transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False)))


MODELS = {make.__name__: make for make in (resnet50, mobilenetv2, bert, gpt2)}


def write(name: str, folder: Path) -> None:
    """Export model `name` and its samples into a folder."""
    torch.manual_seed(SEED)
    module = MODELS[name]().eval()
    draw = np.random.default_rng(SEED)
    calibration, heldout = (_samples(module, draw) for _ in range(2))
    _settle(module, calibration)
    dims, output = (IMAGES, "logits") if isinstance(module, ImageModel) else (DIMS, "output")
    example = {key: torch.from_numpy(array[:2]) for key, array in calibration.items()}
    to_onnx(module, example, folder / "model.onnx", output=output, dims=dict.fromkeys(example, dims))
    np.savez_compressed(folder / "calibration.npz", **calibration)
    np.savez_compressed(folder / "heldout.npz", **heldout)


def _samples(module: nn.Module, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """float32[samples, 3, side, side] of unit variance, or int64[samples, length] each of ids and mask."""
    if isinstance(module, ImageModel):
        return {"pixel_values": _images(draw)}
    ids = draw.integers(0, module.model.config.vocab_size, (SAMPLES, LENGTH))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _images(draw: np.random.Generator) -> np.ndarray:
    total = np.zeros((SAMPLES, 3, SIDE, SIDE))
    for side in SCALES:
        total += np.kron(draw.standard_normal((SAMPLES, 3, side, side)), np.ones((SIDE // side, SIDE // side)))
    return (total / np.sqrt(len(SCALES))).astype(np.float32)


def _settle(module: nn.Module, samples: Mapping[str, np.ndarray]) -> None:
    """Batch normalisations with random gains and offsets, and the mean and variance of what reaches them."""
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
        norm.momentum = None  # the average over all batches since the reset, of which there is one
        norm.reset_running_stats()
        norm.train()
    if norms:
        with torch.inference_mode():
            module(**{key: torch.from_numpy(array) for key, array in samples.items()})
    module.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(2)
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.model, options.out)


if __name__ == "__main__":
    main()
