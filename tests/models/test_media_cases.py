"""Full-length fits of other tools' example tables, by naming columns only (slow suite)."""

import pandas as pd
import pytest

import pelton
from pelton.models.attribution import fit, roas_table
from pelton.models.media_mix import MediaMix
from pelton.models.panel import Panel
from tests.models.panels import meridian

pytestmark = pytest.mark.slow


def assert_converged(tree):
    assert tree.attrs["status"] == "converged"
    assert not tree["sample_stats"]["diverging"].any()


def test_the_returns_of_the_counterfactual_columns_are_covered(cases):
    table = pd.read_csv(cases / "pymc_marketing_roas.csv")
    truth = {f"x{i}": (table["y"] - table[f"y0{i}"]).sum() / table[f"x{i}"].sum() for i in (1, 2)}
    assert truth == pytest.approx({"x1": 93.4, "x2": 171.4}, abs=0.05)
    # z moves both media and target, so it has to be known.
    panel = Panel.from_frame(table, time="date", target="y", media=["x1", "x2"], controls=["z"])
    tree = pelton.sample(MediaMix(panel, trend="linear", seasonality=2), seed=1, progress=False)
    assert_converged(tree)
    returns = roas_table(tree).loc["all"]
    assert list(returns.index) == ["x1", "x2"]
    for channel, value in truth.items():
        assert returns["roas_low"][channel] < value < returns["roas_high"][channel]


def test_two_geos(cases):
    table = pd.read_csv(cases / "pymc_marketing_two_geos.csv")
    panel = Panel.from_frame(
        table, time="date", geo="geo", target="y", media=["x1", "x2"], events=["event_1", "event_2"]
    )
    tree = pelton.sample(MediaMix(panel, trend="linear", seasonality=2), seed=1, progress=False)
    assert_converged(tree)
    assert (fit(tree).geos["coverage"].between(0.85, 1)).all()


def test_meridian(cases):
    _, panel = meridian(cases)
    tree = pelton.sample(MediaMix(panel), seed=1, progress=False)
    assert_converged(tree)
    assert (fit(tree).geos["coverage"].between(0.85, 1)).all()
