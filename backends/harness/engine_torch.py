"""torch measures: eopt's torch.fx lowering, eager or compiled."""

from __future__ import annotations

from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np

from eopt.backends.base import Array, Feed
from eopt.backends.harness import overhead
from eopt.backends.harness.base import Setup, Workload
from eopt.backends.harness.overhead import own_s
from eopt.ir.errors import InputError


class TorchEngine:
    """Runs workloads as `torch.fx` modules."""

    def __init__(self, setup: Setup) -> None:
        import torch

        if setup.threads:
            torch.set_num_threads(setup.threads)
        self.setup, self.version = setup, str(torch.__version__)

    @cached_property
    def per_call_s(self) -> float:
        """Of a module, besides its operators."""
        return overhead.per_call_s(self)

    def prepare(self, workload: Workload, feed: Feed) -> PreparedModule:
        """See `Engine.prepare`."""
        prepared = self.raw(workload, feed)
        prepared.per_call_s = self.per_call_s if workload.lone else 0.0
        return prepared

    def raw(self, workload: Workload, feed: Feed) -> PreparedModule:
        """See `overhead.Raw`."""
        import onnx
        import torch

        from eopt.backends import torch_fx
        from eopt.backends.torch_fx.kernels.dtypes import tensor
        from eopt.ir.onnx_io import from_proto

        model = from_proto(onnx.load_from_string(workload.onnx))
        module = torch_fx.lower(model, self.setup.device)
        if self.setup.executor == "torch-compile":
            module = torch.compile(module)
        inputs = [tensor(np.ascontiguousarray(feed[value.id])).to(self.setup.device) for value in model.feeds]
        prepared = PreparedModule(module, inputs, [value.id for value in model.outputs], self.setup.device)
        try:
            prepared.run(1)
        except Exception as error:  # each kernel refuses in its own way
            raise InputError(f"{workload.name}: torch cannot run it: {str(error).splitlines()[0][:300]}") from None
        return prepared


class PreparedModule:
    """A module with its inputs.

    Attributes:
        per_call_s: of a call, which is not the operators'.
    """

    per_call_s = 0.0

    def __init__(self, module: Any, inputs: list[Any], names: list[str], device: str) -> None:
        self.module, self.inputs, self.names, self.device = module, inputs, names, device

    def run(self, calls: int) -> float:
        """See `Prepared.run`."""
        import torch

        module, inputs = self.module, self.inputs
        with torch.inference_mode():
            start = perf_counter()
            for _ in range(calls):
                module(*inputs)
            if self.device == "cuda":
                torch.cuda.synchronize()
            return own_s(perf_counter() - start, calls, self.per_call_s)

    def outputs(self) -> dict[str, Array]:
        """See `Prepared.outputs`."""
        import torch

        from eopt.backends.torch_fx.kernels.dtypes import array

        with torch.inference_mode():
            return {name: array(value.cpu()) for name, value in zip(self.names, self.module(*self.inputs), strict=True)}
