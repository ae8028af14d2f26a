"""The settings of a media mix as a TOML file: what each key may hold, and the panel and the model that it describes."""

import difflib
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from pelton.engine.errors import ArgumentError, DataError, DataWarning, PeltonError, UnknownNameError
from pelton.engine.samplers import REGISTRY as SAMPLERS
from pelton.models import adstock as adstocks
from pelton.models import saturation as saturations
from pelton.models.baseline import TRENDS, Trend
from pelton.models.distributions import parse
from pelton.models.media_groups import EXTRA_GROUPS
from pelton.models.media_mix import BLOCKS, LIKELIHOODS, MediaMix
from pelton.models.media_model import EFFECTS
from pelton.models.panel import MISSING, Panel
from pelton.models.panel_calendar import FREQUENCIES
from pelton.models.pooling import POOLINGS

type Type = Literal["media_mix", "country_mix"]

TYPES: tuple[Type, ...] = ("media_mix", "country_mix")
PRECISIONS = ("float32", "float64")
# What a geometric window without end is called, for TOML has no word for nothing.
ENDLESS = "endless"


@dataclass(frozen=True)
class _Value:
    """What a key may hold: a test, and words for the message."""

    accepts: Callable[[Any], bool]
    words: str


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_TEXT = _Value(_is_text, 'text in quotes that is not empty, such as "sales"')
_TEXTS = _Value(_are_texts, 'a list of texts, such as ["price", "weather"]')
_TEXT_OR_TEXTS = _Value(lambda v: _is_text(v) or _are_texts(v), "text in quotes, or a list of texts")
_WHOLE = _Value(_is_whole, "a whole number, such as 4")
_NUMBER = _Value(_is_number, "a number, such as 0.95")
_FLAG = _Value(lambda v: isinstance(v, bool), "true or false")
_WINDOW = _Value(lambda v: _is_whole(v) or v == ENDLESS, f'a whole number of periods, or "{ENDLESS}"')
_CENTRING = _Value(lambda v: _is_number(v) or v == "auto", '"auto", or a number from 0 to 1')
_TREND = _Value(lambda v: _is_text(v) or isinstance(v, dict), 'text, or a table such as {name = "piecewise"}')
_POOLING = _Value(
    lambda v: _is_text(v) or (isinstance(v, dict) and all(map(_is_text, v.values()))),
    'text, or a table by block such as {adstock = "pooled", effect = "hierarchical"}',
)

_KEYS: dict[str, dict[str, _Value]] = {
    "data": {
        "time": _TEXT,
        "geo": _TEXT,
        "target": _TEXT,
        "controls": _TEXTS,
        "events": _TEXTS,
        "population": _TEXT,
        "missing": _TEXT_OR_TEXTS,
        "frequency": _TEXT,
    },
    "model": {
        "type": _TEXT,
        "pooling": _POOLING,
        "effect": _TEXT,
        "trend": _TREND,
        "seasonality": _WHOLE,
        "likelihood": _TEXT,
        "centring": _CENTRING,
    },
    "lift_tests": {"file": _TEXT},
    "sampling": {
        "sampler": _TEXT,
        "chains": _WHOLE,
        "warmup": _WHOLE,
        "draws": _WHOLE,
        "seed": _WHOLE,
        "target_accept": _NUMBER,
        "max_tree_depth": _WHOLE,
        "precision": _TEXT,
        "groups": _TEXTS,
    },
}
_CHANNEL: dict[str, _Value] = {
    "media": _TEXT,
    "spend": _TEXT,
    "kind": _TEXT,
    "adstock": _TEXT,
    "l_max": _WINDOW,
    "normalize": _FLAG,
    "saturation": _TEXT,
}
_TABLES = ("data", "channels", "model", "priors", "lift_tests", "sampling")
# What text may say, where it is a choice.
_CHOICES: dict[tuple[str, str], tuple[str, Iterable[str]]] = {
    ("data", "missing"): ("choice", MISSING),
    ("data", "frequency"): ("frequency", FREQUENCIES),
    ("model", "type"): ("type of model", TYPES),
    ("model", "effect"): ("effect", EFFECTS),
    ("model", "likelihood"): ("likelihood", LIKELIHOODS),
    ("channels", "kind"): ("kind of channel", adstocks.KINDS),
    ("channels", "adstock"): ("adstock", adstocks.ADSTOCKS),
    ("channels", "saturation"): ("saturation", saturations.SATURATIONS),
    ("sampling", "sampler"): ("sampler", SAMPLERS),
    ("sampling", "precision"): ("precision", PRECISIONS),
    ("sampling", "groups"): ("group", EXTRA_GROUPS),
}


@dataclass(frozen=True)
class ChannelSettings:
    """One [channels.NAME] table; None where a key is left out.

    Attributes:
        name: of the channel.
        media: column that drives the model.
        spend: column of money, where it is another.
        kind: search, social, display, video, audio, out_of_home or print: a preset of window and prior.
        adstock, l_max, normalize, saturation: the forms.
    """

    name: str
    media: str
    spend: str | None = None
    kind: str | None = None
    adstock: str | None = None
    l_max: int | str | None = None
    normalize: bool | None = None
    saturation: str | None = None

    @property
    def forms(self) -> tuple[str, ...]:
        """The keys that choose forms or priors and stand in the file."""
        keys = ("kind", "adstock", "l_max", "normalize", "saturation")
        return tuple(key for key in keys if getattr(self, key) is not None)

    def adstock_object(self) -> adstocks.Adstock:
        """The adstock; its kind gives the window, unless l_max does, and to a geometric one the prior."""
        name = self.adstock or adstocks.Geometric.name
        settings: dict[str, Any] = {}
        if self.kind is not None:
            preset = adstocks.KINDS[self.kind]
            settings["l_max"] = preset.l_max
            if name == adstocks.Geometric.name:
                settings["alpha"] = preset.alpha
        if self.l_max is not None:
            settings["l_max"] = None if self.l_max == ENDLESS else self.l_max
        if self.normalize is not None:
            settings["normalize"] = self.normalize
        return adstocks.from_name(name, **settings)

    def saturation_object(self) -> saturations.Saturation:
        """The saturation; Hill where none is named, with the priors of its kind."""
        name = self.saturation or saturations.Hill.name
        if self.kind is not None and name == saturations.Hill.name:
            return saturations.for_kind(self.kind)
        return saturations.from_name(name)


@dataclass(frozen=True)
class Config:
    """A media mix as a TOML file describes it; `read_config` makes one.

    Attributes:
        file: where it stands, for messages and for files named in it.
        text: of the file.
        data: columns and choices of [data].
        channels: in the order of the file.
        type: media_mix or country_mix.
        options: of [model], the type apart.
        priors: texts by name.
        lift_file: table of experiments, or None.
        sampling: settings of `pelton.sample`.
    """

    file: Path
    text: str = field(repr=False)
    data: Mapping[str, Any]
    channels: tuple[ChannelSettings, ...]
    type: Type
    options: Mapping[str, Any]
    priors: Mapping[str, str]
    lift_file: str | None
    sampling: Mapping[str, Any]

    @property
    def numbers(self) -> dict[str, str]:
        """Columns of numbers: column -> the key that names it."""
        found = {self.data["target"]: "[data] target"}
        for channel in self.channels:
            found.setdefault(channel.media, f"{_table(channel.name)} media")
            if channel.spend is not None:
                found.setdefault(channel.spend, f"{_table(channel.name)} spend")
        for key in ("controls", "events"):
            for column in self.data.get(key, ()):
                found.setdefault(column, f"[data] {key}")
        if "population" in self.data:
            found.setdefault(self.data["population"], "[data] population")
        return found

    @property
    def labels(self) -> dict[str, str]:
        """Columns of dates and geos: column -> the key that names it."""
        return {self.data[key]: f"[data] {key}" for key in ("time", "geo") if key in self.data}

    def check_columns(self, known: Sequence[str]) -> None:
        """Every column that the file names is among those of the table.

        Raises:
            UnknownNameError: one is not; the message says which key names it and lists the nearest columns.
        """
        for column, where in {**self.labels, **self.numbers}.items():
            if column not in known:
                raise UnknownNameError(f"column at {where} of {str(self.file)!r}:", column, map(str, known))

    def panel(self, frame: pd.DataFrame) -> Panel:
        """The panel of a table.

        Raises:
            UnknownNameError, ArgumentError, DataError: as for `Panel.from_frame`.
        """
        self.check_columns([str(name) for name in frame.columns])
        chosen = dict(self.data)
        money = None
        if any(channel.spend is not None for channel in self.channels):
            money = {channel.name: channel.spend or channel.media for channel in self.channels}
        return Panel.from_frame(
            frame,
            media=[channel.media for channel in self.channels],
            channels=[channel.name for channel in self.channels],
            spend=money,
            **chosen,
        )

    def model(self, panel: Panel, type: Type | None = None) -> Any:
        """The model of a panel that `panel` has read.

        Args:
            panel: the data.
            type: instead of the file's own.

        Returns:
            A MediaMix or a country mix.

        Raises:
            UnknownNameError, ArgumentError, DataError: as for `MediaMix` and `country_mix`.

        Warns:
            DataWarning: settings that the country mix has no use for; presets by week for other periods.
        """
        if (type or self.type) == "country_mix":
            from pelton.models.countries import country_mix

            unused = self.media_mix_settings
            if unused:
                warnings.warn(
                    f"the country mix has its own adstock, saturation and priors, so that these settings of "
                    f"{str(self.file)!r} do not apply: {', '.join(unused)}",
                    DataWarning,
                    stacklevel=2,
                )
            return country_mix(panel)
        kinds = [channel.name for channel in self.channels if channel.kind is not None]
        if kinds and panel.period != "week":
            warnings.warn(
                f"the kinds in {str(self.file)!r} set windows and priors for weeks, but the table has {panel.period}s: "
                f"leave out the kind of {', '.join(map(repr, kinds))}, and give l_max and [priors] in {panel.period}s",
                DataWarning,
                stacklevel=2,
            )
        options = dict(self.options)
        trend = options.pop("trend", None)
        return MediaMix(
            panel,
            adstock={channel.name: channel.adstock_object() for channel in self.channels},
            saturation={channel.name: channel.saturation_object() for channel in self.channels},
            trend=_trend(trend),
            priors=self.priors,
            lift_tests=self._lift_tests(),
            **options,
        )

    @property
    def media_mix_settings(self) -> tuple[str, ...]:
        """The keys in use that only a media mix understands."""
        found = [f"{_table(channel.name)} {key}" for channel in self.channels for key in channel.forms]
        found += [f"[model] {key}" for key in self.options]
        found += [f"[priors] {name}" for name in self.priors]
        return tuple(found + (["[lift_tests] file"] if self.lift_file else []))

    def _lift_tests(self) -> pd.DataFrame | None:
        if self.lift_file is None:
            return None
        path = self.file.parent / self.lift_file
        where = f"[lift_tests] file of {str(self.file)!r}: {str(path)!r}"
        try:
            # As text, so that the country NA stays a name; the numbers are read and checked by the model.
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
        except FileNotFoundError:
            raise DataError(f"{where} does not exist; a relative name is looked for beside the config") from None
        except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise DataError(f"{where} cannot be read as CSV: {str(error).splitlines()[0]}") from None
        if "geo" in frame.columns:
            frame["geo"] = [name if name.strip() else None for name in frame["geo"]]
        return frame


def read_config(path: str | Path) -> Config:
    """Reads and checks a config.

    Tables: [data] time, geo, target, controls, events, population, missing, frequency; [channels.NAME] media, spend,
    kind, adstock, l_max, normalize, saturation; [model] type, pooling, effect, trend, seasonality, likelihood,
    centring; [priors] NAME = "Beta(1, 3)"; [lift_tests] file; [sampling] sampler, chains, warmup, draws, seed,
    target_accept, max_tree_depth, precision, groups. [data] time and target and one channel are needed; all else has a
    default.

    Args:
        path: of a TOML file.

    Raises:
        UnknownNameError: a table, key or choice that does not exist; the message lists the nearest and says where.
        ArgumentError: the file cannot be read, is no TOML, lacks something, or a value is of the wrong type.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "mix.toml"
    >>> _ = file.write_text('[data]\\ntime = "week"\\ntarget = "sales"\\n[channels.tv]\\nkind = "video"\\n')
    >>> config = read_config(file)
    >>> config.channels[0].media, config.channels[0].adstock_object().l_max
    ('tv', 14)
    """
    path = Path(path)
    return parse_config(_text_of(path), path)


def parse_config(text: str, path: Path) -> Config:
    """The config of a text, which `path` names in messages; files named in it are looked for beside that.

    Raises:
        UnknownNameError, ArgumentError: as for `read_config`.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        hint = "; text stands in quotes" if "value" in str(error) else ""
        raise ArgumentError(f"{str(path)!r} is no valid TOML: {error}{hint}") from None
    reader = _Reader(str(path))
    reader.known_keys("table", tables, _TABLES)
    for name, value in tables.items():
        if not isinstance(value, dict):
            raise ArgumentError(f"{str(path)!r}: {name} is {_shown(value)}; it must be a table, begun by [{name}]")
    parts = {name: reader.table(name, tables.get(name, {}), _KEYS[name]) for name in _KEYS}
    for key in ("time", "target"):
        if key not in parts["data"]:
            raise ArgumentError(f"{str(path)!r}: [data] lacks {key}, the column of {_NEEDED[key]}")
    model = dict(parts["model"])
    kind = model.pop("type", "media_mix")
    return Config(
        file=path,
        text=text,
        data=parts["data"],
        channels=tuple(reader.channels(tables.get("channels", {}))),
        type=kind,
        options=reader.options(model),
        priors=reader.priors(tables.get("priors", {})),
        lift_file=parts["lift_tests"].get("file"),
        sampling=parts["sampling"],
    )


_NEEDED = {"time": "dates", "target": "what the media are to explain"}


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        folder = path.parent
        names = [entry.name for entry in folder.glob("*.toml")] if folder.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=2, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(str(folder / name)) for name in near)}?" if near else ""
        raise ArgumentError(
            f"there is no config {str(path)!r}{hint}; `pelton init media-mix DATA --out {path.name}` writes one"
        ) from None
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{str(path)!r} is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArgumentError(f"the config {str(path)!r} cannot be read: {reason}") from None


def _trend(value: Any) -> Trend | None:
    if value is None or value == "none":
        return None
    settings = {"name": value} if isinstance(value, str) else dict(value)
    return TRENDS[settings.pop("name")](**settings)


def _table(channel: str) -> str:
    return f"[channels.{channel}]"


def _shown(value: Any) -> str:
    """A value as TOML has it, and what that is."""
    if isinstance(value, bool):
        return f"{str(value).lower()}, a truth value"
    kinds = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "a table"}
    kind = next((name for of, name in kinds.items() if isinstance(value, of)), "a date or time")
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'}, {kind}"


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Begins the message of an error with where it arose."""
    try:
        yield
    except PeltonError as error:
        error.args = (f"{where}: {error}",)
        raise


@dataclass(frozen=True)
class _Reader:
    """Checks the tables of one file, which its messages name."""

    file: str

    def known_keys(self, what: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
        for name in given:
            if name not in known:
                raise UnknownNameError(f"{what} in {self.file!r}:", name, known)

    def table(
        self, name: str, given: Mapping[str, Any], keys: Mapping[str, _Value], channel: str = ""
    ) -> dict[str, Any]:
        """A table's values, each of its type and, where it is a choice, one of the known."""
        where = _table(channel) if channel else f"[{name}]"
        self.known_keys(f"key of {where}", given, keys)
        for key, value in given.items():
            if not keys[key].accepts(value):
                raise self.wrong(f"{where} {key}", value, keys[key].words)
            if (name, key) in _CHOICES:
                kind, known = _CHOICES[name, key]
                for text in [value] if isinstance(value, str) else value:
                    self.one_of(f"{kind} at {where} {key}", text, known)
        return dict(given)

    def wrong(self, where: str, value: Any, words: str) -> ArgumentError:
        return ArgumentError(f"{self.file!r}: {where} is {_shown(value)}; it must be {words}")

    def one_of(self, what: str, value: str, known: Iterable[str]) -> None:
        if value not in known:
            raise UnknownNameError(f"{what} of {self.file!r}:", value, known)

    def channels(self, given: Mapping[str, Any]) -> Iterator[ChannelSettings]:
        if not given:
            raise ArgumentError(
                f'{self.file!r}: there is no channel; add a table such as [channels.tv] with media = "tv_spend"'
            )
        for name, table in given.items():
            if not isinstance(table, dict):
                raise self.wrong(f"[channels] {name}", table, f"a table, begun by {_table(name)}")
            values: dict[str, Any] = {"media": name} | self.table("channels", table, _CHANNEL, channel=name)
            channel = ChannelSettings(name, **values)
            with _placed(f"{self.file!r}: {_table(name)}"):
                channel.adstock_object()
            yield channel

    def options(self, given: dict[str, Any]) -> dict[str, Any]:
        pooling, trend = given.get("pooling"), given.get("trend")
        if isinstance(pooling, dict):
            self.known_keys("block at [model] pooling", pooling, BLOCKS)
        for kind in pooling.values() if isinstance(pooling, dict) else [] if pooling is None else [pooling]:
            self.one_of("pooling at [model] pooling", kind, POOLINGS)
        if isinstance(trend, dict):
            if not isinstance(trend.get("name"), str):
                raise self.wrong("[model] trend", trend, 'a table with a name, such as {name = "piecewise"}')
            self.one_of("trend at [model] trend", trend["name"], TRENDS)
            kind: Any = TRENDS[trend["name"]]
            known = ["name", *(one.name for one in fields(kind))]
            self.known_keys("key of [model] trend", trend, known)
            for one in fields(kind):
                if not _WHOLE.accepts(trend.get(one.name, one.default)):
                    raise self.wrong(f"[model] trend {one.name}", trend[one.name], _WHOLE.words)
        elif trend is not None:
            self.one_of("trend at [model] trend", trend, ["none", *TRENDS])
        with _placed(f"{self.file!r}: [model] trend"):
            _trend(trend)
        return given

    def priors(self, given: Mapping[str, Any]) -> dict[str, str]:
        for name, value in given.items():
            if not _is_text(value):
                raise self.wrong(f"[priors] {name}", value, 'a distribution in quotes, such as "Beta(1, 3)"')
            with _placed(f"{self.file!r}: [priors] {name}"):
                parse(value)
        return dict(given)
