"""What is decided with the rates of a PartialPooling tree: ranks, budgets, comparisons, checks, held-out prediction."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.arguments import central
from pelton.engine.errors import ArgumentError, DataError, UnknownNameError
from pelton.engine.run import sample
from pelton.models.partial_pooling import PartialPooling
from pelton.models.predictive import draw_beta, predict_counts, rng
from pelton.models.rates import (
    THINNED_DRAWS,
    Hyperparameters,
    blocks,
    rate_seed,
    rates_of,
    unit_summary,
)

# Up to this many draws x units the whole matrix of rates is held and ranked; past it, draws are thinned.
EXACT_ELEMENTS = 2 * 10**7
CHECK_DRAWS = 1000


def _index(tree: xr.DataTree) -> pd.Index:
    return pd.Index(np.asarray(tree["observed_data"]["unit"]), name=tree.attrs.get("unit_name", "unit"))


def _thinned(tree: xr.DataTree) -> Hyperparameters:
    """The tree's hyperparameters, every so-manieth draw of them where all rates would not fit the memory."""
    known = Hyperparameters.of(tree)
    step = -(-known.draws * known.units // EXACT_ELEMENTS)
    return known.take(slice(None, None, max(1, min(step, known.draws // THINNED_DRAWS))))


def shrinkage(tree: xr.DataTree) -> pd.Series:
    """How far each unit's rate is drawn to its population: the posterior mean of kappa / (kappa + n), from 0 to 1.

    Given mu and kappa the pooled rate is (1 - w) k/n + w mu with w = kappa / (kappa + n): 0 trusts the unit's own data
    alone and 1 the population alone.

    >>> import pelton
    >>> tree = pelton.sample(pelton.PartialPooling([9, 220], [138, 7200]))
    >>> weights = shrinkage(tree)
    >>> bool(weights.iloc[0] > weights.iloc[1])
    True
    """
    known = Hyperparameters.of(tree)
    kappa = np.exp(known.log_concentration)
    level = np.zeros(known.units, np.int64) if known.level is None else known.level
    pairs, which = np.unique(np.stack([known.trials, level]), axis=1, return_inverse=True)
    values = np.array(
        [np.mean(k / (k + n)) for n, k in ((n, kappa if kappa.ndim == 1 else kappa[:, g]) for n, g in pairs.T)]
    )
    return pd.Series(values[np.ravel(which)], index=_index(tree), name="shrinkage")


def ranking(tree: xr.DataTree, top: int = 10, probability: float = 0.94) -> pd.DataFrame:
    """Where each unit stands among all, rank 1 being the highest rate.

    Ranks are counted in each joint draw of all rates. Past 20 million draws x units every so-manieth draw serves, and
    the rank intervals are the ranks of the interval's ends among all rates drawn, which is right where units are many.

    Args:
        tree: of PartialPooling.
        top: P(top) is the probability to be among that many highest rates.
        probability: of the central rank interval.

    Returns:
        One row a unit, in the data's order: expected_rank, rank_low, rank_high, p_best, p_top.

    Raises:
        ArgumentError: top is below 1, or probability outside (0, 1).

    >>> import pelton
    >>> tree = pelton.sample(pelton.PartialPooling([9, 40], [100, 100]))
    >>> ranking(tree, top=1)["p_top"].round(2).tolist()
    [0.0, 1.0]
    """
    if not isinstance(top, int | np.integer) or top < 1:
        raise ArgumentError(f"top is a whole number of at least 1, not {top!r}")
    low, high = central(probability)
    known = _thinned(tree)
    units, draws = known.units, known.draws
    top = min(int(top), units)
    seed = rate_seed(tree)
    if units * draws <= 2 * EXACT_ELEMENTS:
        ranks = _ranks(np.concatenate([drawn for _, drawn in blocks(known, seed)], axis=1))
        expected, best, among = ranks.mean(axis=0), (ranks == 1).mean(axis=0), (ranks <= top).mean(axis=0)
        ends = np.quantile(ranks, [low, high], axis=0, method="inverted_cdf")
    else:
        expected, best, among, ends = _streamed_ranks(known, seed, top, low, high)
    return pd.DataFrame(
        {
            "expected_rank": expected,
            "rank_low": ends[0].astype(np.int64),
            "rank_high": ends[1].astype(np.int64),
            "p_best": best,
            "p_top": among,
        },
        index=_index(tree),
    )


def _ranks(rates: np.ndarray) -> np.ndarray:
    """Ranks [draw, unit], 1 for the highest rate of a draw."""
    order = np.argsort(-rates, axis=1)
    ranks = np.empty(rates.shape, np.int32)
    np.put_along_axis(ranks, order, np.arange(1, rates.shape[1] + 1, dtype=np.int32)[None], axis=1)
    return ranks


def _streamed_ranks(
    known: Hyperparameters, seed: int, top: int, low: float, high: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ranks of many units in two passes over blocks: thresholds and the spread of all rates, then each unit."""
    draws, units = known.draws, known.units
    edges = np.linspace(0.0, 1.0, 2**16 + 1)
    histogram = np.zeros(len(edges) - 1)
    # The highest `top` rates of each draw so far; the least of them is the draw's threshold in the end.
    leaders = np.full((draws, top), -1.0)
    for _, drawn in blocks(known, seed):
        histogram += np.bincount(
            np.minimum((drawn.ravel() * (len(edges) - 1)).astype(np.int64), len(edges) - 2), minlength=len(edges) - 1
        )
        leaders = np.partition(np.concatenate([leaders, drawn], axis=1), -top, axis=1)[:, -top:]
    threshold, highest = leaders.min(axis=1)[:, None], leaders.max(axis=1)[:, None]
    above = np.concatenate([np.cumsum(histogram[::-1])[::-1], [0.0]]) / draws
    expected, best, among = np.empty(units), np.empty(units), np.empty(units)
    ends = np.empty((2, units))
    for at, drawn in blocks(known, seed):
        rank = 1 + np.interp(drawn, edges, above)
        expected[at] = rank.mean(axis=0)
        best[at] = (drawn >= highest).mean(axis=0)
        among[at] = (drawn >= threshold).mean(axis=0)
        ends[:, at] = np.quantile(rank, [low, high], axis=0)
    return expected, best, among, np.clip(np.round(ends), 1, units)


def split_budget(tree: xr.DataTree, budget: float, probability: float = 0.94) -> pd.DataFrame:
    """A budget split in proportion to the rates, raw against pooled.

    Each unit's share is theta_i / sum theta: by raw rates k/n (a unit without trials gets the mean raw rate), and in
    each draw of all rates for the pooled split.

    Args:
        tree: of PartialPooling.
        budget: the sum to split, in any currency.
        probability: of the central interval of the change.

    Returns:
        One row a unit: budget_raw, budget_pooled (posterior mean), budget_change (pooled less raw), and the change's
        interval, budget_change_low and budget_change_high, all in the budget's currency.

    Raises:
        ArgumentError: the budget is not a positive number.

    >>> import pelton
    >>> tree = pelton.sample(pelton.PartialPooling([9, 40], [100, 100]))
    >>> float(split_budget(tree, 1000.0)["budget_pooled"].sum().round(6))
    1000.0
    """
    if not np.isfinite(budget) or budget <= 0:
        raise ArgumentError(f"budget is a positive number, not {budget!r}")
    low, high = central(probability)
    known, seed = _thinned(tree), rate_seed(tree)
    total = np.zeros(known.draws)
    for _, drawn in blocks(known, seed):
        total += drawn.sum(axis=1)
    k, n = known.successes, known.trials
    raw = np.divide(k, n, out=np.full(known.units, np.nan), where=n > 0)
    raw = np.where(n > 0, raw, np.nanmean(raw) if (n > 0).any() else 1.0)
    raw_total = raw.sum()
    by_raw = budget * raw / raw_total if raw_total > 0 else np.full(known.units, budget / known.units)
    pooled, ends = np.empty(known.units), np.empty((2, known.units))
    for at, drawn in blocks(known, seed):
        # Where every rate of a draw is 0 there is nothing to go by, and all get the same.
        share = budget * np.divide(
            drawn, total[:, None], out=np.full(drawn.shape, 1 / known.units), where=total[:, None] > 0
        )
        pooled[at] = share.mean(axis=0)
        ends[:, at] = np.quantile(share, [low, high], axis=0) - by_raw[at]
    return pd.DataFrame(
        {
            "budget_raw": by_raw,
            "budget_pooled": pooled,
            "budget_change": pooled - by_raw,
            "budget_change_low": ends[0],
            "budget_change_high": ends[1],
        },
        index=_index(tree),
    )


def unit_table(
    tree: xr.DataTree, top: int = 10, threshold: float | None = None, budget: float | None = None
) -> pd.DataFrame:
    """Everything that is decided by unit, in one table.

    Args:
        tree: of PartialPooling.
        top: for p_top, the probability to be among that many highest rates.
        threshold: adds p_above, the probability that the rate exceeds it.
        budget: adds the columns of `split_budget`.

    Returns:
        One row a unit, in the data's order: successes, trials, raw, mean, sd, q03, q50, q97, shrinkage, p_above_raw,
        expected_rank, rank_low, rank_high, p_best, p_top and what was asked for beside.

    Raises:
        ArgumentError: the threshold is not between 0 and 1, or as for `ranking` and `split_budget`.

    >>> import pelton
    >>> tree = pelton.sample(pelton.PartialPooling([9, 40], [100, 100], unit=["A", "B"]))
    >>> unit_table(tree, top=1, budget=1000)["mean"].idxmax()
    'B'
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise ArgumentError(f"threshold is a rate between 0 and 1, not {threshold!r}")
    table = unit_summary(tree, threshold=threshold)
    table.insert(table.columns.get_loc("p_above_raw"), "shrinkage", shrinkage(tree))  # pyright: ignore
    parts = [table, ranking(tree, top)]
    if budget is not None:
        parts.append(split_budget(tree, budget))
    joined = pd.concat(parts, axis=1)
    joined.attrs.update(table.attrs)
    return joined


@dataclass(frozen=True)
class Comparison:
    """Two units' rates beside one another.

    Attributes:
        first, second: their names.
        p_higher: probability that the first's rate is the higher.
        difference_mean, difference_low, difference_high: first less second, and its 94% interval.
        ratio_mean, ratio_low, ratio_high: first over second.
    """

    first: Hashable
    second: Hashable
    p_higher: float
    difference_mean: float
    difference_low: float
    difference_high: float
    ratio_mean: float
    ratio_low: float
    ratio_high: float


def compare(tree: xr.DataTree, first: Hashable, second: Hashable, probability: float = 0.94) -> Comparison:
    """Compares two units by the joint draws of their rates.

    Args:
        tree: of PartialPooling.
        first, second: unit names.
        probability: of the central intervals.

    Raises:
        UnknownNameError: no such unit; the message lists the nearest.

    >>> import pelton
    >>> model = pelton.PartialPooling([9, 40], [100, 100], unit=["A", "B"])
    >>> tree = pelton.sample(model)
    >>> compare(tree, "B", "A").p_higher
    1.0
    """
    low, high = central(probability)
    Hyperparameters.of(tree)
    names = _index(tree)
    positions = []
    for name in (first, second):
        found = np.flatnonzero((names == name) | (names.astype(str) == str(name)))
        if not len(found):
            raise UnknownNameError("unit", name, [str(known) for known in names[:10000]])
        positions.append(int(found[0]))
    a, b = rates_of(tree, positions).T
    difference = a - b
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(b > 0, a / b, np.inf)
    return Comparison(
        first=first,
        second=second,
        p_higher=float(np.mean(a > b)),
        difference_mean=float(difference.mean()),
        difference_low=float(np.quantile(difference, low)),
        difference_high=float(np.quantile(difference, high)),
        ratio_mean=float(ratio.mean()),
        ratio_low=float(np.quantile(ratio, low)),
        ratio_high=float(np.quantile(ratio, high)),
    )


@dataclass(frozen=True)
class PredictiveCheck:
    """Mean and standard deviation over units of raw rates: observed, and replicated from the posterior and the prior.

    Attributes:
        observed_mean, observed_sd: of k_i / n_i over the units with trials.
        posterior_mean, posterior_sd: of replicated counts of the same trials [draw].
        prior_mean, prior_sd: likewise from the prior [draw]; None without a prior_predictive group in the tree.
        p_mean, p_sd: two-sided tail probabilities of the observed figures among the posterior's; below 0.05 the model
            does not produce data like these.
    """

    observed_mean: float
    observed_sd: float
    posterior_mean: np.ndarray
    posterior_sd: np.ndarray
    prior_mean: np.ndarray | None
    prior_sd: np.ndarray | None
    p_mean: float
    p_sd: float


def predictive_check(tree: xr.DataTree, draws: int = CHECK_DRAWS) -> PredictiveCheck:
    """Whether the model produces data like those observed: replicates the counts of new units with the same trials.

    A replicate draws hyperparameters from the posterior, then for every unit a new rate from its population and a new
    count, k_i ~ Binomial(n_i, theta_i), theta_i ~ Beta(alpha, beta). New rates rather than the units' own test what is
    in doubt, the population (a mixed replicate in the sense of Gelman, Meng & Stern 1996).

    Args:
        tree: of PartialPooling.
        draws: replicates, at most the tree's draws; fewer where units are many.

    Raises:
        DataError: fewer than two units have trials.

    >>> import pelton
    >>> tree = pelton.sample(pelton.PartialPooling([9, 22, 31, 18], [138, 72, 157, 71]))
    >>> 0 < predictive_check(tree).p_mean <= 1
    True
    """
    known = Hyperparameters.of(tree)
    with_trials = np.flatnonzero(known.trials > 0)
    if len(with_trials) < 2:
        raise DataError("a predictive check needs at least two units with trials")
    wanted = max(100, min(draws, EXACT_ELEMENTS // len(with_trials)))
    known = known.take(slice(None, None, max(1, known.draws // wanted)))
    n = known.trials[with_trials]
    observed = known.successes[with_trials] / n
    source = rng(tree, "predictive_check")
    means, sds = np.empty(known.draws), np.empty(known.draws)
    for draw in range(known.draws):
        alpha, beta = known.take(slice(draw, draw + 1)).shapes(with_trials)
        raw = predict_counts(source, n, draw_beta(source, alpha, beta, (1, len(n))))[0] / n
        means[draw], sds[draw] = raw.mean(), raw.std(ddof=1)
    prior_mean = prior_sd = None
    if "prior_predictive" in tree.children:
        replicated = np.asarray(tree["prior_predictive"]["successes"])
        raw = replicated.reshape(-1, replicated.shape[-1])[:, with_trials] / n
        prior_mean, prior_sd = raw.mean(axis=1), raw.std(axis=1, ddof=1)

    def tail(replicates: np.ndarray, value: float) -> float:
        below, above = np.mean(replicates <= value), np.mean(replicates >= value)
        return float(min(1.0, 2 * min(below, above)))

    mean, sd = float(observed.mean()), float(observed.std(ddof=1))
    return PredictiveCheck(mean, sd, means, sds, prior_mean, prior_sd, tail(means, mean), tail(sds, sd))


@dataclass(frozen=True)
class HeldOut:
    """Predictions of units that the fit had not seen.

    Attributes:
        table: one row a unit with trials: fold, successes, trials, predicted (mean count), low_50, high_50, low_80,
            high_80, low_95, high_95, pit (randomised probability integral transform, uniform for a calibrated model).
        coverage: share of units inside the 50%, 80% and 95% interval.
        standard_error: of each coverage, were it exact.
        converged: whether every fold's fit did.
    """

    table: pd.DataFrame
    coverage: dict[float, float]
    standard_error: dict[float, float]
    converged: bool


def held_out(
    model: PartialPooling,
    folds: int = 4,
    probabilities: Sequence[float] = (0.5, 0.8, 0.95),
    seed: int = 0,
    **settings: Any,
) -> HeldOut:
    """Fits on some units and predicts the others' counts, so that each unit is predicted once by a fit without it.

    The prediction of a new unit with n trials is the population's: hyperparameters from the posterior, then
    theta ~ Beta(alpha, beta) of its group and covariates, then k ~ Binomial(n, theta). A unit counts as inside a
    central interval by its randomised PIT, u = P(k' < k) + v P(k' = k) with v uniform, which has the exact coverage for
    counts (Czado, Gneiting & Held 2009).

    Args:
        model: the model; its segments are refused.
        folds: parts that the units are divided into, at random.
        probabilities: of the intervals.
        seed: of the division and of the draws.
        **settings: for `pelton.sample`.

    Raises:
        ArgumentError: fewer than two folds, more folds than units, or a model with segments.
        DataError: all units of a group fall into one fold.

    >>> import pelton
    >>> model = pelton.PartialPooling([9, 22, 31, 18, 25, 7], [138, 72, 157, 71, 62, 135])
    >>> sorted(held_out(model, folds=2).coverage)
    [0.5, 0.8, 0.95]
    """
    size = len(model.counts)
    if model.segment is not None:
        raise ArgumentError("held_out takes a model without segments; build one model a segment")
    if model.prior.fixed:
        raise ArgumentError("a FixedBeta prior learns nothing from other units, so that there is nothing to hold out")
    if not 2 <= folds <= size:
        raise ArgumentError(f"folds is between 2 and the {size} units, not {folds!r}")
    source = np.random.default_rng([seed, 7])
    fold = source.permutation(np.arange(size) % folds)
    n = model.counts.trials
    rows: dict[str, np.ndarray] = {"fold": fold, "successes": model.counts.successes, "trials": n}
    rows |= {"predicted": np.zeros(size), "pit": np.zeros(size)}
    for p in probabilities:
        rows |= {f"low_{100 * p:g}": np.zeros(size), f"high_{100 * p:g}": np.zeros(size)}
    converged = True
    for part in range(folds):
        inside, outside = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        tree = sample(model.subset(outside), seed=seed + part, **settings)
        converged &= bool(tree.attrs["converged"])
        known = model.predictor(tree, outside, inside)
        for at, drawn in blocks(known, seed + part):
            units = inside[at]
            counts = predict_counts(source, n[units], drawn)
            k = model.counts.successes[units]
            below, equal = (counts < k).mean(axis=0), (counts == k).mean(axis=0)
            rows["pit"][units] = below + source.random(len(units)) * equal
            rows["predicted"][units] = counts.mean(axis=0)
            for p in probabilities:
                ends = np.quantile(counts, [(1 - p) / 2, (1 + p) / 2], axis=0, method="inverted_cdf")
                rows[f"low_{100 * p:g}"][units], rows[f"high_{100 * p:g}"][units] = ends
    table = pd.DataFrame(rows, index=pd.Index(model.counts.units, name=model.counts.unit_name))
    table = table.loc[table["trials"] > 0]
    distance = np.abs(table["pit"] - 0.5)
    coverage = {p: float(np.mean(distance <= p / 2)) for p in probabilities}
    error = {p: float(np.sqrt(p * (1 - p) / len(table))) for p in probabilities}
    return HeldOut(table, coverage, error, converged)
