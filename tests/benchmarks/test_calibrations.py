"""Every model by its default sampler passes simulation-based calibration (slow suite); the page shows what was kept."""

import pytest

from pelton.benchmarks.calibrations import CASES, PAGE, RESULTS, run, table
from pelton.benchmarks.record import read


def test_the_page_shows_the_results_that_are_kept():
    _, rest = PAGE.read_text(encoding="utf-8").split("<!-- calibrations -->")
    shown, _ = rest.split("<!-- end of calibrations -->")
    assert shown.strip() == (table(read(RESULTS)) if RESULTS.exists() else "")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ranks_of_the_truth_are_uniform(name):
    assert run(CASES[name]).problems == ()
