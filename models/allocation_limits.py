"""What a plan must keep to: the budget, bounds of lines and of totals, and lines that are fixed, read and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linprog

from pelton.engine.errors import ArgumentError, UnknownNameError

# A plan may miss a bound by this share of the budget: the solvers' own tolerance.
TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Limits:
    """The plans that are allowed, in money over the horizon.

    Attributes:
        geos, channels: the lines' labels.
        budget: that every plan spends in full.
        low, high: of each line [geo, channel]; equal where the line is fixed.
        held: why a line is fixed, "" where it is free [geo, channel].
        members: lines of each bounded total [total, geo, channel].
        total_low, total_high: of the bounded totals [total].
        total_names: what they are called.
    """

    geos: tuple[str, ...]
    channels: tuple[str, ...]
    budget: float
    low: Float[np.ndarray, "geo channel"]
    high: Float[np.ndarray, "geo channel"]
    held: np.ndarray
    members: Bool[np.ndarray, "total geo channel"]
    total_low: Float[np.ndarray, " total"]
    total_high: Float[np.ndarray, " total"]
    total_names: tuple[str, ...]

    @property
    def free(self) -> Bool[np.ndarray, "geo channel"]:
        """Lines whose spend may vary."""
        return self.high > self.low

    def allows(self, plan: Float[np.ndarray, "geo channel"]) -> bool:
        """Whether a plan keeps to everything, up to rounding."""
        slack = TOLERANCE * self.budget
        totals = np.einsum("kgc,gc->k", self.members, plan)
        return bool(
            abs(plan.sum() - self.budget) <= slack
            and np.all(plan >= self.low - slack)
            and np.all(plan <= self.high + slack)
            and np.all(totals >= self.total_low - slack)
            and np.all(totals <= self.total_high + slack)
        )


def read_limits(
    geos: tuple[str, ...],
    channels: tuple[str, ...],
    budget: float,
    today: Float[np.ndarray, "geo channel"],
    bought: Bool[np.ndarray, "geo channel"],
    priced: Bool[np.ndarray, " channel"],
    bounds: Any,
    money_bounds: Mapping[Any, Any] | None,
    fixed: Any,
) -> Limits:
    """The limits of `allocation.allocate`, its arguments checked.

    Args:
        geos, channels: labels of the lines.
        budget: money over the horizon.
        today: money over the horizon at today's rate.
        bought: whether the geo ever paid for the channel; other lines stay at 0 unless named one by one.
        priced: whether anybody ever paid for the channel; others stay at 0.
        bounds, money_bounds, fixed: as for `allocate`.

    Raises:
        ArgumentError, UnknownNameError: as for `allocate`.
    """
    draft = _Draft(_Names(geos, channels), today)
    if isinstance(bounds, Mapping):
        for key, ends in bounds.items():
            draft.bound(key, ends, relative=True)
    elif bounds is not None:
        draft.bound_every_line(bounds)
    for key, ends in (money_bounds or {}).items():
        draft.bound(key, ends, relative=False)
    for key, amount in _fixed(fixed):
        draft.fix(key, amount)
    draft.hold_idle(bought, priced)
    shape = today.shape
    limits = Limits(
        geos,
        channels,
        budget,
        draft.low,
        np.minimum(draft.high, np.maximum(budget, draft.low)),
        draft.held,
        np.array([chosen for _, chosen, _, _ in draft.totals]).reshape(-1, *shape).astype(bool),
        np.array([first for _, _, first, _ in draft.totals], float),
        np.array([last for _, _, _, last in draft.totals], float),
        tuple(name for name, _, _, _ in draft.totals),
    )
    _check_feasible(limits)
    return limits


class _Draft:
    """Limits as they are read, one argument after another."""

    def __init__(self, names: "_Names", today: Float[np.ndarray, "geo channel"]):
        self.names, self.today = names, today
        self.low, self.high = np.zeros(today.shape), np.full(today.shape, np.inf)
        self.held = np.full(today.shape, "", dtype=object)
        self.named = np.zeros(today.shape, bool)
        self.totals: list[tuple[str, np.ndarray, float, float]] = []

    def bound_every_line(self, ends: Any) -> None:
        first, last = _ends("every line", ends)
        self.low = first * self.today
        self.high = np.where(self.today > 0, last * np.where(self.today > 0, self.today, 1.0), 0.0)

    def bound(self, key: Any, ends: Any, relative: bool) -> None:
        chosen, is_line = self.names.lines(key)
        text = self.names.text(key)
        first, last = _ends(text, ends)
        if relative:
            scale = float(self.today[chosen].sum())
            first, last = first * scale, last * scale if scale > 0 else 0.0
        if not is_line:
            self.totals.append((text, chosen, first, last))
            return
        self.named |= chosen
        self.low[chosen] = np.maximum(self.low[chosen], first)
        self.high[chosen] = np.minimum(self.high[chosen], last)
        if self.low[chosen][0] > self.high[chosen][0]:
            raise ArgumentError(
                f"the bounds of {text} exclude one another: at least {self.low[chosen][0]:,.2f} and at most "
                f"{self.high[chosen][0]:,.2f}"
            )

    def fix(self, key: Any, amount: Any) -> None:
        chosen, is_line = self.names.lines(key)
        text = self.names.text(key)
        if np.any(self.held[chosen] != ""):
            raise ArgumentError(f"fixed names {text} twice")
        if np.any(self.named & chosen):
            raise ArgumentError(f"{text} is both fixed and bounded; leave out one of the two")
        if amount is not None and not is_line:
            raise ArgumentError(
                f"fixed gives {amount!r} for {text}, which is more than one line; fix lines (geo, channel), or bound "
                f"the total: money_bounds={{{key!r}: ({amount!r}, {amount!r})}}"
            )
        value = self.today[chosen] if amount is None else _money(f"fixed of {text}", amount)
        self.low[chosen] = self.high[chosen] = value
        self.held[chosen] = "fixed"

    def hold_idle(self, bought: np.ndarray, priced: np.ndarray) -> None:
        """Lines that were never bought stay at nothing, unless they were named one by one."""
        asked = (self.named & (self.high > 0)) | ((self.held == "fixed") & (self.low > 0))
        for _, channel in np.argwhere(asked & ~priced[None, :]):
            raise ArgumentError(
                f"channel {self.names.channels[channel]!r} was never paid for anywhere, so that its media have no "
                "price; it can take no money"
            )
        idle = (self.held == "") & ((~bought & ~self.named) | ~priced[None, :])
        self.high[idle] = 0.0
        self.held[idle] = "never bought"


class _Names:
    """Keys of bounds and of fixed lines, looked up."""

    def __init__(self, geos: tuple[str, ...], channels: tuple[str, ...]):
        self.geos, self.channels = geos, channels

    def lines(self, key: Any) -> tuple[np.ndarray, bool]:
        """The lines [geo, channel] that a key names, and whether it is one line by itself."""
        shape = len(self.geos), len(self.channels)
        chosen = np.zeros(shape, bool)
        if isinstance(key, tuple):
            if len(key) != 2:
                raise ArgumentError(f"a line is (geo, channel), not {key!r}")
            geo, channel = map(str, key)
            if geo in self.channels and channel in self.geos and geo not in self.geos:
                raise ArgumentError(f"a line is (geo, channel); {key!r} has them the other way round")
            chosen[self._position("geo", geo, self.geos), self._position("channel", channel, self.channels)] = True
            return chosen, True
        name = str(key)
        if name in self.geos and name in self.channels:
            raise ArgumentError(f"{name!r} is both a geo and a channel; name its lines, (geo, channel)")
        if name in self.geos:
            chosen[self.geos.index(name)] = True
        elif name in self.channels:
            chosen[:, self.channels.index(name)] = True
        else:
            raise UnknownNameError("channel or geo", name, (*self.channels, *self.geos))
        return chosen, False

    @staticmethod
    def _position(kind: str, name: str, known: tuple[str, ...]) -> int:
        if name not in known:
            raise UnknownNameError(kind, name, known)
        return known.index(name)

    @staticmethod
    def text(key: Any) -> str:
        return " / ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _fixed(fixed: Any) -> list[tuple[Any, Any]]:
    if fixed is None:
        return []
    if isinstance(fixed, Mapping):
        return list(fixed.items())
    if isinstance(fixed, str) or not isinstance(fixed, Sequence):
        raise ArgumentError(
            f"fixed is a list of lines, channels or geos, or a mapping from lines to money, not {fixed!r}"
        )
    return [(key, None) for key in fixed]


def _ends(of: str, ends: Any) -> tuple[float, float]:
    if isinstance(ends, str) or not isinstance(ends, Sequence) or len(ends) != 2:
        raise ArgumentError(f"the bounds of {of} are (lowest, highest), None for an open end; not {ends!r}")
    first = 0.0 if ends[0] is None else _money(f"the lower bound of {of}", ends[0])
    last = np.inf if ends[1] is None else _money(f"the upper bound of {of}", ends[1])
    if first > last:
        raise ArgumentError(f"the lower bound of {of}, {first:g}, is above the upper one, {last:g}")
    return first, last


def _money(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise ArgumentError(f"{what} is a number, not {value!r}")
    if value < 0:
        raise ArgumentError(f"{what} is {value:g}; spend is not negative")
    return float(value)


def _check_feasible(limits: Limits) -> None:
    """Says which limits no plan can keep to."""
    low, high, budget = limits.low, limits.high, limits.budget
    slack = TOLERANCE * budget
    fixed = low[limits.held == "fixed"].sum()
    if low.sum() > budget + slack:
        raise ArgumentError(
            f"the lower bounds sum to {low.sum():,.2f} ({fixed:,.2f} of it fixed), more than the budget of "
            f"{budget:,.2f}; lower them or raise the budget"
        )
    if high.sum() < budget - slack:
        raise ArgumentError(
            f"the upper bounds allow {high.sum():,.2f} ({fixed:,.2f} of it fixed), less than the budget of "
            f"{budget:,.2f}; raise them or lower the budget"
        )
    for name, chosen, first, last in zip(
        limits.total_names, limits.members, limits.total_low, limits.total_high, strict=True
    ):
        if first > high[chosen].sum() + slack:
            raise ArgumentError(
                f"{name} is to get at least {first:,.2f}, but its lines may take {high[chosen].sum():,.2f} together"
            )
        if last < low[chosen].sum() - slack:
            raise ArgumentError(
                f"{name} is to get at most {last:,.2f}, but its lines take at least {low[chosen].sum():,.2f} together"
            )
    if len(limits.members):
        rows, ends = inequalities(limits, np.ones(low.shape, bool), np.zeros(low.shape))
        found = linprog(
            np.zeros(low.size),
            A_ub=rows,
            b_ub=ends + slack,
            A_eq=np.ones((1, low.size)),
            b_eq=[budget],
            bounds=np.stack([low.ravel(), high.ravel()], axis=1),
        )
        if found.status == 2:
            raise ArgumentError(
                f"no plan of {budget:,.2f} keeps to all bounds at once; those of {', '.join(limits.total_names)} and "
                "of the lines contradict one another"
            )


def inequalities(
    limits: Limits, free: Bool[np.ndarray, "geo channel"], rest: Float[np.ndarray, "geo channel"]
) -> tuple[Float[np.ndarray, "row line"], Float[np.ndarray, " row"]]:
    """The bounded totals as rows @ (free lines) <= ends, given what the other lines take."""
    rows = limits.members[:, free].astype(float)
    taken = np.einsum("kgc,gc->k", limits.members, np.where(free, 0.0, rest))
    above, below = np.isfinite(limits.total_high), limits.total_low > 0
    return (
        np.concatenate([rows[above], -rows[below]]),
        np.concatenate([(limits.total_high - taken)[above], (taken - limits.total_low)[below]]),
    )
