"""NUTS as a state machine: one advance is one leapfrog, so that no chain waits for another's tree."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pelton.engine.keys import log_uniform
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

    Attributes:
        position, momentum, force: vectors.
        lp, energy: log density and Hamiltonian.
    """

    position: Float[Array, " d"]
    momentum: Float[Array, " d"]
    force: Float[Array, " d"]
    lp: Float[Array, ""]
    energy: Float[Array, ""]

    @classmethod
    def of(cls, position: Array, momentum: Array, lp: Array, force: Array) -> "Point":
        """With the Hamiltonian that follows."""
        return cls(position, momentum, force, lp, -lp + 0.5 * jnp.dot(momentum, momentum))


class Way(NamedTuple):
    """How far a leaf under construction is; whole numbers, kept in one array.

    Attributes:
        micro: leapfrogs of this way that are done.
        halvings: of the step on this way.
        returning: whether this is a way back.
    """

    micro: Array
    halvings: Array
    returning: Array

    def packed(self) -> Int[Array, "3"]:
        return _packed(self, jnp.int32)


class Leaf(NamedTuple):
    """The step from the trajectory's end to its next leaf, under construction.

    A step of size h is first one leapfrog of h; where the energy's range on the way passes its limit it is two of h/2,
    then four of h/4 and so on. It can be taken back only if the way back asks for as many halvings, so the coarser
    ones are tried from there before it counts. A way out begins at the trajectory's end, a way back where that arrived.

    Attributes:
        at: how far it is, where the way is begun.
        reached: where the way out ended.
        way: of `Way`.
        bounds: the lowest and the highest energy on this way, where it is begun.
    """

    at: Point
    reached: Point
    way: Int[Array, "3"]
    bounds: Float[Array, "2"]


class Lesson(NamedTuple):
    """What is learnt from a draw beside its position."""

    score: Float[Array, " d"]
    n_steps: Int[Array, ""]


# Of the even leaves that later ones are held against, by the number of ones in half their index: the leaf's momentum,
# the sum of the subtree's momenta up to it, and the momentum of the leaf before it [row, d]. The last row takes odd
# leaves.
type Kept = tuple[Array, Array, Array]


class Counts(NamedTuple):
    """Whole numbers and flags of a tree, kept in one array.

    Attributes:
        depth: doublings of the trajectory.
        forward: whether the subtree goes to the right.
        leaf, leaves: leaves of the subtree, and of the whole draw.
        n_steps: gradients so far.
        diverging, finished: whether the energy error has passed its limit, and whether the draw is ready.
    """

    depth: Array
    forward: Array
    leaf: Array
    leaves: Array
    n_steps: Array
    diverging: Array
    finished: Array

    def packed(self) -> Int[Array, "7"]:
        return _packed(self, jnp.int32)


class Numbers(NamedTuple):
    """Real numbers of a tree, kept in one array.

    Attributes:
        start_energy: Hamiltonian at the start.
        step_size: of this trajectory.
        log_weight, sub_log_weight: log of the sum of the weights exp(start_energy - energy) of trajectory and subtree.
        accepted: sum of min(1, weight) over the leaves whose step was not halved.
    """

    start_energy: Array
    step_size: Array
    log_weight: Array
    sub_log_weight: Array
    accepted: Array

    def packed(self) -> Float[Array, "5"]:
        return _packed(self, self.start_energy.dtype)


class Tree(NamedTuple):
    """A trajectory under construction: what is complete, and the subtree that is to double it.

    Attributes:
        key: of the draw.
        counts, numbers: of `Counts` and `Numbers`.
        left, right: ends of the complete trajectory.
        total: sum of its momenta.
        proposal: its draw so far.
        end: last leaf of the subtree, or of the trajectory before its first.
        next: the leaf after it, under construction.
        first: momentum of the subtree's first leaf.
        sub_total, sub_proposal: as above, of the subtree.
    """

    key: PRNGKeyArray
    counts: Int[Array, "7"]
    numbers: Float[Array, "5"]
    left: Point
    right: Point
    total: Float[Array, " d"]
    proposal: Point
    end: Point
    next: Leaf
    first: Float[Array, " d"]
    sub_total: Float[Array, " d"]
    sub_proposal: Point

    @property
    def finished(self) -> Bool[Array, ""]:
        return Counts(*self.counts).finished != 0

    @property
    def whole(self) -> Bool[Array, ""]:
        """Whether the subtree has its last leaf."""
        counts = Counts(*self.counts)
        return (counts.finished == 0) & (counts.leaf == 1 << counts.depth)


def _packed(values: tuple[Array, ...], dtype: Any) -> Array:
    return jnp.stack([value.astype(dtype) for value in values])


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
        momenta, sums, befores = kept
        first, up_to_first = momenta[at], sums[at]
        beyond, up_to_middle, before = momenta[middle], sums[middle], befores[middle]
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
        rows = jnp.zeros((self.max_tree_depth + 1, *state.position.shape), state.position.dtype)
        return rows, rows, rows

    def begin(self, state: Any, learnt: Any, key: PRNGKeyArray) -> Tree:
        key_momentum, key_jitter, key_tree = jax.random.split(key, 3)
        dtype = state.position.dtype
        momentum = jax.random.normal(key_momentum, state.position.shape, dtype)
        point = Point.of(state.position, momentum, state.lp, learnt.metric.force(state.score))
        zero, none = jnp.zeros_like(state.lp), jnp.zeros((), jnp.int32)
        jitter = jnp.exp(jax.random.uniform(key_jitter, (), dtype, -JITTER, JITTER))
        return self._double(
            Tree(
                key=key_tree,
                counts=jnp.zeros(len(Counts._fields), jnp.int32),
                numbers=Numbers(point.energy, state.step_size * jitter, zero, zero, zero).packed(),
                left=point,
                right=point,
                total=momentum,
                proposal=point,
                end=point,
                next=Leaf(point, point, Way(none, none, none).packed(), jnp.zeros(2, dtype)),
                first=momentum,
                sub_total=momentum,
                sub_proposal=point,
            )
        )

    def _double(self, tree: Tree) -> Tree:
        """A subtree begun at one end, by the toss of a coin."""
        counts, numbers = Counts(*tree.counts), Numbers(*tree.numbers)
        forward = jax.random.bernoulli(jax.random.fold_in(tree.key, 2**30 + counts.depth))
        return tree._replace(
            counts=counts._replace(forward=forward, leaf=jnp.zeros_like(counts.leaf)).packed(),
            numbers=numbers._replace(sub_log_weight=jnp.full_like(numbers.log_weight, -jnp.inf)).packed(),
            end=_where(forward, tree.right, tree.left),
            next=tree.next._replace(way=jnp.zeros_like(tree.next.way)),
            sub_total=jnp.zeros_like(tree.total),
        )

    def advance(self, logdensity: BoundLogDensity, learnt: Any, work: Any, scratch: Any) -> tuple[Tree, Kept]:
        tree, kept = self._grow(logdensity, learnt.metric, work, scratch)
        return self._joined(tree, learnt.most_depth), kept

    def run(
        self, logdensity: BoundLogDensity, learnt: Any, work: Any, scratch: Any, most: Int[Array, ""]
    ) -> tuple[Tree, Kept, Int[Array, ""]]:
        """As the advances one by one; a loop over the leaves of one subtree carries less than one over all."""

        def grow(carry: tuple) -> tuple:
            tree, kept, made = carry
            return *self._grow(logdensity, learnt.metric, tree, kept), made + 1

        def double(carry: tuple) -> tuple:
            tree, kept, made = jax.lax.while_loop(
                lambda carry: ~carry[0].finished & ~carry[0].whole & (carry[2] < most), grow, carry
            )
            return self._joined(tree, learnt.most_depth), kept, made

        return jax.lax.while_loop(
            lambda carry: ~carry[0].finished & (carry[2] < most), double, (work, scratch, jnp.zeros_like(most))
        )

    def _grow(self, logdensity: BoundLogDensity, metric: Metric, tree: Tree, kept: Kept) -> tuple[Tree, Kept]:
        """The subtree one leapfrog further."""
        tree, complete, halved = self._leapfrog(logdensity, metric, tree)

        # Even leaves are kept; what is written here before a leaf is complete is written again.
        leaf, reached = Counts(*tree.counts).leaf, tree.next.reached
        rows = reached.momentum, tree.sub_total + reached.momentum, tree.end.momentum
        at = jnp.where(leaf % 2 == 0, jax.lax.population_count(leaf >> 1), self.max_tree_depth)
        kept = tuple(jax.lax.dynamic_update_index_in_dim(one, row, at, 0) for one, row in zip(kept, rows, strict=True))
        return jax.lax.cond(complete, lambda: self._take_in(tree, kept, halved), lambda: tree), kept

    def _leapfrog(self, logdensity: BoundLogDensity, metric: Metric, tree: Tree) -> tuple[Tree, Array, Array]:
        """One leapfrog further; whether the next leaf is complete, and whether its step was halved."""
        counts, leaf, way = Counts(*tree.counts), tree.next, Way(*tree.next.way)
        returning = way.returning != 0
        at = _where(way.micro == 0, _where(returning, leaf.reached, tree.end), leaf.at)
        outwards = (counts.forward != 0) != returning
        step_size = Numbers(*tree.numbers).step_size
        step = jnp.where(outwards, step_size, -step_size) * jnp.exp2(-way.halvings.astype(step_size.dtype))
        half = at.momentum + 0.5 * step * at.force
        position = at.position + step * metric.velocity(half)
        lp, score = jax.value_and_grad(logdensity)(position)
        force = metric.force(score)
        new = Point.of(position, half + 0.5 * step * force, lp, force)

        low, high = jnp.where(way.micro == 0, at.energy, leaf.bounds)
        low, high, micro = jnp.minimum(low, new.energy), jnp.maximum(high, new.energy), way.micro + 1
        fine = high - low <= MOST_STEP_ERROR  # false where the energy is NaN
        arrived = fine & (micro == 1 << way.halvings)
        # The way back succeeds with fewer halvings: the step cannot be taken back.
        one_way = arrived & returning
        # Another way begins: back with one halving less than this one had, or out again with one more.
        back = jnp.where(returning, ~fine, arrived)
        halved_too_often = ~fine & ~returning & (way.halvings == MOST_HALVINGS)
        ended = halved_too_often | one_way
        following = Way(
            micro=jnp.where(fine & ~back, micro, 0),
            halvings=way.halvings + jnp.where(back, -1, jnp.where(fine, 0, 1)),
            returning=returning | back,
        )
        tree = tree._replace(
            next=Leaf(new, _where(arrived & ~returning, new, leaf.reached), following.packed(), jnp.stack([low, high])),
            counts=counts._replace(
                n_steps=counts.n_steps + 1,
                leaves=counts.leaves + ended,
                diverging=halved_too_often,
                finished=ended,
            ).packed(),
        )
        return tree, back & (way.halvings == 0), returning

    def _take_in(self, tree: Tree, kept: Kept, halved: Array) -> Tree:
        """The subtree with the leaf that is complete."""
        counts, numbers, reached = Counts(*tree.counts), Numbers(*tree.numbers), tree.next.reached
        log_weight = numbers.start_energy - reached.energy
        diverging = log_weight < -MOST_ENERGY_ERROR
        sub_log_weight = jnp.logaddexp(numbers.sub_log_weight, log_weight)
        chosen = log_uniform(tree.key, counts.n_steps, log_weight.dtype) < log_weight - sub_log_weight
        sub_total = tree.sub_total + reached.momentum
        turning = jax.lax.cond(
            counts.leaf % 2 == 0,
            lambda: jnp.asarray(False),
            lambda: _subtree_turns(kept, counts.leaf, reached.momentum, sub_total),
        )
        accepted = jnp.where(halved, 0.0, jnp.minimum(jnp.exp(log_weight), 1.0))
        return tree._replace(
            counts=counts._replace(
                leaf=counts.leaf + 1, leaves=counts.leaves + 1, diverging=diverging, finished=diverging | turning
            ).packed(),
            numbers=numbers._replace(sub_log_weight=sub_log_weight, accepted=numbers.accepted + accepted).packed(),
            end=reached,
            next=tree.next._replace(way=jnp.zeros_like(tree.next.way)),
            first=jnp.where(counts.leaf == 0, reached.momentum, tree.first),
            sub_total=sub_total,
            sub_proposal=_where(chosen, reached, tree.sub_proposal),
        )

    def _joined(self, tree: Tree, most_depth: Array) -> Tree:
        """The trajectory doubled by its subtree where that is whole, and the next subtree begun unless it is done."""

        def join() -> Tree:
            counts, numbers = Counts(*tree.counts), Numbers(*tree.numbers)
            forward = counts.forward != 0
            chance = log_uniform(tree.key, -1 - counts.depth, numbers.log_weight.dtype)
            chosen = chance < numbers.sub_log_weight - numbers.log_weight
            near, far = (_where(forward, *ends) for ends in ((tree.right, tree.left), (tree.left, tree.right)))
            total = tree.total + tree.sub_total
            turning = (
                _turns(far.momentum, tree.end.momentum, total)
                | _turns(far.momentum, tree.first, tree.total + tree.first)
                | _turns(near.momentum, tree.end.momentum, tree.sub_total + near.momentum)
            )
            depth, log_weight = counts.depth + 1, jnp.logaddexp(numbers.log_weight, numbers.sub_log_weight)
            return self._double(
                tree._replace(
                    counts=counts._replace(depth=depth, finished=turning | (depth >= most_depth)).packed(),
                    numbers=numbers._replace(log_weight=log_weight).packed(),
                    left=_where(forward, tree.left, tree.end),
                    right=_where(forward, tree.end, tree.right),
                    total=total,
                    proposal=_where(chosen, tree.sub_proposal, tree.proposal),
                )
            )

        return jax.lax.cond(tree.whole, join, lambda: tree)

    def finished(self, work: Any) -> Array:
        return work.finished

    def complete(self, state: Any, learnt: Any, work: Any) -> tuple[State, Info]:
        found, counts, numbers = work.proposal, Counts(*work.counts), Numbers(*work.numbers)
        diverging = counts.diverging != 0
        info = Info(
            lp=found.lp,
            energy=found.energy,
            acceptance_rate=numbers.accepted / counts.leaves,
            n_steps=counts.n_steps,
            tree_depth=jnp.ceil(jnp.log2(counts.leaves + 1.0)).astype(jnp.int32),
            step_size=numbers.step_size,
            diverging=diverging,
            reached_max_tree_depth=(counts.depth >= self.max_tree_depth) & ~diverging,
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
