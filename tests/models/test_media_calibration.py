"""Simulation-based calibration of MediaMix, and recovery of the eight markets' truth (slow suite)."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats

import pelton
from pelton.benchmarks import markets
from pelton.engine.errors import ConvergenceWarning
from pelton.models.media_mix import MediaMix
from pelton.models.panel import Panel
from pelton.models.simulate import simulate_media

SETS = 100
THIN = 6


def hill_of_adstock(spend, alpha, k, s, l_max=12):
    """One geo and channel by plain loops; spend in typical active weeks."""
    weights = alpha ** np.arange(l_max)
    carried = np.convolve(spend, weights / weights.sum())[: len(spend)]
    return np.where(carried > 0, carried**s / (carried**s + k**s), 0.0)


def drawn_truth(rng: np.random.Generator, panel: Panel) -> dict[str, Any]:
    """Parameters from the model's default priors, and the target that follows from them, in plain NumPy."""
    geos, channels = len(panel.geos), len(panel.channels)

    def hierarchical(location, scale, size):
        location, sd = np.asarray(location), np.abs(rng.normal(0, scale, size))
        return location + sd * rng.normal(size=(geos, size)), location, sd

    beta = rng.beta(1.0, 3.0, channels)
    alpha, _, alpha_sd = hierarchical(np.log(beta / (1 - beta)), 0.5, channels)
    k, _, _ = hierarchical(rng.normal(0.0, 0.7, channels), 0.3, channels)
    s, _, _ = hierarchical(rng.normal(0.2, 0.4, channels), 0.2, channels)
    share, share_location, share_sd = hierarchical(rng.normal(np.log(0.05), 1.0, channels), 0.5, channels)
    intercept, intercept_location, _ = hierarchical(rng.normal(0.5, 0.5, 1), 0.3, 1)
    alpha, k, s, share = 1 / (1 + np.exp(-alpha)), np.exp(k), np.exp(s), np.exp(share)
    sigma = np.abs(rng.normal(0, 0.5, geos))
    mean = np.zeros(panel.target.shape)
    for g in range(geos):
        weeks = np.flatnonzero(panel.inside[g])
        mean[g, weeks] = intercept[g, 0]
        for c in range(channels):
            spend = panel.media[g, weeks, c] / panel.media_scale[g, c]
            shape = hill_of_adstock(spend, alpha[g, c], k[g, c], s[g, c])
            mean[g, weeks] += share[g, c] * (1 + k[g, c] ** s[g, c]) * shape
    target = np.where(panel.inside, mean + sigma[:, None] * rng.normal(size=mean.shape), np.nan)
    loglik = np.nansum(scipy.stats.norm.logpdf(target, mean, sigma[:, None]))
    return {
        "target": target,
        "alpha": alpha[0, 0],
        "alpha_sd": alpha_sd[1],
        "contribution": share[2, 1],
        "contribution_population": np.exp(share_location[0]),
        "contribution_sd": share_sd[0],
        "intercept": intercept[1, 0],
        "intercept_population": intercept_location[0],
        "sigma": sigma[2],
        "half_saturation": k[0, 1] * panel.media_scale[0, 1],
        "log_likelihood": loglik,
    }


@pytest.mark.slow
def test_ranks_of_the_truth_are_uniform():
    simulated = simulate_media(3, [40, 30, 16], 2, seed=5)
    columns: dict[str, Any] = simulated.columns | {"controls": [], "events": []}
    base = Panel.from_frame(simulated.frame, **columns)
    rng = np.random.default_rng(11)
    ranks: dict[str, list[float]] = {}
    for at in range(SETS):
        truth = drawn_truth(rng, base)
        panel = replace(base, target=truth.pop("target"))
        # The prior speaks of the scaled target; here its scale is known to be 1.
        panel.__dict__["target_scale"] = np.ones(3)
        panel.__dict__["media_scale"] = base.media_scale
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            tree = pelton.sample(
                MediaMix(panel), chains=2, warmup=500, draws=500, seed=at, groups=("log_likelihood",), progress=False
            )
        found = tree["posterior"].to_dataset().isel(draw=slice(None, None, THIN))
        values = {
            "alpha": found["alpha"][..., 0, 0],
            "alpha_sd": found["alpha_sd"][..., 1],
            "contribution": found["contribution"][..., 2, 1],
            "contribution_population": found["contribution_population"][..., 0],
            "contribution_sd": found["contribution_sd"][..., 0],
            "intercept": found["baseline_coefficient"][..., 1, 0],
            "intercept_population": found["intercept_population"][..., 0],
            "sigma": found["sigma"][..., 2],
            "half_saturation": found["half_saturation"][..., 0, 1],
            "log_likelihood": tree["log_likelihood"]["target"].isel(draw=slice(None, None, THIN)).sum(("geo", "time")),
        }
        for name, draws in values.items():
            flat = np.asarray(draws).ravel()
            below = int((flat < truth[name]).sum())
            ranks.setdefault(name, []).append((below + rng.uniform()) / (len(flat) + 1))
    for name, found_ranks in ranks.items():
        # One quantity in ten thousand fails by chance.
        assert scipy.stats.kstest(found_ranks, "uniform").pvalue > 1e-4, name


@pytest.mark.slow
def test_the_markets_truth_is_recovered():
    rows = [markets.fit(seed, draws=2000)[1] for seed in range(30)]
    shares = markets.total_coverage(rows)
    assert 0.88 <= shares["all"] <= 0.99
    assert all(row["rhat"] <= 1.01 for row in rows), [row["rhat"] for row in rows]


@pytest.mark.slow
def test_the_hierarchy_beats_pooled_and_unpooled():
    found = markets.compare(0)
    assert found["loo"][0]["pooling"] == "hierarchical", found["loo"]
    fits = found["fits"]
    assert fits["hierarchical"]["roas_error_short"] < fits["unpooled"]["roas_error_short"]
