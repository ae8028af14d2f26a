"""What the tree of a PartialPooling fit says of further trials: of the units it knows, and of new ones."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.arguments import central
from pelton.engine.errors import ArgumentError, DataError
from pelton.models.predictive import predict_counts
from pelton.models.rates import Hyperparameters, blocks, rate_seed

MOST_TRIALS = 2**53


def predict_rates(
    tree: xr.DataTree,
    trials: Any,
    *,
    unit: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    covariates: Any = None,
    probability: float = 0.94,
) -> pd.DataFrame:
    """Rates and counts of further trials, by the posterior predictive distribution.

        known unit:  theta ~ Beta(alpha + k, beta + n - k),   new unit:  theta ~ Beta(alpha, beta),
        successes ~ Binomial(trials, theta),

    over the draws of alpha and beta (of the row's group and covariates). A unit of the fit is known by its name; every
    other name, and every row without one, is a new unit of the same population.

    Args:
        tree: of PartialPooling.
        trials: of each row, whole numbers from 0 on [row].
        unit: names [row]; without them all rows are new units.
        groups: the region (or segment) of each row, where the model has such; None where a known unit keeps its own.
        covariates: numbers [row, covariate] in the order of the fit, or a table with a column for each.
        probability: of the central intervals.

    Returns:
        One row a row: known (whether the fit has the unit), trials, rate, rate_low, rate_high, successes (the mean
        prediction), successes_low, successes_high. The index holds the names.

    Raises:
        DataError: trials are no counts; a group that the fit has not seen; a known unit with another group or other
            covariates than it was fitted with; the tree is not one of PartialPooling.
        ArgumentError: groups or covariates are lacking, or given where the model has none; probability outside (0, 1).

    Source: Gelman et al., Bayesian Data Analysis, 3rd ed., section 5.3.

    >>> import pelton
    >>> model = pelton.PartialPooling([9, 22], [138, 72], unit=["A", "B"], prior=pelton.FixedBeta(2, 8))
    >>> table = predict_rates(pelton.sample(model), [100, 100], unit=["A", "C"])
    >>> table["known"].tolist(), table["rate"].round(2).tolist()
    ([True, False], [0.07, 0.2])
    """
    known = Hyperparameters.of(tree)
    low, high = central(probability)
    n = _whole_trials(trials)
    names = [f"row {row + 1}" for row in range(len(n))] if unit is None else [str(name) for name in unit]
    _check_length("unit", names, len(n))
    fitted = {str(name): at for at, name in enumerate(np.asarray(tree["observed_data"]["unit"]))}
    if len(fitted) < known.units:
        raise DataError("two units of the tree have the same name as text; rename them and fit again")
    at = np.array([fitted.get(name, -1) if unit is not None else -1 for name in names], dtype=np.int64)
    old = at >= 0
    wanted = replace(
        known,
        level=_levels(tree, known, groups, at, names),
        covariates=_covariates(tree, known, covariates, at, names),
        successes=np.where(old, known.successes[at], 0),
        trials=np.where(old, known.trials[at], 0),
    )
    columns = {name: np.empty(len(n)) for name in ("rate", "rate_low", "rate_high")}
    columns |= {name: np.empty(len(n)) for name in ("successes", "successes_low", "successes_high")}
    source = np.random.default_rng([rate_seed(tree), 11])
    for rows, rates in blocks(wanted, rate_seed(tree) + 1):
        counts = predict_counts(source, n[rows], rates)
        columns["rate"][rows], columns["successes"][rows] = rates.mean(axis=0), counts.mean(axis=0)
        columns["rate_low"][rows], columns["rate_high"][rows] = np.quantile(rates, [low, high], axis=0)
        ends = np.quantile(counts, [low, high], axis=0, method="inverted_cdf")
        columns["successes_low"][rows], columns["successes_high"][rows] = ends
    index = pd.Index(names, name=tree.attrs.get("unit_name", "unit"))
    return pd.DataFrame({"known": old, "trials": n} | columns, index=index)


def _whole_trials(trials: Any) -> np.ndarray:
    values = np.asarray(trials)
    if values.ndim != 1 or not len(values):
        raise DataError("trials is a list of whole numbers with at least one row")
    for row, value in enumerate(values.tolist()):
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise DataError(f"trials: row {row + 1} is {value!r}; give a whole number")
        if value < 0 or value != int(value) or value > MOST_TRIALS:
            raise DataError(f"trials: row {row + 1} is {value!r}; give a whole number from 0 to 2^53")
    return values.astype(np.int64)


def _check_length(what: str, values: Sequence[Any], rows: int) -> None:
    if len(values) != rows:
        raise DataError(f"{what} has {len(values)} rows and trials {rows}; give one a row")


def _levels(
    tree: xr.DataTree, known: Hyperparameters, groups: Sequence[Any] | None, at: np.ndarray, names: list[str]
) -> np.ndarray | None:
    """Which population each row belongs to."""
    if known.level is None:
        if groups is not None:
            raise ArgumentError("the fit has one population, without groups or segments; leave groups out")
        return None
    kind = "group" if "group" in tree["posterior"].coords else "segment"
    labels = {str(label): i for i, label in enumerate(np.asarray(tree["posterior"][kind]))}
    given = [None] * len(at) if groups is None else list(groups)
    _check_length("groups", given, len(at))
    found = np.where(at >= 0, known.level[at], -1)
    own = {i: label for label, i in labels.items()}
    for row, label in enumerate(given):
        where = f"row {row + 1} (unit {names[row]!r})"
        if label is None or label != label:
            if found[row] < 0:
                raise ArgumentError(f"{where} is a new unit; say which {kind} it belongs to ({', '.join(labels)})")
            continue
        if str(label) not in labels:
            raise DataError(f"{where}: the fit has no {kind} {str(label)!r}; it has {', '.join(labels)}")
        if found[row] >= 0 and found[row] != labels[str(label)]:
            raise DataError(
                f"{where} was fitted in {kind} {own[int(found[row])]!r} and is now in {str(label)!r}; give it another "
                "name to predict a new unit there"
            )
        found[row] = labels[str(label)]
    return found


def _covariates(
    tree: xr.DataTree, known: Hyperparameters, covariates: Any, at: np.ndarray, names: list[str]
) -> np.ndarray | None:
    """Standardised covariates [row, covariate], by the mean and the deviation of the fitted units."""
    if known.covariates is None:
        if covariates is not None:
            raise ArgumentError("the fit has no covariates; leave them out")
        return None
    seen = np.asarray(tree["constant_data"]["covariates"])
    columns = [str(name) for name in np.asarray(tree["posterior"]["covariate"])]
    if covariates is None:
        if (at < 0).any():
            raise ArgumentError(f"new units need their covariates: {', '.join(columns)}")
        return known.covariates[at]
    if isinstance(covariates, pd.DataFrame):
        lacking = [name for name in columns if name not in covariates]
        if lacking:
            raise ArgumentError(f"the fit's covariate {lacking[0]!r} is not in the table; it has {list(covariates)}")
        covariates = covariates[columns]
    values = np.asarray(covariates, dtype=np.float64)
    if values.shape != (len(at), len(columns)):
        raise DataError(f"covariates have the shape {values.shape} where {(len(at), len(columns))} is wanted")
    for row, column in np.argwhere(~np.isfinite(values)):
        raise DataError(f"covariate {columns[column]!r}: row {row + 1} (unit {names[row]!r}) is {values[row, column]}")
    for row in np.flatnonzero(at >= 0):
        other = np.flatnonzero(~np.isclose(values[row], seen[at[row]], rtol=1e-6, atol=1e-12))
        if len(other):
            raise DataError(
                f"row {row + 1} (unit {names[row]!r}) was fitted with {columns[other[0]]} = "
                f"{seen[at[row], other[0]]:g} and has {values[row, other[0]]:g}; give it another name to predict a new "
                "unit with these covariates"
            )
    return (values - seen.mean(axis=0)) / seen.std(axis=0)
