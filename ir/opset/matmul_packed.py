"""Matrix products of onnxruntime whose weights are stored in blocks of few bits.

Arithmetic is that of the type of the activations, 2 m n k; unpacking is hidden behind it or behind the memory. What the
shapes of packed weights do not say, n and k, is in the attributes.
"""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Tie, Trait, Work, declare
from eopt.ir.opset.matmul import product
from eopt.ir.opset.shared import mapped, matrix, panels, wholes

_MICROSOFT = "com.microsoft"


def _known_k(view: OpView) -> Work:
    """2 m n k, k from the attribute."""
    k = int(view.attrs["N"]) if view.attrs.get("transB", 1) == 0 else int(view.attrs["K"])
    return product(view, k, view.input(0).dtype)


def _last_axis(view: OpView) -> Work:
    """2 m n k, k the last axis of the activations."""
    a = view.input(0)
    return product(view, a.shape[-1], a.dtype)


def _several(view: OpView, columns: int) -> Work:
    """The same activations times several weights that lie side by side."""
    a, k = view.input(0), int(view.attrs["K"])
    rows = a.numel // k
    weights = sum(tensor.nbytes for tensor in view.inputs[3:] if tensor)
    return matrix(view, 2.0 * rows * columns * k, a.dtype, panels(rows, columns, a.nbytes, weights))


def _mlp(view: OpView) -> Work:
    """Gate and up projection: 2 m (2 n) k."""
    return _several(view, 2 * int(view.attrs["N"]))


def _qkv(view: OpView) -> Work:
    """Projections to queries, keys and values: 2 m (nq + 2 nkv) k."""
    return _several(view, int(view.attrs["Nq"]) + 2 * int(view.attrs["Nkv"]))


def _adapted(view: OpView) -> Work:
    """The product and its low-rank adapter: 2 m (n k + r (n + k))."""
    a, n, k = view.input(0), int(view.attrs["N"]), int(view.attrs["K"])
    rank = view.input(3).shape[0] if view.input(3).shape[-1] != k else prod(view.input(3).shape) // k
    return matrix(view, 2.0 * (a.numel // k) * (n * k + rank * (n + k)), a.dtype)


def _block_axes(view: OpView) -> tuple[Tie, ...]:
    """Rows map one to one, and columns with their blocks, scales, zero points and bias; blocks mix what they hold."""
    y, columns = view.outputs[0], view.outputs[0].shape[-1]
    last, rank = len(y.shape) - 1, len(view.input(0).shape)
    ties = [mapped(("x0", n, 1), ("y0", n, 1)) for n in range(last)] if rank == last + 1 else []
    members = [("y0", last, 1)]
    for number, tensor in enumerate(view.inputs[1:], start=1):
        if tensor and tensor.shape and tensor.shape[0] % columns == 0 and tensor.numel > 1:
            members.append((f"x{number}", 0, tensor.shape[0] // columns))
    return wholes(view, [*ties, mapped(*members)])


def _row_axes(view: OpView) -> tuple[Tie, ...]:
    """Rows map one to one; nothing is said of packed columns."""
    last = len(view.outputs[0].shape) - 1
    ports = ("x0", *(f"y{number}" for number in range(len(view.outputs))))
    return wholes(view, (mapped(*((port, n, 1) for port in ports)) for n in range(last)))


_TRAITS = (Trait.CONTRACTION,)
declare(["MatMulNBits"], _known_k, _block_axes, _TRAITS, _MICROSOFT)
declare(["MatMulBnb4", "MatMulPacked"], _known_k, _row_axes, _TRAITS, _MICROSOFT)
declare(["MatMulFpQ4"], _last_axis, _row_axes, _TRAITS, _MICROSOFT)
_BLOCKS = ["MatMulBlockQuantizedFp4Weight", "MatMulBlockQuantizedFp8Weight"]
declare(_BLOCKS, _last_axis, _row_axes, _TRAITS, _MICROSOFT)
declare(["MatMulNBitsMlp"], _mlp, _row_axes, _TRAITS, _MICROSOFT)
declare(["MatMulNBitsQkv"], _qkv, _row_axes, _TRAITS, _MICROSOFT)
declare(["MatMulNBitsQLoRA"], _adapted, _row_axes, _TRAITS, _MICROSOFT)
