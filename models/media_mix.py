"""MediaMix: the effect of media on a target over geos and weeks, with carryover, saturation and partial pooling."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpyro.distributions as dist
import xarray as xr

from pelton.engine.errors import ArgumentError, DataError, UnknownNameError
from pelton.engine.posterior import Posterior
from pelton.engine.sources.numpyro import from_numpyro
from pelton.models import media_model
from pelton.models.adstock import Adstock, Geometric
from pelton.models.baseline import Baseline, Trend, as_trend
from pelton.models.centring import centring_shares
from pelton.models.distributions import bounds, parse, scalar, to_text
from pelton.models.lift_tests import LiftTests
from pelton.models.media_groups import EXTRA_GROUPS, add_group
from pelton.models.media_model import EFFECTS, Group, Structure
from pelton.models.panel import Panel
from pelton.models.pooling import POOLINGS, Parameter, Pooling, middle_and_spread
from pelton.models.saturation import Hill, Saturation

BLOCKS = ("adstock", "saturation", "effect", "baseline")
LIKELIHOODS = ("normal", "student_t")
# Between-geo spreads are known badly where geos are few; the funnel they make wants small steps of samplers that take
# the same everywhere.
TARGET_ACCEPT = 0.98

# Default priors of the effect, by what it is: of a typical geo, and the scale of the between-geo sd of its logarithm.
_EFFECT_PRIORS: dict[str, tuple[dist.Distribution, float]] = {
    "contribution": (dist.LogNormal(float(np.log(0.05)), 1.0), 0.5),
    "coefficient": (dist.LogNormal(float(np.log(0.1)), 1.0), 0.5),
    "roi": (dist.LogNormal(0.2, 0.9), 0.5),
}


@dataclass(frozen=True, eq=False)
class MediaMix:
    """A media mix model of a panel: what each channel brought, by geo and week.

        y[g,t] ~ Normal(mu[g,t], sigma[g])  (or Student-t)
        mu[g,t] = baseline[g,t] + sum_c coef[g,c] saturation_c(adstock_c(media[g,:,c]))[t]
        baseline[g,t] = intercept[g] + trend + yearly seasonality + controls + events

    Media and target are scaled within (`panel.media_scale`, `panel.target_scale`) and every result is scaled back: in
    the tree half-saturations are in units of media, coefficients in units of the target.

    Each block of parameters is `hierarchical` (a geo's values are drawn from a population, on the log or logit scale,
    so that little data lean on the others), `pooled` (one value for all geos) or `unpooled` (each geo by itself). With
    one geo all are one and the same.

    Args:
        panel: the data.
        pooling: for all blocks, or by block: adstock, saturation, effect, baseline.
        adstock: an object of `pelton.adstock` for all channels, or by channel (those not named: geometric).
        saturation: an object of `pelton.saturation`, or by channel (those not named: Hill).
        effect: what carries the prior and is pooled: "contribution", a channel's share of the mean target in a steady
            typical active week; "coefficient", its share at full saturation; or "roi", target per unit of spend over
            the panel, from which the coefficient is solved, as Meridian does (where the panel has no spend apart, media
            are taken as money).
        trend: None, "linear", "piecewise", "gp", or an object of `pelton.models.baseline`.
        seasonality: order of the yearly Fourier terms; 0 is none.
        likelihood: "normal" or "student_t".
        priors: NumPyro distributions (or texts such as "HalfNormal(0.3)") by name: a media parameter ("alpha",
            "half_saturation" ...), the effect ("contribution" ...), intercept, trend, seasonality, control, event,
            sigma (these in units of the geo's mean target), nu; with "_sd" for the between-geo standard
            deviation on the log (logit) scale; with "[column]" for one channel, control or event alone.
        lift_tests: a table of experiments, see `LiftTests`.
        centring: "auto", or one number from 0 (not centred) to 1 (centred) for all hierarchical parameters.

    Raises:
        UnknownNameError: a name of a channel, prior, block or option is not known; the message gives the nearest.
        DataError: a geo has fewer weeks than an adstock's window.
        ArgumentError: options out of range.

    Source: Jin et al. 2017; Sun et al. 2017 for the hierarchy over geos.

    >>> import pelton
    >>> data = pelton.simulate_media(geos=2, weeks=40, channels=2)
    >>> panel = pelton.Panel.from_frame(data.frame, **data.columns)
    >>> MediaMix(panel, trend="linear", priors={"contribution": "LogNormal(-3.0, 0.5)"})
    MediaMix(2 geos, 2 channels, 40 dates, hierarchical)
    """

    panel: Panel
    structure: Structure
    base: Baseline
    pooling: Mapping[str, Pooling]
    likelihood: str
    lift_tests: LiftTests | None
    centring: float | str

    def __init__(
        self,
        panel: Panel,
        *,
        pooling: str | Mapping[str, str] = "hierarchical",
        adstock: Any = None,
        saturation: Any = None,
        effect: str = "contribution",
        trend: str | Trend | None = None,
        seasonality: int = 0,
        likelihood: str = "normal",
        priors: Mapping[str, Any] | None = None,
        lift_tests: Any = None,
        centring: float | str = "auto",
    ):
        if not isinstance(panel, Panel):
            raise ArgumentError(f"MediaMix takes a Panel, not {type(panel).__name__}; see pelton.Panel.from_frame")
        if effect not in EFFECTS:
            raise UnknownNameError("effect", str(effect), EFFECTS)
        if likelihood not in LIKELIHOODS:
            raise UnknownNameError("likelihood", str(likelihood), LIKELIHOODS)
        if centring != "auto" and not (isinstance(centring, int | float) and 0 <= centring <= 1):
            raise ArgumentError(f"centring is 'auto' or a number from 0 to 1, not {centring!r}")
        chosen = _blocks(pooling, len(panel.geos))
        stocks = _by_channel(adstock, panel.channels, Adstock, Geometric(), "adstock")
        curves = _by_channel(saturation, panel.channels, Saturation, Hill(), "saturation")
        _check_weeks(panel, stocks)
        base = Baseline.of(panel, as_trend(trend), seasonality)
        table = _Priors(priors)
        structure = _structure(panel, chosen, stocks, curves, effect, base, as_trend(trend), likelihood, table)
        table.check_all_used()
        tests = None if lift_tests is None else LiftTests.from_frame(lift_tests, panel)
        for name, value in (
            ("panel", panel),
            ("structure", structure),
            ("base", base),
            ("pooling", chosen),
            ("likelihood", likelihood),
            ("lift_tests", tests),
            ("centring", centring),
        ):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        panel = self.panel
        blocks = set(self.pooling.values())
        pooling = blocks.pop() if len(blocks) == 1 else ", ".join(f"{k} {v}" for k, v in self.pooling.items())
        return f"MediaMix({len(panel.geos)} geos, {len(panel.channels)} channels, {len(panel.dates)} dates, {pooling})"

    @property
    def extra_groups(self) -> tuple[str, ...]:
        """Groups of the tree that `pelton.sample(..., groups=)` may ask for."""
        return EXTRA_GROUPS

    @property
    def priors(self) -> dict[str, str]:
        """Every prior in use, as text, by the name that replaces it."""
        found = {}
        for parameter in self.structure.parameters:
            kinds = [("", parameter.priors)]
            kinds += [("_sd", parameter.sd_priors)] if parameter.pooling == "hierarchical" else []
            for suffix, distributions in kinds:
                texts = [to_text(one) for one in distributions]
                if len(set(texts)) == 1:
                    found[parameter.name + suffix] = texts[0]
                else:
                    pairs = zip(parameter.columns, texts, strict=True)
                    found |= {f"{parameter.name}{suffix}[{column}]": text for column, text in pairs}
        return found

    @cached_property
    def data(self) -> dict[str, Any]:
        """What the NumPyro model takes beside its structure: arrays alone."""
        panel, structure = self.panel, self.structure
        scaled = panel.media / panel.media_scale[:, None]
        spent = panel.spend.sum(axis=1)
        media_total = panel.media.sum(axis=1)
        # The price of a unit of media: the geo's own, or the channel's over all geos where the geo bought none.
        overall = spent.sum(axis=0) / np.maximum(media_total.sum(axis=0), np.finfo(float).tiny)
        price = np.where(media_total > 0, spent / np.where(media_total > 0, media_total, 1.0), overall)
        target_scale = panel.target_scale[:, None]
        groups = [np.array(group.channels) for group in structure.groups]
        everything = [*structure.parameters]
        sds = [
            replace(one, name=f"{one.name}_sd", priors=one.sd_priors)
            for one in everything
            if one.pooling == "hierarchical"
        ]
        deviations = self.base.design[..., list(structure.collapsed_terms)] * panel.observed[..., None]
        data: dict[str, Any] = {
            "media": [scaled[..., columns] for columns in groups],
            "media_scale": [panel.media_scale[:, columns] for columns in groups],
            "target": np.where(panel.observed, panel.target, 0.0) / target_scale,
            "observed": np.asarray(panel.observed),
            "inside": np.asarray(panel.inside),
            "target_scale": np.asarray(panel.target_scale),
            "design": self.base.design,
            "deviations": deviations,
            "gram": np.einsum("gtk,gtl->gkl", deviations, deviations),
            "count": panel.observed.sum(axis=1).astype(float),
            "spent": [(spent / target_scale)[:, columns] for columns in groups],
            "typical_spend": [(price * panel.media_scale / target_scale)[:, columns] for columns in groups],
            "lift": [
                None if self.lift_tests is None else self.lift_tests.of_channels(group.channels, panel)
                for group in structure.groups
            ],
            "start": middle_and_spread([*everything, *sds]),
            "centring": {},
        }
        return data | {"centring": self._centring(data)}

    def _centring(self, data: dict[str, Any]) -> dict[str, np.ndarray]:
        structure = self.structure
        everything = [one for one in structure.parameters if one not in structure.collapsed]
        hierarchical = [one for one in everything if one.pooling == "hierarchical"]
        shape = {one.name: (len(self.panel.geos), len(one.columns)) for one in hierarchical}
        if self.centring != "auto":
            return {name: np.full(size, float(self.centring)) for name, size in shape.items()}
        return centring_shares(structure, data) if hierarchical else {}

    def posterior(self) -> Posterior:
        """The log density, and what the tree is to hold beside the draws."""
        structure, panel = self.structure, self.panel
        built = from_numpyro(
            media_model.media_mix,
            structure,
            self.data,
            start=media_model.start,
            keep=self._kept(),
        )
        return replace(
            built,
            dims=self._dims(),
            coords=self._coords(),
            observed={"target": np.where(panel.observed, panel.target, np.nan)},
            constant=self._constant(),
            target_accept=TARGET_ACCEPT,
            attrs={"model": repr(self), "media_mix": json.dumps(self.describe()), "priors": json.dumps(self.priors)},
        )

    def describe(self) -> dict[str, Any]:
        """The form of the model as plain data: with the draws and the panel all that attribution needs."""
        panel, structure = self.panel, self.structure
        channels: dict[int, dict[str, Any]] = {}
        for group in structure.groups:
            for channel in group.channels:
                channels[channel] = {
                    "name": panel.channels[channel],
                    "adstock": group.adstock.describe()
                    | {"parameters": {name: name for name in group.adstock.parameters}},
                    "saturation": group.saturation.describe()
                    | {"parameters": {name: name for name in group.saturation.parameters}},
                    "coef": "coef",
                }
        shares = {name: round(float(share.mean()), 3) for name, share in self.data["centring"].items()}
        return {
            "kind": "media_mix",
            "target": panel.target_name,
            "time": panel.time_name,
            "geo": panel.geo_name,
            "frequency": panel.frequency,
            "period_days": panel.period_days,
            "has_spend": panel.has_spend,
            "likelihood": self.likelihood,
            "pooling": dict(self.pooling),
            "effect": structure.effect.name,
            "trend": None if structure.trend is None else structure.trend.name,
            "centring": shares,
            "channels": [channels[index] for index in range(len(channels))],
        }

    def _kept(self) -> list[str]:
        structure = self.structure
        names = [parameter.name for parameter in structure.media]
        names += [] if structure.effect.name == "coefficient" else [structure.effect.name]
        names += ["coef", "baseline_coefficient", "sigma"]
        names += [] if structure.nu is None else ["nu"]
        for parameter in (*structure.media, structure.effect, *structure.baseline):
            names += parameter.recorded
        return names + ([] if structure.trend is None else list(structure.trend.hyperparameters))

    def _dims(self) -> dict[str, tuple[str, ...]]:
        structure = self.structure
        dims: dict[str, tuple[str, ...]] = {
            "coef": ("geo", "channel"),
            "baseline_coefficient": ("geo", "term"),
            "sigma": ("geo",),
            "nu": (),
            "target": ("geo", "time"),
            "media": ("geo", "time", "channel"),
            "spend": ("geo", "time", "channel"),
            "inside": ("geo", "time"),
            "baseline_design": ("geo", "time", "term"),
            "baseline_part": ("term",),
            "target_scale": ("geo",),
            "media_scale": ("geo", "channel"),
            "controls": ("geo", "time", "control"),
        }
        for parameter in (*structure.media, structure.effect, *structure.baseline):
            column = self._column_dim(parameter)
            dims.setdefault(parameter.name, ("geo", column))
            dims |= dict.fromkeys(parameter.recorded, (column,))
        if structure.trend is not None:
            dims |= dict.fromkeys(structure.trend.hyperparameters, ())
        return {name: dims[name] for name in dims if name in {*self._kept(), "target", *self._constant()}}

    def _column_dim(self, parameter: Parameter) -> str:
        if parameter in self.structure.baseline:
            return f"{parameter.name}_term"
        return "channel" if parameter.columns == self.panel.channels else f"{parameter.name}_channel"

    def _coords(self) -> dict[str, Any]:
        panel = self.panel
        coords: dict[str, Any] = {
            "geo": np.array(panel.geos, dtype=str),
            "time": panel.dates.astype("datetime64[ns]"),
            "channel": np.array(panel.channels, dtype=str),
            "term": np.array(self.base.terms, dtype=str),
        }
        if panel.control_names:
            coords["control"] = np.array(panel.control_names, dtype=str)
        for parameter in (*self.structure.media, *self.structure.baseline):
            coords[self._column_dim(parameter)] = np.array(parameter.columns, dtype=str)
        return coords

    def _constant(self) -> dict[str, np.ndarray]:
        panel = self.panel
        values = {
            "media": panel.media,
            "spend": panel.spend,
            "inside": np.asarray(panel.inside).astype(np.int8),
            "baseline_design": self.base.design,
            "baseline_part": np.array(self.base.kinds, dtype=str),
            "target_scale": np.asarray(panel.target_scale),
            "media_scale": np.asarray(panel.media_scale),
        }
        return values | ({"controls": panel.controls} if panel.control_names else {})

    def finish(self, tree: xr.DataTree, *, seed: int, groups: Sequence[str] = ()) -> xr.DataTree:
        """Adds the groups asked for."""
        for name in groups:
            add_group(tree, name, self, seed)
        return tree


class _Priors:
    """The user's priors by name, and which of them found their parameter."""

    def __init__(self, priors: Mapping[str, Any] | None):
        texts = {name: parse(value) if isinstance(value, str) else value for name, value in (priors or {}).items()}
        self.given = {name: scalar(value, f"the prior {name!r}") for name, value in texts.items()}
        self.known: list[str] = []

    def choose(self, name: str, columns: Sequence[str], default: Sequence[dist.Distribution]) -> tuple[Any, ...]:
        """The prior of each column: its own if given, else the parameter's if given, else the default.

        Raises:
            ArgumentError: a given prior reaches beyond the support of the default.
        """
        self.known += [name, *(f"{name}[{column}]" for column in columns)]
        return tuple(self._chosen(name, column, one) for column, one in zip(columns, default, strict=True))

    def _chosen(self, name: str, column: str, default: dist.Distribution) -> dist.Distribution:
        key = f"{name}[{column}]" if f"{name}[{column}]" in self.given else name
        if key not in self.given:
            return default
        prior = self.given[key]
        (lower, upper), (least, most) = bounds(prior, f"the prior {key!r}"), bounds(default, name)
        if lower < least or upper > most:
            wanted = "is positive" if np.isinf(most) else f"lies within {least:g} and {most:g}"
            raise ArgumentError(
                f"the prior {key!r}, {to_text(prior)}, reaches from {lower:g} to {upper:g}, but {name} {wanted}; "
                f"its default is {to_text(default)}"
            )
        return prior

    def check_all_used(self) -> None:
        for name in self.given:
            if name not in self.known:
                raise UnknownNameError("prior", name, self.known)


def _blocks(pooling: Any, geos: int) -> dict[str, Any]:
    given: dict[str, Any] = dict(pooling) if isinstance(pooling, Mapping) else dict.fromkeys(BLOCKS, pooling)
    for block, kind in given.items():
        if block not in BLOCKS:
            raise UnknownNameError("block of parameters", str(block), BLOCKS)
        if kind not in POOLINGS:
            raise UnknownNameError("pooling", str(kind), POOLINGS)
    # One geo has nothing to be pooled with.
    return {block: "pooled" if geos == 1 else given.get(block, "hierarchical") for block in BLOCKS}


def _by_channel(given: Any, channels: Sequence[str], kind: type, default: Any, what: str) -> list[Any]:
    if given is None or isinstance(given, kind):
        return [default if given is None else given] * len(channels)
    if not isinstance(given, Mapping):
        raise ArgumentError(f"{what} is an object of pelton.{what} or a mapping from channels to such, not {given!r}")
    for name, value in given.items():
        if name not in channels:
            raise UnknownNameError("channel", str(name), channels)
        if not isinstance(value, kind):
            raise ArgumentError(f"the {what} of channel {name!r} is an object of pelton.{what}, not {value!r}")
    return [given.get(name, default) for name in channels]


def _check_weeks(panel: Panel, stocks: Sequence[Adstock]) -> None:
    for channel, stock in zip(panel.channels, stocks, strict=True):
        for geo, weeks in zip(panel.geos, panel.weeks, strict=True):
            if stock.l_max is not None and 0 < weeks < stock.l_max:
                raise DataError(
                    f"geo {geo!r} has {weeks} dates, fewer than the adstock window of channel {channel!r} "
                    f"(l_max = {stock.l_max}); lower l_max, or leave the geo out"
                )


def _structure(
    panel: Panel,
    pooling: Mapping[str, Pooling],
    stocks: Sequence[Adstock],
    curves: Sequence[Saturation],
    effect: str,
    base: Baseline,
    trend: Trend | None,
    likelihood: str,
    table: _Priors,
) -> Structure:
    members: dict[tuple[Adstock, Saturation], list[int]] = {}
    for channel, key in enumerate(zip(stocks, curves, strict=True)):
        members.setdefault(_same_form(*key), []).append(channel)
    # Channels whose forms agree are computed together; their priors may still differ.
    groups = tuple(Group(stocks[found[0]], curves[found[0]], tuple(found)) for found in members.values())
    media = []
    for block, objects in (("adstock", stocks), ("saturation", curves)):
        for name in dict.fromkeys(name for one in objects for name in one.parameters):
            having = [i for i, one in enumerate(objects) if name in one.parameters]
            columns = tuple(panel.channels[i] for i in having)
            defaults = [objects[i].parameters[name] for i in having]
            sds = [dist.HalfNormal(objects[i].sds[name]) for i in having]
            media.append(_parameter(name, columns, defaults, sds, pooling[block], table))
    prior, sd = _EFFECT_PRIORS[effect]
    size = len(panel.channels)
    carried = _parameter(effect, panel.channels, [prior] * size, [dist.HalfNormal(sd)] * size, pooling["effect"], table)
    baseline = [
        _parameter(
            part.name,
            part.terms,
            [part.prior] * len(part.terms),
            [dist.HalfNormal(part.sd)] * len(part.terms),
            pooling["baseline"],
            table,
        )
        for part in base.parts
    ]
    sigma = _parameter("sigma", ("sigma",), [dist.HalfNormal(0.5)], [], "unpooled", table)
    nu = None
    if likelihood == "student_t":
        nu = _parameter("nu", ("nu",), [dist.Gamma(2.0, 0.1)], [], "pooled", table)
    return Structure(
        channels=tuple(panel.channels),
        groups=groups,
        media=tuple(media),
        effect=carried,
        baseline=tuple(baseline),
        trend=trend,
        sigma=sigma,
        nu=nu,
        geos=len(panel.geos),
    )


def _same_form(adstock: Adstock, saturation: Saturation) -> Any:
    return json.dumps([adstock.describe(), saturation.describe()], sort_keys=True)


def _parameter(
    name: str,
    columns: tuple[str, ...],
    defaults: Sequence[dist.Distribution],
    sds: Sequence[dist.Distribution],
    pooling: Pooling,
    table: _Priors,
) -> Parameter:
    priors = table.choose(name, columns, defaults)
    sd_priors = table.choose(f"{name}_sd", columns, sds) if sds else ()
    return Parameter(name, tuple(columns), priors, sd_priors, pooling)
