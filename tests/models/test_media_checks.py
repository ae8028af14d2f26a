"""Checks of a media mix: shrinkage, stability, leave-one-out, recovery and failure indicators."""

import json
import warnings

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from pelton.engine.errors import ArgumentError, ConvergenceWarning, DataError
from pelton.models.attribution import roas
from pelton.models.leave_one_out import compare_loo
from pelton.models.media_checks import (
    failure_indicators,
    media_shrinkage,
    prior_dominated,
    recovery,
    stability,
)
from pelton.models.response import Response
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


def test_shrinkage_against_an_unpooled_fit_is_the_share_of_the_deviation_that_is_gone():
    """Deviations of 1 in one fit and of 0.25 in the other: three quarters are gone, whatever the spread."""
    alone = with_population(media_tree(draws=200), 0.5, [0.0, 0.0, 0.0])
    pooled = with_population(media_tree(draws=200), 0.5, [0.0, 0.0, 0.0])
    centre = pooled["posterior"]["alpha_population"]
    location = float(np.log(centre / (1 - centre)).mean())
    noise = 0.01 * np.random.default_rng(5).normal(size=alone["posterior"]["alpha"].shape)
    for tree, apart in ((alone, (1.0, -1.0, 0.0)), (pooled, (0.25, -0.25, 0.25))):
        eta = np.log(pooled["posterior"]["alpha_population"] / (1 - pooled["posterior"]["alpha_population"]))
        values = eta.to_numpy()[:, :, None] + np.asarray(apart)[:, None] + noise
        tree["posterior"]["alpha"].data[...] = 1 / (1 + np.exp(-values))
    table = media_shrinkage(pooled, alone)["alpha"]
    having = [name for name in table.index.unique("channel") if np.isfinite(table.loc[("DE", name)])]
    assert len(having) == 4
    assert abs(location) < 1
    np.testing.assert_allclose(table.loc["DE"].dropna(), 0.75, atol=0.01)
    np.testing.assert_allclose(table.loc["PL"].dropna(), 0.75, atol=0.01)
    # There is no deviation in SE to be gone.
    assert table.loc["SE"].isna().all()


def test_shrinkage_of_effects_and_of_every_scale():
    """Parameters in units of the data, about a population on the scaled data with deviations of half its sd."""
    forms = {
        "tv": ("delayed", 6, True, "hill"),
        "radio": ("delayed", 9, True, "root"),
        "search": ("geometric", None, True, "exponential"),
    }
    tree = media_tree(forms, draws=4000)
    rng = np.random.default_rng(8)
    posterior, constant = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    scale, level = constant["media_scale"].to_numpy(), constant["target_scale"].to_numpy()[:, None]
    chains, draws, geos = (posterior.sizes[name] for name in ("chain", "draw", "geo"))

    def eta(columns):
        location = rng.normal(size=(chains, draws, 1, columns))
        return location, location + 0.2 * rng.normal(size=(chains, draws, geos, columns))

    def put(name, dim, location, values, population):
        posterior[name] = posterior[name].copy(data=values)
        posterior[f"{name}_population"] = (("chain", "draw", dim), population[:, :, 0])
        posterior[f"{name}_sd"] = (("chain", "draw", dim), np.full(population[:, :, 0].shape, 0.4))
        del location

    location, values = eta(1)
    put("half_saturation", "half_saturation_channel", location, np.exp(values) * scale[:, :1], np.exp(location))
    location, values = eta(1)
    put("rate", "rate_channel", location, np.exp(values) / scale[:, 2:], np.exp(location))
    location, values = eta(2)
    last = np.array([5.0, 8.0])
    put("theta", "theta_channel", location, last / (1 + np.exp(-values)), last / (1 + np.exp(-location)))
    location, power = eta(1)
    power = 1 / (1 + np.exp(-power))
    put("power", "power_channel", location, power, 1 / (1 + np.exp(-location)))
    location, values = eta(3)
    raw = np.exp(values) * level
    # coef (x / scale)^p = (coef / scale^p) x^p: a root's coefficient carries the media's scale.
    raw[..., 1] /= scale[:, 1] ** power[..., 0]
    posterior["coef"] = posterior["coef"].copy(data=raw)
    posterior["coefficient_population"] = (("chain", "draw", "channel"), np.exp(location[:, :, 0]))
    posterior["coefficient_sd"] = (("chain", "draw", "channel"), np.full((chains, draws, 3), 0.4))
    tree["posterior"] = xr.DataTree(posterior)
    tree.attrs["media_mix"] = json.dumps(json.loads(tree.attrs["media_mix"]) | {"effect": "coefficient"})
    table = media_shrinkage(tree)
    assert set(table.columns) == {"half_saturation", "rate", "theta", "power", "coef"}
    for name in table.columns:
        # (0.2 / 0.4)^2, with the error of a variance of 8,000 draws.
        assert table[name].dropna().to_numpy() == pytest.approx(0.25, rel=5 * np.sqrt(2 / 8000))
    assert table["coef"].notna().all()


def test_shrinkage_of_effects_of_any_sign():
    tree = media_tree(draws=2000)
    rng = np.random.default_rng(9)
    posterior = tree["posterior"].to_dataset()
    shape = posterior["coef"].shape
    location = rng.normal(size=(*shape[:2], 1, shape[3]))
    posterior["contribution"] = (posterior["coef"].dims, location + 0.3 * rng.normal(size=shape))
    dims = ("chain", "draw", "channel")
    posterior["contribution_population"] = (dims, location[:, :, 0])
    posterior["contribution_sd"] = (dims, np.full(location[:, :, 0].shape, 0.6))
    tree["posterior"] = xr.DataTree(posterior)
    tree.attrs["media_mix"] = json.dumps(json.loads(tree.attrs["media_mix"]) | {"effect": "contribution"})
    assert media_shrinkage(tree)["contribution"].to_numpy() == pytest.approx(0.25, rel=5 * np.sqrt(2 / 4000))


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


def test_leave_one_out_works_its_group_out():
    tree, bad = media_tree(), with_likelihood(media_tree(), 2.0)[0]
    known = Response.of(tree)
    stored = media_tree()
    density = scipy.stats.norm(known.prediction(), known.sigma[:, :, None]).logpdf(known.target)
    shape = (*(tree["posterior"].sizes[name] for name in ("chain", "draw")), *known.target.shape)
    terms = (("chain", "draw", "geo", "time"), density.reshape(shape))
    stored["log_likelihood"] = xr.DataTree(xr.Dataset({"target": terms}, tree["observed_data"].coords))
    with warnings.catch_warnings(action="ignore"):
        tables = [compare_loo({"it": one, "bad": bad}) for one in (tree, stored)]
    assert float(tables[0].loc["it", "elpd"]) == pytest.approx(float(tables[1].loc["it", "elpd"]), rel=1e-9)
    assert "log_likelihood" not in tree.children


def test_leave_one_out_refuses_other_targets_and_other_models():
    good, other = with_likelihood(media_tree(), 0.0)[0], with_likelihood(media_tree(), 0.0)[0]
    other["observed_data"]["target"].data[1, 20] += 7.0
    with pytest.raises(DataError, match=r"PL 2023-05-21 is .* in one and .* in the other \(1 in all\)"):
        compare_loo({"good": good, "other": other})
    with pytest.raises(ArgumentError, match="neither"):
        compare_loo({"good": good, "none": xr.DataTree.from_dict({"posterior": good["posterior"].to_dataset()})})


def test_leave_one_out_wants_the_same_observations():
    good, _ = with_likelihood(media_tree(), 0.0)
    less, _ = with_likelihood(media_tree(), 0.0)
    less["log_likelihood"]["target"].data[..., 0, 5] = np.nan
    with pytest.raises(DataError, match=r"'good' and 'less' .*DE 2023-02-05 is in one of them alone, 1 in all"):
        compare_loo({"good": good, "less": less})


def test_recovery_leaves_no_cell_out():
    tree = media_tree()
    truth = tree["posterior"]["coef"].mean(("chain", "draw"))
    with pytest.raises(DataError, match=r"'coef' has no value for 'DE, video' \(6 in all\)"):
        recovery(tree, {"coef": truth.isel(channel=slice(0, 3))})
    # Without spend there is no return: neither covered nor missed.
    table = recovery(tree, {"roas": roas(tree).mean(("chain", "draw"), skipna=False)})
    assert table["covered"].isna().sum() == 1
    assert table["covered"].mean() == 1.0


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
    wild.attrs |= {"converged": 0, "status": "NOT CONVERGED: R-hat is 1.4"}
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


def test_parameters_that_the_data_hardly_narrow_down():
    tree = media_tree(draws=2000)
    rng = np.random.default_rng(6)
    prior = tree["posterior"].to_dataset().copy(deep=True)
    # The log of coef has an sd of 0.3 in every geo: the prior as wide, but for one cell, where it is twice as wide.
    log = np.log(prior["coef"].mean(("chain", "draw"))).to_numpy() + 0.3 * rng.normal(size=prior["coef"].shape)
    log[..., 1, 2] = 2 * log[..., 1, 2]
    prior = prior.assign(coef=prior["coef"].copy(data=np.exp(log)))
    for name in ("alpha", "theta", "half_saturation", "slope", "rate", "weibull_scale", "weibull_shape"):
        middle = prior[name].mean(("chain", "draw"))
        narrow = middle + 0.2 * (tree["posterior"][name] - middle)
        tree["posterior"][name].data[...] = narrow.transpose(*prior[name].dims).to_numpy()
    # What the prior group lacks is not judged.
    tree["prior"] = xr.DataTree(prior.drop_vars("slope"))
    table = prior_dominated(tree, least=0.2)
    assert set(table.index.unique("parameter")) == {"coef"}
    assert len(table) == 14
    assert ("coef", "PL", "search") not in table.index
    # A normal's quartiles of 4,000 draws: a relative error of 1.17 / sqrt(4000) each range, twice that of the square.
    assert table["contraction"].abs().max() < 5 * 2 * np.sqrt(2) * 1.17 / np.sqrt(4000)
    tree.attrs["status"] = "converged"
    said = failure_indicators(tree)
    assert any("The data add little on coef of DE " in one for one in said), said
    with pytest.raises(ArgumentError, match="no prior group"):
        prior_dominated(media_tree())


def test_media_credited_with_more_than_the_target():
    tree = media_tree()
    tree.attrs["status"] = "converged"
    assert failure_indicators(tree) == []
    target = tree["observed_data"]["target"].data
    media = Response.of(tree).summed[0].sum(-1)
    seen = np.isfinite(target)
    target[1, seen[1]] = 0.9 * media[1, seen[1]]
    some = np.flatnonzero(seen[2])[:4]
    target[2, some] = 0.5 * media[2, some]
    found = failure_indicators(tree)
    assert len(found) == 2
    assert "Media of PL are credited with" in found[0]
    assert f"SE are credited with more than the target in 4 of {seen[2].sum()} weeks" in found[1]


def test_no_warnings_on_good_trees():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        media_shrinkage(with_population(media_tree(), 0.5, [0.1, 0.2, 0.3]))
