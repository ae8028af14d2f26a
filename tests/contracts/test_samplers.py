"""What every registered sampler must pass: targets whose moments are known."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import pelton
from pelton.engine.posterior import Posterior
from pelton.engine.samplers import REGISTRY, sampler_class
from tests.statistics import assert_agrees

SAMPLERS = sorted(REGISTRY)


class Start:
    """Dispersed standard normal starts; equal for equal dimensions."""

    def __init__(self, dimension):
        self.dimension = dimension

    def __call__(self, key, data):
        import jax

        del data
        return 2 * jax.random.normal(key, (self.dimension,))

    def __eq__(self, other):
        return type(self) is type(other) and self.dimension == other.dimension

    def __hash__(self):
        return hash(self.dimension)


def identity(position, data):
    del data
    return {"x": position}


def posterior(logdensity, dimension, data):
    return Posterior(dimension, logdensity, identity, Start(dimension), data, dims={"x": ("axis",)})


def gaussian(position, data):
    mean, precision = data
    centred = position - mean
    return -0.5 * centred @ precision @ centred


def correlated(dimension, correlation, seed):
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.uniform(-2, 2, dimension))
    covariance = correlation ** np.abs(np.subtract.outer(np.arange(dimension), np.arange(dimension)))
    covariance = covariance * np.outer(scale, scale)
    return rng.normal(size=dimension), covariance


def fits(name, dimension):
    largest = sampler_class(name).max_dimension
    return largest is None or dimension <= largest


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(("dimension", "correlation"), [(1, 0.0), (2, 0.95), (50, 0.9)])
def test_correlated_gaussian(name, dimension, correlation):
    if not fits(name, dimension):
        pytest.skip(f"{name} takes at most {sampler_class(name).max_dimension} dimensions")
    mean, covariance = correlated(dimension, correlation, 1)
    sd = np.sqrt(np.diag(covariance))
    target = posterior(gaussian, dimension, (mean, np.linalg.inv(covariance)))
    tree = pelton.sample(target, sampler=name, draws=2000, seed=3)
    draws = np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0)
    points = {p: mean + sd * stats.norm.ppf(p) for p in (0.05, 0.95)}
    assert_agrees(draws, mean=mean, sd=sd, quantiles=points)
    assert tree.attrs["converged"]


def funnel(position, data):
    """Neal's funnel, not centred: v ~ Normal(0, 3) and x_i = exp(v / 2) z_i."""
    del data
    v, z = position[0], position[1:]
    return -0.5 * (v / 3) ** 2 - 0.5 * jnp.sum(z**2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_funnel_not_centred(name):
    dimension = 2 if not fits(name, 10) else 10
    target = posterior(funnel, dimension, ())
    tree = pelton.sample(target, sampler=name, draws=2000, seed=4)
    x = np.asarray(tree["posterior"]["x"])
    assert_agrees(x[..., 0], mean=0.0, sd=3.0, quantiles={p: 3 * stats.norm.ppf(p) for p in (0.05, 0.95)})
    # log|x_1| = v / 2 + log|z_1| has known moments; |z|'s log has mean -(gamma + log 2) / 2 and variance pi^2 / 8.
    log_size = x[..., 0] / 2 + np.log(np.abs(x[..., 1]))
    mean, variance = -(np.euler_gamma + np.log(2)) / 2, 9 / 4 + np.pi**2 / 8
    assert_agrees(log_size, mean=mean, sd=np.sqrt(variance))


@pytest.mark.parametrize("name", SAMPLERS)
def test_beta_binomial_by_quadrature(name):
    """(logit mu, log kappa) of 12 units against a sum over a fine grid with scipy's beta functions."""
    from scipy.special import betaln, log_expit

    k = np.array([0, 18, 8, 46, 8, 13, 9, 31, 14, 8, 29, 24])
    n = np.array([47, 148, 119, 810, 211, 196, 148, 215, 207, 97, 256, 360])
    x, t = np.meshgrid(np.linspace(-4.5, -0.5, 801), np.linspace(-0.5, 14, 1451), indexing="ij")
    a, b = np.exp(log_expit(x) + t), np.exp(log_expit(-x) + t)
    log_density = sum(betaln(a + ki, b + ni - ki) - betaln(a, b) for ki, ni in zip(k, n, strict=True))
    # alpha ~ Gamma(2, 0.5), beta ~ Gamma(2, 0.02); the Jacobian to (logit mu, log kappa) is alpha beta.
    import numpyro.distributions as dist

    log_density = log_density + stats.gamma(2, scale=2).logpdf(a) + np.log(a)
    log_density = log_density + stats.gamma(2, scale=50).logpdf(b) + np.log(b)
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    assert weights[[0, -1]].sum() + weights[:, [0, -1]].sum() < 1e-9

    prior = pelton.Shapes(dist.Gamma(2.0, 0.5), dist.Gamma(2.0, 0.02))
    tree = pelton.sample(pelton.PartialPooling(k, n, prior=prior), sampler=name, draws=2000, seed=5)
    for variable, grid in (("logit_mu", x), ("log_kappa", t)):
        mean = np.sum(weights * grid)
        sd = np.sqrt(np.sum(weights * (grid - mean) ** 2))
        order = np.argsort(grid, axis=None)
        cumulative = np.cumsum(weights.ravel()[order])
        points = {p: grid.ravel()[order][np.searchsorted(cumulative, p)] for p in (0.05, 0.95)}
        step = np.diff(np.unique(grid)).mean()
        assert_agrees(tree["posterior"][variable], mean=mean, sd=sd)
        assert_agrees(tree["posterior"][variable], quantiles=points, truth_error=step)


@pytest.mark.parametrize("name", SAMPLERS)
def test_reports_what_it_did(name):
    target = posterior(gaussian, 2, (np.zeros(2), np.eye(2)))
    tree = pelton.sample(target, sampler=name, chains=2, warmup=500, draws=1000)
    stats_group = tree["sample_stats"]
    for variable in ("lp", "energy", "acceptance_rate", "n_steps", "tree_depth", "step_size", "diverging"):
        assert stats_group[variable].dims == ("chain", "draw")
        assert np.all(np.isfinite(stats_group[variable]))
    x = np.asarray(tree["posterior"]["x"])
    np.testing.assert_allclose(stats_group["lp"], -0.5 * np.sum(x**2, axis=-1), rtol=1e-12, atol=1e-12)
    assert 0 < float(stats_group["acceptance_rate"].mean()) <= 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_same_seed_same_draws_and_other_seed_other_draws(name):
    target = posterior(gaussian, 2, (np.zeros(2), np.eye(2)))
    settings = {"sampler": name, "chains": 2, "warmup": 500, "draws": 1000}
    one, two, three = (pelton.sample(target, seed=seed, **settings) for seed in (1, 1, 2))
    assert np.array_equal(one["posterior"]["x"], two["posterior"]["x"])
    assert not np.array_equal(one["posterior"]["x"], three["posterior"]["x"])


@pytest.mark.parametrize("name", SAMPLERS)
def test_threads_and_vectorised_follow_the_same_path_at_first(name):
    target = posterior(gaussian, 2, (np.zeros(2), np.eye(2)))
    settings = {"sampler": name, "chains": 3, "warmup": 0, "draws": 400, "metric": "diagonal"}
    import warnings

    with warnings.catch_warnings():
        # Without a warm-up the step size is not adapted, which the diagnostics may well say.
        warnings.simplefilter("ignore", pelton.errors.ConvergenceWarning)
        trees = [pelton.sample(target, chain_method=method, **settings) for method in ("threads", "vectorized")]
    one, two = (np.asarray(tree["posterior"]["x"]) for tree in trees)
    np.testing.assert_allclose(one[:, :3], two[:, :3], rtol=1e-6)
    assert_agrees(np.moveaxis(two, -1, 0), mean=0.0, sd=1.0, least_ess=100)


@pytest.mark.parametrize("name", SAMPLERS)
def test_float32(name):
    mean, covariance = correlated(2, 0.8, 6)
    data = (mean, np.linalg.inv(covariance))
    tree = pelton.sample(posterior(gaussian, 2, data), sampler=name, draws=2000, precision="float32")
    draws = np.asarray(tree["posterior"]["x"])
    assert draws.dtype == np.float32
    assert_agrees(np.moveaxis(draws, -1, 0), mean=mean, sd=np.sqrt(np.diag(covariance)))
