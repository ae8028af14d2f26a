"""The compiled programs of a run: starts, warm-up, draws and the naming of variables, for every kind of sampler."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pelton.engine.keys import key_of
from pelton.engine.posterior import Hierarchy
from pelton.engine.samplers import Info, Sampler
from pelton.engine.samplers.base import Bound, Chainwise, Ensemble, Independent, Stepwise, empty_info, together

START_TRIES = 100
# From so many chains on they start in groups (superchains), at the most so many and at least so many different starts:
# chains of one start tell what has not been forgotten of it, however short they are (Margossian et al. 2024).
MANY_CHAINS = 64
MOST_STARTS, LEAST_STARTS = 16, 8
CONSTRAIN_BATCH = 256
# Proposals of an `Independent` sampler that are made together where all draws are made at once, and of how many fits.
PROPOSED, FITS = 500, 4


@dataclass(frozen=True)
class Programs:
    """What to compile: a posterior's functions, a sampler's, and how the chains are laid out.

    Attributes:
        starts: different ones that the chains share.
        tile: vectorised chains of a `Stepwise` sampler that are advanced side by side; 0 where all are.
    """

    posterior: tuple[Callable, Callable, Hierarchy | None]
    sampler: Sampler
    batched: bool
    vectorized: bool
    capacity: int
    starts: int
    tile: int = 0


def different_starts(chains: int) -> int:
    """Starts that so many chains share out evenly; chain c begins at the c-th modulo their number.

    >>> different_starts(8), different_starts(64), different_starts(100), different_starts(97)
    (8, 16, 10, 97)
    """
    if chains >= MANY_CHAINS:
        for starts in range(MOST_STARTS, LEAST_STARTS - 1, -1):
            if chains % starts == 0:
                return starts
    return chains


def seed_words(seed: int) -> np.ndarray:
    """A seed below 2**64 as the data of a key."""
    return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


def _key(seed: Any, chain: Any) -> Any:
    return jax.random.fold_in(key_of(seed), chain)


def phase_key(seed: Any, chain: Any, segment: Any, warming: Any) -> Any:
    """Warm-up and sampling take their randomness from keys apart from one another and from the start's."""
    return jax.random.fold_in(jax.random.fold_in(_key(seed, chain), segment), 1 + warming)


def room_for(position: Any, rows: int) -> tuple[Any, Info]:
    """Room for that many draws like the position, and for their reports."""
    return jnp.zeros((rows, *position.shape), position.dtype), empty_info(rows, position.dtype)


def stored(store: Any, row: Any, values: Any) -> Any:
    """The store with the values in one row."""
    return jax.tree.map(lambda rows, one: jax.lax.dynamic_update_index_in_dim(rows, one, row, 0), store, values)


def strong(tree: Any) -> Any:
    """Leaves without JAX's weak types, so that a state looks the same to the next program as to the last."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.result_type(leaf)), tree)


def mapped(function: Callable, programs: Programs, per_chain: tuple[bool, ...] = ()) -> Callable:
    """Maps a one-chain program over segments and, where chains are vectorised, over chains.

    The function takes (chain, segment, ..., data); `per_chain` says of what stands between whether each chain has its
    own, or all share it.
    """
    if programs.batched:
        function = jax.vmap(function, in_axes=(None, 0, *(0 for _ in per_chain), 0))
    if programs.vectorized:
        function = jax.vmap(function, in_axes=(0, None, *(0 if own else None for own in per_chain), None))
    return function


class Start(NamedTuple):
    """A starting position, the log density and its gradient there, and whether both are finite."""

    position: Any
    lp: Any
    score: Any
    good: Any

    def nearby(self, position: Any) -> Any:
        """The log density to first order about the start: at the start itself with its gradient, as it was found."""
        return self.lp + jnp.dot(self.score, position - self.position)


def finite_start(density: Callable, start: Callable, key: Any, data: Any) -> Start:
    """The first of a hundred starts whose log density and gradient are finite, or the last."""

    def again(carry: tuple) -> tuple:
        index, _ = carry
        position = start(jax.random.fold_in(key, index), data)
        lp, score = jax.value_and_grad(density)(position)
        return index + 1, Start(position, lp, score, jnp.isfinite(lp) & jnp.all(jnp.isfinite(score)))

    # The first try is made in the loop as well: each place that evaluates the density is compiled on its own.
    _, found = jax.eval_shape(again, (0, None))
    none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), found)
    return jax.lax.while_loop(lambda carry: ~carry[1].good & (carry[0] < START_TRIES), again, (0, none))[1]


def build_init(programs: Programs) -> Callable:
    """(chain, segment, seed, data) -> state, and whether its log density and gradient are finite."""
    (logdensity, start, hierarchy), sampler = programs.posterior, programs.sampler

    def found(chain: Any, segment: Any, seed: Any, data: Any) -> tuple[Start, Any]:
        """A start, and the key of what follows."""
        bound = Bound(logdensity, data, start, hierarchy)
        key_start, _ = jax.random.split(jax.random.fold_in(_key(seed, chain % programs.starts), segment))
        _, key_init = jax.random.split(jax.random.fold_in(_key(seed, chain), segment))
        return finite_start(bound, start, key_start, data), key_init

    def init(chain: Any, segment: Any, seed: Any, data: Any) -> tuple[Any, Any]:
        bound = Bound(logdensity, data, start, hierarchy)
        if isinstance(sampler, Ensemble):
            begun, keys = jax.vmap(found, (0, None, None, None))(chain, segment, seed, data)
            return strong(sampler.init(bound, begun.position, keys[0])), begun.good
        begun, key = found(chain, segment, seed, data)
        # What is known there already need not be compiled again.
        density = begun.nearby if isinstance(sampler, Stepwise) else bound
        return strong(sampler.init(density, begun.position, key)), begun.good

    def program(chain: Any, segment: Any, seed: Any, data: Any) -> tuple[Any, Any]:
        if isinstance(sampler, Ensemble):
            if not programs.batched:
                return init(chain, segment, seed, data)
            return jax.vmap(init, (None, 0, None, 0), (0, 1))(chain, segment, seed, data)
        return mapped(lambda c, s, d: init(c, s, seed, d), programs)(chain, segment, data)

    return program


class Wanted(NamedTuple):
    """What a call of the program that makes draws is to do.

    Attributes:
        first: which draw of its phase the first is.
        count: draws that are wanted.
        budget: passes of a `Stepwise` sampler's loop at the most.
        warming: whether a `Stepwise` sampler warms up.
    """

    first: Any
    count: Any
    budget: Any
    warming: Any


def build_advance(programs: Programs, warming: bool) -> Callable:
    """(chain, segment, state, learnt, seed, wanted, data) -> state, drawn, computed, and the draws.

    `drawn` are the draws made [(chain), (segment)], all that are wanted; `computed`, what a `Stepwise` sampler's loop
    says of its gradients, is 0. Of each position, Info and lesson are returned [(chain), (segment), capacity, ...], in
    that many first rows; what the others hold means nothing. Counts are arguments, so that every length of run shares
    one program. `build_stepping` does the same for Stepwise samplers.
    """
    match programs.sampler:
        case Chainwise():
            return _build_chainwise(programs, programs.sampler, warming)
        case Ensemble():
            return _build_ensemble(programs, programs.sampler, warming)
        case other:
            raise TypeError(f"a sampler is Chainwise, Stepwise or Ensemble, not {type(other).__name__}")


def _repeated(
    sampler: Chainwise | Ensemble, bound: Bound, state: Any, key: Any, first: Any, count: Any, room: Any, warming: bool
) -> tuple[Any, Any]:
    """The state after `count` transitions, and the draws in the room [row, ...]."""
    if isinstance(sampler, Independent) and not warming:
        return _proposed(sampler, bound, state, key, first, count, room)

    def body(offset: Any, carry: tuple) -> tuple:
        state, store = carry
        index = first + offset
        step_key = jax.random.fold_in(key, index)
        if warming:
            state, info = sampler.warmup(bound, state, step_key, index)
        else:
            state, info = sampler.step(bound, state, step_key)
        state = strong(state)
        return state, stored(store, offset, (sampler.position(state), info))

    return jax.lax.fori_loop(0, count, body, (state, room))


def _proposed(
    sampler: Independent, bound: Bound, state: Any, key: Any, first: Any, count: Any, room: Any
) -> tuple[Any, Any]:
    """As `_repeated`, with the proposals of several transitions made at once and accepted in turn."""

    size = together(bound)

    def propose(index: Any) -> Any:
        return sampler.propose(bound, state, jax.random.fold_in(key, index))

    def batch(number: Any, carry: tuple) -> tuple:
        begin = number * size
        proposals = jax.vmap(propose)(first + begin + jnp.arange(size))

        def body(offset: Any, carry: tuple) -> tuple:
            state, store = carry
            state, info = sampler.accept(state, jax.tree.map(lambda leaf: leaf[offset - begin], proposals))
            state = strong(state)
            return state, stored(store, offset, (sampler.position(state), info))

        return jax.lax.fori_loop(begin, jnp.minimum(begin + size, count), body, carry)

    return jax.lax.fori_loop(0, -(-count // size), batch, (state, room))


def _build_chainwise(programs: Programs, sampler: Chainwise, warming: bool) -> Callable:
    logdensity, start, hierarchy = programs.posterior

    def program(chain: Any, segment: Any, state: Any, learnt: Any, seed: Any, wanted: Wanted, data: Any) -> tuple:
        del learnt

        def one(chain: Any, segment: Any, state: Any, data: Any) -> tuple[Any, Any, Any, Any]:
            bound = Bound(logdensity, data, start, hierarchy)
            key = phase_key(seed, chain, segment, warming)
            room = room_for(sampler.position(state), programs.capacity)
            state, (positions, infos) = _repeated(sampler, bound, state, key, wanted.first, wanted.count, room, warming)
            return state, wanted.count, positions, infos

        state, drawn, positions, infos = mapped(one, programs, (True,))(chain, segment, state, data)
        return state, drawn, np.int32(0), positions, infos, ()

    return program


def build_independent(programs: Programs, chains: int, draws: int) -> Callable:
    """(segment [fit], seed, data [fit, ...]) -> good [fit], the first draw's Info [fit, chain], and all draws.

    All draws of an `Independent` sampler, as the chains of `build_advance` make them: position, log density and
    acceptance rate of each [fit, draw, chain]. The proposals of a few fits at a time are evaluated together and then
    accepted in turn, those of these fits and of all chains side by side.
    """
    (logdensity, start, hierarchy), sampler = programs.posterior, programs.sampler
    assert isinstance(sampler, Independent)

    def program(segment: Any, seed: Any, data: Any) -> tuple[Any, Any, tuple[Any, Any, Any]]:
        init = build_init(replace(programs, batched=False, vectorized=False))

        def proposed(given: tuple[Any, Any]) -> tuple[Any, Any, Any]:
            segment, data = given
            state, good = init(np.uint32(0), segment, seed, data)
            bound = Bound(logdensity, data, start, hierarchy)

            def propose(row: Any) -> Any:
                key = phase_key(seed, (row // draws).astype(jnp.uint32), segment, False)
                return sampler.propose(bound, state, jax.random.fold_in(key, row % draws))

            proposals = jax.lax.map(propose, jnp.arange(chains * draws), batch_size=min(PROPOSED, chains * draws))
            # The loop goes over draws, those of all chains side by side.
            proposals = jax.tree.map(
                lambda leaf: jnp.moveaxis(leaf.reshape(chains, draws, *leaf.shape[1:]), 1, 0), proposals
            )
            begun = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (chains, *leaf.shape)), state)
            accept = jax.vmap(sampler.accept)

            def step(state: Any, proposal: Any) -> tuple[Any, Any]:
                state, info = accept(state, proposal)
                return state, (jax.vmap(sampler.position)(state), info.lp, info.acceptance_rate)

            _, info = accept(begun, jax.tree.map(lambda leaf: leaf[0], proposals))
            return good, info, jax.lax.scan(step, begun, proposals)[1]

        return jax.lax.map(proposed, (segment, data), batch_size=FITS)

    return program


def _build_ensemble(programs: Programs, sampler: Ensemble, warming: bool) -> Callable:
    logdensity, start, hierarchy = programs.posterior

    def program(chain: Any, segment: Any, state: Any, learnt: Any, seed: Any, wanted: Wanted, data: Any) -> tuple:
        del learnt

        def one(segment: Any, state: Any, data: Any) -> tuple[Any, Any, Any, Any]:
            bound = Bound(logdensity, data, start, hierarchy)
            key = phase_key(seed, chain[0], segment, warming)
            room = jax.vmap(lambda position: room_for(position, programs.capacity), out_axes=1)(sampler.position(state))
            state, draws = _repeated(sampler, bound, state, key, wanted.first, wanted.count, room, warming)
            # Chains go before draws, as with other samplers.
            positions, infos = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), draws)
            return state, jnp.full(chain.shape, wanted.count), positions, infos

        mapped = jax.vmap(one, out_axes=(0, 1, 1, 1)) if programs.batched else one
        state, drawn, positions, infos = mapped(segment, state, data)
        return state, drawn, np.int32(0), positions, infos, ()

    return program


def build_constrain(constrain: Callable, batched: bool) -> Callable:
    """(positions [all, (segment), d], data) -> variables with the same leading axes."""

    def program(positions: Any, data: Any) -> dict[str, Any]:
        def one(position: Any) -> dict[str, Any]:
            return jax.vmap(constrain)(position, data) if batched else constrain(position, data)

        return jax.lax.map(one, positions, batch_size=CONSTRAIN_BATCH)

    return program
