"""A block's mixture fitted to populations of the posterior itself, each class of its modes apart."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from pelton.engine import mixture
from pelton.engine.mixture import Mixture
from pelton.engine.posterior import Hierarchy
from pelton.engine.start import LEAST_WEIGHT, classify, resample

# Draws from the mixture of each class; shared coordinates at which they are weighed.
DRAWS = 4096
SHARED_DRAWS = 64
# By how many of their sds every second of them is moved: the members may not have found yet how far they reach, which
# they cannot while no block's mixture has anything to offer there.
SPREAD = 1.5
# The largest weights of a class are cut to the next: this share of the draws, so that no handful makes a population.
CUT_SHARE = 1 / 16
# Members of a class's population; half of them begin at the chains' positions where so many of those are in the class.
POINTS = 4096
LEAST_SETTLED = 64
# Moves of a population, and the factor of one axis's sd that one move is made by.
MOVES = 20
WIDE = 3.0
# Classes of a smaller share are left as they are.
LEAST_SHARE = 1e-4


def flatten(classes: Mixture, log_shares: Float[Array, " class"]) -> Mixture:
    """One mixture of all classes' components, each class by its share."""
    weighted = classes._replace(log_weight=classes.log_weight + log_shares[:, None])
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), weighted)


def foremost(flat: Mixture, count: int) -> Mixture:
    """The mixture of the components of the greatest weights: those of classes that hold nothing cost as much as any."""
    log_weight, kept = jax.lax.top_k(flat.log_weight, min(count, flat.log_weight.shape[0]))
    rest = jax.tree.map(lambda leaf: leaf[kept], flat)
    return rest._replace(log_weight=log_weight - logsumexp(log_weight))


class _Marginal(NamedTuple):
    """A block's marginal density, as the mean over shared coordinates s_i of its density f(z, s_i) / Z_i given them."""

    hierarchy: Hierarchy
    data: Any
    block: Array
    shared: Float[Array, "some shared"]
    log_norms: Float[Array, " some"]

    def conditional(self, points: Array) -> Array:
        """log f [some, point], not normalised."""
        h = self.hierarchy
        likelihood = jax.vmap(h.block_likelihood, (0, None, None))(points, self.block, self.data)
        prior = jax.vmap(jax.vmap(h.block_prior, (0, None, None)), (None, 0, None))(points, self.shared, self.data)
        value = prior + likelihood
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def logpdf(self, points: Array, index: Array) -> Array:
        """Its logarithm [point], -inf outside the class of that index, up to a constant."""
        value = logsumexp(self.conditional(points) - self.log_norms[:, None], axis=0)
        return jnp.where(classify(self.hierarchy, self.data, self.block, points) == index, value, -jnp.inf)


def _moved(target: _Marginal, index: Array, proposal: Mixture, points: Array, key: PRNGKeyArray) -> Array:
    """A population moved within its class: by differences of members, along single axes, and anew from the mixture."""
    size, d = points.shape

    def move(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        points, value = carry
        key_pair, key_axis, key_scale, key_wide, key_new, key_accept = jax.random.split(
            jax.random.fold_in(key, step), 6
        )
        first, second = jax.random.randint(key_pair, (2, size), 0, size)
        scale = jnp.exp(-0.3 + 0.7 * jax.random.normal(key_scale, (size, 1), points.dtype))
        difference = scale * 2.38 / np.sqrt(2 * d) * (points[first] - points[second])
        # To the ends of ridges that no other member has reached.
        axis = jax.random.randint(key_axis, (size, 1), 0, d) == jnp.arange(d)
        along = axis * WIDE * scale * jnp.std(points, axis=0) * jax.random.normal(key_wide, points.shape, points.dtype)
        anew = step % 2 == 1
        proposed = jnp.where(
            anew, mixture.draw(proposal, key_new, size), points + jnp.where(step % 4 == 0, difference, along)
        )
        hastings = jnp.where(anew, mixture.logpdf(proposal, points) - mixture.logpdf(proposal, proposed), 0.0)
        new = target.logpdf(proposed, index)
        keep = jnp.log(jax.random.uniform(key_accept, (size,), points.dtype)) < new - value + hastings
        return jnp.where(keep[:, None], proposed, points), jnp.where(keep, new, value)

    return jax.lax.fori_loop(0, MOVES, move, (points, target.logpdf(points, index)))[0]


def _share_out(weights: Array) -> Array:
    """Weights summing to one, or zeros."""
    total = jnp.sum(weights)
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), 0.0)


def refine(
    hierarchy: Hierarchy,
    data: Any,
    block: Array,
    classes: Mixture,
    shared: Float[Array, "member shared"],
    settled: Float[Array, "point d"],
    key: PRNGKeyArray,
) -> tuple[Mixture, Float[Array, " class"]]:
    """Mixtures of a block's classes, each fitted to a population of the block's posterior within the class.

    The block's marginal posterior is p(z) = mean_i f(z, s_i) / Z_i, f being the block's prior times its likelihood and
    s_1, ..., s_m shared coordinates from the posterior, every second moved further out. With draws z_j from the mixture
    q of all classes in equal parts, Z_i = sum_j f(z_j, s_i) / q(z_j), and p(z_j) / q(z_j) are the draws' weights: their
    sums are the shares of the classes in which they lie. A population for each class begins at its draws, and at the
    chains' positions, and moves; however little of the posterior a class holds, its mixture is fitted to as many points
    as any other's.

    Args:
        hierarchy, data: the posterior's.
        block: which.
        classes: mixtures to draw from, stacked [class, component, ...], weights summing to one in each.
        shared: shared coordinates [member, shared] from the posterior.
        settled: positions of the block from chains [point, d].
        key: of all randomness.

    Returns:
        The mixtures, and the logarithms of the classes' shares of the proposals [class].

    Source: Cappe et al. 2008, adaptive importance sampling in general mixture classes; weights cut as by Koblents &
    Miguez 2015; moves of ter Braak 2006.
    """
    count = classes.log_weight.shape[0]
    key_draw, key_some, key_spread, key_fit = jax.random.split(key, 4)
    drawn = jax.vmap(lambda one, key: mixture.draw(one, key, DRAWS))(classes, jax.random.split(key_draw, count))
    drawn = drawn.reshape(count * DRAWS, hierarchy.size)
    some = shared[jax.random.choice(key_some, shared.shape[0], (SHARED_DRAWS,))]
    steps = SPREAD * jnp.std(shared, axis=0) * jax.random.normal(key_spread, some.shape, some.dtype)
    some = some + jnp.where(jnp.arange(SHARED_DRAWS)[:, None] % 2 == 0, 0.0, steps)
    target = _Marginal(hierarchy, data, block, some, jnp.zeros(SHARED_DRAWS, drawn.dtype))
    proposed = mixture.logpdf(flatten(classes, jnp.full(count, -np.log(count), drawn.dtype)), drawn)
    ratio = target.conditional(drawn) - proposed
    norms = logsumexp(ratio, axis=1)
    norms = jnp.where(norms > -jnp.inf, norms, jnp.inf)
    target = target._replace(log_norms=norms)
    weight = jnp.mean(jnp.exp(ratio - norms[:, None]), axis=0)
    drawn_class, settled_class = (classify(hierarchy, data, block, points) for points in (drawn, settled))
    both = jnp.concatenate([drawn, settled])

    def fit_class(index: Array, old: Mixture, key: PRNGKeyArray) -> tuple[Mixture, Array]:
        key_points, key_moves, key_em = jax.random.split(key, 3)
        own = jnp.where(drawn_class == index, weight, 0.0)
        share = jnp.sum(own)
        highest = jax.lax.top_k(own, int(CUT_SHARE * DRAWS))[0]
        # The last of the highest that is not 0: a class may have fewer.
        own = jnp.minimum(own, jnp.min(jnp.where(highest > 0, highest, jnp.inf)))
        known = (settled_class == index).astype(own.dtype)
        known = jnp.where(jnp.sum(known) >= LEAST_SETTLED, _share_out(known), 0.0)

        def again() -> Mixture:
            chosen = resample(jnp.concatenate([_share_out(own), known]), key_points, POINTS)
            points = _moved(target, index, old, both[chosen], key_moves)
            fitted = mixture.fit(points, key_em, old.log_weight.shape[0])
            fine = jnp.all(jnp.isfinite(fitted.inverse))
            return jax.tree.map(lambda new, old: jnp.where(fine, new, old), fitted, old)

        return jax.lax.cond(share > LEAST_SHARE * jnp.sum(weight), again, lambda: old), share

    fitted, shares = jax.lax.map(
        lambda each: fit_class(*each), (jnp.arange(count), classes, jax.random.split(key_fit, count))
    )
    shares = _share_out(shares)
    alive = shares > LEAST_SHARE
    # Those that are not keep a share too small to matter.
    shares = jnp.where(alive, (1 - LEAST_WEIGHT) * shares + LEAST_WEIGHT / jnp.maximum(jnp.sum(alive), 1), 1e-6)
    return fitted, jnp.log(_share_out(shares))
