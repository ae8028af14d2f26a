"""How simulated markets come about: spend plans, carryover, saturation, sales of ragged markets, and the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float
from scipy.special import expit, logit, ndtri

from pelton.engine.errors import ArgumentError

DAYS_PER_YEAR = 365.25
CONTROL, EVENT = "price_index", "holiday"
USUAL_PRICE = 100.0
FOURIER = ("sin_1", "cos_1", "sin_2", "cos_2")
PARTS = ("intercept", "trend", "seasonality", "control", "event")

# Between-market sd on the unconstrained scale; those of contributions are the channels' own.
SPREAD = {"alpha": 0.3, "theta": 0.3, "half_saturation": 0.2, "slope": 0.1}
# The typical market's coefficients and their sd between markets, as shares of mean sales.
BASELINE = {
    "trend": ([0.04], 0.02),
    "seasonality": ([-0.030, 0.045, -0.015, 0.015], 0.010),
    "control": ([-0.010], 0.002),
    "event": ([0.12], 0.03),
}
COST_SD, SIGMA_SD = 0.25, 0.15
# Correlation between what the channels of a market plan for one period.
COMMON_PLAN = 0.3


@dataclass(frozen=True)
class Plan:
    """How a channel's spend is laid out over the weeks.

    Attributes:
        active: share of the planning periods with spend; 1 is always on.
        period: weeks of a planning period, which is on or off as a whole.
        period_sd: sd of the log spend between periods.
        week_sd: sd of the log spend between weeks of a period.
        season: how much more is spent in early December than in a typical week, as a share.
        growth: how much more at the end of a series than at its start, as a share of a typical week's.
    """

    active: float
    period: int
    period_sd: float
    week_sd: float
    season: float = 0.0
    growth: float = 0.0


@dataclass(frozen=True)
class Channel:
    """What a channel is like in the typical market.

    Attributes:
        alpha: retention of the adstock.
        theta: weeks from spend to peak of a delayed adstock; None makes it geometric.
        half_saturation: in weeks' spend, that of a typical active week.
        slope: of the Hill curve.
        contribution: share of mean sales that a typical active week's spend brings where it is held.
        contribution_sd: sd of its logarithm between markets.
        cost: spend of a typical active week as a share of mean sales.
        plan: how the spend is laid out.
    """

    alpha: float
    theta: float | None
    half_saturation: float
    slope: float
    contribution: float
    contribution_sd: float
    cost: float
    plan: Plan


CHANNELS = {
    "spotify_ads": Channel(0.50, None, 1.2, 1.3, 0.070, 0.30, 0.017, Plan(0.80, 2, 0.35, 0.20, season=0.2)),
    "meta": Channel(0.30, None, 1.0, 1.2, 0.100, 0.20, 0.024, Plan(1.0, 4, 0.30, 0.20, season=0.3)),
    "tiktok": Channel(0.20, None, 0.9, 1.5, 0.070, 0.40, 0.011, Plan(0.85, 2, 0.30, 0.40, growth=0.8)),
    "youtube": Channel(0.55, 1.2, 1.1, 1.4, 0.095, 0.30, 0.026, Plan(0.50, 4, 0.30, 0.10, season=0.2)),
    "radio": Channel(0.60, 2.0, 1.3, 1.3, 0.085, 0.35, 0.029, Plan(0.40, 3, 0.30, 0.08)),
    "playlist": Channel(0.60, None, 0.8, 1.1, 0.050, 0.35, 0.008, Plan(0.55, 2, 0.45, 0.35)),
}


@dataclass(frozen=True, eq=False)
class SimulatedMarkets:
    """A long table as one would collect it, and the truth behind it.

    Attributes:
        frame: one row per market and week, market after market: date (the week's Monday), market, sales and one
            column of spend per channel (euro, to the cent), price_index (100 is the usual price), holiday (1 in
            the two weeks up to Christmas, else 0).
        truth: what an analyst does not see; the dims are geo, time (the weeks of the longest series), channel,
            theta_channel (those with a delayed adstock), fourier, control, event and part.

    The variables that a fitted tree's posterior has too, under its names and in its units:

    | variable | dims | unit |
    |---|---|---|
    | alpha | geo, channel | retention a week |
    | theta | geo, theta_channel; channel where all are delayed | weeks |
    | half_saturation | geo, channel | euro of spend a week |
    | slope | geo, channel | none |
    | coef | geo, channel | euro of sales a week, at full saturation |
    | sigma | geo | euro of sales a week |

    For alpha, theta, half_saturation, slope and contribution there are NAME_population, the typical market's value
    where spend is in units of media_scale and sales in units of their mean, and NAME_sd, the between-market sd of
    the logarithm (alpha, theta / (l_max - 1): of the logit). contribution is what a typical active week's spend
    brings where it is held, coef = contribution (1 + (half_saturation / media_scale)^slope).

    The baseline has intercept (euro; its level in the middle of a market's weeks), trend_coefficient (euro a year),
    seasonality_coefficient (euro per sin and cos of 2 pi k day / 365.25, k = 1, 2, days since 1 January 1970),
    control_coefficient (euro per point of price above 100) and event_coefficient (euro per holiday week), the last
    four with NAME_population and NAME_sd as shares of mean sales. Over time, in euro a week: baseline_parts (by
    part), baseline, mean (without noise) and contributions (by channel); outside a market's weeks, where `inside`
    is False, they are NaN, contributions 0.

    By channel: adstock, geometric or delayed. By market and channel: total_spend; carryover, the sales that the
    spend brings after the last week; roas = (sum of contributions + carryover) / total_spend; media_scale, the mean
    spend of weeks with any. By market: target_scale, the larger of |mean| and sd of sales.
    """

    frame: pd.DataFrame
    truth: xr.Dataset

    @property
    def columns(self) -> dict[str, Any]:
        """Which column is what, under the names that `Panel.from_frame` has for them."""
        channels = [str(name) for name in self.truth["channel"].values]
        return {
            "time": "date",
            "geo": "market",
            "target": "sales",
            "media": channels,
            "controls": [CONTROL],
            "events": [EVENT],
        }

    def truth_table(self) -> pd.DataFrame:
        """One row per market and channel; theta is missing where the adstock is geometric."""
        names = ["alpha", "half_saturation", "slope", "coef", "contribution", "total_spend", "carryover", "roas"]
        table = self.truth[names].to_dataframe(dim_order=["geo", "channel"])[names]
        table.insert(0, "adstock", np.tile(self.truth["adstock"].values, self.truth.sizes["geo"]))
        table.insert(2, "theta", np.nan)
        if "theta" in self.truth:
            table.loc[table["adstock"] == "delayed", "theta"] = self.truth["theta"].values.ravel()
        return table.rename_axis(index={"geo": "market"}).reset_index()


def simulate(
    levels: Mapping[str, float],
    weeks: Sequence[int],
    channels: Mapping[str, Channel],
    end: np.datetime64,
    *,
    l_max: int,
    noise: float,
    spread: float,
    rng: np.random.Generator,
) -> SimulatedMarkets:
    """Draws spend, then the markets' parameters, then sales.

    Args:
        levels: mean weekly sales of each market, euro.
        weeks: length of each market's series; all end together.
        channels: what each is like in the typical market.
        end: Monday of the last week.
        l_max: window of the adstock, weeks; above every theta + 1.
        noise: sd of the noise in the typical market, as a share of its mean sales.
        spread: factor on all between-market sds.
        rng: source of everything random.

    Raises:
        ArgumentError: a spread so wide that a market's media bring more than all its sales.
    """
    level = np.array(list(levels.values()), dtype=float)
    length, longest = np.asarray(weeks), max(weeks)
    dates = end - np.timedelta64(7, "D") * np.arange(longest)[::-1]
    inside = np.arange(longest) >= longest - length[:, None]
    day = (dates - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")

    spend = _spend(rng, level, inside, day, list(channels.values()))
    price, holiday = _price(rng, inside), _before_christmas(dates)
    variables, brought = _responses(rng, spend, level, channels, l_max, spread)
    design = _baseline_design(inside, day, price, holiday)
    coefficients, baseline = _baseline(rng, design, level, spread)

    # What media and the other parts leave is the intercept: a market's mean sales are then its level, and the
    # population's shares of mean sales are exact in every market.
    contributions = brought[:, :longest]
    moving = np.where(inside, contributions.sum(-1) + baseline.sum(-1), 0.0).sum(1) / length
    intercept = level - moving
    if (intercept <= 0).any():
        name = list(levels)[int(np.argmin(intercept / level))]
        raise ArgumentError(
            f"spread {spread:g} lets media bring more than all sales of {name!r}; take a smaller spread"
        )
    parts = np.concatenate([np.broadcast_to(intercept[:, None, None], (*inside.shape, 1)), baseline], -1)
    parts = np.where(inside[..., None], parts, np.nan)
    mean = parts.sum(-1) + contributions.sum(-1)
    sigma = noise * level * np.exp(SIGMA_SD * spread * rng.standard_normal(len(level)))
    sales = (mean + sigma[:, None] * rng.standard_normal(mean.shape)).round(2)

    total, carryover = spend.sum(1).round(2), brought[:, longest:].sum(1)
    variables |= coefficients | {
        "intercept": (("geo",), intercept),
        "sigma": (("geo",), sigma),
        "baseline_parts": (("geo", "time", "part"), parts),
        "baseline": (("geo", "time"), parts.sum(-1)),
        "mean": (("geo", "time"), mean),
        "contributions": (("geo", "time", "channel"), contributions),
        "inside": (("geo", "time"), inside),
        "total_spend": (("geo", "channel"), total),
        "carryover": (("geo", "channel"), carryover),
        "roas": (("geo", "channel"), (contributions.sum(1) + carryover) / total),
        "target_scale": (("geo",), np.maximum(np.abs(np.nanmean(sales, 1)), np.nanstd(sales, 1))),
    }
    coords = {
        "geo": list(levels),
        "time": dates.astype("datetime64[ns]"),
        "channel": list(channels),
        "fourier": list(FOURIER),
        "control": [CONTROL],
        "event": [EVENT],
        "part": list(PARTS),
    }
    if any("theta_channel" in dims for dims, _ in variables.values()):
        coords["theta_channel"] = [name for name, channel in channels.items() if channel.theta is not None]
    attributes = {"l_max": l_max, "normalize": "true", "saturation": "hill", "noise": noise, "spread": spread}
    market, week = np.nonzero(inside)
    frame = pd.DataFrame(
        {"date": dates[week].astype("datetime64[ns]"), "market": np.array(list(levels))[market], "sales": sales[inside]}
        | {name: spend[inside, place] for place, name in enumerate(channels)}
        | {CONTROL: price[inside], EVENT: holiday[week]}
    )
    return SimulatedMarkets(frame, xr.Dataset(variables, coords, attributes))


def _spend(
    rng: np.random.Generator,
    level: Float[np.ndarray, " geo"],
    inside: Bool[np.ndarray, "geo time"],
    day: Float[np.ndarray, " time"],
    channels: Sequence[Channel],
) -> Float[np.ndarray, "geo time channel"]:
    """Spend to the cent, 0 outside; every channel runs in at least one week of every market."""
    plans = [channel.plan for channel in channels]
    active, period, period_sd, week_sd, season, growth = (
        np.array([getattr(plan, name) for plan in plans])
        for name in ("active", "period", "period_sd", "week_sd", "season", "growth")
    )
    geos, weeks = inside.shape
    shape = (geos, weeks, len(plans))
    # A period takes what its first week drew; markets start their periods in different weeks.
    offset = rng.integers(0, period, (geos, len(plans)))[:, None]
    time = np.arange(weeks)[:, None]
    first = np.maximum(time - (time + offset) % period, 0)

    def planned(values: Float[np.ndarray, "geo time channel"]) -> Float[np.ndarray, "geo time channel"]:
        return np.take_along_axis(values, first, axis=1)

    common = np.broadcast_to(_autoregression(rng, (geos, weeks, 1), 0.6), shape)
    wish = planned(np.sqrt(COMMON_PLAN) * common + np.sqrt(1 - COMMON_PLAN) * rng.standard_normal(shape))
    # In a short series the period with the strongest wish runs, however weak that is.
    strongest = np.where(inside[..., None], wish, -np.inf).max(1, keepdims=True)
    runs = inside[..., None] & (wish >= np.minimum(-ndtri(active), strongest))
    noise = period_sd * planned(rng.standard_normal(shape)) + week_sd * _autoregression(rng, shape, 0.4)
    length = inside.sum(1, keepdims=True)
    through = (np.arange(weeks) - (weeks - length)) / np.maximum(length - 1, 1) - 0.5
    rhythm = 1 + season * np.cos(2 * np.pi * (day[:, None] - 340) / DAYS_PER_YEAR)
    rhythm = rhythm * np.maximum(1 + growth * through[..., None], 0.1)
    cost = np.array([channel.cost for channel in channels]) * np.exp(COST_SD * rng.standard_normal((geos, len(plans))))
    spend = level[:, None, None] * cost[:, None] * rhythm * np.exp(noise)
    return np.where(runs, np.maximum(spend.round(2), 0.01), 0.0)


def _autoregression(rng: np.random.Generator, shape: tuple[int, int, int], retention: float) -> np.ndarray:
    """Stationary AR(1) series of unit variance along the middle axis."""
    values = rng.standard_normal(shape)
    for week in range(1, shape[1]):
        values[:, week] = retention * values[:, week - 1] + np.sqrt(1 - retention**2) * values[:, week]
    return values


def _price(rng: np.random.Generator, inside: Bool[np.ndarray, "geo time"]) -> Float[np.ndarray, "geo time"]:
    """A price index that drifts about 100, with promotions now and then."""
    drift = 1.5 * _autoregression(rng, (*inside.shape, 1), 0.9)[..., 0]
    promotion = np.where(rng.random(inside.shape) < 0.1, rng.uniform(4, 10, inside.shape), 0.0)
    return (USUAL_PRICE + drift - promotion).round(1)


def _before_christmas(dates: np.ndarray) -> np.ndarray:
    """1 in the week of 24 December and the one before, else 0."""
    december = dates.astype("datetime64[Y]").astype("datetime64[M]") + np.timedelta64(11, "M")
    left = (december.astype("datetime64[D]") + np.timedelta64(23, "D") - dates) / np.timedelta64(1, "D")
    return ((left >= 0) & (left < 14)).astype(int)


def _responses(
    rng: np.random.Generator,
    spend: Float[np.ndarray, "geo time channel"],
    level: Float[np.ndarray, " geo"],
    channels: Mapping[str, Channel],
    l_max: int,
    spread: float,
) -> tuple[dict[str, Any], Float[np.ndarray, "geo longer channel"]]:
    """The media parameters of the truth, and contributions over the weeks and l_max - 1 more without spend."""
    kinds = list(channels.values())
    delayed = np.array([kind.theta is not None for kind in kinds])
    typical = {
        "alpha": np.array([kind.alpha for kind in kinds]),
        "theta": np.array([1.0 if kind.theta is None else kind.theta for kind in kinds]),
        "half_saturation": np.array([kind.half_saturation for kind in kinds]),
        "slope": np.array([kind.slope for kind in kinds]),
        "contribution": np.array([kind.contribution for kind in kinds]),
    }
    sd = {name: np.full(len(kinds), spread * SPREAD[name]) for name in SPREAD}
    sd["contribution"] = spread * np.array([kind.contribution_sd for kind in kinds])

    def drawn(name: str, centre: Float[np.ndarray, " channel"]) -> Float[np.ndarray, "geo channel"]:
        return centre + sd[name] * rng.standard_normal((len(level), len(kinds)))

    alpha = expit(drawn("alpha", logit(typical["alpha"])))
    theta = (l_max - 1) * expit(drawn("theta", logit(typical["theta"] / (l_max - 1))))
    half, slope, contribution = (
        np.exp(drawn(name, np.log(typical[name]))) for name in ("half_saturation", "slope", "contribution")
    )
    coef = contribution * (1 + half**slope)

    scale = spend.sum(1) / (spend > 0).sum(1)
    lag = np.arange(l_max)
    weights = alpha[..., None] ** np.where(delayed[:, None], (lag - theta[..., None]) ** 2, lag)
    weights /= weights.sum(-1, keepdims=True)
    weeks = spend.shape[1]
    carried = np.zeros((len(level), weeks + l_max - 1, len(kinds)))
    for week in lag:
        carried[:, week : week + weeks] += weights[:, None, :, week] * (spend / scale[:, None])
    power = carried ** slope[:, None]
    brought = (level[:, None] * coef)[:, None] * power / (power + (half**slope)[:, None])

    where = {name: ("channel", np.full(len(kinds), True)) for name in typical}
    where["theta"] = ("channel" if delayed.all() else "theta_channel", delayed)
    values = {"alpha": alpha, "theta": theta, "half_saturation": half * scale, "slope": slope}
    values["contribution"] = level[:, None] * contribution
    variables: dict[str, Any] = {
        "adstock": (("channel",), np.where(delayed, "delayed", "geometric")),
        "coef": (("geo", "channel"), level[:, None] * coef),
        "media_scale": (("geo", "channel"), scale),
    }
    for name, (dim, has) in where.items():
        if has.any():
            variables[name] = (("geo", dim), values[name][:, has])
            variables[f"{name}_population"] = ((dim,), typical[name][has])
            variables[f"{name}_sd"] = ((dim,), sd[name][has])
    return variables, brought


def _baseline_design(
    inside: Bool[np.ndarray, "geo time"],
    day: Float[np.ndarray, " time"],
    price: Float[np.ndarray, "geo time"],
    holiday: np.ndarray,
) -> dict[str, np.ndarray]:
    """What each part of the baseline is a combination of: [geo or 1, time, term]."""
    length, weeks = inside.sum(1, keepdims=True), inside.shape[1]
    years = (np.arange(weeks) - (weeks - (length + 1) / 2)) * 7 / DAYS_PER_YEAR
    angle = 2 * np.pi * day / DAYS_PER_YEAR
    waves = np.stack([np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)], -1)
    return {
        "trend": years[..., None],
        "seasonality": waves[None],
        "control": (price - USUAL_PRICE)[..., None],
        "event": holiday[None, :, None].astype(float),
    }


def _baseline(
    rng: np.random.Generator, design: Mapping[str, np.ndarray], level: Float[np.ndarray, " geo"], spread: float
) -> tuple[dict[str, Any], Float[np.ndarray, "geo time part"]]:
    """Coefficients of the truth, and what each part but the intercept adds to sales."""
    dims = {"trend": (), "seasonality": ("fourier",), "control": ("control",), "event": ("event",)}
    weeks = next(iter(design.values())).shape[1]
    variables: dict[str, Any] = {}
    parts = np.empty((len(level), weeks, len(design)))
    for place, (name, (centre, sd)) in enumerate(BASELINE.items()):
        typical = np.array(centre)
        shares = typical + spread * sd * rng.standard_normal((len(level), len(typical)))
        values = level[:, None] * shares
        parts[..., place] = (design[name] * values[:, None]).sum(-1)
        single = not dims[name]
        called = f"{name}_coefficient"
        variables[called] = (("geo", *dims[name]), values[:, 0] if single else values)
        variables[f"{called}_population"] = (dims[name], typical[0] if single else typical)
        variables[f"{called}_sd"] = (dims[name], spread * sd if single else np.full(len(typical), spread * sd))
    return variables, parts
