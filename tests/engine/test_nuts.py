"""The trees, the metric and the loop of NUTS, against plain recursion, closed forms and NumPyro's parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from numpyro.infer.hmc_util import dual_averaging

import pelton
from pelton.benchmarks.nuts import in_tiles, own_pace
from pelton.engine.chains import Chains
from pelton.engine.errors import ConvergenceWarning
from pelton.engine.phase import Stage
from pelton.engine.posterior import Posterior
from pelton.engine.progress import Report
from pelton.engine.samplers import nuts
from pelton.engine.samplers.nuts import Nuts, _subtree_turns
from pelton.engine.warmup import DualAverage, Metric, estimate, first_metric, windows
from tests.statistics import assert_agrees

# Subtrees.


def turns(momenta):
    """Whether a balanced stretch of momenta, or one of its halves with the leaf beyond it, makes a U-turn."""

    def stretch(part):
        velocity = np.sum(part, axis=0)
        return velocity @ part[0] <= 0 or velocity @ part[-1] <= 0

    half = len(momenta) // 2
    return stretch(momenta) or (half > 1 and (stretch(momenta[: half + 1]) or stretch(momenta[half - 1 :])))


def first_turn(momenta):
    """Index of the leaf at which recursion over all balanced parts first finds a turn, or None."""
    for leaf in range(1, len(momenta), 2):
        size = 2
        while (leaf + 1) % size == 0:
            if turns(momenta[leaf + 1 - size : leaf + 1]):
                return leaf
            size *= 2
    return None


def found_turn(momenta):
    """The same by the rows that the sampler keeps."""
    turns_at = jax.jit(_subtree_turns)
    rows, d = 10, momenta.shape[1]
    kept, total = tuple(jnp.zeros((3, rows, d))), np.zeros(d, np.float32)
    for leaf, momentum in enumerate(momenta):
        total = total + momentum
        if leaf % 2 == 0:
            at = bin(leaf >> 1).count("1")
            before = momenta[leaf - 1] if leaf else momentum
            new = momentum, total, before
            kept = tuple(one.at[at].set(row) for one, row in zip(kept, new, strict=True))
        elif turns_at(kept, leaf, momentum, total):
            return leaf
    return None


def test_subtree_turns_are_those_of_recursion():
    source, met = np.random.default_rng(0), set()
    for _ in range(60):
        # Slowly turning momenta, so that turns are met at all sizes.
        speed, phase = source.uniform(0.02, 0.8), source.uniform(0, 6)
        steps = np.arange(64)[:, None] * speed * source.uniform(0.5, 1.0, 3)
        momenta = (np.cos(steps + phase) + 0.3 * source.normal(size=(64, 3))).astype(np.float32)
        expected = first_turn(momenta)
        assert found_turn(momenta) == expected
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


def matrices(metric):
    """M^-1 and the L of a metric, by its products with unit vectors."""
    with jax.enable_x64(True):
        metric = Metric(*map(jnp.asarray, metric))
        eye = jnp.eye(len(metric.scale))
        outward, inward, back = (np.asarray(jax.vmap(f)(eye)).T for f in (metric.velocity, metric.force, metric.score))
    np.testing.assert_allclose(inward, outward.T, atol=1e-12 * np.abs(outward).max())
    np.testing.assert_allclose(inward @ back, np.eye(len(eye)), atol=1e-9)
    return outward @ inward, outward


def gaussian_draws(covariance, count, seed):
    draws = np.random.default_rng(seed).multivariate_normal(np.zeros(len(covariance)), covariance, count)
    return draws, -draws @ np.linalg.inv(covariance)


def old(dimension, rank):
    return first_metric(np.ones((1, dimension)), rank)


def test_dense_metric_of_a_gaussian_is_its_covariance():
    root = np.tril(np.random.default_rng(2).normal(size=(5, 5))) + 3 * np.eye(5)
    scale = np.sqrt([1e-3, 1, 10, 1e3, 1.0])
    covariance = np.outer(scale, scale) * (root @ root.T)
    inverse, _ = matrices(estimate(*gaussian_draws(covariance, 3000, 2), old(5, 5), rank=5))
    sd = np.sqrt(np.diag(covariance))
    # Draws and scores of a Gaussian give its covariance but for the shrinking, 5.6 draws in 3,000.
    np.testing.assert_allclose(inverse / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=5e-3)


@pytest.mark.parametrize("dimension", [60, 500])
def test_metric_of_low_rank_finds_the_directions_that_matter(dimension):
    """A Gaussian of independent scales but for four directions: the widest in the metric beside the narrowest."""
    source = np.random.default_rng(5)
    scale = np.exp(source.normal(size=dimension))
    basis = np.linalg.qr(source.normal(size=(dimension, 4)))[0]
    stretch = np.array([100.0, 30.0, 0.05, 0.01])
    whitened = np.eye(dimension) + (basis * (stretch - 1)) @ basis.T
    covariance = np.outer(scale, scale) * whitened
    spread = {}
    for rank in (0, 40):
        metric = estimate(*gaussian_draws(covariance, 2000, 6), old(dimension, rank), rank=rank)
        _, outward = matrices(metric)
        left = np.linalg.eigvalsh(np.linalg.solve(outward, np.linalg.solve(outward, covariance).T))
        spread[rank] = left[-1] / left[0]
    assert spread[0] > 1000
    assert spread[40] < 10
    # In 500 dimensions noise makes no direction; in 60 the diagonal itself is bent by the four.
    assert (metric.stretch != 1).sum() < dimension / 2


def test_diagonal_metric_of_independent_normals_is_exact():
    variances = np.array([1e-6, 1.0, 1e4])
    draws = np.random.default_rng(3).normal(size=(5, 3)) * np.sqrt(variances)
    metric = estimate(draws, -draws / variances, old(3, 0), rank=0)
    np.testing.assert_allclose(metric.scale**2, variances, rtol=1e-10)


def test_metrics_of_a_batch_are_each_ones_own():
    source = np.random.default_rng(4)
    draws, scores = source.normal(size=(2, 3, 30, 6))
    both = estimate(draws, scores, old(6, 6), rank=6)
    for at in range(3):
        one = estimate(draws[at], scores[at], old(6, 6), rank=6)
        np.testing.assert_allclose(matrices(Metric(*(leaf[at] for leaf in both)))[0], matrices(one)[0], rtol=1e-9)


def test_what_says_nothing_leaves_the_metric_as_it_was():
    before = first_metric(np.array([[4.0, 0.25, np.nan], [1.0, 0.25, 0.0]]), 3)
    np.testing.assert_allclose(before.scale**-2, [2.0, 0.25, 1.0])
    stuck = np.ones((10, 3))
    np.testing.assert_allclose(estimate(stuck, stuck, before, rank=3).scale, before.scale)
    draws = np.random.default_rng(0).normal(size=(10, 3))
    draws[:, 1] = np.nan
    after = estimate(draws, -draws, before, rank=3)
    assert after.scale[1] == before.scale[1]
    assert np.all(np.isfinite(np.concatenate([np.ravel(leaf) for leaf in after])))


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 9, 30, 100, 1000])
def test_windows_of_any_length(steps):
    ends = windows(steps)
    assert list(ends) == sorted(set(ends))
    assert (ends[-1] if ends else 0) == steps
    assert all(end > 0 for end in ends)


def test_windows_end_where_the_metric_is_left_alone():
    assert windows(1000)[-2:] == (850, 1000)
    lengths = np.diff((0, *windows(1000)[:-1]))
    assert np.all(np.diff(lengths[1:]) > 0)


def chain_of_normals(position, data):
    """A Gaussian of 60 dimensions, neighbours correlated 0.9."""
    del data
    return -0.5 * position[0] ** 2 - 0.5 * jnp.sum((position[1:] - 0.9 * position[:-1]) ** 2) / (1 - 0.81)


@pytest.mark.parametrize(("metric", "directions"), [("auto", range(5, 41)), ("diagonal", [0]), ("dense", [60])])
def test_the_metric_taken_is_recorded(metric, directions):
    target = Posterior(
        60, chain_of_normals, identity, lambda k, d: jax.random.normal(k, (60,)), (), dims={"x": ("axis",)}
    )
    tree = pelton.sample(target, sampler="nuts", warmup=500, draws=1000, metric=metric)
    assert tree.attrs["metric"] == ("low-rank" if metric == "auto" else metric)
    assert tree.attrs["metric_directions"] in directions
    assert_agrees(np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0), mean=0.0, sd=1.0, least_ess=400)


@pytest.mark.long
# Halves of ten draws say little of how far chains agree, and the usual limits take that amiss.
@pytest.mark.filterwarnings("ignore::pelton.engine.errors.ConvergenceWarning")
def test_many_chains_warm_up_in_few_steps():
    """256 chains learn sixty dimensions of widths from 0.1 to 10 in 60 steps, as they do alone in a thousand."""
    scale = jnp.exp(jnp.linspace(-2.3, 2.3, 60))

    def scaled(position, data):
        return chain_of_normals(position / scale, data)

    target = Posterior(60, scaled, identity, lambda k, d: jax.random.normal(k, (60,)), (), dims={"x": ("axis",)})
    steps = []
    for chains, warmup, draws in ((256, 60, 20), (4, 1000, 1000)):
        settings = {"chains": chains, "warmup": warmup, "draws": draws, "chain_method": "vectorized"}
        tree = pelton.sample(target, sampler="nuts", **settings)
        steps.append(float(tree["sample_stats"]["n_steps"].mean()))
        x = np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0)
        assert_agrees(x, mean=0.0, sd=np.asarray(scale))
    assert steps[0] < 2 * steps[1]


# The loop.


def start(key, data):
    del data
    return 2 * jax.random.normal(key, (3,))


def identity(position, data):
    del data
    return {"x": position}


def normal(position, data):
    return -0.5 * jnp.sum((position / data) ** 2)


@pytest.mark.parametrize(("count", "together"), [(3, 16), (11, 4)])
def test_neighbours_do_not_change_a_bit(count, together, monkeypatch):
    """In tiles, which neighbours a chain has, and where among them it stands, follows from who is done first."""
    monkeypatch.setattr("pelton.engine.chains.together_on", lambda device, numbers: together)
    target = Posterior(3, normal, identity, start, np.array([0.2, 1.0, 9.0]), dims={"x": ("axis",)})
    kept, runs = [0, count - 1], []
    with jax.enable_x64(True):
        for factors in (np.ones(count), np.resize([5.0, 0.03], count)):
            factors[kept] = 1.0
            engine = Chains(target, Nuts(warmup_steps=50), count, 7, vectorized=True)
            assert engine.programs.tile == (4 if count > together else 0)
            engine._compile(100)
            states = engine._learn(engine.sampler, [engine._init(engine.groups[0])], [], 0)
            states = [states[0]._replace(step_size=states[0].step_size * jnp.array(factors))]
            runs.append(engine._advance(Stage("sampling", 0, 0, 100), states, Report())[1])
    one, other = runs
    assert np.array_equal(one.positions[kept], other.positions[kept])
    assert not np.array_equal(one.positions[1], other.positions[1])
    steps = [run.stats["n_steps"].sum(axis=1) for run in runs]
    assert steps[1].max() > 2 * steps[0].max()


def test_vectorised_chains_wait_little_for_one_another():
    """Gradients computed beside those that draws used: lost is the wait for the last at each window's end."""
    target = Posterior(3, normal, identity, start, np.array([0.2, 1.0, 9.0]), dims={"x": ("axis",)})
    settings = {"chains": 32, "warmup": 300, "draws": 1000, "metric": "diagonal", "keep_warmup": True}
    tree = pelton.sample(target, sampler="nuts", chain_method="vectorized", **settings)
    phases = [np.asarray(tree[name]["n_steps"]) for name in ("warmup_sample_stats", "sample_stats")]
    lock_step = 32 * sum(int(steps.max(axis=0).sum()) for steps in phases)
    computed, used = tree.attrs["gradients_computed"], tree.attrs["gradient_evaluations"]
    assert used <= computed < 1.25 * used
    assert computed < 0.75 * lock_step
    assert_agrees(np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0), mean=0.0, sd=np.array([0.2, 1.0, 9.0]))


def apart(position, data):
    """Two modes that no chain crosses between, one a hundred times as wide along its second axis."""
    narrow = -0.5 * jnp.sum((position + 40) ** 2)
    x, y = position - 40
    return jnp.where(position[0] < 0, narrow, -0.5 * (x**2 + (y / 100) ** 2))


# Chains that lie apart are reported.
@pytest.mark.filterwarnings("ignore::pelton.engine.errors.ConvergenceWarning")
def test_chains_that_have_their_draws_make_way(monkeypatch):
    """Chains of the one mode take several times the gradients of the other's, which are done long before."""
    monkeypatch.setattr("pelton.engine.chains.together_on", lambda device, numbers: 16)

    def either(key, data):
        del data
        return jnp.where(jax.random.bernoulli(key, 0.2), 40.0, -40.0) * jnp.ones(2)

    target = Posterior(2, apart, identity, either, (), dims={"x": ("axis",)})
    tree = pelton.sample(
        target, sampler="nuts", chain_method="vectorized", chains=48, warmup=0, draws=400, metric="diagonal"
    )
    steps = np.asarray(tree["sample_stats"]["n_steps"])
    computed, used = tree.attrs["gradients_computed"], tree.attrs["gradient_evaluations"]
    assert used == steps.sum()
    assert own_pace(steps) > 1.4 * (computed / used)
    assert in_tiles(steps, 16) == pytest.approx(computed / used, rel=0.02)


def narrowing(position, data):
    """x0 ~ Normal(0, 1), x1 | x0 ~ Normal(0, exp(tanh(4 x0))): seven times as wide on the right as on the left."""
    del data
    log_sd = jnp.tanh(4 * position[0])
    return -0.5 * position[0] ** 2 - 0.5 * (position[1] * jnp.exp(-log_sd)) ** 2 - log_sd


def test_halved_steps_leave_the_distribution_alone(monkeypatch):
    """With a limit so low that half of the leaves are halved; without the way back the mean is five errors off."""
    monkeypatch.setattr(nuts, "MOST_STEP_ERROR", 0.3)
    target = Posterior(2, narrowing, identity, lambda k, d: jax.random.normal(k, (2,)), (), dims={"x": ("axis",)})
    tree = pelton.sample(target, sampler="nuts", draws=20000, warmup=0, metric="diagonal", precision="float64")
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
    tree = pelton.sample(target, sampler="nuts", draws=20000, metric="diagonal", precision="float64")
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
