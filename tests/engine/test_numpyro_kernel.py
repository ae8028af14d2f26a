"""NutsKernel in NumPyro's MCMC: moments known exactly, NumPyro's own NUTS, every way to run chains."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from arviz_stats.base import array_stats
from numpyro.infer import MCMC, NUTS
from numpyro.infer.initialization import init_to_value

import pelton
from tests.engine.test_sources_numpyro import EFFECT, ERROR, schools
from tests.statistics import assert_agrees

SD = np.array([0.1, 1.0, 30.0])
FIELDS = ("potential_energy", "energy", "num_steps", "accept_prob", "mean_accept_prob", "adapt_state.step_size")


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def run(kernel, *args, key=0, chains=4, draws=1000, method="vectorized", warmup=500, **settings):
    mcmc = MCMC(
        kernel, num_warmup=warmup, num_samples=draws, num_chains=chains, chain_method=method, progress_bar=False
    )
    mcmc.run(jax.random.key(key), *args, **settings)
    return mcmc


def scales(y):
    with numpyro.plate("part", 3):
        x = numpyro.sample("x", dist.Normal(0, SD))
        numpyro.deterministic("unit", x / SD)
    tau = numpyro.sample("tau", dist.Exponential(1.0))
    numpyro.sample("y", dist.Normal(0 * tau, 1.0), obs=y)


@pytest.mark.long
@pytest.mark.parametrize("method", ["vectorized", "sequential"])
def test_scales_apart_by_hundreds(method):
    mcmc = run(pelton.NutsKernel(scales), 0.3, method=method, extra_fields=FIELDS)
    samples, fields = mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields(group_by_chain=True)
    assert samples["x"].shape == (4, 1000, 3)
    for part in range(3):
        assert_agrees(samples["x"][..., part], mean=0.0, sd=SD[part])
    np.testing.assert_allclose(samples["unit"], samples["x"] / SD)
    assert_agrees(samples["tau"], mean=1.0)
    assert fields["diverging"].shape == (4, 1000)
    assert not fields["diverging"].any()
    # Between draws energy is potential and kinetic, half a chi-square of four degrees.
    kinetic = fields["energy"] - fields["potential_energy"]
    assert kinetic.min() > 0
    assert_agrees(kinetic, mean=2.0)
    assert 0.7 < fields["accept_prob"].mean() < 0.95
    assert fields["num_steps"].mean() < 20
    # Nothing is learnt once the warm-up is over.
    assert np.ptp(fields["adapt_state.step_size"], axis=1).max() == 0
    metric = np.sqrt(np.asarray(mcmc.last_state.adapt_state.inverse_mass_matrix))
    np.testing.assert_allclose(metric[:, 1:] / SD, 1, rtol=0.35)


@pytest.mark.long
def test_eight_schools_agrees_with_numpyros_nuts():
    """The same posterior by NumPyro's NUTS, with its standard error."""
    ours = run(pelton.NutsKernel(schools, target_accept_prob=0.9), EFFECT, ERROR, key=1, draws=2000).get_samples(True)
    theirs = run(NUTS(schools, target_accept_prob=0.9), EFFECT, ERROR, key=2, draws=2000).get_samples(True)
    for name in ("mu", "tau"):
        other = np.asarray(theirs[name])
        assert array_stats.ess(other, method="bulk") > 1000
        assert_agrees(ours[name], mean=other.mean(), truth_error=array_stats.mcse(other, method="mean"))
    assert set(ours) == set(theirs)


def test_a_potential_of_any_pytree_goes_on_from_its_last_state():
    def potential(z):
        return 0.5 * jnp.sum(z[0] ** 2) + 0.5 * jnp.sum((z[1]["b"] - 3.0) ** 2)

    start = (jnp.zeros((4, 2)), {"b": jnp.zeros(4)})
    mcmc = run(pelton.NutsKernel(potential_fn=potential), init_params=start, draws=1500)
    first = mcmc.get_samples(True)
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(jax.random.key(8))
    second = mcmc.get_samples(True)
    both = np.concatenate([first[1]["b"], second[1]["b"]], axis=1)
    assert_agrees(both, mean=3.0, sd=1.0)
    assert not np.array_equal(first[0], second[0])
    with pytest.raises(pelton.errors.ArgumentError, match="needs init_params"):
        run(pelton.NutsKernel(potential_fn=potential), chains=1)


def test_a_chain_is_what_it_is_on_its_own_and_under_jit():
    """Sequential chains are those of runs with their keys alone, and a run can be part of a compiled program."""
    keys = jax.random.split(jax.random.key(0), 2)
    both = run(pelton.NutsKernel(scales), 0.3, chains=2, method="sequential", draws=50, warmup=60).get_samples(True)
    kernel = pelton.NutsKernel(scales)

    @jax.jit
    def alone(key):
        mcmc = MCMC(kernel, num_warmup=60, num_samples=50, progress_bar=False)
        mcmc.run(key, 0.3)
        return mcmc.get_samples()["x"]

    np.testing.assert_allclose(alone(keys[1]), both["x"][1], rtol=1e-4)


def test_no_warmup_and_starts_given():
    kernel = pelton.NutsKernel(schools, init_strategy=init_to_value(values={"mu": 5.0, "tau": 2.0, "z": jnp.zeros(8)}))
    state = kernel.init(jax.random.key(0), 0, None, (EFFECT, ERROR), {})
    np.testing.assert_allclose(state.z["tau"], np.log(2.0))
    mcmc = run(kernel, EFFECT, ERROR, warmup=0, draws=300, chains=1)
    assert np.unique(np.asarray(mcmc.get_samples()["mu"])).size > 150
    assert "steps of size" in kernel.get_diagnostics_str(mcmc.last_state)


def test_other_data_refresh_a_state():
    kernel = pelton.NutsKernel(scales)
    state = kernel.init(jax.random.key(0), 10, None, (0.3,), {})
    other = kernel.refresh(state, (2.3,), {})
    np.testing.assert_allclose(other.potential_energy - state.potential_energy, 0.5 * (2.3**2 - 0.3**2), rtol=1e-6)
    wrapped = kernel.wrap_model(lambda model: numpyro.handlers.condition(model, {"tau": 1.0}))
    assert set(wrapped.init(jax.random.key(0), 10, None, (0.3,), {}).z) == {"x"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "a model or a potential_fn"),
        ({"model": scales, "potential_fn": abs}, "a model or a potential_fn"),
        ({"model": scales, "target_accept_prob": 1.2}, "between 0 and 1"),
        ({"model": scales, "max_tree_depth": 0}, "max_tree_depth"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(pelton.errors.ArgumentError, match=message):
        pelton.NutsKernel(**settings)
