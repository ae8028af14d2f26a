"""NumPyro models of many kinds: masks, scales, factors, scan, summed-out latents, and what is refused by name."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from scipy import stats

import pelton
from tests.statistics import assert_agrees

Y = np.array([0.5, 1.5, -0.3, 2.0])
needs_funsor = pytest.mark.skipif(
    importlib.util.find_spec("funsor") is None, reason="funsor, which sums over discrete latents, is not installed"
)


def density(model, position, *args):
    target = pelton.from_numpyro(model, *args)
    with jax.enable_x64(True):
        return float(target.logdensity(jnp.asarray(position, float), target.data))


def normal(y):
    mean = numpyro.sample("mean", dist.Normal(0, 2))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(mean, 1), obs=y)


def test_masks_scales_and_factors_count_as_they_do_in_numpyro():
    mask = np.array([True, False, True, True])

    def masked(y, mask):
        mean = numpyro.sample("mean", dist.Normal(0, 2))
        with numpyro.plate("row", len(y)), handlers.mask(mask=mask), handlers.scale(scale=3.0):
            numpyro.sample("y", dist.Normal(mean, 1), obs=y)
        numpyro.factor("pull", -(mean**4))

    expected = stats.norm(0, 2).logpdf(0.4) + 3 * stats.norm(0.4, 1).logpdf(Y[mask]).sum() - 0.4**4
    np.testing.assert_allclose(density(masked, [0.4], Y, mask), expected, rtol=1e-9)
    tree = pelton.sample(pelton.from_numpyro(masked, Y, mask), chains=2, draws=1000, groups=["log_likelihood"])
    likelihood = tree["log_likelihood"]
    assert list(likelihood.data_vars) == ["y"]
    assert (likelihood["y"].isel(row=1) == 0).all()
    mean = tree["posterior"]["mean"]
    np.testing.assert_allclose(likelihood["y"].isel(row=0), stats.norm(mean, 1).logpdf(Y[0]), rtol=1e-6)


def test_scan_and_a_conditioned_model():
    def walk(length):
        sd = numpyro.sample("sd", dist.HalfNormal(1.0))

        def step(level, _):
            level = numpyro.sample("level", dist.Normal(level, sd))
            return level, level

        scan(step, 0.0, jnp.arange(length))

    target = pelton.from_numpyro(walk, 3)
    assert target.dimension == 4
    position = np.array([0.1, 0.6, 0.2, np.log(0.7)])
    with jax.enable_x64(True):
        found = target.logdensity(jnp.asarray(position), target.data)
    expected = (
        stats.halfnorm().logpdf(0.7) + np.log(0.7) + stats.norm(0, 0.7).logpdf(np.diff(position[:3], prepend=0)).sum()
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    known = pelton.from_numpyro(handlers.condition(walk, {"level": jnp.array([0.1, 0.6, 0.2])}), 3)
    assert known.dimension == 1
    with jax.enable_x64(True):
        np.testing.assert_allclose(known.logdensity(jnp.asarray(position[3:]), known.data), expected, rtol=1e-6)


def test_dims_of_deterministics_and_events():
    def model(y):
        with numpyro.plate("geo", 3, dim=-2), numpyro.plate("week", 2, dim=-1):
            level = numpyro.sample("level", dist.Normal(0, 1))
            numpyro.deterministic("square", level**2)
            numpyro.sample("weights", dist.Dirichlet(jnp.ones(4)))
        numpyro.deterministic("total", jnp.sum(level, axis=1))

    dims = pelton.from_numpyro(model, Y).dims
    assert dims["level"] == dims["square"] == ("geo", "week")
    assert dims["weights"] == ("geo", "week", "weights_dim_2")
    assert dims["total"] == ("total_dim_0",)


def test_observed_data_are_arguments_or_computed():
    def model(y, other):
        mean = numpyro.sample("mean", dist.Normal(0, 1))
        numpyro.sample("raw", dist.Normal(mean, 1).expand([4]).to_event(1), obs=y)
        numpyro.sample("log", dist.Normal(mean, 1), obs=jnp.log(other))
        numpyro.sample("fixed", dist.Normal(mean, 1), obs=2.5)

    observed = pelton.from_numpyro(model, Y, np.exp(Y)).observed
    np.testing.assert_array_equal(observed["raw"], Y)
    np.testing.assert_allclose(observed["log"], Y)
    assert observed["fixed"] == 2.5


def test_a_batch_of_models_has_groups():
    rows = np.stack([Y, Y + 3])
    target = pelton.from_numpyro(normal, rows, batch=2)
    tree = pelton.sample(target, chains=2, draws=2000, groups=["log_likelihood", "prior", "posterior_predictive"])
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "segment", "row")
    mean = tree["posterior"]["mean"]
    expected = stats.norm(mean.isel(segment=1), 1).logpdf(Y[2] + 3)
    np.testing.assert_allclose(tree["log_likelihood"]["y"].isel(segment=1, row=2), expected, rtol=1e-6)
    predicted = tree["posterior_predictive"]["y"]
    # mean | y ~ Normal(sum y / (n + 1/4), 1 / (n + 1/4)), and a new y adds variance 1.
    for segment, y in enumerate(rows):
        one = predicted.isel(segment=segment, row=0)
        assert_agrees(one, mean=y.sum() / 4.25, sd=np.sqrt(1 + 1 / 4.25))
    prior = tree["prior"]["mean"]
    assert abs(np.corrcoef(prior.isel(segment=0).values.ravel(), prior.isel(segment=1).values.ravel())[0, 1]) < 0.2


def two_groups(y):
    share = numpyro.sample("share", dist.Beta(2, 2))
    centre = numpyro.sample("centre", dist.Normal(jnp.array([-2.0, 2.0]), 0.5).to_event(1))
    with numpyro.plate("row", len(y)):
        group = numpyro.sample("group", dist.Bernoulli(share))
        numpyro.deterministic("level", centre[group])
        numpyro.sample("y", dist.Normal(centre[group], 1.0), obs=y)


@needs_funsor
def test_discrete_latents_are_summed_over_and_drawn():
    y = np.array([-2.2, -1.0, 0.1, 2.3, 1.9])
    position = np.array([-1.8, 2.1, 0.3])
    share = 1 / (1 + np.exp(-0.3))
    each = (1 - share) * stats.norm(-1.8, 1).pdf(y) + share * stats.norm(2.1, 1).pdf(y)
    prior = (
        stats.beta(2, 2).logpdf(share)
        + np.log(share * (1 - share))
        + stats.norm([-2, 2], 0.5).logpdf([-1.8, 2.1]).sum()
    )
    np.testing.assert_allclose(density(two_groups, position, y), prior + np.log(each).sum(), rtol=1e-9)

    tree = pelton.sample(pelton.from_numpyro(two_groups, y), draws=2000, groups=["posterior_predictive", "prior"])
    posterior = tree["posterior"]
    assert posterior["group"].dims == ("chain", "draw", "row")
    # P(group | the rest, y), averaged over the same draws, has the same mean as the drawn groups.
    low, high = posterior["centre"].isel(centre_dim_0=0), posterior["centre"].isel(centre_dim_0=1)
    odds = np.log(posterior["share"] / (1 - posterior["share"])) + 0.5 * ((0.1 - low) ** 2 - (0.1 - high) ** 2)
    assert_agrees(posterior["group"].isel(row=2) - 1 / (1 + np.exp(-odds)), mean=0.0)
    chosen = np.where(posterior["group"] == 1, high.values[..., None], low.values[..., None])
    np.testing.assert_array_equal(posterior["level"], chosen)
    with pytest.raises(pelton.errors.UnknownNameError, match="log_likelihood"):
        pelton.sample(pelton.from_numpyro(two_groups, y), groups=["log_likelihood"])


@needs_funsor
def test_a_summed_out_latent_without_its_plate_is_refused():
    def loose(y):
        group = numpyro.sample("group", dist.Bernoulli(0.5).expand([len(y)]))
        numpyro.sample("y", dist.Normal(1.0 * group, 1.0), obs=y)

    with pytest.raises(pelton.errors.ModelError, match="'group' has a batch axis, 1 from the right, without a plate"):
        pelton.from_numpyro(loose, Y)


def test_discrete_latents_without_funsor_are_refused_by_name(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "funsor" else find(name, *rest)
    )
    with pytest.raises(pelton.errors.ModelError, match=r"'group' is discrete \(Bernoulli.*pip install funsor"):
        pelton.from_numpyro(two_groups, Y)


def _sub(y):
    with numpyro.plate("store", 100, subsample_size=10):
        numpyro.sample("rate", dist.Normal(0, 1))


def _param(y):
    scale = numpyro.param("scale", 1.0)
    numpyro.sample("y", dist.Normal(0, scale), obs=y)


def _poisson(y):
    count = numpyro.sample("count", dist.Poisson(3.0))
    numpyro.sample("y", dist.Normal(count, 1.0), obs=y)


def _delta(y):
    numpyro.sample("known", dist.Delta(1.0))


def _shape(y):
    mean = numpyro.sample("mean", dist.Normal(jnp.zeros(3), 1))
    numpyro.sample("y", dist.Normal(mean, 1), obs=y)


def _broken(y):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(mean + jnp.zeros(3) + jnp.zeros(4), 1), obs=y)


def _sequential(y):
    numpyro.sample("flag", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_sub, "plate 'store' takes 10 of its 100 members"),
        (_param, "'scale' is a numpyro.param"),
        (_poisson, r"'count' is discrete \(Poisson\), without a finite number of values"),
        (_delta, "'known' is a Delta"),
        (_shape, r"'y': Normal of batch shape \(3,\).*value of shape \(4,\)"),
        (_broken, "fails at or after 'mean': TypeError"),
        (_sequential, "'flag' is discrete .* 'sequential'"),
    ],
)
def test_what_cannot_be_sampled_is_refused_by_name(model, message):
    with pytest.raises(pelton.errors.ModelError, match=message):
        pelton.from_numpyro(model, Y)


def test_arguments_and_names_that_do_not_exist():
    import pandas as pd

    with pytest.raises(pelton.errors.ArgumentError, match=r"argument 0 of the model is a Series.*to_numpy"):
        pelton.from_numpyro(normal, pd.Series(Y))
    with pytest.raises(pelton.errors.UnknownNameError, match="did you mean 'mean'"):
        pelton.from_numpyro(normal, Y, keep=["men"])
    with pytest.raises(pelton.errors.UnknownNameError, match="unknown group 'posterior_predictiv'"):
        pelton.sample(pelton.from_numpyro(normal, Y), groups=["posterior_predictiv"])


def _no_gradient(y):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    numpyro.factor("corner", jnp.sqrt(0.0 * mean))


@pytest.mark.parametrize(
    ("model", "y", "message"),
    [
        (normal, np.array([1.0, np.nan]), r"log probability is not finite of 'y' \(-inf\)"),
        (normal, np.array([1.0, np.inf]), r"log probability is not finite of 'y' \(-inf\)"),
        (_no_gradient, Y, "gradient is not finite of the log probability of 'corner';"),
    ],
)
def test_without_a_start_the_sites_are_named(model, y, message):
    target = pelton.from_numpyro(model, y)
    for run in (pelton.sample, pelton.approximate):
        with pytest.raises(pelton.errors.ModelError, match=message):
            run(target)
