"""Chains run through their warm-up and their draws: on their own threads, or all in one vectorised program."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pelton.engine.compilation import Compiler, Request
from pelton.engine.errors import ModelError
from pelton.engine.placement import cores
from pelton.engine.posterior import Posterior
from pelton.engine.precision import using
from pelton.engine.programs import START_TRIES, Programs, build_advance, build_constrain, build_init
from pelton.engine.progress import Report
from pelton.engine.samplers import Info, Sampler
from pelton.engine.samplers.base import Ensemble, Stepwise

# Draws that leave the device together; a run of any length uses the same compiled program.
CHUNK_DRAWS = 250
CHUNK_BYTES = 64 * 2**20
# What chains learn from one another is learnt from as many draws as fit.
LESSON_BYTES = 256 * 2**20
CONSTRAIN_BLOCK = 4096


@dataclass
class Phase:
    """Positions [chain, draw, (segment), d], statistics [chain, draw, (segment)] and lessons of consecutive draws."""

    positions: np.ndarray
    stats: dict[str, np.ndarray]
    lessons: Any = ()

    @classmethod
    def joined(cls, phases: Sequence["Phase"]) -> "Phase":
        """One after the other; lessons are left out."""
        return cls(
            np.concatenate([phase.positions for phase in phases], axis=1),
            {name: np.concatenate([phase.stats[name] for phase in phases], axis=1) for name in phases[0].stats},
        )


def on_device(leaf: Any) -> Any:
    """A NumPy array in the run's precision."""
    leaf = np.asarray(leaf)
    return jnp.asarray(leaf, jnp.result_type(float) if np.issubdtype(leaf.dtype, np.floating) else None)


class Chains:
    """One sampler's chains on one posterior.

    Attributes:
        compiler: of the programs, with the seconds that took.
        seconds: spent warming up and sampling.
        learnt: what the chains learnt from one another.
    """

    def __init__(self, posterior: Posterior, sampler: Sampler, chains: int, seed: int, vectorized: bool):
        self.posterior = posterior
        self.sampler = sampler
        self.chains = chains
        self.vectorized = vectorized or isinstance(sampler, Ensemble)
        self.compiler = Compiler()
        self.seconds = {"warmup": 0.0, "sampling": 0.0}
        self.stop = threading.Event()
        self.learnt: Any = ()
        width = posterior.dimension * (posterior.batch or 1) * 8 * (chains if self.vectorized else 1)
        self.programs = Programs(
            posterior=(posterior.logdensity, posterior.start, posterior.hierarchy),
            sampler=sampler,
            batched=posterior.batch is not None,
            vectorized=self.vectorized,
            capacity=max(1, min(CHUNK_DRAWS, CHUNK_BYTES // width)),
        )
        self.data = jax.tree.map(jnp.asarray, posterior.data)
        self.seed = jnp.asarray(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32))
        self.segments = jnp.asarray(
            np.uint32(0) if posterior.batch is None else np.arange(posterior.batch, dtype=np.uint32)
        )
        every = np.arange(chains, dtype=np.uint32)
        # Each group is advanced by a call of its own.
        self.groups: list[Any] = [every] if self.vectorized else list(every)

    def run(self, draws: int, report: Report) -> tuple[Phase, Phase]:
        """The warm-up's draws and the run's."""
        # Programs are compiled before the clock of the phases starts.
        self._compile(draws)
        began = time.perf_counter()
        if self.sampler.shared_init:
            states = [self._init(self.groups[0])] * len(self.groups)
        else:
            states = [self._init(group) for group in self.groups]
        jax.block_until_ready(states)
        if isinstance(self.sampler, Stepwise):
            states = self._learn(self.sampler, states, [], 0)
        states, warm = self._warm_up(states, report)
        self.seconds["warmup"] += time.perf_counter() - began
        began = time.perf_counter()
        # Where one program serves both phases, the sampling phase goes on counting.
        offset = self.sampler.warmup_steps if self.sampler.adapts_in_step else 0
        _, kept = self._advance("sampling", False, states, offset, draws, report)
        self.seconds["sampling"] += time.perf_counter() - began
        return warm, kept

    def _warm_up(self, states: list[Any], report: Report) -> tuple[list[Any], Phase]:
        sampler, steps = self.sampler, self.sampler.warmup_steps
        warming = not sampler.adapts_in_step
        windows = sampler.windows if isinstance(sampler, Stepwise) else (steps,)
        phases, begin = [], 0
        for end in windows or (0,):
            states, phase = self._advance("warmup", warming, states, begin, end - begin, report)
            phases.append(phase)
            if isinstance(sampler, Stepwise) and end > 0:
                states = self._learn(sampler, states, phases, end)
            begin = end
        return states, Phase.joined(phases)

    def _learn(self, sampler: Stepwise, states: list[Any], phases: list[Phase], end: int) -> list[Any]:
        """The states after all chains have learnt from the younger half of the draws so far."""
        stacked = states[0] if self.vectorized else jax.tree.map(lambda *leaves: np.stack(leaves), *states)
        stacked = jax.tree.map(np.asarray, stacked)
        younger, need = [], end - end // 2
        for phase in reversed(phases):
            count = min(need, phase.positions.shape[1])
            rows = (phase.positions, phase.lessons)
            younger.append(jax.tree.map(lambda leaf, n=count: leaf[:, leaf.shape[1] - n :], rows))
            need -= count
            if need == 0:
                break
        draws, lessons = None, None
        if younger:
            draws, lessons = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *reversed(younger))
            thin = -(-draws.nbytes // LESSON_BYTES)
            draws, lessons = jax.tree.map(lambda leaf: leaf[:, ::thin], (draws, lessons))
        known = jax.tree.map(np.asarray, self.learnt) if phases else None
        stacked, learnt = sampler.learn(stacked, known, draws, lessons, end)
        self.learnt = jax.tree.map(on_device, learnt)
        if self.vectorized:
            return [jax.tree.map(on_device, stacked)]
        return [jax.tree.map(lambda leaf, at=at: on_device(leaf[at]), stacked) for at in range(self.chains)]

    def _compile(self, draws: int) -> None:
        """Compiles every program of the run, side by side."""
        init = self._initial(self.groups[0])
        state, _ = self.compiler.result_shapes(init)
        if isinstance(self.sampler, Stepwise):
            # Of what is learnt the shapes are needed before anything has been.
            axes = () if self.vectorized else (self.chains,)
            zeros = jax.tree.map(lambda leaf: np.zeros((*axes, *leaf.shape), leaf.dtype), state)
            self.learnt = jax.tree.map(on_device, self.sampler.learn(zeros, None, None, None, 0)[1])
        phases = [False] + ([True] if self.sampler.warmup_steps and not self.sampler.adapts_in_step else [])
        self.compiler.together(
            [
                *(self._advancing(warming, state) for warming in phases),
                init,
                constraining(self.posterior, (self.chains, draws), self.data),
            ]
        )

    def _advancing(self, warming: bool, state: Any) -> Request:
        counts = (np.int32(0), np.int32(0))
        args = (jnp.asarray(self.groups[0]), self.segments, state, self.learnt, self.seed, *counts, self.data)
        return Request(build_advance, (self.programs, warming), args)

    def _initial(self, group: Any) -> Request:
        return Request(build_init, (self.programs,), (jnp.asarray(group), self.segments, self.seed, self.data))

    def _init(self, group: Any) -> Any:
        request = self._initial(np.zeros_like(group) if self.sampler.shared_init else group)
        state, good = self.compiler(*request)(*request.args)
        if not np.all(good):
            bad = np.argwhere(~np.asarray(good)).ravel()
            raise ModelError(
                f"the log density or its gradient is not finite at any of {START_TRIES} starts"
                + (f" (first: {self.posterior.batch_dim} {int(bad[-1])})" if self.programs.batched else "")
                + "; check the priors' supports and the data's scale, or give the model a start"
            )
        return state

    def _advance(
        self, phase: str, warming: bool, states: list[Any], first: int, count: int, report: Report
    ) -> tuple[list[Any], Phase]:
        """All groups advanced by that many draws, the first of them being the first-th of its phase."""
        precision = "float64" if jax.config.jax_enable_x64 else "float32"

        def one(at: int) -> tuple[Any, list[Any]]:
            with using(precision):
                return self._advance_group(phase, warming, self.groups[at], states[at], first, count, report)

        if len(self.groups) == 1:
            results = [one(0)]
        else:
            with ThreadPoolExecutor(min(len(self.groups), cores())) as pool:
                try:
                    results = list(pool.map(one, range(len(self.groups))))
                except KeyboardInterrupt:
                    self.stop.set()
                    raise
        return [state for state, _ in results], self._gather([chunks for _, chunks in results])

    def _advance_group(
        self, phase: str, warming: bool, group: Any, state: Any, first: int, count: int, report: Report
    ) -> tuple[Any, list[tuple[np.ndarray, Info, Any]]]:
        if count == 0:
            return state, []
        program = self.compiler(*self._advancing(warming, state))
        chunks, done = [], 0
        while done < count and not self.stop.is_set():
            size = min(self.programs.capacity, count - done)
            args = (jnp.asarray(group), self.segments, state, self.learnt, self.seed)
            state, *rows = program(*args, np.int32(first + done), np.int32(size), self.data)
            filled = (slice(None),) * (int(self.vectorized) + int(self.programs.batched)) + (slice(0, size),)
            chunks.append(jax.tree.map(lambda leaf, filled=filled: np.asarray(leaf)[filled], tuple(rows)))
            done += size
            diverging = int(np.sum(chunks[-1][1].diverging))
            report(
                size * (self.chains if self.vectorized else 1),
                phase if phase == "warmup" or not diverging else f"{phase}, {diverging} divergences in the last chunk",
            )
        return state, chunks

    def _gather(self, results: list[list[tuple[np.ndarray, Info, Any]]]) -> Phase:
        batched = int(self.programs.batched)

        def join(leaves: list[np.ndarray]) -> np.ndarray:
            # Chunks hold [(chain), (segment), draw, ...]; the tree wants [chain, draw, (segment), ...].
            whole = np.concatenate(leaves, axis=int(self.vectorized) + batched)
            whole = whole if self.vectorized else whole[None]
            return np.moveaxis(whole, 1, 2) if batched else whole

        if not results[0]:
            empty = np.zeros((self.chains, 0, *self.posterior.batch_shape))
            positions = np.zeros((*empty.shape, self.posterior.dimension))
            return Phase(positions, dict.fromkeys(Info._fields, empty))
        parts = [jax.tree.map(lambda *leaves: join(list(leaves)), chunks[0], *chunks[1:]) for chunks in results]
        positions, infos, lessons = jax.tree.map(lambda *leaves: np.concatenate(leaves), parts[0], *parts[1:])
        return Phase(positions, infos._asdict(), lessons)


def constraining(posterior: Posterior, draws: tuple[int, int], data: Any) -> Request:
    """The program that names the variables, for blocks of a power of two, so that runs of other lengths share it."""
    size = min(1 << max(8, int(np.ceil(np.log2(draws[0] * draws[1])))), CONSTRAIN_BLOCK)
    positions = jax.ShapeDtypeStruct((size, *posterior.batch_shape, posterior.dimension), jnp.result_type(float))
    return Request(build_constrain, (posterior.constrain, posterior.batch is not None), (positions, data))


def constrained(posterior: Posterior, positions: np.ndarray, compiler: Compiler) -> dict[str, np.ndarray]:
    """Variables [chain, draw, ...] at positions [chain, draw, ...], computed in blocks of one compiled size."""
    chains, draws = positions.shape[:2]
    flat = positions.reshape(chains * draws, *positions.shape[2:])
    data = jax.tree.map(jnp.asarray, posterior.data)
    request = constraining(posterior, (chains, draws), data)
    program, size = compiler(*request), request.args[0].shape[0]
    pieces = []
    for start in range(0, len(flat), size):
        block = flat[start : start + size]
        fill = np.repeat(block[-1:], size - len(block), axis=0)
        values = program(jnp.asarray(np.concatenate([block, fill])), data)
        pieces.append({name: np.asarray(value)[: len(block)] for name, value in values.items()})
    return {
        name: np.concatenate([piece[name] for piece in pieces]).reshape(chains, draws, *pieces[0][name].shape[1:])
        for name in pieces[0]
    }
