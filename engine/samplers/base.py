"""The interface of a sampler: init, warmup and step as pure functions, with an Info that names what to plot."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pelton.engine.posterior import Hierarchy

# Positions evaluated at once, and how many numbers of the data they may go through in all.
LEAST_TOGETHER, MOST_TOGETHER, TOGETHER_NUMBERS = 8, 250, 2**20

type BoundLogDensity = Callable[[Float[Array, " dimension"]], Float[Array, ""]]


@dataclass(frozen=True)
class Bound:
    """A log density of the position alone, which still knows what it is made of.

    Attributes:
        density: (position, data) -> log density.
        data: the posterior's data.
        start: (key, data) -> a starting position.
        hierarchy: how the log density divides into blocks, where it does.
    """

    density: Callable[[Array, Any], Array]
    data: Any
    start: Callable[[PRNGKeyArray, Any], Array]
    hierarchy: Hierarchy | None = None

    def __call__(self, position: Float[Array, " dimension"]) -> Float[Array, ""]:
        return self.density(position, self.data)


def together(logdensity: BoundLogDensity) -> int:
    """How many positions to evaluate at once: few where the data are long, for each may hold as much again."""
    numbers = sum(np.size(leaf) for leaf in jax.tree.leaves(getattr(logdensity, "data", ())))
    return max(LEAST_TOGETHER, min(MOST_TOGETHER, TOGETHER_NUMBERS // max(numbers, 1)))


class Info(NamedTuple):
    """What one transition reports, under ArviZ's names.

    Attributes:
        lp: log density at the draw.
        energy: Hamiltonian at the draw (-lp where the sampler has no momentum, or none drawn afresh for each draw).
        acceptance_rate: mean acceptance probability over the transition.
        n_steps: gradient evaluations (log-density evaluations where the sampler has no gradient).
        tree_depth: doublings of the trajectory; 0 where there is no tree.
        step_size: leapfrog step; 0 where there is none.
        diverging: whether the energy error passed the sampler's limit.
        reached_max_tree_depth: whether the trajectory was cut by its limit.
    """

    lp: Float[Array, "..."]
    energy: Float[Array, "..."]
    acceptance_rate: Float[Array, "..."]
    n_steps: Int[Array, "..."]
    tree_depth: Int[Array, "..."]
    step_size: Float[Array, "..."]
    diverging: Bool[Array, "..."]
    reached_max_tree_depth: Bool[Array, "..."]


def empty_info(length: int, dtype: Any) -> Info:
    """Room for the reports of that many transitions."""
    real, whole, flag = jnp.zeros(length, dtype), jnp.zeros(length, jnp.int32), jnp.zeros(length, bool)
    return Info(real, real, real, whole, whole, real, flag, flag)


@dataclass(frozen=True)
class Sampler(ABC):
    """Settings of a sampler and its pure functions; a static argument of the compiled programs.

    Attributes:
        warmup_steps: length of the warm-up that the adaptation is planned for.
        target_accept: mean acceptance probability that the step size is adapted to.
        max_tree_depth: limit on the doublings of a trajectory.
        metric: form of the inverse mass matrix, one of the sampler's `metrics`.
    """

    warmup_steps: int = 1000
    target_accept: float = 0.8
    max_tree_depth: int = 10
    metric: str = "diagonal"

    name: ClassVar[str]
    # Where one compiled program serves both phases, the driver compiles only that.
    adapts_in_step: ClassVar[bool] = False
    # What to adapt to where neither the caller nor the model says.
    default_target_accept: ClassVar[float] = 0.8
    # Independent draws need no warm-up, one start serves all chains, and a grid has a largest dimension.
    needs_warmup: ClassVar[bool] = True
    shared_init: ClassVar[bool] = False
    # Draws that are made again as soon as they are read need not be kept on disk.
    independent: ClassVar[bool] = False
    max_dimension: ClassVar[int | None] = None
    # Forms of the metric: the first serves few dimensions, the second, where there is one, many.
    metrics: ClassVar[tuple[str, ...]] = ("dense", "diagonal")
    # A dense metric costs d^2 a leapfrog and pays on the correlated posteriors of few dimensions.
    dense_up_to: ClassVar[int] = 20
    # Whether hard regions get smaller steps of their own, so that a run need not ask for a high acceptance everywhere.
    local_steps: ClassVar[bool] = False
    # Whether the largest dimension is of a block of the posterior's hierarchy and not of the whole position.
    by_blocks: ClassVar[bool] = False

    @abstractmethod
    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> Any:
        """The state at a starting position [dimension]."""

    @abstractmethod
    def position(self, state: Any) -> Float[Array, " dimension"]:
        """The draw that a state holds."""

    def quick(self) -> "Sampler":
        """A form that is as exact and cheaper, for posteriors that make it no trouble; by default the same."""
        return self

    def summary(self, state: Any) -> dict[str, Array]:
        """Numbers that a chain's state says before its first draw, for the tree's attributes.

        "population_gradients" are gradient evaluations that no transition reported.
        """
        del state
        return {}


class Chainwise(Sampler):
    """A sampler whose chains know nothing of one another: a transition is a function of one chain's state."""

    @abstractmethod
    def step(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> tuple[Any, Info]:
        """One transition."""

    def warmup(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray, index: Array) -> tuple[Any, Info]:
        """One adapting transition, the index-th of `warmup_steps`."""
        return self.step(logdensity, state, key)


class Independent(Chainwise):
    """A sampler whose proposals know nothing of where the chain is, so that many are made at once.

    What a proposal reads of the state must be what `accept` leaves as it is. From draw to draw, `lp`, `energy` (-lp)
    and `acceptance_rate` of the Info change, and nothing else.
    """

    @abstractmethod
    def propose(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> Any:
        """A proposal, and all that decides whether it is accepted."""

    @abstractmethod
    def accept(self, state: Any, proposal: Any) -> tuple[Any, Info]:
        """One transition, to the proposal or to where the chain is; evaluates no density."""

    def step(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> tuple[Any, Info]:
        return self.accept(state, self.propose(logdensity, state, key))


class Ensemble(Sampler):
    """A sampler whose chains learn from one another at every step: its functions take and return all chains at once.

    States, positions [chain, dimension] and Info [chain] have a leading axis of chains wherever a chain's own would
    have none; what the chains share may stand in the state without that axis. Chains are always vectorised.
    """

    # Fewer chains than this teach one another too little.
    least_chains: ClassVar[int] = 2

    @abstractmethod
    def init(self, logdensity: BoundLogDensity, position: Array, key: PRNGKeyArray) -> Any:
        """The state of all chains at their starting positions [chain, dimension]."""

    @abstractmethod
    def step(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray) -> tuple[Any, Info]:
        """One transition of all chains."""

    @abstractmethod
    def warmup(self, logdensity: BoundLogDensity, state: Any, key: PRNGKeyArray, index: Array) -> tuple[Any, Info]:
        """One adapting transition of all chains, the index-th of `warmup_steps`."""

    @abstractmethod
    def position(self, state: Any) -> Float[Array, "chain dimension"]:
        """The draws that a state holds."""


class Stepwise(Sampler):
    """A sampler whose transition is a loop of advances, each of one gradient.

    The driver runs the advances of all draws in one loop, and of all vectorised chains together: a chain whose draw is
    ready begins the next at once instead of waiting for the others. Chains learn from one another at the ends of the
    warm-up's windows, outside of any compiled program; what they learn is the same for all and holds for a window.

    `init` evaluates the density at the starting position and nowhere else: it is given what is known of it there.
    """

    @abstractmethod
    def scratch(self, state: Any) -> Any:
        """Room that advances write in; what is in it when a draw begins does not matter."""

    @abstractmethod
    def begin(self, state: Any, learnt: Any, key: PRNGKeyArray) -> Any:
        """A draw begun from a state; evaluates no density."""

    @abstractmethod
    def advance(self, logdensity: BoundLogDensity, learnt: Any, work: Any, scratch: Any) -> tuple[Any, Any]:
        """A draw under construction, and the scratch, one gradient further."""

    def run(
        self, logdensity: BoundLogDensity, learnt: Any, work: Any, scratch: Any, most: Int[Array, ""]
    ) -> tuple[Any, Any, Int[Array, ""]]:
        """Advances of a chain by itself until its draw is ready or `most` are made, and how many were."""

        def further(carry: tuple) -> tuple:
            work, scratch, made = carry
            return *self.advance(logdensity, learnt, work, scratch), made + 1

        return jax.lax.while_loop(
            lambda carry: ~self.finished(carry[0]) & (carry[2] < most), further, (work, scratch, jnp.zeros_like(most))
        )

    @abstractmethod
    def finished(self, work: Any) -> Bool[Array, ""]:
        """Whether the draw is ready."""

    @abstractmethod
    def complete(self, state: Any, learnt: Any, work: Any) -> tuple[Any, Info]:
        """The state that holds a ready draw."""

    @abstractmethod
    def adapt(self, state: Any, info: Info) -> Any:
        """The state after a draw of the warm-up, with what the chain itself learnt from it."""

    @property
    @abstractmethod
    def windows(self) -> tuple[int, ...]:
        """Numbers of warm-up draws after which chains learn from one another, the last being all."""

    @abstractmethod
    def lesson(self, state: Any, info: Info) -> Any:
        """What is kept of a warm-up draw beside its position."""

    @abstractmethod
    def learn(self, states: Any, learnt: Any, draws: Any, lessons: Any, end: int) -> tuple[Any, Any]:
        """What all chains know at the end of a window; NumPy arrays throughout.

        Args:
            states: of all chains, stacked [chain, (segment), ...].
            learnt: what they knew, [(segment), ...]; None before the first window.
            draws: positions of the younger half of the warm-up so far [chain, draw, (segment), d].
            lessons: of the same draws. Before the first window there are neither.
            end: warm-up draws so far; 0 before the first.

        Returns:
            The states, and what they know now.
        """

    def attrs(self, learnt: Any) -> dict[str, Any]:
        """What the tree's attributes say of what was learnt."""
        del learnt
        return {}
