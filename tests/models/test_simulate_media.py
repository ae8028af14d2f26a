"""Simulated markets: the scenario, and its truth against plain loops, our kernels, the panel and the population."""

import math

import numpy as np
import pandas as pd
import pytest

from pelton.engine.errors import ArgumentError
from pelton.engine.precision import using
from pelton.kernels.adstock import delayed, geometric
from pelton.kernels.saturation import hill
from pelton.models.panel import Panel
from pelton.models.simulate import simulate_markets, simulate_media
from pelton.models.simulate_media import CHANNELS, Channel, Plan, simulate

WEEKS = {"DE": 104, "UK": 104, "FR": 78, "NL": 78, "ES": 52, "IT": 52, "PL": 26, "SE": 26}
NAMES = ["spotify_ads", "meta", "tiktok", "youtube", "radio", "playlist"]


@pytest.fixture(scope="module")
def markets():
    return simulate_markets(seed=3)


@pytest.fixture(scope="module")
def many():
    """Enough markets to see the population."""
    return simulate_media(600, 80, 6, seed=11)


def theta_of(truth, geo, channel):
    """The delay, or None where the adstock is geometric."""
    return float(truth["theta"].sel(geo=geo, theta_channel=channel)) if channel in truth["theta_channel"] else None


def test_the_scenario(markets):
    frame = markets.frame
    assert list(frame.columns) == ["date", "market", "sales", *NAMES, "price_index", "holiday"]
    assert frame.groupby("market", sort=False).size().to_dict() == WEEKS
    for _, rows in frame.groupby("market"):
        assert rows["date"].iloc[-1] == pd.Timestamp("2025-12-29")
        assert (rows["date"].diff().dropna() == pd.Timedelta(days=7)).all()
    assert dict(zip(NAMES, markets.truth["adstock"].values, strict=True)) == {
        "spotify_ads": "geometric",
        "meta": "geometric",
        "tiktok": "geometric",
        "youtube": "delayed",
        "radio": "delayed",
        "playlist": "geometric",
    }
    assert frame.notna().all().all()
    assert set(frame["holiday"]) == {0, 1}


def test_sizes_are_plausible_for_every_seed():
    for seed in range(20):
        made = simulate_markets(seed)
        truth = made.truth
        last = made.frame["date"] > pd.Timestamp("2025-12-29") - pd.Timedelta(weeks=26)
        quarter = made.frame.loc[last, NAMES].to_numpy().sum() / 2
        assert 350_000 < quarter < 650_000
        level = truth["mean"].mean("time")
        assert (truth["intercept"] / level).min() > 0.45
        assert (truth["intercept"] / level).max() < 0.8
        assert (made.frame["sales"] > 0).all()
        assert 2 < float(truth["roas"].median()) < 7
        # Both short markets see Christmas.
        assert made.frame.groupby("market")["holiday"].sum().ge(2).all()


def test_typical_weeks_bring_what_is_said(many):
    share = (many.truth["contribution"] / many.truth["mean"].mean("time")).median("geo")
    assert ((share > 0.04) & (share < 0.11)).all()
    sigma = many.truth["sigma"] / many.truth["mean"].mean("time")
    assert ((sigma > 0.02) & (sigma < 0.1)).all()
    roas = many.truth["roas"].median("geo")
    assert roas.max() > 1.5 * roas.min()


def test_contribution_is_what_a_typical_active_week_brings_where_it_is_held(markets):
    truth = markets.truth
    power = (truth["media_scale"] / truth["half_saturation"]) ** truth["slope"]
    np.testing.assert_allclose(truth["coef"] * power / (1 + power), truth["contribution"], rtol=1e-12)


def test_pinned_cells():
    # python -c "from pelton.models.simulate import *; m = simulate_markets(0); print(m.frame.iloc[[0, 260, 519]])"
    # and the two cells of its truth, at NumPy 2.5.
    made = simulate_markets(seed=0)
    rows = made.frame[["market", "sales", "meta", "youtube", "price_index"]].iloc[[0, 260, 519]].values.tolist()
    assert rows == [
        ["DE", 83636.11, 1636.33, 6193.11, 96.2],
        ["FR", 58142.76, 1872.68, 0.0, 96.0],
        ["SE", 19918.14, 277.15, 975.24, 99.9],
    ]
    assert float(made.truth["roas"].sel(geo="SE", channel="radio")) == pytest.approx(2.61387397177311, rel=1e-9)
    assert float(made.truth["coef"].sel(geo="UK", channel="meta")) == pytest.approx(12894.178300179628, rel=1e-9)


def test_the_same_seed_gives_the_same_data(markets):
    again, other = simulate_markets(seed=3), simulate_markets(seed=4)
    pd.testing.assert_frame_equal(again.frame, markets.frame)
    assert again.truth.identical(markets.truth)
    assert not np.isclose(other.frame["sales"], markets.frame["sales"]).all()
    for name in ("alpha", "theta", "half_saturation", "slope", "contribution", "trend_coefficient"):
        for kind in ("population", "sd"):
            assert other.truth[f"{name}_{kind}"].identical(markets.truth[f"{name}_{kind}"])


def test_parts_sum_to_the_mean_and_noise_has_its_sd(many):
    truth = many.truth
    inside = truth["inside"].values
    baseline = truth["baseline_parts"].sum("part")
    mean = (baseline + truth["contributions"].sum("channel")).values
    np.testing.assert_allclose(mean[inside], truth["mean"].values[inside], rtol=1e-12)
    np.testing.assert_allclose(baseline.values[inside], truth["baseline"].values[inside], rtol=1e-12)
    sigma = np.broadcast_to(truth["sigma"].values[:, None], inside.shape)[inside]
    z = (many.frame["sales"].to_numpy() - mean[inside]) / sigma
    # Within 5 standard errors of those of normal numbers, whose squares have variance 2.
    assert abs(z.mean()) < 5 / math.sqrt(z.size)
    assert abs((z**2).mean() - 1) < 5 * math.sqrt(2 / z.size)


def test_without_noise_sales_are_the_mean_to_the_cent():
    made = simulate_media(3, [20, 9, 14], noise=0, seed=5)
    truth = made.truth
    np.testing.assert_allclose(made.frame["sales"], truth["mean"].values[truth["inside"].values], rtol=0, atol=0.00501)
    assert np.isnan(truth["mean"].values[~truth["inside"].values]).all()
    assert (truth["contributions"].values[~truth["inside"].values] == 0).all()


def test_contributions_and_roas_by_plain_loops(markets):
    """Week by week from the table and the parameters alone, 11 weeks of nothing spent after the last."""
    truth = markets.truth
    for geo, rows in markets.frame.groupby("market"):
        start = len(truth["time"]) - len(rows)
        for channel in NAMES:
            spend = [*rows[channel], *[0.0] * 11]
            alpha, k, s, coef = (
                float(truth[name].sel(geo=geo, channel=channel))
                for name in ("alpha", "half_saturation", "slope", "coef")
            )
            theta = theta_of(truth, geo, channel)
            weights = [alpha**lag if theta is None else alpha ** ((lag - theta) ** 2) for lag in range(12)]
            brought = []
            for week in range(len(spend)):
                carried = sum(weights[lag] * spend[week - lag] for lag in range(12) if lag <= week) / sum(weights)
                brought.append(coef * carried**s / (carried**s + k**s))
            found = truth["contributions"].sel(geo=geo, channel=channel).values[start:]
            np.testing.assert_allclose(found, brought[: len(rows)], rtol=1e-9, atol=1e-9)
            after = float(truth["carryover"].sel(geo=geo, channel=channel))
            assert after == pytest.approx(sum(brought[len(rows) :]), rel=1e-9, abs=1e-9)
            roas = float(truth["roas"].sel(geo=geo, channel=channel))
            assert roas == pytest.approx(sum(brought) / sum(spend), rel=1e-9)


def test_the_baseline_by_plain_loops(markets):
    truth = markets.truth
    for geo, rows in markets.frame.groupby("market"):
        one = truth.sel(geo=geo)
        waves, weeks = one["seasonality_coefficient"].values, len(rows)
        for place, (date, price, holiday) in enumerate(
            zip(rows["date"], rows["price_index"], rows["holiday"], strict=True)
        ):
            angle = 2 * math.pi * (date - pd.Timestamp("1970-01-01")).days / 365.25
            season = sum(
                waves[2 * k - 2] * math.sin(k * angle) + waves[2 * k - 1] * math.cos(k * angle) for k in (1, 2)
            )
            years = (place - (weeks - 1) / 2) * 7 / 365.25
            expected = float(one["intercept"]) + float(one["trend_coefficient"]) * years + season
            expected += float(one["control_coefficient"][0]) * (price - 100)
            expected += float(one["event_coefficient"][0]) * holiday
            assert float(one["baseline"].sel(time=date)) == pytest.approx(expected, rel=1e-9)


def test_the_kernels_agree(markets):
    truth = markets.truth
    inside = truth["inside"].values
    with using("float64"):
        for adstock in ("geometric", "delayed"):
            one = truth.sel(channel=truth["adstock"] == adstock)
            spend = np.zeros((*inside.shape, one.sizes["channel"]))
            spend[inside] = markets.frame[one["channel"].values.tolist()].to_numpy()
            alpha, k, s, coef = (one[name].values for name in ("alpha", "half_saturation", "slope", "coef"))
            carried = geometric(spend, alpha) if adstock == "geometric" else delayed(spend, alpha, one["theta"].values)
            expected = coef[:, None] * hill(carried, k[:, None], s[:, None])
            np.testing.assert_allclose(one["contributions"], expected, rtol=1e-8, atol=1e-6)


def test_the_panel_reads_the_table_and_has_the_same_scales(markets):
    panel = Panel.from_frame(markets.frame, **markets.columns)
    truth = markets.truth
    assert panel.geos == tuple(WEEKS)
    assert panel.channels == tuple(NAMES)
    assert (panel.control_names, panel.event_names) == (("price_index",), ("holiday",))
    assert (panel.dates == truth["time"].values).all()
    assert (panel.inside == truth["inside"].values).all()
    np.testing.assert_allclose(panel.target_scale, truth["target_scale"], rtol=1e-12)
    np.testing.assert_allclose(panel.media_scale, truth["media_scale"], rtol=1e-12)
    np.testing.assert_allclose(panel.spend.sum(axis=1), truth["total_spend"], rtol=1e-12)
    # A market's mean sales are its level, up to the noise of their mean.
    level = truth["mean"].mean("time")
    error = truth["sigma"] / np.sqrt(truth["inside"].sum("time"))
    assert (abs(truth["target_scale"] - level) < 5 * error).all()


def test_markets_have_the_moments_of_their_population(many):
    """Mean and sd of each parameter on its unconstrained scale, within 5 standard errors of normal draws."""
    truth = many.truth
    geos = truth.sizes["geo"]
    level = truth["mean"].mean("time")
    natural = {
        "alpha": truth["alpha"],
        "theta": truth["theta"] / 11,
        "half_saturation": truth["half_saturation"] / truth["media_scale"],
        "slope": truth["slope"],
        "contribution": truth["coef"]
        / (1 + (truth["half_saturation"] / truth["media_scale"]) ** truth["slope"])
        / level,
    }
    for name, value in natural.items():
        centre, sd = truth[f"{name}_population"], truth[f"{name}_sd"]
        if name in ("alpha", "theta"):
            centre = centre / 11 if name == "theta" else centre
            found, centre = np.log(value / (1 - value)), np.log(centre / (1 - centre))
        else:
            found, centre = np.log(value), np.log(centre)
        assert (sd > 0).all()
        assert (abs(found.mean("geo") - centre) < 5 * sd / math.sqrt(geos)).all(), name
        assert (abs(found.std("geo", ddof=1) - sd) < 5 * sd / math.sqrt(2 * geos)).all(), name
    for name in ("trend", "seasonality", "control", "event"):
        found = truth[f"{name}_coefficient"] / level
        centre, sd = truth[f"{name}_coefficient_population"], truth[f"{name}_coefficient_sd"]
        assert (abs(found.mean("geo") - centre) < 5 * sd / math.sqrt(geos)).all(), name
        assert (abs(found.std("geo", ddof=1) - sd) < 5 * sd / math.sqrt(2 * geos)).all(), name


def test_spend_follows_the_plans(many):
    frame = many.frame
    assert (frame[NAMES].to_numpy() >= 0).all()
    np.testing.assert_array_equal(frame[NAMES].to_numpy(), frame[NAMES].to_numpy().round(2))
    active = (frame[NAMES] > 0).groupby(frame["market"]).mean()
    for name in NAMES:
        expected = CHANNELS[name].plan.active
        if expected == 1:
            assert (active[name] == 1).all()
        else:
            assert abs(active[name].mean() - expected) < 5 * active[name].std() / math.sqrt(len(active))
    # Each off as a whole for its planning period: no flight of youtube ends after one week, but at the ends.
    on = (frame["youtube"] > 0).to_numpy().reshape(600, 80)
    alone = on[:, 4:-4] & ~on[:, 3:-5] & ~on[:, 5:-3]
    assert not alone.any()
    assert on.any(axis=1).all()
    assert not on.all(axis=1).any()


def test_channels_are_moderately_correlated(many):
    found = [rows[NAMES].drop(columns="meta").gt(0).corr().to_numpy() for _, rows in many.frame.groupby("market")]
    average = np.nanmean(found, axis=0)
    others = average[~np.eye(5, dtype=bool)]
    assert (others > 0.05).all()
    assert (others < 0.4).all()


def test_holidays_are_the_week_of_christmas_eve_and_the_one_before(markets):
    for _, row in markets.frame.drop_duplicates("date").iterrows():
        days = [row["date"] + pd.Timedelta(days=shift) for shift in range(14)]
        assert row["holiday"] == any((day.month, day.day) == (12, 24) for day in days)


def test_without_spread_markets_differ_by_size_alone():
    truth = simulate_media(4, 30, 6, spread=0, seed=2).truth
    level = truth["mean"].mean("time")
    for name in ("alpha", "theta", "slope"):
        np.testing.assert_allclose(truth[name] - truth[f"{name}_population"], 0, atol=1e-12)
    np.testing.assert_allclose(
        truth["half_saturation"] / truth["media_scale"] / truth["half_saturation_population"], 1, rtol=1e-12
    )
    np.testing.assert_allclose(truth["contribution"] / level / truth["contribution_population"], 1, rtol=1e-12)
    np.testing.assert_allclose(truth["sigma"] / level, 0.05, rtol=1e-12)
    assert not truth["alpha_sd"].any()
    assert len(np.unique(level)) == 4


def test_the_table_of_the_truth(markets):
    table = markets.truth_table()
    assert list(table.columns[:5]) == ["market", "channel", "adstock", "alpha", "theta"]
    assert len(table) == 48
    assert (table["theta"].notna() == (table["adstock"] == "delayed")).all()
    for _, row in table.iterrows():
        where = {"geo": row["market"], "channel": row["channel"]}
        assert row["coef"] == float(markets.truth["coef"].sel(where))
        assert row["roas"] == float(markets.truth["roas"].sel(where))
        if row["adstock"] == "delayed":
            assert row["theta"] == theta_of(markets.truth, row["market"], row["channel"])


def test_any_size():
    tiny = simulate_media(1, 2, 1, seed=1)
    assert len(tiny.frame) == 2
    assert "theta" not in tiny.truth
    assert tiny.truth_table()["theta"].isna().all()
    assert tiny.frame.notna().all().all()
    assert (tiny.truth["total_spend"] > 0).all()
    named = simulate_media(["north", "south"], [30, 12], ["tv", "search"], seed=1, l_max=4)
    assert named.frame.groupby("market", sort=False).size().to_dict() == {"north": 30, "south": 12}
    assert named.columns["media"] == ["tv", "search"]
    assert named.truth.attrs["l_max"] == 4
    assert simulate_media(12, 2, 1).truth["geo"].values[0] == "market_01"


def test_more_channels_share_what_six_bring():
    many = simulate_media(40, 104, 14, seed=1)
    assert many.columns["media"][5:9] == ["playlist", "spotify_ads_2", "meta_2", "tiktok_2"]
    assert many.columns["media"][-1] == "meta_3"
    six = sum(channel.contribution for channel in CHANNELS.values())
    assert float(many.truth["contribution_population"].sum()) == pytest.approx(six)
    share = many.truth["contributions"].sum() / many.truth["mean"].sum()
    assert 0.2 < float(share) < 0.5
    fewer = simulate_media(2, 30, 3).truth["contribution_population"].values
    np.testing.assert_allclose(fewer, [CHANNELS[name].contribution for name in NAMES[:3]])


def test_delayed_channels_alone_have_theta_by_channel():
    made = simulate(
        {"north": 1000.0, "south": 3000.0},
        [20, 15],
        {"radio": Channel(0.6, 2.0, 1.0, 1.2, 0.1, 0.3, 0.05, Plan(0.5, 3, 0.3, 0.1))},
        np.datetime64("2024-12-29"),
        l_max=8,
        noise=0.05,
        spread=1.0,
        rng=np.random.default_rng(1),
    )
    assert made.truth["theta"].dims == ("geo", "channel")
    assert made.truth_table()["theta"].tolist() == made.truth["theta"].values[:, 0].tolist()
    np.testing.assert_allclose(made.truth["mean"].mean("time"), [1000, 3000], rtol=1e-12)


def test_a_benchmark_size():
    big = simulate_media(200, 208, 30, seed=1)
    assert big.frame.shape == (200 * 208, 35)
    assert np.isfinite(big.frame.drop(columns=["date", "market"]).to_numpy()).all()


def test_the_truth_can_be_stored(markets, tmp_path):
    import xarray as xr

    markets.truth.to_netcdf(tmp_path / "truth.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "truth.nc", engine="h5netcdf") as stored:
        xr.testing.assert_allclose(stored.load(), markets.truth)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"geos": 0}, "geos is a whole number of at least 1, not 0"),
        ({"geos": []}, "geos is empty; give at least one name, or a number"),
        ({"geos": ["a", " "]}, "geos: name 2 is ' '; give text that is not blank"),
        ({"geos": ["a", "b", "a"]}, "geos: 'a' stands there twice"),
        ({"channels": 0}, "channels is a whole number of at least 1, not 0"),
        ({"channels": ["tv", "sales"]}, "channels: 'sales' is the name of another column"),
        ({"channels": ["tv", "holiday"]}, "channels: 'holiday' is the name of another column"),
        ({"weeks": 1}, "weeks of geo 'market_1' is a whole number of at least 2 and at most 5200, not 1"),
        ({"geos": ["a", "b"], "weeks": [20, 0]}, "weeks of geo 'b' is a whole number of at least 2"),
        ({"geos": ["a", "b"], "weeks": [20]}, "weeks is one number, or one for each of the 2 geos; 1 were given"),
        ({"l_max": 3}, "l_max is a whole number of at least 4, not 3"),
        ({"noise": -0.1}, "noise is a number from 0 to 0.15, not -0.1"),
        ({"noise": 0.5}, "noise is a number from 0 to 0.15, not 0.5"),
        ({"noise": float("nan")}, "noise is a number from 0 to 0.15, not nan"),
        ({"spread": 3}, "spread is a number from 0 to 2, not 3"),
        ({"seed": -1}, "seed is a whole number of at least 0, not -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ArgumentError) as error:
        simulate_media(**arguments)
    assert message in str(error.value)


def test_media_that_would_bring_more_than_all_sales_are_refused():
    with pytest.raises(ArgumentError, match="spread 2 lets media bring more than all sales of 'market_11'"):
        simulate_media(50, 60, 6, seed=28, spread=2.0)


def test_markets_refuse_a_bad_seed():
    with pytest.raises(ArgumentError, match="seed is a whole number of at least 0, not -1"):
        simulate_markets(-1)
