"""eopt: energy-aware compiler for deep neural networks.

The public API. Everything is imported on first use, so `import eopt` stays light:

    import eopt

    result = eopt.compile("model.onnx", "simplify,fuse,quant", data="calibration.npz", target="nvidia-h100-sxm")
    eopt.write(result.model, "model.eopt.onnx")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eopt.backends.target import load as load_target
    from eopt.ir.errors import ContractError, EoptError, InputError, OutputError, UsageError
    from eopt.ir.model import Model
    from eopt.ir.onnx_out import write
    from eopt.passes.pipeline import Pipeline
    from eopt.tools.calibrate import calibrate
    from eopt.tools.compile import compile_model as compile
    from eopt.tools.frontdoor import load as read
    from eopt.tools.measure import measure_model as measure
    from eopt.tools.predict import predict_model as predict

__version__ = "0.1.0"

_HOMES = {
    "compile": "eopt.tools.compile:compile_model",
    "calibrate": "eopt.tools.calibrate:calibrate",
    "measure": "eopt.tools.measure:measure_model",
    "predict": "eopt.tools.predict:predict_model",
    "read": "eopt.tools.frontdoor:load",
    "write": "eopt.ir.onnx_out:write",
    "load_target": "eopt.backends.target:load",
    "Model": "eopt.ir.model:Model",
    "Pipeline": "eopt.passes.pipeline:Pipeline",
    "EoptError": "eopt.ir.errors:EoptError",
    "UsageError": "eopt.ir.errors:UsageError",
    "InputError": "eopt.ir.errors:InputError",
    "OutputError": "eopt.ir.errors:OutputError",
    "ContractError": "eopt.ir.errors:ContractError",
}

__all__ = [
    "ContractError",
    "EoptError",
    "InputError",
    "Model",
    "OutputError",
    "Pipeline",
    "UsageError",
    "__version__",
    "calibrate",
    "compile",
    "load_target",
    "measure",
    "predict",
    "read",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'eopt' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
