"""A case: what is measured, how a cost query spells it, and how one independent copy of it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Call = Callable[[], Any]
Make = Callable[[Any, str], Call]
"""From torch and a device, `cuda` or `cpu`, to one call with buffers of its own."""
Around = Callable[[Any], AbstractContextManager[Any]]
"""From torch to a context that holds while the case is made and measured."""

FIRST, SECOND, THIRD = range(3)
"""Ranks: the first covers every family with few shapes and fits one call, later ones add shapes."""
TORCH, COMPILED = "torch", "torch-compile"
DTYPES = {"float8_e4m3": "float8_e4m3fn"}
"""torch's names of types, where they are others."""


class Missing(Exception):
    """A kernel or a package that is not here; the message names it. Such a case is skipped, not failed."""


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        name: says everything that tells it from others; a case done is found by it.
        query: `op`, `inputs`, `dtype` and what else of a cost query is not empty; see `docs/reference.md`.
        make: one copy. Copies are called in turn, so that no call finds its operands in the cache.
        rank: `FIRST` to `THIRD`.
        executor, library: whose kernels, as in the table of measurements.
        level: `operator`, `module` of several operators, or `model`.
        variant: what no query can say: `zeros`, `sparse24`; '' for all others.
        around: settings of torch that hold meanwhile.
        graph: a captured graph may stand for it where the host cannot launch as fast as the device computes.
        most_copies: limit where copies are dear, as of a compiled module.
        touched_bytes: that one call reads, where copies share a buffer; 0 where they do not.
    """

    name: str
    query: Mapping[str, Any]
    make: Make
    rank: int = FIRST
    executor: str = TORCH
    library: str = ""
    level: str = "operator"
    variant: str = ""
    around: Around = lambda torch: nullcontext()
    graph: bool = True
    most_copies: int = 128
    touched_bytes: int = 0

    @property
    def family(self) -> str:
        """The section it belongs to, the first part of its name."""
        return self.name.partition("/")[0]


def of(torch: Any, name: str) -> Any:
    """The torch type of a query's `dtype`.

    Raises:
        Missing: this torch has none.
    """
    return kernel(torch, DTYPES.get(name, name))


def kernel(module: Any, name: str) -> Any:
    """An attribute of a module.

    Raises:
        Missing: it has none.
    """
    found = getattr(module, name, None)
    if found is None:
        raise Missing(f"{getattr(module, '__name__', module)} has no {name}")
    return found


def normal(torch: Any, device: str, dtype: str, *shape: int) -> Any:
    """A tensor of this shape drawn from the normal distribution; integers are its values times 32, rounded."""
    drawn = torch.randn(shape, device=device)
    return (32 * drawn).round().clamp(-127, 127).to(torch.int8) if dtype == "int8" else drawn.to(of(torch, dtype))


@contextmanager
def float32(torch: Any, math: str) -> Iterator[None]:
    """float32 as `ieee`, as `tf32`, or as torch comes (`default`: tf32 in convolutions alone).

    cuDNN is free to search. All is as before afterwards.
    """
    held = (torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")
    before = [getattr(place, name) for place, name in held]
    searched = torch.backends.cudnn.benchmark
    try:
        for (place, name), narrow in zip(held, (math == "tf32", math in ("tf32", "default")), strict=True):
            setattr(place, name, narrow)
        torch.backends.cudnn.benchmark = True
        yield
    finally:
        for (place, name), value in zip(held, before, strict=True):
            setattr(place, name, value)
        torch.backends.cudnn.benchmark = searched


def label(*extents: int) -> str:
    """Extents as part of a name."""
    return "x".join(map(str, extents))


def tf32_or_ieee(math: str) -> Around:
    """`float32` as what holds around a case."""
    return lambda torch: float32(torch, math)


def compiled(torch: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function through `torch.compile`, for these shapes alone."""
    made: Callable[..., Any] = torch.compile(function, dynamic=False)
    return made
