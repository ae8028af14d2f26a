"""Quadrature in at most two dimensions, and independent draws from it made exact by a Metropolis step."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pelton.engine.samplers.base import BoundLogDensity, Independent, Info, together

# Rounds at the most until the box is turned and until it is done; one that fits ends the search.
SEARCH_ROUNDS = 16
ROUNDS = 21
# A box fits when the mass touches no edge and, an outermost point on each side counted, fills so much of every axis.
FILLED = 0.75
# Points an axis while the box is being found, and of the final grid.
SEARCH_POINTS = 25
GRID_POINTS = 129
# The same where there are many posteriors, of which few need more.
QUICK_SEARCH, QUICK_POINTS = 9, 25
# Points lower than this below the highest are outside the box: exp(-30) is below float64's interest in a sum.
DROP = 30.0
# A posterior with more than this share of its mass in the outermost cells does not fit the grid.
EDGE_MASS = 1e-6


class Box(NamedTuple):
    """A parallelogram: position = centre + basis @ u with lower <= u <= upper."""

    centre: Float[Array, " d"]
    basis: Float[Array, "d d"]
    lower: Float[Array, " d"]
    upper: Float[Array, " d"]


class Search(NamedTuple):
    """A box on its way: rounds so far, whether it has its principal axes, and whether one that has them fitted."""

    box: Box
    rounds: Int[Array, ""]
    turned: Bool[Array, ""]
    done: Bool[Array, ""]


class State(NamedTuple):
    """The current draw, and the grid that proposes the next."""

    position: Float[Array, " d"]
    lp: Float[Array, ""]
    log_weight: Float[Array, ""]
    box: Box
    density: Float[Array, " points"]
    cumulative: Float[Array, " cells"]
    edge_mass: Float[Array, ""]


class Proposal(NamedTuple):
    """A point from the interpolant q, its log density p, log p - log q there, and what acceptance is tossed by."""

    position: Float[Array, " d"]
    lp: Float[Array, ""]
    log_weight: Float[Array, ""]
    toss: Float[Array, ""]


def _axes(box: Box, points: int) -> Float[Array, "points d"]:
    return box.lower + (box.upper - box.lower) * jnp.linspace(0.0, 1.0, points)[:, None]


def _mesh(box: Box, points: int) -> Float[Array, "all d"]:
    axes = _axes(box, points)
    columns = jnp.meshgrid(*axes.T, indexing="ij")
    return jnp.stack([column.ravel() for column in columns], axis=-1)


def _evaluate(logdensity: BoundLogDensity, box: Box, mesh: Array) -> Array:
    positions = box.centre + mesh @ box.basis.T
    values = jax.lax.map(logdensity, positions, batch_size=together(logdensity))
    return jnp.where(jnp.isnan(values), -jnp.inf, values)


def _zoom(box: Box, values: Array) -> tuple[Box, Array]:
    """One round of fitting the box: past an edge that the mass touches it grows, elsewhere it shrinks.

    Returns:
        The next box, and whether the box fitted: then the next one, which lies in it, holds the mass as well.
    """
    d = box.lower.shape[0]
    points = round(values.shape[0] ** (1 / d))
    values = values.reshape((points,) * d)
    inside = values >= jnp.max(values) - DROP
    index = jnp.arange(points)
    step = (box.upper - box.lower) / (points - 1)
    lower, upper, fits = [], [], []
    for axis in range(d):
        others = tuple(i for i in range(d) if i != axis)
        hit = jnp.any(inside, axis=others)
        first = jnp.min(jnp.where(hit, index, points))
        last = jnp.max(jnp.where(hit, index, -1))
        width = box.upper[axis] - box.lower[axis]
        lower.append(jnp.where(first == 0, box.lower[axis] - width / 2, box.lower[axis] + (first - 1) * step[axis]))
        upper.append(
            jnp.where(
                last == points - 1, box.upper[axis] + width / 2, box.upper[axis] - (points - 2 - last) * step[axis]
            )
        )
        fits.append((first > 0) & (last < points - 1) & (last - first + 2 >= FILLED * (points - 1)))
    return box._replace(lower=jnp.stack(lower), upper=jnp.stack(upper)), jnp.all(jnp.stack(fits))


def _whiten(box: Box, values: Array) -> Box:
    """The box turned into the posterior's principal shape, eight standard deviations wide on each side."""
    d = box.lower.shape[0]
    points = round(values.shape[0] ** (1 / d))
    mesh = _mesh(box, points)
    weights = jax.nn.softmax(values)
    positions = box.centre + mesh @ box.basis.T
    mean = weights @ positions
    centred = positions - mean
    step = (box.upper - box.lower) / (points - 1)
    # A posterior narrower than a cell shows no spread on the mesh; the cell's own spread keeps the basis regular.
    covariance = (weights * centred.T) @ centred + jnp.diag(step**2 / 12)
    return Box(mean, jnp.linalg.cholesky(covariance), jnp.full(d, -8.0), jnp.full(d, 8.0))


def _linear_draw(u: Array, left: Array, right: Array) -> Array:
    """A draw on [0, 1] from the density proportional to left + (right - left) x, by its inverse distribution."""
    return u * (left + right) / (left + jnp.sqrt(left**2 + u * (right**2 - left**2)))


@dataclass(frozen=True)
class Grid(Independent):
    """Independent draws from a piecewise bilinear fit of the density, corrected by independence Metropolis.

    The box that holds the posterior is found by zooming, turned into the posterior's principal axes and divided into
    `points` - 1 cells an axis. A draw picks a cell by its mass and a point in it from the bilinear interpolant q of the
    density p, and is accepted with probability min(1, p(x') q(x) / (p(x) q(x'))): the chain's target is p itself,
    and its acceptance rate, near 1, measures the interpolation. A posterior with more than 1e-6 of its mass in the
    outermost cells is flagged as diverging, since a box cannot hold it.

    Attributes:
        points: of the grid, an axis.
        search: points an axis while the box is being found.
    """

    points: int = GRID_POINTS
    search: int = SEARCH_POINTS

    name: ClassVar[str] = "grid"
    needs_warmup: ClassVar[bool] = False
    shared_init: ClassVar[bool] = True
    independent: ClassVar[bool] = True
    max_dimension: ClassVar[int | None] = 2

    def quick(self) -> "Grid":
        return replace(self, points=QUICK_POINTS, search=QUICK_SEARCH)

    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> State:
        d = position.shape[0]
        dtype = position.dtype
        box = Box(position, jnp.eye(d, dtype=dtype), jnp.full(d, -8.0, dtype), jnp.full(d, 8.0, dtype))

        def fit(search: Search) -> Search:
            values = _evaluate(logdensity, search.box, _mesh(search.box, self.search))
            zoomed, fits = _zoom(search.box, values)
            turn = ~search.turned & (fits | (search.rounds >= SEARCH_ROUNDS))
            box = jax.lax.cond(turn, lambda: _whiten(search.box, values), lambda: zoomed)
            return Search(box, search.rounds + 1, search.turned | turn, search.turned & fits)

        begun = Search(box, jnp.zeros((), jnp.int32), jnp.asarray(False), jnp.asarray(False))
        box = jax.lax.while_loop(lambda search: ~search.done & (search.rounds < ROUNDS), fit, begun).box

        values = _evaluate(logdensity, box, _mesh(box, self.points))
        density = jnp.exp(values - jnp.max(values)).reshape((self.points,) * d)
        mass = density
        for axis in range(d):
            left = jax.lax.slice_in_dim(mass, 0, self.points - 1, axis=axis)
            right = jax.lax.slice_in_dim(mass, 1, self.points, axis=axis)
            mass = (left + right) / 2
        inner = mass[(slice(1, -1),) * d]
        edge_mass = 1 - jnp.sum(inner) / jnp.sum(mass)
        cumulative = jnp.cumsum(mass.ravel())
        # A weight of zero, so that the first proposal is accepted whatever it is.
        return State(
            position,
            jnp.asarray(-jnp.inf, dtype),
            jnp.asarray(-jnp.inf, dtype),
            box,
            density.ravel(),
            cumulative / cumulative[-1],
            edge_mass,
        )

    def propose(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> Proposal:
        key_point, key_accept = jax.random.split(key)
        d = state.position.shape[0]
        cells = self.points - 1
        uniforms = jax.random.uniform(key_point, (d + 1,), state.position.dtype)
        cell = jnp.minimum(jnp.searchsorted(state.cumulative, uniforms[0], side="right"), cells**d - 1)
        corners = jnp.stack(jnp.unravel_index(cell, (cells,) * d))
        grid = state.density.reshape((self.points,) * d)
        values = jax.lax.dynamic_slice(grid, tuple(corners), (2,) * d)
        inside = []
        for axis in range(d):
            # The interpolant's marginal along this axis is linear between the sums over the other axes.
            point = _linear_draw(uniforms[axis + 1], jnp.sum(values[0]), jnp.sum(values[1]))
            inside.append(point)
            values = values[0] + (values[1] - values[0]) * point
        fraction = (corners + jnp.stack(inside)) / cells
        u = state.box.lower + (state.box.upper - state.box.lower) * fraction
        position = state.box.centre + state.box.basis @ u
        lp = logdensity(position)
        return Proposal(position, lp, lp - jnp.log(values), jax.random.uniform(key_accept, (), state.lp.dtype))

    def accept(self, state: Any, proposal: Any) -> tuple[State, Info]:
        position, lp, log_weight, toss = proposal
        probability = jnp.exp(jnp.minimum(log_weight - state.log_weight, 0.0))
        probability = jnp.where(jnp.isnan(probability), 0.0, probability)
        accept = toss < probability
        state = state._replace(
            position=jnp.where(accept, position, state.position),
            lp=jnp.where(accept, lp, state.lp),
            log_weight=jnp.where(accept, log_weight, state.log_weight),
        )
        zero = jnp.zeros((), state.lp.dtype)
        return state, Info(
            lp=state.lp,
            energy=-state.lp,
            acceptance_rate=probability,
            n_steps=jnp.ones((), jnp.int32),
            tree_depth=jnp.zeros((), jnp.int32),
            step_size=zero,
            diverging=state.edge_mass > EDGE_MASS,
            reached_max_tree_depth=jnp.zeros((), bool),
        )

    def position(self, state: Any) -> Array:
        return state.position
