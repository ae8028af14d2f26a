"""The response of a media mix tree: what each channel and each part of the baseline adds to the target, by draw."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from pelton.engine.errors import ArgumentError, DataError
from pelton.engine.precision import using
from pelton.models import adstock as adstocks
from pelton.models import response_programs as programs
from pelton.models import saturation as saturations
from pelton.models.adstock import Adstock
from pelton.models.response_programs import Form, Values
from pelton.models.saturation import Saturation

PARTS = ("intercept", "trend", "seasonality", "control", "event")
# Numbers in a block of draws x geos x weeks x channels that is computed at once, and the most that one call returns.
BLOCK = 2**18
LARGEST = 2**27
# Intervals of weekly values come from at most so many evenly spaced draws.
THINNED_DRAWS = 1000
# Carryover without end is followed until it has fallen to this share of its start, or for so many periods.
REMAINDER = 1e-6
LONGEST_REACH = 520


@dataclass(frozen=True, eq=False)
class Response:
    """What the tree of a media mix says of every geo, week and channel, in the units of the data.

        y[g,t] = sum_k design[g,t,k] b[g,k] + sum_c coef[g,c] saturation_c(adstock_c(media[g,:,c]))[t]

    Attributes:
        kind: media_mix or country_mix.
        geos, dates, channels, terms: labels; dates are datetime64 [time].
        parts: which part of the baseline each term belongs to: intercept, trend, seasonality, control or event.
        media: what drives the model [geo, time, channel]; spend: money.
        inside: whether a week lies between the geo's first and last [geo, time].
        design: columns of the baseline [geo, time, term].
        target: observed, NaN where there is none [geo, time].
        media_scale, target_scale: what the model divided by [geo, channel] and [geo].
        forms: groups of channels with a form of adstock and saturation in common.
        values: the draws of each group's parameters, name -> [draw, geo, channel of the group].
        coef: [draw, geo, channel]; baseline_coefficient: [draw, geo, term]; sigma: [draw, geo]; nu: [draw, 1] or None.
        chains: how many; draws are flattened over them, chain by chain.
        seed: of the run.
        settings: the tree's own description of the model.
    """

    kind: str
    geos: tuple[str, ...]
    dates: np.ndarray
    channels: tuple[str, ...]
    terms: tuple[str, ...]
    parts: tuple[str, ...]
    media: Float[np.ndarray, "geo time channel"]
    spend: Float[np.ndarray, "geo time channel"]
    inside: Bool[np.ndarray, "geo time"]
    design: Float[np.ndarray, "geo time term"]
    target: Float[np.ndarray, "geo time"]
    media_scale: Float[np.ndarray, "geo channel"]
    target_scale: Float[np.ndarray, " geo"]
    forms: tuple[Form, ...]
    values: Values
    coef: Float[np.ndarray, "draw geo channel"]
    baseline_coefficient: Float[np.ndarray, "draw geo term"]
    sigma: Float[np.ndarray, "draw geo"]
    nu: Float[np.ndarray, "draw 1"] | None
    chains: int
    seed: int
    settings: dict[str, Any]

    @classmethod
    def of(cls, tree: "xr.DataTree | Response") -> "Response":
        """Reads a tree; a Response is returned as it is, so that several tables can share one.

        Raises:
            DataError: the tree is not one of a media mix, or lacks a variable that its own description names.
        """
        if isinstance(tree, Response):
            return tree
        settings = description(tree)
        posterior, constant = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
        channels = tuple(str(name) for name in np.asarray(constant["channel"]))
        described = {channel["name"]: channel for channel in settings["channels"]}
        if set(described) != set(channels):
            raise DataError(f"the tree describes the channels {sorted(described)}, but its data have {list(channels)}")
        forms, values = _read_forms(posterior, [described[name] for name in channels], channels)
        coef = np.stack(
            [_cells(posterior, described[name]["coef"], name) for name in channels], axis=-1
        )  # [draw, geo, channel]
        parts = tuple(str(part) for part in np.asarray(constant["baseline_part"]))
        unknown = set(parts) - set(PARTS)
        if unknown:
            raise DataError(f"baseline_part has {sorted(unknown)[0]!r}; its values are {', '.join(PARTS)}")
        nu = np.asarray(posterior["nu"], np.float64).reshape(-1, 1) if settings["likelihood"] == "student_t" else None
        return cls(
            kind=settings["kind"],
            geos=tuple(str(name) for name in np.asarray(constant["geo"])),
            dates=np.asarray(constant["time"]).astype("datetime64[D]"),
            channels=channels,
            terms=tuple(str(name) for name in np.asarray(constant["term"])),
            parts=parts,
            media=_array(constant, "media", "geo", "time", "channel"),
            spend=_array(constant, "spend", "geo", "time", "channel"),
            inside=_array(constant, "inside", "geo", "time") > 0,
            design=_array(constant, "baseline_design", "geo", "time", "term"),
            target=_array(tree["observed_data"].to_dataset(), "target", "geo", "time"),
            media_scale=_array(constant, "media_scale", "geo", "channel"),
            target_scale=_array(constant, "target_scale", "geo"),
            forms=forms,
            values=values,
            coef=coef,
            baseline_coefficient=_drawn(posterior, "baseline_coefficient", "geo", "term"),
            sigma=_drawn(posterior, "sigma", "geo"),
            nu=nu,
            chains=posterior.sizes["chain"],
            seed=int(tree.attrs.get("seed", 0)),
            settings=settings,
        )

    @property
    def draws(self) -> int:
        """Draws of all chains together."""
        return len(self.coef)

    @property
    def has_spend(self) -> bool:
        """Whether money stands apart from media."""
        return bool(self.settings["has_spend"])

    @property
    def periods_a_year(self) -> int:
        """Rows of the data in a year: 52 where they are weeks."""
        return max(1, round(364 / float(self.settings["period_days"])))

    @property
    def active(self) -> Float[np.ndarray, "geo time"]:
        """1 where a week is inside its geo's span, else 0."""
        return self.inside.astype(np.float64)

    def take(self, draws: Any = slice(None), geos: Any = slice(None)) -> "Response":
        """Some of the draws and geos, by slices or positions; chosen draws count as one chain."""
        names = np.array(self.geos, dtype=object)[geos]
        values = tuple({name: value[draws][:, geos] for name, value in of.items()} for of in self.values)
        return replace(
            self,
            geos=tuple(names),
            media=self.media[geos],
            spend=self.spend[geos],
            inside=self.inside[geos],
            design=self.design[geos],
            target=self.target[geos],
            media_scale=self.media_scale[geos],
            target_scale=self.target_scale[geos],
            values=values,
            coef=self.coef[draws][:, geos],
            baseline_coefficient=self.baseline_coefficient[draws][:, geos],
            sigma=self.sigma[draws][:, geos],
            nu=None if self.nu is None else self.nu[draws],
            chains=self.chains if isinstance(draws, slice) and draws == slice(None) else 1,
        )

    def thin(self, draws: int = THINNED_DRAWS) -> "Response":
        """At most so many draws, evenly spaced over the chains."""
        if self.draws <= draws:
            return self
        return self.take(np.floor(np.arange(draws) * (self.draws / draws)).astype(np.int64))

    def contributions(
        self, draws: Any = slice(None), media: Float[np.ndarray, "geo weeks channel"] | None = None
    ) -> Float[np.ndarray, "draw geo weeks channel"]:
        """What each channel adds to the target in each week, in target units.

        Before its first week a geo has no media and hence no contribution. After its last, carryover goes on; weeks
        outside a geo's span belong to no sum here (see `inside`).

        Args:
            draws: a slice or positions.
            media: instead of the tree's own, in the same units and of any length.

        Raises:
            ArgumentError: the result would have more than 2^27 numbers (1 GiB); take fewer draws, or `blocks`.
        """
        known = self.take(draws)
        media = known.media if media is None else media
        size = known.draws * media.size
        if size > LARGEST:
            raise ArgumentError(
                f"contributions of {known.draws} draws in {' x '.join(map(str, media.shape))} geos, weeks and channels "
                f"are {size:.3g} numbers, more than {LARGEST:.3g} at once; take fewer draws, or go through `blocks`"
            )
        found = np.empty((known.draws, *media.shape))
        for at, block in known.blocks(media):
            found[at] = block
        return found

    def blocks(
        self, media: Float[np.ndarray, "geo weeks channel"] | None = None
    ) -> Iterator[tuple[slice, Float[np.ndarray, "draw geo weeks channel"]]]:
        """The contributions, a block of draws at a time: (draws, [draw of the block, geo, time, channel])."""
        media = self.media if media is None else media
        yield from self._run(programs.build_contributions, media.size, media)

    def totals(
        self, weights: Float[np.ndarray, "geo weeks"], media: Float[np.ndarray, "geo weeks channel"] | None = None
    ) -> Float[np.ndarray, "draw geo channel"]:
        """Contributions summed over time with weights."""
        media = self.media if media is None else media
        return np.concatenate([block for _, block in self._run(programs.build_totals, media.size, media, weights)])

    def slopes(
        self,
        weights: Float[np.ndarray, "geo weeks"],
        direction: Float[np.ndarray, "geo weeks channel"],
        media: Float[np.ndarray, "geo weeks channel"],
    ) -> Float[np.ndarray, "draw geo channel"]:
        """The derivative of `totals` at e = 0 as media become media + e direction, each cell by its own media."""
        return np.concatenate(
            [block for _, block in self._run(programs.build_slopes, 2 * media.size, media, direction, weights)]
        )

    @cached_property
    def summed(self) -> tuple[Float[np.ndarray, "geo time channel"], Float[np.ndarray, "draw geo channel"]]:
        """Each week's mean contribution over all draws, and each draw's total over the weeks inside; one pass."""
        mean, totals = np.zeros(self.media.shape), np.empty(self.coef.shape)
        for at, (weekly, total) in self._run(
            programs.build_sums, self.media.size, self.media, self.active, counted=True
        ):
            mean += weekly
            totals[at] = total
        return mean / self.draws, totals

    def baseline(self, draws: Any = slice(None)) -> Float[np.ndarray, "draw geo time part"]:
        """What each part of the baseline adds, the parts in the order of `baseline_parts`; weeks outside included."""
        coefficient = self.baseline_coefficient[draws]
        pieces = [
            np.einsum("gtk,dgk->dgt", self.design[..., at], coefficient[..., at], optimize=True)
            for at in self._terms_by_part
        ]
        return np.stack(pieces, axis=-1)

    @property
    def baseline_mean(self) -> Float[np.ndarray, "geo time part"]:
        """The mean over all draws of what each part of the baseline adds."""
        mean = self.baseline_coefficient.mean(axis=0)
        return np.stack(
            [np.einsum("gtk,gk->gt", self.design[..., at], mean[:, at]) for at in self._terms_by_part], axis=-1
        )

    @property
    def baseline_totals(self) -> Float[np.ndarray, "draw geo part"]:
        """Each draw's total over the weeks inside."""
        summed = np.einsum("gtk,gt->gk", self.design, self.active)
        return np.stack(
            [np.einsum("gk,dgk->dg", summed[:, at], self.baseline_coefficient[..., at]) for at in self._terms_by_part],
            axis=-1,
        )

    @property
    def baseline_parts(self) -> tuple[str, ...]:
        """The parts that the model has, of intercept, trend, seasonality, control and event."""
        return tuple(part for part in PARTS if part in self.parts)

    @property
    def _terms_by_part(self) -> list[np.ndarray]:
        return [np.flatnonzero(np.array(self.parts) == part) for part in self.baseline_parts]

    def prediction(self, draws: Any = slice(None)) -> Float[np.ndarray, "draw geo time"]:
        """The expected target by draw: contributions and baseline together."""
        known = self.take(draws)
        found = known.baseline().sum(axis=-1)
        for at, block in known.blocks():
            found[at] += block.sum(axis=-1)
        return found

    def carried(self, media: Float[np.ndarray, "geo weeks channel"]) -> Float[np.ndarray, "draw geo weeks channel"]:
        """Media after adstock, before saturation."""
        return programs.run(programs.build_carried, self.forms, (self.values, media))

    def steady(self) -> Float[np.ndarray, "draw geo channel"]:
        """The sum of the adstock weights: what a unit of media every week comes to, once carryover has built up."""
        found = np.empty(self.coef.shape)
        for form, of in zip(self.forms, self.values, strict=True):
            with using("float64"):
                total = form.adstock.total(**{name: of[name] for name in form.adstock.parameters})
            found[..., np.array(form.channels)] = np.asarray(total)
        return found

    def saturated(
        self, carried: Float[np.ndarray, "draw geo weeks channel"]
    ) -> Float[np.ndarray, "draw geo weeks channel"]:
        """coef saturation(carried), in target units."""
        return programs.run(programs.build_saturated, self.forms, (self.values, self.coef, carried))

    @property
    def reach(self) -> int:
        """Periods after the one of the spend in which it still acts: l_max - 1, the longest over channels.

        Carryover without end counts for as long as its effect is above a millionth of its start in any draw (for small
        media the effect falls as fast as the adstock to the power of the slope, where that is below 1), at most 520.
        """
        return max(min(length, LONGEST_REACH) for length in self._lengths)

    @property
    def cut_off(self) -> float:
        """The largest share that an effect without end still has past `reach`; 0 where none has been cut."""
        longest = max(self._lengths)
        return 0.0 if longest <= LONGEST_REACH else REMAINDER ** (LONGEST_REACH / longest)

    @cached_property
    def _lengths(self) -> list[int]:
        lengths = []
        for form, of in zip(self.forms, self.values, strict=True):
            if form.adstock.l_max is not None:
                lengths.append(form.adstock.l_max - 1)
                continue
            power = next((of[name] for name in ("slope", "power") if name in of), np.ones(1))
            fall = np.log(np.clip(of["alpha"], 1e-12, 1 - 1e-12)) * np.minimum(power, 1.0)
            lengths.append(int(np.ceil(np.log(REMAINDER) / np.max(fall))))
        return lengths

    @cached_property
    def media_a_unit_of_money(self) -> Float[np.ndarray, "geo channel"]:
        """Media bought with one unit of money: the ratio of their sums; 1 where media are spend.

        A geo in which the channel was never paid for has the ratio of all geos together; NaN where none paid.
        """
        if not self.has_spend:
            return np.ones(self.media_scale.shape)
        media, spend = ((of * self.active[..., None]).sum(axis=1) for of in (self.media, self.spend))
        with np.errstate(divide="ignore", invalid="ignore"):
            everywhere = np.where(spend.sum(axis=0) > 0, media.sum(axis=0) / spend.sum(axis=0), np.nan)
            return np.where(spend > 0, media / spend, everywhere)

    def recent_spend(self, periods: int | None = None) -> Float[np.ndarray, "geo channel"]:
        """Money a period, the mean over each geo's last `periods` (a year of them unless given; all, where fewer)."""
        periods = self.periods_a_year if periods is None else periods
        left = np.cumsum(self.inside[:, ::-1], axis=1)[:, ::-1]
        recent = self.inside & (left <= periods)
        return np.einsum("gtc,gt->gc", self.spend, recent / recent.sum(axis=1, keepdims=True))

    def _run(
        self, build: Callable, size: int, *inputs: np.ndarray, counted: bool = False
    ) -> Iterator[tuple[slice, Any]]:
        """A program over blocks of draws of one length, the last filled up by repeating its last draw."""
        length = min(self.draws, max(1, BLOCK // max(1, size)))
        for start in range(0, self.draws, length):
            at = slice(start, min(start + length, self.draws))
            rows = np.minimum(np.arange(start, start + length), self.draws - 1)
            values = tuple({name: value[rows] for name, value in of.items()} for of in self.values)
            extra = ((np.arange(start, start + length) < self.draws).astype(np.float64),) if counted else ()
            found = programs.run(build, self.forms, (values, self.coef[rows], *inputs, *extra))
            kept = at.stop - at.start
            yield at, (found[0], found[1][:kept]) if counted else found[:kept]


def description(tree: xr.DataTree) -> dict[str, Any]:
    """What a tree's attributes say of the media mix that it holds.

    Raises:
        DataError: the tree is not one of a media mix.
    """
    missing = [group for group in ("posterior", "constant_data", "observed_data") if group not in tree.children]
    if missing or "media_mix" not in tree.attrs:
        lacks = f"the group {missing[0]!r}" if missing else "the attribute 'media_mix'"
        raise DataError(f"this tree is not one of MediaMix or country_mix: it lacks {lacks}")
    return json.loads(tree.attrs["media_mix"])


def _read_forms(
    posterior: xr.Dataset, described: list[dict[str, Any]], channels: tuple[str, ...]
) -> tuple[tuple[Form, ...], Values]:
    alike: dict[tuple[Adstock, Saturation], list[int]] = {}
    for number, channel in enumerate(described):
        key = (
            adstocks.from_name(**_settings(channel["adstock"])),
            saturations.from_name(**_settings(channel["saturation"])),
        )
        alike.setdefault(key, []).append(number)
    forms, values = [], []
    for (adstock, saturation), members in alike.items():
        forms.append(Form(adstock, saturation, tuple(members)))
        of = {}
        for kind, curve in (("adstock", adstock), ("saturation", saturation)):
            for name in curve.parameters:
                columns = [
                    _cells(posterior, described[number][kind]["parameters"][name], channels[number])
                    for number in members
                ]
                of[name] = np.stack(columns, axis=-1)
        values.append(of)
    return tuple(forms), tuple(values)


def _settings(described: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in described.items() if name != "parameters"}


def _cells(posterior: xr.Dataset, name: str, channel: str) -> Float[np.ndarray, "draw geo"]:
    """One channel's draws of a parameter, wherever among the variable's columns it stands."""
    if name not in posterior:
        raise DataError(f"the posterior lacks {name!r}, a parameter of channel {channel!r}; it has {list(posterior)}")
    values = posterior[name]
    dim = next((str(d) for d in values.dims if d == "channel" or str(d).endswith("_channel")), None)
    if dim is None or channel not in np.asarray(values[dim]):
        raise DataError(f"the posterior's {name!r} has dimensions {values.dims} and no column for channel {channel!r}")
    return _flat(values.sel({dim: channel}), name, "geo")


def _flat(values: xr.DataArray, name: str, *dims: str) -> np.ndarray:
    if set(values.dims) != {"chain", "draw", *dims}:
        raise DataError(f"{name!r} has dimensions {values.dims}; a media mix has (chain, draw, {', '.join(dims)})")
    array = np.asarray(values.transpose("chain", "draw", *dims), dtype=np.float64)
    return array.reshape(-1, *array.shape[2:])


def _drawn(posterior: xr.Dataset, name: str, *dims: str) -> np.ndarray:
    if name not in posterior:
        raise DataError(f"the posterior lacks {name!r}; it has {list(posterior)}")
    return _flat(posterior[name], name, *dims)


def _array(dataset: xr.Dataset, name: str, *dims: str) -> np.ndarray:
    if name not in dataset or set(dataset[name].dims) != set(dims):
        found = f"has {name!r} with dimensions {dataset[name].dims}" if name in dataset else f"lacks {name!r}"
        raise DataError(f"the tree {found}; a media mix has it with ({', '.join(dims)})")
    return np.asarray(dataset[name].transpose(*dims), dtype=np.float64)
