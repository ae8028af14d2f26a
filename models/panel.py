"""Panel: target, media and controls by geo and date, of unequal lengths per geo, read from a long table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from pelton.engine.errors import ArgumentError, UnknownNameError
from pelton.models import panel_checks as checks
from pelton.models.frames import check_name, to_pandas
from pelton.models.panel_calendar import Calendar, read_calendar, refuse_gaps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = ("error", "impute-zero-spend", "mask-target")


@dataclass(frozen=True, eq=False, repr=False)
class Panel:
    """What a media mix model is fitted to, dense on the calendar that all geos share between them.

    A geo is inside from its first to its last date. Outside all arrays are 0, and the target is NaN. Make one with
    `Panel.from_frame`, which checks what it reads.

    Attributes:
        geos: names [geo].
        dates: `datetime64[D]` [time], regular.
        channels, control_names, event_names: names.
        target: in its own units [geo, time]; NaN where there is none.
        observed: whether the target enters the likelihood [geo, time].
        inside: whether the date is between the geo's first and last [geo, time].
        media: what drives the model, impressions or money [geo, time, channel].
        spend: money [geo, time, channel]; the media themselves where none was given apart.
        has_spend: whether spend was given apart from media.
        controls: [geo, time, control].
        events: [geo, time, event].
        population: people [geo], or None.
        time_name, geo_name, target_name: the table's columns.
        frequency: D, W-MON to W-SUN, MS or ME (pandas' names).
        period_days: days of a period: 1, 7 or 365.25 / 12.

    >>> table = pd.DataFrame({
    ...     "country": ["AT"] * 3 + ["CH"] * 2,
    ...     "week": ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-08", "2024-01-15"],
    ...     "tv": [0, 250.0, 80, 40, 0],
    ...     "sales": [910.0, 1200, 1100, 310, 290],
    ... })
    >>> panel = Panel.from_frame(table, time="week", geo="country", target="sales", media=["tv"])
    >>> panel
    Panel(2 geos, 3 weeks from 2024-01-01 to 2024-01-15, 1 channel: tv)
    >>> panel.target
    array([[ 910., 1200., 1100.],
           [  nan,  310.,  290.]])
    """

    geos: tuple[str, ...]
    dates: np.ndarray
    channels: tuple[str, ...]
    control_names: tuple[str, ...]
    event_names: tuple[str, ...]
    target: Float64[np.ndarray, "geo time"]
    observed: Bool[np.ndarray, "geo time"]
    inside: Bool[np.ndarray, "geo time"]
    media: Float64[np.ndarray, "geo time channel"]
    spend: Float64[np.ndarray, "geo time channel"]
    has_spend: bool
    controls: Float64[np.ndarray, "geo time control"]
    events: Float64[np.ndarray, "geo time event"]
    population: Float64[np.ndarray, " geo"] | None
    time_name: str
    geo_name: str
    target_name: str
    frequency: str
    period_days: float

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        time: str,
        target: str,
        media: Sequence[str],
        geo: str | None = None,
        controls: Sequence[str] = (),
        events: Sequence[str] = (),
        spend: Mapping[str, str] | Sequence[str] | None = None,
        population: str | None = None,
        missing: str | Sequence[str] = "error",
        frequency: str | None = None,
        channels: Sequence[str] | None = None,
    ) -> "Panel":
        """The panel of a table with one row per geo and date, the rows of each geo in the order of their dates.

        Args:
            frame: the table, of pandas, polars, pyarrow, xarray or another library that Narwhals reads.
            time: column of dates: dates, datetimes, periods (by their first day) or text.
            target: column of what the media are to explain.
            media: columns that drive the model, one a channel: impressions, clicks or money.
            geo: column of geos; None where the table is of one geo, which is then called "all".
            controls: columns of numbers that move the target beside the media: price, distribution, weather.
            events: columns that are 0 on ordinary dates: holidays, promotions.
            spend: columns of money, where media are not money themselves: in the order of `media`, or by channel.
            population: column of the geos' populations, by which media are scaled.
            missing: "error"; "impute-zero-spend" adds the rows that a geo lacks between its first and its last, with
                media, spend and events 0, controls at the geo's mean, and the target left out of the likelihood;
                "mask-target" leaves rows without a target out of the likelihood; or both of these in a list.
            frequency: D, W, W-MON to W-SUN, MS or ME; inferred where None.
            channels: names of the channels; by default those of the media columns.

        Raises:
            UnknownNameError: a column, frequency or choice that does not exist; the message lists the nearest.
            ArgumentError: settings that contradict one another, such as a column with two roles.
            DataError: dates that are unsorted, repeated, unreadable, of several frequencies or lacking in between;
                values that are missing, negative, infinite or no numbers; a target, control or event of one value; a
                channel without any media or spend; a population that is not positive or varies within a geo; a geo
                with fewer than two observed dates. The message names geo, date, row (counted from 1) and value.

        Warns:
            DataWarning: controls, events or channels that are collinear within geos.

        >>> table = pd.DataFrame({
        ...     "month": ["2024-01", "2024-02", "2024-04"], "search": [4.0, 7, 6], "orders": [51.0, 60, 55]})
        >>> Panel.from_frame(table, time="month", target="orders", media=["search"])
        Traceback (most recent call last):
            ...
        pelton.engine.errors.DataError: the table lacks 1 of the 4 months between its first and its last: 2024-03-01. \
Add these rows, or say missing='impute-zero-spend', which takes their media as zero, their controls as the geo's mean, \
and leaves their target out of the likelihood
        """
        frame = to_pandas(frame)
        media, controls, events = (
            checks.names_of(name, values)
            for name, values in (("media", media), ("controls", controls), ("events", events))
        )
        if not media:
            raise ArgumentError("media names no column; a media mix needs at least one channel")
        names = _channel_names(media, channels)
        money = _spend_columns(names, spend)
        choices = _choices(missing)
        roles = [("time", time), ("geo", geo), ("target", target), ("population", population)]
        for role, columns in (("media", media), ("control", controls), ("event", events)):
            roles += [(role, column) for column in columns]
        # A channel's media may be money, and stand for both.
        roles += [("spend", column) for k, column in enumerate(money or ()) if column != media[k]]
        checks.check_columns(frame, roles)
        for name in names:
            check_name(name, "the name of a channel")
        clash = [name for name in names if name in {time, geo, target, *controls, *events}]
        if clash:
            raise ArgumentError(
                f"channel {clash[0]!r} has the name of another column in use; call the channel otherwise"
            )
        rows = checks.read_rows(frame, time, geo)
        calendar, position = read_calendar(rows, frequency)

        def matrix(role: str, columns: Sequence[str], blank: str, least: str = "") -> np.ndarray:
            read = [checks.read_numbers(frame, rows, column, role, blank, least=least) for column in columns]
            return np.stack(read, axis=1) if read else np.zeros((len(frame), 0))

        zero, refund = "write 0 where there was none", "take refunds off the date that they belong to"
        blocks = {"media": (media, matrix("media", media, zero, refund))}
        blocks["spend"] = blocks["media"] if money is None else (money, matrix("spend", money, zero, refund))
        fill = "fill it, for instance by interpolation or a forecast, or leave the column out"
        blocks["control"] = (controls, matrix("control", controls, fill))
        blocks["event"] = (events, matrix("event", events, "write 0 where nothing took place"))
        give = "give it, or say missing='mask-target', which leaves such rows out of the likelihood"
        give = "" if "mask-target" in choices else give
        target_rows = checks.read_numbers(frame, rows, target, "target", give)
        people = None if population is None else checks.read_population(frame, rows, population)
        if "impute-zero-spend" not in choices:
            refuse_gaps(rows, calendar, position)
        checks.check_values(rows, target, target_rows, blocks)

        first = int(position.min())
        time_count = int(position.max()) - first + 1
        at = (rows.geo, position - first)

        def dense(values: np.ndarray, empty: Any = 0.0) -> np.ndarray:
            filled = np.full((len(rows.geos), time_count, *values.shape[1:]), empty)
            filled[at] = values
            return filled

        present = dense(np.ones(len(frame), bool), False)
        # Between the first row and the last: some row before or here, and some here or after.
        inside = np.logical_or.accumulate(present, axis=1) & np.logical_or.accumulate(present[:, ::-1], axis=1)[:, ::-1]
        filled = dense(blocks["control"][1])
        if controls:
            mean = filled.sum(axis=1, keepdims=True) / present.sum(axis=1)[:, None, None]
            filled = np.where((inside & ~present)[:, :, None], mean, filled)
        media_dense = dense(blocks["media"][1])
        targets = dense(target_rows, np.nan)
        return cls(
            geos=rows.geos,
            dates=calendar.dates(first, time_count),
            channels=names,
            control_names=controls,
            event_names=events,
            target=targets,
            observed=~np.isnan(targets),
            inside=inside,
            media=media_dense,
            spend=media_dense if money is None else dense(blocks["spend"][1]),
            has_spend=money is not None,
            controls=filled,
            events=dense(blocks["event"][1]),
            population=people,
            time_name=time,
            geo_name=geo if geo is not None else _free("geo", frame.columns),
            target_name=target,
            frequency=calendar.frequency,
            period_days=calendar.period_days,
        )

    def __repr__(self) -> str:
        shown = ", ".join(self.channels[:5]) + (", ..." if len(self.channels) > 5 else "")
        parts = [
            checks.plural(len(self.geos), "geo"),
            f"{checks.plural(len(self.dates), self.period)} from {self.dates[0]} to {self.dates[-1]}",
            f"{checks.plural(len(self.channels), 'channel')}: {shown}",
        ]
        parts += [checks.plural(len(self.control_names), "control")] if self.control_names else []
        parts += [checks.plural(len(self.event_names), "event")] if self.event_names else []
        return f"Panel({', '.join(parts)})"

    @property
    def period(self) -> str:
        """day, week or month."""
        return Calendar(self.frequency).period

    @property
    def weeks(self) -> Int64[np.ndarray, " geo"]:
        """Weeks (days, months) from each geo's first to its last [geo]."""
        return self.inside.sum(axis=1)

    @cached_property
    def target_scale(self) -> Float64[np.ndarray, " geo"]:
        """max(|mean|, sd) of each geo's observed target [geo], in the target's units.

        A geo without any observed target has the median of the others.
        """
        count = self.observed.sum(axis=1)
        seen = np.where(self.observed, self.target, 0.0)
        mean = seen.sum(axis=1) / np.maximum(count, 1)
        sd = np.sqrt((np.where(self.observed, seen - mean[:, None], 0.0) ** 2).sum(axis=1) / np.maximum(count, 1))
        scale = np.maximum(np.abs(mean), sd)
        known = scale > 0
        return np.where(known, scale, np.median(scale[known]) if known.any() else 1.0)

    @cached_property
    def media_scale(self) -> Float64[np.ndarray, "geo channel"]:
        """The media of a week on which the channel is active [geo, channel], in the media's units.

            m_gc = mean of media_gtc over the weeks with media_gtc > 0

        For a geo in which the channel is never active, s_g median_h(m_hc / s_h) with s the `target_scale` and h the
        geos in which it is. With populations N, N_g median_h(m_hc / N_h) in every geo, which is how Meridian scales.
        """
        active = self.media > 0
        weeks = active.sum(axis=1)
        mean = self.media.sum(axis=1) / np.maximum(weeks, 1)
        size = self.target_scale if self.population is None else self.population
        ratio = np.where(weeks > 0, mean / size[:, None], np.nan)
        some = (weeks > 0).any(axis=0)
        typical = np.ones(len(self.channels))
        typical[some] = np.nanmedian(ratio[:, some], axis=0)
        usual = size[:, None] * typical
        return usual if self.population is not None else np.where(weeks > 0, mean, usual)

    @cached_property
    def control_mean(self) -> Float64[np.ndarray, " control"]:
        """Mean of each control over the inside dates of all geos [control]."""
        return self.controls[self.inside].mean(axis=0)

    @cached_property
    def control_scale(self) -> Float64[np.ndarray, " control"]:
        """Standard deviation of each control over the inside dates of all geos [control]; 1 where it is 0."""
        sd = self.controls[self.inside].std(axis=0)
        return np.where(sd > 0, sd, 1.0)

    def subset(self, geos: Sequence[str]) -> "Panel":
        """The panel of some geos, in the order given, on the calendar from their first date to their last.

        Raises:
            UnknownNameError: no such geo; the message lists the nearest.
            ArgumentError: no geo, or one named twice.
        """
        wanted = [geos] if isinstance(geos, str) else list(geos)
        where = {name: at for at, name in enumerate(self.geos)}
        for name in wanted:
            if name not in where:
                raise UnknownNameError("geo", name, self.geos)
        if not wanted or len(set(wanted)) < len(wanted):
            raise ArgumentError(f"a subset has at least one geo and each once, not {wanted!r}")
        index = [where[name] for name in wanted]
        dates = np.flatnonzero(self.inside[index].any(axis=0))
        span = slice(int(dates[0]), int(dates[-1]) + 1)

        def cut(values: np.ndarray) -> np.ndarray:
            return values[index, span]

        media = cut(self.media)
        return Panel(
            geos=tuple(wanted),
            dates=self.dates[span],
            channels=self.channels,
            control_names=self.control_names,
            event_names=self.event_names,
            target=cut(self.target),
            observed=cut(self.observed),
            inside=cut(self.inside),
            media=media,
            spend=cut(self.spend) if self.has_spend else media,
            has_spend=self.has_spend,
            controls=cut(self.controls),
            events=cut(self.events),
            population=None if self.population is None else self.population[index],
            time_name=self.time_name,
            geo_name=self.geo_name,
            target_name=self.target_name,
            frequency=self.frequency,
            period_days=self.period_days,
        )

    def to_frame(self) -> pd.DataFrame:
        """The long table: one row per geo and inside date, in this order, the target NaN where it is masked.

        Columns are date, geo, target, one a channel, with `has_spend` one "<channel>_spend" each, controls, events, and
        "population" if there is one; a name that is taken gets an underscore.

        >>> table = pd.DataFrame({"day": ["2024-01-01", "2024-01-02"], "tv": [0.0, 3], "sales": [5.0, 8]})
        >>> Panel.from_frame(table, time="day", target="sales", media=["tv"]).to_frame()
                 day  geo  sales   tv
        0 2024-01-01  all    5.0  0.0
        1 2024-01-02  all    8.0  3.0
        """
        geo, time = np.nonzero(self.inside)
        columns: dict[str, Any] = {
            self.time_name: pd.DatetimeIndex(self.dates[time]),
            self.geo_name: pd.Index(self.geos)[geo],
            self.target_name: np.where(self.observed, self.target, np.nan)[geo, time],
        }
        taken = {*columns, *self.channels, *self.control_names, *self.event_names}
        blocks = [(self.channels, self.media)]
        if self.has_spend:
            blocks.append((tuple(_free(f"{name}_spend", taken) for name in self.channels), self.spend))
        blocks += [(self.control_names, self.controls), (self.event_names, self.events)]
        for names, values in blocks:
            columns |= {name: values[geo, time, k] for k, name in enumerate(names)}
        if self.population is not None:
            columns[_free("population", columns)] = self.population[geo]
        return pd.DataFrame(columns)

    def summary(self) -> pd.DataFrame:
        """What the panel holds, one row a geo.

        Columns: first and last date; weeks (days, months) between them; masked, those without a target in the
        likelihood; population if there is one; target_mean and target_sd (of a sample) over observed dates; spend, the
        total of all channels; spend_to_target, that total over the target's on observed dates, both in their own units;
        and for each channel spend_<channel>, its total, share_<channel>, its part of the geo's spend, and
        active_<channel>, the share of dates with media above 0; with `has_spend` also media_<channel>, the total.

        >>> table = pd.DataFrame({"day": ["2024-01-01", "2024-01-02"], "tv": [0.0, 3], "sales": [5.0, 7]})
        >>> summary = Panel.from_frame(table, time="day", target="sales", media=["tv"]).summary()
        >>> summary.loc["all", ["days", "masked", "target_mean", "spend_tv", "active_tv"]].tolist()
        [2.0, 0.0, 6.0, 3.0, 0.5]
        """
        count = self.observed.sum(axis=1)
        target = np.where(self.observed, self.target, np.nan)
        spend, weeks = self.spend.sum(axis=1), self.weeks
        first = np.where(weeks > 0, self.dates[self.inside.argmax(axis=1)], np.datetime64("NaT", "D"))
        last = np.where(weeks > 0, self.dates[::-1][self.inside[:, ::-1].argmax(axis=1)], np.datetime64("NaT", "D"))
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.nansum(target, axis=1) / count
            deviation = np.nansum((target - mean[:, None]) ** 2, axis=1)
            columns: dict[str, Any] = {
                "first": pd.DatetimeIndex(first),
                "last": pd.DatetimeIndex(last),
                f"{self.period}s": weeks,
                "masked": weeks - count,
                "target_mean": mean,
                "target_sd": np.sqrt(deviation / (count - 1)),
                "spend": spend.sum(axis=1),
                "spend_to_target": spend.sum(axis=1) / (mean * count),
            }
            for k, name in enumerate(self.channels):
                columns[f"spend_{name}"] = spend[:, k]
                columns[f"share_{name}"] = spend[:, k] / columns["spend"]
                columns[f"active_{name}"] = (self.media[:, :, k] > 0).sum(axis=1) / weeks
                if self.has_spend:
                    columns[f"media_{name}"] = self.media[:, :, k].sum(axis=1)
        table = pd.DataFrame(columns, index=pd.Index(self.geos, name=self.geo_name))
        if self.population is not None:
            table.insert(4, "population", self.population)
        return table

    def plot(self, what: str | None = None) -> "Figure":
        """Pictures of the panel before any model.

        Args:
            what: "weeks" (which dates each geo has), "spend" (by channel over time, and when in each geo), "target"
                (over time by geo); None for all three below one another.

        Returns:
            A matplotlib figure: `figure.savefig("panel.png")` writes it.

        Raises:
            UnknownNameError: no such picture.
        """
        from pelton.models.panel_pictures import draw

        return draw(self, what)  # pyright: ignore[reportArgumentType]


def _channel_names(media: tuple[str, ...], channels: Sequence[str] | None) -> tuple[str, ...]:
    if channels is None:
        return tuple(str(name) for name in media)
    names = checks.names_of("channels", channels)
    if len(names) != len(media):
        raise ArgumentError(f"there are {len(media)} media columns and {len(names)} channels; name each channel once")
    if len(set(names)) < len(names):
        raise ArgumentError(f"channels {list(names)} names one twice; name them apart")
    return names


def _spend_columns(
    channels: tuple[str, ...], spend: Mapping[str, str] | Sequence[str] | None
) -> tuple[str, ...] | None:
    """Column of each channel's spend; None where media are money."""
    if spend is None:
        return None
    if not isinstance(spend, Mapping):
        columns = checks.names_of("spend", spend)
        if len(columns) != len(channels):
            raise ArgumentError(
                f"there are {len(channels)} channels and {len(columns)} spend columns; name one per channel, in the "
                "order of media"
            )
        return columns
    for name in spend:
        if name not in channels:
            raise UnknownNameError("channel", name, channels)
    without = [name for name in channels if name not in spend]
    if without:
        raise ArgumentError(
            f"spend names no column for channel {without[0]!r}; where its media are money, name their column again"
        )
    return tuple(spend[name] for name in channels)


def _choices(missing: str | Sequence[str]) -> tuple[str, ...]:
    choices = (missing,) if isinstance(missing, str) else tuple(missing)
    for choice in choices:
        if choice not in MISSING:
            raise UnknownNameError("choice of missing", choice, MISSING)
    if "error" in choices and len(choices) > 1:
        raise ArgumentError(f"missing={list(choices)} asks for an error and for {choices[1]!r}; choose")
    return choices


def _free(name: str, taken: Any) -> str:
    while name in taken:
        name += "_"
    return name
