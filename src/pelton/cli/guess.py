"""Guesses what each column of a table is to a media mix: date, geo, target, media, spend, control or event."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from pelton.models.panel_checks import _FORMATS as DATE_FORMATS

# Words by which columns tell what they are, in the singular. Earlier ones win.
TIMES = ("date", "week", "day", "month", "time", "period", "ds", "timestamp")
GEOS = ("geo", "country", "market", "region", "state", "dma", "city", "store", "area", "zone", "territory", "location")
TARGETS = (
    *("sale", "revenue", "turnover", "conversion", "order", "kpi", "booking", "subscription", "signup", "install"),
    *("purchase", "transaction", "customer", "lead", "unit", "volume", "target", "response", "outcome", "y"),
)
POPULATIONS = ("population", "pop", "inhabitant", "household", "people", "resident")
SPENDS = ("spend", "spent", "cost", "budget", "investment", "expenditure")
# How often people saw it, what they did then: of several measures of one channel the first here is taken.
EXPOSURES = ("impression", "impr", "imp", "grp", "trp", "reach", "exposure", "view", "click", "send", "open")
KINDS: dict[str, tuple[str, ...]] = {
    "social": (
        *("social", "facebook", "fb", "meta", "instagram", "ig", "tiktok", "snapchat", "snap", "twitter", "linkedin"),
        *("pinterest", "reddit", "influencer"),
    ),
    "display": ("display", "banner", "programmatic", "retargeting", "remarketing"),
    "video": ("tv", "television", "ctv", "ott", "video", "youtube", "yt", "cinema", "olv", "vod"),
    "audio": ("radio", "audio", "spotify", "podcast", "playlist", "music"),
    "out_of_home": ("ooh", "dooh", "outdoor", "billboard", "poster", "transit"),
    "print": ("print", "newspaper", "magazine", "press", "leaflet", "flyer"),
    "search": ("search", "sem", "ppc", "google", "adword", "bing", "shopping"),
}
OTHER_CHANNELS = (
    *("affiliate", "email", "newsletter", "mail", "mailing", "sms", "sponsorship", "media", "ad", "ads"),
    *("advertising", "marketing", "campaign", "channel"),
)
_CHANNELS = (*(word for words in KINDS.values() for word in words), *OTHER_CHANNELS)
# These make another thing of whatever else the name says.
_RIVALS = ("competitor", "competition", "rival", "control")
_RATIOS = ("per", "rate", "ratio", "share", "cpm", "cpc", "cpa", "ctr", "roas", "roi", "avg", "average")
_LEVELS = ("price", "index", "score", "temperature", "distribution")
_DERIVED = (
    *("adstock", "adstocked", "saturated", "saturation", "effect", "contribution", "lag", "lagged", "log", "sqrt"),
    *("scaled", "normalized", "standardized", "decay", "carryover", "transformed", "smoothed", "predicted", "fitted"),
)
_NOISES = ("epsilon", "eps", "error", "residual", "noise")
_CALENDAR = (
    *("dayofyear", "dayofweek", "doy", "weekday", "weeknumber", "weekofyear", "year", "quarter", "month", "week"),
    *("day", "season", "seasonality", "trend", "fourier", "sin", "cos", "t"),
)
_TOTALS = ("total", "sum", "overall", "all")
_FUNCTION_OF_DATE = 0.999
_DUPLICATE = 0.999
_NUMBER = re.compile(r"[+-]?[0-9]*\.?[0-9]*([eE][+-]?[0-9]+)?")
# A regression on the calendar's functions means nothing on fewer dates.
_LEAST_DATES = 40


@dataclass(frozen=True)
class GuessedChannel:
    """A channel: its name, its columns and the kind of media that its name speaks of."""

    name: str
    media: str
    spend: str | None
    kind: str | None


@dataclass(frozen=True)
class Guess:
    """What each column is taken for; None where no column fits.

    Attributes:
        left_out: column -> why.
    """

    time: str | None
    geo: str | None
    target: str | None
    channels: tuple[GuessedChannel, ...] = ()
    controls: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    population: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def media_alone(self) -> "Guess":
        """For a model that has no place for anything beside the media."""
        others = [*self.controls, *self.events, *([] if self.population is None else [self.population])]
        left_out = {**self.left_out, **dict.fromkeys(others, "the model has no place for it")}
        return replace(self, controls=(), events=(), population=None, left_out=left_out)


def guess(frame: pd.DataFrame) -> Guess:
    """The part that each column of a long table plays, from its name and its values."""
    columns: dict[str, pd.Series] = {str(name): column.infer_objects() for name, column in frame.items()}
    dates = {name: found for name, column in columns.items() if (found := _dates(column)) is not None}
    time = _best(dates, TIMES)
    geo = None if time is None else _geo(columns, time, dates[time])
    numbers = {
        name: found
        for name, column in columns.items()
        if name not in (time, geo) and (found := _numbers(column)) is not None
    }
    usable = {name: values for name, values in numbers.items() if not _has(name, (*_RIVALS, *_DERIVED, *_NOISES))}
    target = _target(usable)
    return _Columns(columns, time, geo, target, numbers, None if time is None else dates[time]).guess()


def words(name: str) -> list[str]:
    """The words of a column's name, as written.

    >>> words("Channel0_impression"), words("paidSearch TVSpend")
    (['Channel0', 'impression'], ['paid', 'Search', 'TV', 'Spend'])
    """
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return [word for word in re.split(r"[\W_]+", apart) if word]


def _matches(word: str, known: Iterable[str]) -> str | None:
    """The known word that this one is, in the plural or numbered or not."""
    bare = word.lower()
    forms = {bare, bare.rstrip("0123456789"), bare.removesuffix("s")}
    return next((one for one in known if one in forms), None)


def _has(name: str, known: Iterable[str]) -> str | None:
    """The first of the known words, in their order, that the name holds."""
    found = {match for word in words(name) if (match := _matches(word, known))}
    return next((one for one in known if one in found), None)


def _best(names: Iterable[str], known: tuple[str, ...]) -> str | None:
    """The column whose name says so by itself, else the one with such a word in it, else the first."""
    names = list(names)
    for rule in (lambda name: len(words(name)) == 1, lambda name: True):
        ranked = [(known.index(word), name) for name in names if rule(name) and (word := _has(name, known))]
        if ranked:
            return min(ranked, key=lambda pair: pair[0])[1]
    return names[0] if names else None


def _dates(column: pd.Series) -> pd.DatetimeIndex | None:
    """The column as dates; None where it is none."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype) or isinstance(column.dtype, pd.PeriodDtype):
        return pd.DatetimeIndex(column.dt.start_time if isinstance(column.dtype, pd.PeriodDtype) else column)
    index, values = pd.factorize(column)
    texts = [str(value) for value in values]
    # A number is a date where it can be nothing else: 2024 or 17 is not.
    fits = (not _NUMBER.fullmatch(text) or re.fullmatch(r"(19|20)[0-9]{6}", text) for text in texts)
    if not texts or (index < 0).any() or not all(fits):
        return None
    for written in DATE_FORMATS:
        try:
            if pd.isna(pd.to_datetime(texts[0], format=written, errors="coerce")):
                continue
            found = pd.DatetimeIndex(pd.to_datetime(pd.Index(texts), format=written, errors="coerce"))
        except ValueError:
            continue
        if not found.hasnans:
            return found[index]
    return None


def _numbers(column: pd.Series) -> np.ndarray | None:
    """The column as float64, NaN where a cell is no number; None where most are none."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return None
    values = np.asarray(pd.to_numeric(column.astype(object), errors="coerce"), dtype=np.float64)
    filled = int(column.notna().sum())
    return values if filled and 2 * np.isfinite(values).sum() > filled else None


def _geo(columns: Mapping[str, pd.Series], time: str, dates: pd.DatetimeIndex) -> str | None:
    """The column that tells rows of one date apart."""
    repeated = len(set(dates)) < len(dates)
    found = []
    for name, column in columns.items():
        numbered = _numbers(column) is not None
        if name == time or bool(column.isna().any()) or (numbered and not _has(name, GEOS)):
            continue
        # As text: a cell of a Parquet file may be a list or a table.
        labels = [str(value) for value in column]
        pairs = len(set(zip(labels, dates, strict=True)))
        values = len(set(labels))
        # In a table of one geo a column may still name it.
        wanted = values <= len(column) // 2 if repeated else values == 1 and _has(name, GEOS) is not None
        if pairs == len(column) and wanted:
            found.append(name)
    return _best(found, GEOS)


def _target(numbers: Mapping[str, np.ndarray]) -> str | None:
    named = [
        name for name in numbers if _has(name, TARGETS) and not _has(name, (*_RATIOS, *_LEVELS, *SPENDS, *EXPOSURES))
    ]
    return _best(named, TARGETS) if named else None


@dataclass
class _Columns:
    """Sorts the columns of numbers, one after the other."""

    columns: Mapping[str, pd.Series]
    time: str | None
    geo: str | None
    target: str | None
    numbers: dict[str, np.ndarray]
    dates: pd.DatetimeIndex | None

    def __post_init__(self) -> None:
        self.left_out: dict[str, str] = {}
        self.population: str | None = None
        self.events: list[str] = []
        self.media: list[str] = []
        self.controls: list[str] = []
        rows = len(next(iter(self.columns.values()), ()))
        self.group = np.zeros(rows, int) if self.geo is None else pd.factorize(self.columns[self.geo])[0]

    def guess(self) -> Guess:
        for name in self.columns:
            if name in (self.time, self.geo, self.target):
                continue
            if name not in self.numbers:
                self.left_out[name] = self._text(name)
            elif reason := self._of_no_use(name):
                self.left_out[name] = reason
            elif self._is_population(name):
                self.population = name
            elif self._is_media(name):
                self.media.append(name)
            elif set(np.unique(self.numbers[name])) <= {0.0, 1.0}:
                self.events.append(name)
            else:
                self.controls.append(name)
        if not self.media:
            self._media_by_values()
        channels = tuple(self._channels())
        self._check_controls(channels)
        return Guess(
            self.time,
            self.geo,
            self.target,
            channels,
            tuple(self.controls),
            tuple(self.events),
            self.population,
            {name: self.left_out[name] for name in self.columns if name in self.left_out},
        )

    def _text(self, name: str) -> str:
        cells = self.columns[name].dropna()
        if cells.empty:
            return "empty"
        if _dates(self.columns[name]) is not None:
            return "another column of dates"
        return f"text such as {str(cells.iloc[0])[:40]!r}; code what matters of it as columns of 0 and 1"

    def _of_no_use(self, name: str) -> str | None:
        """Why a column of numbers has no part, going by its name and its values."""
        values, target = self.numbers[name], self.target or ""
        money = _has(name, (*SPENDS, *EXPOSURES))
        own = not _has(name, (*_RIVALS, *_LEVELS))
        reasons = {
            "no name": not name.strip(),
            "the same in every row": not np.ptp(values[np.isfinite(values)]) > 0,
            "row numbers": np.array_equal(values, np.arange(len(values)) + values[0]),
            "computed from other columns, by its name": _has(name, _DERIVED),
            "a model's error, by its name": _has(name, _NOISES),
            f"another {target}, by its name": target and re.fullmatch(rf"{re.escape(target)}[_ ]?[0-9]+", name),
            "an outcome like the target, by its name, and so no cause of it": own and not money and _has(name, TARGETS),
            "a total of channels, by its name": money and _has(name, _TOTALS),
            "a ratio, by its name": own and _has(name, (*_CHANNELS, *SPENDS)) and _has(name, _RATIOS),
            "part of the calendar, by its name; trend and seasonality stand for it": all(
                _matches(word, _CALENDAR) for word in words(name)
            ),
            "the same on all dates of a geo; the geo's intercept stands for it": self._within_geos(name) == 0
            and not _has(name, POPULATIONS),
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def _within_geos(self, name: str) -> float:
        """The largest range of a column within a geo."""
        values = self.numbers[name]
        known = np.isfinite(values)
        return max(float(np.ptp(values[known & (self.group == geo)])) for geo in np.unique(self.group[known]))

    def _is_population(self, name: str) -> bool:
        values = self.numbers[name]
        fits = bool(np.all(values > 0)) and self._within_geos(name) == 0
        return self.population is None and fits and _has(name, POPULATIONS) is not None

    def _is_media(self, name: str) -> bool:
        if _has(name, (*_RIVALS, *_RATIOS, *_LEVELS)):
            return False
        if _has(name, (*SPENDS, *EXPOSURES)) or _suffix(name):
            return True
        lowest = np.nanmin(self.numbers[name])
        numbered = re.fullmatch(r"(x|media|channel)[_ ]?[0-9]+", name, re.IGNORECASE)
        counts = not set(np.unique(self.numbers[name])) <= {0.0, 1.0}
        return bool(counts and lowest >= 0 and (_has(name, _CHANNELS) or numbered))

    def _media_by_values(self) -> None:
        """Where no name speaks of media: columns that are never negative and pause now and then."""
        for name in list(self.controls):
            values = self.numbers[name]
            if np.all(values >= 0) and np.mean(values == 0) >= 0.05:
                self.controls.remove(name)
                self.media.append(name)

    def _channels(self) -> Iterator[GuessedChannel]:
        """Columns of media and of money by what is left of their names."""
        groups: dict[str, dict[str, list[str]]] = {}
        names: dict[str, str] = {}
        for column in self.media:
            role = "spend" if _has(column, SPENDS) or _suffix(column) == "spend" else "media"
            rest = _stem(column)
            names.setdefault("_".join(rest).lower() or column, "_".join(rest) or column)
            group = groups.setdefault("_".join(rest).lower() or column, {"spend": [], "media": []})
            group[role].append(column)
        priced = any(group["spend"] for group in groups.values())
        for key, group in groups.items():
            measures = sorted(group["media"], key=_exposure_rank)
            money = group["spend"][:1]
            if priced and not money and _exposure_rank(measures[0]) < len(EXPOSURES):
                # Nobody paid for these: what they bring is no return on spend.
                self.controls.append(measures[0])
                measures = measures[1:]
            else:
                media = (measures or money)[0]
                plain = len(measures) + len(group["spend"]) == 1 and not _has(media, (*SPENDS, *EXPOSURES))
                name = media if plain and not _suffix(media) else names[key]
                yield GuessedChannel(name, media, money[0] if money and measures else None, _kind(media))
                measures = measures[1:]
            for other in (*measures, *group["spend"][1:]):
                self.left_out[other] = f"another measure of {names[key]}"

    def _check_controls(self, channels: Iterable[GuessedChannel]) -> None:
        taken = [column for one in channels for column in (one.media, one.spend) if column is not None]
        for name in list(self.controls):
            values = self.numbers[name]
            empty = int((~np.isfinite(values)).sum())
            twins = [other for other in taken if _correlation(values, self.numbers[other]) >= _DUPLICATE]
            if empty:
                self.left_out[name] = f"{empty:,} cells without a number; fill them and add it to controls"
            elif self._function_of_date(values):
                self.left_out[name] = "a function of the date alone; trend and seasonality stand for it"
            elif twins:
                self.left_out[name] = f"nearly the same as {twins[0]}"
            else:
                taken.append(name)
        self.controls = [name for name in self.controls if name not in self.left_out]

    def _function_of_date(self, values: np.ndarray) -> bool:
        """Whether a cubic and three yearly waves explain the column, which is the same in all geos."""
        if self.dates is None:
            return False
        days = self.dates.to_numpy().astype("datetime64[D]").astype(float)
        day, first = np.unique(days, return_index=True)
        value = values[first]
        if len(day) < _LEAST_DATES or not np.array_equal(values, value[np.searchsorted(day, days)]):
            return False
        u = 2 * (day - day[0]) / (day[-1] - day[0]) - 1
        angle = 2 * np.pi * np.outer(day, (1, 2, 3)) / 365.25
        design = np.column_stack([np.ones_like(u), u, u**2, u**3, np.sin(angle), np.cos(angle)])
        rest = value - design @ np.linalg.lstsq(design, value, rcond=None)[0]
        return bool(1 - rest.var() / value.var() >= _FUNCTION_OF_DATE)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 3 or not np.ptp(a[known]) > 0 or not np.ptp(b[known]) > 0:
        return 0.0
    return float(abs(np.corrcoef(a[known], b[known])[0, 1]))


def _suffix(name: str) -> str | None:
    """What a last letter says: tv_S is the spend of tv, and facebook_I its impressions."""
    match = re.fullmatch(r".+_([SI])", name)
    return None if match is None else {"S": "spend", "I": "media"}[match[1]]


def _stem(name: str) -> list[str]:
    """The words that name the channel rather than what is measured of it."""
    kept = [word for word in words(name) if not _matches(word, (*SPENDS, *EXPOSURES))]
    return kept[:-1] if _suffix(name) else kept


def _exposure_rank(name: str) -> int:
    word = _has(name, EXPOSURES)
    return 0 if _suffix(name) == "media" else len(EXPOSURES) if word is None else EXPOSURES.index(word)


def _kind(name: str) -> str | None:
    return next((kind for kind, known in KINDS.items() if _has(name, known)), None)
