"""Fast approximations: exact where they must be, weighed where they are not, refused where there is no maximum."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from blackjax.optimizers.lbfgs import lbfgs_inverse_hessian_factors, lbfgs_inverse_hessian_formula_1

import pelton
from pelton.engine.approximations.normals import Pairs
from pelton.engine.errors import ArgumentError, ConvergenceWarning, ModelError
from pelton.engine.importance import importance, resampled
from tests.contracts.test_samplers import correlated, gaussian, posterior
from tests.statistics import assert_agrees

METHODS = ("pathfinder", "laplace", "advi", "map")
EIGHT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def normal(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def eight_schools(y, sd):
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfCauchy(5.0))
    with numpyro.plate("school", 8):
        effect = numpyro.sample("effect", dist.Normal(mean, spread))
        numpyro.sample("y", dist.Normal(effect, sd), obs=y)


def banana(y):
    across = numpyro.sample("across", dist.Normal(0.0, 3.0))
    numpyro.sample("along", dist.Normal(y * across**2, 1.0))


def coin(y):
    """Beta(4, 9) on the logit: successes 3, failures 8, a uniform prior."""
    rate = numpyro.sample("rate", dist.Beta(1.0, 1.0))
    numpyro.sample("y", dist.Binomial(11, rate), obs=y)


Y = np.array([0.5, 1.5, -0.2, 0.9])
NORMAL = pelton.from_numpyro(normal, Y)
COIN = pelton.from_numpyro(coin, np.float64(3.0))


def target(dimension):
    mean, covariance = correlated(dimension, 0.9, 1)
    return posterior(gaussian, dimension, (mean, np.linalg.inv(covariance))), mean, np.sqrt(np.diag(covariance))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("dimension", [2, 50])
def test_mode_of_a_normal_is_its_mean(dimension, precision):
    what, mean, sd = target(dimension)
    tree = pelton.approximate(what, "map", precision=precision)
    found = np.asarray(tree["posterior"]["x"])
    assert found.shape == (1, 1, dimension)
    assert found.dtype == np.dtype(precision)
    # The gradient is a difference of terms of size sd / smallest variance, each rounded.
    np.testing.assert_allclose(found[0, 0] / sd, mean / sd, atol=1e-9 if precision == "float64" else 2e-3)
    assert np.isnan(tree.attrs["khat"])
    assert tree.attrs["status"] == "approximation by map: the mode alone, without uncertainty"
    assert tree.attrs["gradient_norm"] < (1e-6 if precision == "float64" else 1e-1)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("method", "dimension"), [("laplace", 2), ("laplace", 50), ("advi", 2), ("pathfinder", 2)])
def test_normals_are_exact(method, dimension, precision):
    what, mean, sd = target(dimension)
    tree = pelton.approximate(what, method, draws=4000, seed=3, precision=precision)
    draws = np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0)
    assert draws.shape == (dimension, 1, 4000)
    assert draws.dtype == np.dtype(precision)
    points = {p: mean + sd * scipy.stats.norm.ppf(p) for p in (0.05, 0.95)}
    assert_agrees(draws, mean=mean, sd=sd, quantiles=points)
    assert tree.attrs["khat"] < 0.5
    # E_q[log p - log q] of the exact normal is log of its normalising constant.
    _, covariance = correlated(dimension, 0.9, 1)
    evidence = 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    np.testing.assert_allclose(tree.attrs["elbo"], evidence, atol=2e-2)


def test_full_rank_advi_of_fifty_dimensions():
    what, mean, sd = target(50)
    tree = pelton.approximate(what, "advi", draws=4000, seed=3, starts=1)
    assert_agrees(np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0), mean=mean, sd=sd)
    assert tree.attrs["khat"] < 0.5


def test_diagonal_advi_has_the_conditional_spreads():
    """The mean field of a normal has the means, and the sds given all else, 1 / sqrt(precision_ii) (Bishop 10.1.2)."""
    what, mean, _ = target(2)
    _, covariance = correlated(2, 0.9, 1)
    with pytest.warns(ConvergenceWarning, match="k-hat"):
        tree = pelton.approximate(what, "advi", draws=4000, covariance="diagonal")
    draws = np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0)
    assert_agrees(draws, mean=mean, sd=1 / np.sqrt(np.diag(np.linalg.inv(covariance))))
    assert tree.attrs["covariance"] == "diagonal"


@pytest.mark.parametrize("method", ["laplace", "pathfinder"])
def test_resampled_draws_of_a_rate(method):
    """Beta-binomial: the posterior is Beta(4, 9)."""
    tree = pelton.approximate(COIN, method, draws=2000, resample=True, seed=5)
    assert tree.attrs["khat"] < 0.7
    assert tree.attrs["resampled"] == 1
    truth = scipy.stats.beta(4, 9)
    assert_agrees(
        np.asarray(tree["posterior"]["rate"]),
        mean=truth.mean(),
        sd=truth.std(),
        quantiles={p: truth.ppf(p) for p in (0.05, 0.5, 0.95)},
    )


def test_weights_correct_plain_draws():
    tree = pelton.approximate(COIN, "laplace", draws=8000, seed=2)
    rate = np.asarray(tree["posterior"]["rate"]).ravel()
    weight = np.exp(np.asarray(tree["sample_stats"]["log_weight"], np.float64).ravel())
    np.testing.assert_allclose(weight.sum(), 1)
    truth = scipy.stats.beta(4, 9)
    error = np.sqrt(np.sum(weight**2 * (rate - truth.mean()) ** 2))
    assert abs(weight @ rate - truth.mean()) < 5 * error
    assert "plain draws" in tree.attrs["status"]


def test_partial_pooling_end_to_end(cases):
    import json

    import pandas as pd

    exact = json.loads((cases / "references.json").read_text())["streamrec_categories"]
    frame = pd.read_csv(cases / "streamrec_categories.csv")
    prior = pelton.MeanConcentration(mean=dist.Beta(2.0, 2.0), concentration=dist.Pareto(1.0, 1.5))
    model = pelton.PartialPooling.from_frame(
        frame, successes="clicks", trials="impressions", unit="category", prior=prior
    )
    tree = pelton.approximate(model, "laplace", draws=2000, resample=True, groups=("prior_predictive",))
    assert {"posterior", "sample_stats", "observed_data", "prior_predictive"} <= set(tree.children)
    assert tree["posterior"]["rate"].dims == ("chain", "draw", "unit")
    assert tree["posterior"]["unit"].values.tolist() == frame["category"].tolist()
    assert tree.attrs["khat"] < 0.7
    for name in ("logit_mu", "log_kappa"):
        assert_agrees(
            np.asarray(tree["posterior"][name]),
            mean=exact[name]["mean"],
            sd=exact[name]["sd"],
            quantiles=dict(zip((0.05, 0.5, 0.95), exact[name]["q05_q50_q95"], strict=True)),
        )
    table = pelton.unit_table(tree)
    assert len(table) == 25


# What must not be trusted.


@pytest.mark.parametrize("method", ["laplace", "pathfinder"])
def test_a_banana_warns(method):
    with pytest.warns(ConvergenceWarning, match=r"k-hat .* sample it instead"):
        tree = pelton.approximate(pelton.from_numpyro(banana, np.float64(1.0)), method, seed=3)
    assert tree.attrs["converged"] == 0
    assert tree.attrs["status"].startswith("NOT CONVERGED: ")
    assert tree.attrs["khat"] > 0.7


@pytest.mark.parametrize("method", ["advi", "pathfinder"])
def test_centred_eight_schools_warn(method):
    with pytest.warns(ConvergenceWarning, match=r"sample it instead"):
        tree = pelton.approximate(pelton.from_numpyro(eight_schools, *EIGHT), method, seed=3)
    assert tree.attrs["converged"] == 0
    assert tree.attrs["khat"] > 0.7


@pytest.mark.parametrize("method", ["map", "laplace"])
def test_centred_eight_schools_have_no_maximum(method):
    """Where the spread goes to 0 the density has no bound."""
    with pytest.raises(ModelError, match=r"gradient of norm .* needs a maximum .* sample it instead"):
        pelton.approximate(pelton.from_numpyro(eight_schools, *EIGHT), method)


def test_a_slope_without_top_is_refused():
    def slope(y):
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.factor("y", y * x)

    with pytest.raises(ModelError, match="maximum"):
        pelton.approximate(pelton.from_numpyro(slope, np.float64(1.0)), "map", steps=20)


def test_a_density_without_a_finite_value_is_an_error():
    def nowhere(y):
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.factor("y", jnp.nan * x * y)

    with pytest.raises(ModelError, match="not finite at any of 100 starts"):
        pelton.approximate(pelton.from_numpyro(nowhere, np.float64(1.0)), "laplace")


def test_a_non_finite_start_is_tried_again():
    def half(y):
        x = numpyro.sample("x", dist.Normal(2.0, 0.1))
        numpyro.factor("y", jnp.where(x > 0, y, -jnp.inf))

    tree = pelton.approximate(pelton.from_numpyro(half, np.float64(0.0)), "map", starts=8)
    np.testing.assert_allclose(tree["posterior"]["x"], 2.0, atol=1e-8)


# Settings and records.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "laplac"}, "did you mean 'laplace'"),
        ({"draws": 0}, "draws is a whole number of at least 1, not 0"),
        ({"seed": 2**64}, "seed is below"),
        ({"starts": 0}, "starts is a whole number of at least 1"),
        ({"steps": 0}, "steps is a whole number of at least 1, not 0"),
        ({"precision": "float16"}, "'float32', 'float64' or None"),
        ({"groups": ("priors",)}, "unknown group 'priors'; did you mean 'prior'"),
        ({"covariance": "full", "method": "laplace"}, "covariance is for 'advi' and not for 'laplace'"),
        ({"covariance": "round", "method": "advi"}, "'full', 'diagonal' or None"),
        ({"method": "map", "resample": True}, "one point and has no draws to resample"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ArgumentError) as caught:
        pelton.approximate(NORMAL, **settings)
    assert message in str(caught.value)


def test_refuses_batches_and_what_has_nothing_unknown():
    batch = pelton.from_numpyro(normal, np.stack([Y, Y]), batch=2)
    with pytest.raises(ArgumentError, match=r"batch of 2 \(segment\)"):
        pelton.approximate(batch)
    fixed = pelton.PartialPooling([9, 22], [138, 72], prior=pelton.FixedBeta(2.0, 8.0))
    with pytest.raises(ArgumentError, match="nothing unknown"):
        pelton.approximate(fixed)


def test_laplace_refuses_more_dimensions_than_it_can():
    what = posterior(gaussian, 2001, (np.zeros(2001), np.zeros((2001, 2001))))
    with pytest.raises(ArgumentError, match="at most 2000 dimensions and this posterior has 2001"):
        pelton.approximate(what, "laplace")


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_draws(method):
    one, two, other = (pelton.approximate(NORMAL, method, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one["posterior"]["mean"], two["posterior"]["mean"])
    assert two.attrs["seconds_compiling"] == 0
    if method != "map":
        assert not np.array_equal(one["posterior"]["mean"], other["posterior"]["mean"])


def test_new_data_compile_nothing():
    pelton.approximate(NORMAL, "laplace")
    tree = pelton.approximate(pelton.from_numpyro(normal, Y + 3), "laplace")
    assert tree.attrs["seconds_compiling"] == 0
    precision = len(Y) + 1 / 100
    assert abs(float(tree["posterior"]["mean"].mean()) - (Y + 3).sum() / precision) < 5 / np.sqrt(1000 * precision)


def test_without_resampling_pathfinder_has_a_chain_for_each_start():
    tree = pelton.approximate(NORMAL, "pathfinder", draws=700, starts=3, resample=False)
    assert tree["posterior"]["mean"].shape == (3, 700)
    assert tree["sample_stats"]["lp_approx"].shape == (3, 700)
    assert_agrees(np.asarray(tree["posterior"]["mean"]), mean=Y.sum() / 4.01, sd=1 / np.sqrt(4.01))


@pytest.mark.parametrize("method", METHODS)
def test_attributes_say_what_was_done(method):
    before = dict(jax.config.values)
    attrs = pelton.approximate(NORMAL, method, seed=7).attrs
    assert dict(jax.config.values) == before
    assert (attrs["approximation"], attrs["seed"], attrs["precision"]) == (method, 7, "float64")
    assert attrs["gradient_evaluations"] > 0
    assert attrs["converged"] == 1
    assert attrs["status"].startswith(f"approximation by {method}: ")
    for name in ("seconds_compiling", "seconds_fitting", "seconds_drawing"):
        assert attrs[name] >= 0


# Parts.


def test_inverse_hessian_is_blackjaxs():
    source = np.random.default_rng(0)
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        hessian = jnp.asarray(np.cov(source.normal(size=(4, 40))) + np.eye(4))
        pairs = Pairs.none(jnp.zeros(4), 6)
        for _ in range(3):
            step = jnp.asarray(source.normal(size=4))
            pairs = pairs.pushed(step, hessian @ step)
        theirs = lbfgs_inverse_hessian_factors(pairs.steps[-3:].T, pairs.falls[-3:].T, pairs.diagonal)
        expected = lbfgs_inverse_hessian_formula_1(pairs.diagonal, *theirs)
        beta, gamma = pairs.factors()
        np.testing.assert_allclose(jnp.diag(pairs.diagonal) + beta @ gamma @ beta.T, expected, atol=1e-10)
        # The normal's own covariance and density, against SciPy.
        found = pairs.normal(jnp.ones(4), jnp.asarray([0.3, -0.2, 0.1, 0.5]))
        factor = np.asarray(found.spread(jnp.eye(4))).T
        np.testing.assert_allclose(factor @ factor.T, expected, atol=1e-10)
        np.testing.assert_allclose(found.marginal_sd(), np.sqrt(np.diag(expected)), atol=1e-10)
        point = jnp.asarray(source.normal(size=4))
        truth = scipy.stats.multivariate_normal(found.mean, expected).logpdf(point)
        np.testing.assert_allclose(found.log_pdf(point), truth, atol=1e-9)
        # One Newton step up: with the gradient of the log density, mean = x + H g.
        np.testing.assert_allclose(found.mean, 1 + expected @ np.array([0.3, -0.2, 0.1, 0.5]), atol=1e-10)


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_khat_of_exponentials(rate):
    """Ratios of Exponential(rate) to Exponential(1) at draws of the latter are Pareto with k = 1 - rate."""
    draws = np.random.default_rng(2).exponential(size=40_000)
    found = importance(-rate * draws, -draws)
    # ArviZ fits the 3 sqrt(n) largest; the estimate's standard error is (1 + k) / sqrt(number).
    error = (2 - rate) / np.sqrt(3 * np.sqrt(len(draws)))
    assert abs(found.khat - (1 - rate)) < 5 * error


def test_importance_of_equal_and_of_impossible_draws():
    even = importance(np.full(1000, -3.0), np.full(1000, -1.0))
    assert (even.khat, even.effective) == (0.0, 1000.0)
    assert importance(np.full(1000, -np.inf), np.zeros(1000)).khat == np.inf
    half = np.where(np.arange(1000) % 2 == 0, 0.0, -np.inf)
    found = importance(half + np.random.default_rng(0).uniform(0, 0.1, 1000), np.zeros(1000))
    assert np.all(np.isneginf(found.log_weights[1::2]))
    assert found.khat < 0.7
    assert 499 < found.effective <= 500


def test_systematic_resampling_takes_each_draw_its_number_of_times():
    weights = np.random.default_rng(1).dirichlet(np.ones(50))
    rows = resampled(np.log(weights), 400, np.random.default_rng(2))
    counts = np.bincount(rows, minlength=50)
    assert np.all(np.abs(counts - 400 * weights) < 1)
