"""The coordinates that priors are sampled in, against scipy's distributions and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.stats

from pelton.models.pooling import Coordinates

PRIORS = {
    "half-normal": (lambda: dist.HalfNormal(0.5), scipy.stats.halfnorm(scale=0.5)),
    "exponential": (lambda: dist.Exponential(2.0), scipy.stats.expon(scale=0.5)),
    "gamma": (lambda: dist.Gamma(2.0, 3.0), scipy.stats.gamma(2, scale=1 / 3)),
    "beta": (lambda: dist.Beta(1.0, 3.0), scipy.stats.beta(1, 3)),
    "uniform": (lambda: dist.Uniform(0.0, 11.0), scipy.stats.uniform(0, 11)),
    "half-cauchy": (lambda: dist.HalfCauchy(0.3), scipy.stats.halfcauchy(scale=0.3)),
}
CASES = pytest.mark.parametrize("name", PRIORS)


def coordinates(*names):
    return Coordinates([PRIORS[name][0]() for name in names])


@CASES
def test_density_is_the_priors(name):
    """Probability of x between two limits, by scipy and by quadrature over u."""
    known = PRIORS[name][1]
    with jax.enable_x64(True):
        prior = coordinates(name)
        density = jax.jit(lambda u: jnp.exp(prior.log_prob(jnp.stack([u]))[0]))
        value = jax.jit(lambda u: prior.constrain(prior.eta(jnp.stack([u])))[0])
        for low, high in ((-6.0, -2.0), (-2.0, 0.3), (0.3, 4.0)):
            found, _ = scipy.integrate.quad(lambda u: float(density(u)), low, high, epsabs=1e-13, epsrel=1e-11)
            expected = known.cdf(float(value(high))) - known.cdf(float(value(low)))
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_samples_follow_the_priors():
    with jax.enable_x64(True):
        prior = coordinates(*PRIORS)
        x = np.asarray(prior.constrain(prior.eta(prior.sample(jax.random.key(1), (4000,)))))
    for column, (_, known) in enumerate(PRIORS.values()):
        assert scipy.stats.kstest(x[:, column], known.cdf).pvalue > 1e-3


@CASES
def test_coordinates_are_found_again(name):
    with jax.enable_x64(True):
        prior = coordinates(name)
        u = jnp.linspace(-6, 6, 49)[:, None]
        np.testing.assert_allclose(prior.at(prior.eta(u)), u, rtol=1e-9, atol=1e-9)


@CASES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_coordinates_have_finite_derivatives(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        prior = coordinates(name)
        for u in (-15.0, -1e-3, 0.0, 1e-3, 15.0):
            value, slope = jax.value_and_grad(lambda at: prior.log_prob(jnp.stack([at]))[0])(jnp.asarray(u, dtype))
            assert np.isfinite(value), (name, u)
            assert np.isfinite(slope), (name, u)


def test_u_is_nearly_normal_where_x_is_half_normal():
    """Skewness and excess kurtosis by quadrature; the logarithm of x has -1.5 and 4.0."""
    with jax.enable_x64(True):
        grid = np.linspace(-12, 8, 4001)
        density = np.exp(np.asarray(coordinates("half-normal").log_prob(jnp.asarray(grid)[:, None])[:, 0]))
    density = density / density.sum()
    mean = density @ grid
    central = [density @ (grid - mean) ** power for power in range(5)]
    assert abs(central[3] / central[2] ** 1.5) < 0.3
    assert abs(central[4] / central[2] ** 2 - 3) < 0.3
