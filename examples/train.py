"""Train the example models on this CPU and export them: python examples/train.py [cnn|vit ...]

Writes examples/<name>/model.onnx, calibration.npz and heldout.npz. Minutes per model on two cores.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import data
import numpy as np
import torch
from models import ResidualCnn, VisionTransformer
from to_onnx import to_onnx
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
THREADS = 2  # fixed, since the order of sums decides the last bits of the weights
SEED = 0


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained: AdamW under a one-cycle schedule (Smith and Topin 2018)."""

    network: type[torch.nn.Module]
    sides: tuple[int, ...]  # of the training images, by epoch
    peak_rate: float
    weight_decay: float
    batch: int = 32


RECIPES = {
    # Progressive resizing: at half the side an epoch takes a quarter of the time.
    "cnn": Recipe(ResidualCnn, sides=(32,) * 10 + (64,) * 4, peak_rate=4e-3, weight_decay=1e-2),
    "vit": Recipe(VisionTransformer, sides=(64,) * 40, peak_rate=1e-3, weight_decay=5e-2),
}


def train(recipe: Recipe, digits: data.Digits) -> torch.nn.Module:
    """A network trained on `digits.train`; seeded."""
    torch.manual_seed(SEED)
    network = recipe.network().to(memory_format=torch.channels_last)  # twice as fast for depthwise convolutions
    steps = len(digits.train) // recipe.batch
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.peak_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_rate, total_steps=len(recipe.sides) * steps)
    network.train()
    for epoch, side in enumerate(recipe.sides, 1):
        order = torch.randperm(len(digits.train))
        total = 0.0
        for chosen in order[: steps * recipe.batch].view(steps, recipe.batch):
            loss = F.cross_entropy(network(data.augment(digits.train[chosen], side)), digits.train_labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"  epoch {epoch}/{len(recipe.sides)}: loss {total / steps:.3f}", flush=True)
    return network.eval()


def accuracy(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1."""
    with torch.inference_mode():
        predicted = torch.cat([network(part).argmax(1) for part in images.split(64)])
    return float((predicted == labels).float().mean())


def write(name: str, network: torch.nn.Module, digits: data.Digits) -> None:
    """The model and its data, in one folder."""
    score = accuracy(network, digits.held_out, digits.held_out_labels)
    folder = HERE / name
    to_onnx(
        network,
        {"image": digits.calibration[:2]},
        folder / "model.onnx",
        output="logits",
        dims={"image": {0: "batch"}},
        notes={"eopt.example.top1": f"{score:.4f}"},
    )
    np.savez_compressed(folder / "calibration.npz", image=digits.calibration.numpy())
    np.savez_compressed(folder / "heldout.npz", image=digits.held_out.numpy(), labels=digits.held_out_labels.numpy())
    size = (folder / "model.onnx").stat().st_size
    print(f"{name}: held-out top-1 {score:.4f}, {size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", default=list(RECIPES), help=", ".join(RECIPES))
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    digits = data.load()
    for name in options.names:
        start = time.perf_counter()
        network = train(RECIPES[name], digits)
        write(name, network, digits)
        print(f"{name}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
