"""emcee: an ensemble of walkers in Python on the marginal density of two hyperparameters, written with SciPy."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from typing import Any

import emcee
import numpy as np
from scipy.special import betaln, expit

PACKAGES = ["emcee", "numpy", "scipy"]


def log_prior(prior: str, logit_mu: np.ndarray, log_kappa: np.ndarray) -> np.ndarray:
    """log p(logit mu, log kappa) up to a constant."""
    mu, rest, kappa = expit(logit_mu), expit(-logit_mu), np.exp(log_kappa)
    a, b = mu * kappa, rest * kappa
    match prior:
        case "gamma":
            # alpha, beta ~ Gamma(1/2, 1/2); d(alpha, beta) = alpha beta d(logit mu, log kappa).
            return 0.5 * np.log(a * b) - 0.5 * (a + b)
        case "mean_concentration":
            # mu ~ Beta(2, 2), kappa ~ Pareto(1.5) from 1.
            return np.where(kappa >= 1, 2 * np.log(mu * rest) - 1.5 * log_kappa, -np.inf)
        case "bda":
            # p(alpha, beta) ~ (alpha + beta)^(-5/2).
            return np.log(a * b) - 2.5 * log_kappa
    raise ValueError(f"unknown prior {prior!r}")


def fit(job: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    """As many walkers as chains."""
    pairs, times = np.unique(np.stack([data["successes"], data["trials"]], axis=1), axis=0, return_counts=True)
    k, m = pairs[:, 0].astype(float), (pairs[:, 1] - pairs[:, 0]).astype(float)

    def log_density(points: np.ndarray) -> np.ndarray:
        kappa = np.exp(points[:, 1])
        a, b = (expit(sign * points[:, 0]) * kappa for sign in (1, -1))
        value = log_prior(job["settings"]["prior"], points[:, 0], points[:, 1])
        value = value + (betaln(a[:, None] + k, b[:, None] + m) - betaln(a, b)[:, None]) @ times
        return np.where(np.isfinite(value), value, -np.inf)

    random = np.random.default_rng(job["seed"])
    rate = (data["successes"].sum() + 1) / (data["trials"].sum() + 2)
    start = np.array([np.log(rate / (1 - rate)), 2.5]) + 0.1 * random.normal(size=(job["chains"], 2))
    sampler = emcee.EnsembleSampler(job["chains"], 2, log_density, vectorize=True)
    # emcee takes the state of NumPy's older generator.
    sampler.random_state = np.random.RandomState(job["seed"]).get_state()
    sampler.run_mcmc(start, job["warmup"] + job["draws"])
    draws = sampler.get_chain(discard=job["warmup"]).swapaxes(0, 1)
    return {
        "draws": {"logit_mu": draws[..., 0], "log_kappa": draws[..., 1]},
        "compiling": 0.0,
        "notes": [f"{job['chains']} walkers, {100 * float(np.mean(sampler.acceptance_fraction)):.0f}% accepted"],
    }
