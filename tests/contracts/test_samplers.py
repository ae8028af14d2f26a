"""What every registered sampler must pass: targets whose moments are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

import pelton
from pelton.engine.posterior import Posterior
from pelton.engine.samplers import REGISTRY, sampler_class
from pelton.engine.samplers.base import Ensemble
from tests.samplers import SETTINGS
from tests.statistics import LIMIT, assert_agrees

SAMPLERS = sorted(REGISTRY)
ENSEMBLES = [name for name in SAMPLERS if issubclass(sampler_class(name), Ensemble)]
# Samplers of one step for all of a posterior want a small one where a tail is heavy, as that of eight schools' tau.
CAREFUL = {"blackjax-nuts": 0.99, "numpyro-nuts": 0.99}
# Samplers of several modes.
OF_MODES = ["mixture", "smc"]
# Fitted mixtures compile for long: of the targets with one mode the fast suite has two.
MIXTURE_SLOW = [pytest.param(name, marks=[pytest.mark.slow] if name == "mixture" else []) for name in SAMPLERS]
# In 500 dimensions grids, fitted mixtures and populations have nothing to say, or too much to reckon.
OF_MANY_DIMENSIONS = [name for name in SAMPLERS if name not in ("grid", "mixture", "smc")]


def draw(target, name, **settings):
    """Draws by a sampler, with its settings of the table above before the test's."""
    return pelton.sample(target, sampler=name, **settings | SETTINGS.get(name, {}))


class Start:
    """Dispersed standard normal starts; equal for equal dimensions."""

    def __init__(self, dimension):
        self.dimension = dimension

    def __call__(self, key, data):
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
    tree = draw(target, name, draws=2000, seed=3)
    draws = np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0)
    points = {p: mean + sd * stats.norm.ppf(p) for p in (0.05, 0.95)}
    assert_agrees(draws, mean=mean, sd=sd, quantiles=points)
    assert tree.attrs["converged"]


def chained(position, data):
    """A stationary autoregression, in as many operations as dimensions."""
    mean, sd, correlation = data
    z = (position - mean) / sd
    return -0.5 * z[0] ** 2 - 0.5 * jnp.sum((z[1:] - correlation * z[:-1]) ** 2) / (1 - correlation**2)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_MANY_DIMENSIONS)
def test_gaussian_of_500_dimensions(name):
    mean, covariance = correlated(500, 0.9, 1)
    sd = np.sqrt(np.diag(covariance))
    tree = draw(posterior(chained, 500, (mean, sd, np.float64(0.9))), name, draws=2000, seed=3)
    draws = np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0)
    points = {p: mean + sd * stats.norm.ppf(p) for p in (0.05, 0.95)}
    assert_agrees(draws, mean=mean, sd=sd, quantiles=points)
    assert tree.attrs["converged"]


def funnel(position, data):
    """Neal's funnel, not centred: v ~ Normal(0, 3) and x_i = exp(v / 2) z_i."""
    del data
    v, z = position[0], position[1:]
    return -0.5 * (v / 3) ** 2 - 0.5 * jnp.sum(z**2)


@pytest.mark.parametrize("name", MIXTURE_SLOW)
def test_funnel_not_centred(name):
    dimension = 2 if not fits(name, 10) else 10
    target = posterior(funnel, dimension, ())
    tree = draw(target, name, draws=2000, seed=4)
    x = np.asarray(tree["posterior"]["x"])
    assert_agrees(x[..., 0], mean=0.0, sd=3.0, quantiles={p: 3 * stats.norm.ppf(p) for p in (0.05, 0.95)})
    # log|x_1| = v / 2 + log|z_1| has known moments; |z|'s log has mean -(gamma + log 2) / 2 and variance pi^2 / 8.
    log_size = x[..., 0] / 2 + np.log(np.abs(x[..., 1]))
    mean, variance = -(np.euler_gamma + np.log(2)) / 2, 9 / 4 + np.pi**2 / 8
    assert_agrees(log_size, mean=mean, sd=np.sqrt(variance))


def eight_schools(position, data):
    """Schools of Rubin 1981, not centred: mu = 5 x_0, tau = 5 exp(x_1), theta_j = mu + tau z_j; tau half-Cauchy(5)."""
    effects, errors = data
    mu, tau, z = 5 * position[0], 5 * jnp.exp(position[1]), position[2:]
    log_prior = -0.5 * position[0] ** 2 + position[1] - jnp.log1p(jnp.exp(2 * position[1])) - 0.5 * jnp.sum(z**2)
    return log_prior - 0.5 * jnp.sum(((effects - mu - tau * z) / errors) ** 2)


@pytest.mark.parametrize("name", MIXTURE_SLOW)
def test_eight_schools_not_centred(name):
    """Against quadrature over log tau: given it, mu and the schools' effects are normal."""
    from scipy.optimize import brentq

    if not fits(name, 10):
        pytest.skip(f"{name} takes at most {sampler_class(name).max_dimension} dimensions")
    effects = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    errors = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    log_tau = np.linspace(-18, 6, 24001)
    tau = 5 * np.exp(log_tau)
    precision = 1 / (errors**2 + tau[:, None] ** 2)
    total = precision.sum(axis=1) + 1 / 25
    mean, sd = (precision * effects).sum(axis=1) / total, total**-0.5
    log_density = 0.5 * (np.log(precision).sum(axis=1) - np.log(total) - (precision * effects**2).sum(axis=1))
    log_density = log_density + 0.5 * mean**2 * total + log_tau - np.log1p(np.exp(2 * log_tau))
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    assert weights[[0, -1]].max() < 1e-9

    mu_mean = weights @ mean
    mu_sd = np.sqrt(weights @ (sd**2 + (mean - mu_mean) ** 2))
    mu_points = {p: brentq(lambda x, p=p: weights @ stats.norm.cdf((x - mean) / sd) - p, -40, 40) for p in (0.05, 0.95)}
    tau_mean = weights @ log_tau
    tau_sd = np.sqrt(weights @ (log_tau - tau_mean) ** 2)
    tau_points = {p: log_tau[np.searchsorted(np.cumsum(weights), p)] for p in (0.05, 0.95)}
    first = tau**2 * precision[:, 0] * effects[0] + errors[0] ** 2 * precision[:, 0] * mean

    tree = draw(
        posterior(eight_schools, 10, (effects, errors)), name, draws=4000, seed=8, target_accept=CAREFUL.get(name)
    )
    x = np.asarray(tree["posterior"]["x"])
    assert_agrees(5 * x[..., 0], mean=mu_mean, sd=mu_sd, quantiles=mu_points)
    assert_agrees(x[..., 1], mean=tau_mean, sd=tau_sd)
    assert_agrees(x[..., 1], quantiles=tau_points, truth_error=0.001)
    assert_agrees(5 * x[..., 0] + 5 * np.exp(x[..., 1]) * x[..., 2], mean=weights @ first)


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
    tree = draw(pelton.PartialPooling(k, n, prior=prior), name, draws=2000, seed=5)
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
    tree = draw(target, name, chains=2, warmup=500, draws=1000)
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
    settings = {"chains": 2, "warmup": 500, "draws": 1000}
    one, two, three = (draw(target, name, seed=seed, **settings) for seed in (1, 1, 2))
    assert np.array_equal(one["posterior"]["x"], two["posterior"]["x"])
    assert not np.array_equal(one["posterior"]["x"], three["posterior"]["x"])


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ENSEMBLES])
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
    tree = draw(posterior(gaussian, 2, data), name, draws=2000, precision="float32")
    draws = np.asarray(tree["posterior"]["x"])
    assert draws.dtype == np.float32
    assert_agrees(np.moveaxis(draws, -1, 0), mean=mean, sd=np.sqrt(np.diag(covariance)))


def two_modes(position, data):
    """0.3 Normal(-5, 1) + 0.7 Normal(5, 1) along the first axis, standard normal along the others."""
    log_weights, centres = data
    along = jax.scipy.special.logsumexp(log_weights - 0.5 * (position[0] - centres) ** 2)
    return along - 0.5 * jnp.sum(position[1:] ** 2)


@pytest.mark.parametrize("name", OF_MODES)
@pytest.mark.parametrize("dimension", [2, 10])
def test_two_modes_have_their_weights(name, dimension):
    data = (np.log([0.3, 0.7]), np.array([-5.0, 5.0]))
    # A population's weights are as good as its effective number says, so that chains count more than draws.
    tree = draw(posterior(two_modes, dimension, data), name, chains=8, draws=500, seed=9)
    x = np.asarray(tree["posterior"]["x"])
    left = x[..., 0] < 0
    effective = float(np.asarray(array_stats.ess(left.astype(float), method="mean")))
    effective = min(effective, np.sum(tree.attrs.get("effective_particles", np.inf)))
    assert effective >= 1000
    assert abs(left.mean() - 0.3) < LIMIT * np.sqrt(0.3 * 0.7 / effective)
    assert_agrees(np.where(left, x[..., 0] + 5, x[..., 0] - 5), mean=0.0, sd=1.0)
    assert_agrees(np.moveaxis(x[..., 1:], -1, 0), mean=0.0, sd=1.0)


@pytest.mark.parametrize("dimension", [2, 10])
def test_smc_knows_the_evidence(dimension):
    """Up to the spread of the populations' estimates, which is what there is to hold them against."""
    mean, covariance = correlated(dimension, 0.9, 1)
    target = posterior(gaussian, dimension, (mean, np.linalg.inv(covariance)))
    tree = draw(target, "smc", chains=8, draws=200, seed=10)
    found = np.array(tree.attrs["log_evidence"])
    truth = 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    assert abs(found.mean() - truth) < LIMIT * found.std(ddof=1) / np.sqrt(len(found))
    assert np.all(np.array(tree.attrs["population_gradients"]) > 0)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_refuse_threads_and_too_few_chains(name):
    target = posterior(gaussian, 2, (np.zeros(2), np.eye(2)))
    kind = sampler_class(name)
    assert issubclass(kind, Ensemble)
    least = kind.least_chains
    with pytest.raises(pelton.errors.ArgumentError, match="runs all chains together"):
        pelton.sample(target, sampler=name, chains=least, chain_method="threads")
    with pytest.raises(pelton.errors.ArgumentError, match=f"at least {least}, not {least - 1}"):
        pelton.sample(target, sampler=name, chains=least - 1)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_are_vectorised_and_the_tree_says_so(name):
    target = posterior(gaussian, 2, (np.zeros(2), np.eye(2)))
    assert draw(target, name, warmup=500)["posterior"].attrs["chain_method"] == "vectorized"


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_fit_segments_side_by_side(name):
    """Each segment has ensembles of its own, with other randomness."""
    precision = np.stack([np.eye(2), np.eye(2), np.eye(2) / 100])
    target = Posterior(2, gaussian, identity, Start(2), (np.zeros((3, 2)), precision), dims={"x": ("axis",)}, batch=3)
    tree = draw(target, name, warmup=500, draws=1000)
    x = np.moveaxis(np.asarray(tree["posterior"]["x"]), (2, 3), (0, 1))
    assert tree["posterior"]["x"].dims == ("chain", "draw", "segment", "axis")
    assert not np.array_equal(x[0], x[1])
    for segment, sd in enumerate((1.0, 1.0, 10.0)):
        assert_agrees(x[segment], mean=0.0, sd=sd)
