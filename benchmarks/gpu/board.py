"""What a board says of itself through NVML, by ctypes: it needs the driver and no package. Nothing is ever set."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
SM, MEMORY = 1, 2  # nvmlClockType_t
TEXT = 96  # bytes; NVML_DEVICE_NAME_V2_BUFFER_SIZE
# nvmlClocksEventReasons of nvml.h
REASONS = {
    0x1: "idle", 0x2: "application clocks", 0x4: "software power cap", 0x8: "hardware slowdown", 0x10: "sync boost",
    0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake", 0x100: "display clocks",
}  # fmt: skip
# field -> function, type of the answer, further arguments, factor to its unit
_STATE: dict[str, tuple[str, Any, tuple[int, ...], float]] = {
    "power_limit_w": ("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint, (), 1e-3),
    "default_limit_w": ("nvmlDeviceGetPowerManagementDefaultLimit", ctypes.c_uint, (), 1e-3),
    "max_sm_mhz": ("nvmlDeviceGetMaxClockInfo", ctypes.c_uint, (SM,), 1),
    "max_memory_mhz": ("nvmlDeviceGetMaxClockInfo", ctypes.c_uint, (MEMORY,), 1),
    "persistence": ("nvmlDeviceGetPersistenceMode", ctypes.c_uint, (), 1),
}
_SAMPLE: dict[str, tuple[str, Any, tuple[int, ...], float]] = {
    "sm_mhz": ("nvmlDeviceGetClockInfo", ctypes.c_uint, (SM,), 1),
    "memory_mhz": ("nvmlDeviceGetClockInfo", ctypes.c_uint, (MEMORY,), 1),
    "temperature_c": ("nvmlDeviceGetTemperature", ctypes.c_uint, (0,), 1),
    "power_w": ("nvmlDeviceGetPowerUsage", ctypes.c_uint, (), 1e-3),
}


class _Bytes(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class Board:
    """A board by NVML, or nothing at all: without a library every reading is None.

    Args:
        library: NVML as `ctypes` loads it.
        uuid: of the device as CUDA names it; the first where it is not given or not known.
    """

    def __init__(self, library: Any = None, uuid: str = "") -> None:
        self.library, self.handle = library, ctypes.c_void_p()
        if library is None or library.nvmlInit_v2() != 0:
            self.library = None
            return
        by_name = library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(self.handle)) if uuid else 1
        if by_name and library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self.handle)):
            self.library = None

    @classmethod
    def of(cls, torch: Any) -> Board:
        """The board of torch's current device."""
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError:
            return cls()
        return cls(library, f"GPU-{torch.cuda.get_device_properties(0).uuid}")

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded; None where the board does not count or the read failed."""
        return self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong, (), 1e-3)

    def state(self) -> dict[str, Any]:
        """Name, driver, and limits; null for what it does not say."""
        memory = _Bytes()
        known = self.library is not None and not self.library.nvmlDeviceGetMemoryInfo(self.handle, ctypes.byref(memory))
        texts = {
            "name": self._text(lambda held: self.library.nvmlDeviceGetName(self.handle, held, TEXT)),
            "driver": self._text(lambda held: self.library.nvmlSystemGetDriverVersion(held, TEXT)),
        }
        return {**texts, "memory_bytes": memory.total if known else None, **self._all(_STATE)}

    def sample(self) -> dict[str, Any]:
        """Clocks in MHz, temperature, W (a mean of the last second on most boards), and what holds the clocks back."""
        mask = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong, (), 1)
        reasons = None if mask is None else [name for bit, name in REASONS.items() if int(mask) & bit]
        return {**self._all(_SAMPLE), "throttle": reasons}

    def _all(self, asked: dict[str, tuple[str, Any, tuple[int, ...], float]]) -> dict[str, float | None]:
        return {field: self._ask(*how) for field, how in asked.items()}

    def _ask(self, name: str, kind: Any, arguments: tuple[int, ...], factor: float) -> float | None:
        function = getattr(self.library, name, None)
        if function is None:
            return None
        answer = kind()
        failed = function(self.handle, *arguments, ctypes.byref(answer))
        return None if failed else answer.value * factor

    def _text(self, ask: Callable[[Any], int]) -> str | None:
        held = ctypes.create_string_buffer(TEXT)
        return None if self.library is None or ask(held) else held.value.decode(errors="replace")
