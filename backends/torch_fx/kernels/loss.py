"""Losses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.registry import kernel


@kernel("NegativeLogLikelihoodLoss")
def nll(x: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100,
        reduction: str = "mean") -> Tensor:  # fmt: skip
    """Of log-probabilities (batch, class, ...)."""
    return F.nll_loss(x, target.to(torch.int64), weight, ignore_index=ignore_index, reduction=reduction)


@kernel("SoftmaxCrossEntropyLoss")
def cross_entropy(x: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100,
                  reduction: str = "mean", outputs: int = 1) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Of scores, with their log-probabilities where asked for."""
    logs = F.log_softmax(x, 1)
    loss = nll(logs, target, weight, ignore_index=ignore_index, reduction=reduction)
    return loss if outputs == 1 else (loss, logs)
