"""Tabulated response curves of a plan's lines, and the best plans over them by linear and dynamic programming."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float
from scipy.optimize import isotonic_regression, linprog

from pelton.models.allocation_limits import Limits, inequalities

# Knots of the tabulated curves, closer to one another where spend is small.
KNOTS = 40
# Pieces of all lines together in a linear programme over whole curves, and those of a line within a bracket.
PIECES = 20_000
BRACKET = 16
# Cells of the budget in a dynamic programme.
CELLS = 512
# The least that a line is looked at with, as a share of an even split: at nothing a slope may not exist.
FLOOR = 1e-6

# plan [geo, channel] -> response and slope by the line's own money [draw, geo, channel].
type Respond = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
# totals [draw] -> the weight of each draw's total in the objective [draw].
type Weights = Callable[[np.ndarray], np.ndarray]


class Multipliers(NamedTuple):
    """What a unit of the budget and of each bounded total is worth, and what that leaves unexplained of the slopes."""

    budget: float
    totals: np.ndarray
    residual: float


@dataclass(frozen=True, eq=False)
class Table:
    """The free lines' responses by draw, at knots, with their slopes; cubics between the knots.

    Attributes:
        limits: of the plans.
        low, span: a line's knots are low + span steps [line].
        steps: from 0 to 1 [knot].
        values, slopes: [knot, draw, line]; one draw, the mean, where that is all that matters.
        fixed: response of the lines that are not free [draw].
    """

    limits: Limits
    low: Float[np.ndarray, " line"]
    span: Float[np.ndarray, " line"]
    steps: Float[np.ndarray, " knot"]
    values: Float[np.ndarray, "knot draw line"]
    slopes: Float[np.ndarray, "knot draw line"]
    fixed: Float[np.ndarray, " draw"]

    @classmethod
    def of(
        cls, respond: Respond, limits: Limits, mean: bool, steps: Float[np.ndarray, " knot"] | None = None
    ) -> "Table":
        """Looks at the response of every line at each knot, all lines at a time."""
        free = limits.free
        low = limits.low[free]
        span = np.minimum(limits.high[free], low + limits.budget - limits.low.sum()) - low
        span = np.maximum(span, 1e-9 * limits.budget)
        steps = np.linspace(0.0, 1.0, KNOTS + 1) ** 4 if steps is None else steps
        plan, values, slopes = limits.low.copy(), [], []
        fixed = np.zeros(1)
        for step in steps:
            # The slope at nothing may not exist; the curve starts a hair above it.
            plan[free] = np.maximum(low + span * step, floors(limits)[free])
            response, slope = respond(plan)
            if mean:
                response, slope = (array.mean(axis=0, keepdims=True) for array in (response, slope))
            values.append(response[:, free])
            slopes.append(slope[:, free])
            fixed = response[:, ~free].sum(axis=1)
        return cls(limits, low, span, steps, np.stack(values), np.stack(slopes), fixed)

    def at(self, plan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Response and slope of the free lines [draw, line], by cubic Hermite interpolation."""
        share = np.clip((plan[self.limits.free] - self.low) / self.span, 0.0, 1.0)
        return _cubic(self.steps, self.span, self.values, self.slopes, share)

    def totals(self, plan: np.ndarray) -> np.ndarray:
        """Total response by draw."""
        return self.at(plan)[0].sum(axis=1) + self.fixed

    def objective(self, plan: np.ndarray, weights: Weights) -> tuple[float, np.ndarray]:
        """The objective of a plan and its gradient [geo, channel]."""
        value, slope = self.at(plan)
        totals = value.sum(axis=1) + self.fixed
        by_draw = weights(totals)
        gradient = np.zeros(self.limits.low.shape)
        gradient[self.limits.free] = by_draw @ slope
        return float(by_draw @ totals), gradient

    def bound(self, costs: Multipliers) -> float:
        """An upper bound of the mean response of any plan within the limits, by weak duality.

            sum_i max_x (f_i(x) - p_i x) + lambda (budget of free lines) + sum_k mu_k room_k,   p = lambda + rows' mu

        for any lambda and any mu >= 0, the tighter the nearer these are to the optimum's multipliers. The maxima are
        over 16 points between each two knots, and 33 more about the best of them.
        """
        rows, room = inequalities(self.limits, self.limits.free, self.limits.low)
        price = costs.budget + rows.T @ costs.totals

        def surplus(share: np.ndarray) -> np.ndarray:
            value = _cubic(self.steps, self.span, self.values, self.slopes, share)[0][0]
            return value - price * (self.low + self.span * share)

        between = np.arange(16) / 16
        grid = np.append((self.steps[:-1, None] + np.diff(self.steps)[:, None] * between).ravel(), 1.0)
        coarse = np.stack([surplus(np.full(len(self.low), share)) for share in grid])
        best = np.argmax(coarse, axis=0)
        left, right = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, len(grid) - 1)]
        fine = [surplus(left + (right - left) * part) for part in np.linspace(0.0, 1.0, 33)]
        most = np.maximum(coarse.max(axis=0), np.max(fine, axis=0))
        rest = self.limits.budget - self.limits.low[~self.limits.free].sum()
        return float(most.sum() + costs.budget * rest + costs.totals @ room + self.fixed[0])

    def hull(self, by_draw: Float[np.ndarray, " draw"]) -> tuple[np.ndarray, Multipliers]:
        """The optimum plan of the curves' concave majorants, with each draw's weight given, and its multipliers."""
        pieces = max(1, PIECES // (KNOTS * len(self.low)))
        between = np.linspace(0.0, 1.0, pieces, endpoint=False)
        grid = np.append((self.steps[:-1, None] + np.diff(self.steps)[:, None] * between).ravel(), 1.0)
        return self._fill(by_draw, np.repeat(grid[:, None], len(self.low), axis=1), self.limits.low)

    def dynamic(self, by_draw: Float[np.ndarray, " draw"]) -> np.ndarray:
        """The best of all plans whose lines have a whole number of cells above their bounds, with draws' weights given.

        Dynamic programming over the lines, whatever the shape of the curves; for limits without bounded totals.
        """
        rest = self.limits.budget - self.limits.low.sum()
        cell = rest / CELLS
        values, slopes = (np.tensordot(by_draw, array, (0, 1))[:, None] for array in (self.values, self.slopes))
        levels = np.arange(CELLS + 1)[:, None] * cell
        curves = np.stack([_cubic(self.steps, self.span, values, slopes, row / self.span)[0][0] for row in levels])
        room = self.limits.high[self.limits.free] - self.low
        curves = np.where(levels <= room + 1e-9 * rest, curves, -np.inf)
        best, chosen = np.where(np.arange(CELLS + 1) == 0, 0.0, -np.inf), []
        for line in range(len(self.low)):
            padded = np.concatenate([np.full(CELLS, -np.inf), best])
            # Row i: what is best with i - j cells before, for j = 0 .. CELLS.
            before = np.lib.stride_tricks.sliding_window_view(padded, CELLS + 1)[:, ::-1]
            together = before + curves[:, line]
            chosen.append(together.argmax(axis=1))
            best = together.max(axis=1)
        left, cells = CELLS, []
        for take in reversed(chosen):
            cells.append(take[left])
            left -= take[left]
        plan = self.limits.low.copy()
        plan[self.limits.free] = self.low + cell * np.array(cells[::-1])
        return plan

    def within(self, by_draw: Float[np.ndarray, " draw"], plan: np.ndarray, width: float) -> np.ndarray:
        """As `hull`, looking at each line only between 1 - width and 1 + width times what it has in a plan."""
        share = np.clip((plan[self.limits.free] - self.low) / self.span, 0.0, 1.0)
        reach = width * np.maximum(share, self.steps[1])
        grid = np.linspace(-1.0, 1.0, BRACKET + 1)[:, None]
        return self._fill(by_draw, np.clip(share, reach, 1.0 - reach) + grid * reach, plan)[0]

    def _fill(self, by_draw: np.ndarray, shares: np.ndarray, otherwise: np.ndarray) -> tuple[np.ndarray, Multipliers]:
        """Spends the budget on the steepest pieces of the majorants over a grid of shares [point, line].

        The slopes of the least concave majorant of a polygon are the isotonic regression of the polygon's slopes, by
        the pieces' widths; filled in order of their slopes, pieces are filled from the left. Where the grid leaves no
        plan within the limits, the plan is `otherwise`.
        """
        limits, free, budget = self.limits, self.limits.free, self.limits.budget
        values, slopes = (np.tensordot(by_draw, array, (0, 1))[:, None] for array in (self.values, self.slopes))
        heights = np.stack([_cubic(self.steps, self.span, values, slopes, row)[0][0] for row in shares])
        widths, start = np.diff(shares, axis=0) * self.span, self.low + self.span * shares[0]
        pieces = np.diff(heights, axis=0) / widths
        majorant = np.stack(
            [
                isotonic_regression(pieces[:, line], weights=widths[:, line], increasing=False).x
                for line in range(len(start))
            ],
            axis=1,
        )
        rest = budget - limits.low[~free].sum() - start.sum()
        rows, room = inequalities(limits, free, limits.low)
        filled, costs = _filled(majorant.ravel(), widths.ravel(), rest, rows, room - rows @ start)
        if filled is None:
            return otherwise, costs
        plan = limits.low.copy()
        plan[free] = start + filled.reshape(widths.shape).sum(axis=0)
        return plan, costs


def _filled(
    tangents: np.ndarray, widths: np.ndarray, rest: float, rows: np.ndarray, room: np.ndarray
) -> tuple[np.ndarray | None, Multipliers]:
    """maximise tangents @ y,  0 <= y <= widths,  sum y = rest,  rows @ (y by line) <= room;  pieces line after line.

    Without rows the steepest pieces are filled first; with rows it is a linear programme.
    """
    if not len(rows):
        order = np.argsort(-tangents, kind="stable")
        reached = np.cumsum(widths[order])
        filled = np.empty(len(order))
        filled[order] = np.clip(rest - (reached - widths[order]), 0.0, widths[order])
        last = order[min(int(np.searchsorted(reached, rest)), len(order) - 1)]
        return filled, Multipliers(float(tangents[last]), np.zeros(0), np.inf)
    lines, size, unit = rows.shape[1], np.max(np.abs(tangents)) or 1.0, widths.max()
    line = np.tile(np.arange(lines), len(widths) // lines)
    spread = scipy.sparse.csr_matrix((np.ones(len(line)), (line, np.arange(len(line)))), (lines, len(line)))
    found = linprog(
        -tangents / size,
        A_ub=scipy.sparse.csr_matrix(rows) @ spread,
        b_ub=room / unit,
        A_eq=np.ones((1, len(line))),
        b_eq=[rest / unit],
        bounds=np.stack([np.zeros(len(line)), widths / unit], axis=1),
        method="highs",
    )
    if found.x is None:
        return None, Multipliers(0.0, np.zeros(len(rows)), np.inf)
    totals = np.maximum(-found.ineqlin.marginals * size, 0.0)
    return found.x * unit, Multipliers(float(-found.eqlin.marginals[0] * size), totals, np.inf)


def _cubic(
    steps: np.ndarray, span: np.ndarray, values: np.ndarray, slopes: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cubic Hermite interpolation of values and slopes [knot, draw, line] at a share of each line's span [line]."""
    at = np.clip(np.searchsorted(steps, share, side="right") - 1, 0, len(steps) - 2)
    line = np.arange(len(span))
    width = (steps[at + 1] - steps[at]) * span
    t = (share - steps[at]) / (steps[at + 1] - steps[at])
    left, right = values[at, :, line].T, values[at + 1, :, line].T
    first, last = slopes[at, :, line].T * width, slopes[at + 1, :, line].T * width
    # In powers of t: left + first t + b t^2 + a t^3.
    b = 3 * (right - left) - 2 * first - last
    a = first + last - 2 * (right - left)
    return left + t * (first + t * (b + t * a)), (first + t * (2 * b + t * 3 * a)) / width


def floors(limits: Limits, share: float = FLOOR) -> np.ndarray:
    """That share of an even split for free lines that may have less, else the lower bound [geo, channel]."""
    floor = share * limits.budget / limits.free.sum()
    return np.where(limits.free & (limits.low < floor) & (limits.high > 2 * floor), floor, limits.low)
