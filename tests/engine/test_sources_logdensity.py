"""Log densities of pytrees as posteriors: names, starts, data as arguments, what is refused."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pelton
from tests.statistics import assert_agrees

Y = np.array([1.0, 3.0, 2.0, 2.5])


def conjugate(tree, y):
    """mean ~ Normal(0, 1), y ~ Normal(mean, 1)."""
    return -0.5 * tree["mean"] ** 2 - 0.5 * jnp.sum((y - tree["mean"]) ** 2)


def test_draws_have_the_moments_of_the_conjugate_posterior():
    tree = pelton.sample(conjugate, init={"mean": 0.0}, data=Y, draws=2000, chains=2)
    assert_agrees(tree["posterior"]["mean"], mean=Y.sum() / (len(Y) + 1), sd=(len(Y) + 1) ** -0.5)


def test_correlated_normal_of_a_nested_pytree():
    class Pair(NamedTuple):
        left: object
        right: object

    covariance = np.array([[4.0, 1.2, 0.0], [1.2, 1.0, 0.3], [0.0, 0.3, 0.5]])
    precision = np.linalg.inv(covariance)

    def density(tree):
        x = jnp.stack([tree["a"]["b"], tree["p"].left, tree["p"].right[0]])
        return -0.5 * x @ jnp.asarray(precision) @ x

    init = {"a": {"b": 0.0}, "p": Pair(0.5, [np.float32(1.0)])}
    target = pelton.from_logdensity(density, init, constrain=lambda tree: {"twice": 2 * tree["a"]["b"]})
    tree = pelton.sample(target, draws=3000, chains=2)
    posterior = tree["posterior"]
    assert list(posterior.data_vars) == ["a.b", "p.left", "p.right.0", "twice"]
    for name, variance in (("a.b", 4.0), ("p.left", 1.0), ("p.right.0", 0.5), ("twice", 16.0)):
        assert_agrees(posterior[name], mean=0.0, sd=variance**0.5)
    product = posterior["a.b"] * posterior["p.left"]
    assert_agrees(product, mean=1.2)


@pytest.mark.parametrize(
    ("init", "names"),
    [
        (np.zeros(3), ["x"]),
        ([0.0, np.zeros(2)], ["x.0", "x.1"]),
        ((0.0,), ["x.0"]),
        ({"w": [0.0, {"b": 1.0}], "v": np.zeros((2, 2))}, ["v", "w.0", "w.1.b"]),
        ({3: 0.0}, ["3"]),
    ],
)
def test_names_come_from_the_paths(init, names):
    target = pelton.from_logdensity(lambda tree: -sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)), init)
    values = target.constrain(jnp.arange(float(target.dimension)), target.data)
    assert list(values) == names
    np.testing.assert_array_equal(
        np.concatenate([np.ravel(value) for value in values.values()]), np.arange(target.dimension)
    )


def test_dims_coords_and_a_named_quantity_in_place_of_a_variable():
    target = pelton.from_logdensity(
        lambda tree: -0.5 * jnp.sum(tree["effect"] ** 2),
        {"effect": np.zeros(2)},
        constrain=lambda tree: {"effect": jnp.exp(tree["effect"])},
        dims={"effect": ["site"]},
        coords={"site": ["a", "b"]},
    )
    tree = pelton.sample(target, draws=2000, chains=2)
    effect = tree["posterior"]["effect"]
    assert effect.dims == ("chain", "draw", "site")
    assert list(effect["site"].values) == ["a", "b"]
    assert_agrees(np.log(effect.sel(site="b")), mean=0.0, sd=1.0)


def test_starts_lie_around_init_and_can_be_the_users():
    def flat(tree):
        return -0.5 * jnp.sum((tree["x"] - 5.0) ** 2)

    target = pelton.from_logdensity(flat, {"x": np.full(4, 7.0)}, jitter=0.25)
    starts = np.stack([target.start(jax.random.key(i), target.data) for i in range(200)])
    assert np.abs(starts - 7).max() <= 0.25
    assert np.ptp(starts) > 0.45
    exact = pelton.from_logdensity(flat, {"x": np.full(4, 7.0)}, jitter=0.0)
    np.testing.assert_array_equal(exact.start(jax.random.key(0), exact.data), np.full(4, 7.0))
    own = pelton.from_logdensity(flat, {"x": np.zeros(4)}, start=lambda key: {"x": jnp.full(4, 3.0)})
    np.testing.assert_array_equal(own.start(jax.random.key(0), own.data), np.full(4, 3.0))
    wrong = pelton.from_logdensity(flat, {"x": np.zeros(4)}, start=lambda key: {"x": jnp.zeros(3)})
    with pytest.raises(pelton.errors.ModelError, match="give a start like init"):
        wrong.start(jax.random.key(0), wrong.data)


def test_new_data_and_new_starts_share_the_programs():
    one = pelton.from_logdensity(conjugate, {"mean": 0.0}, data=Y)
    two = pelton.from_logdensity(conjugate, {"mean": 2.0}, data=Y + 1)
    assert (one.logdensity, one.constrain, one.start) == (two.logdensity, two.constrain, two.start)
    assert hash(one.logdensity) == hash(two.logdensity)
    pelton.sample(one, chains=2, draws=1500)
    again = pelton.sample(two, chains=2, draws=1500)
    assert again.attrs["seconds_compiling"] == 0
    assert_agrees(again["posterior"]["mean"], mean=(Y + 1).sum() / 5)


@pytest.mark.parametrize(
    ("fn", "init", "error", "message"),
    [
        (conjugate, {"mean": 1}, "ArgumentError", "'mean' holds int64 numbers"),
        (conjugate, {"mean": True}, "ArgumentError", "'mean' holds bool numbers"),
        (conjugate, {"mean": "0"}, "ArgumentError", "'mean' is no array of floating-point numbers"),
        (conjugate, {"mean": np.nan}, "ArgumentError", "'mean' is nan"),
        (conjugate, {"mean": [0.0, np.inf]}, "ArgumentError", "'mean.1' is inf"),
        (conjugate, {}, "ArgumentError", "holds no array"),
        (lambda tree, y: 0.0 * tree["a.b"], {"a.b": 0.0, "a": {"b": 0.0}}, "ArgumentError", "two arrays have the name"),
        (3.0, {"mean": 0.0}, "ArgumentError", "a function of init, not float"),
        (lambda tree, y: -((y - tree["mean"]) ** 2), {"mean": 0.0}, "ModelError", r"returns shape \(4,\)"),
        (lambda tree, y: (tree["mean"], 1), {"mean": 0.0}, "ModelError", "returns tuple"),
        (lambda tree, y: 3, {"mean": 0.0}, "ModelError", "floating-point number"),
        (lambda tree, y: jnp.log(tree["mean"]), {"mean": -1.0}, "ModelError", "is nan at init"),
        (
            lambda tree, y: jnp.sqrt(tree["mean"]) - tree["other"] ** 2,
            {"mean": 0.0, "other": 1.0},
            "ModelError",
            "not finite at init with respect to 'mean';",
        ),
    ],
)
def test_what_cannot_be_a_log_density_is_refused(fn, init, error, message):
    with pytest.raises(getattr(pelton.errors, error), match=message):
        pelton.from_logdensity(fn, init, data=Y)


def test_refusals_of_settings_and_data():
    with pytest.raises(pelton.errors.ArgumentError, match="jitter"):
        pelton.from_logdensity(conjugate, {"mean": 0.0}, data=Y, jitter=-1.0)
    with pytest.raises(pelton.errors.ArgumentError, match=r"data\['name'\] is 'x'"):
        pelton.from_logdensity(conjugate, {"mean": 0.0}, data={"name": "x"})
    with pytest.raises(pelton.errors.ArgumentError, match="from_logdensity"):
        pelton.sample(conjugate, data=None)
    with pytest.raises(pelton.errors.ArgumentError, match="needs init"):
        pelton.sample(conjugate, data=Y)
