"""The shape of the repository: imports point one way, files stay small, nothing dangerous is called."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("ir", "backends", "costmodel", "passes", "tools", "eopt")
FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
HEAVY = {
    "torch",
    "tvm",
    "zeus",
    "onnxruntime",
    "onnxsim",
    "transformers",
    "rich",
    "jinja2",
    "networkx",
    "sklearn",
    "pynvml",
}
RUNNERS = {"eopt.backends.ort", "eopt.backends.segments", "eopt.backends.torch_fx"}
MAX_LINES = 400
FORBIDDEN_CALLS = {"eval", "exec", "__import__"}
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "joblib"}


def imports(path: Path, top_level_only: bool = False) -> list[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path):
    layer = path.relative_to(ROOT).parts[0]
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "eopt" and len(parts) > 1 and parts[1] in LAYERS:
            assert parts[1] in allowed, f"{layer} must not import {name}"
    if layer in ("costmodel", "passes"):
        assert not RUNNERS & set(imports(path)), "runners are seen through the protocols in backends/base.py only"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_have_one_job_and_no_loaded_gun(path: Path):
    assert len(path.read_text().splitlines()) <= MAX_LINES
    tree = ast.parse(path.read_text())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & FORBIDDEN_CALLS
    assert not {name.partition(".")[0] for name in imports(path)} & FORBIDDEN_MODULES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path: Path):
    if "torch_fx/kernels" in str(path):
        return  # imported by the lowering, inside a function
    assert not {name.partition(".")[0] for name in imports(path, top_level_only=True)} & HEAVY
