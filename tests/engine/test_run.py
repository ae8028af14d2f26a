"""The driver: settings refused, precision and configuration of the process, starts, batches, what the tree records."""

import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import pelton
from pelton.engine import lines
from pelton.engine.posterior import Posterior


def normal(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


Y = np.array([0.5, 1.5, -0.2, 0.9])
SHORT = {"chains": 2, "warmup": 400, "draws": 1000, "seed": 1}


def test_matches_the_conjugate_answer():
    tree = pelton.sample(pelton.from_numpyro(normal, Y), draws=2000)
    precision = len(Y) + 1 / 100
    draws = np.asarray(tree["posterior"]["mean"])
    error = 1 / np.sqrt(precision) / np.sqrt(1000)
    assert abs(draws.mean() - Y.sum() / precision) < 5 * error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chains": 0}, "chains is a whole number of at least 1, not 0"),
        ({"draws": 0}, "draws is a whole number of at least 1, not 0"),
        ({"warmup": -1}, "warmup is a whole number of at least 0, not -1"),
        ({"target_accept": 1.5}, "target_accept lies between 0 and 1, not 1.5"),
        ({"seed": 2**64}, "seed is below"),
        ({"precision": "float16"}, "'float32', 'float64' or None"),
        ({"chain_method": "parallel"}, "chain_method is"),
        ({"metric": "round"}, "is 'auto' or one of dense, low-rank, diagonal, not 'round'"),
        ({"metric": "low-rank", "sampler": "numpyro-nuts"}, "one of dense, diagonal, not 'low-rank'"),
        ({"sampler": "numpyro-nutz"}, "did you mean 'numpyro-nuts'"),
        ({"groups": ("priors",)}, "unknown group 'priors'; did you mean 'prior'"),
    ],
)
def test_refuses_settings(settings, message):
    target = pelton.from_numpyro(normal, Y)
    with pytest.raises((pelton.errors.ArgumentError, TypeError)) as caught:
        pelton.sample(target, **SHORT | settings)
    assert message in str(caught.value) or "chain_method" in settings


def test_refuses_what_is_no_model():
    with pytest.raises((pelton.errors.ArgumentError, TypeError)):
        pelton.sample(3)


def test_grid_refuses_three_dimensions():
    def three(y):
        numpyro.sample("x", dist.Normal(0, 1).expand([3]))
        numpyro.factor("y", y)

    with pytest.raises(pelton.errors.ArgumentError, match="at most 2 dimensions"):
        pelton.sample(pelton.from_numpyro(three, np.float64(0.0)), sampler="grid")


def configuration():
    return dict(jax.config.values)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_process_keeps_its_configuration(precision, tmp_path, monkeypatch):
    monkeypatch.setenv("PELTON_CACHE_DIR", str(tmp_path))
    before, environment = configuration(), dict(os.environ)
    tree = pelton.sample(pelton.from_numpyro(normal, Y + 3), precision=precision, **SHORT)
    assert tree["posterior"]["mean"].dtype == np.dtype(precision)
    assert configuration() == before
    assert dict(os.environ) == environment
    assert jnp.ones(3).dtype == jnp.float32


def test_a_cache_of_the_users_own_is_left_alone(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
        pelton.sample(pelton.from_numpyro(normal, Y), **SHORT)
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_attributes_say_what_was_done():
    tree = pelton.sample(pelton.from_numpyro(normal, Y), sampler="blackjax-nuts", **SHORT | {"seed": 7})
    attrs = tree.attrs
    assert (attrs["sampler"], attrs["seed"], attrs["chains"], attrs["draws"]) == ("blackjax-nuts", 7, 2, 1000)
    assert attrs["precision"] == "float64"
    assert "jax=" in attrs["versions"]
    assert attrs["status"] == "converged"
    assert attrs["gradient_evaluations"] >= 2 * 1400
    for name in ("seconds_compiling", "seconds_warmup", "seconds_sampling"):
        assert attrs[name] >= 0


def test_draws_do_not_depend_on_the_number_of_chains_where_they_learn_apart():
    target = pelton.from_numpyro(normal, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pelton.errors.ConvergenceWarning)
        settings = {"sampler": "numpyro-nuts", "warmup": 300, "draws": 300}
        two = pelton.sample(target, chains=2, **settings)
        three = pelton.sample(target, chains=3, **settings)
    assert np.array_equal(two["posterior"]["mean"], three["posterior"]["mean"].isel(chain=[0, 1]))


def test_a_longer_run_begins_with_the_shorter_one():
    target = pelton.from_numpyro(normal, Y)
    short = pelton.sample(target, warmup=400, draws=900)
    long = pelton.sample(target, warmup=400, draws=1400)
    assert np.array_equal(short["posterior"]["mean"], long["posterior"]["mean"].isel(draw=slice(900)))


@pytest.mark.parametrize("method", ["threads", "vectorized"])
def test_the_length_of_a_program_changes_no_draw(method, monkeypatch):
    target, draws = pelton.from_numpyro(normal, Y), []
    for seconds in (1e-9, 10.0):
        monkeypatch.setattr(lines, "CHUNK_SECONDS", seconds)
        tree = pelton.sample(target, warmup=100, draws=1000, chains=3, chain_method=method, sampler="nuts")
        draws.append(np.asarray(tree["posterior"]["mean"]))
    assert np.array_equal(*draws)


INTERRUPTED = """
import os, signal, sys, threading, time, warnings
import numpy as np, numpyro, numpyro.distributions as dist, pelton

def model(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([20]))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

warnings.simplefilter("ignore")
# What runs in the background of a shell inherits that SIGINT is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
target = pelton.from_numpyro(model, np.zeros(20))
settings = dict(sampler=sys.argv[1], chains=3, warmup=200, seed=1, progress=False)
whole = pelton.sample(target, draws=300, **settings)
threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT)).start()
began = time.perf_counter()
cut = pelton.sample(target, draws=400_000, **settings)
print(cut["posterior"].sizes["draw"], time.perf_counter() - began < 60, cut.attrs["status"].split(":")[:2])
n = min(300, cut["posterior"].sizes["draw"])
same = cut["posterior"]["x"].isel(draw=slice(n)).equals(whole["posterior"]["x"].isel(draw=slice(n)))
print(n > 0, same)
"""


@pytest.mark.parametrize("sampler", ["nuts", "numpyro-nuts"])
def test_an_interrupt_returns_what_is_done(sampler, tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, sampler]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().splitlines()
    assert 0 < int(first.split()[0]) < 400_000
    assert "True ['NOT CONVERGED', ' interrupted after" in first
    assert second == "True True"


def test_a_target_stops_the_run_where_it_is_reached():
    target = pelton.from_numpyro(normal, Y)
    tree = pelton.sample(target, draws=20_000, stop_at=pelton.Target(ess=2000), sampler="nuts")
    assert tree.attrs["draws"] == tree["posterior"].sizes["draw"] < 5000
    assert min(tree.attrs["least_ess_bulk"], tree.attrs["least_ess_tail"]) >= 2000
    # The draws are those of the run that does not stop.
    whole = pelton.sample(target, draws=tree["posterior"].sizes["draw"], sampler="nuts")
    assert whole["posterior"]["mean"].equals(tree["posterior"]["mean"])
    short = pelton.sample(target, draws=400, stop_at=pelton.Target(ess=1e9), sampler="nuts")
    assert short["posterior"].sizes["draw"] == 400


@pytest.mark.parametrize(
    ("settings", "message"), [({"ess": 0}, "ess of a Target"), ({"rhat": 1.0}, "rhat of a Target")]
)
def test_refuses_targets(settings, message):
    with pytest.raises(pelton.errors.ArgumentError, match=message):
        pelton.Target(**settings)


def test_a_device_that_is_not_there_is_refused():
    target = pelton.from_numpyro(normal, Y)
    with pytest.raises(pelton.errors.ArgumentError, match="device is 'cpu', 'gpu', 'tpu' or None"):
        pelton.sample(target, device="abacus")
    if jax.default_backend() == "cpu":
        with pytest.raises(pelton.errors.ArgumentError, match="there is no gpu here: JAX knows cpu"):
            pelton.sample(target, device="gpu")


SPREAD = """
import sys, warnings
import jax, numpy as np, numpyro, numpyro.distributions as dist, pelton

def model(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([3]))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

warnings.simplefilter("ignore")
target = pelton.from_numpyro(model, np.zeros(3))
tree = pelton.sample(target, chains=5, draws=200, warmup=100, chain_method="vectorized")
print(len(jax.devices()))
# A sampler whose chains share what they begin with.
stores = pelton.PartialPooling([9, 22, 31], [138, 72, 157])
shared = pelton.sample(stores, sampler="grid", chains=5, draws=200, chain_method="vectorized")
np.savez(sys.argv[1], np.asarray(tree["posterior"]["x"]), np.asarray(shared["posterior"]["mu"]))
"""


@pytest.mark.long
def test_vectorised_chains_are_spread_over_devices(tmp_path):
    """The same draws on one device and on three, until rounding parts them."""
    found = {}
    for count in (1, 3):
        environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
        out = tmp_path / f"{count}.npz"
        done = subprocess.run(
            [sys.executable, "-c", SPREAD, str(out)], capture_output=True, text=True, env=environment, check=False
        )
        assert (done.returncode, done.stdout.strip()) == (0, str(count)), done.stderr[-3000:]
        found[count] = list(np.load(out).values())
    assert [one.shape for one in found[3]] == [(5, 200, 3), (5, 200)]
    for one, three in zip(found[1], found[3], strict=True):
        np.testing.assert_allclose(one[:, :3], three[:, :3], rtol=1e-5)


def test_warmup_groups_on_request():
    tree = pelton.sample(pelton.from_numpyro(normal, Y), keep_warmup=True, **SHORT)
    assert tree["warmup_posterior"]["mean"].shape == (2, 400)
    assert tree["warmup_sample_stats"]["step_size"].shape == (2, 400)


def test_a_non_finite_start_is_tried_again():
    """Half of the starts land where the density is zero."""

    def half(y):
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.factor("y", jnp.where(x > 0, y - x, -jnp.inf))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pelton.errors.ConvergenceWarning)
        tree = pelton.sample(pelton.from_numpyro(half, np.float64(0.0)), **SHORT)
    assert float(tree["posterior"]["x"].min()) > 0


def test_a_density_without_a_finite_value_is_an_error():
    def nowhere(y):
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.factor("y", jnp.nan * x * y)

    with pytest.raises(pelton.errors.ModelError, match="not finite at any of 100 starts"):
        pelton.sample(pelton.from_numpyro(nowhere, np.float64(1.0)), **SHORT)


def test_a_density_with_two_far_modes_is_not_called_converged():
    def modes(y):
        x = numpyro.sample("x", dist.Uniform(-30, 30))
        numpyro.factor("y", y + jnp.logaddexp(-0.5 * ((x - 20) / 0.1) ** 2, -0.5 * ((x + 20) / 0.1) ** 2))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tree = pelton.sample(pelton.from_numpyro(modes, np.float64(0.0)), seed=1, chains=6)
    assert any("the chains disagree" in str(warning.message) for warning in caught)
    assert all(warning.category is pelton.errors.ConvergenceWarning for warning in caught)
    assert tree.attrs["converged"] == 0
    assert tree.attrs["status"].startswith("NOT CONVERGED")


def test_batches_are_independent_posteriors():
    data = np.array([[0.0, 0.1, -0.1, 0.2], [5.0, 5.2, 4.9, 5.1], [-3.0, -3.1, -2.8, -3.2]])
    tree = pelton.sample(pelton.from_numpyro(normal, data, batch=3), draws=1000)
    assert tree["posterior"]["mean"].dims == ("chain", "draw", "segment")
    means = tree["posterior"]["mean"].mean(("chain", "draw"))
    np.testing.assert_allclose(means, data.sum(axis=1) / 4.01, atol=5 * 0.5 / np.sqrt(1000))
    vectorized = pelton.sample(pelton.from_numpyro(normal, data, batch=3), draws=1000, chain_method="vectorized")
    assert vectorized["posterior"]["mean"].shape == (4, 1000, 3)


def test_progress_shows_and_leaves_no_trace(capsys):
    pelton.sample(pelton.from_numpyro(normal, Y), progress=True, **SHORT)
    pelton.sample(pelton.from_numpyro(normal, Y), **SHORT)
    assert capsys.readouterr().out == ""


def test_a_posterior_of_negative_dimension_is_refused():
    with pytest.raises(pelton.errors.ArgumentError, match="at least 0"):
        Posterior(-1, lambda x, d: x, lambda x, d: {}, lambda k, d: k)


def test_works_after_arviz_whatever_is_imported_first(tmp_path):
    """ArviZ loads NumPyro lazily; a submodule asked for first leaves numpyro.distributions half loaded."""
    code = (
        "import arviz, numpyro.distributions as dist, pelton\n"
        "prior = pelton.MeanConcentration(dist.Beta(2.0, 2.0))\n"
        "model = pelton.PartialPooling([9, 22, 31], [138, 72, 157], prior=prior)\n"
        "print(pelton.sample(model, sampler='grid', draws=500).attrs['converged'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.strip() == "1", done.stderr
