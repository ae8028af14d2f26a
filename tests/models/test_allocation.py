"""Budget allocation against closed forms, dynamic programming over plain NumPy curves and exact quantiles."""

import numpy as np
import pytest
from scipy import optimize, stats

import pelton
from pelton.models.allocation import allocate
from pelton.models.allocation_limits import read_limits
from pelton.models.allocation_solver import multipliers
from pelton.models.attribution import roas
from pelton.models.response import Response
from tests.models import media_trees as oracle

CONCAVE = {"tv": ("geometric", 1, True, "michaelis_menten"), "radio": ("geometric", 1, True, "michaelis_menten")}
STEEP = {"tv": ("geometric", 4, True, "hill"), "radio": ("delayed", 4, True, "hill")}


def horizon_response(tree, spend, periods, further):
    """Response to constant spend a period over a horizon and after it [draw, geo, channel], by the loops."""
    media, money = (np.asarray(tree["constant_data"][name]).sum(axis=1) for name in ("media", "spend"))
    everywhere = media.sum(axis=0) / money.sum(axis=0)
    price = np.where(money > 0, media / np.where(money > 0, money, 1.0), everywhere)
    series = np.zeros((spend.shape[0], periods + further, spend.shape[1]))
    series[:, :periods] = (spend / periods * price)[:, None]
    return oracle.contributions(tree, series).sum(axis=2)


def square(values):
    """A column of a table as [geo, channel]."""
    return values.unstack(sort=False).to_numpy()


@pytest.fixture(scope="module")
def tree():
    return oracle.media_tree(has_spend=True, chains=2, draws=20)


@pytest.fixture(scope="module")
def found(tree):
    return allocate(tree, 9000.0, periods=10)


@pytest.fixture(scope="module")
def steep():
    """S-shaped responses: slopes of about 4."""
    tree = oracle.media_tree(STEEP, geos=("DE", "PL"), chains=1, draws=12)
    tree["posterior"]["slope"] = tree["posterior"]["slope"] * 3
    return tree


class TestResponse:
    def test_of_every_line_is_that_of_the_loops(self, tree, found):
        spend = square(found.table["spend"])
        expected = horizon_response(tree, spend, 10, 300)
        np.testing.assert_allclose(square(found.table["response_mean"]), expected.mean(0), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(
            square(found.table["response_low"]), np.quantile(expected, 0.03, axis=0), rtol=1e-6, atol=1e-9
        )
        totals = expected.sum((1, 2))
        np.testing.assert_allclose(found.responses.sel(plan="optimum"), totals, rtol=1e-6)
        row = found.plans.loc["optimum"]
        np.testing.assert_allclose(row["response_high"], np.quantile(totals, 0.97), rtol=1e-6)
        np.testing.assert_allclose(row["objective"], totals.mean(), rtol=1e-6)

    def test_marginal_is_a_finite_difference(self, tree, found):
        spend = square(found.table["spend"])
        step = 1e-4 * spend
        ends = [horizon_response(tree, spend + e * step, 10, 300).mean(0) for e in (1, -1)]
        paid = spend > 1
        slope = (ends[0] - ends[1])[paid] / (2 * step[paid])
        np.testing.assert_allclose(square(found.table["marginal"])[paid], slope, rtol=1e-5)

    def test_the_rivals(self, tree, found):
        today = Response.of(tree).recent_spend() * 10
        np.testing.assert_allclose(square(found.table["today"]), today, rtol=1e-12)
        scaled = today * 9000 / today.sum()
        totals = horizon_response(tree, scaled, 10, 300).sum((1, 2))
        np.testing.assert_allclose(found.responses.sel(plan="today"), totals, rtol=1e-6)
        mean_roas = np.nan_to_num(np.asarray(roas(tree).mean(("chain", "draw"), skipna=False)))
        rule = 9000 * mean_roas / mean_roas.sum()
        np.testing.assert_allclose(
            found.plans.loc["proportional", "response_mean"],
            horizon_response(tree, rule, 10, 300).sum((1, 2)).mean(),
            rtol=1e-6,
        )
        np.testing.assert_allclose(square(found.table["as_today"]), scaled, rtol=1e-12)
        np.testing.assert_allclose(square(found.table["by_roas"]), rule, rtol=1e-9)
        gain = np.asarray(found.responses.sel(plan="optimum") - found.responses.sel(plan="today"))
        row = found.plans.loc["optimum"]
        np.testing.assert_allclose(row[["gain_mean", "gain_low"]].astype(float), [gain.mean(), np.quantile(gain, 0.03)])
        assert row["p_better"] == np.mean(gain > 0)


class TestOptimum:
    def test_of_concave_curves_is_the_closed_form(self):
        """Without carryover P c x / (P k + x) has the marginal P^2 c k / (P k + x)^2, equal where money goes."""
        tree = oracle.media_tree(CONCAVE, geos=("DE", "PL"), chains=1, draws=1)
        periods, budget = 13, 3000.0
        coef, half = (np.asarray(tree["posterior"][name])[0, 0] for name in ("coef", "half_saturation"))

        def spend(price):
            return np.maximum(np.sqrt(periods**2 * coef * half / price) - periods * half, 0.0)

        bought = np.asarray(tree["constant_data"]["spend"]).sum(axis=1) > 0
        price = optimize.brentq(lambda p: (spend(p) * bought).sum() - budget, 1e-3, 1e3, xtol=1e-14)
        expected = spend(price) * bought
        assert ((expected == 0) & bought).any() or (expected > 0).sum() == 3
        found = allocate(tree, budget, periods=periods)
        # Marginals that agree to the residual r fix spend to about r of (x + P k) / 2.
        error = (found.kkt + 1e-6) * (expected + periods * half)
        assert np.all(np.abs(square(found.table["spend"]) - expected) < 5 * error)
        assert found.kkt < 1e-4
        np.testing.assert_allclose(
            found.plans.loc["optimum", "objective"],
            (periods * coef * expected / (periods * half + expected)).sum(),
            rtol=1e-8,
        )
        assert abs(found.gap) < 1e-6

    def test_of_s_shaped_curves_is_that_of_dynamic_programming(self, steep):
        """All splits on a grid of a 400th of the budget, which can only be worse than the best split off the grid."""
        periods, budget, cells = 6, 1800.0, 400
        levels = np.linspace(0.0, budget, cells + 1)
        curves = np.empty((cells + 1, 4))
        for at, level in enumerate(levels):
            curves[at] = horizon_response(steep, np.full((2, 2), level), periods, 3).mean(0).ravel()
        curves[:, 3] = 0.0  # never bought there
        best = curves[:, 0]
        for line in range(1, 4):
            best = np.array([max(best[i - j] + curves[j, line] for j in range(i + 1)) for i in range(cells + 1)])
        found = allocate(steep, budget, periods=periods)
        assert (found.table["spend"] > 0).sum() > 1
        value = found.plans.loc["optimum", "objective"]
        assert value >= best[-1] * (1 - 1e-9)
        # Off the grid there is at most the steepest curve's rise over the three lines' steps.
        assert value - best[-1] < 3 * np.diff(curves, axis=0).max()
        assert found.gap > -1e-6

    def test_marginal_returns_are_equal_and_the_bound_is_met(self, found):
        assert found.kkt < 1e-3
        assert -1e-5 < found.gap < 1e-4
        table = found.table[found.table["spend"] > 1]
        assert table["marginal"].max() / table["marginal"].min() < 1.01
        assert found.plans["objective"].idxmax() == "optimum"
        np.testing.assert_allclose(found.table["spend"].sum(), 9000.0, rtol=1e-12)

    def test_no_exchange_between_two_lines_helps(self, tree, found):
        spend = square(found.table["spend"])
        before = horizon_response(tree, spend, 10, 300).mean(0).sum()
        rng = np.random.default_rng(0)
        paid = np.argwhere(spend > 50)
        for _ in range(30):
            giver, taker = rng.choice(len(paid), 2, replace=False)
            moved = spend.copy()
            moved[tuple(paid[giver])] -= 40
            moved[tuple(paid[taker])] += 40
            assert horizon_response(tree, moved, 10, 300).mean(0).sum() < before

    def test_more_lines_than_quadratic_programmes_are_solved_for(self, monkeypatch, tree, found):
        monkeypatch.setattr("pelton.models.allocation_solver.QUADRATIC_LINES", 3)
        other = allocate(tree, 9000.0, periods=10)
        np.testing.assert_allclose(
            other.plans.loc["optimum", "objective"], found.plans.loc["optimum", "objective"], rtol=1e-5
        )
        assert other.gap < 1e-4
        assert list(other.attempts.index) == ["programmes"]

    def test_a_country_mix(self):
        found = allocate(oracle.country_tree(), 50_000.0)
        assert found.gap < 1e-4
        assert found.kkt < 1e-3
        assert found.plans.loc["optimum", "gain_mean"] > 0

    def test_is_the_same_for_the_same_seed(self, tree, found):
        again = allocate(tree, 9000.0, periods=10)
        assert again.table.equals(found.table)


class TestQuantile:
    def test_objective_is_the_harrell_davis_quantile(self, tree):
        found = allocate(tree, 9000.0, periods=10, objective=0.1)
        for plan in ("optimum", "proportional", "today"):
            exact = stats.mstats.hdquantiles(np.asarray(found.responses.sel(plan=plan)), prob=[0.1])[0]
            np.testing.assert_allclose(found.plans.loc[plan, "objective"], exact, rtol=1e-9)
        assert np.isnan(found.gap)

    def test_is_safer_than_the_mean(self):
        """One channel pays more on average and is uncertain, the other less and sure: caution moves money."""
        tree = oracle.media_tree(CONCAVE, geos=("DE",), chains=2, draws=200)
        tree["constant_data"]["spend"][:] = 50.0
        tree["constant_data"]["media"][:] = 50.0
        coef = tree["posterior"]["coef"].values
        rng = np.random.default_rng(3)
        coef[..., 0, 0] = 400.0 * np.exp(rng.normal(size=coef.shape[:2]) - 0.5)
        coef[..., 1] = 250.0
        mean, careful = (allocate(tree, 1500.0, periods=5, objective=aim) for aim in ("mean", 0.1))
        assert careful.table.loc[("DE", "radio"), "spend"] > 1.2 * mean.table.loc[("DE", "radio"), "spend"]
        lower = stats.mstats.hdquantiles(np.asarray(mean.responses.sel(plan="optimum")), prob=[0.1])[0]
        assert careful.plans.loc["optimum", "objective"] > lower
        # Two lines: every split on a fine grid.
        totals = np.stack(
            [
                horizon_response(tree, np.array([[x, 1500.0 - x]]), 5, 0).sum((1, 2))
                for x in np.linspace(0.0, 1500.0, 101)
            ]
        )
        grid = stats.mstats.hdquantiles(totals.T, prob=[0.1], axis=0)[0]
        assert careful.plans.loc["optimum", "objective"] >= grid.max() * (1 - 1e-4)


class TestLimits:
    def test_bounds_of_lines_totals_and_fixed_lines_hold(self, tree):
        today = Response.of(tree).recent_spend() * 10
        found = allocate(
            tree,
            6000.0,
            periods=10,
            bounds={"tv": (0.9, 1.1), ("DE", "radio"): (0.5, 0.8)},
            money_bounds={"PL": (2200.0, None), ("SE", "video"): (100.0, 120.0)},
            fixed=[("DE", "search"), ("SE", "tv")],
        )
        spend = square(found.table["spend"])
        slack = 1e-6 * 6000
        assert spend[0, 2] == today[0, 2]
        assert spend[2, 0] == today[2, 0]
        assert 0.9 * today[:, 0].sum() - slack <= spend[:, 0].sum() <= 1.1 * today[:, 0].sum() + slack
        assert 0.5 * today[0, 1] - slack <= spend[0, 1] <= 0.8 * today[0, 1] + slack
        assert spend[1].sum() >= 2200 - slack
        assert 100 - slack <= spend[2, 3] <= 120 + slack
        np.testing.assert_allclose(spend.sum(), 6000.0, rtol=1e-9)
        assert found.plans.loc["optimum", "within_bounds"]
        assert list(found.table["held"].loc[[("DE", "search"), ("DE", "tv")]]) == ["fixed", ""]
        assert found.kkt < 1e-2
        # A dozen curves that are not concave leave the bound a little above what any split brings.
        assert -1e-5 < found.gap < 1e-2

    def test_bounds_of_every_line(self, tree):
        today = Response.of(tree).recent_spend() * 10
        found = allocate(tree, today.sum(), periods=10, bounds=(0.7, 1.3))
        spend = square(found.table["spend"])
        assert np.all(spend >= 0.7 * today - 1e-3)
        assert np.all(spend <= 1.3 * today + 1e-3)
        assert found.plans.loc["today", "within_bounds"]
        assert found.plans.loc["optimum", "objective"] > found.plans.loc["today", "objective"]
        assert found.gap < 1e-5

    def test_fixed_amounts(self, tree):
        found = allocate(tree, 6000.0, periods=10, fixed={("DE", "tv"): 1234.5, ("PL", "tv"): None})
        assert found.table.loc[("DE", "tv"), "spend"] == 1234.5
        assert found.table.loc[("PL", "tv"), "spend"] == found.table.loc[("PL", "tv"), "today"]

    def test_everything_fixed(self, tree):
        today = Response.of(tree).recent_spend() * 10
        found = allocate(tree, float(today.sum()), periods=10, fixed=["DE", "PL", "SE"])
        np.testing.assert_array_equal(square(found.table["spend"]), today)
        assert found.kkt == 0

    def test_a_line_never_bought_gets_money_only_when_named(self, tree, found):
        line = ("SE", "posters")
        assert found.table.loc[line, "spend"] == 0
        assert found.table.loc[line, "held"] == "never bought"
        assert any("SE / posters" in note for note in found.notes)
        named = allocate(tree, 9000.0, periods=10, money_bounds={line: (50.0, None)})
        assert named.table.loc[line, "spend"] >= 50 - 1e-2
        assert named.table.loc[line, "beyond"]
        assert any("never seen" in note or "was ever seen" in note for note in named.notes)

    def test_some_geos_share_the_budget(self, tree):
        found = allocate(tree, 3000.0, periods=10, geos=["PL", "DE"])
        assert list(found.table.index.get_level_values("geo").unique()) == ["PL", "DE"]
        expected = horizon_response(
            tree, np.zeros((3, 5)) + np.pad(square(found.table["spend"])[::-1], ((0, 1), (0, 0))), 10, 300
        )
        np.testing.assert_allclose(found.plans.loc["optimum", "response_mean"], expected.sum((1, 2)).mean(), rtol=1e-6)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"budget": -5.0}, "budget is an amount of money above 0, not -5.0"),
            ({"budget": float("nan")}, "budget is an amount of money above 0"),
            ({"periods": 0}, "periods is a whole number"),
            ({"objective": "median"}, "objective is 'mean' or the probability"),
            ({"objective": 1.5}, "objective is 'mean' or the probability"),
            ({"bounds": (0.5,)}, "every line are .lowest, highest."),
            ({"bounds": {"tv": (1.5, 0.5)}}, "lower bound of tv, 1.5, is above the upper one"),
            ({"bounds": {"tv": (-1, 2)}}, "lower bound of tv is -1; spend is not negative"),
            ({"bounds": {"tv": ("a", 2)}}, "lower bound of tv is a number"),
            ({"bounds": (3.0, None)}, "lower bounds sum to .* more than the budget of 9,000.00"),
            ({"bounds": (None, 0.1)}, "upper bounds allow .* less than the budget"),
            ({"money_bounds": {("DE", "tv"): (10_000, None)}}, "lower bounds sum to 10,000.00"),
            ({"fixed": {("DE", "tv"): 9500.0}}, "9,500.00 of it fixed"),
            ({"fixed": {("DE", "tv"): -1.0}}, "spend is not negative"),
            ({"fixed": {"tv": 100.0}}, "more than one line"),
            ({"fixed": "tv"}, "fixed is a list"),
            ({"fixed": ["tv", ("DE", "tv")]}, "fixed names DE / tv twice"),
            ({"fixed": [("DE", "tv")], "bounds": {("DE", "tv"): (0, 1)}}, "both fixed and bounded"),
            ({"bounds": {("tv", "DE"): (0, 1)}}, "the other way round"),
            ({"bounds": {("DE", "tv", "x"): (0, 1)}}, r"a line is \(geo, channel\)"),
            (
                {"bounds": {("DE", "tv"): (0, 0.1)}, "money_bounds": {("DE", "tv"): (500, None)}},
                "bounds of DE / tv exclude one another",
            ),
            (
                {"money_bounds": {"tv": (5000, None)} | {(geo, "tv"): (0, 1) for geo in ("DE", "PL", "SE")}},
                "at least 5,000.00, but its lines may take",
            ),
            (
                {"money_bounds": {"tv": (0, 100), ("DE", "tv"): (200, None)}},
                "at most 100.00, but its lines take at least",
            ),
            (
                {"money_bounds": {"DE": (0, 100), "PL": (0, 100), "SE": (0, 100)}},
                "no plan of 9,000.00 keeps to all bounds",
            ),
            ({"geos": ["DE", "DE"]}, "geos names 'DE' twice"),
            ({"geos": []}, "geos is empty"),
            ({"probability": 94}, "probability"),
        ],
    )
    def test_what_cannot_be(self, tree, settings, words):
        with pytest.raises(pelton.errors.ArgumentError, match=words):
            allocate(tree, **({"budget": 9000.0, "periods": 10} | settings))

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"bounds": {"raido": (0, 1)}}, "unknown channel or geo 'raido'; did you mean 'radio'"),
            ({"fixed": [("DE", "vidoe")]}, "unknown channel 'vidoe'; did you mean 'video'"),
            ({"money_bounds": {("D", "tv"): (0, 1)}}, "unknown geo 'D'; did you mean 'DE'"),
            ({"geos": ["PO"]}, "unknown geo 'PO'"),
        ],
    )
    def test_unknown_names(self, tree, settings, words):
        with pytest.raises(pelton.errors.UnknownNameError, match=words):
            allocate(tree, 9000.0, periods=10, **settings)

    def test_a_channel_that_nobody_paid_for(self, tree):
        free = tree.copy(deep=True)
        free["constant_data"]["spend"].loc[{"channel": "tv"}] = 0.0
        found = allocate(free, 6000.0, periods=10)
        assert np.all(found.table["spend"].xs("tv", level="channel") == 0)
        with pytest.raises(pelton.errors.ArgumentError, match="'tv' was never paid for anywhere"):
            allocate(free, 6000.0, periods=10, money_bounds={("DE", "tv"): (10.0, None)})

    def test_a_name_that_is_both(self):
        tree = oracle.media_tree({"DE": oracle.MIXED["tv"], "tv": oracle.MIXED["tv"]})
        with pytest.raises(pelton.errors.ArgumentError, match="both a geo and a channel"):
            allocate(tree, 5000.0, bounds={"DE": (0, 1)})


def test_multipliers_see_what_is_no_optimum():
    names = ("a", "b", "c"), ("x",)
    today = np.array([[1.0], [1.0], [1.0]])
    limits = read_limits(*names, 6.0, today, today > 0, np.array([True]), None, {("c", "x"): (0, 1)}, None)
    plan = np.array([[3.0], [2.0], [1.0]])
    # Equal slopes, and a steeper one held back by its bound: an optimum. The multiplier is the common slope.
    costs = multipliers(np.array([[2.0], [2.0], [5.0]]), plan, limits)
    assert costs.residual < 1e-9
    assert costs.budget == pytest.approx(2.0)
    # A flatter line at its upper bound should give money back.
    assert multipliers(np.array([[2.0], [2.0], [1.0]]), plan, limits).residual > 0.1
    # Unequal slopes inside: half of their difference is left, over the largest.
    assert multipliers(np.array([[2.0], [3.0], [5.0]]), plan, limits).residual == pytest.approx(0.1)


def test_draws_are_thinned_where_they_are_many():
    tree = oracle.media_tree(CONCAVE, geos=("DE",), chains=4, draws=400)
    assert allocate(tree, 2000.0).draws == 1000
