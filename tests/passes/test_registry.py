"""Passes by name, also those of third parties."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from eopt.ir.errors import UsageError
from eopt.passes import registry
from eopt.passes.base import Outcome, Pass
from eopt.passes.pipeline import Pipeline


@dataclass(frozen=True)
class Foreign(Pass):
    """A pass of somebody else's package."""

    name: ClassVar[str] = "foreign"
    after: ClassVar[tuple[str, ...]] = ("simplify",)
    strength: float = 0.5

    def run(self, model, context):
        return Outcome(model)


@pytest.fixture
def installed(monkeypatch):
    """A third-party distribution that offers `foreign`, and one that offers something that is no pass."""
    module = types.ModuleType("somebody_elses_package")
    module.Foreign, module.nothing = Foreign, object()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = [
        EntryPoint("foreign", "somebody_elses_package:Foreign", registry.GROUP),
        EntryPoint("broken", "somebody_elses_package:nothing", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: [e for e in found if e.group == group])
    registry._locations.cache_clear()
    registry.load.cache_clear()
    yield found
    registry._locations.cache_clear()
    registry.load.cache_clear()


def test_our_own_passes_load():
    for name in ("simplify", "fuse", "quant", "cast", "lower-qop"):
        assert registry.load(name).name == name


def test_a_third_party_pass_works_like_ours(installed):
    pipeline = Pipeline.parse("foreign{strength=1},simplify")
    assert str(pipeline) == "simplify,foreign{strength=1.0}"


def test_something_that_is_no_pass_is_refused(installed):
    with pytest.raises(UsageError, match="is no eopt"):
        registry.load("broken")


def test_two_passes_of_one_name_are_refused(installed):
    installed.append(EntryPoint("fuse", "somebody_elses_package:Foreign", registry.GROUP))
    registry._locations.cache_clear()
    with pytest.raises(UsageError, match="'fuse' of somebody_elses_package:Foreign is already defined"):
        registry.names()


def test_a_misspelt_pass_is_corrected():
    with pytest.raises(UsageError, match="did you mean 'quant'"):
        registry.load("qaunt")
