"""Lower the operator tree to a `torch.fx.GraphModule` that computes the same, on any torch device (docs/torch.md)."""

from __future__ import annotations

from eopt.backends.torch_fx.lowering import lower
from eopt.backends.torch_fx.train import trained

__all__ = ["lower", "trained"]
