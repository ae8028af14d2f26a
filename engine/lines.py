"""Chains that one call of a program advances together, on their way through a phase."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pelton.engine.programs import Wanted

# Seconds after which a program returns, so that a run can be watched and interrupted, and its first budget of passes or
# draws, before it is known how long they take.
CHUNK_SECONDS = 1.0
FIRST_BUDGET = 20
FASTER = 10


def on_device(tree: Any, device: Any) -> Any:
    """NumPy arrays in the run's precision on a device, all in one transfer."""
    real = jnp.result_type(float)

    def cast(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        return leaf.astype(real, copy=False) if np.issubdtype(leaf.dtype, np.floating) else leaf

    return jax.device_put(jax.tree.map(cast, tree), device)


@dataclass
class Group:
    """Chains that are advanced by one call: one on its thread, or all of a device.

    Attributes:
        chains: their numbers; a scalar where there is one.
        device: where they run.
        data: of the posterior, there.
        learnt: what all chains learnt from one another, there.
        budget: passes of the loop, or draws, that a call makes in about a second.
    """

    chains: np.ndarray
    device: Any
    data: Any
    learnt: Any = ()
    budget: int = FIRST_BUDGET

    @property
    def size(self) -> int:
        """How many chains."""
        return self.chains.size


class Snapshot(NamedTuple):
    """A line between two calls: all that it takes to go on.

    Attributes:
        carry: the chains' states, or Machines, on their device.
        done: draws so far [(chain), (segment)].
        rows: position, Info and lesson of the draws from the `base`-th on [(chain), (segment), draw, ...]; None where
            there are none yet.
        base: the first draw of the rows.
        gradients: computed so far.
        evaluations: those of them that draws were made with.
    """

    carry: Any
    done: np.ndarray
    rows: Any
    base: int
    gradients: int
    evaluations: int


class Line:
    """A group's chains on their way through a phase, a call of a program at a time.

    Chains need not keep pace: each fills its own rows.

    Attributes:
        store: position, Info and lesson of the draws from the `base`-th on [(chain), (segment), draw, ...].
        base: draws that have been released from the store.
        done: draws so far, the released ones included [(chain), (segment)].
        made: draws so far, those included that are still on their way to the store.
        gradients: computed, those included that chains made for nothing while they waited for others.
        evaluations: gradients of the draws that are done.
        diverging: divergent transitions among them.
        busy: whether a call is under way.
    """

    def __init__(
        self,
        program: Callable,
        group: Group,
        carry: Any,
        seed: Any,
        segments: Any,
        warming: bool,
        first: int,
        count: int,
        room: int | None = None,
    ):
        self.program, self.group, self.carry = program, group, carry
        self.seed, self.segments, self.warming, self.first, self.count = seed, segments, warming, first, count
        shape = (*group.chains.shape, *np.shape(segments))
        self.store: Any = None
        self.base = 0
        self.done, self.made = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.gradients = self.evaluations = self.diverging = 0
        self.busy = False
        self._room = count if room is None else min(room, count)
        self._waiting: Any = None
        self._lock = threading.RLock()

    @property
    def finished(self) -> bool:
        """Whether all chains have their draws."""
        return bool(np.all(self.made >= self.count))

    def call(self, stepwise: bool, capacity: int) -> None:
        """Calls the program, for about a second."""
        began = time.perf_counter()
        if stepwise:
            counts = self.first, self.count, self.group.budget
        else:
            made = int(self.made.min())
            counts = self.first + made, min(self.group.budget, capacity, self.count - made), 0
        first, count, budget = np.array(counts, np.int32)
        wanted = Wanted(first, count, budget, np.bool_(self.warming))
        group = self.group
        carry, drawn, computed, *found = self.program(
            group.chains, self.segments, self.carry, group.learnt, self.seed, wanted, group.data
        )
        if not self.warming:
            # What is learnt in the warm-up alone need not leave the device.
            found = [*found[:2], ()]
        # What the last call found is fetched while this one computes.
        self.fetch()
        drawn = np.asarray(drawn)
        gradients = int(computed)
        if not stepwise:
            # In lock step, chains and segments wait for the slowest.
            filled = np.arange(capacity) < drawn[..., None]
            steps = np.where(filled, np.asarray(found[1].n_steps), 0)
            gradients = drawn.size * int(steps.reshape(-1, capacity).max(axis=0).sum())
        with self._lock:
            self.carry = carry
            self.made = np.asarray(self.made + drawn)
            self._waiting = (tuple(found), drawn)
            self.gradients += gradients
        seconds = time.perf_counter() - began
        budget = group.budget * CHUNK_SECONDS / max(seconds, 1e-4)
        group.budget = int(np.clip(budget, 1, min(FASTER * group.budget, 2**30)))

    def fetch(self) -> None:
        """Stores what the last call found."""
        with self._lock:
            if self._waiting is None:
                return
            rows, drawn = self._waiting
            self._waiting = None
            rows = jax.tree.map(np.asarray, rows)
            self._make_room(rows, int((self.done + drawn).max()) - self.base)
            stores, leaves = jax.tree.leaves(self.store), jax.tree.leaves(rows)
            done, new = self.done.flat[0] - self.base, drawn.flat[0]
            if (self.done == self.done.flat[0]).all() and (drawn == new).all():
                # In lock step, so that many posteriors need not be gone through one by one.
                axes = (slice(None),) * self.done.ndim
                for store, leaf in zip(stores, leaves, strict=True):
                    store[*axes, done : done + new] = leaf[*axes, :new]
                self.evaluations += int(rows[1].n_steps[*axes, :new].sum())
                self.diverging += int(rows[1].diverging[*axes, :new].sum())
                self.done = np.asarray(self.done + drawn)
                return
            for at in np.ndindex(self.done.shape):
                done, new = int(self.done[at]) - self.base, int(drawn[at])
                for store, leaf in zip(stores, leaves, strict=True):
                    store[at][done : done + new] = leaf[at][:new]
                self.evaluations += int(rows[1].n_steps[at][:new].sum())
                self.diverging += int(rows[1].diverging[at][:new].sum())
            self.done = np.asarray(self.done + drawn)

    def _make_room(self, like: Any, rows: int) -> None:
        """A store like that for so many rows or more."""
        axes = self.done.ndim
        had = 0 if self.store is None else jax.tree.leaves(self.store)[0].shape[axes]
        if self.store is not None and rows <= had:
            return
        size = max(self._room, rows, min(2 * had, self.count - self.base))

        def roomy(leaf: np.ndarray) -> np.ndarray:
            return np.zeros((*leaf.shape[:axes], size, *leaf.shape[axes + 1 :]), leaf.dtype)

        old, self.store = self.store, jax.tree.map(roomy, like)
        if old is not None:
            before = (slice(None),) * axes + (slice(had),)
            for new, leaf in zip(jax.tree.leaves(self.store), jax.tree.leaves(old), strict=True):
                new[before] = leaf

    def snapshot(self) -> Snapshot:
        """The line as it is after its last call, with copies of its rows."""
        with self._lock:
            self.fetch()
            rows = None
            if self.store is not None:
                # Beyond a chain's own draws the rows hold what it overwrites.
                held = (slice(None),) * self.done.ndim + (slice(int(self.done.max()) - self.base),)
                rows = jax.tree.map(lambda leaf: leaf[held].copy(), self.store)
            return Snapshot(self.carry, self.done.copy(), rows, self.base, self.gradients, self.evaluations)

    def restore(self, found: Snapshot) -> None:
        """Goes on from a snapshot."""
        self.carry, self.base = found.carry, found.base
        self.done, self.made = found.done.copy(), found.done.copy()
        self.gradients, self.evaluations = found.gradients, found.evaluations
        if found.rows is not None:
            self._make_room(found.rows, jax.tree.leaves(found.rows)[0].shape[self.done.ndim])
            held = (slice(None),) * self.done.ndim + (slice(int(found.done.max()) - found.base),)
            for store, leaf in zip(jax.tree.leaves(self.store), jax.tree.leaves(found.rows), strict=True):
                store[held] = leaf

    def release(self, draws: int) -> None:
        """Forgets the rows of the first so many draws."""
        with self._lock:
            drop = draws - self.base
            if drop <= 0 or self.store is None:
                return
            axes = self.done.ndim
            for leaf in jax.tree.leaves(self.store):
                keep = leaf.shape[axes] - drop
                before, after = (slice(None),) * axes + (slice(keep),), (slice(None),) * axes + (slice(drop, None),)
                leaf[before] = leaf[after].copy()
            self.base = draws
