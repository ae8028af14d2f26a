"""The t mixtures that chain.cpp proposes jumps from, fitted to an earlier chain's draws.

python fit_jumps.py EARLIER.bin jumps.txt
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.special import gammaln, logsumexp

# A row of the chain's draws: five hyperparameters, then per country 11 parameters and a log likelihood.
HYPERS = 5
BLOCK = 11
COUNTRIES = 3
SWITZERLAND = 2
SATS = np.array([3, 6, 9])
CARS = np.array([4, 7, 10])
FREEDOM = 8  # chain.cpp has the same number
MOST_DRAWS = 6000
# Scales fitted to draws are widened by this: a proposal should be wider than its target.
WIDER = 1.12

Mixture = tuple[np.ndarray, np.ndarray, np.ndarray]  # weights [k], means [k, d], lower factors of the scales [k, d, d]


def to_mixture_scale(blocks: np.ndarray) -> np.ndarray:
    """Blocks [draw, 11] with their carryovers, logits, on log(-log car)."""
    moved = blocks.copy()
    moved[:, CARS] = np.log(np.logaddexp(0, -blocks[:, CARS]))
    return moved


def distances(draws: np.ndarray, means: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distances [draw, part]."""
    parts = zip(means, factors, strict=True)
    return np.array([(np.linalg.solve(factor, (draws - mean).T) ** 2).sum(0) for mean, factor in parts]).T


def log_densities(draws: np.ndarray, means: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Log densities [draw, part] of each part's t."""
    size = draws.shape[1]
    constant = gammaln((FREEDOM + size) / 2) - gammaln(FREEDOM / 2) - size / 2 * np.log(FREEDOM * np.pi)
    log_determinants = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
    far = distances(draws, means, factors)
    return constant - log_determinants - (FREEDOM + size) / 2 * np.log1p(far / FREEDOM)


def fit(draws: np.ndarray, parts: int, sweeps: int = 25, floor: float = 1e-3) -> Mixture:
    """Expectation maximisation for a mixture of t distributions; floor, a share of the variances, keeps parts wide."""
    count, size = draws.shape
    means = draws[np.random.default_rng(0).choice(count, parts, replace=False)]
    scales = np.array([np.cov(draws.T) / parts ** (2 / size) + 1e-6 * np.eye(size)] * parts)
    weights = np.full(parts, 1 / parts)
    prior = (size + 2) * (np.diag(draws.var(0)) * floor)
    for _ in range(sweeps):
        factors = np.linalg.cholesky(scales)
        joint = log_densities(draws, means, factors) + np.log(weights)
        shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        # A draw far from its part counts for less: the t's own weights.
        weighted = shares * ((FREEDOM + size) / (FREEDOM + distances(draws, means, factors)))
        held = shares.sum(0) + 1e-9
        weights = held / held.sum()
        means = (weighted.T @ draws) / (weighted.sum(0)[:, None] + 1e-9)
        for k in range(parts):
            apart = draws - means[k]
            scales[k] = ((weighted[:, k, None] * apart).T @ apart + prior) / (held[k] + (size + 2))
    return weights, means, np.linalg.cholesky(scales)


def fit_country(blocks: np.ndarray, country: int, rng: np.random.Generator) -> Mixture:
    """One country's mixture, fitted apart to its main mode and to its rare one, which gets more than its share."""
    moved = to_mixture_scale(blocks)
    if country == SWITZERLAND:
        # The mode with little noise, where the channels work in proportion.
        rare = np.exp(blocks[:, 1]) < 900
        modes = [(~rare, 24, 0.6), (rare, 12, 0.4)]
    else:
        # A channel that saturates at once.
        rare = (blocks[:, SATS] > -5).any(1)
        modes = [(~rare, 8, 0.85), (rare, 4, 0.15)]
    print(f"country {country}: {rare.sum()} of {len(rare)} draws in the rare mode")
    fitted: list[Mixture] = []
    for selected, parts, share in modes:
        draws = moved[selected]
        draws = draws[rng.permutation(len(draws))[:MOST_DRAWS]]
        weights, means, factors = fit(draws, parts)
        fitted.append((weights * share, means, factors * WIDER))
    weights, means, factors = (np.concatenate(piece) for piece in zip(*fitted, strict=True))
    return weights, means, factors


def main() -> None:
    """Fits the three countries' mixtures and writes them as chain.cpp reads them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("draws", type=Path, help="OUT of a chain of all three countries")
    parser.add_argument("jumps", type=Path, help="where the mixtures go")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    rows = np.fromfile(asked.draws).reshape(-1, HYPERS + COUNTRIES * (BLOCK + 1))
    rng = np.random.default_rng(asked.seed)
    lines: list[str] = []
    for country in range(COUNTRIES):
        first = HYPERS + country * (BLOCK + 1)
        weights, means, factors = fit_country(rows[:, first : first + BLOCK], country, rng)
        lines.append(str(len(weights)))
        for weight, mean, factor in zip(weights, means, factors, strict=True):
            lines.append(" ".join(f"{value:.17g}" for value in (weight, *mean, *factor.ravel())))
    asked.jumps.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
