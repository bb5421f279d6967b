"""Devices without a sheet, estimated from their architecture or their vendor's trend."""

from __future__ import annotations

from math import log

import pytest

from eopt.backends import impute, target
from eopt.backends.typical import Sought, architecture, generation, typical

MAXWELL = Sought("gpu", "nvidia", "sm_52", "maxwell", 2014)
FERMI = Sought("gpu", "nvidia", "sm_20", "fermi", 2010)
AMPERE = Sought("gpu", "nvidia", "sm_86", "ampere", 2020)


def test_siblings_are_asked_before_the_trend():
    found = typical("x", "X", AMPERE)
    siblings = [sheet for sheet in map(target.load, target.shipped()) if architecture(sheet) == "sm_86"]
    bandwidths = [sheet.bandwidth_bytes_per_s for sheet in siblings]
    assert min(bandwidths) < found.bandwidth_bytes_per_s < max(bandwidths)
    assert found.matrix["float16"] > found.vector["float32"]
    assert "tensor_core" in found.features
    assert (found.cores, found.tdp_w, found.clock_boost_hz) == (None, None, None), "left to impute"


def test_older_parts_have_less_and_no_matrix_units_of_newer_ones():
    maxwell, fermi = typical("x", "X", MAXWELL), typical("y", "Y", FERMI)
    assert fermi.vector["float32"] < maxwell.vector["float32"] < typical("z", "Z", AMPERE).vector["float32"]
    assert maxwell.matrix == {}
    assert maxwell.features == frozenset()
    assert fermi.factors["bandwidth_bytes_per_s"] > maxwell.factors["bandwidth_bytes_per_s"], "further from the sheets"


def test_what_was_estimated_widens_what_depends_on_it():
    sheet = typical("x", "X", MAXWELL)
    found = impute.completed(sheet).imputed
    assert found["bandwidth_bytes_per_s"] == sheet.factors["bandwidth_bytes_per_s"] > 2
    assert found["vector.float32"] == sheet.factors["vector.float32"] > 2
    assert found["cores"] >= found["vector.float32"]
    assert found["vector.float16"] >= found["vector.float32"]


@pytest.mark.parametrize("field", ["bandwidth_bytes_per_s", "float32"])
def test_stated_factors_hold_for_nine_in_ten_shipped_sheets(field):
    held = []
    for sheet in map(target.load, target.shipped()):
        found = (
            None if sheet.kind == "cpu" else typical("x", "X", Sought(sheet.kind, sheet.vendor, architecture(sheet)))
        )
        if found is None:
            continue
        guess, truth = (
            (one.vector["float32"] if field == "float32" else one.bandwidth_bytes_per_s) for one in (found, sheet)
        )
        factor = found.factors["vector.float32" if field == "float32" else field]
        held.append(abs(log(guess / truth)) <= log(factor) * 1.001)
    assert len(held) > 100
    assert sum(held) >= 0.9 * len(held)


@pytest.mark.parametrize("sought", [Sought("gpu", "acme", "a1", "a", 2020), Sought("gpu", "nvidia", "sm_99"),
                                    Sought("soc", "qualcomm", "adreno")])  # fmt: skip
def test_too_little_to_estimate_from(sought):
    assert typical("x", "X", sought) is None


def test_suffixes_of_compilers():
    assert [generation(name) for name in ("sm_90a", "sm_100f", "sm_61", "gfx90a")] == [
        "sm_90",
        "sm_100",
        "sm_61",
        "gfx90a",
    ]
