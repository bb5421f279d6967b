"""Text. A string is a reference of 64 bits here: how long it is no type says, so these are lower bounds."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Work, declare
from eopt.ir.opset.elementwise import broadcast_axes
from eopt.ir.opset.shared import kept, mapped, vector, wholes

_HASH = 12  # MurmurHash3 of one 32-bit word: a round of 6 and the finish of 6


def _per_string(view: OpView) -> Work:
    """One operation per string that is looked at: a lower bound, its characters are not known."""
    return vector(view, max(tensor.numel for tensor in (view.input(0), *view.outputs)))


def _ngrams(view: OpView) -> Work:
    """Every start, length and skip is one look-up; then a weight per counted n-gram."""
    x, longest = view.input(0), view.attrs["max_gram_length"]
    lengths = longest - view.attrs["min_gram_length"] + 1
    skips = view.attrs["max_skip_count"] + 1
    return vector(view, x.numel * lengths * skips + view.outputs[0].numel)


def _hash(view: OpView) -> Work:
    """12 integer operations per 32-bit word (https://github.com/aappleby/smhasher)."""
    x = view.input(0)
    return vector(view, _HASH * max(1, x.dtype.bits // 32) * x.numel)


def _split_axes(view: OpView) -> tuple[Tie, ...]:
    """Pieces become a new last axis; the second result counts them."""
    rank = len(view.input(0).shape)
    counts = [f"y{number}" for number in range(1, len(view.outputs))]
    return wholes(view, (mapped(*((port, n, 1) for port in ("x0", "y0", *counts))) for n in range(rank)))


def _documents_axes(view: OpView) -> tuple[Tie, ...]:
    """Documents are independent; what is counted in them is not."""
    rank = len(view.input(0).shape)
    return wholes(view, (mapped(("x0", n, 1), ("y0", n, 1)) for n in range(rank - 1)))


def _each(view: OpView) -> tuple[Tie, ...]:
    return kept(view)


declare(["StringConcat"], _per_string, broadcast_axes)
declare(["RegexFullMatch"], _per_string, _each)
declare(["StringNormalizer"], _per_string)
declare(["StringSplit"], _per_string, _split_axes)
declare(["TfIdfVectorizer"], _ngrams, _documents_axes)
declare(["MurmurHash3"], _hash, _each, domain="com.microsoft")
declare(["Tokenizer"], _per_string, domain="com.microsoft")
