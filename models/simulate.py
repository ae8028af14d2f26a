"""Simulated data with known truth: stores of one population, and markets whose media drive sales."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pelton.engine.arguments import positive, whole
from pelton.engine.errors import ArgumentError
from pelton.models.counts import LARGEST
from pelton.models.simulate_media import CHANNELS, CONTROL, EVENT, Channel, SimulatedMarkets, simulate

# Mean weekly sales in euro, and weeks.
MARKETS = {
    "DE": (100_000, 104),
    "UK": (85_000, 104),
    "FR": (62_000, 78),
    "NL": (36_000, 78),
    "ES": (42_000, 52),
    "IT": (38_000, 52),
    "PL": (20_000, 26),
    "SE": (17_000, 26),
}
LAST_WEEK = np.datetime64("2025-12-29")
MEDIAN_SALES = 40_000.0
# Far above these, sales below zero would be common.
MAX_NOISE, MAX_SPREAD = 0.15, 2.0
# A century.
MAX_WEEKS = 5_200


def simulate_stores(
    stores: int = 40,
    alpha: int | float = 2.5,
    beta: int | float = 8.0,
    trials: Sequence[int] = (60, 160),
    seed: int = 0,
) -> pd.DataFrame:
    """Impressions and conversions of stores with rates from Beta(alpha, beta).

        theta_i ~ Beta(alpha, beta),  n_i ~ Uniform{low, ..., high},  k_i ~ Binomial(n_i, theta_i)

    drawn in that order, each for all stores at once.

    Args:
        stores: how many.
        alpha, beta: the population's shapes; its mean is alpha / (alpha + beta).
        trials: fewest and most impressions of a store, both included.
        seed: of NumPy's default generator; the same seed gives the same table.

    Returns:
        One row a store: store (0, 1, ...), impressions n, conversions k, true_rate theta.

    Raises:
        ArgumentError: fewer than one store, a shape that is not positive and finite, trials that are no range
            of whole numbers from 0 on, a negative seed.

    Source: the recipe of the stores reference system; `trials=(60, 159), seed=123` gives its 40 stores.

    >>> simulate_stores(3, trials=(60, 159), seed=123).round(3)
       store  impressions  conversions  true_rate
    0      0           84            8      0.079
    1      1          142           52      0.388
    2      2          139           25      0.179
    >>> simulate_stores(trials=(160, 60))
    Traceback (most recent call last):
        ...
    pelton.engine.errors.ArgumentError: trials runs from its fewest to its most, not from 160 to 60
    """
    stores = whole("stores", stores, 1)
    alpha, beta = positive("alpha", alpha), positive("beta", beta)
    if isinstance(trials, str) or not hasattr(trials, "__len__") or len(trials) != 2:
        raise ArgumentError(f"trials is a pair, the fewest and the most of a store, not {trials!r}")
    low, high = (whole("each end of trials", value, 0, LARGEST) for value in trials)
    if low > high:
        raise ArgumentError(f"trials runs from its fewest to its most, not from {low} to {high}")
    rng = np.random.default_rng(whole("seed", seed, 0))
    rate = rng.beta(alpha, beta, stores)
    impressions = rng.integers(low, high, stores, endpoint=True)
    conversions = rng.binomial(impressions, rate)
    return pd.DataFrame(
        {
            "store": np.arange(stores),
            "impressions": impressions,
            "conversions": conversions,
            "true_rate": rate,
        }
    )


def simulate_markets(seed: int = 0) -> SimulatedMarkets:
    """Eight European markets and six channels, weekly, in series of unequal length, with known truth.

    DE and UK have 104 weeks, FR and NL 78, ES and IT 52, PL and SE 26, all until the week of 29 December 2025. Radio
    and youtube have a delayed adstock, spotify_ads, meta, tiktok and playlist a geometric one. Together the markets
    spend about 500,000 euro a quarter. All seeds share the typical market; markets, spend and noise differ.

    Args:
        seed: of NumPy's default generator; the same seed gives the same data.

    Returns:
        The table and its truth, drawn as `simulate_media` tells.

    Raises:
        ArgumentError: a negative seed.

    Source: the recipe of the markets reference system.

    >>> markets = simulate_markets(seed=0)
    >>> markets.frame.groupby("market", sort=False).size().to_dict()
    {'DE': 104, 'UK': 104, 'FR': 78, 'NL': 78, 'ES': 52, 'IT': 52, 'PL': 26, 'SE': 26}
    >>> markets.truth["roas"].sel(geo="PL").round(1).to_series().to_dict()
    {'spotify_ads': 3.0, 'meta': 5.2, 'tiktok': 5.6, 'youtube': 3.3, 'radio': 3.6, 'playlist': 14.2}
    """
    levels = {name: float(level) for name, (level, _) in MARKETS.items()}
    rng = np.random.default_rng(whole("seed", seed, 0))
    return simulate(
        levels, [weeks for _, weeks in MARKETS.values()], CHANNELS, LAST_WEEK, l_max=12, noise=0.05, spread=1.0, rng=rng
    )


def simulate_media(
    geos: int | Sequence[str] = 8,
    weeks: int | Sequence[int] = 104,
    channels: int | Sequence[str] = 6,
    *,
    seed: int = 0,
    l_max: int = 12,
    noise: float = 0.05,
    spread: float = 1.0,
) -> SimulatedMarkets:
    """Weekly sales and spend of any number of markets, weeks and channels, with known truth.

        sales[g,t] = intercept_g + trend_g years + seasonality_g . Fourier(t) + control_g (price - 100)
                     + event_g holiday(t) + sum_c coef[g,c] hill(carried[g,t,c]) + Normal(0, sigma_g)
        carried    = sum_l w_l spend[t-l] / sum_l w_l over l = 0 .. l_max-1, no spend before a market's first week
        w_l        = alpha^l (geometric) or alpha^((l - theta)^2) (delayed)
        hill(x)    = x^s / (x^s + k^s)

    Every parameter of market g and channel c, on an unconstrained scale (logit alpha, logit theta / (l_max - 1),
    log k in typical active weeks of spend, log s, log of the contribution in such a week), is the channel's population
    value plus sd N(0, 1); coef = contribution (1 + k^s). The baseline's coefficients likewise, on their own scale,
    as shares of the market's mean sales; the intercept is what is left of that mean.

    The channels are of six kinds, taken in turn: always on (meta), nearly so (spotify_ads, tiktok), in flights with
    weeks off (youtube, radio; delayed adstock), in short pulses (playlist). What the channels of a market plan for
    the same period is moderately correlated. With more than six channels each brings and costs less in proportion.

    Args:
        geos: how many, or their names. Mean weekly sales are lognormal about 40,000 euro.
        weeks: of all, or one number per geo; all series end in the week of 29 December 2025.
        channels: how many, or their names.
        seed: of NumPy's default generator; the same seed gives the same data.
        l_max: weeks in which a week's spend acts, its own included.
        noise: sd of the noise in the typical market, as a share of its mean sales; at most 0.15.
        spread: factor on all between-market sds; 0 makes all markets alike but for their size.

    Returns:
        The table and its truth.

    Raises:
        ArgumentError: a number out of range; a name that is blank, repeated or another column's; weeks of more or
            fewer geos than there are; a spread so wide that a market's media bring more than all its sales.

    Source: adstock and saturation of Jin, Wang, Sun, Chan and Koehler 2017, equations (1) to (5), with markets as in
    Sun, Wang, Jin, Chan and Koehler 2017.

    >>> small = simulate_media(geos=["north", "south"], weeks=[30, 8], channels=2, seed=1)
    >>> print(small.frame[["date", "market", "sales", "spotify_ads", "meta"]].tail(3).to_string(index=False))
          date market    sales  spotify_ads    meta
    2025-12-15  south 73329.02      4130.71 2052.97
    2025-12-22  south 72351.21      3616.93 2064.51
    2025-12-29  south 64583.61         0.00 1704.65
    >>> small.truth["coef"].sel(geo="south").round().values
    array([10616., 13958.])
    """
    if isinstance(geos, str) or not isinstance(geos, Sequence):
        number = whole("geos", geos, 1)
        geos = [f"market_{place:0{len(str(number))}d}" for place in range(1, number + 1)]
    if isinstance(channels, str) or not isinstance(channels, Sequence):
        kinds = list(CHANNELS)
        rounds = [divmod(place, len(kinds)) for place in range(whole("channels", channels, 1))]
        channels = [kinds[kind] + (f"_{turn + 1}" if turn else "") for turn, kind in rounds]
    _check_names("geos", geos, ())
    _check_names("channels", channels, ("date", "market", "sales", CONTROL, EVENT))
    lengths = list(weeks) if isinstance(weeks, Sequence) and not isinstance(weeks, str) else [weeks] * len(geos)
    if len(lengths) != len(geos):
        raise ArgumentError(f"weeks is one number, or one for each of the {len(geos)} geos; {len(lengths)} were given")
    lengths = [whole(f"weeks of geo {name!r}", value, 2, MAX_WEEKS) for name, value in zip(geos, lengths, strict=True)]
    # A window of 4 weeks is the shortest that the longest delay fits in.
    l_max = whole("l_max", l_max, 4)
    noise, spread = _up_to("noise", noise, MAX_NOISE), _up_to("spread", spread, MAX_SPREAD)
    rng = np.random.default_rng(whole("seed", seed, 0))
    levels = (MEDIAN_SALES * np.exp(0.7 * rng.standard_normal(len(geos)))).round(-2)
    return simulate(
        dict(zip(geos, levels.tolist(), strict=True)),
        lengths,
        _in_turn(channels),
        LAST_WEEK,
        l_max=l_max,
        noise=noise,
        spread=spread,
        rng=rng,
    )


def _up_to(name: str, value: Any, most: float) -> float:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not 0 <= value <= most:
        raise ArgumentError(f"{name} is a number from 0 to {most:g}, not {value!r}")
    return float(value)


def _check_names(what: str, names: Sequence[Any], others: Sequence[str]) -> None:
    if not names:
        raise ArgumentError(f"{what} is empty; give at least one name, or a number")
    for place, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ArgumentError(f"{what}: name {place + 1} is {name!r}; give text that is not blank")
        if name in others:
            raise ArgumentError(f"{what}: {name!r} is the name of another column of the table; choose another")
        if name in names[:place]:
            raise ArgumentError(f"{what}: {name!r} stands there twice; name them apart")


def _in_turn(names: Sequence[str]) -> dict[str, Channel]:
    """The kinds of channel by name, in turn; past six of them, each is scaled to leave the sum as it was."""
    kinds = [list(CHANNELS.values())[place % len(CHANNELS)] for place in range(len(names))]
    six = sum(kind.contribution for kind in CHANNELS.values())
    share = min(1.0, six / sum(kind.contribution for kind in kinds))
    return {
        name: replace(kind, contribution=share * kind.contribution, cost=share * kind.cost)
        for name, kind in zip(names, kinds, strict=True)
    }
