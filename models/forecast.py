"""The target of weeks to come, by the tree of a media mix and a plan of media, controls and events."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.arguments import central
from pelton.engine.errors import ArgumentError, DataError, UnknownNameError
from pelton.models.baseline import GaussianProcessTrend, LinearTrend, PiecewiseTrend, Trend, fourier
from pelton.models.frames import to_pandas
from pelton.models.panel_calendar import Calendar
from pelton.models.response import Response

# Where the Gaussian process of the trend is no longer one: half of the span beyond the data.
_LAST_GP = 0.75
_ONE_GEO = "all"


def columns_of(tree: xr.DataTree) -> tuple[list[str], list[str]]:
    """Columns of numbers and of labels that a plan for this tree has.

    Raises:
        DataError: the tree is not one of MediaMix.
    """
    known = Response.of(tree)
    settings = known.settings
    labels = [str(settings["time"])]
    if known.geos != (_ONE_GEO,):
        labels.append(str(settings["geo"]))
    return [*known.channels, *_names(known, "control"), *_names(known, "event")], labels


def forecast(tree: xr.DataTree, plan: Any, *, probability: float = 0.94) -> pd.DataFrame:
    """The expected target of planned weeks, and the range of a single week.

        mu[g,t] = baseline[g,t] + sum_c coef[g,c] saturation_c(adstock_c(media[g,:,c]))[t]

    Carryover of the weeks fitted goes on into the planned ones; the trend goes on as its form says, and seasons repeat.

    Args:
        tree: of MediaMix.
        plan: a table with one row per geo and date: columns of time, geo (of several), every channel, control and
            event, by the names that the model has them by. The rows of a geo follow its last fitted date without a gap.
        probability: of the central intervals.

    Returns:
        Rows (geo, time) in the order of geos and dates: mean, low, high (of the expected target), noise_low, noise_high
            (of a new observation), in target units. Intervals come from at most 1,000 evenly spaced draws.

    Raises:
        UnknownNameError: a column or a geo is not known; the message lists the nearest.
        DataError: values that are missing, infinite or negative media; dates before the end of the fit, repeated,
            irregular or with a gap.
        ArgumentError: the model has a trend of its own making, or the plan reaches further than its Gaussian process.

    >>> import warnings
    >>> import pelton
    >>> data = pelton.simulate_media(geos=["north"], weeks=60, channels=1)
    >>> past, plan = data.frame.iloc[:56], data.frame.iloc[56:]
    >>> with warnings.catch_warnings(action="ignore"):  # so few draws do not converge
    ...     model = pelton.MediaMix(pelton.Panel.from_frame(past, **data.columns))
    ...     tree = pelton.sample(model, chains=1, warmup=30, draws=30)
    >>> forecast(tree, plan).columns.tolist()
    ['mean', 'low', 'high', 'noise_low', 'noise_high']
    """
    low, high = central(probability)
    known = Response.of(tree).thin()
    table = to_pandas(plan)
    numbers, labels = columns_of(tree)
    for name in (*labels, *numbers):
        if name not in table.columns:
            raise UnknownNameError("column", name, [str(column) for column in table.columns])
    geo, position, dates = _places(known, table, labels)
    media, controls, events = _values(known, table, geo, position, len(dates))
    design = _design(tree, known, dates, controls, events)
    rows = {}
    source = np.random.default_rng([known.seed, 13])
    for at in np.unique(geo):
        one = known.take(geos=slice(at, at + 1))
        mean = np.concatenate([block[:, 0].sum(axis=-1) for _, block in one.blocks(media[at : at + 1])])
        mean += np.einsum("tk,dk->dt", design[at], one.baseline_coefficient[:, 0])
        mean = mean[:, np.sort(position[geo == at])]
        noise = source.normal(size=mean.shape) if one.nu is None else source.standard_t(one.nu, size=mean.shape)
        ranges = (np.quantile(values, [low, high], axis=0) for values in (mean, mean + one.sigma * noise))
        found = np.vstack([*ranges])
        for column, where in enumerate(np.sort(position[geo == at])):
            rows[known.geos[at], dates[where]] = (mean[:, column].mean(), *found[:, column])
    index = pd.MultiIndex.from_tuples(list(rows), names=["geo", "time"])
    return pd.DataFrame(list(rows.values()), index=index, columns=["mean", "low", "high", "noise_low", "noise_high"])


def _names(known: Response, part: str) -> list[str]:
    """Columns of the table that a part of the baseline stands on."""
    return [
        term.removeprefix(f"{part}[").removesuffix("]")
        for term, of in zip(known.terms, known.parts, strict=True)
        if of == part
    ]


def _places(known: Response, table: pd.DataFrame, labels: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which geo and which week each row is of, and the calendar from the first fitted week to the last planned one."""
    if table.empty:
        raise DataError("the plan has no rows; give one per geo and date to come")
    time = table[labels[0]]
    days = np.empty(len(table), "M8[D]")
    for row, value in enumerate(time):
        try:
            stamp: Any = pd.Timestamp(value)
            days[row] = np.datetime64(stamp, "D")
        except (ValueError, TypeError):
            raise DataError(f"{labels[0]}: row {row + 1} is {value!r}, which is no date; write 2024-01-31") from None
        if np.isnat(days[row]):
            raise DataError(f"{labels[0]}: row {row + 1} has no date")
    geos = [str(name) for name in table[labels[1]]] if len(labels) > 1 else [_ONE_GEO] * len(table)
    for name in geos:
        if name not in known.geos:
            raise UnknownNameError("geo", name, known.geos)
    geo = np.array([known.geos.index(name) for name in geos])
    calendar = Calendar(str(known.settings["frequency"]))
    first = int(calendar.position(known.dates[:1])[0])
    position = calendar.position(days) - first
    for row in np.flatnonzero(~calendar.holds(days)):
        raise DataError(f"{labels[0]}: row {row + 1} is {days[row]}, and the fit's dates are {calendar}")
    for at in np.unique(geo):
        last = int(np.flatnonzero(known.inside[at])[-1])
        planned = np.sort(position[geo == at])
        ended = known.dates[last]
        if planned[0] <= last:
            raise DataError(
                f"geo {known.geos[at]!r} was fitted up to {ended} and the plan begins at "
                f"{calendar.dates(first + int(planned[0]), 1)[0]}; give dates after the last one fitted"
            )
        gaps = np.setdiff1d(np.arange(last + 1, planned[-1] + 1), planned)
        if len(gaps):
            raise DataError(
                f"geo {known.geos[at]!r} was fitted up to {ended} and the plan lacks "
                f"{calendar.dates(first + int(gaps[0]), 1)[0]} ({len(gaps)} dates in all); its carryover is not known"
            )
        repeated = planned[1:][np.diff(planned) == 0]
        if len(repeated):
            day = calendar.dates(first + int(repeated[0]), 1)[0]
            raise DataError(f"geo {known.geos[at]!r} has {day} twice in the plan; give one row per geo and date")
    return geo, position, calendar.dates(first, int(position.max()) + 1)


def _values(
    known: Response, table: pd.DataFrame, geo: np.ndarray, position: np.ndarray, weeks: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Media of all weeks [geo, week, channel], controls and events of the planned ones [geo, week, column]."""

    def numbers(names: list[str], least: float = -np.inf) -> np.ndarray:
        values = np.zeros((len(known.geos), weeks, len(names)))
        for column, name in enumerate(names):
            for row, value in enumerate(table[name]):
                number = pd.to_numeric(value, errors="coerce") if isinstance(value, str) else value
                if not isinstance(number, int | float | np.number) or not np.isfinite(number) or number < least:
                    remedy = "a number that is not negative" if least == 0 else "a number"
                    raise DataError(f"{name}: row {row + 1} (geo {known.geos[geo[row]]!r}) is {value!r}; give {remedy}")
                values[geo[row], position[row], column] = number
        return values

    media = numbers(list(known.channels), 0.0)
    media[:, : known.media.shape[1]] += known.media
    return media, numbers(_names(known, "control")), numbers(_names(known, "event"))


def _design(
    tree: xr.DataTree, known: Response, dates: np.ndarray, controls: np.ndarray, events: np.ndarray
) -> np.ndarray:
    """Columns of the baseline [geo, week, term] of all weeks, those fitted included."""
    fitted = len(known.dates)
    if known.kind != "media_mix":
        # The country model has an intercept and nothing that moves.
        return np.ones((len(known.geos), len(dates), len(known.terms)))
    count = {part: known.parts.count(part) for part in dict.fromkeys(known.parts)}
    columns = [np.ones((len(dates), 1))]
    time = np.arange(len(dates)) / max(1, fitted - 1) - 0.5
    if count.get("trend"):
        trend = _trend(known.settings.get("trend"), count["trend"])
        if isinstance(trend, GaussianProcessTrend) and time[-1] > _LAST_GP:
            most = int(np.floor((_LAST_GP + 0.5) * (fitted - 1))) + 1 - fitted
            raise ArgumentError(
                f"the plan reaches {len(dates) - fitted} dates past the fit, and its Gaussian process trend holds for "
                f"{most}; plan fewer, or fit a linear trend"
            )
        columns.append(trend.part(time).design)
    if count.get("seasonality"):
        columns.append(fourier(dates, count["seasonality"] // 2)[1])
    full = [np.broadcast_to(column, (len(known.geos), *column.shape)) for column in columns]
    if count.get("control"):
        seen = np.asarray(tree["constant_data"]["controls"].transpose("geo", "time", "control"))
        inside = seen[known.inside]
        mean, sd = inside.mean(axis=0), inside.std(axis=0)
        controls = controls.copy()
        controls[:, :fitted] = seen
        full.append((controls - mean) / np.where(sd > 0, sd, 1.0))
    if count.get("event"):
        full.append(events)
    design = np.concatenate(full, axis=-1)
    # Events of the weeks fitted are in the tree's own design; everything else must come out the same.
    kept = np.array(known.parts) != "event"
    agree = np.isclose(design[:, :fitted][..., kept], known.design[..., kept], atol=1e-6) | ~known.inside[..., None]
    if not agree.all():
        term = known.terms[int(np.flatnonzero(kept)[np.argwhere(~agree)[0][-1]])]
        raise ArgumentError(f"the column {term!r} of this model's baseline cannot be carried on past the fit")
    return design


def _trend(name: Any, terms: int) -> Trend:
    if name == "linear":
        return LinearTrend()
    if name == "piecewise":
        return PiecewiseTrend(terms - 1)
    if name == "gp":
        return GaussianProcessTrend(terms)
    raise ArgumentError(f"the trend {name!r} of this model is of its own making and cannot be carried on past the fit")
