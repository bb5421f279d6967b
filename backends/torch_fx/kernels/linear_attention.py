"""Attention with a state instead of a cache (opset 27), step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from eopt.backends.torch_fx.kernels.registry import kernel


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2).float()


@kernel("LinearAttention")
def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, past: Tensor | None = None, decay: Tensor | None = None,
    beta: Tensor | None = None, *, q_num_heads: int, kv_num_heads: int, chunk_size: int = 64, scale: float = 0.0,
    update_rule: str = "gated_delta", outputs: int = 1,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Per step: the state decays, takes in k v^T (corrected by what it already answers to k), and answers q."""
    dtype, groups = q.dtype, q_num_heads // kv_num_heads
    queries, keys, values = _heads(q, q_num_heads), _heads(k, kv_num_heads), _heads(v, kv_num_heads)
    factor = scale or keys.shape[-1] ** -0.5
    kept = None if decay is None else _heads(decay, kv_num_heads).exp()
    rates = None if beta is None else beta.transpose(1, 2).unsqueeze(-1).float()
    shape = (*keys.shape[:2], keys.shape[-1], values.shape[-1])
    state = keys.new_zeros(shape) if past is None else past.float()
    answers = []
    for step in range(q.shape[1]):
        key, new = keys[:, :, step], values[:, :, step]
        state = state if kept is None else state * kept[:, :, step].unsqueeze(-1)
        if rates is not None:
            new = rates[:, :, step] * (new - (state * key.unsqueeze(-1)).sum(-2))
        state = state + key.unsqueeze(-1) * new.unsqueeze(-2)
        seen = state.repeat_interleave(groups, 1)
        answers.append((seen * queries[:, :, step].unsqueeze(-1)).sum(-2) * factor)
    y = torch.stack(answers, 2).transpose(1, 2).flatten(2).to(dtype)
    return y if outputs == 1 else (y, state.to(dtype if past is None else past.dtype))
