"""Successes and trials per unit, read from arrays or a table and checked before anything is compiled."""

import numbers
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from pelton.engine.errors import DataError, DataWarning
from pelton.models.frames import check_names, is_table, listed, to_pandas

# int32 holds the counts on a device without 64-bit integers.
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Counts:
    """k successes of n trials for each unit, all checked: 0 <= k <= n, whole numbers, units named once.

    Attributes:
        successes, trials: int64 [unit].
        units: names [unit].
        successes_name, trials_name, unit_name: what the columns were called, for messages and tables.
    """

    successes: np.ndarray
    trials: np.ndarray
    units: tuple[Hashable, ...]
    successes_name: str = "successes"
    trials_name: str = "trials"
    unit_name: str = "unit"

    def __len__(self) -> int:
        return len(self.successes)


def _where(row: int, units: Sequence[Hashable] | None, first: int) -> str:
    return f"row {first + row + 1}" + (f" (unit {units[row]!r})" if units is not None and row < len(units) else "")


def _whole(values: Any, name: str, units: Sequence[Hashable] | None, first: int) -> np.ndarray:
    """The column as int64; the first value that is no count is an error."""
    if isinstance(values, pd.Series) and not isinstance(values.dtype, np.dtype):
        # Nullable and Arrow-backed columns: their missing values become NaN, to be named below.
        values = values.to_numpy(dtype=object, na_value=np.nan)
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{name} is one number per unit, not an array of shape {array.shape}")
    if np.issubdtype(array.dtype, np.bool_):
        array = array.astype(np.int64)
    if array.dtype.kind in "mM":
        kind = "durations" if array.dtype.kind == "m" else "dates"
        raise DataError(f"{name} holds {kind}; counts are whole numbers: choose another column")
    if not np.issubdtype(array.dtype, np.number):
        array = _numbers(array, name, units, first)
    if np.issubdtype(array.dtype, np.complexfloating):
        raise DataError(f"{name} holds complex numbers; counts are whole numbers")
    if np.issubdtype(array.dtype, np.floating):
        # The largest count is beyond a float16.
        array = array.astype(np.float64)
        missing = "is missing or not finite; give the count or leave the unit out"
        _refuse(~np.isfinite(array), array, name, units, first, missing)
        _refuse(array != np.floor(array), array, name, units, first, "is not a whole number; give counts, not rates")
    _refuse(array < 0, array, name, units, first, "is negative; counts are 0 or more")
    _refuse(array > LARGEST, array, name, units, first, f"is above the largest count, {LARGEST}")
    return array.astype(np.int64)


def _numbers(array: np.ndarray, name: str, units: Sequence[Hashable] | None, first: int) -> np.ndarray:
    found = np.empty(len(array), dtype=np.float64)
    for row, value in enumerate(array):
        if value is None or value is pd.NaT or value is pd.NA:
            found[row] = np.nan
        elif isinstance(value, str):
            raise DataError(
                f"{name}: {_where(row, units, first)} holds the text {value!r}; a count is a whole number without "
                "separators or units"
            )
        else:
            found[row] = _number(value, name, row, units, first)
    return found


def _number(value: Any, name: str, row: int, units: Sequence[Hashable] | None, first: int) -> float:
    # To NumPy a duration is an integer; float() takes it, and bytes, for numbers.
    if isinstance(value, numbers.Real | Decimal | np.bool_) and not isinstance(value, np.timedelta64):
        try:
            return float(value)
        except OverflowError:
            return np.inf
        except (TypeError, ValueError):
            pass
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    raise DataError(f"{name}: {_where(row, units, first)} holds {shown}, which is not a number; give the count")


def _refuse(
    bad: np.ndarray, array: np.ndarray, name: str, units: Sequence[Hashable] | None, first: int, reason: str
) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        row = int(rows[0])
        more = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
        raise DataError(f"{name}: {_where(row, units, first)} is {array[row].item()!r}: it {reason}{more}")


def _is_missing(value: Any) -> bool:
    """None, NA, NaT or NaN; an array in a cell is no name either, which `check_names` says."""
    return value is None or value is pd.NA or (not isinstance(value, np.ndarray) and value != value)


def _names(unit: Any, size: int, name: str, first: int) -> tuple[Hashable, ...]:
    if unit is None:
        return tuple(range(size))
    values = listed(unit)
    if len(values) != size:
        raise DataError(f"there are {size} counts and {len(values)} {name} names; give one name per unit")
    missing = [row for row, value in enumerate(values) if _is_missing(value)]
    if missing:
        raise DataError(f"{name}: row {first + missing[0] + 1} has no name; name every unit")
    check_names(values, name, first)
    seen: dict[Hashable, int] = {}
    for row, value in enumerate(values):
        if value in seen:
            raise repeated(name, value, f"rows {first + seen[value] + 1} and {first + row + 1}")
        seen[value] = row
    return tuple(values)


def repeated(name: str, value: Hashable, rows: str) -> DataError:
    """The error of a unit that has two rows."""
    return DataError(f"{name}: {value!r} stands in {rows}; add the counts of a unit up first, so that each has one row")


def warn_of_counts(
    size: int, empty: int, shown: Sequence[Hashable], trials_name: str = "trials", stacklevel: int = 5
) -> None:
    """Warns of units without trials, `shown` being the first of them, and of a single unit."""
    if empty:
        names = ", ".join(map(repr, shown[:3])) + (", ..." if empty > 3 else "")
        warnings.warn(
            f"{empty} of {size} units have no {trials_name} ({names}); their rates get the population's distribution",
            DataWarning,
            stacklevel=stacklevel,
        )
    if size == 1:
        warnings.warn(
            "there is one unit only: how much units differ comes from the prior alone; FixedBeta states such a prior "
            "openly",
            DataWarning,
            stacklevel=stacklevel,
        )


def check_counts(
    successes: Any,
    trials: Any,
    unit: Any = None,
    *,
    successes_name: str = "successes",
    trials_name: str = "trials",
    unit_name: str = "unit",
    first: int = 0,
    warn: bool = True,
) -> Counts:
    """Counts from arrays.

    Args:
        successes, trials, unit: one per unit; units are 0, 1, ... when absent.
        successes_name, trials_name, unit_name: what they are called in messages.
        first: rows of the table before these, counted along in messages.
        warn: whether to warn.

    Raises:
        DataError: the table is empty, lengths differ, a value is no count, successes exceed trials, a name is repeated.

    Warns:
        DataWarning: units without trials (their rate gets the population's distribution); a single unit.

    >>> check_counts([3, 5], [10, 4])
    Traceback (most recent call last):
        ...
    pelton.engine.errors.DataError: row 2 (unit 1) has 5 successes of 4 trials; successes are at most trials
    """
    for name, values in ((successes_name, successes), (trials_name, trials)):
        if np.ndim(values) == 0:
            raise DataError(f"{name} is one number per unit, in an array or a list, not {values!r}")
    size = len(successes)
    if size == 0:
        raise DataError("the table is empty; there is no unit to fit")
    if len(trials) != size:
        raise DataError(f"there are {size} {successes_name} and {len(trials)} {trials_name}; give one of each per unit")
    units = _names(unit, size, unit_name, first)
    k = _whole(successes, successes_name, units, first)
    n = _whole(trials, trials_name, units, first)
    above = np.flatnonzero(k > n)
    if len(above):
        row = int(above[0])
        more = f" ({len(above)} such rows)" if len(above) > 1 else ""
        raise DataError(
            f"{_where(row, units, first)} has {k[row]} {successes_name} of {n[row]} {trials_name}; "
            f"{successes_name} are at most {trials_name}{more}"
        )
    if warn:
        empty = np.flatnonzero(n == 0)
        warn_of_counts(size, len(empty), [units[row] for row in empty[:3]], trials_name)
    return Counts(k, n, units, successes_name, trials_name, unit_name)


def labels(values: Any, size: int, what: str) -> tuple[np.ndarray, tuple[Hashable, ...]]:
    """Index [unit] into the distinct labels, in order of first appearance, and the labels."""
    given = listed(values)
    if len(given) != size:
        raise DataError(f"there are {size} units and {len(given)} {what}; give one per unit")
    missing = [row for row, value in enumerate(given) if _is_missing(value)]
    if missing:
        raise DataError(f"{what}: row {missing[0] + 1} is missing; every unit belongs to one")
    check_names(given, what)
    index, found = pd.factorize(np.array(given, dtype=object))
    return index.astype(np.int64), tuple(found)


def design(covariates: Any, size: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Covariates as float64 [unit, covariate], and their names.

    Raises:
        DataError: a value is not a finite number, a column is constant, or two columns are collinear.
    """
    if is_table(covariates):
        frame = to_pandas(covariates, "covariates")
        names = tuple(str(name) for name in frame.columns)
    else:
        array = np.asarray(covariates)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2:
            raise DataError(f"covariates are a table of units by covariates, not an array of shape {array.shape}")
        names = tuple(f"x{column + 1}" for column in range(array.shape[1]))
        frame = pd.DataFrame(array, columns=list(names))
    if len(frame) != size:
        raise DataError(f"there are {size} units and {len(frame)} rows of covariates; give one row per unit")
    if not names:
        raise DataError("the covariates have no column; leave covariates out, or name some")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"covariate {twice[0]!r} stands {names.count(twice[0])} times; name each once")
    columns = []
    for name in frame.columns:
        try:
            column = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError):
            raise DataError(
                f"covariate {name!r} is not numeric; code a category as 0/1 columns (pandas.get_dummies)"
            ) from None
        bad = np.flatnonzero(~np.isfinite(column))
        if len(bad):
            raise DataError(f"covariate {name!r}: row {bad[0] + 1} is {column[bad[0]]}; give every unit a value")
        if np.min(column) == np.max(column):
            raise DataError(f"covariate {name!r} is {column[0]:g} for every unit; leave it out")
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            spread = column.std()
        if not (spread > 0 and np.isfinite(spread)):
            raise DataError(
                f"covariate {name!r} is from {column.min():g} to {column.max():g}, beyond what can be computed with; "
                "give it in another unit"
            )
        columns.append(column)
    matrix = np.stack(columns, axis=1)
    centred = (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)
    if len(names) >= size or np.linalg.matrix_rank(centred) < len(names):
        correlation = np.abs(np.corrcoef(centred, rowvar=False)) if len(names) > 1 else np.zeros((1, 1))
        np.fill_diagonal(correlation, 0)
        first, second = np.unravel_index(np.argmax(correlation), correlation.shape)
        raise DataError(
            f"the covariates are collinear (nearest pair: {names[first]!r} and {names[second]!r}, correlation "
            f"{correlation[first, second]:.3f}; {size} units, {len(names)} covariates); leave one out"
        )
    return matrix, names
