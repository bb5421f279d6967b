"""ONNX to kernels: Relax with its operators legalised and fused, and no schedules yet."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eopt.backends.harness.base import Workload
from eopt.backends.tvm import int8, quantised
from eopt.backends.tvm.require import reason, require
from eopt.ir.errors import InputError, UsageError


@dataclass(frozen=True)
class Lowered:
    """A model as TVM will compile it.

    Attributes:
        module: the `IRModule`: `main` in Relax, and a `PrimFunc` for each kernel.
        inputs, outputs: their names in ONNX, in the order of `main`.
    """

    module: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def kernels(self) -> dict[str, Any]:
        """The `PrimFunc` of each kernel by name."""
        from tvm.tirx import PrimFunc

        named = ((name.name_hint, function) for name, function in self.module.functions_items())
        return dict(sorted((name, function) for name, function in named if isinstance(function, PrimFunc)))

    def calls(self) -> Iterator[Any]:
        """Every `call_tir` of `main` in order; a kernel may be called more than once."""
        for block in self.module["main"].body.blocks:
            for binding in block.bindings:
                if getattr(getattr(binding.value, "op", None), "name", "") == "relax.call_tir":
                    yield binding.value

    def replaced(self, kernels: Mapping[str, Any]) -> Lowered:
        """With other bodies for some of its kernels."""
        import tvm

        module = tvm.IRModule(dict(self.module.functions_items()), attrs=self.module.attrs)
        for name, function in kernels.items():
            module.update_func(module.get_global_var(name), function)
        return Lowered(module, self.inputs, self.outputs)


def lowered(workload: Workload, target: Any) -> Lowered:
    """Import a workload, make its quantised operators integer, legalise and fuse.

    Raises:
        InputError: naming the workload, TVM cannot import or lower it.
    """
    require()
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    try:
        model = quantised.expanded(onnx.load_from_string(workload.onnx))
        with warnings.catch_warnings(), target:
            warnings.simplefilter("ignore")  # the checker minds integers in Conv, which is what ConvInteger becomes
            module = int8.integer(from_onnx(model, keep_params_in_input=False))
            module = tvm.transform.Sequential(
                [
                    relax.transform.DecomposeOpsForInference(),
                    *relax.pipeline.library_dispatch_passes(target),
                    relax.transform.LegalizeOps(),
                    relax.transform.AnnotateTIROpPattern(),
                    relax.transform.FoldConstant(),
                    relax.transform.FuseOps(),
                    relax.transform.FuseTIR(),
                ]
            )(module)
    except InputError as error:
        raise InputError(f"{workload.name}: {error}") from None
    except Exception as error:  # importers raise whatever they stumble over
        raise InputError(f"{workload.name}: TVM cannot import it: {reason(error)}") from None
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(value.name for value in model.graph.input if value.name not in constants)
    return Lowered(module, inputs, tuple(value.name for value in model.graph.output))


def target_of(attributes: Mapping[str, Any], threads: int = 0) -> Any:
    """A TVM target of its attributes, or the processor of this machine where there are none.

    Raises:
        UsageError: TVM refuses the attributes.
    """
    tvm = require(threads)
    import os

    try:
        wanted = dict(attributes) or {"kind": "llvm", **tvm.target.Target.from_device("cpu").attrs}
        if wanted.get("kind") == "llvm" and "num-cores" not in wanted:
            wanted["num-cores"] = threads or os.cpu_count() or 1
        return tvm.target.Target({key: _plain(value) for key, value in wanted.items()})
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UsageError(f"TVM target {dict(attributes)}: {reason(error)}") from None


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, list, dict)) else str(value)


def on_gpu(target: Any) -> bool:
    """True where kernels have to say which threads of a GPU run them."""
    return "gpu" in target.keys
