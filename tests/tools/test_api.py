"""The public API: every name importable from where it claims to be, and nothing heavy at import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import eopt

HEAVY = ("torch", "tvm", "onnxruntime", "onnxsim", "onnx", "numpy", "rich", "networkx", "jinja2", "yaml")


@pytest.mark.parametrize("name", [name for name in eopt.__all__ if not name.startswith("__")])
def test_every_public_name_exists(name):
    assert getattr(eopt, name) is not None
    assert name in dir(eopt)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'complie'"):
        eopt.complie  # noqa: B018


@pytest.mark.parametrize("statement", ["import eopt", "from eopt.tools.cli import main; main(['--version'])"])
def test_nothing_heavy_is_imported(statement):
    check = f"import sys\ntry:\n  exec({statement!r})\nexcept SystemExit: pass\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert not set(HEAVY) & set(loaded)
