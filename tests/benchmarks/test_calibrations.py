"""Every model by its default sampler passes simulation-based calibration (slow suite)."""

import pytest

from pelton.benchmarks.calibrations import CASES, run


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ranks_of_the_truth_are_uniform(name):
    assert run(CASES[name]).problems == ()
