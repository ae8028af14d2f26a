"""The calendar of a panel: days, weeks or months, inferred from its dates, and what breaks their regularity."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pelton.engine.errors import DataError, UnknownNameError
from pelton.models.panel_checks import Rows, plural

WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
FREQUENCIES = ("D", "W", *(f"W-{day}" for day in WEEKDAYS), "MS", "ME")
# 1970-01-01, day 0 of NumPy's dates, was a Thursday.
_EPOCH_WEEKDAY = 3
# So many equal steps in a row, longer than a period, are another frequency rather than weeks that are missing.
_RUN = 3
_SHOWN = 5


@dataclass(frozen=True)
class Calendar:
    """Consecutive days, weeks dated on one weekday, or months dated on their first or last day.

    Attributes:
        frequency: D, W-MON to W-SUN, MS or ME, as pandas calls them.

    >>> calendar = Calendar("W-SUN")
    >>> calendar.dates(calendar.position(np.array(["2018-01-07"], "M8[D]"))[0], 2)
    array(['2018-01-07', '2018-01-14'], dtype='datetime64[D]')
    """

    frequency: str

    @property
    def period(self) -> str:
        """day, week or month."""
        return {"D": "day", "W": "week", "M": "month"}[self.frequency[0]]

    @property
    def period_days(self) -> float:
        """Days of a period; of a month, a twelfth of 365.25."""
        return {"day": 1.0, "week": 7.0, "month": 365.25 / 12}[self.period]

    @property
    def _offset(self) -> int:
        return _EPOCH_WEEKDAY - WEEKDAYS.index(self.frequency[2:])

    def position(self, days: np.ndarray) -> np.ndarray:
        """Number of the period that each day lies in, counted from 1970."""
        if self.period == "month":
            return days.astype("M8[M]").astype(np.int64)
        number = days.astype("M8[D]").astype(np.int64)
        return number if self.period == "day" else (number + self._offset) // 7

    def dates(self, first: int, count: int) -> np.ndarray:
        """The dates datetime64[D] of that many periods from number `first` on."""
        numbers = np.arange(first, first + count, dtype=np.int64)
        if self.period == "day":
            return numbers.astype("M8[D]")
        if self.period == "week":
            return (7 * numbers - self._offset).astype("M8[D]")
        if self.frequency == "MS":
            return numbers.astype("M8[M]").astype("M8[D]")
        return (numbers + 1).astype("M8[M]").astype("M8[D]") - np.timedelta64(1, "D")

    def holds(self, days: np.ndarray) -> np.ndarray:
        """Whether each day is a date of this calendar."""
        if self.period == "day":
            return np.ones(len(days), bool)
        if self.period == "week":
            return (days.astype("M8[D]").astype(np.int64) + self._offset) % 7 == 0
        return _month_start(days) if self.frequency == "MS" else _month_start(days + np.timedelta64(1, "D"))

    def __str__(self) -> str:
        if self.period == "week":
            names = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
            return f"weeks dated on {names[WEEKDAYS.index(self.frequency[2:])]} ({self.frequency})"
        return {
            "D": "days (D)",
            "MS": "months dated on their first day (MS)",
            "ME": "months dated on their last day (ME)",
        }[self.frequency]


def _month_start(days: np.ndarray) -> np.ndarray:
    return days.astype("M8[M]").astype("M8[D]") == days.astype("M8[D]")


def _weekday(days: np.ndarray) -> np.ndarray:
    return (days.astype(np.int64) + _EPOCH_WEEKDAY) % 7


def _infer(days: np.ndarray, same: np.ndarray) -> Calendar | None:
    """The frequency that most steps between neighbouring dates of a geo speak for; None where none is known.

    Args:
        days: dates, geo by geo and ascending within each.
        same: for each date but the first, whether the one before is of the same geo.
    """
    step = np.where(same, np.diff(days).astype(np.int64), 0)
    monthly = (step >= 28) & (step <= 31)
    first, last = _month_start(days), _month_start(days + np.timedelta64(1, "D"))
    votes = {
        "D": step == 1,
        "W": step == 7,
        "MS": monthly & first[1:] & first[:-1],
        "ME": monthly & last[1:] & last[:-1],
    }
    best = max(votes, key=lambda name: int(votes[name].sum()))
    if not votes[best].any():
        return None
    if best == "W":
        ends = days[1:][votes["W"]]
        best = f"W-{WEEKDAYS[int(np.bincount(_weekday(ends), minlength=7).argmax())]}"
    return Calendar(best)


def read_calendar(rows: Rows, frequency: str | None) -> tuple[Calendar, np.ndarray]:
    """The calendar of a table and the number of each row's period in it.

    Args:
        rows: of the table, ordered by geo and date.
        frequency: D, W, W-MON to W-SUN, MS or ME; None infers it.

    Raises:
        UnknownNameError: no such frequency.
        DataError: dates that step by none of these, or by more than one; the message names geo, row and date.
    """
    if frequency is not None and frequency not in FREQUENCIES:
        raise UnknownNameError("frequency", frequency, FREQUENCIES)
    same = rows.geo[1:] == rows.geo[:-1]
    if frequency == "W":
        weekday = int(np.bincount(_weekday(rows.day), minlength=7).argmax())
        calendar = Calendar(f"W-{WEEKDAYS[weekday]}")
    else:
        calendar = _infer(rows.day, same) if frequency is None else Calendar(frequency)
    if calendar is None:
        raise _unknown_step(rows, same)
    off = np.flatnonzero(~calendar.holds(rows.day))
    if len(off):
        raise _off_calendar(rows, calendar, int(off[0]), given=frequency is not None)
    position = calendar.position(rows.day)
    if frequency is None:
        _refuse_mixture(rows, calendar, np.diff(position), same)
    return calendar, position


def _unknown_step(rows: Rows, same: np.ndarray) -> DataError:
    step = np.diff(rows.day).astype(np.int64)
    values, counts = np.unique(step[same], return_counts=True)
    common = int(values[counts.argmax()])
    at = int(np.flatnonzero(same & (step == common))[0])
    if _month_start(rows.day).all():
        name = "MS"
    else:
        name = f"W-{WEEKDAYS[int(_weekday(rows.day[:1])[0])]}" if np.all(step[same] % 7 == 0) else "D"
    return DataError(
        f"the dates step by {plural(common, 'day')} most often, as from {rows.where(at)} to {rows.where(at + 1)}; a "
        "panel has days, weeks, or months dated on their first or last day. Aggregate the table to one of these or, if "
        f"the rows between are missing, say frequency={name!r} with missing='impute-zero-spend'"
    )


def _off_calendar(rows: Rows, calendar: Calendar, at: int, given: bool) -> DataError:
    geo = int(rows.geo[at])
    mine = rows.day[rows.geo == geo]
    own = _infer(mine, np.ones(len(mine) - 1, bool))
    day = pd.Timestamp(rows.day[at]).day_name()
    if own is not None and own != calendar:
        said = f"frequency={calendar.frequency!r} is asked for" if given else f"most of the table has {calendar}"
        if own.period == calendar.period == "week":
            end = WEEKDAYS[WEEKDAYS.index(calendar.frequency[2:]) - 1]
            remedy = (
                f"date the weeks of all geos by one weekday, for instance with df[{rows.time_name!r}] = "
                f"pd.to_datetime(df[{rows.time_name!r}]).dt.to_period('W-{end}').dt.start_time"
            )
        else:
            remedy = "bring all geos to one frequency first"
        return DataError(
            f"mixed frequencies: {rows.called(geo)} has {own}, as in {rows.where(at)}, but {said}; {remedy}"
        )
    return DataError(
        f"mixed frequencies: {rows.where(at)}, a {day}, is not among the {calendar} of "
        + ("frequency=" if given else "the other rows")
        + "; correct the date, or bring all rows to one frequency first"
    )


def _refuse_mixture(rows: Rows, calendar: Calendar, step: np.ndarray, same: np.ndarray) -> None:
    """A geo, or a stretch of one, that keeps to a longer step has another frequency rather than missing periods."""
    start = np.flatnonzero(np.r_[True, ~same])
    size = np.diff(np.r_[start, len(rows.day)])
    # A step into the next geo must neither be the least nor the most.
    least = np.minimum.reduceat(np.r_[np.where(same, step, np.iinfo(np.int64).max), np.iinfo(np.int64).max], start)
    most = np.maximum.reduceat(np.r_[np.where(same, step, 0), 0], start)
    other = np.flatnonzero((size >= _RUN) & (least == most) & (least > 1))
    if len(other):
        at = int(start[other[0]])
        where = f"{rows.called(int(rows.geo[at]))} steps by {plural(int(least[other[0]]), calendar.period)}"
    else:
        long = same & (step > 1)
        run = long.copy()
        for ahead in range(1, _RUN):
            run[:-ahead] &= long[ahead:] & (step[ahead:] == step[:-ahead])
            run[len(run) - ahead :] = False
        if not run.any():
            return
        at = int(np.flatnonzero(run)[0])
        where = f"{rows.called(int(rows.geo[at]))} steps by {plural(int(step[at]), calendar.period)} at a time"
    raise DataError(
        f"mixed frequencies: {where} from {rows.where(at)} on, but the table has {calendar}; bring all rows to one "
        f"frequency first or, if the {calendar.period}s between are missing, say frequency={calendar.frequency!r} "
        "with missing='impute-zero-spend'"
    )


def refuse_gaps(rows: Rows, calendar: Calendar, position: np.ndarray) -> None:
    """Raises DataError where a geo lacks periods between its first and its last; the message lists some and counts."""
    gap = np.where(rows.geo[1:] == rows.geo[:-1], np.diff(position) - 1, 0)
    if not gap.any():
        return
    lacking = np.bincount(rows.geo[1:], weights=gap, minlength=len(rows.geos)).astype(np.int64)
    geos = np.flatnonzero(lacking)
    geo, period = int(geos[0]), calendar.period
    shown: list[str] = []
    for at in np.flatnonzero((gap > 0) & (rows.geo[1:] == geo)):
        count = min(int(gap[at]), _SHOWN - len(shown))
        shown += [str(date) for date in calendar.dates(int(position[at]) + 1, count)]
    mine = position[rows.geo == geo]
    listed = ", ".join(shown) + (f" and {lacking[geo] - len(shown)} more" if lacking[geo] > len(shown) else "")
    others = ", ".join(f"{rows.geos[g]!r} {lacking[g]}" for g in geos[1 : 1 + _SHOWN])
    if others:
        more = f" and {len(geos) - 1 - _SHOWN} more geos" if len(geos) - 1 > _SHOWN else ""
        others = f". So do others: {others}{more}"
    raise DataError(
        f"{rows.called(geo)} lacks {lacking[geo]} of the {mine[-1] - mine[0] + 1} {period}s between its first and its "
        f"last: {listed}{others}. Add these rows, or say missing='impute-zero-spend', which takes their media as zero, "
        "their controls as the geo's mean, and leaves their target out of the likelihood"
    )
