"""The table of PyMC's models, from runs that are made up."""

import pytest

from pelton.benchmarks import adapters, record
from pelton.benchmarks.suite_tables import between


def row(sampler, seed, rate, **other):
    about = {"versions": {"pymc": "6.3"}, "commit": "abc", "chains": 4, "tune": 1000, "draws": 1000}
    made = {"model": "contracts", "sampler": sampler, "seed": seed, "ess_per_second_with_warmup": rate}
    return about | made | {"rhat": 1.0, "worst_difference": 1.0} | other


def test_medians_and_ratios_of_the_same_seed():
    rows = [row("pelton", seed, rate) for seed, rate in enumerate([200.0, 400.0, 900.0])]
    rows += [row("nutpie", seed, rate) for seed, rate in enumerate([100.0, 100.0, 300.0])]
    text = adapters.table(rows)
    assert "| contracts | 400 | 100 (pelton 3 times) | – |" in text
    assert "4 chains, 1000 draws of warm-up, 1000 draws; commit abc; pymc 6.3." in text


def test_a_later_run_takes_the_place_of_an_earlier_one():
    rows = [row("pelton", 0, 100.0), row("nutpie", 0, 100.0), row("pelton", 0, 200.0)]
    assert "| 200 | 100 (pelton 2 times) |" in adapters.table(rows)


@pytest.mark.parametrize(
    ("fault", "words"),
    [({"worst_difference": 7.0}, "7 standard errors from pelton"), ({"rhat": 1.3}, "not converged (R-hat 1.3)")],
)
def test_a_wrong_answer_has_no_speed(fault, words):
    text = adapters.table([row("pelton", 0, 100.0), row("nutpie", 0, 100.0, **fault)])
    assert words in text
    assert "times" not in text


def test_the_page_shows_what_is_stored():
    text = adapters.PAGE.read_text()
    assert text == between(text, adapters.table(record.stored(adapters.RESULTS)), adapters.PAGE)
