"""The columns of a long table, read one by one and checked: each fault has its own message."""

import contextlib
import os
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pelton.engine.errors import ArgumentError, DataError, DataWarning
from pelton.models import frames

# Two columns correlated this closely have a variance inflation of ten, 1 / (1 - r^2) (Marquardt 1970).
COLLINEAR = 0.95
# Warnings point at the caller, whichever of these modules it came through.
_HERE = os.path.dirname(__file__)
_DEPENDENT = 1e-8
# A column's largest size, or 1 over it: its squares, and those of ratios of columns, stay within a float64.
_FAR = 1e50
# How dates are written as text; slashes and dashes leave open which of day and month comes first.
_FORMATS = (
    *("ISO8601", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%Y", "%d/%m/%y", "%m/%d/%y"),
    *("%d.%m.%y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%B %d, %Y", "%b %Y", "%B %Y"),
)


def plural(count: int, noun: str) -> str:
    """
    >>> plural(1, "week"), plural(3, "week")
    ('1 week', '3 weeks')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


@dataclass(frozen=True)
class Rows:
    """Which geo and date each row of a table speaks of, ordered by geo and date.

    Attributes:
        geos: names, in order of first appearance.
        geo: index into them [row].
        day: datetime64[D] [row].
        number: place of each row in the table as given [row].
        time_name, geo_name: columns; geo_name is None where the table has one geo.
    """

    geos: tuple[str, ...]
    geo: np.ndarray
    day: np.ndarray
    number: np.ndarray
    time_name: str
    geo_name: str | None

    def where(self, at: int) -> str:
        """The row in words."""
        geo = "" if self.geo_name is None else f"{self.geo_name} {self.geos[self.geo[at]]!r}, "
        return f"row {self.number[at] + 1} ({geo}{self.time_name} {self.day[at]})"

    def called(self, geo: int) -> str:
        """The geo in words."""
        return "the table" if self.geo_name is None else f"{self.geo_name} {self.geos[geo]!r}"


def names_of(what: str, values: Any) -> tuple[str, ...]:
    """A list of column names; one name by itself is refused, for it would be read letter by letter."""
    if isinstance(values, str):
        raise ArgumentError(f"{what} is a list of columns; write {what}=[{values!r}]")
    return tuple(values)


def check_columns(frame: pd.DataFrame, roles: Iterable[tuple[str, str | None]]) -> None:
    """Every column is in the table once, and has one role.

    Args:
        frame: the table.
        roles: (role, column) of each; those without a column are passed over.

    Raises:
        UnknownNameError: a column that is not in the table; the message lists the nearest.
        ArgumentError: a column with two roles.
        DataError: a column name that stands twice in the table, or a table without rows.
    """
    taken: dict[Hashable, str] = {}
    for role, name in roles:
        if name is None:
            continue
        frames.column(frame, name)
        frames.check_name(name, f"the name of the {role} column")
        if name in taken:
            raise ArgumentError(
                f"column {name!r} is named twice, as {taken[name]} and as {role}; a column has one role"
            )
        taken[name] = role
    if not len(frame):
        raise DataError("the table is empty; give one row per geo and date")


def _distinct(column: Any, name: str) -> tuple[np.ndarray, Any]:
    """Index into the distinct values, and these, in order of first appearance."""
    try:
        return pd.factorize(column)
    except (TypeError, ValueError, NotImplementedError):
        # Lists, tables and the like have no order of their own.
        raise DataError(f"{name} holds lists or tables instead of names or dates; give one value in each row") from None


def _labels(column: Any, name: str) -> tuple[tuple[str, ...], np.ndarray]:
    missing = np.flatnonzero(column.isna().to_numpy())
    if len(missing):
        raise DataError(
            f"{name}: row {missing[0] + 1} has no name ({len(missing)} such); name every row's geo or leave the row out"
        )
    index, found = _distinct(column, name)
    names = tuple(str(value) for value in found)
    for at, value in enumerate(names):
        if not value.isprintable():
            frames.check_name(value, f"{name}: row {int(np.flatnonzero(index == at)[0]) + 1}")
    blank = [at for at, value in enumerate(names) if not value.strip()]
    if blank:
        row = int(np.flatnonzero(index == blank[0])[0])
        raise DataError(f"{name}: row {row + 1} has the name {names[blank[0]]!r}, which is blank; name every row's geo")
    if len(set(names)) < len(names):
        name_twice = next(value for value in names if names.count(value) > 1)
        raise DataError(f"{name}: {name_twice!r} stands there both as text and as a number; make it one of them")
    return names, index.astype(np.int64)


def _from_text(texts: pd.Index, column: str) -> pd.DatetimeIndex:
    """Dates written in one of the known ways, the same way in all rows; NaT where a text is not."""
    read: list[tuple[str, pd.DatetimeIndex]] = []
    for written in _FORMATS:
        try:
            found = pd.DatetimeIndex(pd.to_datetime(texts, format=written, errors="coerce"))
        except ValueError:
            # Time zones that differ from row to row.
            continue
        read.append((written, found.tz_localize(None)))
    whole = [(written, found) for written, found in read if not found.hasnans]
    for written, found in whole[1:]:
        differs = np.flatnonzero(found != whole[0][1])
        if len(differs):
            at = int(differs[0])
            first, second = (str(dates[at])[:10] for dates in (whole[0][1], found))
            raise DataError(
                f"{column}: {texts[at]!r} is {first} if written {whole[0][0]} and {second} if written {written}, and "
                f"all rows fit both; say which, as with df[{column!r}] = "
                f"pd.to_datetime(df[{column!r}], format={written!r})"
            )
    return whole[0][1] if whole else max((found for _, found in read), key=lambda found: int(found.notna().sum()))


def _dates(column: Any, name: str, place: Callable[[int], str]) -> np.ndarray:
    """The column as datetime64[D]; `place` says in words where a row is."""
    missing = np.flatnonzero(column.isna().to_numpy())
    if len(missing):
        raise DataError(
            f"{name}: {place(int(missing[0]))} has no date ({len(missing)} such); give it or leave the row out"
        )
    index, values = _distinct(column, name)

    def refuse(bad: np.ndarray, reason: str) -> None:
        if bad.any():
            rows = np.flatnonzero(bad[index])
            more = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
            raise DataError(f"{name}: {place(int(rows[0]))} is {_plain(values[index[rows[0]]])!r}, {reason}{more}")

    remedy = f"; correct it, or convert the column with df[{name!r}] = pd.to_datetime(df[{name!r}], format=...)"
    if isinstance(values, pd.CategoricalIndex):
        values = pd.Index(values.categories[values.codes])
    if isinstance(values, pd.PeriodIndex):
        found = values.start_time
    elif isinstance(values, pd.DatetimeIndex):
        found = values
    else:
        values = pd.Index(values, dtype=object)
        text = np.array([isinstance(value, str) for value in values])
        if text.all():
            found = _from_text(values, name)
        else:
            values = pd.Index([v.start_time if isinstance(v, pd.Period) else v for v in values], dtype=object)
            dated = np.array([hasattr(value, "year") or isinstance(value, np.datetime64) for value in values])
            refuse(~dated, "which is not a date" + remedy)
            found = pd.DatetimeIndex(pd.to_datetime(values, errors="coerce"))
        refuse(np.asarray(found.isna()), "which is not a date that can be read" + remedy)
    found = found.tz_localize(None)
    refuse(
        np.asarray(found != found.normalize()),
        f"which has a time of day; a panel has days, weeks or months: aggregate the rows, or drop the time with "
        f"df[{name!r}] = pd.to_datetime(df[{name!r}]).dt.normalize()",
    )
    return found.to_numpy().astype("M8[D]")[index]


def read_rows(frame: pd.DataFrame, time: str, geo: str | None) -> Rows:
    """Geos and dates of a table's rows, which are ascending and single within a geo.

    Raises:
        DataError: a missing name, an unreadable or missing date, a date that stands twice in a geo or before the row
            above it, or a geo with one row.
    """
    geos, index = (("all",), np.zeros(len(frame), np.int64)) if geo is None else _labels(frame[geo], geo)

    def place(row: int) -> str:
        return f"row {row + 1}" + ("" if geo is None else f" ({geo} {geos[index[row]]!r})")

    day = _dates(frame[time], time, place)
    keys = [time] if geo is None else [geo, time]
    order = np.lexsort((day, index))
    twice = np.flatnonzero((np.diff(index[order]) == 0) & (np.diff(day[order]).astype(np.int64) == 0))
    if len(twice):
        first, second = sorted(int(order[twice[0] + k]) for k in (0, 1))
        more = f" ({len(twice)} rows repeat a date)" if len(twice) > 1 else ""
        if geo is None:
            said, remedy = "", "keep one row per date; if the table has several geos, name their column with geo="
        else:
            said = f"{geo} {geos[index[first]]!r}, "
            remedy = f"keep one row per {geo} and {time}, with what belongs together added up"
        raise DataError(f"{said}{time} {day[first]} stands in rows {first + 1} and {second + 1}{more}; {remedy}")
    order = np.argsort(index, kind="stable")
    rows = Rows(geos, index[order], day[order], order, time, geo)
    back = np.flatnonzero((rows.geo[1:] == rows.geo[:-1]) & (rows.day[1:] < rows.day[:-1]))
    if len(back):
        at = int(back[0])
        said = "" if geo is None else f"{geo} {geos[rows.geo[at]]!r}: "
        text = frame[time].iloc[0]
        # Text sorts by date only where the year comes first.
        as_text = isinstance(text, str) and not text[:4].isdigit()
        convert = f"df[{time!r}] = pd.to_datetime(df[{time!r}], format=...) and then " if as_text else ""
        raise DataError(
            f"the dates are not sorted: {said}row {order[at + 1] + 1} has {rows.day[at + 1]}, after {rows.day[at]} in "
            f"row {order[at] + 1}; sort the table first, with {convert}df = df.sort_values({keys})"
        )
    count = np.bincount(rows.geo, minlength=len(geos))
    refuse_few(rows, count, "row")
    return rows


def refuse_few(rows: Rows, count: np.ndarray, noun: str) -> None:
    """Raises DataError for a geo with fewer than two."""
    few = np.flatnonzero(count < 2)
    if len(few):
        more = f" ({len(few)} such geos)" if len(few) > 1 else ""
        raise DataError(
            f"{rows.called(int(few[0]))} has {plural(int(count[few[0]]), noun)}; a geo needs at least two: give "
            f"more of its history or leave it out{more}"
        )


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python writes it."""
    return value.item() if isinstance(value, np.number | np.bool_) else value


def read_numbers(frame: pd.DataFrame, rows: Rows, name: str, role: str, blank: str, *, least: str = "") -> np.ndarray:
    """A column as float64, in the order of `rows`; blanks are NaN where `blank` is empty.

    Args:
        frame, rows: the table.
        name, role: the column and what it is, for messages.
        blank: what to do about a missing value; empty where one is allowed.
        least: what to do about a negative value; empty where one is allowed.

    Raises:
        DataError: a value that is no number, infinite, missing or negative where that is not allowed; the message
            names row, geo, date and value.
    """

    def refuse(bad: np.ndarray, reason: str) -> None:
        at = np.flatnonzero(bad)
        if len(at):
            more = f" ({len(at):,} such rows)" if len(at) > 1 else ""
            value = _plain(column.iloc[rows.number[at[0]]])
            raise DataError(f"{role} {name!r}: {rows.where(int(at[0]))} is {value!r}: {reason}{more}")

    column = frame[name]
    if isinstance(column.dtype, pd.CategoricalDtype):
        kind = column.cat.categories.dtype
        # NumPy's whole numbers have no missing value.
        column = column.astype(np.float64 if kind.kind in "iu" and column.hasnans else kind)
    values = np.full(len(column), np.nan)
    if pd.api.types.is_complex_dtype(column.dtype):
        raise DataError(f"{role} {name!r} holds complex numbers; give real ones")
    if pd.api.types.is_numeric_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        missing = column.isna().to_numpy()
        wrong = np.zeros(len(column), bool)
        for row, value in enumerate(column):
            if missing[row]:
                continue
            with contextlib.suppress(TypeError, ValueError):
                values[row] = np.nan if isinstance(value, str) else float(value)
            wrong[row] = np.isnan(values[row])
        advice = (
            "make it numeric with pd.to_numeric, without separators or units"
            if role in ("media", "spend", "target", "population")
            else "code a category as 0/1 columns with pd.get_dummies"
        )
        refuse(wrong[rows.number], f"it is not a number; {advice}")
    values = values[rows.number]
    if blank:
        refuse(np.isnan(values), f"it is missing; {blank}")
    refuse(np.isinf(values), "it is not finite; correct it")
    size = np.nanmax(np.abs(values), initial=0.0)
    if size > _FAR or 0 < size < 1 / _FAR:
        refuse(np.abs(values) == size, "it is beyond what can be computed with; give the column in another unit")
    if least:
        refuse(values < 0, f"it is negative; {least}")
    return values


def refuse_constant_target(rows: Rows, name: str, target: np.ndarray) -> None:
    """Raises DataError where a geo's target has one value in all of its rows that have one."""
    start = np.flatnonzero(np.r_[True, rows.geo[1:] != rows.geo[:-1]])
    low, high = np.fmin.reduceat(target, start), np.fmax.reduceat(target, start)
    flat = np.flatnonzero(low == high)
    if len(flat):
        more = f" ({len(flat)} such geos)" if len(flat) > 1 else ""
        raise DataError(
            f"target {name!r} of {rows.called(int(flat[0]))} is {low[flat[0]]:g} on every date, so that nothing can be "
            f"learnt from it; correct the column or leave the geo out{more}"
        )


def read_population(frame: pd.DataFrame, rows: Rows, name: str) -> np.ndarray:
    """Population [geo], positive and the same in every row of a geo."""
    values = read_numbers(frame, rows, name, "population", "give every row its geo's population")
    low = np.flatnonzero(values <= 0)
    if len(low):
        raise DataError(
            f"population {name!r}: {rows.where(int(low[0]))} is {values[low[0]]:g}; a population is above 0"
        )
    start = np.flatnonzero(np.r_[True, rows.geo[1:] != rows.geo[:-1]])
    varies = np.flatnonzero(values != values[start][rows.geo])
    if len(varies):
        at = int(varies[0])
        raise DataError(
            f"population {name!r} varies within {rows.called(int(rows.geo[at]))}: {values[start[rows.geo[at]]]:g}, but "
            f"{values[at]:g} in {rows.where(at)}; it scales the geo as a whole, so give one value, such as the mean"
        )
    return values[start]


def refuse_constant(role: str, names: Sequence[str], values: np.ndarray) -> None:
    """Raises DataError for the first column of [row, column] with one value in all rows."""
    flat = np.flatnonzero(np.ptp(values, axis=0) == 0) if len(names) else []
    if len(flat):
        raise DataError(
            f"{role} {names[flat[0]]!r} is {values[0, flat[0]]:g} in every row, so that its effect is not told from "
            "the intercept; leave it out"
        )


def refuse_empty(role: str, names: Sequence[str], values: np.ndarray) -> None:
    """Raises DataError for the first column of [row, column] with zeros alone."""
    empty = np.flatnonzero(~(values > 0).any(axis=0))
    if len(empty):
        raise DataError(
            f"{role} {names[empty[0]]!r} is 0 in every row of every geo, so that nothing can be learnt about it; leave "
            "the channel out"
        )


def check_values(
    rows: Rows,
    target_name: str,
    target: np.ndarray,
    blocks: Mapping[str, tuple[Sequence[str], np.ndarray]],
) -> None:
    """Refuses columns that nothing can be learnt from, and warns of those that are collinear.

    Args:
        rows: of the table.
        target_name, target: its name and values [row], NaN where masked.
        blocks: of media, spend, control and event, the names and values [row, column].
    """
    refuse_few(rows, np.bincount(rows.geo[~np.isnan(target)], minlength=len(rows.geos)), "date with a target")
    refuse_constant_target(rows, target_name, target)
    for role in ("control", "event"):
        refuse_constant(role, *blocks[role])
    for role in ("media", "spend"):
        refuse_empty(role, *blocks[role])
    drivers = ("control", "event", "media")
    labels = [f"{role} {name!r}" for role in drivers for name in blocks[role][0]]
    warn_collinear(rows, labels, np.concatenate([blocks[role][1] for role in drivers], axis=1))


def warn_collinear(rows: Rows, names: Sequence[str], values: np.ndarray) -> None:
    """Warns of columns whose effects the data cannot tell apart.

    What counts is the movement within a geo, for each geo has an intercept: columns are centred and scaled by geo, and
    the correlation is that of all rows.

    Args:
        rows: of the table.
        names: what to call each column: "control 'price'".
        values: [row, column].

    Warns:
        DataWarning: a column that is constant within every geo, two columns with a correlation of 0.95 and more, or
            columns that add up to one another.
    """
    start = np.flatnonzero(np.r_[True, rows.geo[1:] != rows.geo[:-1]])
    size = np.diff(np.r_[start, len(rows.geo)])[:, None]
    centred = values - (np.add.reduceat(values, start) / size)[rows.geo]
    # A column that is constant in a geo keeps rounding there, which scaling would blow up.
    sd = np.sqrt(np.add.reduceat(centred**2, start) / size)
    # Nor does a movement count whose squares are below the least number.
    varies = (np.maximum.reduceat(values, start) > np.minimum.reduceat(values, start)) & (sd > 0)
    scaled = centred * np.where(varies, 1 / np.where(varies, sd, 1), 0)[rows.geo]
    norm = np.sqrt((scaled**2).sum(axis=0))
    within = np.flatnonzero(norm > 0).tolist()
    for column in np.flatnonzero(norm == 0).tolist():
        warnings.warn(
            f"{names[column]} does not change over time within any geo: only the prior tells its effect from the geos' "
            "intercepts; leave it out, or pool the baseline",
            DataWarning,
            skip_file_prefixes=(_HERE,),
        )
    correlation = (scaled.T @ scaled)[np.ix_(within, within)] / np.outer(norm[within], norm[within])
    first, second = np.nonzero(np.triu(np.abs(correlation) >= COLLINEAR, 1))
    for a, b in zip(first, second, strict=True):
        warnings.warn(
            f"{names[within[a]]} and {names[within[b]]} are collinear, with a correlation of "
            f"{correlation[a, b]:.3f} within geos: the data hardly tell their effects apart; leave one out or "
            "add them up",
            DataWarning,
            skip_file_prefixes=(_HERE,),
        )
    if len(first) or len(within) < 3:
        return
    # Scales that differ by geo would hide a sum.
    alike = centred[:, within] / np.sqrt((centred[:, within] ** 2).sum(axis=0))
    root, vector = np.linalg.eigh(alike.T @ alike)
    if root[0] < _DEPENDENT:
        part = [names[within[k]] for k in np.flatnonzero(np.abs(vector[:, 0]) > 1e-4).tolist()]
        warnings.warn(
            f"{', '.join(part[:-1])} and {part[-1]} are collinear: each is a sum of the others, so that the data "
            "do not tell their effects apart; leave one out",
            DataWarning,
            skip_file_prefixes=(_HERE,),
        )
