"""TVM in the version that works, or a refusal that says what to install."""

from __future__ import annotations

from importlib import metadata

import pytest

from eopt.backends.tvm import require
from eopt.ir.errors import UsageError


@pytest.fixture(autouse=True)
def forget():
    require.checked.cache_clear()
    yield
    require.checked.cache_clear()


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(name: str) -> str:
        found = versions.get(name.replace("-", "_"))
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)


def test_a_missing_tvm_names_the_extra(monkeypatch):
    installed(monkeypatch)
    with pytest.raises(UsageError, match=r"apache-tvm is not installed; pip install 'eopt\[tvm\]'"):
        require.checked()


def test_a_newer_ffi_which_would_crash_is_refused(monkeypatch):
    installed(monkeypatch, apache_tvm="0.27.0.post1", apache_tvm_ffi="0.1.15.post2")
    with pytest.raises(UsageError, match=r"apache-tvm-ffi is 0\.1\.15\.post2, and only 0\.1\.14\.post1"):
        require.checked()


def test_the_pinned_versions_are_those_of_the_extra(monkeypatch):
    installed(monkeypatch, apache_tvm="0.27.0.post1", apache_tvm_ffi="0.1.14.post1")
    require.checked()


def test_the_last_line_that_tells_is_the_reason():
    assert require.reason(RuntimeError("stack\n  ValueError: bad shape\n  at 0x1")) == "ValueError: bad shape"
    assert require.reason(RuntimeError("")) == "RuntimeError"
