"""Latency of one kernel: compute against memory, with tiles, waves and what of the peak is achievable."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.costmodel.query import Kernel, Unknown
from eopt.ir.ops import Unit
from eopt.ir.types import DType


@dataclass(frozen=True)
class Achievable:
    """Shares of the peaks that good kernels reach.

    matrix: dense GEMM reaches 0.7 to 0.8 of the sheet's peak on recent NVIDIA parts under their power cap, and MLAS or
    oneDNN about as much on CPUs. vector: elementwise chains with address arithmetic reach about half. dram, llc: large
    copies reach 0.85 to 0.92 of the sheet (STREAM-type results); CPUs less from few cores.
    """

    matrix: float
    vector: float
    dram: float
    llc_over_dram: float


GPU = Achievable(matrix=0.75, vector=0.5, dram=0.85, llc_over_dram=2.5)
CPU = Achievable(matrix=0.7, vector=0.25, dram=0.7, llc_over_dram=4.0)

TILES = ((256, 128, 1.0), (128, 128, 0.95), (64, 64, 0.65), (32, 32, 0.35))  # rows, columns, share of the best rate
SPLIT_K = 512  # least depth of one slice when a product is split along k to fill idle cores
LLC_SHARE = 0.5  # of the last-level cache that survives from the kernel before

# What a type falls back to where the unit lacks it, next wider first.
_WIDER = {
    "float4": ("float8", "float16", "float32"),
    "float8": ("float16", "bfloat16", "float32"),
    "float16": ("float32",),
    "bfloat16": ("float32",),
    "tf32": ("float32",),
    "int8": ("float32",),
    "int4": ("int8", "float32"),
}


@dataclass(frozen=True)
class Latency:
    """Seconds of one execution by cause, the bytes each memory level moves, and the operations as they really run."""

    compute_s: float
    memory_s: float
    launch_s: float
    dram_bytes: float
    llc_bytes: float
    operations: tuple[tuple[Unit, str, float], ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def total_s(self) -> float:
        """Compute and transfer overlap; the launch does not."""
        return max(self.compute_s, self.memory_s) + self.launch_s


def latency(kernel: Kernel, target: Target, executor: Executor) -> Latency | Unknown:
    """Latency of a kernel, or Unknown where the sheet has no rate for its arithmetic.

    Matrix and vector units of a core work side by side, so a fused epilogue hides behind its product.
    """
    shares = CPU if target.kind == "cpu" else GPU
    busy_s: dict[Unit, float] = {}
    reasons, operations = list[str](), list[tuple[Unit, str, float]]()
    for unit, dtype, flops in kernel.flops:
        found = rate(unit, dtype, kernel, target, executor)
        if found is None:
            return Unknown((f"{target.name} has no {unit} rate for {dtype}",))
        peak, used = found
        if used not in (str(dtype), "tf32"):
            reasons.append(f"{dtype} runs as {used}")
        operations.append((unit, used, flops))
        share = shares.matrix if unit is Unit.MATRIX else shares.vector
        taken_s = flops / (peak * share * utilisation(unit, kernel, target))
        busy_s[unit] = busy_s.get(unit, 0.0) + taken_s
        if used == "int8" and unit is Unit.MATRIX:
            busy_s[unit] += kernel.windows * executor.int8_window_s / (target.cores or 1)
    dram_bytes, llc_bytes = _levels(kernel, target, _conversion(kernel, target, executor))
    bandwidth = (target.bandwidth_bytes_per_s or 0.0) * shares.dram
    cached = max(target.l2_bandwidth_bytes_per_s or 0.0, bandwidth * shares.llc_over_dram)
    memory_s = dram_bytes / bandwidth + llc_bytes / cached
    compute_s = max(busy_s.values(), default=0.0)
    return Latency(compute_s, memory_s, executor.launch_s, dram_bytes, llc_bytes, tuple(operations), tuple(reasons))


def rate(unit: Unit, dtype: DType, kernel: Kernel, target: Target, executor: Executor) -> tuple[float, str] | None:
    """Peak operations per second and the type they really run in: what executor and target have a kernel for."""
    name = dtype[:6] if dtype.startswith(("float8", "float4")) else "int8" if dtype == "uint8" else str(dtype)
    if unit is not Unit.MATRIX:
        return _vector_rate(name, target)
    if name == "float32" and executor.conv_math == "tf32" and "Conv" in kernel.name and "tf32" in target.matrix:
        return target.matrix["tf32"], "tf32"
    for candidate in (name, *_WIDER.get(name, ())):
        supported = executor.has_kernel(candidate, target)
        if supported and candidate in target.matrix and candidate != "float32":
            return max(target.matrix[candidate], target.vector.get(candidate, 0.0)), candidate
        if supported and candidate in target.vector:
            return target.vector[candidate], candidate
    return None


def _vector_rate(name: str, target: Target) -> tuple[float, str]:
    """Integer, boolean and narrow float elementwise work runs on the float32 lanes unless the sheet says otherwise."""
    if name == "float64":
        return target.vector.get("float64", target.vector["float32"] / 32), name
    return max(target.vector.get(name, 0.0), target.vector["float32"]), name


def utilisation(unit: Unit, kernel: Kernel, target: Target) -> float:
    """Share of the chip that has work: whole tiles in whole waves for products, enough threads for the rest."""
    cores = target.cores or 1
    if unit is Unit.MATRIX and kernel.gemm is not None and target.kind != "cpu":
        return max(_tiled(kernel.gemm, rows, columns, cores) * share for rows, columns, share in TILES)
    threads = cores * (64 if target.kind == "cpu" else 1024)
    return min(1.0, max(kernel.elements, 1) / threads)


def _tiled(gemm: tuple[int, int, int, int], rows: int, columns: int, cores: int) -> float:
    batch, m, n, k = gemm
    across, down = ceil(m / rows), ceil(n / columns)
    tiles = batch * across * down
    slices = max(1, min(cores // tiles, k // SPLIT_K)) if tiles < cores else 1
    waves = ceil(tiles * slices / cores)
    padded = (m * n) / (across * rows * down * columns)
    return padded * tiles * slices / (waves * cores)


def _conversion(kernel: Kernel, target: Target, executor: Executor) -> float:
    """Traffic of activations over their size. An executor without kernels for a narrow float type converts: it reads
    the narrow values, writes wide ones, computes on those, and the other way round behind."""
    narrow = [dtype for _, dtype, _ in kernel.flops if dtype.is_float and dtype.bits < DType.FLOAT32.bits]
    if all(executor.has_kernel(dtype, target) for dtype in narrow):
        return 1.0
    return 1.0 + 2 * DType.FLOAT32.bits / min(dtype.bits for dtype in narrow)


def _levels(kernel: Kernel, target: Target, traffic: float) -> tuple[float, float]:
    """Bytes from memory and from the last-level cache: activations stay there if they fit, weights come from memory."""
    activation_bytes = kernel.activation_bytes * traffic
    if activation_bytes <= LLC_SHARE * (target.l2_bytes or 0.0):
        return kernel.weight_bytes, activation_bytes
    return kernel.weight_bytes + activation_bytes, 0.0
