"""The top of a log density: Newton's last steps, the curvature there, and whether it is a top at all."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pelton.engine.approximations import ascent
from pelton.engine.approximations.base import Approximation, Found
from pelton.engine.errors import ModelError
from pelton.engine.samplers.base import Bound

NEWTON_STEPS = 10
# Columns of the Hessian worked out together: all at once would hold the model's intermediate values that often.
HESSIAN_BATCH = 64
# How much log density a top may leave to be gained, in nats, besides the rounding of the log density itself.
MOST_LEFT = 1e-3
ROUNDINGS = 10


class Optimum(NamedTuple):
    """A supposed top.

    Attributes:
        position, value, gradient: of the log density.
        precision: its negative Hessian [d, d]; [d, 0] where the dimension is too large for one.
        factor: the lower triangular C of precision = C C', NaN where that is not positive definite; of the same shape.
        left: what the log density would still gain, g' H^-1 g / 2, by its second-order expansion; along the gradient
            alone where there is no Hessian. NaN where the curvature is not positive.
        gradients: gradient evaluations; a column of a Hessian counts as one.
    """

    position: Float[Array, " d"]
    value: Float[Array, ""]
    gradient: Float[Array, " d"]
    precision: Float[Array, "d columns"]
    factor: Float[Array, "d columns"]
    left: Float[Array, ""]
    gradients: Int[Array, ""]


def negative_hessian(density: Bound, position: Float[Array, " d"]) -> Float[Array, "d d"]:
    """Minus the second derivatives, reverse over reverse, so that custom derivatives of either kind serve."""
    _, pull = jax.vjp(jax.grad(density), position)
    columns = jax.lax.map(
        lambda unit: pull(unit)[0], jnp.eye(position.shape[0], dtype=position.dtype), batch_size=HESSIAN_BATCH
    )
    return -0.5 * (columns + columns.T)


def at(density: Bound, position: Float[Array, " d"]) -> Optimum:
    """The position with its curvature."""
    value, gradient = jax.value_and_grad(density)(position)
    precision = negative_hessian(density, position)
    factor = jnp.linalg.cholesky(precision)
    half = jax.scipy.linalg.solve_triangular(factor, gradient, lower=True)
    return Optimum(
        position, value, gradient, precision, factor, 0.5 * half @ half, jnp.asarray(1 + position.shape[0], jnp.int32)
    )


def polished(density: Bound, position: Float[Array, " d"]) -> Optimum:
    """The position after Newton steps, as long as they climb and the curvature is that of a top."""

    def worth(carry: tuple) -> Array:
        top, moved, steps = carry
        rounding = jnp.finfo(top.value.dtype).eps ** 1.5
        return moved & (top.left > rounding) & (steps < NEWTON_STEPS)

    def step(carry: tuple) -> tuple:
        top, _, steps = carry
        climb = jax.scipy.linalg.cho_solve((top.factor, True), top.gradient)
        ahead = at(density, top.position + climb)
        # Near the top the log density itself is rounded; what is left of it shows the progress.
        better = (ahead.left < top.left) & (ahead.value > top.value - MOST_LEFT)
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), ahead, top)
        return kept._replace(gradients=top.gradients + ahead.gradients), better, steps + 1

    top, _, _ = jax.lax.while_loop(worth, step, (at(density, position), jnp.asarray(True), jnp.zeros((), jnp.int32)))
    return top


def along_gradient(density: Bound, position: Float[Array, " d"]) -> Optimum:
    """The position with the curvature along its gradient alone, for dimensions without a Hessian."""
    value, gradient = jax.value_and_grad(density)(position)
    _, pull = jax.vjp(jax.grad(density), position)
    (turned,) = pull(gradient)
    square, curvature = gradient @ gradient, -gradient @ turned
    left = jnp.where(curvature > 0, 0.5 * square**2 / jnp.where(curvature > 0, curvature, 1.0), jnp.nan)
    none = jnp.zeros((position.shape[0], 0), position.dtype)
    return Optimum(position, value, gradient, none, none, jnp.where(square > 0, left, 0.0), jnp.asarray(2, jnp.int32))


def refuse_slope(top: Any, starts: int) -> None:
    """Refuses a supposed top that is none.

    Raises:
        ModelError: the curvature is not that of a top, or there is still much to be gained.
    """
    value, left = float(top.value), float(top.left)
    norm = float(np.linalg.norm(np.asarray(top.gradient, np.float64)))
    rounding = ROUNDINGS * float(np.finfo(np.asarray(top.value).dtype).eps) * abs(value)
    if left <= MOST_LEFT + rounding:
        return
    where = f"the best of {starts} climbs ended at log density {value:.6g} with a gradient of norm {norm:.3g}"
    remedy = (
        "the method needs a maximum in the unconstrained space, which hierarchical models often lack; sample it instead"
    )
    precision = np.asarray(top.precision, np.float64)
    if np.isnan(left) and np.all(np.isfinite(precision)) and precision.size:
        eigenvalues, vectors = np.linalg.eigh(precision)
        coordinate = int(np.argmax(np.abs(vectors[:, 0])))
        raise ModelError(
            f"{where}, where the negative Hessian is not positive definite: its smallest eigenvalue is "
            f"{eigenvalues[0]:.3g}, mostly along coordinate {coordinate} of the unconstrained position; {remedy}"
        )
    gain = "a curvature that is not a maximum's" if np.isnan(left) else f"{left:.3g} nats still to be gained"
    raise ModelError(f"{where}, which is no maximum: {gain}; {remedy}, or raise steps")


class Climbing(Approximation):
    """An approximation about the top that L-BFGS climbs to."""

    def explore(self, density: Bound, position: Float[Array, " d"], key: PRNGKeyArray) -> Found:
        del key
        climb = ascent.ascend(density, position, self.steps)
        return Found(climb.position, climb.value, climb.gradients, jnp.zeros((), jnp.int32))

    def check(self, fit: Any, starts: int) -> dict[str, float]:
        refuse_slope(fit, starts)
        return {"gradient_norm": float(np.linalg.norm(fit.gradient)), "mode_lp": float(fit.value)}
