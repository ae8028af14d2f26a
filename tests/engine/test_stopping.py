"""Runs that stop at a target: what they say is no more biased than what runs of a fixed length say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from scipy import stats

import pelton
from pelton.engine.posterior import Posterior

RUNS = 300


def skewed(position, data):
    """x0 ~ Normal(0, 1), and x1 with exp(x1) ~ Gamma(2, 1)."""
    del data
    return -0.5 * position[0] ** 2 + 2 * position[1] - jnp.exp(position[1])


def start(key, data):
    del data
    return jax.random.normal(key, (2,))


def identity(position, data):
    del data
    return {"x": position}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pelton.engine.errors.ConvergenceWarning")
@pytest.mark.parametrize("stop_at", [None, pelton.Target(ess=150, rhat=1.02)])
def test_errors_of_runs_that_stop_are_those_of_runs_that_do_not(stop_at):
    """z = (mean - truth) / MCSE over 300 runs: mean 0, sd 1, as often beyond 1.645 as a normal one is."""
    target = Posterior(2, skewed, identity, start, (), dims={"x": ("axis",)})
    truth = np.array([0.0, float(jax.scipy.special.digamma(2.0))])
    z, lengths = [], []
    for seed in range(RUNS):
        tree = pelton.sample(
            target,
            sampler="nuts",
            chains=4,
            warmup=200,
            draws=150 if stop_at is None else 3000,
            stop_at=stop_at,
            seed=seed,
        )
        draws = np.moveaxis(np.asarray(tree["posterior"]["x"]), -1, 0)
        z.append((draws.mean(axis=(1, 2)) - truth) / array_stats.mcse(draws, method="mean"))
        lengths.append(draws.shape[2])
    z = np.array(z)
    print(f"{stop_at}: z {z.mean(axis=0)} +- {z.std(axis=0)}, draws {min(lengths)} to {max(lengths)}")
    if stop_at is not None:
        assert len(set(lengths)) > 1
    assert np.all(np.abs(z.mean(axis=0)) < 5 / np.sqrt(RUNS))
    assert np.all(np.abs(z.std(axis=0) - 1) < 5 / np.sqrt(2 * RUNS))
    beyond = (np.abs(z) > stats.norm.ppf(0.95)).sum(axis=0)
    assert np.all(beyond < stats.binom.ppf(1 - 1e-6, RUNS, 0.1))
