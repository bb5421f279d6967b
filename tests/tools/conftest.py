"""What tests of several verbs share."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from eopt.costmodel import artifact


@pytest.fixture(scope="module")
def small_model_in_use(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A small model with random weights instead of the one shipped."""
    small_model = runpy.run_path(str(Path(__file__).parents[1] / "costmodel/conftest.py"))["small_model"]
    folder = tmp_path_factory.mktemp("small")
    artifact.save(small_model(), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(artifact.VARIABLE, str(folder))
        artifact.shipped.cache_clear()
        yield
    artifact.shipped.cache_clear()
