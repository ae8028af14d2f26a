"""Decisions against closed forms and brute force over draws made by scipy."""

import warnings

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from scipy import stats

import pelton
from pelton.models import decisions, rates


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(2)
    trials = rng.integers(20, 400, 30)
    successes = rng.binomial(trials, rng.beta(4, 12, 30))
    model = pelton.PartialPooling(successes, trials, unit=[f"s{i}" for i in range(30)])
    return model, pelton.sample(model, draws=2000, seed=4, groups=("prior_predictive",))


@pytest.fixture(scope="module")
def known():
    """A fixed population, so that every answer has a closed form."""
    successes, trials = np.array([3, 30, 12, 0]), np.array([10, 100, 100, 20])
    model = pelton.PartialPooling(successes, trials, prior=pelton.FixedBeta(2.0, 8.0), unit=list("ABCD"))
    return stats.beta(2 + successes, 8 + trials - successes), pelton.sample(model, draws=5000, seed=1)


def brute(posterior, draws=400_000):
    return posterior.rvs((draws, 4), random_state=np.random.default_rng(0))


def test_summary_is_the_closed_form(known):
    posterior, tree = known
    table = pelton.unit_summary(tree, threshold=0.25)
    np.testing.assert_allclose(table["mean"], posterior.mean(), rtol=1e-12)
    np.testing.assert_allclose(table["sd"], posterior.std(), rtol=1e-12)
    for column, p in (("q03", 0.03), ("q50", 0.5), ("q97", 0.97)):
        error = np.sqrt(p * (1 - p) / 20_000) / posterior.pdf(posterior.ppf(p))
        assert np.all(np.abs(table[column] - posterior.ppf(p)) < 5 * error)
    error = np.sqrt(0.25 / 20_000)
    assert np.all(np.abs(table["p_above"] - posterior.sf(0.25)) < 5 * error)
    assert np.all(np.abs(table["p_above_raw"] - posterior.sf(table["raw"])) < 5 * error)


def test_ranking_is_brute_force(known):
    posterior, tree = known
    drawn = brute(posterior)
    ranks = stats.rankdata(-drawn, axis=1)
    table = pelton.ranking(tree, top=2)
    error = 5 * np.sqrt(0.25 / 20_000) + 0.004
    assert np.all(np.abs(table["p_best"] - (ranks == 1).mean(0)) < error)
    assert np.all(np.abs(table["p_top"] - (ranks <= 2).mean(0)) < error)
    assert np.all(np.abs(table["expected_rank"] - ranks.mean(0)) < 3 * error)
    np.testing.assert_allclose(table["p_best"].sum(), 1.0)
    np.testing.assert_allclose(table["p_top"].sum(), 2.0)
    np.testing.assert_array_equal(table["rank_low"], np.quantile(ranks, 0.03, axis=0, method="inverted_cdf"))


def test_ranking_of_many_units_agrees_with_the_exact_one(fitted, monkeypatch):
    _, tree = fitted
    exact = pelton.ranking(tree, top=5)
    monkeypatch.setattr(decisions, "EXACT_ELEMENTS", 1)
    monkeypatch.setattr(decisions, "THINNED_DRAWS", 8000)
    streamed = pelton.ranking(tree, top=5)
    np.testing.assert_allclose(streamed["p_top"], exact["p_top"], atol=1e-12)
    np.testing.assert_allclose(streamed["p_best"], exact["p_best"], atol=1e-12)
    # Ranks among all rates of all draws rather than of the same draw: the mean is the same to the histogram's width.
    np.testing.assert_allclose(streamed["expected_rank"], exact["expected_rank"], atol=0.6)
    assert np.all(np.abs(streamed["rank_low"] - exact["rank_low"]) <= 3)


def test_budget(known):
    posterior, tree = known
    table = pelton.split_budget(tree, 1000.0)
    drawn = brute(posterior)
    share = 1000 * drawn / drawn.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(table["budget_raw"].sum(), 1000.0)
    np.testing.assert_allclose(table["budget_pooled"].sum(), 1000.0)
    error = 5 * share.std(axis=0) / np.sqrt(20_000)
    assert np.all(np.abs(table["budget_pooled"] - share.mean(axis=0)) < error * 1.3)
    low = np.quantile(share, 0.03, axis=0) - table["budget_raw"]
    np.testing.assert_allclose(table["budget_change_low"], low, atol=8)
    with pytest.raises(pelton.errors.ArgumentError, match="positive number"):
        pelton.split_budget(tree, -5.0)


def test_compare(known):
    posterior, tree = known
    drawn = brute(posterior)
    found = pelton.compare(tree, "B", "C")
    assert abs(found.p_higher - (drawn[:, 1] > drawn[:, 2]).mean()) < 0.01
    assert abs(found.difference_mean - (drawn[:, 1] - drawn[:, 2]).mean()) < 0.003
    assert found.difference_low < found.difference_mean < found.difference_high
    with pytest.raises(pelton.errors.UnknownNameError, match="unit 'E'"):
        pelton.compare(tree, "E", "C")


def test_shrinkage_is_the_weight_on_the_population(fitted):
    model, tree = fitted
    kappa = np.asarray(tree["posterior"]["kappa"]).ravel()
    expected = [(kappa / (kappa + n)).mean() for n in model.counts.trials]
    np.testing.assert_allclose(pelton.shrinkage(tree), expected, rtol=1e-12)


def test_intervals_carry_the_hyperparameters_uncertainty():
    """With five small units plugging in point estimates gives too small a spread on average."""
    model = pelton.PartialPooling([2, 4, 1, 5, 3], [15, 18, 14, 16, 15])
    tree = pelton.sample(model, draws=2000)
    table = pelton.unit_summary(tree)
    mu, kappa = float(tree["posterior"]["mu"].mean()), float(np.exp(tree["posterior"]["log_kappa"].mean()))
    plug_in = stats.beta(mu * kappa + table["successes"], (1 - mu) * kappa + table["trials"] - table["successes"])
    assert (table["sd"] / plug_in.std()).mean() > 1


def test_tables_agree_with_one_another(fitted):
    model, tree = fitted
    table = pelton.unit_table(tree, top=5, threshold=0.3, budget=100.0)
    assert list(table.index) == list(model.counts.units)
    stored = np.asarray(tree["posterior"]["rate"]).reshape(-1, 30)
    np.testing.assert_array_equal(stored, np.concatenate([block for _, block in rates.rate_blocks(tree)], axis=1))
    np.testing.assert_array_equal(rates.rates_of(tree, [3, 17]), stored[:, [3, 17]])
    error = stored.std(axis=0) / np.sqrt(2000)
    assert np.all(np.abs(table["mean"] - stored.mean(axis=0)) < 5 * error)
    for name in ("shrinkage", "p_top", "p_above", "budget_change_high"):
        assert np.all(np.isfinite(table[name]))
    with pytest.raises(pelton.errors.ArgumentError, match="between 0 and 1"):
        pelton.unit_table(tree, threshold=30)


def test_blocks_do_not_change_the_tables(fitted, monkeypatch):
    _, tree = fitted
    whole = pelton.unit_summary(tree)
    monkeypatch.setattr(rates, "BLOCK", 8000 * 7)
    parts = pelton.unit_summary(tree)
    np.testing.assert_allclose(parts["mean"], whole["mean"], rtol=1e-12)
    # Other blocks draw other rates: sqrt(p (1 - p) / n) / density is 0.028 sd at 97%, twice.
    assert np.all(np.abs(parts["q97"] - whole["q97"]) < 5 * np.sqrt(2) * 0.028 * whole["sd"])


def test_predictive_check(fitted):
    model, tree = fitted
    check = pelton.predictive_check(tree)
    raw = model.counts.successes / model.counts.trials
    assert check.observed_mean == pytest.approx(raw.mean())
    assert check.observed_sd == pytest.approx(raw.std(ddof=1))
    assert 0.05 < check.p_mean <= 1
    assert 0.05 < check.p_sd <= 1
    assert check.prior_sd is not None
    # Two populations far apart are not one beta population with this spread of the middle: the check of a model that
    # takes all units for equal must fail.
    tight = pelton.MeanConcentration(concentration=dist.LogNormal(12.0, 0.1))
    trials = np.full(40, 500)
    successes = np.random.default_rng(1).binomial(trials, np.repeat([0.1, 0.4], 20))
    wrong = pelton.predictive_check(pelton.sample(pelton.PartialPooling(successes, trials, prior=tight)))
    assert wrong.p_sd < 0.01


def test_held_out_predictions_are_calibrated():
    rng = np.random.default_rng(7)
    trials = rng.integers(30, 300, 200)
    successes = rng.binomial(trials, rng.beta(5, 20, 200))
    model = pelton.PartialPooling(successes, trials)
    found = pelton.held_out(model, folds=4, warmup=500, draws=500)
    assert found.converged
    for p, share in found.coverage.items():
        assert abs(share - p) < 4 * found.standard_error[p]
    assert stats.kstest(found.table["pit"], "uniform").pvalue > 1e-3
    inside = found.table["successes"].between(found.table["low_95"], found.table["high_95"]).mean()
    assert inside >= found.coverage[0.95] - 0.02
    with pytest.raises(pelton.errors.ArgumentError, match="folds"):
        pelton.held_out(model, folds=1)


@pytest.mark.long
def test_held_out_with_groups_and_covariates():
    rng = np.random.default_rng(8)
    x = rng.normal(size=200)
    region = rng.integers(0, 4, 200)
    eta = np.array([-2.0, -1.0, -1.5, -0.5])[region] + 0.6 * x
    trials = rng.integers(50, 200, 200)
    successes = rng.binomial(trials, rng.beta(40 / (1 + np.exp(-eta)), 40 / (1 + np.exp(eta))))
    model = pelton.PartialPooling(successes, trials, covariates=pd.DataFrame({"x": x}))
    settings = {"folds": 2, "draws": 1500}
    without = pelton.held_out(pelton.PartialPooling(successes, trials), **settings)
    with_x = pelton.held_out(model, **settings)
    error = [np.mean(np.abs(f.table["predicted"] / trials - successes / trials)) for f in (without, with_x)]
    assert error[1] < error[0]
    assert abs(with_x.coverage[0.8] - 0.8) < 4 * with_x.standard_error[0.8]
    grouped = pelton.PartialPooling(successes, trials, groups=region)
    with warnings.catch_warnings():
        # Four regions say little of how regions differ, and a few divergences are reported.
        warnings.simplefilter("ignore", pelton.errors.ConvergenceWarning)
        tree = pelton.sample(grouped.subset(np.arange(100)))
    known = grouped.predictor(tree, np.arange(100), np.arange(100, 200))
    assert known.level is not None
    assert known.level.shape == (100,)


def test_a_strange_tree_is_refused():
    import xarray as xr

    with pytest.raises(pelton.errors.DataError, match="not one of PartialPooling"):
        pelton.unit_summary(xr.DataTree())


def test_budget_where_rates_vanish():
    tree = pelton.sample(pelton.PartialPooling([0, 0, 0], [4, 4, 4], prior=pelton.FixedBeta(1e-300, 1.0)), draws=200)
    table = pelton.split_budget(tree, 90.0)
    np.testing.assert_allclose(table["budget_raw"], 30.0)
    np.testing.assert_allclose(table["budget_pooled"], 30.0)
