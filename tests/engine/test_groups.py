"""Groups of foreign models: pointwise log-likelihoods and predictions, against NumPyro's own and closed forms."""

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive, log_likelihood
from scipy import stats

import pelton
from pelton.engine import groups
from tests.statistics import assert_agrees

X = np.linspace(-1, 1, 12)
Y = np.array([-0.8, -1.4, -0.2, -0.5, 0.4, -0.3, 0.3, 0.9, 0.1, 1.2, 0.9, 1.6])
ALL = ("log_likelihood", "posterior_predictive", "prior", "prior_predictive")


def line(x, y):
    slope = numpyro.sample("slope", dist.Normal(0, 2))
    sd = numpyro.sample("sd", dist.HalfNormal(1))
    numpyro.deterministic("double", 2 * slope)
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, sd), obs=y)


@pytest.fixture(scope="module")
def tree():
    return pelton.sample(pelton.from_numpyro(line, X, Y), chains=2, draws=1500, groups=ALL)


@pytest.fixture(scope="module")
def samples(tree):
    return {name: np.asarray(tree["posterior"][name]).reshape(-1) for name in ("slope", "sd")}


def test_the_log_likelihood_is_numpyros(tree, samples):
    with jax.enable_x64(True):
        expected = log_likelihood(line, samples, X, Y)["y"]
    found = tree["log_likelihood"]["y"]
    assert found.dims == ("chain", "draw", "row")
    np.testing.assert_allclose(found.values.reshape(-1, 12), expected, rtol=1e-12)


def test_arviz_reads_the_tree(tree):
    found = arviz.loo(tree)
    assert found.n_data_points == 12
    # The estimate is near the log predictive density of the line that fits, 12 independent terms.
    assert -20 < found.elpd < -5


def test_predictions_are_distributed_as_numpyros(tree, samples):
    drawn = np.asarray(tree["posterior_predictive"]["y"].isel(row=11))
    theirs = Predictive(line, samples)(jax.random.key(3), X, None)["y"][:, 11]
    assert_agrees(drawn, mean=np.mean(theirs), truth_error=np.std(theirs) / np.sqrt(len(theirs)))
    # A predicted value is the line's plus noise that is standard normal in units of sd.
    posterior = tree["posterior"]
    noise = (tree["posterior_predictive"]["y"] - posterior["slope"] * xr_like(tree)) / posterior["sd"]
    assert stats.kstest(noise.values.ravel()[::7], "norm").pvalue > 1e-4


def xr_like(tree):
    return tree["observed_data"]["y"].copy(data=X)


def test_the_prior_is_the_models(tree):
    prior, predicted = tree["prior"], tree["prior_predictive"]
    assert prior["slope"].shape == (1, groups.PRIOR_DRAWS)
    assert stats.kstest(prior["slope"].values.ravel(), stats.norm(0, 2).cdf).pvalue > 1e-4
    assert stats.kstest(prior["sd"].values.ravel(), stats.halfnorm().cdf).pvalue > 1e-4
    np.testing.assert_allclose(prior["double"], 2 * prior["slope"])
    noise = (predicted["y"] - prior["slope"] * xr_like(tree)) / prior["sd"]
    assert stats.kstest(noise.values.ravel()[::5], "norm").pvalue > 1e-4


def test_blocks_of_bounded_memory_make_the_same_groups(tree, monkeypatch):
    # Eleven rows of twelve float64 numbers: blocks of eight.
    monkeypatch.setattr(groups, "BLOCK_BYTES", 11 * 12 * 8)
    again = pelton.sample(pelton.from_numpyro(line, X, Y), chains=2, draws=1500, groups=ALL)
    for name in ALL:
        for variable in again[name].data_vars:
            np.testing.assert_allclose(again[name][variable], tree[name][variable], rtol=1e-12)


def test_a_group_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(groups, "free_memory", lambda: 50_000.0)
    target = pelton.from_numpyro(line, X, Y)
    # Nine tenths of what is free hold 468 draws of twelve float64 numbers.
    message = r"'log_likelihood' of 2000 draws, each of 96 bytes.*: 468 draws"
    with pytest.raises(pelton.errors.ResourceError, match=message):
        pelton.sample(target, chains=2, draws=1000, groups=["log_likelihood"])


def test_events_have_one_log_likelihood_each():
    values = np.random.default_rng(0).normal(size=(5, 3))

    def vectors(y):
        mean = numpyro.sample("mean", dist.Normal(0, 1).expand([3]).to_event(1))
        with numpyro.plate("row", 5):
            numpyro.sample("y", dist.MultivariateNormal(mean, jnp.eye(3)), obs=y)

    target = pelton.from_numpyro(vectors, values, dims={"y": ["row", "axis"]}, coords={"axis": list("abc")})
    tree = pelton.sample(target, chains=2, draws=1000, groups=["log_likelihood", "posterior_predictive"])
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "row")
    assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "row", "axis")
    mean = tree["posterior"]["mean"].values[0, 7]
    expected = stats.multivariate_normal(mean, np.eye(3)).logpdf(values)
    np.testing.assert_allclose(tree["log_likelihood"]["y"].values[0, 7], expected, rtol=1e-9)


def test_an_approximation_has_groups_too():
    tree = pelton.approximate(pelton.from_numpyro(line, X, Y), "laplace", groups=["log_likelihood"])
    draw = tree["posterior"].isel(chain=0, draw=3)
    expected = stats.norm(float(draw["slope"]) * X, float(draw["sd"])).logpdf(Y)
    np.testing.assert_allclose(tree["log_likelihood"]["y"].values[0, 3], expected, rtol=1e-9)


def test_nothing_unknown_and_improper_priors():
    def fixed(y):
        numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    tree = pelton.sample(pelton.from_numpyro(fixed, Y), chains=2, draws=50, groups=["log_likelihood"])
    np.testing.assert_allclose(tree["log_likelihood"]["y"].values[1, 49], stats.norm().logpdf(Y))

    def improper(y):
        mean = numpyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    target = pelton.from_numpyro(improper, Y)
    with pytest.raises(pelton.errors.ModelError, match="cannot be drawn from"):
        pelton.sample(target, chains=2, draws=1000, groups=["prior"])
    found = pelton.sample(target, chains=2, draws=1500, groups=["posterior_predictive"])
    assert_agrees(found["posterior"]["mean"], mean=Y.mean(), sd=12**-0.5)


def test_a_posterior_without_groups_says_so():
    target = pelton.from_logdensity(lambda x: -0.5 * jnp.sum(x**2), np.zeros(2))
    with pytest.raises(pelton.errors.ArgumentError, match="offers no further groups, and prior were asked for"):
        pelton.sample(target, groups=["prior"])
