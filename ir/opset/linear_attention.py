"""Linear attention: a state of (key size x value size) per head is updated and read at every position.

Operations per element of the state, from the recurrences of the gated delta rule (https://arxiv.org/abs/2412.06464):
adding the outer product 2, decay 1, and for the delta rules 2 to read what the key retrieves. Reading it with a query
is 2 more for every query head. The state is read and written again at every position.
"""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Work, declare
from eopt.ir.opset.shared import mapped, vector, wholes

_UPDATE = {"linear": 2, "gated": 3, "delta": 4, "gated_delta": 5}
_MICROSOFT = "com.microsoft"


def _recurrence(view: OpView, tokens: int, steps: int, heads: tuple[int, int], sizes: tuple[int, int]) -> Work:
    """`tokens` positions in all, `steps` of them in a row; heads of queries and states, sizes of keys and values."""
    queries, states = heads
    head_elements = sizes[0] * sizes[1]
    updated = _UPDATE[view.attrs.get("update_rule", "gated_delta")]
    flops = tokens * head_elements * (states * updated + queries * 2)
    head_bytes = head_elements * view.outputs[-1].dtype.bits / 8
    again = 2 * states * max(0, steps - 1) * tokens / max(1, steps) * head_bytes
    return vector(view, flops, again=(again, head_bytes))


def _linear(view: OpView) -> Work:
    """Per position and element of the state 2 to 5 operations for the update rule, 2 per query head to read it."""
    q, k, v = view.input(0), view.input(1), view.input(2)
    heads, states = int(view.attrs["q_num_heads"]), int(view.attrs["kv_num_heads"])
    sizes = k.shape[2] // states, v.shape[2] // states
    return _recurrence(view, q.shape[0] * q.shape[1], q.shape[1], (heads, states), sizes)


def _tokens(view: OpView) -> Work:
    """As LinearAttention, over tokens of all sequences in a row; head counts come from the shapes."""
    y, state, q = view.outputs[0], view.optional(6), view.input(0)
    sizes = (state.shape[3], state.shape[2]) if state else (q.shape[-1], y.shape[-1])
    tokens = y.numel // (y.shape[-1] * y.shape[-2])
    sequences = state.shape[0] if state else 1
    return _recurrence(view, tokens, tokens // max(1, sequences), (y.shape[-2], y.shape[-2]), sizes)


def _axes(view: OpView) -> tuple[Tie, ...]:
    """Batch, and state heads with the query heads that share them; positions follow each other."""
    states = int(view.attrs["kv_num_heads"])
    packed = [("x0", 2), ("x1", 2), ("x2", 2), ("y0", 2)]
    packed += [("x4", 2)] if view.optional(4) else []
    packed += [("x5", 2)] if view.optional(5) and view.input(5).shape[2] == states else []
    caches = [("x3", 1)] if view.optional(3) else []
    caches += [("y1", 1)] if len(view.outputs) > 1 else []
    shapes = {f"x{n}": tensor.shape for n, tensor in enumerate(view.inputs) if tensor}
    shapes |= {f"y{n}": tensor.shape for n, tensor in enumerate(view.outputs)}
    everyone = [*packed, *caches, *([("x5", 2)] if view.optional(5) else [])]
    batch = mapped(*((port, 0, 1) for port in dict.fromkeys(port for port, _ in everyone)))
    return wholes(view, [batch, mapped(*((port, n, shapes[port][n] // states) for port, n in [*packed, *caches]))])


declare(["LinearAttention"], _linear, _axes)
declare(["LinearAttention"], _linear, _axes, domain=_MICROSOFT)
declare(["GatedDeltaNet"], _tokens, domain=_MICROSOFT)
