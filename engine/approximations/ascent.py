"""Climbing a log density by L-BFGS, a step at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from pelton.engine.samplers.base import Bound

# Steps that the inverse Hessian is made of: where there is one for each dimension it is right in all of them.
LEAST_MEMORY, MOST_MEMORY = 10, 50
LINE_SEARCH_STEPS = 30
# The climb ends where so many steps in a row gain no more than rounding.
IDLE_STEPS = 3


class Climb(NamedTuple):
    """Where a climb stands.

    Attributes:
        position, value, gradient: of the log density.
        solver: optax's state.
        step: iterations so far.
        gradients: gradient evaluations so far.
        idle: iterations in a row that gained nothing.
    """

    position: Float[Array, " d"]
    value: Float[Array, ""]
    gradient: Float[Array, " d"]
    solver: Any
    step: Int[Array, ""]
    gradients: Int[Array, ""]
    idle: Int[Array, ""]


def memory(dimension: int) -> int:
    """Steps to remember.

    >>> memory(2), memory(30), memory(1000)
    (10, 30, 50)
    """
    return min(max(dimension, LEAST_MEMORY), MOST_MEMORY)


def _solver(dimension: int) -> optax.GradientTransformationExtraArgs:
    # A quasi-Newton step of length one is the first to try (Nocedal & Wright 2006, section 3.5).
    search = optax.scale_by_zoom_linesearch(LINE_SEARCH_STEPS, initial_guess_strategy="one")
    return optax.lbfgs(memory_size=memory(dimension), linesearch=search)


def begin(density: Bound, position: Float[Array, " d"]) -> Climb:
    """A climb that has made no step."""
    value, gradient = jax.value_and_grad(density)(position)
    zero = jnp.zeros((), jnp.int32)
    return Climb(position, value, gradient, _solver(position.shape[0]).init(position), zero, zero + 1, zero)


def advance(density: Bound, climb: Climb, least_gain: float = 0.0) -> Climb:
    """One step of L-BFGS with a line search that satisfies the strong Wolfe conditions.

    Args:
        density: the log density to climb.
        climb: where it stands.
        least_gain: nats below which a step counts as idle, besides those that are rounding.
    """

    def fall(position: Array) -> Array:
        return -density(position)

    # optax types its updates as trees.
    updates: Any
    solver: Any
    updates, solver = _solver(climb.position.shape[0]).update(
        -climb.gradient, climb.solver, climb.position, value=-climb.value, grad=-climb.gradient, value_fn=fall
    )
    # The line search leaves the value and the gradient at its end in the solver's state.
    searched = solver[-1]
    position = climb.position + updates
    value, gradient = -searched.value, -searched.grad
    good = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(position))
    gain = value - climb.value
    idle_gain = 4 * jnp.finfo(value.dtype).eps * jnp.maximum(1.0, jnp.abs(value))
    return Climb(
        position=jnp.where(good, position, climb.position),
        value=jnp.where(good, value, climb.value),
        gradient=jnp.where(good, gradient, climb.gradient),
        solver=solver,
        step=climb.step + 1,
        gradients=climb.gradients + searched.info.num_linesearch_steps.astype(jnp.int32),
        idle=jnp.where(
            good & (gain > jnp.maximum(idle_gain, least_gain)), 0, jnp.where(good, climb.idle + 1, IDLE_STEPS)
        ).astype(jnp.int32),
    )


def going(climb: Climb, most: int) -> Bool[Array, ""]:
    """Whether there is something left to gain within so many steps."""
    return (climb.step < most) & (climb.idle < IDLE_STEPS)


def ascend(density: Bound, position: Float[Array, " d"], most: int) -> Climb:
    """A climb to its end."""
    return jax.lax.while_loop(
        lambda climb: going(climb, most), lambda climb: advance(density, climb), begin(density, position)
    )
