"""Every model by its default sampler passes simulation-based calibration (slow suite)."""

import pytest

from pelton.benchmarks.calibrations import CASES, PAGE, PICTURES, RESULTS, run, table
from pelton.benchmarks.record import read
from pelton.benchmarks.reliability import between


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ranks_of_the_truth_are_uniform(name):
    assert run(CASES[name]).problems == ()


def test_the_page_says_what_was_measured():
    page = PAGE.read_text(encoding="utf-8")
    rows = read(RESULTS)
    assert rows
    assert between(page, "calibrations", table(rows)) == page
    measured = {row["case"]: row for row in rows if row["case"] in CASES}
    for name, row in measured.items():
        assert (PICTURES / f"{name}.png").stat().st_size > 10_000
        assert row["problems"] == []
