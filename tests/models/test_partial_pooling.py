"""PartialPooling against exact references, the textbook model, and NumPyro's own sampler on plain models."""

import json
import warnings

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from arviz_stats.base import array_stats

import pelton
from pelton.engine.samplers import REGISTRY
from pelton.models.population import textbook
from tests.samplers import SETTINGS
from tests.statistics import LIMIT, assert_agrees, z_scores

UNIFORM = pelton.MeanConcentration(dist.Beta(1.0, 1.0), dist.Pareto(1.0, 1.5))
# file, separator, columns, prior
TABLES = {
    "store_conversions": ("store_conversions.csv", ",", ("conversions", "impressions"), pelton.GammaShapes(0.5, 0.5)),
    "streamrec_categories": (
        "streamrec_categories.csv",
        ",",
        ("clicks", "impressions"),
        pelton.MeanConcentration(dist.Beta(2.0, 2.0), dist.Pareto(1.0, 1.5)),
    ),
    "rat_tumors": ("rat_tumors.csv", ",", ("y", "K"), pelton.Bda()),
    "efron_morris_1975": ("efron_morris_1975.tsv", "\t", ("Hits", "At-Bats"), UNIFORM),
    "surgical_mortality": ("surgical_mortality.csv", ",", ("y", "K"), UNIFORM),
    "baseball_hits_2006": ("baseball_hits_2006.csv", ",", ("y", "K"), UNIFORM),
}
# The references' 3% and 97% points come from 40,000 independent draws, and are good to about 0.013 sd.
REFERENCE_DRAWS = 40_000


def read(cases, name):
    file, separator, columns, prior = TABLES[name]
    frame = pd.read_csv(cases / file, sep=separator, comment="#", skipinitialspace=True)
    frame.columns = [str(column).strip() for column in frame.columns]
    return frame[columns[0]].to_numpy(), frame[columns[1]].to_numpy(), prior


# Of the samplers that are made for other posteriors the fast suite has one of the six tables.
USUAL = ("grid", "nuts", "numpyro-nuts", "blackjax-nuts")
AGREEMENTS = [
    pytest.param(name, sampler, marks=[pytest.mark.slow] if sampler not in USUAL and name != "rat_tumors" else [])
    for name in sorted(TABLES)
    for sampler in sorted(REGISTRY)
]


@pytest.mark.parametrize(("name", "sampler"), AGREEMENTS)
def test_agrees_with_quadrature(cases, name, sampler):
    reference = json.loads((cases / "references.json").read_text())[name]
    successes, trials, prior = read(cases, name)
    settings = {"draws": 2500, "seed": 11} | SETTINGS.get(sampler, {})
    tree = pelton.sample(pelton.PartialPooling(successes, trials, prior=prior), sampler=sampler, **settings)
    assert tree.attrs["converged"]
    for variable in ("logit_mu", "log_kappa"):
        exact = reference[variable]
        assert_agrees(tree["posterior"][variable], mean=exact["mean"], sd=exact["sd"])
    rates = np.moveaxis(np.asarray(tree["posterior"]["rate"]), -1, 0)
    assert_agrees(rates, mean=np.array(reference["theta_mean"]))
    spread = rates.std(axis=(1, 2))
    for p, key in ((0.03, "theta_q03"), (0.97, "theta_q97")):
        # Standard error of a quantile, with the density there bounded from below by that of the normal distribution
        # narrowed by a fifth: sqrt(p (1 - p) / n) / density.
        error = np.sqrt(p * (1 - p) / REFERENCE_DRAWS) / (0.068 / spread)
        z = z_scores(rates, np.array(reference[key]), "quantile", p, error)
        assert np.max(np.abs(z)) < LIMIT


def test_units_summary_agrees_with_quadrature(cases):
    reference = json.loads((cases / "references.json").read_text())["baseball_hits_2006"]
    successes, trials, prior = read(cases, "baseball_hits_2006")
    tree = pelton.sample(pelton.PartialPooling(successes, trials, prior=prior), draws=2500, seed=11)
    table = pelton.unit_summary(tree)
    # Averages of conjugate means are less noisy than averages of draws; the draws' error bounds theirs.
    error = array_stats.mcse(np.moveaxis(np.asarray(tree["posterior"]["rate"]), -1, 0), method="mean")
    assert np.max(np.abs(table["mean"] - reference["theta_mean"]) / error) < LIMIT


def test_figures_printed_with_the_categories_study_are_not_this_posterior(cases):
    successes, trials, prior = read(cases, "streamrec_categories")
    tree = pelton.sample(pelton.PartialPooling(successes, trials, prior=prior), seed=1)
    kappa = np.asarray(tree["posterior"]["kappa"])
    assert np.mean(kappa < 5.3) < 0.01, "the study prints a concentration of 5.3"
    assert abs(kappa.mean() - 13.8) < 0.5


@pytest.mark.long
@pytest.mark.parametrize("prior", [UNIFORM, pelton.GammaShapes(2.0, 0.1)], ids=repr)
def test_agrees_with_the_textbook_model(prior):
    rng = np.random.default_rng(5)
    trials = rng.integers(20, 200, 15)
    successes = rng.binomial(trials, rng.beta(4, 12, 15))
    ours = pelton.sample(pelton.PartialPooling(successes, trials, prior=prior), draws=2000, seed=1)
    kernel = numpyro.infer.NUTS(textbook, target_accept_prob=0.9)
    with jax.enable_x64(True):
        mcmc = numpyro.infer.MCMC(
            kernel, num_warmup=1000, num_samples=2000, num_chains=4, chain_method="sequential", progress_bar=False
        )
        mcmc.run(jax.random.key(2), prior, successes, trials)
        plain = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()}
    for name in ("mu", "log_kappa", "rate"):
        ours_values, plain_values = np.asarray(ours["posterior"][name]), plain[name]
        if name == "rate":
            ours_values, plain_values = (np.moveaxis(values, -1, 0) for values in (ours_values, plain_values))
        error = array_stats.mcse(plain_values, method="mean")
        assert np.min(array_stats.ess(plain_values, method="bulk")) > 1000
        assert_agrees(ours_values, mean=plain_values.mean(axis=(-2, -1)), truth_error=error)


def simulated(units=300, regions=6, seed=0):
    rng = np.random.default_rng(seed)
    region = rng.integers(0, regions, units)
    x = rng.normal(size=(units, 2))
    level = rng.normal(-1.0, 0.6, regions)
    eta = level[region] + x @ np.array([0.5, -0.3])
    rates = rng.beta(20 / (1 + np.exp(-eta)), 20 / (1 + np.exp(eta)))
    trials = rng.integers(30, 120, units)
    return rng.binomial(trials, rates), trials, region, x


def plain_regression(prior, successes, trials, region, regions, covariates):
    """The same posterior as written in a book: nothing reparameterised, NumPyro's own beta-binomial."""
    prefix = "population_" if regions else ""
    mean, concentration = prior.sites(prefix)
    if regions:
        spread_mean = numpyro.sample("sd_logit_mu", dist.HalfNormal(1.0))
        spread_concentration = numpyro.sample("sd_log_kappa", dist.HalfNormal(1.0))
        with numpyro.plate("group", regions):
            u = numpyro.sample("u", dist.Normal(0.0, 1.0))
            w = numpyro.sample("w", dist.Normal(0.0, 1.0))
        mean = numpyro.deterministic("logit_mu", mean + spread_mean * u)[region]
        concentration = numpyro.deterministic("log_kappa", concentration + spread_concentration * w)[region]
    if covariates is not None:
        coefficient = numpyro.sample("standardized_coefficient", dist.Normal(0.0, 1.0).expand([covariates.shape[1]]))
        mean = mean + covariates @ coefficient
    mu, kappa = jax.nn.sigmoid(mean), jax.numpy.exp(concentration)
    numpyro.sample("y", dist.BetaBinomial(mu * kappa, (1 - mu) * kappa, trials), obs=successes)


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", ["covariates", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("groups", "both"))]
)
def test_groups_and_covariates_agree_with_the_plain_model(kind):
    successes, trials, region, x = simulated(units=120, regions=4)
    groups = region if kind != "covariates" else None
    covariates = x if kind != "groups" else None
    model = pelton.PartialPooling(successes, trials, groups=groups, covariates=covariates)
    with warnings.catch_warnings():
        # A handful of divergences in a funnel is reported; the means are compared regardless.
        warnings.simplefilter("ignore", pelton.errors.ConvergenceWarning)
        ours = pelton.sample(model, draws=1500, seed=3)
    arguments = (
        model.prior,
        successes,
        trials,
        None if model.group is None else model.group,
        len(model.group_names),
        model.standardized,
    )
    with jax.enable_x64(True):
        mcmc = numpyro.infer.MCMC(
            numpyro.infer.NUTS(plain_regression, target_accept_prob=0.9),
            num_warmup=800,
            num_samples=1000,
            num_chains=4,
            chain_method="sequential",
            progress_bar=False,
        )
        mcmc.run(jax.random.key(2), *arguments)
        plain = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()}
    names = {
        "groups": ["logit_mu", "log_kappa", "sd_logit_mu"],
        "covariates": ["standardized_coefficient", "log_kappa"],
    }
    for name in names.get(kind, ["logit_mu", "log_kappa", "standardized_coefficient", "sd_logit_mu"]):
        values = [np.asarray(ours["posterior"][name]), plain[name]]
        if values[0].ndim == 3:
            values = [np.moveaxis(value, -1, 0) for value in values]
        error = array_stats.mcse(values[1], method="mean")
        assert_agrees(values[0], mean=values[1].mean(axis=(-2, -1)), truth_error=error, least_ess=400)


def test_coefficients_come_in_the_covariates_units():
    successes, trials, _, x = simulated(units=1500)
    frame = pd.DataFrame(x * [10.0, 0.1], columns=["price", "footfall"])
    tree = pelton.sample(pelton.PartialPooling(successes, trials, covariates=frame), seed=3)
    coefficient = tree["posterior"]["coefficient"]
    assert list(coefficient["covariate"].values) == ["price", "footfall"]
    np.testing.assert_allclose(coefficient.mean(("chain", "draw")), [0.05, -3.0], rtol=0.25)


def test_segments_are_fits_of_their_own():
    successes, trials, region, _ = simulated(units=240, regions=4)
    tree = pelton.sample(pelton.PartialPooling(successes, trials, segments=region), seed=1)
    assert tree["posterior"]["logit_mu"].dims == ("chain", "draw", "segment")
    for label in tree["posterior"]["segment"].values[:2]:
        inside = region == label
        alone = pelton.sample(pelton.PartialPooling(successes[inside], trials[inside]), seed=2)
        for name in ("logit_mu", "log_kappa"):
            exact = np.asarray(alone["posterior"][name])
            error = array_stats.mcse(exact, method="mean")
            ours = tree["posterior"][name].sel(segment=label)
            assert_agrees(ours, mean=exact.mean(), truth_error=error)


def test_equal_rates_everywhere_have_no_spurious_mode():
    """The likelihood rises towards kappa = infinity; log kappa's posterior is its prior's tail."""
    successes, trials = np.full(50, 200), np.full(50, 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = pelton.sample(pelton.PartialPooling(successes, trials), draws=2000, seed=1)
    log_kappa = np.asarray(tree["posterior"]["log_kappa"])
    # Above the scale that the data can tell, an exponential tail of rate 1.5: its mean excess is 1 / 1.5.
    excess = log_kappa[log_kappa > 12] - 12
    assert log_kappa.max() < 25
    assert excess.size > 50
    assert abs(excess.mean() - 1 / 1.5) < 5 * (1 / 1.5) / np.sqrt(excess.size / 4)
    np.testing.assert_allclose(np.asarray(tree["posterior"]["mu"]).mean(), 0.2, atol=0.002)


def test_unit_without_trials_gets_the_population():
    with pytest.warns(pelton.errors.DataWarning, match="have no trials"):
        model = pelton.PartialPooling([30, 45, 0, 25, 41], [100, 120, 0, 110, 130])
    tree = pelton.sample(model, draws=2000)
    alpha, beta = tree["posterior"]["alpha"], tree["posterior"]["beta"]
    mean = float((alpha / (alpha + beta)).mean())
    assert_agrees(tree["posterior"]["rate"].isel(unit=2), mean=mean, truth_error=0.002)
    assert pelton.shrinkage(tree).iloc[2] == 1.0


def test_fixed_beta_is_conjugate_and_nuts_agrees():
    prior = pelton.FixedBeta(11.5, 48.5)
    with pytest.warns(pelton.errors.DataWarning, match="one unit only"):
        model = pelton.PartialPooling([7], [10], prior=prior)
    tree = pelton.sample(model, draws=2000)
    exact = pelton.rate_posterior(prior, 7, 10).distribution
    points = {p: exact.ppf(p) for p in (0.05, 0.95)}
    assert_agrees(tree["posterior"]["rate"].isel(unit=0), mean=exact.mean(), sd=exact.std(), quantiles=points)
    target = pelton.from_numpyro(textbook, prior, np.array([7]), np.array([10]))
    for sampler in USUAL:
        drawn = pelton.sample(target, sampler=sampler, draws=2000)
        assert_agrees(drawn["posterior"]["rate"].isel(unit=0), mean=exact.mean(), sd=exact.std(), quantiles=points)


def test_log_likelihood_group_and_loo():
    import arviz as az

    rng = np.random.default_rng(1)
    trials = rng.integers(20, 60, 30)
    successes = rng.binomial(trials, rng.beta(3, 9, 30))
    tree = pelton.sample(pelton.PartialPooling(successes, trials), groups=("log_likelihood",))
    values = np.asarray(tree["log_likelihood"]["successes"])
    assert values.shape == (4, 1000, 30)
    from scipy.stats import betabinom

    alpha, beta = (float(tree["posterior"][name][1, 7]) for name in ("alpha", "beta"))
    np.testing.assert_allclose(values[1, 7], betabinom(trials, alpha, beta).logpmf(successes), rtol=1e-9)
    assert np.isfinite(az.loo(tree).elpd)


def test_predictive_groups():
    rng = np.random.default_rng(1)
    trials = rng.integers(200, 600, 30)
    successes = rng.binomial(trials, rng.beta(3, 9, 30))
    model = pelton.PartialPooling(successes, trials, prior=pelton.MeanConcentration(dist.Beta(2.0, 2.0)))
    tree = pelton.sample(model, groups=("prior", "prior_predictive", "posterior_predictive"))
    replicated = np.asarray(tree["posterior_predictive"]["successes"])
    # A replicate's mean is n times the pooled rate; its spread is that of the rate and of the count together.
    pooled = pelton.unit_summary(tree)
    error = 5 * replicated.std(axis=(0, 1)) / np.sqrt(2000)
    assert np.all(np.abs(replicated.mean(axis=(0, 1)) - trials * pooled["mean"]) < error)
    prior_mean = np.asarray(tree["prior"]["mu"])
    assert abs(prior_mean.mean() - 0.5) < 5 * np.sqrt(0.05 / prior_mean.size)
    rates = np.asarray(tree["prior_predictive"]["successes"]) / trials
    assert abs(rates.mean() - 0.5) < 5 * np.sqrt(0.05 / prior_mean.size) + 0.01
    with pytest.raises(pelton.errors.UnknownNameError, match="unknown group 'prior'"):
        pelton.sample(pelton.PartialPooling(successes, trials, prior=pelton.Bda()), groups=("prior",))
    with pytest.raises(pelton.errors.UnknownNameError, match="did you mean 'prior'"):
        pelton.sample(model, groups=("priors",))


def test_new_data_of_the_same_shape_compile_nothing(monkeypatch):
    traces = []
    import pelton.models.population as module

    counted = module.log_likelihood

    def counting(*args):
        traces.append(1)
        return counted(*args)

    monkeypatch.setattr(module, "log_likelihood", counting)
    rng = np.random.default_rng(3)
    trials = np.full(40, 100)
    # A prior of its own, so that no earlier test has compiled this model.
    prior = pelton.MeanConcentration(dist.Beta(1.5, 1.25), dist.Pareto(1.0, 1.25))

    def fit(seed):
        successes = np.minimum(rng.binomial(trials, rng.beta(3, 9, 40)), 60)
        successes[0], successes[1] = 0, 60
        return pelton.sample(pelton.PartialPooling(successes, trials, prior=prior), seed=seed, draws=500, chains=2)

    fit(1)
    first = len(traces)
    assert first > 0
    tree = fit(2)
    # from_numpyro traces the model once, abstractly, to learn its sites; no program traces it again.
    assert len(traces) - first <= 1
    assert tree.attrs["seconds_compiling"] == 0.0


def test_refuses_what_excludes_one_another():
    with pytest.raises(pelton.errors.ArgumentError, match="segments"):
        pelton.PartialPooling([1, 2], [3, 4], groups=["a", "b"], segments=["a", "b"])
    with pytest.raises(pelton.errors.ArgumentError, match="nothing to learn"):
        pelton.PartialPooling([1, 2], [3, 4], groups=["a", "b"], prior=pelton.FixedBeta(1, 1))
    # The checker of the test run may speak first; both are clear.
    with pytest.raises((pelton.errors.ArgumentError, TypeError), match="prior"):
        pelton.PartialPooling([1, 2], [3, 4], prior=dist.Beta(1.0, 1.0))
    with pytest.raises(pelton.errors.DataError, match="improper"):
        pelton.PartialPooling([0, 4], [3, 4], prior=pelton.Bda())
    with pytest.raises(pelton.errors.DataError, match="segment 'b'"):
        pelton.PartialPooling([1, 4], [3, 4], prior=pelton.Bda(), segments=["a", "b"])


def test_fixed_beta_with_segments():
    model = pelton.PartialPooling([3, 4, 5], [10, 10, 10], prior=pelton.FixedBeta(2, 8), segments=["a", "b", "a"])
    tree = pelton.sample(model, draws=500)
    np.testing.assert_allclose(pelton.unit_summary(tree)["mean"], [5 / 20, 6 / 20, 7 / 20])


def test_default_sampler_is_the_grid_where_two_numbers_are_unknown():
    successes, trials, region, x = simulated(units=60, regions=3)
    for settings, expected in (({}, "grid"), ({"segments": region}, "grid"), ({"covariates": x}, "nuts")):
        tree = pelton.sample(pelton.PartialPooling(successes, trials, **settings))
        assert tree.attrs["sampler"] == expected
        assert tree.attrs["converged"]


def test_a_posterior_that_no_grid_holds_says_so():
    """Two units with equal rates of four million trials: at large kappa the mean is known a thousand times better."""
    model = pelton.PartialPooling([10**6] * 2, [4 * 10**6] * 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = pelton.sample(model, sampler="grid")
    assert tree.attrs["converged"] == 0
    assert any("does not fit the grid" in str(warning.message) for warning in caught)
