"""The torch front door: modules leave through torch's own dynamo ONNX exporter, with their module scopes."""

from __future__ import annotations

import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from eopt.ir import torch_program
from eopt.ir.errors import EoptError, InputError, UsageError
from eopt.ir.model import Model

OPSET = 20  # Gelu is an operator from 20 on; attention and normalisation stay visible to the fuse pass


def from_module(
    module: Any, example: Sequence[Any] | Mapping[str, Any], dims: Mapping[str, Mapping[int, str]] | None = None
) -> Model:
    """Export an `nn.Module`, with symbolic dims where the module allows.

    Args:
        module: put into evaluation mode before the export.
        example: positional inputs, or keyword inputs by name.
        dims: names of dynamic axes by keyword input; the first axis of every input is `batch` by default.

    Raises:
        UsageError: torch is not installed.
        InputError: the module cannot be exported.
    """
    torch = _torch()
    if isinstance(module, torch.fx.GraphModule):
        return from_graph_module(module, example, dims)
    positional, keywords, dynamic = _inputs(torch, example, dims)
    with _quiet():
        return torch_program.imported(_export(torch, module.eval(), positional, keywords, dynamic))


def from_graph_module(
    module: Any, example: Sequence[Any] | Mapping[str, Any], dims: Mapping[str, Mapping[int, str]] | None = None
) -> Model:
    """Export a `torch.fx.GraphModule`; `torch_program.fx_names` tells which of its nodes an operator comes from.

    Raises:
        UsageError: torch is not installed.
        InputError: it cannot be exported.
    """
    torch = _torch()
    positional, keywords, dynamic = _inputs(torch, example, dims)
    marked = torch_program.traceable(torch, module).eval()

    def export(shapes: Any) -> Any:
        return torch.export.export(marked, positional, keywords, dynamic_shapes=shapes, strict=False)

    with _quiet():
        try:
            program = export(dynamic)
        except Exception:  # a graph that fixes its batch size: export it as it is
            dynamic = None
            program = _exporting(lambda: export(None))
        return _converted(torch, program, torch_program.origins(program), dynamic)


def from_program(program: Any) -> Model:
    """Export a `torch.export.ExportedProgram`, with the dims it was exported with.

    Raises:
        UsageError: torch is not installed.
        InputError: it cannot be converted.
    """
    torch = _torch()
    with _quiet():
        return _converted(torch, program)


def _converted(torch: Any, program: Any, sources: Mapping[str, str] | None = None, dynamic: Any = None) -> Model:
    options = {"dynamo": True, "opset_version": OPSET, "dynamic_shapes": dynamic}  # the latter for the names of dims
    exported = _exporting(lambda: torch.onnx.export(program, **options))
    return torch_program.imported(exported, sources)


def from_reference(reference: str) -> Model:
    """Import `module:function`, call it, and export what it returns: `(nn.Module, example_inputs)`, of which the module
    may be a `torch.fx.GraphModule`, or a `torch.export.ExportedProgram`.

    Raises:
        UsageError: no such module or function, or it returns something else.
    """
    module_name, _, function_name = reference.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{reference}: {error}; expected module:function, importable from here") from None
    finally:
        sys.path.pop(0)
    made = function()
    if isinstance(made, _torch().export.ExportedProgram):
        return from_program(made)
    if not (isinstance(made, tuple) and len(made) == 2):
        kind = type(made).__name__
        raise UsageError(f"{reference}: must return (nn.Module, example_inputs) or an ExportedProgram, not {kind}")
    return from_module(*made)


def from_pt2(path: Path, trust: bool) -> Model:
    """Export a `torch.export` archive. Loading one can run code it contains, hence `trust`.

    Raises:
        UsageError: not trusted.
        InputError: not readable or not exportable.
    """
    if not trust:
        raise UsageError(f"{path}: a .pt2 file can run code when loaded; pass --trust if you know where it is from")
    torch = _torch()
    try:
        program = torch.export.load(path)
    except Exception as error:  # the archive is arbitrary input and torch raises anything
        raise InputError(f"{path}: torch.export cannot load it ({_line(error)})") from None
    return from_program(program)


def from_pretrained(folder: Path) -> Model:
    """Export a local Hugging Face model directory (`config.json` and safetensors weights; no remote code is run).

    Raises:
        UsageError: transformers is not installed.
        InputError: not a model directory, or an architecture that cannot be exported.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json here; expected a Hugging Face model directory or an .onnx file")
    torch = _torch()
    try:
        import transformers
    except ImportError:
        raise UsageError("Hugging Face models need transformers: pip install 'eopt[hf]'") from None
    with _quiet():
        try:
            model = transformers.AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder}: transformers cannot load it ({_line(error)})") from None
    return from_module(*_plain(torch, model))


def _plain(torch: Any, model: Any) -> tuple[Any, dict[str, Any], dict[str, dict[int, str]]]:
    """The model with named tensor inputs and its first output alone, example inputs, and the names of their dims."""

    class Text(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)[0]

    class Image(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            return self.model(pixel_values=pixel_values, return_dict=True)[0]

    if model.main_input_name == "pixel_values":
        side = getattr(model.config, "image_size", None) or 224
        height, width = side if isinstance(side, list | tuple) else (side, side)
        image = torch.zeros(2, getattr(model.config, "num_channels", 3), height, width)
        return Image(), {"pixel_values": image}, {"pixel_values": {0: "batch"}}
    if model.main_input_name != "input_ids":
        raise InputError(f"{type(model).__name__}: takes {model.main_input_name!r}; give it as module:function instead")
    names = ("input_ids", "attention_mask")
    tokens = {name: torch.ones((2, 16), dtype=torch.long) for name in names}
    return Text(), tokens, {name: {0: "batch", 1: "sequence"} for name in names}


def _export(torch: Any, module: Any, positional: tuple[Any, ...], keywords: dict[str, Any], dynamic: Any) -> Any:
    options = {"dynamo": True, "opset_version": OPSET, "kwargs": keywords or None}
    try:
        return torch.onnx.export(module, positional, dynamic_shapes=dynamic, **options)
    except Exception:  # a module that fixes its batch size: export it as it is
        return _exporting(lambda: torch.onnx.export(module, positional, **options))


def _exporting(export: Any) -> Any:
    try:
        return export()
    except EoptError:
        raise
    except Exception as error:
        raise InputError(f"torch cannot export this module to ONNX: {_line(error)}") from None


def _inputs(
    torch: Any, example: Sequence[Any] | Mapping[str, Any], dims: Mapping[str, Mapping[int, str]] | None
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Positional inputs, keyword inputs, and which of their axes are dynamic."""
    keywords = dict(example) if isinstance(example, Mapping) else {}
    positional = () if keywords else tuple(example)
    return positional, keywords, _named_axes(torch, dims) if dims else _first_axes(torch, keywords or positional)


def _named_axes(torch: Any, dims: Mapping[str, Mapping[int, str]]) -> Any:
    made = {name: torch.export.Dim(name) for axes in dims.values() for name in axes.values()}
    return {value: {axis: made[name] for axis, name in axes.items()} for value, axes in dims.items()}


def _first_axes(torch: Any, inputs: Any) -> Any:
    dim = torch.export.Dim("batch")

    def marked(item: Any) -> Any:
        return {0: dim} if isinstance(item, torch.Tensor) and item.dim() else None

    if isinstance(inputs, dict):
        return {name: marked(item) for name, item in inputs.items()}
    return tuple(marked(item) for item in inputs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters, which report on standard output and through warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _torch() -> Any:
    try:
        import onnxscript  # noqa: F401 -- the exporter needs it and says so badly
        import torch
    except ImportError:
        raise UsageError("torch models need torch and onnxscript: pip install 'eopt[torch]'") from None
    return torch


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
