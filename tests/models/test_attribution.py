"""Contributions, ROAS, response curves and the fit, against plain NumPy loops and closed forms."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import optimize, stats

import pelton
from pelton.models import attribution
from pelton.models.response import Response
from tests.models import media_trees as oracle

LINEAR = {"tv": ("geometric", 8, True, "exponential"), "radio": ("delayed", 6, True, "exponential")}


@pytest.fixture(scope="module")
def tree():
    return oracle.media_tree(has_spend=True)


@pytest.fixture(scope="module")
def drawn(tree):
    """Contributions [draw, geo, time, channel] of the loops."""
    return oracle.contributions(tree)


def inside_of(tree):
    return np.asarray(tree["constant_data"]["inside"]) > 0


def almost_linear(rate=1e-9, **settings):
    """A response coef rate x, and its exact slope [draw, geo, channel]."""
    tree = oracle.media_tree(LINEAR, **settings)
    tree["posterior"]["rate"][:] = rate
    coef = np.asarray(tree["posterior"]["coef"])
    return tree, rate * coef


def effect_of_window(tree, first, last, further, scale=0.0):
    """sum_t f(x)[t] - f(x with the window's media times `scale`)[t], past the window's end; by the loops."""
    media, inside = np.asarray(tree["constant_data"]["media"]), inside_of(tree)
    chosen = inside & (np.arange(media.shape[1]) >= first) & (np.arange(media.shape[1]) <= last)
    changed = np.where(chosen[..., None], scale * media, media)
    with_all, without = (
        oracle.contributions(tree, np.pad(x[:, : last + 1], ((0, 0), (0, further), (0, 0)))) for x in (media, changed)
    )
    return (with_all - without).sum(axis=2), np.einsum("gtc,gt->gc", np.asarray(tree["constant_data"]["spend"]), chosen)


class TestContributions:
    def test_components_sum_to_the_prediction_in_every_draw(self, tree, drawn):
        known = Response.of(tree)
        inside = inside_of(tree)
        whole = drawn.sum(-1) + oracle.baseline_parts(tree).sum(-1)
        parts = np.concatenate([known.contributions(), known.baseline()], axis=-1)
        np.testing.assert_allclose(parts.sum(-1), whole, rtol=1e-12)
        draws = attribution.contribution_draws(tree)
        assert draws.dims == ("chain", "draw", "geo", "component")
        totals = np.asarray(draws.sum("component")).reshape(-1, 3)
        np.testing.assert_allclose(totals, (whole * inside).sum(-1), rtol=1e-12)

    @pytest.mark.parametrize("name", sorted(oracle.PARAMETERS))
    def test_every_form_is_that_of_its_formula(self, name):
        is_adstock = name in ("geometric", "delayed", "binomial", "weibull_pdf", "weibull_cdf")
        adstock, saturation = (name, "hill") if is_adstock else ("geometric", name)
        forms = [(adstock, 6, normalize, saturation) for normalize in (True, False)]
        tree = oracle.media_tree(dict(zip(("tv", "radio"), forms, strict=True)), weeks=20)
        np.testing.assert_allclose(Response.of(tree).contributions(), oracle.contributions(tree), rtol=1e-9, atol=1e-9)

    def test_weeks_and_totals_are_those_of_the_loops(self, tree, drawn):
        found = attribution.contributions(tree, probability=0.8)
        inside = inside_of(tree)
        channels = list(oracle.MIXED)
        for name, values in (("mean", drawn.mean(0)), ("low", np.quantile(drawn, 0.1, axis=0))):
            expected = np.where(inside[..., None], values, np.nan)
            np.testing.assert_allclose(found[name].sel(component=channels), expected, rtol=1e-10, atol=1e-9)
        seasons = oracle.baseline_parts(tree)[..., 2:4].sum(-1)
        np.testing.assert_allclose(
            found["high"].sel(component="seasonality"),
            np.where(inside, np.quantile(seasons, 0.9, axis=0), np.nan),
            rtol=1e-10,
        )
        totals = np.einsum("dgtc,gt->dgc", drawn, inside)
        of_channels = found.sel(component=channels)
        np.testing.assert_allclose(of_channels["total_mean"], totals.mean(0), rtol=1e-12)
        np.testing.assert_allclose(of_channels["total_high"], np.quantile(totals, 0.9, axis=0), rtol=1e-10)
        np.testing.assert_allclose(of_channels["all_low"], np.quantile(totals.sum(1), 0.1, axis=0), rtol=1e-10)
        whole = ((drawn.sum(-1) + oracle.baseline_parts(tree).sum(-1)) * inside).sum((1, 2))
        share = totals.sum(1) / whole[:, None]
        np.testing.assert_allclose(of_channels["share_mean"], share.mean(0), rtol=1e-12)
        np.testing.assert_allclose(of_channels["share_low"], np.quantile(share, 0.1, axis=0), rtol=1e-10)

    def test_means_sum_up(self, tree):
        found = attribution.contributions(tree)
        np.testing.assert_allclose(found["mean"].sum("component", skipna=False), found["prediction_mean"], rtol=1e-12)
        np.testing.assert_allclose(found["mean"].sum("time"), found["total_mean"], rtol=1e-10)
        np.testing.assert_allclose(found["total_mean"].sum("geo"), found["all_mean"], rtol=1e-12)
        np.testing.assert_allclose(found["share_mean"].sum(), 1.0, rtol=1e-12)
        assert list(found["kind"].values) == ["media"] * 5 + ["baseline"] * 5

    def test_weekly_means_are_of_all_draws_and_intervals_of_a_thousand(self):
        tree = oracle.media_tree({"tv": oracle.MIXED["tv"]}, geos=("DE",), weeks=12, chains=2, draws=600)
        found = attribution.contributions(tree)
        assert (found.attrs["draws"], found.attrs["interval_draws"]) == (1200, 1000)
        expected = oracle.contributions(tree)
        np.testing.assert_allclose(found["mean"].sel(component="tv"), expected.mean(0)[..., 0], rtol=1e-12)
        kept = np.floor(np.arange(1000) * 1.2).astype(int)
        np.testing.assert_allclose(
            found["low"].sel(component="tv"), np.quantile(expected[kept, ..., 0], 0.03, axis=0), rtol=1e-10
        )

    def test_table(self, tree, drawn):
        table = attribution.contribution_table(tree)
        totals = np.einsum("dgtc,gt->dgc", drawn, inside_of(tree))
        row = table.loc[("PL", "radio")]
        np.testing.assert_allclose(row["mean"], totals[:, 1, 1].mean(), rtol=1e-12)
        np.testing.assert_allclose(row["high"], np.quantile(totals[:, 1, 1], 0.97), rtol=1e-10)
        np.testing.assert_allclose(table.loc["all", "share"].sum(), 1.0)
        np.testing.assert_allclose(table.loc["SE", "share"].sum(), 1.0)
        np.testing.assert_allclose(table.loc[("all", "tv"), "mean"], totals[..., 0].sum(1).mean(), rtol=1e-12)

    def test_a_channel_called_as_a_part_of_the_baseline(self):
        tree = oracle.media_tree({"trend": oracle.MIXED["tv"], "tv": oracle.MIXED["tv"]})
        components = list(attribution.contributions(tree)["component"].values)
        assert components[:2] == ["trend", "tv"]
        assert "baseline: trend" in components

    def test_a_country_mix(self):
        tree = oracle.country_tree()
        found = attribution.contributions(tree)
        assert list(found["component"].values) == ["TV", "Radio", "Banners", "intercept"]
        expected = (oracle.contributions(tree).mean(0) * inside_of(tree)[..., None]).sum(1)
        np.testing.assert_allclose(found["total_mean"][:, :3], expected, rtol=1e-12)


class TestRoas:
    def test_of_all_weeks_counts_the_carryover_past_the_end(self, tree):
        # 300 further weeks: the slowest carryover without end has fallen below 1e-9 by then.
        effect, spent = effect_of_window(tree, 0, 39, 300)
        found = attribution.roas(tree)
        assert found.dims == ("chain", "draw", "geo", "channel")
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = (effect / spent).reshape(found.shape)
        # A millionth of the slowest carryover without end is left out.
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        finite = [name for name, form in oracle.MIXED.items() if form[1] is not None]
        exact = xr.DataArray(expected, found.coords).sel(channel=finite)
        np.testing.assert_allclose(found.sel(channel=finite), exact, rtol=1e-10)

    def test_of_a_window_keeps_the_spend_before_and_drops_what_follows(self, tree):
        dates = tree["constant_data"]["time"].values
        # From a Wednesday to a Friday: the dates within are those of weeks 11 to 22.
        window = (pd.Timestamp(dates[11]) - pd.Timedelta(days=4), str(pd.Timestamp(dates[22]).date()))
        effect, spent = effect_of_window(tree, 11, 22, 300)
        found = attribution.roas(tree, window=window)
        with np.errstate(invalid="ignore", divide="ignore"):
            np.testing.assert_allclose(found, (effect / spent).reshape(found.shape), rtol=1e-5)
        assert "2023-03-19 to 2023-06-04" in found.attrs["window"]

    def test_without_spend_is_nan_and_says_where(self, tree):
        found = attribution.roas(tree)
        assert np.isnan(found.sel(geo="SE", channel="posters")).all()
        assert int(np.isnan(found).any(("chain", "draw")).sum()) == 1
        assert "SE / posters" in found.attrs["nan"]
        # A geo whose weeks end before the window.
        late = attribution.roas(tree, window=("2023-08-20", None))
        assert np.isnan(late.sel(geo="SE")).all()
        assert not np.isnan(late.sel(geo="DE")).any()

    @pytest.mark.parametrize("by", [("channel",), ("geo",), ()])
    def test_sums_are_of_effects_over_sums_of_spends(self, tree, by):
        effect, spent = effect_of_window(tree, 0, 39, 300)
        axes = tuple(axis for axis, name in enumerate(("geo", "channel")) if name not in by)
        expected = effect.sum(tuple(axis + 1 for axis in axes)) / spent.sum(axes)
        found = attribution.roas(tree, by=by)
        assert found.dims == ("chain", "draw", *by)
        np.testing.assert_allclose(np.ravel(found), np.ravel(expected), rtol=1e-5)

    def test_an_unpaid_channel_is_no_return_on_the_paid_ones(self, tree):
        free = tree.copy(deep=True)
        free["constant_data"]["spend"].loc[{"channel": "tv"}] = 0.0
        paid = [name for name in oracle.MIXED if name != "tv"]
        effect, spent = effect_of_window(free, 0, 39, 300)
        found = attribution.roas(free, by="geo")
        np.testing.assert_allclose(np.ravel(found), np.ravel(effect[..., 1:].sum(-1) / spent[:, 1:].sum(-1)), rtol=1e-5)
        assert np.isnan(attribution.roas(free).sel(channel="tv")).all()
        assert not np.isnan(attribution.roas(free, by=("channel",)).sel(channel=paid)).any()

    def test_of_a_linear_response_is_its_slope_in_any_window(self):
        """Nothing of the carryover is lost at the window's end: normalised weights sum to 1."""
        tree, slope = almost_linear()
        for window in (None, ("2023-03-01", "2023-05-01"), ("2023-09-01", "2023-09-04")):
            found = attribution.roas(tree, window=window)
            known = np.broadcast_to(slope, found.shape)
            here = np.isfinite(found.values)
            # 1 - exp(-rate x) is linear up to rate x / 2, below 1e-6 for these media.
            np.testing.assert_allclose(found.values[here], known[here], rtol=1e-6)
            assert here.any()

    def test_marginal_is_the_slope_of_the_windows_media(self, tree):
        found = attribution.marginal_roas(tree, window=("2023-03-19", "2023-06-04"))
        step = 1e-4
        ends = [effect_of_window(tree, 11, 22, 300, scale=1 + e)[0] for e in (step, -step)]
        _, spent = effect_of_window(tree, 11, 22, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = (ends[1] - ends[0]) / (2 * step) / spent
        np.testing.assert_allclose(np.ravel(found), np.ravel(expected), rtol=1e-5)
        assert found.name == "marginal_roas"

    def test_marginal_is_below_the_average_where_the_curve_is_concave(self):
        tree = oracle.media_tree({"tv": ("geometric", 8, True, "michaelis_menten")})
        paid = ("DE", "PL")
        average, marginal = attribution.roas(tree), attribution.marginal_roas(tree)
        assert bool((marginal.sel(geo=list(paid)) < average.sel(geo=list(paid))).all())

    def test_table_agrees_with_the_draws(self, tree):
        table = attribution.roas_table(tree, probability=0.9)
        draws = attribution.summarise(attribution.roas(tree), 0.9)
        marginal = attribution.summarise(attribution.marginal_roas(tree, by=("channel",)), 0.9)
        np.testing.assert_allclose(table["roas"].loc[["DE", "PL", "SE"]], draws["mean"], rtol=1e-12)
        np.testing.assert_allclose(table["roas_low"].loc[["DE", "PL", "SE"]], draws["low"], rtol=1e-12)
        np.testing.assert_allclose(table["marginal_roas"].loc["all"], marginal["mean"], rtol=1e-12)
        np.testing.assert_allclose(table["marginal_roas_high"].loc["all"], marginal["high"], rtol=1e-12)
        np.testing.assert_allclose(table["effect"].loc["all"], table["roas"].loc["all"] * table["spend"].loc["all"])

    def test_a_panel_of_one_geo_has_its_rows_once(self):
        whole = oracle.media_tree({"tv": ("geometric", 8, True, "hill")})
        groups = {name: group.to_dataset() for name, group in whole.children.items() if "geo" in group.dims}
        tree = xr.DataTree.from_dict(
            {name: group.isel(geo=[0]).assign_coords(geo=["all"]) for name, group in groups.items()}
        )
        tree.attrs.update(whole.attrs)
        for table in (attribution.roas_table(tree), attribution.contribution_table(tree)):
            assert table.index.is_unique
            assert set(table.index.get_level_values("geo")) == {"all"}

    def test_a_geo_called_all_among_others_loses_nothing(self):
        whole = oracle.media_tree({"tv": ("geometric", 8, True, "hill")})
        names = ["all", *whole["posterior"]["geo"].values[1:]]
        groups = {name: group.to_dataset() for name, group in whole.children.items()}
        tree = xr.DataTree.from_dict(
            {name: group.assign_coords(geo=names) if "geo" in group.dims else group for name, group in groups.items()}
        )
        tree.attrs.update(whole.attrs)
        expected, found = attribution.roas_table(whole), attribution.roas_table(tree)
        np.testing.assert_array_equal(found.to_numpy(), expected.to_numpy())

    def test_a_country_mix_counts_all_of_its_lags(self):
        tree = oracle.country_tree()
        effect, spent = effect_of_window(tree, 0, 29, 60)
        found = attribution.roas(tree)
        assert found.attrs["periods_after"] == 20
        np.testing.assert_allclose(np.ravel(found), np.ravel(effect / spent), rtol=1e-10)

    def test_a_carryover_that_hardly_ends_is_warned_of(self):
        tree = oracle.media_tree({"tv": ("geometric", None, True, "exponential")})
        tree["posterior"]["alpha"][:] = 0.99
        with pytest.warns(pelton.errors.DataWarning, match="followed for 520 periods.*finite l_max"):
            attribution.roas(tree)

    def test_bad_windows_and_names(self, tree):
        with pytest.raises(pelton.errors.ArgumentError, match=r"none of the data's dates.*2023-01-01 to 2023-10-01"):
            attribution.roas(tree, window=("2030-01-01", None))
        with pytest.raises(pelton.errors.ArgumentError, match="'soon', which is not a date"):
            attribution.roas(tree, window=("soon", None))
        with pytest.raises(pelton.errors.ArgumentError, match="first date, last date"):
            attribution.roas(tree, window="2023-01-01")
        with pytest.raises(pelton.errors.UnknownNameError, match="'chanel'; did you mean 'channel'"):
            attribution.roas(tree, by=("chanel",))
        with pytest.raises(pelton.errors.ArgumentError, match="twice"):
            attribution.roas(tree, by=("geo", "geo"))
        with pytest.raises(pelton.errors.ArgumentError, match="probability"):
            attribution.roas_table(tree, probability=94)


class TestResponseCurves:
    def test_are_where_constant_spend_ends(self, tree):
        found = attribution.response_curves(tree, points=4, up_to=1.5, probability=0.9)
        known = Response.of(tree)
        media = np.asarray(tree["constant_data"]["media"]).sum(1)
        spent = np.asarray(tree["constant_data"]["spend"]).sum(1)
        today = known.recent_spend()
        np.testing.assert_allclose(found["today"], today, rtol=1e-12)
        np.testing.assert_allclose(found["spend"][:2, :, -1], 1.5 * today[:2], rtol=1e-12)
        with np.errstate(invalid="ignore", divide="ignore"):
            price = np.where(spent > 0, media / spent, media[:, -1].sum() / spent[:, -1].sum())
        for point in range(4):
            level = (found["spend"].values[..., point] * price)[:, None].repeat(400, axis=1)
            expected = oracle.contributions(tree, level)[:, :, -1]
            for name, values in (("mean", expected.mean(0)), ("high", np.quantile(expected, 0.95, axis=0))):
                np.testing.assert_allclose(found[name][..., point], values, rtol=1e-9, atol=1e-12)
        expected = oracle.contributions(tree, (today * price)[:, None].repeat(400, axis=1))[:, :, -1]
        np.testing.assert_allclose(found["today_mean"], expected.mean(0), rtol=1e-9)
        np.testing.assert_allclose(found["today_low"], np.quantile(expected, 0.05, axis=0), rtol=1e-9)

    def test_run_past_today_and_past_the_highest_week(self, tree):
        found = attribution.response_curves(tree)
        paid = found["today"] > 0
        last = found["spend"].isel(point=-1)
        assert bool((last >= found["highest"]).all())
        assert bool((last >= 2 * found["today"])[paid.values].all()) if paid.ndim == 1 else True
        np.testing.assert_array_equal(last.values[paid], np.maximum(2 * found["today"], found["highest"]).values[paid])
        # Where nothing was ever spent: up to a typical week's media at the price of the other geos.
        known = Response.of(tree)
        typical = known.media_scale[-1, -1] / known.media_a_unit_of_money[-1, -1]
        np.testing.assert_allclose(last.values[-1, -1], typical, rtol=1e-12)
        assert np.isfinite(found["mean"]).all()

    def test_media_that_nobody_paid_for_have_no_price(self, tree):
        free = tree.copy(deep=True)
        free["constant_data"]["spend"].loc[{"channel": "tv"}] = 0.0
        found = attribution.response_curves(free)
        assert np.isnan(found["mean"].sel(channel="tv")).all()
        assert np.isfinite(found["mean"].sel(channel="radio")).all()

    def test_bad_settings(self, tree):
        for settings, words in (({"points": 1}, "points"), ({"up_to": 0.0}, "up_to"), ({"probability": 1.0}, "prob")):
            with pytest.raises(pelton.errors.ArgumentError, match=words):
                attribution.response_curves(tree, **settings)


class TestFit:
    def test_mean_intervals_and_quality(self, tree, drawn):
        found = attribution.fit(tree)
        predicted = drawn.sum(-1) + oracle.baseline_parts(tree).sum(-1)
        inside = inside_of(tree)
        np.testing.assert_allclose(found.weeks["mean"], predicted.mean(0)[inside], rtol=1e-12)
        np.testing.assert_allclose(found.weeks["low"], np.quantile(predicted, 0.03, axis=0)[inside], rtol=1e-10)
        target = np.asarray(tree["observed_data"]["target"])
        np.testing.assert_array_equal(found.weeks["observed"], target[inside])
        y, m = target[0], predicted.mean(0)[0]
        here = np.isfinite(y)
        assert found.geos.loc["DE", "weeks"] == here.sum() == inside[0].sum() - 1
        r2 = 1 - np.sum((y - m)[here] ** 2) / np.sum((y[here] - y[here].mean()) ** 2)
        np.testing.assert_allclose(found.geos.loc["DE", "r2"], r2, rtol=1e-10)
        np.testing.assert_allclose(found.geos.loc["DE", "mape"], np.mean(np.abs((y - m) / y)[here]), rtol=1e-10)
        assert found.geos.index[0] == "all"
        assert found.geos.loc["all", "weeks"] == np.isfinite(target).sum()

    @pytest.mark.parametrize("likelihood", ["normal", "student_t"])
    def test_noise_is_the_likelihoods(self, likelihood):
        tree = oracle.media_tree(
            {"tv": oracle.MIXED["tv"]}, geos=("DE",), weeks=20, chains=4, draws=250, likelihood=likelihood
        )
        found = attribution.fit(tree).weeks
        predicted = (oracle.contributions(tree).sum(-1) + oracle.baseline_parts(tree).sum(-1))[:, 0]
        sigma = np.asarray(tree["posterior"]["sigma"]).reshape(-1)
        if likelihood == "normal":
            noise = [stats.norm(predicted[:, t], sigma) for t in range(20)]
        else:
            nu = np.asarray(tree["posterior"]["nu"]).ravel()
            noise = [stats.t(nu, predicted[:, t], sigma) for t in range(20)]
        scores = []
        for t in range(20):
            for name, p in (("noise_low", 0.03), ("noise_high", 0.97)):
                exact = optimize.brentq(lambda y, t=t, p=p: noise[t].cdf(y).mean() - p, -5e3, 5e3)
                error = np.sqrt(p * (1 - p) / 1000) / noise[t].pdf(exact).mean()
                scores.append((found[name].iloc[t] - exact) / error)
        assert np.max(np.abs(scores)) < 5

    def test_coverage_of_data_drawn_from_the_model(self):
        tree = oracle.media_tree({"tv": oracle.MIXED["tv"]}, weeks=200, chains=2, draws=200)
        found = attribution.fit(tree)
        weeks = found.geos.loc["all", "weeks"]
        # The posterior's spread of about half the noise widens the interval: never less than 94% covered.
        assert found.geos.loc["all", "coverage"] > 0.94 - 5 * np.sqrt(0.94 * 0.06 / weeks)

    def test_zeros_and_constants(self, tree):
        edited = tree.copy(deep=True)
        edited["observed_data"]["target"][0, 3:6] = 0.0
        edited["observed_data"]["target"][1, 8:20] = np.nan
        values = edited["observed_data"]["target"].values
        values[2][np.isfinite(values[2])] = 700.0
        found = attribution.fit(edited).geos
        assert found.loc["DE", "zero_weeks"] == 3
        assert np.isfinite(found.loc["DE", "mape"])
        assert np.isnan(found.loc["SE", "r2"])


def test_summarise_is_numpy():
    values = np.random.default_rng(0).normal(size=(3, 50, 2, 4))
    draws = xr.DataArray(values, {"geo": ["A", "B"], "channel": list("abcd")}, dims=("chain", "draw", "geo", "channel"))
    table = attribution.summarise(draws, 0.5)
    flat = values.reshape(150, 2, 4)
    assert table.index[5] == ("B", "b")
    np.testing.assert_allclose(table["sd"].iloc[5], flat[:, 1, 1].std(ddof=1))
    np.testing.assert_allclose(table["low"].iloc[5], np.quantile(flat[:, 1, 1], 0.25))
    np.testing.assert_allclose(attribution.summarise(draws[..., 0, 0])["median"], [np.median(flat[:, 0, 0])])


def test_a_response_serves_for_a_tree(tree):
    known = Response.of(tree)
    xr.testing.assert_identical(attribution.contributions(known), attribution.contributions(tree))
    xr.testing.assert_identical(attribution.roas(known), attribution.roas(tree))
