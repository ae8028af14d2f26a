"""Budget allocation: the split over geos and channels with the best expected, or cautious, response of a media mix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy.stats import beta

from pelton.engine.arguments import central, positive, whole
from pelton.engine.errors import ArgumentError, UnknownNameError
from pelton.models import response_programs as programs
from pelton.models.allocation_limits import Limits, read_limits
from pelton.models.allocation_solver import Optimum, best_plan
from pelton.models.attribution import roas
from pelton.models.response import THINNED_DRAWS, Response

# Numbers in draws x geos x periods x channels that one look at a plan may cost, as long as enough draws are left.
PLAN_NUMBERS = 2**22
LEAST_DRAWS = 200
PLANS = ("optimum", "proportional", "today")


@dataclass(frozen=True)
class Allocation:
    """A budget split, what it is expected to bring, and how far it can be trusted to be the best.

    Attributes:
        table: rows (geo, channel): today (money over the horizon at today's rate), spend (the optimum's), as_today and
            by_roas (the other two plans'), change (spend - today), low and high (the line's bounds), response_mean,
            response_low, response_high (target units, over the horizon and the carryover after it), marginal (target
            per further unit of money), highest (the most that a period has seen, times the periods), beyond (whether
            spend is above it: the response there is the curve's extrapolation), held ("fixed", "never bought" or "").
        plans: rows optimum, proportional (the rule: shares in proportion to mean ROAS), today (today's split, scaled to
            the budget): spend, response_mean, response_low, response_high, objective, gain_mean, gain_low, gain_high
            (over today's split, draw by draw), p_better (than today's split), within_bounds.
        responses: each plan's total response by draw (plan, draw).
        budget, periods, objective, probability: as asked for.
        draws: that the expectations are taken over.
        kkt: residual of the optimality conditions relative to the largest marginal return: 1e-3 says that marginal
            returns are equal to a thousandth where no bound holds them apart. A quantile's order of draws leaves a
            few percent.
        gap: (upper bound - objective) / upper bound: what a better split could bring at the most, by weak duality on
            the tabulated curves; NaN for a quantile, which is no sum over lines.
        attempts: rows per start of the solver, the best first: objective (on the tabulated curves) and converged.
        notes: sentences on what a reader should know before acting.
    """

    table: pd.DataFrame
    plans: pd.DataFrame
    responses: xr.DataArray
    budget: float
    periods: int
    objective: str | float
    probability: float
    draws: int
    kkt: float
    gap: float
    attempts: pd.DataFrame
    notes: tuple[str, ...]


def allocate(
    tree: xr.DataTree | Response,
    budget: float,
    periods: int = 13,
    bounds: Sequence[Any] | Mapping[Any, Any] | None = None,
    money_bounds: Mapping[Any, Any] | None = None,
    fixed: Any = None,
    objective: str | float = "mean",
    geos: Any = None,
    seed: int = 0,
    probability: float = 0.94,
) -> Allocation:
    """The split of a budget over (geo, channel) lines that maximises the response, over the posterior draws.

        maximise  E_d[R_d(s)]  or a lower quantile of R_d(s),   sum s = budget,  bounds,
        R_d(s) = sum_{g,c} sum_t coef[g,c] saturation_c(s[g,c] / periods * m[g,c] * a_d[g,t,c])

    A line spends the same in each of the periods and nothing after. a_d is the adstock of one unit of media a period
    over the horizon and the carryover after it, from no carry-in, so that every plan is charged with its own build-up
    and credited with its whole effect; m is the media that a unit of money buys. The whole budget is spent.

    Args:
        tree: of MediaMix or country_mix.
        budget: money to split over the horizon.
        periods: of the horizon; 13 weeks are a quarter.
        bounds: multiples of today's spend (the mean of each geo's last year, over the horizon): (lowest, highest) for
            every line, or a mapping from a channel or geo (its total), or a line (geo, channel), to such a pair; None
            is an open end.
        money_bounds: the same in money over the horizon, as a mapping.
        fixed: lines, channels or geos that stay at today's spend, or a mapping from lines to money over the horizon
            (None for today's). They are part of the budget.
        objective: "mean", or the probability of a quantile, such as 0.1 to be safe rather than sorry.
        geos: those that share the budget; all unless given.
        seed: of the random starts.
        probability: of the central intervals.

    A line that its geo never paid for gets nothing unless it is named by itself in bounds, money_bounds or fixed. Draws
    are thinned evenly to at most 1,000, and to fewer (at least 200) where lines and periods are many.

    The quantile is that of Harrell & Davis 1982 (Biometrika 69), a weighted mean of all ordered draws, which is smooth
    where an order statistic is not.

    Raises:
        ArgumentError: a budget or number of periods that is not positive; bounds that are negative, in the wrong order,
            contradictory or out of reach of the budget; a line that is fixed twice, or fixed and bounded.
        UnknownNameError: a geo or channel that the tree does not have; the message gives the nearest.
        DataError: the tree is not one of a media mix.

    >>> import pelton
    >>> data = pelton.simulate_media(geos=["north"], weeks=30, channels=2)
    >>> model = pelton.MediaMix(pelton.Panel.from_frame(data.frame, **data.columns))
    >>> tree = pelton.approximate(model, "map")  # one draw, for brevity; pelton.sample(model) in earnest
    >>> round(float(allocate(tree, 20_000, bounds=(0.5, 2.0)).table["spend"].sum()))
    20000
    """
    low, high = central(probability)
    weights_of = _objective(objective)
    budget = positive("budget", budget, "an amount of money above 0")
    plan = _Plan.of(_chosen(Response.of(tree), geos), whole("periods", periods, 1))
    known = plan.known
    today = plan.today
    limits = read_limits(
        known.geos,
        known.channels,
        budget,
        today,
        np.einsum("gtc,gt->gc", known.spend, known.active) > 0,
        np.isfinite(plan.price).any(axis=0),
        bounds,
        money_bounds,
        fixed,
    )
    weights = weights_of(known.draws)
    rivals = {"proportional": _proportional(known, limits, today), "today": _scaled(limits, today, today)}

    starts = [(name, rivals[name]) for name in ("today", "proportional")]
    source = np.random.default_rng(seed)
    starts.append(("random", _scaled(limits, source.exponential(size=today.shape), today)))
    optimum = best_plan(plan.respond, weights, objective == "mean", limits, starts)
    spends = {"optimum": optimum.plan, **rivals}
    responses, objectives, slope = {}, {}, np.zeros(today.shape)
    for name, spend in reversed(spends.items()):
        responses[name], slope = plan.respond(spend)
        totals = responses[name].sum(axis=(1, 2))
        objectives[name] = float(weights(totals) @ totals)
        slope = np.einsum("dgc,d->gc", slope, weights(totals))
    gap = (optimum.bound - objectives["optimum"]) / abs(optimum.bound)
    table = _lines(plan, limits, spends, responses["optimum"], slope, (low, high))
    return Allocation(
        table=table,
        plans=_plans(limits, spends, responses, objectives, (low, high)),
        responses=xr.DataArray(
            np.stack([responses[name].sum(axis=(1, 2)) for name in PLANS]), {"plan": list(PLANS)}, ("plan", "draw")
        ),
        budget=budget,
        periods=int(periods),
        objective=objective,
        probability=probability,
        draws=known.draws,
        kkt=optimum.kkt,
        gap=float(gap),
        attempts=pd.DataFrame(
            [(attempt.objective, attempt.converged) for attempt in optimum.attempts],
            columns=["objective", "converged"],
            index=pd.Index([attempt.start for attempt in optimum.attempts], name="start"),
        ),
        notes=_notes(table, optimum, float(gap), known),
    )


@dataclass(frozen=True, eq=False)
class _Plan:
    """The response of constant spend over a horizon.

    Attributes:
        known: the thinned tree.
        periods: of the horizon.
        carried: adstock of one unit of media a period over the horizon [draw, geo, period, channel].
        price: media that a unit of money buys [geo, channel].
    """

    known: Response
    periods: int
    carried: Float[np.ndarray, "draw geo period channel"]
    price: Float[np.ndarray, "geo channel"]

    @classmethod
    def of(cls, known: Response, periods: int) -> "_Plan":
        length = periods + known.reach
        size = len(known.geos) * length * len(known.channels)
        known = known.thin(min(THINNED_DRAWS, max(LEAST_DRAWS, PLAN_NUMBERS // size)))
        pulse = np.zeros((len(known.geos), periods + known.reach, len(known.channels)))
        pulse[:, :periods] = 1.0
        return cls(known, periods, known.carried(pulse), known.media_a_unit_of_money)

    @property
    def today(self) -> Float[np.ndarray, "geo channel"]:
        """Money over the horizon at today's rate."""
        return self.known.recent_spend() * self.periods

    def respond(self, spend: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Response and its slope by the line's own money [draw, geo, channel]."""
        rate = np.nan_to_num(self.price) / self.periods
        args = (self.known.values, self.known.coef, self.carried, spend * rate)
        response, slope = programs.run(programs.build_plan, self.known.forms, args)
        return response, slope * rate


def _chosen(known: Response, geos: Any) -> Response:
    if geos is None:
        return known
    names = [geos] if isinstance(geos, str) else [str(name) for name in geos]
    for name in names:
        if name not in known.geos:
            raise UnknownNameError("geo", name, known.geos)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ArgumentError(f"geos names {twice!r} twice")
    if not names:
        raise ArgumentError("geos is empty; name those that share the budget, or leave it out for all")
    return known.take(geos=np.array([known.geos.index(name) for name in names]))


def _objective(objective: str | float) -> Any:
    """draws -> (totals [draw] -> the weight of each draw's total in the objective)."""
    if objective == "mean":
        return lambda draws: lambda totals: np.full(draws, 1.0 / draws)
    if isinstance(objective, bool | str) or not isinstance(objective, int | float | np.number) or not 0 < objective < 1:
        raise ArgumentError(f"objective is 'mean' or the probability of a quantile, such as 0.1, not {objective!r}")
    probability = float(objective)

    def of(draws: int) -> Any:
        edges = beta((draws + 1) * probability, (draws + 1) * (1 - probability)).cdf(np.arange(draws + 1) / draws)
        by_rank = np.diff(edges)

        def weights(totals: np.ndarray) -> np.ndarray:
            found = np.empty(draws)
            found[np.argsort(totals, kind="stable")] = by_rank
            return found

        return weights

    return of


def _scaled(limits: Limits, shares: np.ndarray, today: np.ndarray) -> np.ndarray:
    """The budget over the free lines in proportion to shares, beside the fixed ones; evenly where there are none."""
    free = limits.free & (limits.held == "")
    plan = np.where(free, 0.0, limits.low)
    shares = np.where(free, shares, 0.0)
    if not shares.sum() > 0:
        shares = np.where(free, today if (today * free).sum() > 0 else 1.0, 0.0)
    if free.any():
        plan = plan + (limits.budget - plan.sum()) * shares / shares.sum()
    return plan


def _proportional(known: Response, limits: Limits, today: np.ndarray) -> np.ndarray:
    """The rule of thumb: money in proportion to the mean ROAS of all weeks, none where it is negative or unknown."""
    mean = np.asarray(roas(known).mean(("chain", "draw"), skipna=False))
    return _scaled(limits, np.maximum(np.nan_to_num(mean), 0.0), today)


def _lines(
    plan: _Plan,
    limits: Limits,
    spends: dict[str, np.ndarray],
    response: np.ndarray,
    slope: np.ndarray,
    tails: tuple[float, float],
) -> pd.DataFrame:
    spend = spends["optimum"]
    low, high = np.quantile(response, tails, axis=0)
    highest = plan.known.spend.max(axis=1) * plan.periods
    index = pd.MultiIndex.from_product([limits.geos, limits.channels], names=["geo", "channel"])
    columns = {
        "today": plan.today,
        "spend": spend,
        "as_today": spends["today"],
        "by_roas": spends["proportional"],
        "change": spend - plan.today,
        "low": limits.low,
        "high": limits.high,
        "response_mean": response.mean(axis=0),
        "response_low": low,
        "response_high": high,
        "marginal": slope,
        "highest": highest,
        "beyond": spend > highest * (1 + 1e-9),
        "held": limits.held,
    }
    return pd.DataFrame({name: np.ravel(values) for name, values in columns.items()}, index=index)


def _plans(
    limits: Limits,
    spends: dict[str, np.ndarray],
    responses: dict[str, np.ndarray],
    objectives: dict[str, float],
    tails: tuple[float, float],
) -> pd.DataFrame:
    rows = {}
    before = responses["today"].sum(axis=(1, 2))
    for name in PLANS:
        total = responses[name].sum(axis=(1, 2))
        gain = total - before
        edges, gains = np.quantile(total, tails), np.quantile(gain, tails)
        rows[name] = {
            "spend": spends[name].sum(),
            "response_mean": total.mean(),
            "response_low": edges[0],
            "response_high": edges[1],
            "objective": objectives[name],
            "gain_mean": gain.mean(),
            "gain_low": gains[0],
            "gain_high": gains[1],
            "p_better": np.nan if name == "today" else np.mean(gain > 0),
            "within_bounds": limits.allows(spends[name]),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("plan")


def _notes(table: pd.DataFrame, optimum: Optimum, gap: float, known: Response) -> tuple[str, ...]:
    notes = []

    def lines(chosen: np.ndarray) -> str:
        names = [f"{geo} / {channel}" for geo, channel in table.index[chosen]]
        return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

    beyond, idle = np.asarray(table["beyond"], bool), np.asarray(table["held"] == "never bought")
    if beyond.any():
        notes.append(
            f"{lines(beyond)}: the optimum spends more in a period than was ever seen there, where the response is the "
            "curve's extrapolation; bound these lines or test them first"
        )
    if idle.any():
        notes.append(f"{lines(idle)}: never paid for, and left at 0; name a line in money_bounds to let it take money")
    if optimum.kkt > 5e-2:
        notes.append(
            f"marginal returns are equal to {optimum.kkt:.1%} only: the response is nearly flat there, or the solver "
            "stopped early"
        )
    if gap > 1e-3:
        notes.append(
            f"no split can bring more than {gap:.2%} above this one; with S-shaped curves and few lines that bound is "
            "loose, and neither the other starts nor the search over a grid found a better split"
        )
    if known.cut_off > 0:
        notes.append(f"carryover without end was followed for {known.reach} periods; {known.cut_off:.1%} is left then")
    return tuple(notes)
