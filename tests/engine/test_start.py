"""Populations and mixtures from which chains start: conjugate answers, known mode shares, scipy's densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import pelton
from pelton.engine import mixture
from pelton.engine.posterior import Hierarchy, Posterior
from pelton.engine.start import pilot
from tests.statistics import assert_agrees

# Group means y_b with known errors; theta_b ~ Normal(mu, 1), mu ~ Normal(0, 5).
Y = np.array([2.0, 3.5, -1.0, 0.7])
ERROR = 0.8


def shared_density(shared, data):
    del data
    return -0.5 * jnp.sum((shared / 5) ** 2)


def block_prior(block, shared, data):
    del data
    return -0.5 * jnp.sum((block - shared[0]) ** 2)


def block_likelihood(block, index, data):
    return -0.5 * jnp.sum(((data[index] - block) / ERROR) ** 2)


def references(data):
    del data
    return jnp.zeros((1, 5)), jnp.full((1, 5), 6.0)


def normal_density(position, data):
    h = NORMAL
    blocks = position[1:, None]
    parts = [h.block_prior(blocks[b], position[:1], data) + h.block_likelihood(blocks[b], b, data) for b in range(4)]
    return h.shared_density(position[:1], data) + sum(parts)


NORMAL = Hierarchy(1, 4, 1, shared_density, block_prior, block_likelihood, references)


def truth():
    """Mean and covariance of (mu, theta), by the precision matrix."""
    precision = np.zeros((5, 5))
    precision[0, 0] = 1 / 25 + 4
    precision[0, 1:] = precision[1:, 0] = -1
    precision[1:, 1:] = np.diag(np.full(4, 1 + 1 / ERROR**2))
    covariance = np.linalg.inv(precision)
    return covariance @ np.concatenate([[0.0], Y / ERROR**2]), covariance


def start(key, data):
    del data
    return 3 * jax.random.normal(key, (5,))


def constrain(position, data):
    del data
    return {"mu": position[0], "theta": position[1:]}


def test_pilot_of_a_normal_hierarchy():
    with jax.enable_x64(True):
        found = pilot(NORMAL, jnp.asarray(Y), jax.random.key(0), size=2000, components=2, shared_components=2)
    mean, covariance = truth()
    # The shared coordinate comes from all blocks, the last block from all data. Members are not independent and the
    # blocks before enter as a mixture, so half the nominal size is asked of them.
    last = np.asarray(found.block_members)[-1, :, 0]
    for members, at in ((np.asarray(found.shared_members)[:, 0], 0), (last, 4)):
        sd = np.sqrt(covariance[at, at])
        assert abs(float(members.mean()) - mean[at]) < 5 * sd / np.sqrt(1000)
        assert abs(float(members.std()) / sd - 1) < 5 / np.sqrt(2 * 1000)
    assert np.all(np.asarray(found.rises) > 1)


def test_evidence_of_the_first_block():
    """The reference is normalised up to (2 pi)^(d/2), and so are the model's densities here."""
    with jax.enable_x64(True):
        found = pilot(NORMAL, jnp.asarray(Y), jax.random.key(1), size=2000, components=2, shared_components=2)
    # Integral of exp(-mu^2/50) exp(-(t-mu)^2/2) exp(-(y-t)^2/(2 e^2)) over mu and t, each density unnormalised;
    # the reference's density lacks the same 2 pi of two dimensions.
    variance = 25 + 1 + ERROR**2
    log_integral = stats.norm.logpdf(Y[0], 0, np.sqrt(variance)) + np.log(5 * ERROR) + 0.5 * np.log(2 * np.pi)
    assert abs(float(found.evidence[0, 0]) - log_integral) < 0.3


@pytest.mark.long
def test_sampler_on_a_normal_hierarchy():
    posterior = Posterior(
        5, normal_density, constrain, start, Y, dims={"theta": ("group",)}, hierarchy=NORMAL, sampler="mixture"
    )
    tree = pelton.sample(posterior, draws=2000, warmup=100, seed=2)
    mean, covariance = truth()
    draws = np.concatenate([np.asarray(tree["posterior"]["mu"])[..., None], tree["posterior"]["theta"]], axis=-1)
    assert_agrees(np.moveaxis(draws, -1, 0), mean=mean, sd=np.sqrt(np.diag(covariance)))
    position = draws[1, 3]
    with jax.enable_x64(True):
        np.testing.assert_allclose(tree["sample_stats"]["lp"][1, 3], normal_density(jnp.asarray(position), Y))


def two_modes(position, data):
    """0.8 Normal(-6, 1) + 0.2 Normal(6, 0.3) in the first coordinate, the second standard normal."""
    del data
    first = jnp.log(0.8) - 0.5 * (position[0] + 6) ** 2
    second = jnp.log(0.2 / 0.3) - 0.5 * ((position[0] - 6) / 0.3) ** 2
    return jnp.logaddexp(first, second) - 0.5 * position[1] ** 2


def wide_start(key, data):
    del data
    return 5 * jax.random.normal(key, (2,))


def plane(position, data):
    del data
    return {"x": position}


@pytest.mark.long
def test_sampler_crosses_between_modes_in_the_right_proportion():
    posterior = Posterior(2, two_modes, plane, wide_start, (), dims={"x": ("axis",)})
    tree = pelton.sample(posterior, sampler="mixture", draws=2000, warmup=100, seed=3)
    x = np.asarray(tree["posterior"]["x"])[..., 0]
    assert_agrees((x > 0).astype(float)[None], mean=0.2)
    assert_agrees(np.where(x < 0, x + 6, 0.0)[None], mean=0.0)
    assert not np.any(tree["sample_stats"]["diverging"])


def test_refuses_blocks_of_many_dimensions():
    posterior = Posterior(30, two_modes, plane, wide_start)
    with pytest.raises(pelton.errors.ArgumentError, match="at most 20 dimensions a block and this posterior has 30"):
        pelton.sample(posterior, sampler="mixture")


def test_mixture_density_and_draws():
    rng = np.random.default_rng(4)
    with jax.enable_x64(True):
        factor = jnp.asarray(np.stack([np.tril(rng.normal(size=(3, 3))) + 2 * np.eye(3) for _ in range(2)]))
        mean = jnp.asarray(rng.normal(size=(2, 3)))
        weights = np.array([0.3, 0.7])
        q = mixture.Mixture(jnp.log(weights), mean, factor, jnp.linalg.inv(factor))
        points = rng.normal(size=(6, 3)) * 3
        parts = list(zip(weights, np.asarray(mean), np.asarray(factor), strict=True))
        truth_t = sum(w * stats.multivariate_t(m, f @ f.T, 8).pdf(points) for w, m, f in parts)
        np.testing.assert_allclose(mixture.logpdf(q, jnp.asarray(points)), np.log(truth_t), rtol=1e-10)
        truth_n = sum(
            w * stats.multivariate_normal(m, f @ f.T * 8 / 6 / mixture.WIDEN).pdf(points) for w, m, f in parts
        )
        np.testing.assert_allclose(mixture.logpdf(q, jnp.asarray(points), normal=True), np.log(truth_n), rtol=1e-10)
        drawn = np.asarray(mixture.draw(q, jax.random.key(5), 20000))
        # The share below a plane, by the components' t distributions.
        share = sum(w * stats.t(8).cdf((0 - m[0]) / abs(f[0, 0])) for w, m, f in parts)
        assert abs((drawn[:, 0] < 0).mean() - share) < 5 * np.sqrt(share * (1 - share) / 20000)
        first = mixture.leading(q, 2)
        truth_2 = sum(w * stats.multivariate_t(m[:2], (f @ f.T)[:2, :2], 8).pdf(points[:, :2]) for w, m, f in parts)
        np.testing.assert_allclose(mixture.logpdf(first, jnp.asarray(points[:, :2])), np.log(truth_2), rtol=1e-10)


def test_fit_finds_separate_clusters():
    rng = np.random.default_rng(6)
    left, right = rng.normal(-5, 1, (1500, 2)), rng.normal(5, 0.5, (500, 2))
    with jax.enable_x64(True):
        q = mixture.fit(jnp.asarray(np.concatenate([left, right])), jax.random.key(0), 4)
        drawn = np.asarray(mixture.draw(q, jax.random.key(1), 20000))
    assert abs((drawn[:, 0] > 0).mean() - 0.25) < 0.03
    assert abs(drawn[drawn[:, 0] > 0].mean(axis=0) - 5).max() < 0.1
