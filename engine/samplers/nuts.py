"""NUTS as a state machine: one advance is one leapfrog, so that no chain waits for another's tree."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pelton.engine.samplers.base import BoundLogDensity, Info, Stepwise
from pelton.engine.warmup import EARLY_DEPTH, FIRST_STEP, Adaptation, Metric, identity, schedule

# A trajectory whose energy is further than this above its start's has left the region that matters.
MOST_ENERGY_ERROR = 1000.0


class State(NamedTuple):
    """A chain between two draws."""

    position: Float[Array, " d"]
    lp: Float[Array, ""]
    score: Float[Array, " d"]
    step_size: Float[Array, ""]
    metric: Metric
    adaptation: Adaptation
    most_depth: Int[Array, ""]


class Point(NamedTuple):
    """A point of phase space."""

    position: Float[Array, " d"]
    momentum: Float[Array, " d"]
    score: Float[Array, " d"]


class Proposal(NamedTuple):
    """The point that a trajectory, or a subtree, would give as the draw."""

    position: Float[Array, " d"]
    score: Float[Array, " d"]
    lp: Float[Array, ""]
    energy: Float[Array, ""]


class Kept(NamedTuple):
    """Of the even leaves that later ones are held against, by the number of ones in half their index.

    Attributes:
        momentum: the leaf's.
        total: sum of the subtree's momenta up to it.
        before: momentum of the leaf before it.
    """

    momentum: Float[Array, "depth d"]
    total: Float[Array, "depth d"]
    before: Float[Array, "depth d"]


class Tree(NamedTuple):
    """A trajectory under construction: what is complete, and the subtree that is to double it.

    Attributes:
        key: of the draw.
        start_energy: Hamiltonian at the start.
        left, right: ends of the complete trajectory.
        total: sum of its momenta.
        proposal: its draw so far.
        log_weight: log of the sum of its weights exp(start_energy - energy).
        depth: its doublings.
        forward: whether the subtree goes to the right.
        end: last leaf of the subtree, or of the trajectory before its first.
        first: momentum of the subtree's first leaf.
        sub_total, sub_proposal, sub_log_weight: as above, of the subtree.
        leaf: leaves that the subtree has.
        accepted: sum of min(1, weight) over all leaves.
        n_steps: leaves so far.
        diverging, finished: whether the energy error has passed its limit, and whether the draw is ready.
    """

    key: PRNGKeyArray
    start_energy: Float[Array, ""]
    left: Point
    right: Point
    total: Float[Array, " d"]
    proposal: Proposal
    log_weight: Float[Array, ""]
    depth: Int[Array, ""]
    forward: Bool[Array, ""]
    end: Point
    first: Float[Array, " d"]
    sub_total: Float[Array, " d"]
    sub_proposal: Proposal
    sub_log_weight: Float[Array, ""]
    leaf: Int[Array, ""]
    accepted: Float[Array, ""]
    n_steps: Int[Array, ""]
    diverging: Bool[Array, ""]
    finished: Bool[Array, ""]


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _turns(metric: Metric, one: Array, other: Array, total: Array) -> Array:
    """Whether a stretch of momenta of that sum has stopped moving its ends apart (Betancourt 2017, A.4.2)."""
    velocity = metric.velocity(total)
    return (jnp.dot(velocity, one) <= 0) | (jnp.dot(velocity, other) <= 0)


def _subtree_turns(metric: Metric, kept: Kept, leaf: Array, momentum: Array, total: Array) -> Array:
    """Whether any balanced part of the subtree that ends with an odd leaf makes a U-turn.

    Each part of 2^k leaves is held against its own first leaf, and its two halves with the leaf beyond them, which
    finds turns that the ends alone step over.
    """
    last = jax.lax.population_count(leaf >> 1)
    # As many parts end here as the index has trailing ones.
    parts = jax.lax.population_count(leaf & ~(leaf + 1))

    def check(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        at, _ = carry
        first = kept.momentum[at]
        whole = total - kept.total[at] + first
        middle = jnp.minimum(at + 1, last)
        beyond, before = kept.momentum[middle], kept.before[middle]
        right = total - kept.total[middle] + beyond
        turns = _turns(metric, first, momentum, whole)
        halves = _turns(metric, first, beyond, whole - right + beyond) | _turns(
            metric, before, momentum, right + before
        )
        return at - 1, turns | ((at < last) & halves)

    _, turning = jax.lax.while_loop(
        lambda carry: (carry[0] > last - parts) & ~carry[1], check, (last, jnp.asarray(False))
    )
    return turning


@dataclass(frozen=True)
class Nuts(Stepwise):
    """Multinomial NUTS with biased progressive sampling and the generalised U-turn criterion, its halves included.

    A draw is a sequence of advances; each makes one leapfrog and one gradient. Chains of one program advance together
    and begin their next draw the moment the last is complete, so none is held up by a neighbour's longer tree. What a
    chain draws depends on its own state and key alone.

    The step size is adapted by dual averaging, the metric by draws and scores (`engine.warmup`).

    Source: Hoffman & Gelman 2014; Betancourt 2017; the loop as a state machine after Dance et al. 2025.
    """

    name: ClassVar[str] = "nuts"

    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> State:
        del key
        lp, score = jax.value_and_grad(logdensity)(position)
        step_size = jnp.asarray(FIRST_STEP if self.warmup_steps else 0.5, position.dtype)
        metric = identity(score if self.warmup_steps else jnp.ones_like(score), self.dense)
        adaptation = Adaptation.begin(position.shape[0], self.dense, position.dtype)
        depth = jnp.asarray(min(EARLY_DEPTH, self.max_tree_depth) if self.warmup_steps else self.max_tree_depth)
        return State(position, lp, score, step_size, metric, adaptation, depth.astype(jnp.int32))

    def scratch(self, state: Any) -> Kept:
        rows = jnp.zeros((self.max_tree_depth, *state.position.shape), state.position.dtype)
        return Kept(rows, rows, rows)

    def begin(self, state: Any, key: PRNGKeyArray) -> Tree:
        key_momentum, key_tree = jax.random.split(key)
        standard = jax.random.normal(key_momentum, state.position.shape, state.position.dtype)
        momentum = state.metric.momentum(standard)
        energy = -state.lp + 0.5 * jnp.dot(standard, standard)
        point = Point(state.position, momentum, state.score)
        proposal = Proposal(state.position, state.score, state.lp, energy)
        zero, none = jnp.zeros_like(state.lp), jnp.zeros((), jnp.int32)
        no = jnp.asarray(False)
        return self._double(
            Tree(
                key=key_tree,
                start_energy=energy,
                left=point,
                right=point,
                total=momentum,
                proposal=proposal,
                log_weight=zero,
                depth=none,
                forward=no,
                end=point,
                first=momentum,
                sub_total=momentum,
                sub_proposal=proposal,
                sub_log_weight=zero,
                leaf=none,
                accepted=zero,
                n_steps=none,
                diverging=no,
                finished=no,
            )
        )

    def _double(self, tree: Tree) -> Tree:
        """A subtree begun at one end, by the toss of a coin."""
        forward = jax.random.bernoulli(jax.random.fold_in(tree.key, 2**30 + tree.depth))
        return tree._replace(
            forward=forward,
            end=_where(forward, tree.right, tree.left),
            sub_total=jnp.zeros_like(tree.total),
            sub_proposal=tree.proposal,
            sub_log_weight=jnp.full_like(tree.log_weight, -jnp.inf),
            leaf=jnp.zeros_like(tree.leaf),
        )

    def advance(self, logdensity: BoundLogDensity, state: Any, work: Any, scratch: Any) -> tuple[Tree, Kept]:
        tree, metric = work, state.metric
        key = jax.random.fold_in(tree.key, tree.n_steps)
        chance_leaf, chance_tree = jnp.log(jax.random.uniform(key, (2,), state.position.dtype))

        # One leapfrog.
        step = jnp.where(tree.forward, state.step_size, -state.step_size)
        half = tree.end.momentum + 0.5 * step * tree.end.score
        position = tree.end.position + step * metric.velocity(half)
        lp, score = jax.value_and_grad(logdensity)(position)
        momentum = half + 0.5 * step * score
        energy = -lp + 0.5 * jnp.dot(momentum, metric.velocity(momentum))
        log_weight = tree.start_energy - energy
        log_weight = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight)
        diverging = log_weight < -MOST_ENERGY_ERROR

        # The leaf within its subtree.
        sub_log_weight = jnp.logaddexp(tree.sub_log_weight, log_weight)
        chosen = chance_leaf < log_weight - sub_log_weight
        sub_proposal = _where(chosen, Proposal(position, score, lp, energy), tree.sub_proposal)
        sub_total = tree.sub_total + momentum
        even = tree.leaf % 2 == 0
        at = jax.lax.population_count(tree.leaf >> 1)
        row = Kept(momentum, sub_total, tree.end.momentum)
        kept = jax.tree.map(lambda rows, one: rows.at[at].set(jnp.where(even, one, rows[at])), scratch, row)
        turning = jax.lax.cond(
            even,
            lambda: jnp.asarray(False),
            lambda: _subtree_turns(metric, kept, tree.leaf, momentum, sub_total),
        )
        tree = tree._replace(
            end=Point(position, momentum, score),
            first=jnp.where(tree.leaf == 0, momentum, tree.first),
            sub_total=sub_total,
            sub_proposal=sub_proposal,
            sub_log_weight=sub_log_weight,
            leaf=tree.leaf + 1,
            accepted=tree.accepted + jnp.minimum(jnp.exp(log_weight), 1.0),
            n_steps=tree.n_steps + 1,
            diverging=diverging,
            finished=diverging | turning,
        )
        complete = ~tree.finished & (tree.leaf == 1 << tree.depth)
        tree = jax.lax.cond(complete, lambda: self._join(metric, tree, state.most_depth, chance_tree), lambda: tree)
        return tree, kept

    def _join(self, metric: Metric, tree: Tree, most_depth: Array, chance: Array) -> Tree:
        """The trajectory doubled by its subtree, and the next subtree begun unless it is done."""
        chosen = chance < tree.sub_log_weight - tree.log_weight
        near, far = (
            _where(tree.forward, one, other) for one, other in ((tree.right, tree.left), (tree.left, tree.right))
        )
        total = tree.total + tree.sub_total
        turning = (
            _turns(metric, far.momentum, tree.end.momentum, total)
            | _turns(metric, far.momentum, tree.first, tree.total + tree.first)
            | _turns(metric, near.momentum, tree.end.momentum, tree.sub_total + near.momentum)
        )
        depth = tree.depth + 1
        joined = tree._replace(
            left=_where(tree.forward, tree.left, tree.end),
            right=_where(tree.forward, tree.end, tree.right),
            total=total,
            proposal=_where(chosen, tree.sub_proposal, tree.proposal),
            log_weight=jnp.logaddexp(tree.log_weight, tree.sub_log_weight),
            depth=depth,
            finished=turning | (depth >= most_depth),
        )
        return self._double(joined)

    def finished(self, work: Any) -> Array:
        return work.finished

    def complete(self, state: Any, work: Any) -> tuple[State, Info]:
        found = work.proposal
        info = Info(
            lp=found.lp,
            energy=found.energy,
            acceptance_rate=work.accepted / work.n_steps,
            n_steps=work.n_steps,
            tree_depth=jnp.ceil(jnp.log2(work.n_steps + 1.0)).astype(jnp.int32),
            step_size=state.step_size,
            diverging=work.diverging,
            reached_max_tree_depth=(work.depth >= self.max_tree_depth) & ~work.diverging,
        )
        return state._replace(position=found.position, lp=found.lp, score=found.score), info

    def adapt(self, state: Any, info: Info, index: Array) -> State:
        missing = self.target_accept - info.acceptance_rate
        adaptation, metric, step_size = state.adaptation.updated(
            state.position, state.score, missing, state.metric, index, self.warmup_steps
        )
        _, early, _ = schedule(self.warmup_steps)
        depth = jnp.where(index < early - 1, min(EARLY_DEPTH, self.max_tree_depth), self.max_tree_depth)
        depth = jnp.where(index == self.warmup_steps - 1, self.max_tree_depth, depth)
        return state._replace(
            adaptation=adaptation, metric=metric, step_size=step_size, most_depth=depth.astype(jnp.int32)
        )

    def position(self, state: Any) -> Array:
        return state.position
