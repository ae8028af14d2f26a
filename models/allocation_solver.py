"""The best plan within limits: quadratic programmes from several starts, and the conditions of its optimum checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import lsq_linear, minimize

from pelton.models.allocation_curves import FLOOR, Multipliers, Respond, Table, Weights, floors
from pelton.models.allocation_limits import Limits, inequalities

# Half-widths of the brackets about a plan that linear programmes narrow it down in.
WIDTHS = (0.3, 0.3, 0.1, 0.1, 0.03, 0.01, 0.003, 0.001)
# Knots of a closer look at the response, this share up and down from the best plan so far; how many looks at most, and
# the residual of the optimality conditions that makes the next one needless.
CLOSE_KNOTS = 6
CLOSE = 0.3
LOOKS = 5
RESIDUAL = 1e-4
# As a share of an even split: a line with less counts as having nothing when optimality is checked, by its slope there.
NEGLIGIBLE = 1e-3
# Up to so many free lines quadratic programmes are solved, whose cost grows with their cube.
QUADRATIC_LINES = 100
# Rounds of re-weighting draws for a quantile, and the relative gain that is worth another.
ROUNDS = 6
GAIN = 1e-4
# Steps of a quadratic programme from one start; a closer look takes up to twice as many.
ITERATIONS = 40


class Attempt(NamedTuple):
    """One start: its name, the objective where it ended, whether the solver was content, and the plan."""

    start: str
    objective: float
    converged: bool
    plan: np.ndarray


@dataclass(frozen=True)
class Optimum:
    """The best plan found.

    Attributes:
        plan: money over the horizon [geo, channel].
        attempts: all starts by the objective on the tabulated curves, the best first.
        kkt: the residual of the optimality conditions, see `multipliers`.
        bound: no plan has a larger objective than this (see `Table.bound`); NaN for a quantile.
    """

    plan: Float[np.ndarray, "geo channel"]
    attempts: tuple[Attempt, ...]
    kkt: float
    bound: float


def best_plan(
    respond: Respond, weights: Weights, mean: bool, limits: Limits, starts: Sequence[tuple[str, np.ndarray]]
) -> Optimum:
    """The plan with the largest objective, sum_d w_d R_d(plan), where the weights may depend on the totals' order.

    S-shaped responses have many local optima. Each line's response is tabulated once. The optimum of the curves'
    concave majorants, by a linear programme, is nearly the best of all where lines are many, since at most one line for
    each constraint can end where its majorant is above it (Shapley-Folkman); where no totals are bounded, a dynamic
    programme over a grid finds the best of any shape. From the better of both and from the other starts, sequential
    quadratic programming climbs on the tabulated curves, and from the best of these on curves tabulated anew close by.
    Past 100 free lines linear programmes within narrowing brackets take the place of the quadratic ones.

    Args:
        respond: the response by draw and line.
        weights: of the draws.
        mean: whether the weights are all the same.
        limits: that the plan keeps to.
        starts: name and plan of each; they need not keep to the limits.
    """
    if not limits.free.any():
        return Optimum(limits.low, (), 0.0, np.nan)

    def exact(plan: np.ndarray) -> tuple[float, np.ndarray]:
        response, slope = respond(plan)
        totals = response.sum(axis=(1, 2))
        by_draw = weights(totals)
        return float(by_draw @ totals), np.einsum("dgc,d->gc", slope, by_draw)

    of_table: Weights = (lambda totals: np.ones(1)) if mean else weights
    table = Table.of(respond, limits, mean)
    lines, hull_costs = _by_lines(table, of_table, starts[0][1])
    attempts = [Attempt("programmes", table.objective(lines, of_table)[0], True, lines)]
    if limits.free.sum() <= QUADRATIC_LINES:
        climbing = [("programmes", lines), *starts]
        attempts = [_climb(table, of_table, name, start, ITERATIONS) for name, start in climbing]
        attempts.sort(key=lambda attempt: (not limits.allows(attempt.plan), -attempt.objective))
    plan = attempts[0].plan
    value, gradient = exact(np.maximum(plan, floors(limits, NEGLIGIBLE)))
    costs = multipliers(gradient, plan, limits)
    for _ in range(LOOKS):
        if costs.residual <= RESIDUAL:
            break
        close = Table.of(respond, _close(limits, plan), mean, np.linspace(0.0, 1.0, CLOSE_KNOTS + 1))
        if limits.free.sum() <= QUADRATIC_LINES:
            finer = _climb(close, of_table, "", plan, 2 * ITERATIONS).plan
        else:
            finer = _narrowed(close, of_table(close.totals(plan)), plan)
        better, gradient = exact(np.maximum(finer, floors(limits, NEGLIGIBLE)))
        if not limits.allows(finer) or better < value:
            break
        plan, value, costs = finer, better, multipliers(gradient, finer, limits)
    bound = min(table.bound(costs), table.bound(hull_costs)) if mean else np.nan
    return Optimum(plan, tuple(attempts), costs.residual, bound)


def _close(limits: Limits, plan: np.ndarray) -> Limits:
    """The limits narrowed to the neighbourhood of a plan that keeps to them."""
    reach = np.maximum(CLOSE * plan, 3 * floors(limits, NEGLIGIBLE))
    low, high = np.maximum(limits.low, plan - reach), np.minimum(limits.high, plan + reach)
    return replace(limits, low=np.where(limits.free, low, limits.low), high=np.where(limits.free, high, limits.high))


def _by_lines(table: Table, weights: Weights, start: np.ndarray) -> tuple[np.ndarray, Multipliers]:
    """The optimum by linear and dynamic programmes: with the draws' weights held, the objective is a sum over lines.

    Returns:
        The plan, and the multipliers of the last linear programme.
    """
    best, best_value = start, -np.inf
    costs = Multipliers(0.0, np.zeros(0), np.inf)
    for _ in range(ROUNDS):
        by_draw = weights(table.totals(best))
        hull, costs = table.hull(by_draw)
        candidates = [hull]
        if not len(table.limits.members):
            candidates.append(table.dynamic(by_draw))
        if table.limits.free.sum() > QUADRATIC_LINES:
            candidates = [_narrowed(table, by_draw, plan) for plan in candidates]
        values = {table.objective(plan, weights)[0]: plan for plan in candidates}
        value = max(values)
        if value <= best_value + GAIN * abs(value):
            break
        best, best_value = values[value], value
        if len(by_draw) == 1:
            break
    return best, costs


def _narrowed(table: Table, by_draw: np.ndarray, plan: np.ndarray) -> np.ndarray:
    for width in WIDTHS:
        plan = table.within(by_draw, plan, width)
    return _settled(plan, table.limits)


def _climb(table: Table, weights: Weights, name: str, start: np.ndarray, iterations: int) -> Attempt:
    """Sequential least-squares programming (Kraft 1988; scipy's SLSQP) with gradients, in shares of the budget."""
    limits = table.limits
    free, budget = limits.free, limits.budget
    low = np.where(free, np.maximum(limits.low, floors(limits)), limits.low)
    rows, room = inequalities(limits, free, limits.low)
    rest = budget - limits.low[~free].sum()
    begin = np.clip(start, low, limits.high)
    scale = abs(table.objective(begin, weights)[0]) or 1.0

    def cost(shares: np.ndarray) -> tuple[float, np.ndarray]:
        plan = limits.low.copy()
        plan[free] = shares * budget
        value, gradient = table.objective(plan, weights)
        return -value / scale, -gradient[free] * budget / scale

    constraints: list[Any] = [
        {"type": "eq", "fun": lambda u: u.sum() - rest / budget, "jac": lambda u: np.ones((1, len(u)))}
    ]
    if len(rows):
        constraints.append({"type": "ineq", "fun": lambda u: room / budget - rows @ u, "jac": lambda u: -rows})
    found = minimize(
        cost,
        begin[free] / budget,
        jac=True,
        method="SLSQP",
        bounds=np.stack([low[free], limits.high[free]], axis=1) / budget,
        constraints=constraints,
        options={"maxiter": iterations, "ftol": 1e-11},
    )
    plan = limits.low.copy()
    plan[free] = np.clip(found.x * budget, low[free], limits.high[free])
    plan = _settled(plan, limits)
    return Attempt(name, table.objective(plan, weights)[0], bool(found.success), plan)


def _settled(plan: np.ndarray, limits: Limits) -> np.ndarray:
    """Lines at the floor set to their bound, and the rounding left of the budget given to a line with room for it."""
    floor = FLOOR * limits.budget / limits.free.sum()
    plan = np.where(limits.free & (limits.low < floor) & (plan <= 2 * floor), limits.low, plan)
    left = limits.budget - plan.sum()
    bounded = limits.members.any(axis=0) if len(limits.members) else np.zeros(plan.shape, bool)
    fits = limits.free & (plan + left >= limits.low) & (plan + left <= limits.high) & (plan > 0)
    if fits.any():
        # One in no bounded total where there is such a line, and the largest of them.
        at = np.unravel_index(np.argmax(np.where(fits, plan + limits.budget * ~bounded, -1.0)), plan.shape)
        plan[at] += left
    return plan


def multipliers(
    gradient: Float[np.ndarray, "geo channel"], plan: Float[np.ndarray, "geo channel"], limits: Limits
) -> Multipliers:
    """How near a plan is to the Karush-Kuhn-Tucker conditions of the best one, and its multipliers.

    At an optimum the gradient over the free lines is a multiplier of the budget, plus one of each active bound whose
    sign says that the bound holds the plan back. The least-squares multipliers leave a residual; its largest entry over
    the gradient's is the measure: 1e-3 says that marginal returns are equal to a thousandth.
    """
    free = limits.free
    slope, near = gradient[free], NEGLIGIBLE * limits.budget / free.sum()
    count = len(slope)
    rows, room = inequalities(limits, free, limits.low)
    at_high = np.flatnonzero(limits.high[free] - plan[free] <= near)
    at_low = np.flatnonzero(plan[free] - limits.low[free] <= near)
    active = room - rows @ plan[free] <= near
    matrix = np.concatenate(
        [np.ones((count, 1)), rows[active].T, np.eye(count)[:, at_high], -np.eye(count)[:, at_low]], axis=1
    )
    size = np.max(np.abs(slope))
    if not size > 0:
        return Multipliers(0.0, np.zeros(len(rows)), 0.0)
    lower = np.concatenate([[-np.inf], np.zeros(matrix.shape[1] - 1)])
    found = lsq_linear(matrix, slope / size, (lower, np.full(len(lower), np.inf)), tol=1e-12)
    totals = np.zeros(len(rows))
    totals[active] = found.x[1 : 1 + active.sum()] * size
    return Multipliers(found.x[0] * size, totals, float(np.max(np.abs(slope / size - matrix @ found.x))))
