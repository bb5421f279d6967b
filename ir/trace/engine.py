"""Attention, experts and cache updates recorded as one operator each, as inference engines run them.

They are registered with transformers under the name `NAME`, its documented way to bring kernels of one's own. Masks
are left out: a prompt without padding needs none, and causality is an attribute of the operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from eopt.ir.trace.aten import Step
from eopt.ir.trace.recorder import Recorder

NAME = "eopt"
_recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def register() -> None:
    """Make the kernels known to transformers; done again it changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    ALL_EXPERTS_FUNCTIONS.register(NAME, _experts)


@contextmanager
def recorded(recorder: Recorder) -> Iterator[None]:
    """Send what the kernels do to this recorder, and appends to caches with them."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    token = _recorder.set(recorder)
    originals = {layer: layer.update for layer in (DynamicLayer, DynamicSlidingWindowLayer)}
    for layer, original in originals.items():
        layer.update = _appending(recorder, original)
    try:
        yield
    finally:
        for layer, original in originals.items():
            layer.update = original
        _recorder.reset(token)


@contextmanager
def _silent() -> Iterator[Recorder | None]:
    recorder = _recorder.get()
    if recorder is None:  # a run that only fills a cache
        yield None
        return
    with recorder.silent():
        yield recorder


def _attention(module: Any, query: Any, key: Any, value: Any, mask: Any = None, **options: Any) -> tuple[Any, None]:
    """Operands are (batch, heads, tokens, size); grouped queries read fewer key heads."""
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    with _silent() as recorder:
        result = query.new_empty(*query.shape[:3], value.shape[3])
        if recorder is not None:
            attrs = {"is_causal": int(bool(causal) and query.shape[2] > 1)}
            recorder.emit(Step("Attention", [query, key, value], attrs), [result])
    return result.transpose(1, 2), None


def _experts(module: Any, hidden: Any, index: Any, weights: Any) -> Any:
    """Every token meets its `k` experts; gated experts hold gate and up projection in one weight."""
    with _silent() as recorder:
        result = hidden.new_empty(hidden.shape)
        if recorder is not None:
            gated = hasattr(module, "gate_up_proj")
            first = module.gate_up_proj if gated else module.up_proj
            attrs = {"k": index.shape[-1], "activation_type": "swiglu" if gated else "silu"}
            step = Step("MoE", [hidden, weights, first, None, module.down_proj], attrs)
            recorder.emit(step, [result], domain="com.microsoft")
    return result


def _appending(recorder: Recorder, original: Any) -> Any:
    """A cache grows by the new tokens only; torch's concatenation would copy all of it for each of them."""

    def update(layer: Any, keys: Any, values: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        filled = layer.is_initialized and layer.keys.numel() > 0
        before = (layer.keys, layer.values) if filled else (None, None)
        with recorder.silent():
            after = original(layer, keys, values, *args, **kwargs)
        for old, new, whole in zip(before, (keys, values), after, strict=True):
            step = Step("Identity", [new]) if old is None else Step("TensorScatter", [old, new], {"axis": 2})
            recorder.emit(step, [whole])
        return after[0], after[1]

    return update
