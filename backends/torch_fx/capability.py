"""Which fast kernels work on a device: found by running each once, as no list of devices stays complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from eopt.backends.torch_fx.steps import Array


@dataclass(frozen=True)
class Capabilities:
    """Of a device: why a kernel cannot be used, None where it can.

    Attributes:
        device: as torch names it.
        int8: `torch._int_mm`.
        float8: `torch._scaled_mm` with float8_e4m3fn.
        sparse: `torch.sparse.to_sparse_semi_structured`, for one (out, in) weight.
    """

    device: str
    int8: str | None
    float8: str | None
    sparse: Callable[[Array], str | None]


@cache
def of(device: str) -> Capabilities:
    """Probe a device once per process."""
    import torch

    def int8() -> Any:
        ones = torch.ones(32, 32, dtype=torch.int8, device=device)
        return torch._int_mm(ones, ones.T)

    def float8() -> Any:
        ones = torch.ones(32, 32, device=device)
        small, scale = ones.to(torch.float8_e4m3fn), ones[0, 0]
        return torch._scaled_mm(small, small.T, scale_a=scale, scale_b=scale, out_dtype=torch.float32)

    def sparse(weight: Array) -> str | None:
        from eopt.backends.torch_fx.kernels.dtypes import tensor

        def product() -> Any:
            packed = torch.sparse.to_sparse_semi_structured(tensor(weight).to(device))
            x = torch.ones(32, weight.shape[1], dtype=packed.dtype, device=device)
            return torch.nn.functional.linear(x, packed)

        return _refusal(product)

    return Capabilities(device, _refusal(int8), _refusal(float8), sparse)


def _refusal(kernel: Callable[[], Any]) -> str | None:
    try:
        kernel().cpu()
    except Exception as error:  # each kernel refuses in its own way, and all of them mean no
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return None
