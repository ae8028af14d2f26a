"""The trees, the metric and the loop of NUTS, against plain recursion, closed forms and NumPyro's parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpyro.infer.hmc_util import dual_averaging

import pelton
from pelton.engine.errors import ConvergenceWarning
from pelton.engine.posterior import Posterior
from pelton.engine.run import _Engine
from pelton.engine.samplers import nuts
from pelton.engine.samplers.nuts import Kept, Nuts, _subtree_turns
from pelton.engine.warmup import DualAverage, Metric, Moments, estimate, schedule
from tests.statistics import assert_agrees

# Subtrees.


def turns(inverse, momenta):
    """Whether a balanced stretch of momenta, or one of its halves with the leaf beyond it, makes a U-turn."""

    def stretch(part):
        velocity = inverse * np.sum(part, axis=0)
        return velocity @ part[0] <= 0 or velocity @ part[-1] <= 0

    half = len(momenta) // 2
    return stretch(momenta) or (half > 1 and (stretch(momenta[: half + 1]) or stretch(momenta[half - 1 :])))


def first_turn(inverse, momenta):
    """Index of the leaf at which recursion over all balanced parts first finds a turn, or None."""
    for leaf in range(1, len(momenta), 2):
        size = 2
        while (leaf + 1) % size == 0:
            if turns(inverse, momenta[leaf + 1 - size : leaf + 1]):
                return leaf
            size *= 2
    return None


def found_turn(inverse, momenta):
    """The same by the rows that the sampler keeps."""
    metric, turns_at = Metric(jnp.asarray(inverse), jnp.asarray(inverse**-0.5)), jax.jit(_subtree_turns)
    rows, d = 10, momenta.shape[1]
    kept, total = Kept(*(jnp.zeros((rows, d)) for _ in range(3))), np.zeros(d, np.float32)
    for leaf, momentum in enumerate(momenta):
        total = total + momentum
        if leaf % 2 == 0:
            at = bin(leaf >> 1).count("1")
            before = momenta[leaf - 1] if leaf else momentum
            row = Kept(momentum, total, before)
            kept = Kept(*(store.at[at].set(value) for store, value in zip(kept, row, strict=True)))
        elif turns_at(metric, kept, leaf, momentum, total):
            return leaf
    return None


def test_subtree_turns_are_those_of_recursion():
    source, met = np.random.default_rng(0), set()
    for _ in range(60):
        # Slowly turning momenta, so that turns are met at all sizes.
        speed, phase = source.uniform(0.02, 0.8), source.uniform(0, 6)
        steps = np.arange(64)[:, None] * speed * source.uniform(0.5, 1.0, 3)
        momenta = (np.cos(steps + phase) + 0.3 * source.normal(size=(64, 3))).astype(np.float32)
        inverse = source.uniform(0.2, 2.0, 3)
        expected = first_turn(inverse, momenta)
        assert found_turn(inverse, momenta) == expected
        met.add(expected)
    assert len(met) > 8


# Adaptation.


def test_dual_averaging_is_numpyros():
    begin, update = dual_averaging(t0=10, kappa=0.75, gamma=0.05)
    theirs, ours = begin(np.log(10 * 0.3)), DualAverage.at(jnp.log(jnp.asarray(0.3)))
    for missing in np.random.default_rng(0).uniform(-0.2, 0.8, 30):
        theirs, ours = update(missing, theirs), ours.updated(jnp.asarray(missing))
        np.testing.assert_allclose(ours.log_step, theirs[0], rtol=2e-5, atol=1e-5)
        np.testing.assert_allclose(ours.log_average, theirs[1], rtol=2e-5, atol=1e-5)


def moments(draws, scores, dense):
    with jax.enable_x64(True):
        found = Moments.empty(draws.shape[1], dense, jnp.dtype("float64"))
        for draw, score in zip(draws, scores, strict=True):
            found = found.updated(jnp.asarray(draw), jnp.asarray(score))
    return found


def test_moments_are_numpys():
    source = np.random.default_rng(1)
    draws, scores = 1e3 + source.normal(size=(2, 50, 4))
    found = moments(draws, scores, True)
    np.testing.assert_allclose(np.asarray(found.squares)[0] / 49, np.cov(draws.T), rtol=1e-10)
    np.testing.assert_allclose(
        np.asarray(moments(draws, scores, False).squares)[1] / 49, scores.var(axis=0, ddof=1), rtol=1e-10
    )


def test_metric_of_a_gaussian_is_its_covariance():
    source = np.random.default_rng(2)
    root = np.tril(source.normal(size=(5, 5))) + 3 * np.eye(5)
    covariance = np.diag([1e-3, 1, 10, 1e3, 1.0]) @ root @ root.T @ np.diag([1e-3, 1, 10, 1e3, 1.0])
    draws = source.multivariate_normal(np.zeros(5), covariance, 3000)
    with jax.enable_x64(True):
        old = Metric(jnp.eye(5), jnp.eye(5))
        metric = estimate(moments(draws, -draws @ np.linalg.inv(covariance), True), old)
        inverse, factor = np.asarray(metric.inverse), np.asarray(metric.factor)
    scale = np.sqrt(np.diag(covariance))
    # Draws and scores of a Gaussian give its covariance but for the shrinking, 5 draws in 3,000.
    np.testing.assert_allclose(inverse / np.outer(scale, scale), covariance / np.outer(scale, scale), atol=5e-3)
    np.testing.assert_allclose(factor @ factor.T @ inverse, np.eye(5), atol=1e-7)


def test_diagonal_metric_of_independent_normals_is_exact():
    source, variances = np.random.default_rng(3), np.array([1e-6, 1.0, 1e4])
    draws = source.normal(size=(5, 3)) * np.sqrt(variances)
    with jax.enable_x64(True):
        metric = estimate(moments(draws, -draws / variances, False), Metric(jnp.ones(3), jnp.ones(3)))
    np.testing.assert_allclose(metric.inverse, variances, rtol=1e-10)


@pytest.mark.parametrize("steps", [0, 1, 2, 9, 30, 100, 1000])
def test_schedule_of_any_length(steps):
    ends, early, final = schedule(steps)
    assert 0 <= early <= final <= steps
    assert len(ends) == max(steps, 1)
    assert not ends[final:steps].any()


# The loop.


def start(key, data):
    del data
    return 2 * jax.random.normal(key, (3,))


def identity(position, data):
    del data
    return {"x": position}


def normal(position, data):
    return -0.5 * jnp.sum((position / data) ** 2)


def test_neighbours_do_not_change_a_bit():
    target = Posterior(3, normal, identity, start, np.array([0.2, 1.0, 9.0]), dims={"x": ("axis",)})
    with jax.enable_x64(True):
        engine = _Engine(target, Nuts(warmup_steps=50), 3, 7, "vectorized")
        state = engine._init(np.arange(3, dtype=np.uint32))
        others = jax.tree.map(lambda leaf: leaf, state)._replace(
            step_size=state.step_size * jnp.array([1.0, 0.03, 5.0])
        )
        program = engine.compiler(*engine._advancing(False, np.arange(3, dtype=np.uint32), state))
        runs = [
            program(
                jnp.arange(3, dtype=jnp.uint32),
                engine.segments,
                one,
                engine.seed,
                np.int32(0),
                np.int32(100),
                engine.data,
            )
            for one in (state, others)
        ]
    (_, one, info), (_, two, other) = runs
    assert np.array_equal(one[0, :100], two[0, :100])
    assert not np.array_equal(one[1, :100], two[1, :100])
    assert other.n_steps[1, :100].sum() > 3 * info.n_steps[0, :100].sum()


def test_vectorised_chains_wait_little_for_one_another():
    """Passes of the loop beside the leapfrogs of the chain with most, and of all: the last chunk's end is the waste."""
    target = Posterior(3, normal, identity, start, np.array([0.2, 1.0, 9.0]), dims={"x": ("axis",)})
    tree = pelton.sample(
        target, sampler="nuts", chains=32, warmup=300, draws=250, chain_method="vectorized", dense=False
    )
    steps = np.asarray(tree["sample_stats"]["n_steps"])
    lock_step = steps.max(axis=0).sum()
    passes = steps.sum(axis=1).max()
    assert passes < lock_step
    assert_agrees(np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0), mean=0.0, sd=np.array([0.2, 1.0, 9.0]))


def narrowing(position, data):
    """x0 ~ Normal(0, 1), x1 | x0 ~ Normal(0, exp(tanh(4 x0))): seven times as wide on the right as on the left."""
    del data
    log_sd = jnp.tanh(4 * position[0])
    return -0.5 * position[0] ** 2 - 0.5 * (position[1] * jnp.exp(-log_sd)) ** 2 - log_sd


def test_halved_steps_leave_the_distribution_alone(monkeypatch):
    """With a limit so low that half of the leaves are halved; without the way back the mean is five errors off."""
    monkeypatch.setattr(nuts, "MOST_STEP_ERROR", 0.3)
    target = Posterior(2, narrowing, identity, lambda k, d: jax.random.normal(k, (2,)), (), dims={"x": ("axis",)})
    tree = pelton.sample(target, sampler="nuts", draws=20000, warmup=0, dense=False, precision="float64")
    stats = tree["sample_stats"]
    assert float(stats["acceptance_rate"].mean()) < 0.7
    assert not stats["diverging"].any()
    normal = scipy.stats.norm()
    quantiles = {p: normal.ppf(p) for p in (0.05, 0.3, 0.5, 0.7, 0.95)}
    assert_agrees(tree["posterior"]["x"].values[..., 0], mean=0.0, sd=1.0, quantiles=quantiles)


def funnel(position, data):
    """v ~ Normal(0, 2), x_i ~ Normal(0, exp(v / 2)), i = 1 .. 4."""
    del data
    v, x = position[0], position[1:]
    return -0.125 * v**2 - 0.5 * jnp.sum(x**2) * jnp.exp(-v) - 2 * v


# Its energy mixes slowly, which is said, and its answer is right all the same.
@pytest.mark.filterwarnings("ignore:.*fraction of missing information:pelton.engine.errors.ConvergenceWarning")
def test_a_centred_funnel_is_followed_into_its_neck():
    target = Posterior(5, funnel, identity, lambda k, d: jax.random.normal(k, (5,)), (), dims={"x": ("axis",)})
    tree = pelton.sample(target, sampler="nuts", draws=20000, dense=False, precision="float64")
    assert not tree["sample_stats"]["diverging"].any()
    v = tree["posterior"]["x"].values[..., 0]
    assert_agrees(v, mean=0.0, sd=2.0, quantiles={p: 2 * scipy.stats.norm.ppf(p) for p in (0.05, 0.95)})


def half_nan(position, data):
    del data
    return jnp.where(position[0] > 0, -position[0] - 0.5 * jnp.sum(position[1:] ** 2), jnp.nan)


def test_a_density_that_is_nan_in_part_of_its_space():
    target = Posterior(3, half_nan, identity, start, (), dims={"x": ("axis",)})
    with pytest.warns(ConvergenceWarning):
        tree = pelton.sample(target, sampler="nuts", draws=500, warmup=500)
    x = np.asarray(tree["posterior"]["x"])
    assert np.all(x[..., 0] > 0)
    assert tree["sample_stats"]["diverging"].any()


def flat(position, data):
    del data
    return -0.5 * jnp.sum(position[1:] ** 2)


def constant(position, data):
    del position, data
    return jnp.zeros(())


@pytest.mark.parametrize("density", [flat, constant])
def test_flat_directions_end_in_a_warning(density):
    target = Posterior(3, density, identity, start, (), dims={"x": ("axis",)})
    with pytest.warns(ConvergenceWarning):
        tree = pelton.sample(target, sampler="nuts", draws=200, warmup=200, chains=2)
    assert tree.attrs["status"] != "converged"


def test_a_density_that_is_infinite_everywhere():
    def never(position, data):
        del data
        return jnp.where(position[0] > 1e9, 0.0, -jnp.inf)

    with pytest.raises(pelton.errors.ModelError, match="not finite at any of 100 starts"):
        pelton.sample(Posterior(3, never, identity, start, (), dims={"x": ("axis",)}), sampler="nuts")
