"""Twenty minutes of faults at random lose no draw (slow suite; about half an hour)."""

import pytest

from pelton.benchmarks.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_soak_loses_nothing():
    found = soak(20.0, 100, 0)
    assert found["failures"] == []
    assert found["kills"] >= 100
    assert found["numbers compared"] > 10**6
    assert found["numbers different"] == 0
