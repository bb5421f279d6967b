"""Student's quantile, without scipy at run time."""

from __future__ import annotations

import pytest
from scipy.stats import t

from eopt.backends.meters.summary import student_95


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 19, 99])
def test_the_quantile_is_that_of_student(freedom):
    assert student_95(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=0.01 if freedom == 3 else 0.003)
