"""Where cases run: marks in the stream, waiting, memory, and captured graphs; a CPU does the same more simply."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

L2_WITHOUT = 1 << 20  # bytes; of a CPU, where rotation is only rehearsed


class Device(Protocol):
    """What the meter needs of a device.

    Attributes:
        kind: `cuda` or `cpu`.
        l2_bytes: of its last cache.
    """

    kind: str
    l2_bytes: int

    def mark(self) -> Any:
        """A point behind all that was launched so far."""
        ...

    def wait(self, mark: Any) -> None:
        """Return when the device has got there."""
        ...

    def seconds(self, start: Any, end: Any) -> float:
        """Between two marks that were waited for."""
        ...

    def allocated(self) -> int:
        """Bytes in tensors; 0 where nobody counts."""
        ...

    def room(self) -> int:
        """Bytes that copies may take."""
        ...

    def capture(self, work: Callable[[], Any]) -> Callable[[], Any] | None:
        """The work as a graph that is replayed; None where there are none."""
        ...


class Cpu:
    """Runs cases to see that they run; its times are no results."""

    kind = "cpu"
    l2_bytes = L2_WITHOUT

    def mark(self) -> float:
        """See `Device.mark`."""
        return time.perf_counter()

    def wait(self, mark: float) -> None:
        """See `Device.wait`; nothing is asynchronous."""

    def seconds(self, start: float, end: float) -> float:
        """See `Device.seconds`."""
        return end - start

    def allocated(self) -> int:
        """See `Device.allocated`."""
        return 0

    def room(self) -> int:
        """See `Device.room`."""
        return 1 << 28

    def capture(self, work: Callable[[], Any]) -> None:
        """See `Device.capture`."""


class Cuda:
    """The current CUDA device, by events of its current stream."""

    kind = "cuda"

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.l2_bytes = int(torch.cuda.get_device_properties(0).L2_cache_size)

    def mark(self) -> Any:
        """See `Device.mark`."""
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self, mark: Any) -> None:
        """See `Device.wait`."""
        mark.synchronize()

    def seconds(self, start: Any, end: Any) -> float:
        """See `Device.seconds`; events count milliseconds."""
        return float(start.elapsed_time(end)) / 1e3

    def allocated(self) -> int:
        """See `Device.allocated`."""
        return int(self.torch.cuda.memory_allocated())

    def room(self) -> int:
        """See `Device.room`: a quarter of what is free."""
        return int(self.torch.cuda.mem_get_info()[0]) // 4

    def capture(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """See `Device.capture`."""
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            work()
        replay: Callable[[], Any] = graph.replay
        return replay
