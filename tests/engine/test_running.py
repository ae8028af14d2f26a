"""Moments of batches against NumPy, and the figures they give against ArviZ and AR(1) chains of known ESS."""

import numpy as np
import pytest
from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

from pelton.engine.errors import ArgumentError
from pelton.engine.precision import using
from pelton.engine.running import Running


def autoregressive(shape, correlation):
    draws = np.random.default_rng(11).normal(size=shape)
    for i in range(1, shape[1]):
        draws[:, i] = correlation * draws[:, i - 1] + np.sqrt(1 - correlation**2) * draws[:, i]
    return draws


def fed(draws, chunks, batches=32):
    running, at = Running.empty(draws.shape[0], draws.shape[2], batches), 0
    for chunk in chunks:
        running = running.updated(draws[:, at : at + chunk])
        at += chunk
    assert at == draws.shape[1]
    return running


@pytest.mark.parametrize("chunks", [[137], [1] * 5 + [0, 32, 100], [3, 130, 4]])
def test_moments_are_those_of_all_draws(chunks):
    draws = autoregressive((3, 137, 4), 0.5) + 20.0
    with using("float64"):
        running = fed(draws, chunks, batches=8)
    # 137 draws fit into 8 batches of 32 = 2^5.
    assert (int(running.draws), int(running.length)) == (137, 32)
    for batch in range(8):
        part = draws[:, batch * 32 : (batch + 1) * 32]
        if part.shape[1]:
            np.testing.assert_allclose(running.mean[:, batch] + running.centre, part.mean(axis=1), rtol=1e-12)
            np.testing.assert_allclose(
                running.squares[:, batch], part.var(axis=1) * part.shape[1], rtol=1e-10, atol=1e-12
            )
        else:
            assert not np.any(running.squares[:, batch])


def test_split_rhat_of_full_batches_is_arvizs():
    draws = autoregressive((4, 1024, 3), 0.7) + 0.3 * np.arange(4)[:, None, None]
    with using("float64"):
        found = fed(draws, [250, 250, 250, 250, 24]).rhat()
    np.testing.assert_allclose(found, array_stats.rhat(np.moveaxis(draws, 2, 0), method="split"), rtol=1e-10)


def test_float32_keeps_digits_far_from_zero():
    draws = (autoregressive((4, 1024, 3), 0.7) + 3e4).astype(np.float32)
    with using("float32"):
        running = fed(draws, [512, 512])
        assert running.mean.dtype == np.float32
        found = running.rhat()
    wanted = array_stats.rhat(np.moveaxis(draws.astype(np.float64), 2, 0), method="split")
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("correlation", [0.9, 0.0, -0.5])
def test_ess_is_that_of_autoregressive_chains(correlation):
    # The autocorrelation time is (1 + r) / (1 - r). That by batch means of length L is short of it by about
    # 2 r / (L (1 - r)^2), and has a relative standard error of sqrt(2 / (batches - 1)) for each parameter.
    chains, draws, parameters = 4, 8192, 200
    values = autoregressive((chains, draws, parameters), correlation)
    with using("float64"):
        running = fed(values, [2048] * 4)
        found = np.asarray(running.ess())
    time = (1 + correlation) / (1 - correlation)
    bias = 2 * correlation / (int(running.length) * (1 - correlation) ** 2)
    error = time * np.sqrt(2 / (chains * 32 - 1) / parameters)
    estimate = np.mean(chains * draws / found)
    assert abs(estimate - (time - bias)) < 5 * error
    arviz = np.asarray(array_stats.ess(np.moveaxis(values, 2, 0), method="mean"))
    # ArviZ's own error is far smaller than that of batch means.
    assert abs(estimate - np.mean(chains * draws / arviz)) < 5 * error + abs(bias)


def test_figures_wait_until_they_can_be_told():
    draws = autoregressive((2, 8, 2), 0.3)
    draws[..., 1] = 1.0
    with using("float64"):
        assert np.isnan(Running.empty(2, 2).rhat()).all()
        assert np.isnan(fed(draws[:, :3], [3]).rhat()).all()
        assert np.isnan(fed(draws[:, :3], [3]).ess()).all()
        ready = fed(draws, [8])
        np.testing.assert_array_equal(np.isnan(ready.rhat()), [False, True])
        np.testing.assert_array_equal(np.isnan(ready.ess()), [False, True])
        assert np.isnan(fed(draws[:1], [8]).rhat()).all()
        draws[0, 2, 0] = np.inf
        assert np.isnan(fed(draws, [8]).rhat()).all()
        assert np.isnan(fed(draws, [8]).ess()).all()


def test_chains_apart_count_as_few_draws():
    draws = autoregressive((4, 640, 1), 0.0) * 0.01 + np.arange(4)[:, None, None]
    with using("float64"):
        running = fed(draws, [320, 320])
        assert running.rhat()[0] > 10
        assert running.ess()[0] < 4 * 32 * 1.01


def test_arguments_are_checked():
    with pytest.raises(ArgumentError, match="even number"):
        Running.empty(2, 3, batches=7)
    with pytest.raises(ArgumentError, match="of 2 chains and 3 parameters"):
        Running.empty(2, 3).updated(np.zeros((2, 5, 4)))
