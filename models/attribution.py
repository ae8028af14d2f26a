"""What the media of a mix brought: contributions, ROAS, marginal ROAS, response curves and the fit, from its tree."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from pelton.engine.arguments import central
from pelton.engine.errors import ArgumentError, DataWarning, UnknownNameError
from pelton.models.response import Response

# First and last date, either of which may be None.
type Window = Sequence[Any]

# The row of a table that stands for all geos together.
ALL = "all"
WITHOUT_SPEND = "NaN: nothing was spent there in the window, so that there is no spend to divide by"


def summarise(draws: xr.DataArray, probability: float = 0.94) -> pd.DataFrame:
    """Mean, sd, median and the central interval of each cell of an array of draws.

    Args:
        draws: (chain, draw, ...), such as of `roas`.
        probability: of the interval.

    Returns:
        One row a cell, labelled by the remaining dimensions: mean, sd, low, median, high.

    >>> import numpy as np, xarray as xr
    >>> values = np.arange(200.0).reshape(2, 50, 2)
    >>> draws = xr.DataArray(values, {"geo": ["A", "B"]}, dims=("chain", "draw", "geo"))
    >>> summarise(draws)["mean"].tolist()
    [99.0, 100.0]
    """
    low, high = central(probability)
    cells = [str(dim) for dim in draws.dims if dim not in ("chain", "draw")]
    values = np.asarray(draws.transpose("chain", "draw", *cells), dtype=np.float64)
    values = values.reshape(values.shape[0] * values.shape[1], -1)
    quantiles = np.quantile(values, [low, 0.5, high], axis=0)
    table = {
        "mean": values.mean(axis=0),
        "sd": values.std(axis=0, ddof=1),
        **{name: quantiles[at] for at, name in enumerate(("low", "median", "high"))},
    }
    labels = [np.asarray(draws[dim]) for dim in cells]
    if not cells:
        return pd.DataFrame(table)
    index = pd.MultiIndex.from_product(labels, names=cells) if len(cells) > 1 else pd.Index(labels[0], name=cells[0])
    return pd.DataFrame(table, index=index)


def contributions(tree: xr.DataTree | Response, probability: float = 0.94) -> xr.Dataset:
    """What each channel and each part of the baseline adds to the target, week by week and in all.

    In every draw the components of a week sum to the prediction, and so do their means, and the weeks' means to the
    totals' means; ends of intervals do not sum. Means and totals are of all draws, intervals of weekly values of at
    most 1,000 evenly spaced ones.

    Args:
        tree: of MediaMix or country_mix.
        probability: of the central intervals.

    Returns:
        In target units, with `component` running over the channels and then the parts of the baseline (the coordinate
        `kind` says media or baseline):

        - mean, low, high (geo, time, component); NaN outside a geo's span
        - prediction_mean, prediction_low, prediction_high (geo, time)
        - total_mean, total_low, total_high (geo, component): over the geo's weeks
        - all_mean, all_low, all_high (component): over all geos
        - share_mean, share_low, share_high (component): of the prediction's sum over all geos and weeks

    Raises:
        DataError: the tree is not one of a media mix.
        ArgumentError: probability outside (0, 1).

    >>> import pelton
    >>> data = pelton.simulate_media(geos=["north"], weeks=30, channels=1)
    >>> model = pelton.MediaMix(pelton.Panel.from_frame(data.frame, **data.columns))
    >>> tree = pelton.approximate(model, "map")  # one draw, for brevity; pelton.sample(model) in earnest
    >>> contributions(tree)["component"].values.tolist()
    ['spotify_ads', 'intercept', 'control', 'event']
    """
    known, (low, high) = Response.of(tree), central(probability)
    weekly, _ = known.summed
    outside = ~known.inside[..., None]
    mean = np.concatenate([weekly, known.baseline_mean], axis=-1)
    limits = np.empty((2, *mean.shape))
    predicted = np.empty((2, *mean.shape[:2]))
    thinned = known.thin()
    for geo in range(len(known.geos)):
        one = thinned.take(geos=slice(geo, geo + 1))
        drawn = np.concatenate([one.contributions(), one.baseline()], axis=-1)[:, 0]
        limits[:, geo] = np.quantile(drawn, [low, high], axis=0)
        predicted[:, geo] = np.quantile(drawn.sum(axis=-1), [low, high], axis=0)
    totals = contribution_draws(known)
    flat = np.asarray(totals).reshape(-1, *totals.shape[2:])
    everywhere = flat.sum(axis=1)
    share = everywhere / everywhere.sum(axis=-1, keepdims=True)
    week, cell = ("geo", "time", "component"), ("geo", "component")
    variables: dict[str, Any] = {
        "mean": (week, np.where(outside, np.nan, mean)),
        "low": (week, np.where(outside, np.nan, limits[0])),
        "high": (week, np.where(outside, np.nan, limits[1])),
        "prediction_mean": (week[:2], np.where(known.inside, mean.sum(axis=-1), np.nan)),
        "prediction_low": (week[:2], np.where(known.inside, predicted[0], np.nan)),
        "prediction_high": (week[:2], np.where(known.inside, predicted[1], np.nan)),
    }
    for name, dims, values in (("total", cell, flat), ("all", cell[1:], everywhere), ("share", cell[1:], share)):
        quantiles = np.quantile(values, [low, high], axis=0)
        variables |= {
            f"{name}_mean": (dims, values.mean(axis=0)),
            f"{name}_low": (dims, quantiles[0]),
            f"{name}_high": (dims, quantiles[1]),
        }
    return xr.Dataset(
        variables,
        {"geo": list(known.geos), "time": known.dates.astype("datetime64[ns]"), **_components(known)},
        {"draws": known.draws, "interval_draws": thinned.draws, "probability": probability},
    )


def contribution_draws(tree: xr.DataTree | Response) -> xr.DataArray:
    """Each draw's sum of every component over the weeks inside a geo's span.

    Returns:
        (chain, draw, geo, component) in target units, the components as in `contributions`; their sum over components
        is the prediction's.
    """
    known = Response.of(tree)
    values = np.concatenate([known.summed[1], known.baseline_totals], axis=-1)
    return _draws(known, values, {"geo": list(known.geos), **_components(known)}, ("geo", "component"))


def contribution_table(tree: xr.DataTree | Response, probability: float = 0.94) -> pd.DataFrame:
    """The totals of `contributions` as a table, all geos together first.

    Args:
        tree: of MediaMix or country_mix.
        probability: of the central intervals.

    Returns:
        Rows (geo, component); columns kind, mean, low, high in target units and share, share_low, share_high of the sum
        of the geo's prediction.

    >>> import pelton
    >>> data = pelton.simulate_media(geos=["north"], weeks=30, channels=1)
    >>> model = pelton.MediaMix(pelton.Panel.from_frame(data.frame, **data.columns))
    >>> tree = pelton.approximate(model, "map")  # one draw, for brevity; pelton.sample(model) in earnest
    >>> table = contribution_table(tree)
    >>> round(float(table.loc["north", "share"].sum()), 6)
    1.0
    """
    known, (low, high) = Response.of(tree), central(probability)
    draws = contribution_draws(known)
    flat = np.asarray(draws).reshape(-1, *draws.shape[2:])
    flat = np.concatenate([flat.sum(axis=1, keepdims=True), flat], axis=1)
    share = flat / flat.sum(axis=-1, keepdims=True)
    columns: dict[str, np.ndarray] = {}
    for prefix, values in (("", flat), ("share", share)):
        quantiles = np.quantile(values, [low, high], axis=0)
        columns[prefix or "mean"] = values.mean(axis=0).ravel()
        columns[f"{prefix}_low".lstrip("_")] = quantiles[0].ravel()
        columns[f"{prefix}_high".lstrip("_")] = quantiles[1].ravel()
    components = np.asarray(draws["component"])
    index = pd.MultiIndex.from_product([[ALL, *known.geos], components], names=["geo", "component"])
    table = pd.DataFrame(columns, index=index)
    table.insert(0, "kind", np.tile(np.asarray(draws["kind"]), len(known.geos) + 1))
    return _once(table, known)


def roas(
    tree: xr.DataTree | Response, by: Sequence[str] = ("geo", "channel"), window: Window | None = None
) -> xr.DataArray:
    """Return on advertising spend: what the spend of a window brought, over that spend.

        ROAS = (sum_t f(x)[t] - sum_t f(x without the window's)[t]) / sum_{t in window} spend[t]

    where x is the media up to the window's end and nothing after, f the response coef saturation(adstock(x)), and the
    sums run past the window's end for as long as the spend acts (l_max - 1 periods), also where the data end. Media
    before the window stay as they were, so that the window's spend meets the saturation that it met. Carryover without
    end is followed until a millionth is left (see `Response.reach`).

    Args:
        tree: of MediaMix or country_mix.
        by: ("geo", "channel"), ("channel",), ("geo",) or (): sums of effects over sums of spends.
        window: first and last date, either None for the data's; all weeks unless given.

    Returns:
        (chain, draw, geo, channel) less what `by` leaves out, in target units a unit of money. NaN where nothing was
        spent; the attribute `nan` says where. A sum over channels leaves out channels that cost nothing in any geo, so
        that unpaid media do not count as a return on paid ones.

    Raises:
        ArgumentError: a window without dates, or `by` with other names.
        DataError: the tree is not one of a media mix.

    Source: Jin, Wang, Sun, Chan and Koehler 2017, equations (8) and (9).

    >>> import pelton
    >>> data = pelton.simulate_media(geos=["north"], weeks=30, channels=1)
    >>> model = pelton.MediaMix(pelton.Panel.from_frame(data.frame, **data.columns))
    >>> tree = pelton.approximate(model, "map")  # one draw, for brevity; pelton.sample(model) in earnest
    >>> roas(tree).dims
    ('chain', 'draw', 'geo', 'channel')
    """
    known = Response.of(tree)
    spent, media, direction, weights = _window(known, window)
    effect = known.totals(weights, media) - known.totals(weights, media - direction)
    return _ratio(known, "roas", effect, spent, by, window)


def marginal_roas(
    tree: xr.DataTree | Response, by: Sequence[str] = ("geo", "channel"), window: Window | None = None
) -> xr.DataArray:
    """What the next unit of money brings where a channel's spend in the window rises in proportion.

        mROAS = d/de sum_t f(x with the window's media times 1 + e)[t] at e = 0, over sum_{t in window} spend[t]

    with sums past the window's end as for `roas`. Where several cells are summed, all of them rise in the same
    proportion.

    Args:
        tree, by, window: as for `roas`, whose returns and errors it shares.

    Source: Jin et al. 2017, equation (10), with the derivative in place of a 1% step.

    >>> import pelton
    >>> data = pelton.simulate_media(geos=["north"], weeks=30, channels=1)
    >>> model = pelton.MediaMix(pelton.Panel.from_frame(data.frame, **data.columns))
    >>> tree = pelton.approximate(model, "map")  # one draw, for brevity; pelton.sample(model) in earnest
    >>> bool((marginal_roas(tree) < roas(tree)).all())  # returns diminish
    True
    """
    known = Response.of(tree)
    spent, media, direction, weights = _window(known, window)
    return _ratio(known, "marginal_roas", known.slopes(weights, direction, media), spent, by, window)


def roas_table(tree: xr.DataTree | Response, window: Window | None = None, probability: float = 0.94) -> pd.DataFrame:
    """ROAS and marginal ROAS of every channel in every geo and in all together.

    Args:
        tree: of MediaMix or country_mix.
        window: first and last date, as for `roas`.
        probability: of the central intervals.

    Returns:
        Rows (geo, channel), `all` geos first; columns spend (money in the window), effect (mean, target units), roas,
        roas_low, roas_high, marginal_roas, marginal_roas_low, marginal_roas_high. NaN where nothing was spent.

    >>> import pelton
    >>> data = pelton.simulate_media(geos=["north"], weeks=30, channels=1)
    >>> model = pelton.MediaMix(pelton.Panel.from_frame(data.frame, **data.columns))
    >>> tree = pelton.approximate(model, "map")  # one draw, for brevity; pelton.sample(model) in earnest
    >>> list(roas_table(tree).index)
    [('all', 'spotify_ads'), ('north', 'spotify_ads')]
    """
    known = Response.of(tree)
    low, high = central(probability)
    spent, media, direction, weights = _window(known, window)
    effect = known.totals(weights, media) - known.totals(weights, media - direction)
    slope = known.slopes(weights, direction, media)
    spent = np.concatenate([spent.sum(axis=0, keepdims=True), spent])
    columns: dict[str, np.ndarray] = {"spend": spent.ravel()}
    for name, values in (("roas", effect), ("marginal_roas", slope)):
        summed = np.concatenate([values.sum(axis=1, keepdims=True), values], axis=1)
        if name == "roas":
            columns["effect"] = summed.mean(axis=0).ravel()
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(spent > 0, summed / spent, np.nan)
        columns[name] = ratio.mean(axis=0).ravel()
        columns[f"{name}_low"], columns[f"{name}_high"] = (
            edge.ravel() for edge in np.quantile(ratio, [low, high], axis=0)
        )
    index = pd.MultiIndex.from_product([[ALL, *known.geos], known.channels], names=["geo", "channel"])
    return _once(pd.DataFrame(columns, index=index), known)


def _once(table: pd.DataFrame, known: Response) -> pd.DataFrame:
    """Without a second set of rows for a panel of one geo that bears the name of all together."""
    return table.iloc[: len(table) // 2] if tuple(known.geos) == (ALL,) else table


def response_curves(
    tree: xr.DataTree | Response, points: int = 41, up_to: float | None = None, probability: float = 0.94
) -> xr.Dataset:
    """Steady response a period to a constant spend a period, once carryover has built up.

        r(s) = coef saturation(W m s),  W the sum of the adstock weights, m the media that a unit of money buys

    Args:
        tree: of MediaMix or country_mix.
        points: on the curve, from 0 on.
        up_to: the highest spend as a multiple of today's; unless given, the larger of twice today's and the highest
            week that the geo has seen.
        probability: of the central intervals; of at most 1,000 evenly spaced draws.

    Returns:
        (geo, channel, point): spend (money a period), mean, low, high (target units a period); (geo, channel): today
        (the mean of the geo's last year), today_mean, today_low, today_high (the response there) and highest (the
        highest week seen). NaN for a channel that nobody ever paid for: its media have no price. A channel that its geo
        never paid for has the price of all geos together, and a curve up to the week that the model takes for typical.

    Raises:
        ArgumentError: fewer than two points, up_to not positive, or probability outside (0, 1).

    >>> import pelton
    >>> data = pelton.simulate_media(geos=["north"], weeks=30, channels=1)
    >>> model = pelton.MediaMix(pelton.Panel.from_frame(data.frame, **data.columns))
    >>> tree = pelton.approximate(model, "map")  # one draw, for brevity; pelton.sample(model) in earnest
    >>> dict(response_curves(tree, points=11).sizes)
    {'geo': 1, 'channel': 1, 'point': 11}
    """
    if points < 2:
        raise ArgumentError(f"points is at least 2, not {points!r}")
    if up_to is not None and not (np.isfinite(up_to) and up_to > 0):
        raise ArgumentError(f"up_to is a positive multiple of today's spend, not {up_to!r}")
    low, high = central(probability)
    known = Response.of(tree).thin()
    price = known.media_a_unit_of_money
    today, highest = known.recent_spend(), known.spend.max(axis=1)
    most = np.maximum(2 * today, highest) if up_to is None else up_to * today
    most = np.where(most > 0, most, known.media_scale / price)
    spend = most[..., None] * np.linspace(0.0, 1.0, points)
    levels = np.concatenate([spend, today[..., None]], axis=-1)
    found = np.empty((3, *levels.shape))
    for geo in range(len(known.geos)):
        one = known.take(geos=slice(geo, geo + 1))
        media = np.swapaxes(levels[geo] * price[geo, :, None], 0, 1)
        drawn = one.saturated(one.steady()[:, :, None, :] * media)[:, 0]
        # The kernels take media that are not a number for none.
        drawn = np.where(np.isnan(media), np.nan, drawn)
        mean, limits = drawn.mean(axis=0), np.quantile(drawn, [low, high], axis=0)
        found[:, geo] = np.swapaxes(np.stack([mean, *limits]), 1, 2)
    curve, cell = ("geo", "channel", "point"), ("geo", "channel")
    names = ("mean", "low", "high")
    variables: dict[str, Any] = {"spend": (curve, spend), "today": (cell, today), "highest": (cell, highest)}
    variables |= {name: (curve, found[at, ..., :-1]) for at, name in enumerate(names)}
    variables |= {f"today_{name}": (cell, found[at, ..., -1]) for at, name in enumerate(names)}
    coords = {"geo": list(known.geos), "channel": list(known.channels), "point": np.arange(points)}
    return xr.Dataset(variables, coords, {"draws": known.draws, "probability": probability})


@dataclass(frozen=True)
class Fit:
    """How well a model describes the data that it was fitted to.

    Attributes:
        weeks: rows (geo, time) inside each geo's span: observed (NaN where masked), mean, low, high (of the expected
            target), noise_low, noise_high (of a new observation).
        geos: rows per geo, and `all`: weeks (observed), r2 = 1 - SS(observed - mean) / SS(observed - its mean), mape =
            mean |observed - mean| / |observed| over weeks that are not zero, zero_weeks (those left out), coverage
            (share of weeks within the noise interval). r2 is NaN where the target does not vary.
    """

    weeks: pd.DataFrame
    geos: pd.DataFrame


def fit(tree: xr.DataTree | Response, probability: float = 0.94) -> Fit:
    """The predicted target beside the observed one.

    The mean is of all draws, intervals of at most 1,000 evenly spaced ones; noise is drawn once a draw and week, by the
    run's seed.

    Args:
        tree: of MediaMix or country_mix.
        probability: of the central intervals.

    Raises:
        DataError: the tree is not one of a media mix.
        ArgumentError: probability outside (0, 1).
    """
    known, (low, high) = Response.of(tree), central(probability)
    mean = known.summed[0].sum(axis=-1) + known.baseline_mean.sum(axis=-1)
    limits = np.empty((4, *mean.shape))
    thinned, source = known.thin(), np.random.default_rng([known.seed, 11])
    for geo in range(len(known.geos)):
        one = thinned.take(geos=slice(geo, geo + 1))
        drawn = one.prediction()[:, 0]
        noise = source.normal(size=drawn.shape) if one.nu is None else source.standard_t(one.nu, size=drawn.shape)
        limits[:2, geo] = np.quantile(drawn, [low, high], axis=0)
        limits[2:, geo] = np.quantile(drawn + one.sigma * noise, [low, high], axis=0)
    at = np.nonzero(known.inside)
    names = ("low", "high", "noise_low", "noise_high")
    weeks = pd.DataFrame(
        {
            "observed": known.target[at],
            "mean": mean[at],
            **{name: limits[(edge, *at)] for edge, name in enumerate(names)},
        },
        index=pd.MultiIndex.from_arrays(
            [np.array(known.geos, dtype=object)[at[0]], known.dates[at[1]].astype("datetime64[ns]")],
            names=["geo", "time"],
        ),
    )
    rows = {ALL: _quality(weeks)} | {geo: _quality(weeks.loc[[geo]]) for geo in known.geos}
    return Fit(
        weeks, pd.DataFrame.from_dict(rows, orient="index").rename_axis("geo").astype({"weeks": int, "zero_weeks": int})
    )


def _quality(weeks: pd.DataFrame) -> dict[str, float]:
    weeks = weeks.loc[weeks["observed"].notna()]
    observed, mean = weeks["observed"].to_numpy(), weeks["mean"].to_numpy()
    error, spread = observed - mean, float(np.sum((observed - observed.mean()) ** 2)) if len(weeks) else 0.0
    counted = observed != 0
    inside = (observed >= weeks["noise_low"].to_numpy()) & (observed <= weeks["noise_high"].to_numpy())
    return {
        "weeks": len(weeks),
        "r2": 1 - float(np.sum(error**2)) / spread if spread > 0 else np.nan,
        "mape": float(np.mean(np.abs(error[counted] / observed[counted]))) if counted.any() else np.nan,
        "zero_weeks": int((~counted).sum()),
        "coverage": float(inside.mean()) if len(weeks) else np.nan,
    }


def _components(known: Response) -> dict[str, Any]:
    # A channel may be called as a part of the baseline is.
    parts = [f"baseline: {part}" if part in known.channels else part for part in known.baseline_parts]
    kind = ["media"] * len(known.channels) + ["baseline"] * len(parts)
    return {"component": [*known.channels, *parts], "kind": ("component", kind)}


def _draws(known: Response, values: np.ndarray, coords: dict[str, Any], dims: tuple[str, ...]) -> xr.DataArray:
    """Values [draw, ...] as (chain, draw, ...)."""
    shaped = values.reshape(known.chains, -1, *values.shape[1:])
    sample = {"chain": np.arange(shaped.shape[0]), "draw": np.arange(shaped.shape[1])}
    return xr.DataArray(shaped, {**sample, **coords}, ("chain", "draw", *dims))


def _window(
    known: Response, window: Window | None
) -> tuple[
    Float[np.ndarray, "geo channel"],
    Float[np.ndarray, "geo weeks channel"],
    Float[np.ndarray, "geo weeks channel"],
    Float[np.ndarray, "geo weeks"],
]:
    """Money spent in the window; media up to its end, prolonged; the window's own part of them; which weeks count."""
    first, last = _positions(known, window)
    if known.cut_off > 0:
        warnings.warn(
            f"carryover without end was followed for {known.reach} periods after the spend, as long as it is here; in "
            f"the slowest draw {known.cut_off:.2g} of an effect's start is left then and not counted. A finite l_max "
            "would say for how long media may act",
            DataWarning,
            stacklevel=3,
        )
    chosen: Bool[np.ndarray, "geo time"] = known.inside.copy()
    chosen[:, :first] = False
    chosen[:, last + 1 :] = False
    after = ((0, 0), (0, known.reach), (0, 0))
    media = np.pad(known.media[:, : last + 1], after)
    direction = np.pad((known.media * chosen[..., None])[:, : last + 1], after)
    weights = np.zeros(media.shape[:2])
    weights[:, first:] = 1.0
    return np.einsum("gtc,gt->gc", known.spend, chosen), media, direction, weights


def _positions(known: Response, window: Window | None) -> tuple[int, int]:
    """The first and last week of a window."""
    if window is None:
        return 0, len(known.dates) - 1
    if isinstance(window, str) or len(window) != 2:
        raise ArgumentError(f"window is (first date, last date), not {window!r}")
    edges = []
    for given, default in zip(window, (known.dates[0], known.dates[-1]), strict=True):
        try:
            stamp = pd.Timestamp(given) if given is not None else pd.Timestamp(default)
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"window has {given!r}, which is not a date; write it as 2024-01-31") from error
        edges.append(stamp.to_datetime64().astype("datetime64[D]"))
    within = np.flatnonzero((known.dates >= edges[0]) & (known.dates <= edges[1]))
    if not len(within):
        raise ArgumentError(
            f"the window from {edges[0]} to {edges[1]} holds none of the data's dates, which run from "
            f"{known.dates[0]} to {known.dates[-1]}"
        )
    return int(within[0]), int(within[-1])


def _ratio(
    known: Response,
    name: str,
    effect: Float[np.ndarray, "draw geo channel"],
    spent: Float[np.ndarray, "geo channel"],
    by: Sequence[str],
    window: Window | None,
) -> xr.DataArray:
    by = tuple([by] if isinstance(by, str) else by)
    for dim in by:
        if dim not in ("geo", "channel"):
            raise UnknownNameError("dimension in by", dim, ("geo", "channel"))
    if len(set(by)) != len(by):
        raise ArgumentError(f"by names a dimension twice: {by}")
    labels = {"geo": list(known.geos), "channel": list(known.channels)}
    if "channel" not in by:
        paid = spent.sum(axis=0) > 0
        effect, spent = effect[..., paid], spent[:, paid]
    for axis, dim in reversed(list(enumerate(("geo", "channel")))):
        if dim not in by:
            effect, spent = effect.sum(axis=axis + 1), spent.sum(axis=axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(spent > 0, effect / spent, np.nan)
    dims = tuple(dim for dim in ("geo", "channel") if dim in by)
    found = _draws(known, values, {dim: labels[dim] for dim in dims}, dims).transpose("chain", "draw", *by)
    where = [" / ".join(str(labels[d][i]) for d, i in zip(dims, cell, strict=True)) for cell in np.argwhere(spent <= 0)]
    first, last = _positions(known, window)
    found.name = name
    found.attrs = {
        "window": f"{known.dates[first]} to {known.dates[last]}",
        "periods_after": known.reach,
        "nan": f"{WITHOUT_SPEND}: {', '.join(where)}" if where else "",
    }
    return found
