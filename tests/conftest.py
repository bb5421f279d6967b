"""Options shared by all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Shared machines stall: a slow example is no failure. CI draws the same examples every time; people draw new ones.
settings.register_profile("eopt", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("eopt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the `after` sections of tests/rewrites")


@pytest.fixture(autouse=True)
def _nobodys_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Calibrations and measurements of whoever runs the tests change nothing, and none are left behind."""
    own = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("EOPT_CALIBRATIONS", str(own / "calibrations"))
    monkeypatch.setenv("EOPT_CACHE", str(own / "cache"))


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
