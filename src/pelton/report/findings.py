"""What a fit found, in sentences and figures: the headline that the terminal and the report share."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from pelton.models.predictive import rng
from pelton.models.rates import Hyperparameters
from pelton.report.wording import (
    Amounts,
    Rates,
    called,
    count,
    listed,
    probability,
    shorten,
    significant,
    visible,
)

# A unit counts as above a threshold, or as changed by the budget split, from this probability on.
SURE = 0.9
# A share of the budget that is rounding error.
NOTHING = 1e-6


@dataclass(frozen=True)
class Findings:
    """The headline of a fit.

    Attributes:
        sentences: what the data say, most important first.
        converged: whether nothing speaks against the draws.
        problems: what does, each with its remedy.
    """

    sentences: tuple[str, ...]
    converged: bool
    problems: tuple[str, ...]


def find(
    tree: xr.DataTree,
    units: pd.DataFrame,
    top: int,
    threshold: float | None = None,
    budget: float | None = None,
) -> Findings:
    """Reads a fit.

    Args:
        tree: of PartialPooling.
        units: of `decisions.unit_table`, with the same top, threshold and budget.
    """
    known = Hyperparameters.of(tree)
    if known.logit_mean.ndim == 2:
        sentences = _levels(tree, known)
    else:
        where = " at average covariates" if known.coefficient is not None else ""
        sentences = population(tree, known.logit_mean, known.log_concentration, known.units, where)
    sentences += _coefficients(tree, known)
    sentences += _leaders(units, min(top, len(units)))
    if threshold is not None:
        exceeds = units["p_above"].to_numpy()
        above, below = int((exceeds >= SURE).sum()), int((exceeds <= 1 - SURE).sum())
        sentences.append(
            f"Threshold {100 * threshold:g}%: {count(above, 'unit')} above it and {below:,} below it with a "
            f"probability of {SURE:.0%} or more; the other {len(units) - above - below:,} may be either."
        )
    if budget is not None:
        sentences.append(_budget(units, budget))
    converged, problems = verdict(tree)
    return Findings(tuple(sentences), converged, problems)


def verdict(tree: xr.DataTree) -> tuple[bool, tuple[str, ...]]:
    """Whether the draws converged, and the problems where they did not."""
    if int(tree.attrs.get("converged", 1)):
        return True, ()
    status = str(tree.attrs.get("status", ""))
    return False, tuple(status.removeprefix("NOT CONVERGED: ").split(" | "))


def population(
    tree: xr.DataTree, logit_mean: np.ndarray, log_concentration: np.ndarray, units: int, where: str = ""
) -> list[str]:
    """What the data say of the population that the units come from.

    Args:
        tree: whose seed says which rates of new units are drawn.
        logit_mean, log_concentration: [draw].
        units: how many there are.
        where: of which units this is said, where not of all.
    """
    mu, kappa = 1 / (1 + np.exp(-logit_mean)), np.exp(log_concentration)
    new = _new_rates(tree, logit_mean, log_concentration)
    size = significant(float(np.median(kappa)), 2)
    if np.ptp(mu) == 0 and np.ptp(kappa) == 0:
        write = Rates([new.std()])
        return [
            f"The population is given and not learnt from these data: its mean rate is {write(mu[0])}, and it weighs "
            f"like {size} trials against each unit's own."
        ]
    write = Rates([mu.std()])
    return [
        f"The mean rate of the population behind the {count(units, 'unit')}{where} is {write(mu.mean())} (94% "
        f"interval {write.interval(*np.quantile(mu, [0.03, 0.97]))}).",
        f"Units differ: 94% of such units{where} would have true rates from "
        f"{Rates([new.std() / 10]).interval(*np.quantile(new, [0.03, 0.97]))}. What the others teach about a unit "
        f"weighs like {size} trials of its own.",
    ]


def _new_rates(tree: xr.DataTree, logit_mean: np.ndarray, log_concentration: np.ndarray) -> np.ndarray:
    """Rates of new units, one a draw of the hyperparameters (at average covariates)."""
    alpha = np.exp(log_concentration - np.logaddexp(0.0, -logit_mean))
    beta = np.exp(log_concentration - np.logaddexp(0.0, logit_mean))
    drawn = rng(tree, "findings").beta(alpha, beta)
    # Tiny shapes give 0/0 in the generator: a rate of 0 or 1, whose mean stands in for it here.
    return np.where(np.isfinite(drawn), drawn, alpha / (alpha + beta))


def _levels(tree: xr.DataTree, known: Hyperparameters) -> list[str]:
    name = str(tree["posterior"]["logit_mu"].dims[-1])
    labels = np.asarray(tree["posterior"][name])
    mu = 1 / (1 + np.exp(-known.logit_mean))
    means = mu.mean(axis=0)
    write = Rates(mu.std(axis=0))
    first, last = int(np.argmax(means)), int(np.argmin(means))

    def said(at: int) -> str:
        ends = write.interval(*np.quantile(mu[:, at], [0.03, 0.97]))
        return f"{write(means[at])} in {called(_short(labels[at]), name)} (94% interval {ends})"

    if len(labels) == 1:
        return [f"The mean rate is {said(0)}."]
    return [
        f"{count(known.units, 'unit')} in {count(len(labels), name)}; mean rates run from {said(last)} to "
        f"{said(first)}."
    ]


def _coefficients(tree: xr.DataTree, known: Hyperparameters) -> list[str]:
    if known.coefficient is None:
        return []
    parts = []
    for name, draws in zip(np.asarray(tree["posterior"]["covariate"]), known.coefficient.T, strict=True):
        low, high = np.exp(np.quantile(draws, [0.03, 0.97]))
        parts.append(f"{_short(name)} by {np.exp(draws.mean()):.2f} (94% interval {low:.2f} to {high:.2f})")
    return [f"One standard deviation more multiplies the odds of a success: {listed(parts)}."]


def _leaders(units: pd.DataFrame, top: int) -> list[str]:
    if len(units) < 2:
        return []
    order = units.sort_values("mean", ascending=False, kind="stable")
    write, noun = Rates(order["sd"].iloc[:3]), visible(units.index.name or "unit")
    leaders = [
        f"{called(_short(name), noun)} {write(row['mean'])}" for name, row in order.iloc[: min(3, top)].iterrows()
    ]
    sentence = f"Highest pooled rates: {listed(leaders)}."
    if order["mean"].iloc[0] > order["mean"].iloc[1]:
        best = probability(float(order["p_best"].iloc[0]))
        sentence += f" The first is truly the best with probability {best}."
    return [sentence]


def _budget(units: pd.DataFrame, budget: float) -> str:
    low, high = units["budget_change_low"].to_numpy(), units["budget_change_high"].to_numpy()
    sum_moved, sure = moved(units), int(((low > 0) | (high < 0)).sum())
    write = Amounts([budget])
    if not sum_moved > NOTHING * budget:
        return f"Budget {write(budget)} by pooled rather than raw rates: nothing moves between units."
    return (
        f"Budget {write(budget)} by pooled rather than raw rates: {write(sum_moved)} ({100 * sum_moved / budget:.2g}% "
        f"of it) moves between units. The 94% interval of the change excludes zero for {sure:,} of "
        f"{count(len(units), 'unit')}."
    )


def moved(units: pd.DataFrame) -> float:
    """How much of the budget goes to other units by pooled than by raw rates."""
    change = units["budget_change"].to_numpy()
    return float(change[change > 0].sum())


def _short(name: object) -> str:
    return shorten(visible(name), 60)
