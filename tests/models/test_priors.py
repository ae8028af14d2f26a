"""Priors in (logit mean, log concentration) against scipy's densities with the Jacobian written out."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import integrate, special, stats

import pelton
from pelton.engine.errors import ArgumentError, UnknownNameError
from pelton.models.priors import Prior, from_text

X, T = np.array([-3.0, -0.4, 0.0, 2.0]), np.array([0.3, 1.0, 4.0, 7.0])


def name(value):
    return repr(value) if isinstance(value, Prior) else "scipy"


def log_prior(prior, x, t):
    """The model's log density at (logit mu, log kappa) = (x, t)."""
    with jax.enable_x64(True):
        values = {"logit_mu": jnp.asarray(x), "log_kappa": jnp.asarray(t), "population": jnp.array([x, t])}
        value, _ = numpyro.infer.util.log_density(prior.sites, (), {}, values)
    return float(value)


def mean_concentration(x, t, mean, concentration):
    mu, kappa = special.expit(x), np.exp(t)
    return mean.logpdf(mu) + np.log(mu * (1 - mu)) + concentration.logpdf(kappa) + t


@pytest.mark.parametrize(
    ("prior", "mean", "concentration"),
    [
        (
            pelton.MeanConcentration(dist.Beta(2.0, 3.0), dist.Pareto(1.0, 1.5)),
            stats.beta(2, 3),
            stats.pareto(1.5),
        ),
        (
            pelton.MeanConcentration(dist.Uniform(0.01, 0.95), dist.Gamma(2.0, 0.1)),
            stats.uniform(0.01, 0.94),
            stats.gamma(2, scale=10),
        ),
        (
            pelton.MeanConcentration(dist.Beta(1.0, 1.0), dist.LogNormal(3.0, 1.5)),
            stats.uniform(),
            stats.lognorm(1.5, scale=np.exp(3)),
        ),
        (
            pelton.MeanConcentration(dist.TruncatedNormal(0.3, 0.2, low=0.0, high=1.0), dist.HalfCauchy(5.0)),
            stats.truncnorm(-1.5, 3.5, 0.3, 0.2),
            stats.halfcauchy(scale=5),
        ),
    ],
    ids=name,
)
def test_mean_concentration(prior, mean, concentration):
    for x in X:
        for t in T:
            # NumPyro keeps the parameters of some distributions in float32.
            np.testing.assert_allclose(log_prior(prior, x, t), mean_concentration(x, t, mean, concentration), rtol=2e-6)


@pytest.mark.parametrize(
    ("prior", "alpha", "beta"),
    [
        (pelton.GammaShapes(0.5, 0.5), stats.gamma(0.5, scale=2), stats.gamma(0.5, scale=2)),
        (
            pelton.Shapes(dist.HalfNormal(10.0), dist.Exponential(0.1)),
            stats.halfnorm(scale=10),
            stats.expon(scale=10),
        ),
    ],
    ids=name,
)
def test_shapes(prior, alpha, beta):
    for x in X:
        for t in T:
            a, b = special.expit(x) * np.exp(t), special.expit(-x) * np.exp(t)
            expected = alpha.logpdf(a) + np.log(a) + beta.logpdf(b) + np.log(b)
            np.testing.assert_allclose(log_prior(prior, x, t), expected, rtol=2e-6)


@pytest.mark.long
def test_shapes_integrate_to_one():
    prior = pelton.GammaShapes(2.0, 0.5)
    value, _ = integrate.dblquad(
        lambda t, x: np.exp(
            stats.gamma(2, scale=2).logpdf(special.expit(x) * np.exp(t))
            + stats.gamma(2, scale=2).logpdf(special.expit(-x) * np.exp(t))
            + np.log(special.expit(x) * special.expit(-x))
            + 2 * t
        ),
        -12, 12, -8, 6, epsabs=1e-6,
    )  # fmt: skip
    np.testing.assert_allclose(value, 1.0, atol=1e-4)
    a, b = special.expit(0.3) * np.exp(1), special.expit(-0.3) * np.exp(1)
    expected = stats.gamma(2, scale=2).logpdf([a, b]).sum() + np.log(a * b)
    np.testing.assert_allclose(log_prior(prior, 0.3, 1.0), expected, rtol=2e-6)


def test_bda_is_the_books():
    """p(alpha, beta) ~ (alpha + beta)^(-5/2), times alpha beta for the logarithms, up to a constant."""

    def book(x, t):
        a, b = special.expit(x) * np.exp(t), special.expit(-x) * np.exp(t)
        return -2.5 * np.log(a + b) + np.log(a) + np.log(b)

    ours = [log_prior(pelton.Bda(), x, t) - book(x, t) for x in X for t in T]
    np.testing.assert_allclose(ours, ours[0], atol=1e-9)


def test_draws_have_the_priors_moments():
    prior = pelton.MeanConcentration(dist.Beta(2.0, 6.0), dist.Gamma(3.0, 0.1))
    mean, concentration = prior.draw(jax.random.key(0), 20_000)
    assert stats.kstest(special.expit(np.asarray(mean)), stats.beta(2, 6).cdf).pvalue > 1e-4
    assert stats.kstest(np.exp(np.asarray(concentration)), stats.gamma(3, scale=10).cdf).pvalue > 1e-4
    mean, concentration = pelton.GammaShapes(2.0, 0.5).draw(jax.random.key(1), 20_000)
    alpha = special.expit(np.asarray(mean)) * np.exp(np.asarray(concentration))
    assert stats.kstest(alpha, stats.gamma(2, scale=2).cdf).pvalue > 1e-4
    with pytest.raises(ArgumentError, match="improper"):
        pelton.Bda().draw(jax.random.key(0), 3)


def test_supports_are_checked():
    with pytest.raises(ArgumentError, match="must lie within 0 and 1"):
        pelton.MeanConcentration(mean=dist.Normal(0.0, 1.0))
    with pytest.raises(ArgumentError, match="must be positive"):
        pelton.MeanConcentration(concentration=dist.Normal(0.0, 1.0))
    with pytest.raises(ArgumentError, match="one number"):
        pelton.MeanConcentration(mean=dist.Beta(np.ones(2), np.ones(2)))
    with pytest.raises(ArgumentError, match="positive number"):
        pelton.Shapes(dist.Beta(1.0, 1.0), dist.HalfNormal(1.0))
    with pytest.raises(ArgumentError, match="positive"):
        pelton.GammaShapes(-1.0, 1.0)
    with pytest.raises(ArgumentError, match="alpha"):
        pelton.FixedBeta(0.0, 1.0)


def test_equality_is_by_value():
    one = pelton.MeanConcentration(dist.Beta(2.0, 2.0), dist.Pareto(1.0, 1.5))
    two = pelton.MeanConcentration(dist.Beta(2.0, 2.0), dist.Pareto(1.0, 1.5))
    other = pelton.MeanConcentration(dist.Beta(2.0, 2.5), dist.Pareto(1.0, 1.5))
    assert one == two
    assert hash(one) == hash(two)
    assert one != other
    assert pelton.GammaShapes(1.0, 2.0) == pelton.GammaShapes(1.0, 2.0)
    assert pelton.GammaShapes(1.0, 2.0) != pelton.GammaShapes(1.0, 3.0)


def test_as_the_command_line_writes_them():
    assert from_text("default") == pelton.MeanConcentration()
    assert from_text("gamma-shapes:0.5,0.5") == pelton.GammaShapes(0.5, 0.5)
    assert from_text("fixed-beta:11.5,48.5") == pelton.FixedBeta(11.5, 48.5)
    assert from_text("bda") == pelton.Bda()
    assert from_text("mean-concentration:2,2,1,1.5") == pelton.MeanConcentration(
        dist.Beta(2.0, 2.0), dist.Pareto(1.0, 1.5)
    )
    with pytest.raises(UnknownNameError, match="did you mean 'gamma-shapes'"):
        from_text("gamma-shape:1,2")
    for bad in ("fixed-beta:1", "fixed-beta:a,b", "bda:3", "gamma-shapes:0,1"):
        with pytest.raises(ArgumentError):
            from_text(bad)
