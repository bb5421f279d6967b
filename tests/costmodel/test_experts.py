"""Tokens over experts: nothing is lost, skew makes the busiest rank busier, and what no collector names is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.costmodel.experts import load
from eopt.costmodel.records import record
from eopt.ir.errors import InputError

SKEW = st.sampled_from(["", "balanced", "power_law_1.01", "power_law_1.2", "power_law_1", "power_law_3"])


def mixture(tokens: int, local: int, **attrs: object) -> dict[str, object]:
    shapes = [[tokens, 64], [tokens, 32], [local, 128, 64], None, [local, 64, 64]]
    return {"op": "com.microsoft.MoE", "inputs": shapes, "dtype": "bfloat16", "attrs": {"k": 4, **attrs}}


@given(st.integers(1, 5000), st.integers(1, 8), st.integers(0, 6), st.integers(0, 6), SKEW)
def test_one_rank_of_one_has_all_pairs_and_none_has_more(tokens, chosen, experts_log2, ranks_log2, skew):
    experts = 8 << experts_log2
    local = max(1, experts >> ranks_log2)
    whole, part = load(tokens, chosen, experts, experts, skew), load(tokens, chosen, experts, local, skew)
    assert whole.rows == pytest.approx(tokens * chosen, abs=1)
    assert 1 <= part.rows <= whole.rows + 1
    assert 1 <= part.met <= min(local, part.rows)


@given(st.integers(64, 5000), st.integers(1, 8), st.integers(1, 5))
def test_the_busiest_rank_is_busier_the_more_the_skew(tokens, chosen, ranks_log2):
    rows = [load(tokens, chosen, 64, 64 >> ranks_log2, skew).rows for skew in ("balanced", "power_law_1.01")]
    assert rows[0] <= rows[1]


@pytest.mark.parametrize("skew", ["zipf", "power_law_", "power_law_x", "power_law_-1", "power_law_nan", "power_law_99"])
def test_an_unknown_skew_is_refused(skew):
    with pytest.raises(InputError, match="balanced, or power_law_"):
        load(16, 2, 8, 8, skew)


def test_more_experts_than_there_are_do_not_fill_the_memory():
    assert load(16, 2, 1 << 39, 1 << 39).rows == 32
    with pytest.raises(InputError, match="experts; at most"):
        load(16, 2, 1 << 39, 1 << 39, "power_law_1.2")


def test_a_rank_does_its_share_of_the_work_and_reads_its_experts():
    one, all_of_them = record(mixture(256, 8))[0], record(mixture(256, 32))[0]
    assert one.flops[0][2] == pytest.approx(all_of_them.flops[0][2] / 4, rel=0.01), "but for the router's softmax"
    assert one.gemm == (8, 32, 128, 64)
    assert one.weight_bytes == 8 * (128 * 64 + 64 * 64) * 2
    few = record(mixture(1, 32))[0]
    assert few.weight_bytes == 4 * (128 * 64 + 64 * 64) * 2, "one token meets four experts"
