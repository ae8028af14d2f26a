"""One campaign's rate: the conjugate posterior of a Beta prior, and such a prior from past campaigns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from pelton.engine.errors import ArgumentError, DataError
from pelton.engine.run import sample
from pelton.models.frames import is_table
from pelton.models.partial_pooling import PartialPooling
from pelton.models.priors import FixedBeta, Prior


@dataclass(frozen=True)
class RatePosterior:
    """theta ~ Beta(alpha, beta) a priori, k successes of n trials seen: theta | k ~ Beta(alpha + k, beta + n - k).

    Attributes:
        prior: the Beta prior.
        successes, trials: the counts.
    """

    prior: FixedBeta
    successes: int
    trials: int

    @property
    def alpha(self) -> float:
        """First shape of the posterior."""
        return self.prior.alpha + self.successes

    @property
    def beta(self) -> float:
        """Second shape of the posterior."""
        return self.prior.beta + self.trials - self.successes

    @property
    def distribution(self) -> Any:
        """The posterior as a frozen scipy distribution."""
        return stats.beta(self.alpha, self.beta)

    def summary(self, probability: float = 0.94) -> dict[str, float]:
        """mean, sd and the central interval's ends, low and high.

        >>> posterior = rate_posterior(FixedBeta(11.5, 48.5), 7, 10)
        >>> {name: round(value, 4) for name, value in posterior.summary().items()}
        {'mean': 0.2643, 'sd': 0.0523, 'low': 0.1719, 'high': 0.3681}
        """
        low, high = self.distribution.interval(probability)
        return {
            "mean": float(self.distribution.mean()),
            "sd": float(self.distribution.std()),
            "low": float(low),
            "high": float(high),
        }

    def at(self, trials: int) -> "RatePosterior":
        """The posterior had the same observed rate been seen in that many trials, to the nearest success."""
        return RatePosterior(self.prior, round(self.successes / self.trials * trials), trials)


def rate_posterior(prior: FixedBeta, successes: int, trials: int) -> RatePosterior:
    """The posterior of one rate.

    Args:
        prior: a Beta prior, stated or from `fit_prior`.
        successes, trials: whole numbers, 0 <= successes <= trials, trials at least 1.

    Raises:
        DataError: the counts are none, or there are no trials.

    >>> rate_posterior(FixedBeta(11.5, 48.5), 7, 10).alpha
    18.5
    """
    if not isinstance(trials, int | np.integer) or trials < 1:
        raise DataError(f"trials is a whole number of at least 1, not {trials!r}")
    if not isinstance(successes, int | np.integer) or not 0 <= successes <= trials:
        raise DataError(f"successes is a whole number from 0 to the {trials} trials, not {successes!r}")
    return RatePosterior(prior, int(successes), int(trials))


def fit_prior(
    history: Any,
    *,
    successes: str = "successes",
    trials: str = "trials",
    prior: Prior | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> FixedBeta:
    """The Beta prior that past campaigns' counts speak for.

    Fits the population that the campaigns come from, (mu, kappa) by the grid sampler, and returns the Beta distribution
    with the mean and the variance of a new campaign's rate under that posterior,

        E = E[mu],  Var = E[mu (1 - mu) / (kappa + 1)] + Var[mu],

    so that what few campaigns leave unknown of the population widens the prior: from four campaigns it is weak.

    Args:
        history: a table with one row a past campaign, or a pair (successes, trials).
        successes, trials: names of the columns.
        prior: of the population; by default that of PartialPooling.
        draws: of each of four chains.
        seed: of the draws.

    Raises:
        DataError: fewer than two campaigns with trials, or bad counts.

    Source: the moments of a beta mixture; Gelman et al., Bayesian Data Analysis, 3rd ed., section 5.1, finds such a
    prior from 70 past experiments.

    >>> prior = fit_prior(([20, 31, 12, 45, 90, 55, 37, 62], [100, 160, 70, 200, 410, 290, 180, 300]))
    >>> 0.19 < prior.alpha / (prior.alpha + prior.beta) < 0.22
    True
    """
    if is_table(history):
        model = PartialPooling.from_frame(history, successes=successes, trials=trials, prior=prior)
    else:
        k, n = history
        model = PartialPooling(k, n, prior=prior)
    if int((model.counts.trials > 0).sum()) < 2:
        raise DataError("fit_prior needs at least two past campaigns with trials; state a FixedBeta prior instead")
    if model.prior.fixed:
        raise ArgumentError("a FixedBeta prior of the population leaves nothing to fit")
    tree = sample(model, sampler="grid", draws=draws, seed=seed)
    mu, kappa = (np.asarray(tree["posterior"][name], dtype=np.float64).ravel() for name in ("mu", "kappa"))
    mean = float(mu.mean())
    variance = float(np.mean(mu * (1 - mu) / (kappa + 1)) + mu.var())
    size = mean * (1 - mean) / variance - 1
    return FixedBeta(mean * size, (1 - mean) * size)
