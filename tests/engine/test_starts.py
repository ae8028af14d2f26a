"""Starts from an approximation, and chains that share theirs so that few draws of many can be judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pelton
from pelton.engine.errors import ArgumentError, ConvergenceWarning
from tests.statistics import assert_agrees

QUIET = pytest.mark.filterwarnings("ignore::pelton.engine.errors.ConvergenceWarning")
# The lighter mode's share: six nats below the other.
LIGHT = 0.0025


def two(position, data):
    """Two round modes that no chain crosses between."""
    heavy = jnp.log1p(-data) - 0.5 * jnp.sum(position**2)
    return jnp.logaddexp(heavy, jnp.log(data) - 0.5 * jnp.sum((position - 12.0) ** 2))


def round_(position, data):
    return -0.5 * jnp.sum((position / data) ** 2)


def named(position, data):
    del data
    return {"x": position}


def wide(key, data):
    del data
    return jax.random.uniform(key, (3,), minval=-5.0, maxval=17.0)


def far(key, data):
    del data
    return jax.random.uniform(key, (3,), minval=-300.0, maxval=300.0)


def two_modes(light=LIGHT):
    return pelton.Posterior(3, two, named, wide, data=np.float64(light))


SETTINGS = {"sampler": "nuts", "chains": 8, "warmup": 300, "draws": 500}


def test_starts_by_pathfinder_fall_where_the_mass_is():
    with pytest.warns(ConvergenceWarning):
        tree = pelton.sample(two_modes(), **SETTINGS)
    assert len(set(np.round(np.asarray(tree["posterior"]["x"]).mean(axis=(1, 2))))) == 2
    tree = pelton.sample(two_modes(), start="pathfinder", **SETTINGS)
    assert (tree.attrs["start"], tree.attrs["converged"]) == ("pathfinder", 1)
    assert_agrees(np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0), mean=0.0, sd=1.0)


@QUIET
def test_starts_by_pathfinder_are_shared_out_by_weight():
    """Of 200 chains as many start in a mode as it has mass: 60 expected, with an sd of 6.5."""
    settings = {"sampler": "nuts", "chains": 50, "warmup": 30, "draws": 10, "chain_method": "vectorized"}
    means = []
    for seed in range(4):
        tree = pelton.sample(two_modes(0.3), start="pathfinder", seed=seed, **settings)
        means.append(np.asarray(tree["posterior"]["x"]).mean(axis=(1, 2)))
    light = np.sum(np.concatenate(means) > 6)
    assert abs(light - 60) < 4 * 6.5


@QUIET
def test_a_resumed_run_does_not_climb_again(tmp_path, monkeypatch):
    whole = pelton.sample(two_modes(), start="pathfinder", **SETTINGS | {"draws": 700})
    pelton.sample(two_modes(), start="pathfinder", store=tmp_path / "run", **SETTINGS)

    def climbed(*args):
        raise AssertionError("climbed again")

    monkeypatch.setattr("pelton.engine.starts.positions", climbed)
    more = pelton.resume(tmp_path / "run", two_modes(), draws=700)
    assert np.array_equal(more["posterior"]["x"], whole["posterior"]["x"])


def test_refusals():
    with pytest.raises(ArgumentError, match="start is 'pathfinder' or None"):
        pelton.sample(two_modes(), start="prior")
    model = pelton.PartialPooling([9, 22, 31], [138, 72, 157])
    with pytest.raises(ArgumentError, match="'grid' finds its own starts"):
        pelton.sample(model, start="pathfinder")
    segments = pelton.PartialPooling([9, 22, 31, 4], [138, 72, 157, 20], segments=["a", "a", "b", "b"])
    with pytest.raises(ArgumentError, match="this is a batch of 2"):
        pelton.sample(segments, sampler="nuts", start="pathfinder")


def test_few_draws_of_many_chains_are_enough():
    target = pelton.Posterior(3, round_, named, wide, data=np.array([0.2, 1.0, 9.0]))
    tree = pelton.sample(target, sampler="nuts", chains=256, warmup=100, draws=20, chain_method="vectorized")
    assert (tree.attrs["starts"], tree.attrs["converged"]) == (16, 1)
    # R-hat of chains one by one would not tell: their means lie apart because each has few draws.
    del tree.attrs["starts"]
    assert pelton.diagnose(tree).worst_rhat > 1.01


@QUIET
def test_many_chains_that_remember_their_starts_are_told():
    target = pelton.Posterior(3, round_, named, far, data=np.array([1.0, 1.0, 200.0]))
    settings = {"chains": 256, "warmup": 0, "draws": 20, "chain_method": "vectorized", "max_tree_depth": 2}
    tree = pelton.sample(target, sampler="nuts", **settings)
    assert tree.attrs["worst_rhat"] > 1.1
    assert "the chains disagree" in tree.attrs["status"]


def test_a_target_is_reached_by_many_short_chains():
    target = pelton.Posterior(3, round_, named, wide, data=np.array([0.2, 1.0, 9.0]))
    stop = pelton.Target(ess=400, rhat=1.01)
    tree = pelton.sample(
        target, sampler="nuts", chains=128, draws=300, warmup=100, chain_method="vectorized", stop_at=stop
    )
    assert tree["posterior"].sizes["draw"] == 100
