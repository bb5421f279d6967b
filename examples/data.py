"""scikit-learn's handwritten digits at 64x64, in a fixed split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

SIDE = 64
CLASSES = 10
HELD_OUT_SHARE = 0.2
CALIBRATION_SAMPLES = 128


@dataclass(frozen=True)
class Digits:
    """Images are float32[n, 1, SIDE, SIDE] in [0, 1], labels int64[n]. `calibration` is a part of `train`."""

    train: torch.Tensor
    train_labels: torch.Tensor
    calibration: torch.Tensor
    held_out: torch.Tensor
    held_out_labels: torch.Tensor


def load(seed: int = 0) -> Digits:
    """The 1797 digits, both splits stratified by class."""
    digits = load_digits()
    small = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16  # grey levels are 0..16
    images = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    labels = torch.tensor(digits.target)
    train, held_out = train_test_split(range(len(labels)), test_size=HELD_OUT_SHARE, stratify=labels, random_state=seed)
    _, calibration = train_test_split(train, test_size=CALIBRATION_SAMPLES, stratify=labels[train], random_state=seed)
    return Digits(images[train], labels[train], images[calibration], images[held_out], labels[held_out])


def augment(images: torch.Tensor, side: int) -> torch.Tensor:
    """Turn, scale and shift each image a little at random (12 degrees, 10 %, 8 % of the side), sampled at `side`."""
    count = len(images)
    angle = torch.empty(count).uniform_(-0.21, 0.21)
    scale = torch.empty(count).uniform_(0.9, 1.1)
    right, down = torch.empty(2, count).uniform_(-0.16, 0.16)  # in half sides
    cos, sin = scale * angle.cos(), scale * angle.sin()
    matrices = torch.stack((cos, -sin, right, sin, cos, down), dim=1).view(count, 2, 3)
    grid = F.affine_grid(matrices, [count, 1, side, side], align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
