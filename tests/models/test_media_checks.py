"""Checks of a media mix: shrinkage, stability, leave-one-out, recovery and failure indicators."""

import warnings

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from pelton.engine.errors import ArgumentError, ConvergenceWarning, DataError
from pelton.models.attribution import roas
from pelton.models.media_checks import compare_loo, failure_indicators, media_shrinkage, recovery, stability
from tests.models.media_trees import country_tree, media_tree


def with_population(tree, sd, geo_sd, seed=0):
    """The tree with its retention drawn about a population of sd `sd`, its deviations varying by `geo_sd` [geo]."""
    rng = np.random.default_rng(seed)
    posterior = tree["posterior"].to_dataset()
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    having = posterior["alpha"].sizes["alpha_channel"]
    location = 0.3 * rng.normal(size=(chains, draws, 1, having))
    apart = np.asarray(geo_sd)[:, None] * rng.normal(size=(chains, draws, len(geo_sd), having))
    posterior["alpha"] = posterior["alpha"].copy(data=1 / (1 + np.exp(-location - apart)))
    dims = ("chain", "draw", "alpha_channel")
    posterior["alpha_population"] = (dims, 1 / (1 + np.exp(-location[:, :, 0])))
    posterior["alpha_sd"] = (dims, np.full((chains, draws, having), sd))
    tree["posterior"] = xr.DataTree(posterior)
    return tree


def test_shrinkage_is_the_variance_that_the_data_leave_over_the_groups():
    tree = with_population(media_tree(draws=2000), 0.5, [0.05, 0.25, 0.5])
    table = media_shrinkage(tree)
    assert list(table.columns) == ["alpha"]
    # Sample variances of 4,000 draws: relative standard error sqrt(2 / 4000).
    for geo, expected in zip(("DE", "PL", "SE"), (0.01, 0.25, 1.0), strict=True):
        assert table.loc[geo, "alpha"].dropna().to_numpy() == pytest.approx(expected, rel=5 * np.sqrt(2 / 4000))
    # Channels without a retention have none to be drawn.
    assert int(np.isnan(table["alpha"].to_numpy()).sum()) == 3


def test_shrinkage_of_the_country_model_is_that_of_its_own_populations():
    tree = country_tree(draws=4000)
    rng = np.random.default_rng(3)
    posterior = tree["posterior"].to_dataset()
    shape = posterior["car"].shape
    dims = ("chain", "draw")
    for name, value in (("car_alpha", 2.0), ("car_beta", 3.0), ("sat_lam", 5.0), ("coef_lam", 0.1)):
        posterior[name] = (dims, np.full(shape[:2], value))
    # Draws from the population itself: nothing was learnt, and all shrinkage is 1.
    posterior["car"] = posterior["car"].copy(data=rng.beta(2.0, 3.0, shape))
    posterior["sat"] = posterior["sat"].copy(data=rng.exponential(1 / 5.0, shape))
    posterior["coef"] = posterior["coef"].copy(data=rng.exponential(10.0, shape) ** 0.5 * 10.0**0.5)
    tree["posterior"] = xr.DataTree(posterior)
    table = media_shrinkage(tree)
    assert table["car"].to_numpy() == pytest.approx(1.0, abs=0.06)
    assert table["sat"].to_numpy() == pytest.approx(1.0, abs=0.08)
    # The square root halves the logarithm: a quarter of the variance.
    assert table["coef"].to_numpy() == pytest.approx(0.25, abs=0.03)


def test_stability_compares_returns_across_models():
    first, second = media_tree(seed=0), media_tree(seed=0)
    posterior = second["posterior"].to_dataset()
    posterior["coef"] = posterior["coef"] * 3.0
    second["posterior"] = xr.DataTree(posterior)
    table = stability({"a": first, "b": second})
    spent = table["a", "mean"].notna().to_numpy()
    assert table["all", "ratio"].to_numpy()[spent] == pytest.approx(3.0)
    expected = roas(first).mean(("chain", "draw")).transpose("geo", "channel").to_numpy().ravel()
    np.testing.assert_allclose(table["a", "mean"], expected, rtol=1e-12)
    with pytest.raises(ArgumentError, match="at least two"):
        stability({"a": first})
    with pytest.raises(DataError, match="'b'"):
        stability({"a": first, "b": country_tree()})


def with_likelihood(tree, mean, seed=0, outlier=False):
    """Pointwise terms of a normal model whose mean was drawn from its posterior, exact leave-one-out being known."""
    rng = np.random.default_rng(seed)
    target = tree["observed_data"]["target"].to_numpy().copy()
    seen = np.isfinite(target)
    values = rng.normal(size=int(seen.sum()))
    if outlier:
        values[3] = 15.0
    target[seen] = values
    chains, draws = 4, 1000
    centre = values.mean() + mean + rng.normal(size=(chains, draws)) / np.sqrt(len(values))
    terms = scipy.stats.norm.logpdf(target, centre[..., None, None], 1.0)
    coords = {name: tree["observed_data"][name] for name in ("geo", "time")}
    tree["log_likelihood"] = xr.DataTree(xr.Dataset({"target": (("chain", "draw", "geo", "time"), terms)}, coords))
    # p(y_i | rest) = Normal(y_i; mean of the others, 1 + 1 / (n - 1)) under a flat prior.
    n = len(values)
    others = (values.sum() - values) / (n - 1)
    return tree, scipy.stats.norm.logpdf(values, others, np.sqrt(1 + 1 / (n - 1))).sum()


def test_leave_one_out_is_the_closed_form_and_ranks():
    good, exact = with_likelihood(media_tree(), 0.0)
    bad, _ = with_likelihood(media_tree(), 2.0)
    table = compare_loo({"bad": bad, "good": good})
    assert list(table.index) == ["good", "bad"]
    assert float(table.loc["good", "elpd"]) == pytest.approx(exact, abs=0.3)


def test_a_high_pareto_k_is_said_with_its_week():
    good, _ = with_likelihood(media_tree(), 0.0)
    odd, _ = with_likelihood(media_tree(), 0.0, outlier=True)
    # One week that the posterior turns on: its term varies far more than a normal one's.
    terms = odd["log_likelihood"]["target"].to_numpy().copy()
    terms[:, :, 1, 20] *= 300.0
    odd["log_likelihood"]["target"].data[...] = terms
    with pytest.warns(ConvergenceWarning, match="PL 2023-05-21"):
        compare_loo({"good": good, "odd": odd})


def test_leave_one_out_needs_its_group():
    with pytest.raises(ArgumentError, match="log_likelihood"):
        compare_loo({"a": media_tree(), "b": media_tree()})


def test_recovery_compares_with_a_truth():
    tree = media_tree(draws=500)
    draws = tree["posterior"]["coef"]
    truth = {"coef": draws.quantile(0.5, ("chain", "draw")).drop_vars("quantile")}
    truth["sigma"] = tree["posterior"]["sigma"].max(("chain", "draw")) * 1.1
    table = recovery(tree, truth)
    assert table.loc["coef", "covered"].all()
    assert not table.loc["sigma", "covered"].any()
    assert (table.loc["sigma", "z"] < -1.5).all()
    row = table.loc[("coef", "DE, tv")]
    flat = draws.sel(geo="DE", channel="tv").to_numpy().ravel()
    assert row["low"] == pytest.approx(np.quantile(flat, 0.03))
    with pytest.raises(DataError, match="beta"):
        recovery(tree, {"beta": truth["coef"]})


def test_failure_indicators_speak_up():
    calm = with_population(media_tree(draws=400), 0.25, [0.15, 0.15, 0.15])
    calm.attrs["status"] = "converged"
    assert failure_indicators(calm) == []
    wild = with_population(media_tree(draws=400), 0.9, [0.01, 0.01, 0.01])
    posterior = wild["posterior"].to_dataset()
    posterior["baseline_coefficient"] = -posterior["baseline_coefficient"]
    wild["posterior"] = xr.DataTree(posterior)
    wild.attrs["status"] = "R-hat is 1.4"
    said = " ".join(failure_indicators(wild))
    for words in (
        "did not converge",
        "differ much in alpha",
        "geos decide for themselves",
        "baseline of DE is probably",
    ):
        assert words in said
    silent = with_population(media_tree(draws=400), 0.25, [0.25, 0.25, 0.25])
    assert any("say little on alpha" in one for one in failure_indicators(silent))


def test_no_warnings_on_good_trees():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        media_shrinkage(with_population(media_tree(), 0.5, [0.1, 0.2, 0.3]))
