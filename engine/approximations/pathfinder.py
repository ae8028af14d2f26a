"""Pathfinder: the best of the normals that L-BFGS passes on its way up, from several starts."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pelton.engine.approximations import ascent
from pelton.engine.approximations.base import LOG_TWO_PI, Distribution, Found
from pelton.engine.approximations.normals import LowRank, Pairs
from pelton.engine.samplers.base import Bound

# Draws behind each estimate of the evidence lower bound, as in Stan.
ELBO_DRAWS = 25
# Steps that gain less, in nats, teach the inverse Hessian little more.
LEAST_GAIN = 1e-6


def best_normal(density: Bound, position: Float[Array, " d"], key: PRNGKeyArray, steps: int) -> Found:
    """Single-path Pathfinder: the normal of greatest evidence lower bound along one climb (algorithms 1 and 3)."""
    dimension = position.shape[0]
    memory = ascent.memory(dimension)
    rank = min(dimension, 2 * memory)
    nothing = LowRank(
        mean=position,
        sd=jnp.ones_like(position),
        basis=jnp.zeros((dimension, rank), position.dtype),
        factor=jnp.eye(rank, dtype=position.dtype),
        log_det=jnp.zeros((), position.dtype),
    )

    def lower_bound(normal: LowRank, key: PRNGKeyArray) -> Array:
        noise = jax.random.normal(key, (ELBO_DRAWS, dimension), position.dtype)
        log_q = -0.5 * (jnp.sum(noise**2, axis=1) + LOG_TWO_PI * dimension) - normal.log_det
        log_p = jax.vmap(density)(normal.mean + normal.spread(noise))
        bound = jnp.mean(log_p - log_q)
        return jnp.where(jnp.isfinite(bound), bound, -jnp.inf)

    def step(carry: tuple) -> tuple:
        climb, pairs, best, best_bound = carry
        ahead = ascent.advance(density, climb, LEAST_GAIN)
        pairs = pairs.pushed(ahead.position - climb.position, climb.gradient - ahead.gradient)
        normal = pairs.normal(ahead.position, ahead.gradient)
        bound = lower_bound(normal, jax.random.fold_in(key, climb.step))
        better = bound > best_bound
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), normal, best)
        return ahead, pairs, best, jnp.where(better, bound, best_bound)

    climb, _, best, bound = jax.lax.while_loop(
        lambda carry: ascent.going(carry[0], steps),
        step,
        (
            ascent.begin(density, position),
            Pairs.none(position, memory),
            nothing,
            jnp.full((), -jnp.inf, position.dtype),
        ),
    )
    return Found(best, bound, climb.gradients, climb.step * ELBO_DRAWS)


@dataclass(frozen=True)
class Pathfinder(Distribution):
    """Multi-path Pathfinder, drawn from as the even mixture of all paths' normals.

    Each draw's importance is against the mixture and not, as in the paper's algorithm 2, against its own path's normal
    (the balance heuristic, Veach & Guibas 1995): a path that ended in a narrow corner cannot outweigh the others.

    BlackJAX's own `vi.pathfinder` is not used: in 1.7.1 its normals lie one Newton step down and not up, since it adds
    the gradient of the negative log density.
    """

    name: ClassVar[str] = "pathfinder"
    default_starts: ClassVar[int] = 8
    keeps_all: ClassVar[bool] = True
    resamples: ClassVar[bool] = True

    def explore(self, density: Bound, position: Float[Array, " d"], key: PRNGKeyArray) -> Found:
        return best_normal(density, position, key, self.steps)

    def refine(self, density: Bound, fit: Any, key: PRNGKeyArray) -> tuple[Any, Int[Array, ""]]:
        del density, key
        return fit, jnp.zeros((), jnp.int32)

    def draw(self, fit: Any, key: PRNGKeyArray, count: int) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """Row i is of path i modulo the number of paths."""
        paths, dimension = fit.mean.shape
        rounds = -(-count // paths)
        noise = jax.random.normal(key, (rounds, paths, dimension), fit.mean.dtype)
        spread = jax.vmap(LowRank.spread, (0, 1), 1)(fit, noise)
        positions = (fit.mean + spread).reshape(-1, dimension)[:count]
        each = jax.vmap(lambda normal: jax.vmap(normal.log_pdf)(positions))(fit)
        return positions, logsumexp(each, axis=0) - jnp.log(jnp.asarray(paths, each.dtype))
