"""Recovery of the eight markets' truth, and what the hierarchy buys (slow suite)."""

import pytest

from pelton.benchmarks import markets


@pytest.mark.slow
def test_the_markets_truth_is_recovered():
    rows = [markets.fit(seed, draws=2000)[1] for seed in range(30)]
    shares = markets.total_coverage(rows)
    assert 0.88 <= shares["all"] <= 0.99
    assert all(row["rhat"] <= 1.01 for row in rows), [row["rhat"] for row in rows]


@pytest.mark.slow
def test_the_hierarchy_beats_pooled_and_unpooled():
    found = markets.compare(0)
    assert found["loo"][0]["pooling"] == "hierarchical", found["loo"]
    fits = found["fits"]
    assert fits["hierarchical"]["roas_error_short"] < fits["unpooled"]["roas_error_short"]
