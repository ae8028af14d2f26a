"""The loop of a `Stepwise` sampler: a pass is one gradient of every chain, of all side by side or of tiles in turn."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pelton.engine.programs import Programs, Wanted, mapped, phase_key, room_for, stored, strong
from pelton.engine.samplers.base import Bound, Stepwise, empty_info

# Passes that a tile of chains makes before the next one's turn: gathering it takes little beside them.
TILE_PASSES = 64


def tile_of(chains: int, together: int) -> int:
    """Chains of a tile, where so many are worth advancing side by side; 0 where all are.

    >>> tile_of(64, 16), tile_of(24, 16), tile_of(16, 16)
    (16, 12, 0)
    """
    tiles = -(-chains // together)
    return -(-chains // tiles) if tiles > 1 else 0


class Machine(NamedTuple):
    """A chain in the middle of a draw, and how many draws of its phase it has made."""

    state: Any
    work: Any
    scratch: Any
    done: Any


def build_begin(programs: Programs) -> Callable:
    """(chain, segment, state, learnt, seed, first, warming, data) -> Machine, at the beginning of its first draw."""
    sampler = programs.sampler
    assert isinstance(sampler, Stepwise)

    def program(
        chain: Any, segment: Any, state: Any, learnt: Any, seed: Any, first: Any, warming: Any, data: Any
    ) -> Machine:
        def one(chain: Any, segment: Any, state: Any, learnt: Any, data: Any) -> Machine:
            del data
            key = jax.random.fold_in(phase_key(seed, chain, segment, warming), first)
            work = strong(sampler.begin(state, learnt, key))
            return Machine(state, work, sampler.scratch(state), jnp.zeros((), jnp.int32))

        return mapped(one, programs, (True, False))(chain, segment, state, learnt, data)

    return program


def build_stepping(programs: Programs) -> Callable:
    """(chain, segment, machine, learnt, seed, wanted, data) -> machine, drawn, computed, and the draws.

    As `build_advance`, for the warm-up and the draws alike, but that the budget may end it in the middle of a draw:
    draws are counted from the beginning of the phase. `computed` are the gradients of all chains, those included that
    chains made for nothing while others were waited for.
    """
    sampler = programs.sampler
    assert isinstance(sampler, Stepwise)

    def program(chain: Any, segment: Any, machine: Machine, learnt: Any, seed: Any, wanted: Wanted, data: Any) -> tuple:
        call = _Call(programs, sampler, segment, learnt, seed, wanted, data)
        begun, store = machine.done, call.room(chain, machine)
        passes = call.in_tiles if programs.tile else call.side_by_side
        machine, computed, store = passes(_Chains(chain, begun, machine), store)
        axis = int(programs.vectorized) + int(programs.batched)
        rows = jax.tree.map(lambda leaf: jax.lax.slice_in_dim(leaf, 0, programs.capacity, axis=axis), store)
        return machine, machine.done - begun, computed, *rows

    return program


class _Chains(NamedTuple):
    """Chains that are advanced side by side.

    Attributes:
        chain: their numbers.
        begun: draws that they had when the call began.
        machine: where they are.
    """

    chain: Any
    begun: Any
    machine: Machine


@dataclass(frozen=True)
class _Call:
    """One call of the program; what is the same for all of its passes.

    Each pass is one gradient of every chain, or a whole draw of a chain by itself: on a processor a pass costs more
    than the gradient of a small model. A chain whose draw is ready stores it and begins the next in the same pass.
    The passes end when the budget is spent, a chain's rows are full, or all chains have all their draws.
    """

    programs: Programs
    sampler: Stepwise
    segment: Any
    learnt: Any
    seed: Any
    wanted: Wanted
    data: Any

    def room(self, chain: Any, machine: Machine) -> Any:
        """Where draws are stored; one row more than there are draws takes what is not to be kept."""
        rows = self.programs.capacity + 1

        def one(chain: Any, segment: Any, state: Any, data: Any) -> Any:
            del chain, segment, data
            positions, infos = room_for(self.sampler.position(state), rows)
            lesson = self.sampler.lesson(state, jax.tree.map(lambda leaf: leaf[0], infos))
            return positions, infos, jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), lesson)

        return mapped(one, self.programs, (True,))(chain, self.segment, machine.state, self.data)

    def side_by_side(self, chains: _Chains, store: Any) -> tuple[Machine, Any, Any]:
        """Passes of all chains: until the last has its draws, those that have theirs go on for nothing."""

        def put(chain: Any, segment: Any, store: Any, row: Any, values: Any, data: Any) -> Any:
            del chain, segment, data
            return stored(store, row, values)

        def put_all(store: Any, row: Any, values: Any) -> Any:
            return mapped(put, self.programs, (True,) * 3)(chains.chain, self.segment, store, row, values, self.data)

        passes, machine, store = self._stretch(self.wanted.budget, chains, store, put_all)
        return machine, passes * chains.begun.size, store

    def in_tiles(self, chains: _Chains, store: Any) -> tuple[Machine, Any, Any]:
        """Passes of a tile of chains at a time, a stretch each in turn.

        Those that have their draws make way for the others: the last few chains are one tile, however many there were.
        """
        tile, none = self.programs.tile, jnp.zeros((), jnp.int32)

        def turn(carry: tuple) -> tuple:
            passes, machine, computed, store = carry
            left = machine.done < self.wanted.count
            # Those that are left come first. Where chains do not divide into tiles the last one fills the last tile.
            order = jnp.pad(jnp.argsort(~left, stable=True), (0, -left.size % tile), mode="edge")
            most = jnp.minimum(TILE_PASSES, self.wanted.budget - passes)

            def visit(number: Any, carry: tuple) -> tuple:
                machine, computed, store = carry
                at = jax.lax.dynamic_slice_in_dim(order, number * tile, tile)

                def put(store: Any, row: Any, values: Any) -> Any:
                    return jax.tree.map(lambda rows, one: rows.at[at, row].set(one), store, values)

                some = jax.tree.map(lambda leaf: leaf[at], chains._replace(machine=machine))
                made, found, store = self._stretch(most, some, store, put)
                machine = jax.tree.map(lambda whole, part: whole.at[at].set(part), machine, found)
                return machine, computed + made * tile, store

            tiles = -(-jnp.sum(left) // tile)
            return passes + most, *jax.lax.fori_loop(0, tiles, visit, (machine, computed, store))

        _, machine, computed, store = jax.lax.while_loop(
            lambda carry: self._going(carry[0], self.wanted.budget, carry[1].done, chains.begun),
            turn,
            (none, chains.machine, none, store),
        )
        return machine, computed, store

    def _going(self, made: Any, most: Any, done: Any, begun: Any) -> Any:
        full = jnp.any(done - begun >= self.programs.capacity)
        return (made < most) & jnp.any(done < self.wanted.count) & ~full

    def _stretch(self, most: Any, chains: _Chains, store: Any, put: Callable) -> tuple[Any, Machine, Any]:
        """At the most so many passes of these chains, and how many they were."""

        def body(carry: tuple) -> tuple:
            passes, machine, store = carry
            tick = mapped(partial(self._tick, most - passes), self.programs, (True, True, False))
            machine, made, drawn = tick(chains.chain, self.segment, machine, chains.begun, self.learnt, self.data)
            return passes + jnp.max(made), machine, put(store, *drawn)

        return jax.lax.while_loop(
            lambda carry: self._going(carry[0], most, carry[1].done, chains.begun),
            body,
            (jnp.zeros((), jnp.int32), chains.machine, store),
        )

    def _tick(
        self, most: Any, chain: Any, segment: Any, machine: Machine, begun: Any, learnt: Any, data: Any
    ) -> tuple[Machine, Any, tuple[Any, Any]]:
        """A pass of one chain: where it is then, how many gradients it made, and the row and values to store."""
        (state, work, scratch, done), sampler = machine, self.sampler
        first, count, _, warming = self.wanted
        bound = Bound(self.programs.posterior[0], data, *self.programs.posterior[1:])
        if self.programs.vectorized or self.programs.batched:
            (work, scratch), made = sampler.advance(bound, learnt, work, scratch), jnp.ones_like(most)
        else:
            work, scratch, made = sampler.run(bound, learnt, work, scratch, most)
        ready = sampler.finished(work)

        def next_draw() -> tuple[Any, Any, Any, Any]:
            drawn, info = sampler.complete(state, learnt, work)
            drawn = jax.tree.map(lambda new, old: jnp.where(warming, new, old), sampler.adapt(drawn, info), drawn)
            # What a chain does past its last draw leaves no trace.
            drawn = jax.tree.map(lambda new, old: jnp.where(done < count, new, old), strong(drawn), state)
            # It makes the draw after it again and again, so that a longer run finds that one begun.
            following = jnp.minimum(done + 1, count)
            key = jax.random.fold_in(phase_key(self.seed, chain, segment, warming), first + following)
            return drawn, strong(sampler.begin(drawn, learnt, key)), following, info

        def same_draw() -> tuple[Any, Any, Any, Any]:
            nothing = jax.tree.map(lambda rows: rows[0], empty_info(1, sampler.position(state).dtype))
            return state, work, done, nothing

        drawn, work, now, info = jax.lax.cond(ready, next_draw, same_draw)
        row = jnp.where(ready & (done < count), done - begun, self.programs.capacity)
        values = sampler.position(drawn), info, sampler.lesson(drawn, info)
        return Machine(drawn, work, scratch, now), made, (row, values)
