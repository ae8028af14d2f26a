"""Chains run through their warm-up and their draws: on their own threads, or all in one program a device."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pelton.engine.compilation import Compiler, Request
from pelton.engine.errors import ModelError
from pelton.engine.memory import check_device, check_host
from pelton.engine.placement import cores
from pelton.engine.posterior import Posterior
from pelton.engine.precision import Precision, current, using
from pelton.engine.programs import (
    START_TRIES,
    Programs,
    build_advance,
    build_begin,
    build_constrain,
    build_init,
    seed_words,
)
from pelton.engine.progress import Report
from pelton.engine.samplers import Info, Sampler
from pelton.engine.samplers.base import Ensemble, Stepwise
from pelton.engine.stopping import Target, checks
from pelton.engine.watch import Watch

# Draws that leave the device together at the most; a run of any length uses the same compiled program.
CHUNK_DRAWS = 250
CHUNK_BYTES = 64 * 2**20
# Seconds after which a program returns, so that a run can be watched and interrupted, and its first budget of passes or
# draws, before it is known how long they take.
CHUNK_SECONDS = 1.0
FIRST_BUDGET = 20
FASTER = 10
# Seconds between two looks at how a run comes along.
LOOK_SECONDS = 0.5
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


@dataclass
class Group:
    """Chains that are advanced by one call: one on its thread, or all of a device.

    Attributes:
        chains: their numbers; a scalar where there is one.
        device: where they run.
        data: of the posterior, there.
        learnt: what all chains learnt from one another, there.
    """

    chains: np.ndarray
    device: Any
    data: Any
    learnt: Any = ()

    @property
    def size(self) -> int:
        """How many chains."""
        return self.chains.size


class Line:
    """A group's chains on their way through a phase, a call of a program at a time.

    Chains need not keep pace: each fills its own rows.

    Attributes:
        store: position, Info and lesson of each draw [(chain), (segment), draw, ...].
        done: draws so far in the store [(chain), (segment)].
        made: draws so far, those included that are still on their way to it.
        gradients: computed, those included that chains made for nothing while they waited for others.
        busy: whether a call is under way.
    """

    def __init__(self, program: Callable, group: Group, carry: Any, seed: Any, segments: Any, first: int, count: int):
        self.program, self.group, self.carry = program, group, carry
        self.seed, self.segments, self.first, self.count = seed, segments, first, count
        shape = (*group.chains.shape, *np.shape(segments))
        self.store: Any = None
        self.done, self.made = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.gradients = 0
        self.busy = False
        self._budget = FIRST_BUDGET
        self._waiting: Any = None

    @property
    def finished(self) -> bool:
        """Whether all chains have their draws."""
        return bool(np.all(self.made >= self.count))

    def call(self, stepwise: bool, capacity: int) -> None:
        """Calls the program, for about a second."""
        began = time.perf_counter()
        if stepwise:
            counts = np.array([self.first, self.count, self._budget], np.int32)
        else:
            made = int(self.made.min())
            counts = np.array([self.first + made, min(self._budget, capacity, self.count - made), 0], np.int32)
        group = self.group
        self.carry, drawn, passes, *found = self.program(
            group.chains, self.segments, self.carry, group.learnt, self.seed, *counts, group.data
        )
        # What the last call found is fetched while this one computes.
        self.fetch()
        drawn = np.asarray(drawn)
        self.made = self.made + drawn
        self._waiting = (tuple(found), drawn)
        seconds = time.perf_counter() - began
        budget = self._budget * CHUNK_SECONDS / max(seconds, 1e-4)
        self._budget = int(np.clip(budget, 1, min(FASTER * self._budget, 2**30)))
        # In lock step, chains and segments wait for the slowest.
        filled = np.arange(capacity) < drawn[..., None]
        slowest = int(passes)
        if not stepwise:
            steps = np.where(filled, np.asarray(found[1].n_steps), 0)
            slowest = int(steps.reshape(-1, capacity).max(axis=0).sum())
        self.gradients += drawn.size * slowest

    def fetch(self) -> None:
        """Stores what the last call found."""
        if self._waiting is None:
            return
        rows, drawn = self._waiting
        self._waiting = None
        axes, rows = self.done.ndim, jax.tree.map(np.asarray, rows)
        if self.store is None:
            self.store = jax.tree.map(
                lambda leaf: np.zeros((*leaf.shape[:axes], self.count, *leaf.shape[axes + 1 :]), leaf.dtype), rows
            )
        for at in np.ndindex(self.done.shape):
            done, new = int(self.done[at]), int(drawn[at])
            for store, leaf in zip(jax.tree.leaves(self.store), jax.tree.leaves(rows), strict=True):
                store[at][done : done + new] = leaf[at][:new]
        self.done = self.done + drawn


def no_start(where: str = "") -> ModelError:
    """What to raise where no start has a finite log density and gradient."""
    return ModelError(
        f"the log density or its gradient is not finite at any of {START_TRIES} starts{where}"
        "; check the priors' supports and the data's scale, or give the model a start"
    )


class Chains:
    """One sampler's chains on one posterior.

    Attributes:
        compiler: of the programs, with the seconds that took.
        seconds: spent warming up and sampling.
        learnt: what the chains learnt from one another, as NumPy arrays.
        gradients: computed, those included that chains made for nothing while they waited for others.
        interrupted: whether the draws were cut short.
        summary: what the sampler says of each chain before its draws; of batches of each chain's segments in turn.
    """

    def __init__(
        self,
        posterior: Posterior,
        sampler: Sampler,
        chains: int,
        seed: int,
        vectorized: bool,
        devices: Sequence[Any] | None = None,
    ):
        self.posterior = posterior
        self.sampler = sampler
        self.chains = chains
        self.vectorized = vectorized
        self.compiler = Compiler()
        self.seconds = {"warmup": 0.0, "sampling": 0.0}
        self.learnt: Any = ()
        self.summary: dict[str, list[float]] = {}
        self.gradients = 0
        self.interrupted = False
        self._stop = threading.Event()
        self.precision: Precision = current()
        self.seed = seed_words(seed)
        self.segments = np.uint32(0) if posterior.batch is None else np.arange(posterior.batch, dtype=np.uint32)
        every = np.arange(chains, dtype=np.uint32)
        devices = list(devices or jax.local_devices()[:1])
        if not vectorized:
            parts: list[Any] = [(chain, devices[0]) for chain in every]
        elif isinstance(sampler, Ensemble):
            parts = [(every, devices[0])]
        else:
            devices = devices[:chains]
            parts = list(zip(np.array_split(every, len(devices)), devices, strict=True))
        data = {}
        for _, device in parts:
            if device not in data:
                data[device] = jax.device_put(jax.tree.map(jnp.asarray, posterior.data), device)
        self.groups = [Group(np.asarray(numbers), device, data[device]) for numbers, device in parts]
        width = posterior.dimension * (posterior.batch or 1) * 8 * self.groups[0].size
        self.programs = Programs(
            posterior=(posterior.logdensity, posterior.start, posterior.hierarchy),
            sampler=sampler,
            batched=posterior.batch is not None,
            vectorized=vectorized,
            capacity=max(1, min(CHUNK_DRAWS, CHUNK_BYTES // width)),
        )

    def run(self, draws: int, report: Report, target: Target | None = None) -> tuple[Phase, Phase]:
        """The warm-up's draws and the run's: fewer than were asked for if it is interrupted or reaches its target."""
        itemsize = np.dtype(self.precision).itemsize
        check_host(self.posterior, self.chains, self.sampler.warmup_steps, draws, itemsize)
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
        said = [self.sampler.summary(state) for state in states]
        self.summary = {name: np.concatenate([np.ravel(one[name]) for one in said]).tolist() for name in said[0]}
        self.seconds["warmup"] += time.perf_counter() - began
        began = time.perf_counter()
        kept = self._sample(states, draws, report, target)
        self.seconds["sampling"] += time.perf_counter() - began
        return warm, kept

    def _sample(self, states: list[Any], draws: int, report: Report, target: Target | None) -> Phase:
        # Where one program serves both phases, the sampling phase goes on counting.
        offset = self.sampler.warmup_steps if self.sampler.adapts_in_step else 0
        phases, begin = [], 0
        for end in (draws,) if target is None else checks(draws):
            states, phase = self._advance("sampling", False, states, offset + begin, end - begin, report)
            phases.append(phase)
            begin = end
            if self.interrupted:
                break
            if target is not None and end < draws:
                positions = np.concatenate([phase.positions for phase in phases], axis=1)
                if target.reached(self.posterior, constrained(self.posterior, positions, self.compiler)):
                    break
        return Phase.joined(phases)

    def _warm_up(self, states: list[Any], report: Report) -> tuple[list[Any], Phase]:
        sampler, steps = self.sampler, self.sampler.warmup_steps
        warming = not sampler.adapts_in_step
        windows = sampler.windows if isinstance(sampler, Stepwise) else (steps,)
        phases, begin = [], 0
        for end in windows or (0,):
            states, phase = self._advance("warmup", warming, states, begin, end - begin, report)
            if self.interrupted:
                raise KeyboardInterrupt
            phases.append(phase)
            if isinstance(sampler, Stepwise) and end > 0:
                states = self._learn(sampler, states, phases, end)
            begin = end
        return states, Phase.joined(phases)

    def _learn(self, sampler: Stepwise, states: list[Any], phases: list[Phase], end: int) -> list[Any]:
        """The states after all chains have learnt from the younger half of the draws so far."""
        states = jax.tree.map(np.asarray, states)
        join = np.concatenate if self.vectorized else np.stack
        stacked = jax.tree.map(lambda *leaves: join(leaves), *states)
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
        stacked, learnt = sampler.learn(stacked, self.learnt if phases else None, draws, lessons, end)
        self._teach(learnt)
        return [
            jax.device_put(jax.tree.map(lambda leaf, at=group.chains: on_device(leaf[at]), stacked), group.device)
            for group in self.groups
        ]

    def _teach(self, learnt: Any) -> None:
        self.learnt = learnt
        for group in self.groups:
            group.learnt = jax.device_put(jax.tree.map(on_device, learnt), group.device)

    def _compile(self, draws: int) -> None:
        """Compiles every program of the run, side by side."""
        sampler, requests, advancing = self.sampler, [], []
        warming = [False] + ([True] if sampler.warmup_steps and not sampler.adapts_in_step else [])
        # Groups of one size on one device share their programs.
        for group in {(group.chains.shape, group.device): group for group in self.groups}.values():
            init = self._initial(group)
            carry, _ = self.compiler.result_shapes(init)
            requests.append(init)
            if isinstance(sampler, Stepwise):
                # Of what is learnt the shapes are needed before anything has been.
                axes = () if self.vectorized else (1,)
                zeros = jax.tree.map(lambda leaf, axes=axes: np.zeros((*axes, *leaf.shape), leaf.dtype), carry)
                group.learnt = jax.tree.map(on_device, sampler.learn(zeros, None, None, None, 0)[1])
                begins = [self._beginning(group, phase, carry) for phase in warming]
                requests += begins
                carry = self.compiler.result_shapes(begins[0])
            advancing += [self._advancing(group, phase, carry) for phase in warming]
        constrain = constraining(self.posterior, (self.chains, draws), self.groups[0].data)
        programs = self.compiler.together([*advancing, *requests, constrain])[: len(advancing)]
        check_device(programs, [request.device for request in advancing], self.groups[0].size)

    def _initial(self, group: Group) -> Request:
        args = (group.chains, self.segments, self.seed, group.data)
        return Request(build_init, (self.programs,), args, group.device)

    def _beginning(self, group: Group, warming: bool, state: Any) -> Request:
        args = (group.chains, self.segments, state, group.learnt, self.seed, np.int32(0), group.data)
        return Request(build_begin, (self.programs, warming), args, group.device)

    def _advancing(self, group: Group, warming: bool, carry: Any) -> Request:
        counts = (np.int32(0),) * 3
        args = (group.chains, self.segments, carry, group.learnt, self.seed, *counts, group.data)
        return Request(build_advance, (self.programs, warming), args, group.device)

    def _init(self, group: Group) -> Any:
        if self.sampler.shared_init:
            group = Group(np.zeros_like(group.chains), group.device, group.data)
        request = self._initial(group)
        state, good = self.compiler(request)(*request.args)
        if not np.all(good):
            bad = np.argwhere(~np.asarray(good)).ravel()
            raise no_start(f" (first: {self.posterior.batch_dim} {int(bad[-1])})" if self.programs.batched else "")
        return state

    def _advance(
        self, phase: str, warming: bool, states: list[Any], first: int, count: int, report: Report
    ) -> tuple[list[Any], Phase]:
        """All groups advanced by that many draws, the first of them being the first-th of its phase.

        Interrupted, chains return once their program does, and of the draws those are kept that all chains have.
        """
        if count == 0:
            empty = np.zeros((self.chains, 0, *self.posterior.batch_shape))
            positions = np.zeros((*empty.shape, self.posterior.dimension))
            return states, Phase(positions, dict.fromkeys(Info._fields, empty))

        stepwise = isinstance(self.sampler, Stepwise)
        lines = []
        for group, state in zip(self.groups, states, strict=True):
            carry = state
            if stepwise:
                begin = self.compiler(self._beginning(group, warming, state))
                carry = begin(group.chains, self.segments, state, group.learnt, self.seed, np.int32(first), group.data)
            program = self.compiler(self._advancing(group, warming, carry))
            lines.append(Line(program, group, carry, self.seed, self.segments, first, count))
        lock = threading.Lock()

        def work() -> None:
            with using(self.precision):
                while not self._stop.is_set():
                    # The one that is furthest behind, so that chains on few cores come along together.
                    with lock:
                        free = [line for line in lines if not (line.busy or line.finished)]
                        if not free:
                            return
                        line = min(free, key=lambda line: int(line.made.min()))
                        line.busy = True
                    line.call(stepwise, self.programs.capacity)
                    line.busy = False

        watch = Watch(report, phase, lines, self.vectorized, self.posterior.batch or 1)
        # Programs run on threads of their own, also where there is one, so that an interrupt finds this one waiting.
        threads = len(lines) if self.vectorized else min(len(lines), cores())
        with ThreadPoolExecutor(threads) as pool:
            workers = [pool.submit(work) for _ in range(threads)]
            try:
                while wait(workers, LOOK_SECONDS if report.shown else None, FIRST_EXCEPTION).not_done:
                    if any(worker.done() and worker.exception() for worker in workers):
                        break
                    watch.look()
            except KeyboardInterrupt:
                self.interrupted = True
            # Those that go on after an interrupt or another's error stop when their call returns.
            if self.interrupted or any(worker.done() and worker.exception() for worker in workers):
                self._stop.set()
            for worker in workers:
                worker.result()
        for line in lines:
            line.fetch()
            self.gradients += line.gradients
        watch.look()
        return [line.carry.state if stepwise else line.carry for line in lines], self._gather(lines)

    def _gather(self, lines: list[Line]) -> Phase:
        """The draws that all chains have."""
        least = min(int(line.done.min()) for line in lines)
        if least == 0:
            raise KeyboardInterrupt
        batched = int(self.programs.batched)

        def join(*leaves: np.ndarray) -> np.ndarray:
            # Rows are [(chain), (segment), draw, ...]; the tree wants [chain, draw, (segment), ...].
            leaves = leaves if self.vectorized else tuple(leaf[None] for leaf in leaves)
            whole = leaves[0] if len(leaves) == 1 else np.concatenate(leaves)
            return (np.moveaxis(whole, 1, 2) if batched else whole)[:, :least]

        positions, infos, lessons = jax.tree.map(join, *(line.store for line in lines))
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
    program, size = compiler(request), request.args[0].shape[0]
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
