"""What draws are worth: effective sample sizes, distances from a reference in standard errors, and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

type Answer = Literal["right", "wrong", "not converged", "few draws", "unchecked", "agrees", "disagrees"]

# A mean may lie so many standard errors from the truth, and is judged once so many effective draws are there.
LARGEST_Z = 5.0
MIN_ESS = 400
LARGEST_RHAT = 1.1
# Answers whose speed counts; of the few draws it is a rough figure.
COUNTED = ("right", "agrees", "few draws")


@dataclass(frozen=True)
class Truth:
    """What a quantity's posterior mean and standard deviation are, each with its own Monte Carlo standard error.

    Attributes:
        mean, sd: arrays of the quantity's shape, or scalars.
        mean_error, sd_error: 0 where the truth is exact.
    """

    mean: np.ndarray
    sd: np.ndarray
    mean_error: np.ndarray = field(default_factory=lambda: np.zeros(()))
    sd_error: np.ndarray = field(default_factory=lambda: np.zeros(()))


def _statistics() -> Any:
    from arviz_stats.base.array import array_stats

    return array_stats


def smallest_ess(*variables: Any) -> float:
    """Smallest bulk effective sample size of variables [chain, draw], by ArviZ.

    >>> noise = np.random.default_rng(0).normal(size=(4, 500))
    >>> 1500 < smallest_ess(noise, noise**3) < 2500
    True
    """
    stacked = np.stack([np.asarray(values, np.float64) for values in variables])
    return float(np.min(np.asarray(_statistics().ess(stacked, method="bulk"))))


def errors(draws: np.ndarray, truth: float) -> float:
    """(mean - truth) / MCSE: how many Monte Carlo standard errors the mean of draws [chain, draw] lies off.

    Source: Vehtari et al. 2021 for the standard error, by ArviZ.

    >>> noise = np.random.default_rng(0).normal(size=(4, 1000))
    >>> abs(errors(noise, 0.0)) < 4, errors(noise, 1.0) < -50
    (True, True)
    """
    return (float(draws.mean()) - truth) / float(_statistics().mcse(draws, method="mean"))


def elements(draws: Mapping[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
    """Names and draws [element, chain, draw] of every element of quantities [chain, draw, ...].

    >>> names, stacked = elements({"a": np.zeros((2, 5)), "b": np.zeros((2, 5, 3))})
    >>> names, stacked.shape
    (['a', 'b[0]', 'b[1]', 'b[2]'], (4, 2, 5))
    """
    names, rows = [], []
    for name, values in draws.items():
        array = np.moveaxis(np.asarray(values, np.float64).reshape(*values.shape[:2], -1), 2, 0)
        scalar = values.ndim == 2
        names += [name] if scalar else [f"{name}{list(at)}" for at in np.ndindex(values.shape[2:])]
        rows.append(array)
    return names, np.concatenate(rows)


def worth(draws: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Smallest and median effective sample sizes, bulk and tail, and the largest R-hat over all elements.

    Draws that are not finite, or never move, have none: 0 and infinity.

    >>> found = worth({"a": np.random.default_rng(0).normal(size=(4, 500))})
    >>> 1500 < found["ess_bulk"] < 2500, found["rhat"] < 1.01
    (True, True)
    """
    names, stacked = elements(draws)
    stats = _statistics()
    if not np.isfinite(stacked).all() or not (np.ptp(stacked, axis=(1, 2)) > 0).all():
        return {"ess_bulk": 0.0, "ess_bulk_median": 0.0, "ess_tail": 0.0, "ess_tail_median": 0.0, "rhat": 1e9}
    bulk = np.asarray(stats.ess(stacked, method="bulk"))
    tail = np.asarray(stats.ess(stacked, method="tail", prob=(0.05, 0.95)))
    return {
        "ess_bulk": float(bulk.min()),
        "ess_bulk_of": names[int(bulk.argmin())],
        "ess_bulk_median": float(np.median(bulk)),
        "ess_tail": float(tail.min()),
        "ess_tail_median": float(np.median(tail)),
        "rhat": float(np.max(stats.rhat(stacked, method="rank"))),
    }


@dataclass
class Judge:
    """Collects fits of one system on one case, and says whether they are right.

    Attributes:
        truth: by quantity; empty where there is no reference.
        ess: smallest effective sample sizes, summed over fits.
        rhat: the largest.
        sums: by "QUANTITY mean" and "QUANTITY sd": estimates and squared errors of each fit.
    """

    truth: Mapping[str, Truth]
    ess: float = 0.0
    rhat: float = 0.0
    sums: dict[str, list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)

    def take(self, draws: Mapping[str, np.ndarray], found: Mapping[str, Any]) -> None:
        """Takes a fit's draws and their worth."""
        self.ess += found["ess_bulk"]
        self.rhat = max(self.rhat, found["rhat"])
        for name, truth in self.truth.items():
            if name not in draws or found["ess_bulk"] == 0:
                continue
            _, stacked = elements({name: draws[name]})
            about = (stacked - np.reshape(truth.mean, (-1, 1, 1))) ** 2
            # The second moment about the true mean is a mean too, and judges the standard deviation.
            for kind, values in (("mean", stacked), ("sd", about)):
                error = np.asarray(_statistics().mcse(values, method="mean"))
                self.sums.setdefault(f"{name} {kind}", []).append((values.mean(axis=(1, 2)), error**2))

    def distances(self) -> dict[str, float]:
        """The element furthest from the truth, in combined standard errors, by "QUANTITY mean" and "QUANTITY sd"."""
        found = {}
        for key, fits in self.sums.items():
            name, kind = key.rsplit(" ", 1)
            truth = self.truth[name]
            mean = np.mean([estimate for estimate, _ in fits], axis=0)
            square = np.sum([error for _, error in fits], axis=0) / len(fits) ** 2
            if kind == "mean":
                wanted, own = np.ravel(truth.mean), np.ravel(truth.mean_error)
            else:
                wanted, own = np.ravel(truth.sd) ** 2, np.ravel(2 * truth.sd * truth.sd_error)
            z = (mean - wanted) / np.sqrt(square + own**2)
            found[key] = float(z[np.abs(z).argmax()])
        return found

    def answer(self) -> Answer:
        """right, or what is wrong with it; what did not converge is not judged further."""
        if self.rhat > LARGEST_RHAT:
            return "not converged"
        if any(abs(z) > LARGEST_Z for z in self.distances().values()):
            return "wrong"
        if self.ess < MIN_ESS:
            return "few draws"
        return "right" if self.sums else "unchecked"


def truth_of(draws: Mapping[str, np.ndarray]) -> dict[str, Truth]:
    """Means and standard deviations of draws [chain, draw, ...] by quantity, with their Monte Carlo standard errors.

    >>> found = truth_of({"x": np.random.default_rng(0).normal(size=(4, 1000, 3))})["x"]
    >>> found.mean.shape, bool(abs(found.mean_error[0] - 0.016) < 0.003)
    ((3,), True)
    """
    stats, found = _statistics(), {}
    for name, values in draws.items():
        stacked = np.moveaxis(np.asarray(values, float), (0, 1), (-2, -1))
        found[name] = Truth(
            stacked.mean(axis=(-2, -1)),
            stacked.std(axis=(-2, -1), ddof=1),
            np.asarray(stats.mcse(stacked, method="mean")),
            np.asarray(stats.mcse(stacked, method="sd")),
        )
    return found


def spread(values: Sequence[float]) -> list[float]:
    """Median, least and greatest.

    >>> spread([3.0, 1.0, 2.0])
    [2.0, 1.0, 3.0]
    """
    return [float(np.median(values)), float(min(values)), float(max(values))]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Median, least and greatest of all quotients ours / theirs.

    >>> ratios([4.0, 8.0], [2.0])
    [3.0, 2.0, 4.0]
    """
    return spread([one / other for one in ours for other in theirs])
