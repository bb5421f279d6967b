"""Attention and what belongs to it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.dtypes import torch_dtype
from eopt.backends.torch_fx.kernels.registry import kernel


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _laid_out(
    q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor | None, Tensor | None], q_heads: int, kv_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """As (batch, heads, tokens, size), behind what the cache holds."""
    if q.dim() == 3:
        q, k, v = _heads(q, q_heads), _heads(k, kv_heads), _heads(v, kv_heads)
    old_k, old_v = past
    return q, k if old_k is None else torch.cat((old_k, k), 2), v if old_v is None else torch.cat((old_v, v), 2)


def _allowed(q: Tensor, k: Tensor, offset: Tensor | int, causal: int, left: int, right: int) -> Tensor | None:
    """Which key each query may see by its place; the first query stands at `offset`."""
    if not causal and left < 0 and right < 0:
        return None
    places = torch.arange(q.shape[-2], device=q.device).unsqueeze(-1) + offset
    behind = places - torch.arange(k.shape[-2], device=q.device)
    allowed = behind >= (0 if causal else -k.shape[-2] - q.shape[-2])
    allowed = allowed & (behind <= left) if left >= 0 else allowed
    return allowed & (-behind <= right) if right >= 0 else allowed


def _joined(mask: Tensor | None, allowed: Tensor | None) -> Tensor | None:
    if mask is None or allowed is None:
        return allowed if mask is None else mask
    if mask.dtype == torch.bool:
        return mask & allowed
    return torch.where(allowed, mask, torch.tensor(float("-inf"), dtype=mask.dtype, device=mask.device))


def _mask(q: Tensor, k: Tensor, mask: Tensor | None, past: Tensor | None, valid: Tensor | None, causal: int, left: int,
          right: int) -> Tensor | None:  # fmt: skip
    """What is given, what places allow and what is no padding, in one; a short mask hides the keys behind its end."""
    if mask is not None:
        mask = F.pad(mask, (0, k.shape[-2] - mask.shape[-1]), value=0 if mask.dtype == torch.bool else float("-inf"))
        mask = mask.unsqueeze(0) if mask.dim() == 1 else mask
        mask = mask if mask.dtype == torch.bool else mask.to(q.dtype)
    offset: Tensor | int = 0 if past is None else past.shape[-2]
    if valid is not None:
        valid = valid.reshape(-1, 1, 1, 1)
        offset = valid - q.shape[-2] if past is None else offset
        mask = _joined(mask, torch.arange(k.shape[-2], device=q.device) < valid)
    return _joined(mask, _allowed(q, k, offset, causal, left, right))


@kernel("Attention")
def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, past_key: Tensor | None = None,
    past_value: Tensor | None = None, valid: Tensor | None = None, *, is_causal: int = 0, scale: float | None = None,
    q_num_heads: int = 0, kv_num_heads: int = 0, left_window_size: int = -1, right_window_size: int = -1,
    qk_matmul_output_mode: int = 0, softcap: float = 0.0, softmax_precision: int = 0, outputs: int = 1,
) -> Tensor | tuple[Tensor, ...]:  # fmt: skip
    """On `scaled_dot_product_attention`: 4-D inputs, or 3-D inputs with head counts; a cache is prepended."""
    flat = q.dim() == 3
    q, k, v = _laid_out(q, k, v, (past_key, past_value), q_num_heads, kv_num_heads)
    given = (mask, past_key, valid)
    causal = bool(is_causal) and given == (None,) * 3 and max(left_window_size, right_window_size) < 0
    bias = None if causal else _mask(q, k, *given, is_causal, left_window_size, right_window_size)
    grouped = q.shape[1] != k.shape[1]
    y = F.scaled_dot_product_attention(q, k, v, bias, is_causal=causal, scale=scale, enable_gqa=grouped)
    y = y.transpose(1, 2).flatten(2) if flat else y
    return y if outputs == 1 else (y, k, v)[:outputs]


@kernel("eopt.ExplicitAttention")
def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, past_key: Tensor | None = None,
    past_value: Tensor | None = None, valid: Tensor | None = None, *, is_causal: int = 0, scale: float | None = None,
    q_num_heads: int = 0, kv_num_heads: int = 0, left_window_size: int = -1, right_window_size: int = -1,
    qk_matmul_output_mode: int = 0, softcap: float = 0.0, softmax_precision: int = 0, outputs: int = 1,
) -> Tensor | tuple[Tensor, ...]:  # fmt: skip
    """Written out, for capped scores and for those who want to see them."""
    flat = q.dim() == 3
    q, k, v = _laid_out(q, k, v, (past_key, past_value), q_num_heads, kv_num_heads)
    bias = _mask(q, k, mask, past_key, valid, is_causal, left_window_size, right_window_size)
    groups = q.shape[1] // k.shape[1]
    root = (q.shape[-1] ** -0.5 if scale is None else scale) ** 0.5
    raw = (q * root) @ (k.repeat_interleave(groups, 1) * root).transpose(-1, -2)
    capped = softcap * torch.tanh(raw / softcap) if softcap else raw
    biased, hidden = capped, None
    if bias is not None:
        biased = capped.masked_fill(~bias, float("-inf")) if bias.dtype == torch.bool else capped + bias
        hidden = ~bias if bias.dtype == torch.bool else torch.isneginf(bias)
    weights = torch.softmax(biased.to(torch_dtype(softmax_precision)) if softmax_precision else biased, -1).to(q.dtype)
    weights = weights if hidden is None else weights.masked_fill(hidden.all(-1, keepdim=True), 0.0)
    y = weights @ v.repeat_interleave(groups, 1)
    y = y.transpose(1, 2).flatten(2) if flat else y
    return y if outputs == 1 else (y, k, v, (raw, capped, biased, weights)[qk_matmul_output_mode])[:outputs]


@kernel("com.microsoft.MultiHeadAttention")
def multi_head_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, padding: Tensor | None = None,
                         scores: Tensor | None = None, *, num_heads: int, scale: float | None = None,
                         unidirectional: int = 0) -> Tensor:  # fmt: skip
    """Unpacked (batch, sequence, hidden) inputs without a cache; a padding mask of ones and zeros per key."""
    if bias is not None:
        parts = bias.split((q.shape[-1], k.shape[-1], v.shape[-1]))
        q, k, v = q + parts[0], k + parts[1], v + parts[2]
    mask = scores
    if padding is not None:
        seen = padding.bool()[:, None, None, :]
        mask = seen if mask is None else mask.masked_fill(~seen, float("-inf"))
    result = attention(q, k, v, mask, is_causal=unidirectional, scale=scale or None, q_num_heads=num_heads,
                       kv_num_heads=num_heads)  # fmt: skip
    assert isinstance(result, Tensor)
    return result


@kernel("RotaryEmbedding")
def rotary(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None, *, interleaved: int = 0,
           num_heads: int = 0, rotary_embedding_dim: int = 0) -> Tensor:  # fmt: skip
    """Pairs of features turned by an angle of their position."""
    turned = _heads(x, num_heads) if x.dim() == 3 else x
    size = rotary_embedding_dim or turned.shape[-1]
    head, tail = turned[..., :size], turned[..., size:]
    cos, sin = (cos, sin) if positions is None else (cos[positions], sin[positions])
    cos, sin = cos[..., : size // 2].unsqueeze(-3), sin[..., : size // 2].unsqueeze(-3)
    a, b = (head[..., 0::2], head[..., 1::2]) if interleaved else head.chunk(2, -1)
    real, imaginary = cos * a - sin * b, sin * a + cos * b
    head = torch.stack((real, imaginary), -1).flatten(-2) if interleaved else torch.cat((real, imaginary), -1)
    y = torch.cat((head, tail), -1)
    return y.transpose(1, 2).flatten(2) if x.dim() == 3 else y
