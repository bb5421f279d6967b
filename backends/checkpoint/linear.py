"""One quantised linear layer, and how compressed-tensors spells it: stored tensors and `quantization_config`.

The format is described in https://github.com/vllm-project/compressed-tensors and
https://docs.vllm.ai/projects/llm-compressor/en/latest/guides/compression_schemes/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MIXED = "mixed-precision"
_WORD_BITS = 32


class Activations(StrEnum):
    """How a linear layer's input is quantised: not at all, by constants, by constants with an offset, per token."""

    FLOAT = "float"
    STATIC = "static"
    OFFSET = "offset"
    DYNAMIC = "dynamic"


@dataclass(frozen=True)
class Scheme:
    """What layers of one config group share.

    Attributes:
        bits: of a weight; 4 or 8.
        floating: weights (and inputs) are float8 e4m3, not integers.
        group: input features that share a scale; None for one scale per output feature.
        symmetric: zero is stored as 0, so there are no zero points.
    """

    bits: int
    floating: bool = False
    group: int | None = None
    symmetric: bool = True
    activations: Activations = Activations.FLOAT

    @property
    def format(self) -> str:
        """Name of the storage format."""
        if self.floating:
            return "float-quantized"
        return "pack-quantized" if self.activations is Activations.FLOAT else "int-quantized"

    def config(self) -> dict[str, Any]:
        """The scheme as a config group without targets."""
        grid = {"num_bits": self.bits, "type": "float" if self.floating else "int"}
        strategy = {"strategy": "group", "group_size": self.group} if self.group else {"strategy": "channel"}
        weights = {**grid, **strategy, "symmetric": self.symmetric, "dynamic": False}
        return {"weights": weights, "input_activations": self._inputs(grid), "output_activations": None}

    def _inputs(self, grid: Mapping[str, Any]) -> dict[str, Any] | None:
        if self.activations is Activations.FLOAT:
            return None
        dynamic = self.activations is Activations.DYNAMIC
        symmetric = self.activations is not Activations.OFFSET
        return {**grid, "strategy": "token" if dynamic else "tensor", "symmetric": symmetric, "dynamic": dynamic}


@dataclass(frozen=True, eq=False)
class QuantisedLinear:
    """A linear layer's weight as stored: `(integers - zero_points) * scales`, n output and k input features.

    Attributes:
        integers: [n, k], int8 whatever the bits, or float8 e4m3.
        scales: [n, k / group], or [n, 1].
        zero_points: like `scales`, int8; None where all are 0.
        input_scale: step of the input's grid; None where the input is float or quantised per token.
        input_zero_point: what stands for 0 on that grid, counted as int8.
    """

    scheme: Scheme
    integers: Array
    scales: Array
    zero_points: Array | None = None
    input_scale: float | None = None
    input_zero_point: int = 0

    def dequantised(self) -> Array:
        """The weight, [n, k], in the type of the scales: the same products an executor of the ONNX model forms."""
        shape = (*self.scales.shape, -1)
        values = self.integers.astype(self.scales.dtype).reshape(shape)
        if self.zero_points is not None:
            values -= self.zero_points.astype(values.dtype)[..., None]
        values *= self.scales[..., None]
        return values.reshape(self.integers.shape)


def tensors(linear: QuantisedLinear) -> dict[str, Array]:
    """What the checkpoint stores for a layer, by name below the layer's own; wide elements first, to be aligned."""
    stored = {"weight_scale": linear.scales}
    if linear.scheme.format == "pack-quantized":
        stored["weight_packed"] = packed(linear.integers, linear.scheme.bits)
        stored["weight_shape"] = np.array(linear.integers.shape, np.int64)
    else:
        stored["weight"] = linear.integers
    if linear.zero_points is not None:
        stored["weight_zero_point"] = packed(linear.zero_points.T, linear.scheme.bits).T
    if linear.input_scale is not None:
        stored["input_scale"] = np.array([linear.input_scale], np.float32)
    if linear.scheme.activations is Activations.OFFSET:
        stored["input_zero_point"] = np.array([linear.input_zero_point], np.int8)
    return dict(sorted(stored.items(), key=lambda item: -item[1].dtype.itemsize))


def packed(values: Array, bits: int) -> Array:
    """Rows of signed integers as int32 words: shifted to unsigned, lowest bits first, filled up with zero bits.

    Args:
        values: [rows, columns], int8.
        bits: 4 or 8.
    """
    per_word = _WORD_BITS // bits
    unsigned = (values.astype(np.int16) + (1 << bits - 1)).astype(np.uint8)
    unsigned = np.pad(unsigned, ((0, 0), (0, -values.shape[1] % per_word)))
    octets = unsigned if bits == 8 else unsigned[:, 0::2] | unsigned[:, 1::2] << 4
    return np.ascontiguousarray(octets).view("<i4")


def quantization_config(schemes: Mapping[str, Scheme], ignore: Sequence[str]) -> dict[str, Any]:
    """The entry of `config.json` that tells an engine how the layers are stored.

    Args:
        schemes: by name of a quantised linear layer; not empty.
        ignore: linear layers left in float.
    """
    groups: dict[Scheme, list[str]] = {}
    for name, scheme in schemes.items():
        groups.setdefault(scheme, []).append(name)
    formats = list(dict.fromkeys(scheme.format for scheme in groups))
    uniform = len(groups) == 1
    listed = {}
    for number, (scheme, names) in enumerate(groups.items()):
        own = {} if len(formats) == 1 else {"format": scheme.format}
        listed[f"group_{number}"] = {"targets": ["Linear"] if uniform else names, **scheme.config(), **own}
    return {
        "quant_method": "compressed-tensors",
        "format": formats[0] if len(formats) == 1 else MIXED,
        "quantization_status": "compressed",
        "config_groups": listed,
        "ignore": list(ignore),
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }
