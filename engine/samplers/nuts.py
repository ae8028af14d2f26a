"""NUTS as a state machine: one advance is one leapfrog, so that no chain waits for another's tree."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pelton.engine.samplers.base import BoundLogDensity, Info, Stepwise
from pelton.engine.warmup import (
    DEEPER,
    EARLY_DEPTH,
    FIRST_STEP,
    LONG_WINDOW,
    RANK,
    USUAL,
    DualAverage,
    Learnt,
    Metric,
    estimate,
    first_metric,
    windows,
)

# A trajectory whose energy is further than this above its start's has left the region that matters.
MOST_ENERGY_ERROR = 1000.0
# Range of the energy that one step may cross before it is cut into halves, and how often it is halved.
MOST_STEP_ERROR = 10.0
MOST_HALVINGS = 7
# A trajectory's step is the adapted one times exp(u), |u| uniform up to here: trees of 2^n - 1 leaves of one step are
# all of one length, and a coordinate whose period is that length would hardly move.
JITTER = 0.15
# Step size of a run without a warm-up.
FIXED_STEP = 0.5


class State(NamedTuple):
    """A chain between two draws."""

    position: Float[Array, " d"]
    lp: Float[Array, ""]
    score: Float[Array, " d"]
    step_size: Float[Array, ""]
    averaging: DualAverage


class Point(NamedTuple):
    """A point of phase space; momentum and force are the metric's z and L' g.

    Two arrays instead of five: on a CPU a pass of the loop costs by the arrays that it carries.

    Attributes:
        vectors: position, momentum and force.
        scalars: log density and Hamiltonian.
    """

    vectors: Float[Array, "3 d"]
    scalars: Float[Array, "2"]

    @classmethod
    def of(cls, position: Array, momentum: Array, lp: Array, force: Array) -> "Point":
        """With the Hamiltonian that follows."""
        energy = -lp + 0.5 * jnp.dot(momentum, momentum)
        return cls(jnp.stack([position, momentum, force]), jnp.stack([lp, energy]))

    @property
    def position(self) -> Float[Array, " d"]:
        return self.vectors[0]

    @property
    def momentum(self) -> Float[Array, " d"]:
        return self.vectors[1]

    @property
    def force(self) -> Float[Array, " d"]:
        return self.vectors[2]

    @property
    def lp(self) -> Float[Array, ""]:
        return self.scalars[0]

    @property
    def energy(self) -> Float[Array, ""]:
        return self.scalars[1]


class Leaf(NamedTuple):
    """The step from the trajectory's end to its next leaf, under construction.

    A step of size h is first one leapfrog of h; where the energy's range on the way passes its limit it is two of h/2,
    then four of h/4 and so on. It can be taken back only if the way back asks for as many halvings, so the coarser
    ones are tried from there before it counts.

    Attributes:
        at: how far it is.
        reached: where the way out ended.
        micro: leapfrogs of this way that are done.
        halvings: of the step on this way.
        low, high: bounds of the energy on this way.
        returning: whether this is a way back.
    """

    at: Point
    reached: Point
    micro: Int[Array, ""]
    halvings: Int[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    returning: Bool[Array, ""]

    @classmethod
    def begin(cls, end: Point) -> "Leaf":
        """At the end of the trajectory."""
        zero = jnp.zeros((), jnp.int32)
        return cls(end, end, zero, zero, end.energy, end.energy, jnp.asarray(False))


class Lesson(NamedTuple):
    """What is learnt from a draw beside its position."""

    score: Float[Array, " d"]
    n_steps: Int[Array, ""]


# Of the even leaves that later ones are held against, by the number of ones in half their index: the leaf's momentum,
# the sum of the subtree's momenta up to it, and the momentum of the leaf before it. The last row takes odd leaves.
type Kept = Float[Array, "depth+1 3 d"]


class Tree(NamedTuple):
    """A trajectory under construction: what is complete, and the subtree that is to double it.

    Attributes:
        key: of the draw.
        start_energy: Hamiltonian at the start.
        step_size: of this trajectory.
        left, right: ends of the complete trajectory.
        total: sum of its momenta.
        proposal: its draw so far.
        log_weight: log of the sum of its weights exp(start_energy - energy).
        depth: its doublings.
        forward: whether the subtree goes to the right.
        end: last leaf of the subtree, or of the trajectory before its first.
        next: the leaf after it, under construction.
        first: momentum of the subtree's first leaf.
        sub_total, sub_proposal, sub_log_weight: as above, of the subtree.
        leaf, leaves: leaves of the subtree, and of the whole draw.
        accepted: sum of min(1, weight) over the leaves whose step was not halved.
        n_steps: gradients so far.
        diverging, finished: whether the energy error has passed its limit, and whether the draw is ready.
    """

    key: PRNGKeyArray
    start_energy: Float[Array, ""]
    step_size: Float[Array, ""]
    left: Point
    right: Point
    total: Float[Array, " d"]
    proposal: Point
    log_weight: Float[Array, ""]
    depth: Int[Array, ""]
    forward: Bool[Array, ""]
    end: Point
    next: Leaf
    first: Float[Array, " d"]
    sub_total: Float[Array, " d"]
    sub_proposal: Point
    sub_log_weight: Float[Array, ""]
    leaf: Int[Array, ""]
    leaves: Int[Array, ""]
    accepted: Float[Array, ""]
    n_steps: Int[Array, ""]
    diverging: Bool[Array, ""]
    finished: Bool[Array, ""]


def _where(condition: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _turns(one: Array, other: Array, total: Array) -> Array:
    """Whether a stretch of momenta of that sum has stopped moving its ends apart (Betancourt 2017, A.4.2)."""
    return (jnp.dot(total, one) <= 0) | (jnp.dot(total, other) <= 0)


def _subtree_turns(kept: Kept, leaf: Array, momentum: Array, total: Array) -> Array:
    """Whether any balanced part of the subtree that ends with an odd leaf makes a U-turn.

    Each part of 2^k leaves is held against its own first leaf, and its two halves with the leaf beyond them, which
    finds turns that the ends alone step over.
    """
    last = jax.lax.population_count(leaf >> 1)
    # As many parts end here as the index has trailing ones.
    parts = jax.lax.population_count(leaf & ~(leaf + 1))

    def check(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        at, _ = carry
        middle = jnp.minimum(at + 1, last)
        first, up_to_first, _ = kept[at]
        beyond, up_to_middle, before = kept[middle]
        whole = total - up_to_first + first
        right = total - up_to_middle + beyond
        turns = _turns(first, momentum, whole)
        halves = _turns(first, beyond, whole - right + beyond) | _turns(before, momentum, right + before)
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

    The step size is adapted by dual averaging, the metric by the draws and scores of all chains (`engine.warmup`). A
    step on which the energy would leave its bounds is made of smaller ones (`Leaf`), so that the neck of a funnel does
    not ask for small steps everywhere else. A step that cannot be taken back ends the trajectory like a U-turn in the
    subtree does.

    Source: Hoffman & Gelman 2014; Betancourt 2017; the loop as a state machine after Dance et al. 2025; steps within a
    leaf after Bou-Rabee, Carpenter, Kleppe & Liu 2026 (WALNUTS, JMLR 27).
    """

    name: ClassVar[str] = "nuts"
    local_steps: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("dense", "low-rank", "diagonal")

    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> State:
        del key
        lp, score = jax.value_and_grad(logdensity)(position)
        step_size = jnp.asarray(FIRST_STEP if self.warmup_steps else FIXED_STEP, position.dtype)
        return State(position, lp, score, step_size, DualAverage.at(jnp.log(step_size)))

    def scratch(self, state: Any) -> Kept:
        return jnp.zeros((self.max_tree_depth + 1, 3, *state.position.shape), state.position.dtype)

    def begin(self, state: Any, learnt: Any, key: PRNGKeyArray) -> Tree:
        key_momentum, key_jitter, key_tree = jax.random.split(key, 3)
        dtype = state.position.dtype
        momentum = jax.random.normal(key_momentum, state.position.shape, dtype)
        point = Point.of(state.position, momentum, state.lp, learnt.metric.force(state.score))
        zero, none = jnp.zeros_like(state.lp), jnp.zeros((), jnp.int32)
        no = jnp.asarray(False)
        return self._double(
            Tree(
                key=key_tree,
                start_energy=point.energy,
                step_size=state.step_size * jnp.exp(jax.random.uniform(key_jitter, (), dtype, -JITTER, JITTER)),
                left=point,
                right=point,
                total=momentum,
                proposal=point,
                log_weight=zero,
                depth=none,
                forward=no,
                end=point,
                next=Leaf.begin(point),
                first=momentum,
                sub_total=momentum,
                sub_proposal=point,
                sub_log_weight=zero,
                leaf=none,
                leaves=none,
                accepted=zero,
                n_steps=none,
                diverging=no,
                finished=no,
            )
        )

    def _double(self, tree: Tree) -> Tree:
        """A subtree begun at one end, by the toss of a coin."""
        forward = jax.random.bernoulli(jax.random.fold_in(tree.key, 2**30 + tree.depth))
        end = _where(forward, tree.right, tree.left)
        return tree._replace(
            forward=forward,
            end=end,
            next=Leaf.begin(end),
            sub_total=jnp.zeros_like(tree.total),
            sub_proposal=tree.proposal,
            sub_log_weight=jnp.full_like(tree.log_weight, -jnp.inf),
            leaf=jnp.zeros_like(tree.leaf),
        )

    def advance(self, logdensity: BoundLogDensity, learnt: Any, work: Any, scratch: Any) -> tuple[Tree, Kept]:
        tree, complete, halved = self._leapfrog(logdensity, learnt.metric, work)
        key = jax.random.fold_in(tree.key, tree.n_steps)

        # Even leaves are kept; what is written here before a leaf is complete is written again.
        leaf, reached = tree.leaf, tree.next.reached
        row = jnp.stack([reached.momentum, tree.sub_total + reached.momentum, tree.end.momentum])
        at = jnp.where(leaf % 2 == 0, jax.lax.population_count(leaf >> 1), self.max_tree_depth)
        kept = jax.lax.dynamic_update_index_in_dim(scratch, row, at, 0)
        tree = jax.lax.cond(
            complete,
            lambda: self._take_in(tree, kept, halved, learnt.most_depth, key),
            lambda: tree,
        )
        return tree, kept

    def _leapfrog(self, logdensity: BoundLogDensity, metric: Metric, tree: Tree) -> tuple[Tree, Array, Array]:
        """One leapfrog further; whether the next leaf is complete, and whether its step was halved."""
        way, at = tree.next, tree.next.at
        outwards = tree.forward != way.returning
        step = jnp.where(outwards, tree.step_size, -tree.step_size) * jnp.exp2(-way.halvings.astype(at.energy.dtype))
        half = at.momentum + 0.5 * step * at.force
        position = at.position + step * metric.velocity(half)
        lp, score = jax.value_and_grad(logdensity)(position)
        force = metric.force(score)
        momentum = half + 0.5 * step * force
        new = Point.of(position, momentum, lp, force)
        energy = new.energy

        low, high, micro = jnp.minimum(way.low, energy), jnp.maximum(way.high, energy), way.micro + 1
        fine = high - low <= MOST_STEP_ERROR  # false where the energy is NaN
        arrived = fine & (micro == 1 << way.halvings)
        none_coarser = way.halvings == 0
        reached = _where(arrived & ~way.returning, new, way.reached)
        # The way back succeeds with fewer halvings: the step cannot be taken back.
        one_way = arrived & way.returning
        complete = jnp.where(way.returning, ~fine, arrived) & none_coarser
        halved_too_often = ~fine & ~way.returning & (way.halvings == MOST_HALVINGS)
        # Another way begins: out again with one halving more, or back with one less than this one had.
        back = jnp.where(way.returning, ~fine, arrived)
        again = back | (~fine & ~way.returning)
        begin = _where(back, reached, tree.end)
        following = Leaf(
            at=_where(again, begin, new),
            reached=reached,
            micro=jnp.where(again, 0, micro),
            halvings=jnp.where(again, way.halvings + jnp.where(back, -1, 1), way.halvings),
            low=jnp.where(again, begin.energy, low),
            high=jnp.where(again, begin.energy, high),
            returning=way.returning | back,
        )
        tree = tree._replace(
            next=following,
            n_steps=tree.n_steps + 1,
            leaves=tree.leaves + (halved_too_often | one_way),
            diverging=halved_too_often,
            finished=halved_too_often | one_way,
        )
        return tree, complete, way.returning

    def _take_in(self, tree: Tree, kept: Kept, halved: Array, most_depth: Array, key: PRNGKeyArray) -> Tree:
        """The subtree with the leaf that is complete; the trajectory doubled where that is its last."""
        reached = tree.next.reached
        chance_leaf, chance_tree = jnp.log(jax.random.uniform(key, (2,), reached.energy.dtype))
        log_weight = tree.start_energy - reached.energy
        diverging = log_weight < -MOST_ENERGY_ERROR
        sub_log_weight = jnp.logaddexp(tree.sub_log_weight, log_weight)
        chosen = chance_leaf < log_weight - sub_log_weight
        sub_total = tree.sub_total + reached.momentum
        turning = jax.lax.cond(
            tree.leaf % 2 == 0,
            lambda: jnp.asarray(False),
            lambda: _subtree_turns(kept, tree.leaf, reached.momentum, sub_total),
        )
        tree = tree._replace(
            end=reached,
            next=Leaf.begin(reached),
            first=jnp.where(tree.leaf == 0, reached.momentum, tree.first),
            sub_total=sub_total,
            sub_proposal=_where(chosen, reached, tree.sub_proposal),
            sub_log_weight=sub_log_weight,
            leaf=tree.leaf + 1,
            leaves=tree.leaves + 1,
            accepted=tree.accepted + jnp.where(halved, 0.0, jnp.minimum(jnp.exp(log_weight), 1.0)),
            diverging=diverging,
            finished=diverging | turning,
        )
        whole = ~tree.finished & (tree.leaf == 1 << tree.depth)
        return jax.lax.cond(whole, lambda: self._join(tree, most_depth, chance_tree), lambda: tree)

    def _join(self, tree: Tree, most_depth: Array, chance: Array) -> Tree:
        """The trajectory doubled by its subtree, and the next subtree begun unless it is done."""
        chosen = chance < tree.sub_log_weight - tree.log_weight
        near, far = (
            _where(tree.forward, one, other) for one, other in ((tree.right, tree.left), (tree.left, tree.right))
        )
        total = tree.total + tree.sub_total
        turning = (
            _turns(far.momentum, tree.end.momentum, total)
            | _turns(far.momentum, tree.first, tree.total + tree.first)
            | _turns(near.momentum, tree.end.momentum, tree.sub_total + near.momentum)
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

    def complete(self, state: Any, learnt: Any, work: Any) -> tuple[State, Info]:
        found = work.proposal
        info = Info(
            lp=found.lp,
            energy=found.energy,
            acceptance_rate=work.accepted / work.leaves,
            n_steps=work.n_steps,
            tree_depth=jnp.ceil(jnp.log2(work.leaves + 1.0)).astype(jnp.int32),
            step_size=work.step_size,
            diverging=work.diverging,
            reached_max_tree_depth=(work.depth >= self.max_tree_depth) & ~work.diverging,
        )
        score = learnt.metric.score(found.force)
        return state._replace(position=found.position, lp=found.lp, score=score), info

    def adapt(self, state: Any, info: Info) -> State:
        averaging = state.averaging.updated(self.target_accept - info.acceptance_rate)
        return state._replace(averaging=averaging, step_size=jnp.exp(averaging.log_step))

    @property
    def windows(self) -> tuple[int, ...]:
        return windows(self.warmup_steps)

    def lesson(self, state: Any, info: Info) -> Lesson:
        return Lesson(state.score, info.n_steps)

    def learn(self, states: Any, learnt: Any, draws: Any, lessons: Any, end: int) -> tuple[State, Learnt]:
        rank = self._rank(states.position.shape[-1])
        if end == 0:
            score = states.score if self.warmup_steps else np.ones_like(states.score)
            depth = min(EARLY_DEPTH, self.max_tree_depth) if self.warmup_steps else self.max_tree_depth
            return states, self._learnt(first_metric(score, rank), depth)
        ends = (0, *self.windows)
        begin = ends[ends.index(end) - 1]
        metric = learnt.metric
        if end < self.warmup_steps or begin == 0:
            pooled = (np.moveaxis(values, (0, 1), (-3, -2)) for values in (draws, lessons.score))
            x, g = (values.reshape(*values.shape[:-3], -1, values.shape[-1]) for values in pooled)
            metric = estimate(x, g, metric, rank=rank)
        if end - begin >= LONG_WINDOW or end == self.warmup_steps:
            # All chains have one metric, so one step size suits them all.
            log_step = np.broadcast_to(np.mean(states.averaging.log_average, axis=0), states.step_size.shape)
            states = states._replace(step_size=np.exp(log_step), averaging=DualAverage.at(log_step, boldness=0.0))
        depth = self.max_tree_depth
        if end < self.warmup_steps:
            usual = np.quantile(lessons.n_steps[:, begin - end :], USUAL, axis=(0, 1))
            depth = np.minimum(np.ceil(np.log2(usual + 1)) + DEEPER, depth)
        return states, self._learnt(metric, depth)

    def attrs(self, learnt: Any) -> dict[str, Any]:
        return {"metric_directions": int(np.sum(np.asarray(learnt.metric.stretch) != 1))}

    def _rank(self, dimension: int) -> int:
        """Directions of the metric."""
        match self.metric:
            case "diagonal":
                return 0
            case "dense":
                return dimension
            case _:
                return min(RANK, dimension)

    def _learnt(self, metric: Metric, depth: Any) -> Learnt:
        return Learnt(metric, np.broadcast_to(np.int32(depth), metric.scale.shape[:-1]))

    def position(self, state: Any) -> Array:
        return state.position
