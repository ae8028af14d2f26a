"""What the pictures, tables and sentences of a media mix share: the tree's figures, each worked out once."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.arguments import central
from pelton.engine.diagnostics import table
from pelton.engine.precision import using
from pelton.models import adstock as adstocks
from pelton.models.attribution import (
    Fit,
    contribution_draws,
    contribution_table,
    contributions,
    fit,
    response_curves,
    roas_table,
)
from pelton.models.media_checks import media_shrinkage
from pelton.models.response import Response

PROBABILITY = 0.94
CURVE_POINTS = 41
# Carryover without end is drawn until 97% of an effect have happened, half a year at most.
DRAWN_SHARE, LONGEST = 0.97, 26


class Carryover(NamedTuple):
    """How one channel's effect is spread over the weeks after the spend.

    Attributes:
        geos: the mean of the weights over draws [geo, lag]; the weights of a geo sum to 1.
        mean, low, high: of the typical geo's weights [lag].
        half_life: of each geo, periods until half of the effect has happened: mean, low, high [geo, 3].
        typical_half_life: of the typical geo [3].
        typical: what the typical geo is: "typical geo", "mean of the geos" or "" where all geos are one and the same.
    """

    geos: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    half_life: np.ndarray
    typical_half_life: np.ndarray
    typical: str


class Learnt(NamedTuple):
    """A parameter of one channel before and after the data: median, low and high of each."""

    parameter: str
    channel: str
    prior: tuple[float, float, float]
    posterior: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Media:
    """The figures of a fit, from its tree.

    Attributes:
        tree: of MediaMix or country_mix.
        known: its response.
    """

    tree: xr.DataTree
    known: Response

    @classmethod
    def of(cls, tree: "xr.DataTree | Media") -> "Media":
        """Reads a tree.

        Raises:
            DataError: it is not one of a media mix.
        """
        return tree if isinstance(tree, Media) else cls(tree, Response.of(tree))

    @property
    def geos(self) -> tuple[str, ...]:
        return self.known.geos

    @property
    def channels(self) -> tuple[str, ...]:
        return self.known.channels

    @property
    def target(self) -> str:
        """What the target is called."""
        return str(self.known.settings.get("target", "target"))

    @property
    def period(self) -> str:
        """What a row of the data is: day, week or month."""
        days = float(self.known.settings["period_days"])
        return "day" if days < 2 else "week" if days < 14 else "month"

    @cached_property
    def returns(self) -> pd.DataFrame:
        """Of `attribution.roas_table`."""
        return roas_table(self.known, probability=PROBABILITY)

    def by_cell(self, column: str) -> np.ndarray:
        """A column of the returns [1 + geo, channel], all geos together first."""
        return self._by_geo(self.returns, column)

    @cached_property
    def totals(self) -> pd.DataFrame:
        """Of `attribution.contribution_table`."""
        return contribution_table(self.known, PROBABILITY)

    def by_component(self, column: str) -> np.ndarray:
        """A column of the totals [1 + geo, component], all geos together first."""
        return self._by_geo(self.totals, column)

    def _by_geo(self, table: pd.DataFrame, column: str) -> np.ndarray:
        # The table of one geo that is all there is has its rows once.
        rows = table[column].to_numpy().reshape(len(table.index.unique(level="geo")), -1)
        return rows if len(rows) == 1 + len(self.geos) else np.concatenate([rows, rows])

    @cached_property
    def media_share(self) -> np.ndarray:
        """Mean, low and high of the share of the prediction that all media brought [1 + geo, 3]."""
        draws = contribution_draws(self.known)
        values = np.asarray(draws).reshape(-1, *draws.shape[2:])
        values = np.concatenate([values.sum(axis=1, keepdims=True), values], axis=1)
        share = values[..., : len(self.channels)].sum(axis=-1) / values.sum(axis=-1)
        return _summary(share, axis=0)

    @cached_property
    def effect_share(self) -> np.ndarray:
        """Mean, low and high of each channel's share of what all media brought, over all geos [channel, 3]."""
        draws = contribution_draws(self.known)
        values = np.asarray(draws).reshape(-1, *draws.shape[2:])[..., : len(self.channels)].sum(axis=1)
        return _summary(values / values.sum(axis=-1, keepdims=True), axis=0)

    @cached_property
    def weekly(self) -> xr.Dataset:
        """Of `attribution.contributions`."""
        return contributions(self.known, PROBABILITY)

    @cached_property
    def fit(self) -> Fit:
        """Of `attribution.fit`."""
        return fit(self.known, PROBABILITY)

    @cached_property
    def misses(self) -> list[float]:
        """Mean |observed - predicted| over mean |observed|: of all geos together, then of each."""
        weeks = self.fit.weeks
        observed, mean = weeks["observed"].to_numpy(), weeks["mean"].to_numpy()
        names = np.asarray(weeks.index.get_level_values("geo"), dtype=str)
        found = []
        for of in (np.ones(len(weeks), bool), *(names == geo for geo in self.geos)):
            here = of & np.isfinite(observed)
            size = float(np.abs(observed[here]).sum())
            found.append(float(np.abs(observed - mean)[here].sum()) / size if size > 0 else np.nan)
        return found

    @cached_property
    def curves(self) -> xr.Dataset:
        """Of `attribution.response_curves`."""
        return response_curves(self.known, CURVE_POINTS, probability=PROBABILITY)

    @cached_property
    def together(self) -> xr.Dataset:
        """Response curves of all geos together, as the spend of all moves in proportion to today's.

        Returns:
            (channel, point): spend (money a period, up to twice today's), mean, low, high; (channel): today,
            today_mean, today_low, today_high. Where nothing was spent within the last year, geos move in proportion to
            the end of their own curves and today is 0.
        """
        known = self.known.thin()
        today = known.recent_spend()
        unit = np.where(today.sum(axis=0) > 0, today, self.curves["spend"].to_numpy()[..., -1] / 2)
        multiples = np.linspace(0.0, 2.0, CURVE_POINTS)
        price = known.media_a_unit_of_money
        found: np.ndarray = np.zeros(())
        for geo in range(len(known.geos)):
            one = known.take(geos=slice(geo, geo + 1))
            media = multiples[:, None] * np.nan_to_num(unit[geo] * price[geo])
            found = found + one.saturated(one.steady()[:, :, None, :] * media)[:, 0]
        summary = np.moveaxis(_summary(found, axis=0), 0, 1)  # [channel, point, 3]
        summary[np.isnan(price).any(axis=0)] = np.nan
        middle = CURVE_POINTS // 2
        names = ("mean", "low", "high")
        variables: dict[str, Any] = {
            "spend": (("channel", "point"), unit.sum(axis=0)[:, None] * multiples),
            "today": ("channel", today.sum(axis=0)),
        }
        variables |= {name: (("channel", "point"), summary[..., at]) for at, name in enumerate(names)}
        variables |= {f"today_{name}": ("channel", summary[:, middle, at]) for at, name in enumerate(names)}
        return xr.Dataset(variables, {"channel": list(self.channels), "point": np.arange(CURVE_POINTS)})

    @cached_property
    def carryover(self) -> tuple[Carryover, ...]:
        """Adstock weights and half-lives, a channel each."""
        return tuple(self._carryover(number) for number in range(len(self.channels)))

    def _carryover(self, number: int) -> Carryover:
        known, described = self.known, self._described(number)["adstock"]
        form, of = next(
            (form, of) for form, of in zip(known.forms, known.values, strict=True) if number in form.channels
        )
        column = list(form.channels).index(number)
        values = {name: of[name][..., column] for name in described["parameters"]}  # [draw, geo]
        curve = adstocks.from_name(described["name"], l_max=described["l_max"], normalize=True)
        half_life = _summary(curve.half_life(**values), axis=0)
        window = curve
        if curve.l_max is None:
            weeks = float(np.max(curve.weeks_until(DRAWN_SHARE, **values)))
            window = replace(curve, l_max=int(np.clip(np.ceil(weeks), 4, LONGEST)))
        with using("float64"):
            weights = np.asarray(window.weights(**values))  # [draw, geo, lag]
            population = self._population(number)
            typical = weights[:, 0] if population is None else np.asarray(window.weights(**population))
        alike = all(np.ptp(value, axis=1).max() == 0 for value in values.values())
        said = "" if alike else "typical geo"
        typical_half_life = half_life[0]
        if population is not None:
            typical_half_life = _summary(curve.half_life(**population), axis=0)
        elif not alike:
            said, typical = "mean of the geos", weights.mean(axis=1)
            typical_half_life = _summary(curve.half_life(**values).mean(axis=1), axis=0)
        band = _summary(typical, axis=0)
        return Carryover(weights.mean(axis=0), band[:, 0], band[:, 1], band[:, 2], half_life, typical_half_life, said)

    def _described(self, number: int) -> dict[str, Any]:
        name = self.channels[number]
        return next(one for one in self.known.settings["channels"] if one["name"] == name)

    def _population(self, number: int) -> dict[str, np.ndarray] | None:
        """The typical geo's adstock parameters [draw]; None where the model has no such."""
        found = {}
        for name, variable in self._described(number)["adstock"]["parameters"].items():
            values = _of_channel(self.tree["posterior"].to_dataset(), f"{variable}_population", self.channels[number])
            if values is None:
                return None
            found[name] = values
        return found

    @cached_property
    def learnt(self) -> list[Learnt]:
        """Parameters of the typical geo before and after the data, on the model's own scale; empty without a prior.

        Media are counted in the typical active week's, the target in its mean. Where a block is not hierarchical, the
        values of all geos stand for the typical one's.
        """
        if "prior" not in self.tree.children:
            return []
        prior, posterior = (self.tree[group].to_dataset() for group in ("prior", "posterior"))
        effect = self.known.settings.get("effect", "coefficient")
        found = []
        for number, channel in enumerate(self.channels):
            described = self._described(number)
            names = {*described["adstock"]["parameters"].values()} | {*described["saturation"]["parameters"].values()}
            for name in [*sorted(names), effect]:
                variable = described["coef"] if name == "coefficient" else name
                pair = [self._scaled(group, name, variable, number) for group in (prior, posterior)]
                before, after = (_middle(values) for values in pair)
                if before is not None and after is not None:
                    found.append(Learnt(name, channel, before, after))
        return found

    def _scaled(self, group: xr.Dataset, name: str, variable: str, number: int) -> np.ndarray | None:
        """Draws of the typical geo's parameter, or of all geos', in the model's own units."""
        channel = self.channels[number]
        typical = _of_channel(group, f"{name}_population", channel)
        if typical is not None:
            return typical
        values = _of_channel(group, variable, channel)
        if values is None:
            return None
        media, target = self.known.media_scale[:, number], self.known.target_scale
        factor = {"half_saturation": 1 / media, "tanh_scale": 1 / media, "rate": media, "coefficient": 1 / target}
        factor["sat"] = media
        return values * factor.get(name, 1.0)

    @cached_property
    def shrinkage(self) -> pd.DataFrame:
        """Of `media_checks.media_shrinkage`."""
        return media_shrinkage(self.tree)

    @cached_property
    def diagnostics(self) -> pd.DataFrame:
        """Of `diagnostics.table`."""
        return table(self.tree)

    @cached_property
    def by_size(self) -> list[int]:
        """Geos by the sum of their predicted target, the largest first."""
        return np.argsort(-self.by_component("mean")[1:].sum(axis=1), kind="stable").tolist()

    @cached_property
    def by_effect(self) -> list[int]:
        """Channels by what they brought over all geos, most first."""
        return np.argsort(-self.by_component("mean")[0, : len(self.channels)], kind="stable").tolist()


def _summary(draws: np.ndarray, axis: int) -> np.ndarray:
    """Mean and ends of the interval over draws, on a new last axis."""
    return np.stack([draws.mean(axis=axis), *np.quantile(draws, central(PROBABILITY), axis=axis)], axis=-1)


def _middle(draws: np.ndarray | None) -> tuple[float, float, float] | None:
    """Median, low and high; None where there are no draws."""
    if draws is None:
        return None
    middle, low, high = (float(value) for value in np.quantile(draws, [0.5, *central(PROBABILITY)]))
    return middle, low, high


def _of_channel(group: xr.Dataset, name: str, channel: str) -> np.ndarray | None:
    """Draws of a variable for one channel [draw] or [draw, geo]; None where it has no such column."""
    if name not in group:
        return None
    values = group[name]
    dim = next((str(d) for d in values.dims if d == "channel" or str(d).endswith("_channel")), None)
    if dim is None or channel not in np.asarray(values[dim]):
        return None
    values = np.asarray(values.sel({dim: channel}), dtype=np.float64)
    return values.reshape(-1, *values.shape[2:])
