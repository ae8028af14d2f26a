"""Chains run through their warm-up and their draws: on their own threads, or all in one program a device."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pelton.engine.compilation import Compiler, Request
from pelton.engine.errors import StartError
from pelton.engine.explain import reason
from pelton.engine.journal import Journal, Totals
from pelton.engine.lines import Group, Line, on_device
from pelton.engine.memory import check_device, check_host
from pelton.engine.mesh import first_device, placed
from pelton.engine.naming import constrained, constraining
from pelton.engine.phase import Phase, Stage, joined_rows
from pelton.engine.placement import cores, together_on
from pelton.engine.posterior import Posterior, data_size
from pelton.engine.precision import Precision, current, using
from pelton.engine.programs import (
    START_TRIES,
    Programs,
    Wanted,
    build_advance,
    build_init,
    different_starts,
    seed_words,
)
from pelton.engine.progress import Report
from pelton.engine.samplers import Info, Sampler
from pelton.engine.samplers.base import Ensemble, Stepwise
from pelton.engine.stepping import build_begin, build_stepping, tile_of
from pelton.engine.stopping import Target, checks
from pelton.engine.watch import Watch

# Draws that leave the device together at the most; a run of any length uses the same compiled program.
CHUNK_DRAWS = 1000
CHUNK_BYTES = 64 * 2**20
# Seconds between two looks at how a run comes along.
LOOK_SECONDS = 0.5
# What chains learn from one another is learnt from as many draws as fit.
LESSON_BYTES = 256 * 2**20


def no_start(posterior: Posterior, where: str = "", members: Sequence[int] = ()) -> StartError:
    """What to raise where no start has a finite log density and gradient."""
    return StartError(
        f"the log density or its gradient is not finite at any of {START_TRIES} starts{where}{reason(posterior)}"
        "; check the priors' supports and the data's scale, or give the model a start",
        members,
    )


class Chains:
    """One sampler's chains on one posterior.

    Attributes:
        starts: different ones that the chains have.
        compiler: of the programs, with the seconds that took.
        seconds: spent warming up and sampling.
        learnt: what the chains learnt from one another, as NumPy arrays.
        gradients: computed, those included that chains made for nothing while they waited for others.
        evaluations: gradients of all draws, the warm-up's included.
        interrupted: whether the draws were cut short.
        journal: of the run, where it is on disk.
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
        journal: Journal | None = None,
        segments: np.ndarray | None = None,
    ):
        self.posterior = posterior
        self.sampler = sampler
        self.chains = chains
        self.vectorized = vectorized
        self.compiler = Compiler()
        self.seconds = {"warmup": 0.0, "sampling": 0.0}
        self.learnt: Any = ()
        self.summary: dict[str, list[float]] = {}
        self.gradients = self.evaluations = 0
        self.interrupted = False
        self.journal = journal
        self._restored: list[Any] | None = None
        self._clock = ("warmup", time.perf_counter())
        self._stop = threading.Event()
        self.precision: Precision = current()
        self.seed = seed_words(seed)
        # What a member of a batch draws follows from its number here.
        numbers = np.arange(posterior.batch or 1) if segments is None else segments
        self.segments = np.uint32(0) if posterior.batch is None else numbers.astype(np.uint32)
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
                data[device] = placed(posterior, device)
        self.groups = [Group(np.asarray(numbers), device, data[device]) for numbers, device in parts]
        self._single = first_device(self.groups[0].device) is self.groups[0].device
        width = posterior.dimension * (posterior.batch or 1) * 8 * self.groups[0].size
        self.starts = chains if sampler.shared_init else different_starts(chains)
        self.programs = Programs(
            posterior=(posterior.logdensity, posterior.start, posterior.hierarchy),
            sampler=sampler,
            batched=posterior.batch is not None,
            vectorized=vectorized,
            capacity=max(1, min(CHUNK_DRAWS, CHUNK_BYTES // width)),
            starts=self.starts,
            tile=self._tile(),
        )

    def run(self, draws: int, report: Report, target: Target | None = None) -> tuple[Phase, Phase]:
        """The warm-up's draws and the run's: fewer than were asked for if it is interrupted or reaches its target.

        With a journal they are in its store, and what is returned are the windows of the warm-up that this process has
        seen, and evenly spaced draws.
        """
        # With a journal draws are held until they are in its store.
        held = draws if self.journal is None else min(draws, self._room)
        itemsize = np.dtype(self.precision).itemsize
        check_host(self.posterior, self.chains, self.sampler.warmup_steps, held, itemsize)
        # Programs are compiled before the clock of the phases starts.
        carries, rows = self._compile(draws)
        at = None if self.journal is None else self.journal.at
        if self.journal is not None and at is not None:
            # What is learnt is the same for all groups, and of shapes that do not change.
            self._take_up(self.journal.totals(self.learnt))
            self._restored = self.journal.lines(carries, rows[at.phase])
        self._clock = ("warmup", time.perf_counter())
        if at is None or at.phase == "warmup":
            states, warm = self._warm_up(self._begin() if at is None else None, report, at, rows)
        else:
            states, warm = None, self._nothing()
        self._tick("sampling")
        kept = self._sample(states, draws, report, target, at if at is not None and at.phase == "sampling" else None)
        self._tick("sampling")
        return warm, kept

    def _tile(self) -> int:
        """Chains of a group that are advanced side by side; 0 where all are."""
        if not (self.vectorized and isinstance(self.sampler, Stepwise) and self.posterior.batch is None):
            return 0
        device = first_device(self.groups[0].device)
        together = together_on(device, self.posterior.dimension + data_size(self.posterior))
        return tile_of(min(group.size for group in self.groups), together)

    def _begin(self) -> list[Any]:
        """The chains' states at their starts."""
        if self.sampler.shared_init:
            state = self._init(self.groups[0])
            states = [jax.device_put(self._first(state, group), group.device) for group in self.groups]
        else:
            states = [self._init(group) for group in self.groups]
        jax.block_until_ready(states)
        if isinstance(self.sampler, Stepwise):
            states = self._learn(self.sampler, states, [], 0)
        return states

    def _first(self, state: Any, group: Group) -> Any:
        """What the first group's chains begin with, for as many chains as a group has: as many, or one fewer."""
        if not self.vectorized or group.size == self.groups[0].size:
            return state
        return jax.tree.map(lambda leaf: leaf[: group.size], state)

    def _sample(
        self, states: list[Any] | None, draws: int, report: Report, target: Target | None, at: Stage | None
    ) -> Phase:
        phases, begin = [], 0 if at is None else at.begin
        first = 0 if at is None else at.number
        ends = (draws,) if target is None else checks(draws)
        for number, end in enumerate([end for end in ends if end > begin], start=first):
            states, phase = self._advance(Stage("sampling", number, begin, end), states, report)
            phases.append(phase)
            begin = end
            if self.interrupted:
                break
            if (
                target is not None
                and end < draws
                and target.reached(self.posterior, self._variables(phases), self.starts)
            ):
                break
        return Phase.joined(phases) if self.journal is None else self.journal.kept()

    def _variables(self, phases: Sequence[Phase]) -> dict[str, np.ndarray]:
        """Of all draws so far."""
        if self.journal is None:
            return constrained(self.posterior, Phase.joined(phases).positions, self.compiler)
        found = self.journal.store.open()["posterior"]
        return {str(name): np.asarray(values) for name, values in found.data_vars.items()}

    def _warm_up(
        self, states: list[Any] | None, report: Report, at: Stage | None, rows: Any
    ) -> tuple[list[Any] | None, Phase]:
        sampler, steps = self.sampler, self.sampler.warmup_steps
        windows = sampler.windows if isinstance(sampler, Stepwise) else (steps,)
        phases: list[Phase] = []
        if self.journal is not None and at is not None:
            phases = self.journal.windows(at.number, rows["warmup" if steps else "sampling"][2])
        for number, end in enumerate(windows or (0,)):
            if at is not None and number < at.number:
                continue
            stage = Stage("warmup", number, 0 if number == 0 else windows[number - 1], end)
            states, phase = self._advance(stage, states, report)
            if self.interrupted:
                raise KeyboardInterrupt
            phases.append(phase)
            if self.journal is not None and end > 0:
                self.journal.end_window(stage, phase)
            if isinstance(sampler, Stepwise) and end > 0:
                states = self._learn(sampler, states or [], phases, end)
        said = [sampler.summary(state) for state in states or []]
        self.summary = {name: np.concatenate([np.ravel(one[name]) for one in said]).tolist() for name in said[0]}
        return states, Phase.joined(phases)

    def _nothing(self) -> Phase:
        """No draws."""
        empty = np.zeros((self.chains, 0, *self.posterior.batch_shape))
        return Phase(np.zeros((*empty.shape, self.posterior.dimension)), dict.fromkeys(Info._fields, empty))

    def _tick(self, phase: str) -> None:
        """Adds to the seconds of the phase under way, and goes on with another."""
        (before, began), now = self._clock, time.perf_counter()
        self.seconds[before] += now - began
        self._clock = (phase, now)

    def _totals(self) -> Totals:
        self._tick(self._clock[0])
        return Totals(
            {**self.seconds, "compiling": self.compiler.seconds},
            self.gradients,
            self.evaluations,
            self.learnt,
            self.summary,
        )

    def _take_up(self, totals: Totals) -> None:
        """Goes on from what a run had cost and learnt."""
        self.compiler.seconds += totals.seconds.pop("compiling")
        self.seconds = totals.seconds
        self.gradients, self.evaluations, self.summary = totals.gradients, totals.evaluations, totals.summary
        if isinstance(self.sampler, Stepwise):
            self._teach(jax.tree.map(np.asarray, totals.learnt))

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
            on_device(jax.tree.map(lambda leaf, at=group.chains: leaf[at], stacked), group.device)
            for group in self.groups
        ]

    def _teach(self, learnt: Any) -> None:
        self.learnt = learnt
        for group in self.groups:
            group.learnt = on_device(learnt, group.device)

    def _compile(self, draws: int) -> tuple[list[Any], dict[str, Any]]:
        """Compiles every program of the run, side by side.

        Returns:
            Each group's carry and, of each phase, the rows, both as shapes.
        """
        sampler, requests, advancing = self.sampler, [], []
        carries: dict[Any, Any] = {}
        warming = [False] + ([True] if sampler.warmup_steps and self._warms_apart else [])
        # Groups of one size on one device share their programs.
        for kind, group in {(group.chains.shape, group.device): group for group in self.groups}.items():
            init = self._initial(group)
            carry, _ = self.compiler.result_shapes(init)
            requests.append(init)
            if isinstance(sampler, Stepwise):
                # Of what is learnt the shapes are needed before anything has been.
                axes = () if self.vectorized else (1,)
                zeros = jax.tree.map(lambda leaf, axes=axes: np.zeros((*axes, *leaf.shape), leaf.dtype), carry)
                self.learnt = sampler.learn(zeros, None, None, None, 0)[1]
                group.learnt = on_device(self.learnt, group.device)
                begin = self._beginning(group, False, carry)
                requests.append(begin)
                carry = self.compiler.result_shapes(begin)
            advancing += [self._advancing(group, phase, carry) for phase in warming]
            carries[kind] = carry
        together = draws if self.journal is None else self.journal.block
        whole = self.groups[0].data if self._single else jax.tree.map(jnp.asarray, self.posterior.data)
        constrain = constraining(self.posterior, (self.chains, together), whole)
        programs = self.compiler.together([*advancing, *requests, constrain])[: len(advancing)]
        check_device(programs, [first_device(request.device) for request in advancing], self.groups[0].size)
        found = [tuple(self.compiler.result_shapes(request)[3:]) for request in advancing[: len(warming)]]
        rows = {"sampling": (*found[0][:2], ()), "warmup": found[-1]}
        return [carries[group.chains.shape, group.device] for group in self.groups], rows

    @property
    def _warms_apart(self) -> bool:
        """Whether the warm-up has a program of its own."""
        return not (self.sampler.adapts_in_step or isinstance(self.sampler, Stepwise))

    def _initial(self, group: Group) -> Request:
        args = (group.chains, self.segments, self.seed, group.data)
        return Request(build_init, (self.programs,), args, group.device)

    def _beginning(self, group: Group, warming: bool, state: Any) -> Request:
        index = np.int32(0)
        args = (group.chains, self.segments, state, group.learnt, self.seed, index, np.bool_(warming), group.data)
        return Request(build_begin, (self.programs,), args, group.device)

    def _advancing(self, group: Group, warming: bool, carry: Any) -> Request:
        zero = np.int32(0)
        wanted = Wanted(zero, zero, zero, np.bool_(warming))
        args = (group.chains, self.segments, carry, group.learnt, self.seed, wanted, group.data)
        if isinstance(self.sampler, Stepwise):
            return Request(build_stepping, (self.programs,), args, group.device)
        return Request(build_advance, (self.programs, warming and self._warms_apart), args, group.device)

    def _init(self, group: Group) -> Any:
        if self.sampler.shared_init:
            group = Group(np.zeros_like(group.chains), group.device, group.data)
        request = self._initial(group)
        state, good = self.compiler(request)(*request.args)
        if not np.all(good):
            # Of a batch the last axis is its members'.
            bad = np.unique(np.argwhere(~np.asarray(good))[:, -1]).tolist() if self.programs.batched else []
            where = f" (first: {self.posterior.batch_dim} {bad[0]})" if bad else ""
            raise no_start(self.posterior, where, bad)
        return state

    def _advance(self, stage: Stage, states: list[Any] | None, report: Report) -> tuple[list[Any] | None, Phase]:
        """All groups through a stage, from their states or from where they were when the run was cut short.

        Interrupted, chains return once their program does, and of the draws those are kept that all chains have.
        """
        if stage.end == stage.begin:
            return states, self._nothing()
        journal = self.journal
        lines = self._lines(stage, states)
        self._drive(stage, lines, report)
        if journal is None or stage.phase == "warmup":
            if journal is not None and self.interrupted:
                journal.write(stage, lines, self._totals)
            phase = self._gather(lines)
        else:
            if journal.end_stage(stage, lines, self._totals) == 0:
                raise KeyboardInterrupt
            phase = self._nothing()
        self.gradients += sum(line.gradients for line in lines)
        self.evaluations += sum(line.evaluations for line in lines)
        stepwise = isinstance(self.sampler, Stepwise)
        return [line.carry.state if stepwise else line.carry for line in lines], phase

    def _lines(self, stage: Stage, states: list[Any] | None) -> list[Line]:
        """A stage's lines, at its beginning or where they were."""
        stepwise, sampling = isinstance(self.sampler, Stepwise), stage.phase == "sampling"
        warming = not (sampling or self.sampler.adapts_in_step)
        # Where one program serves both phases, the sampling phase goes on counting.
        first = stage.begin + (self.sampler.warmup_steps if sampling and self.sampler.adapts_in_step else 0)
        count = stage.end - stage.begin
        restored, self._restored = self._restored, None
        lines = []
        for at, group in enumerate(self.groups):
            if restored is not None:
                carry = jax.device_put(jax.tree.map(jnp.asarray, restored[at].carry), group.device)
            elif stepwise:
                carry = self._begun(group, warming, (states or [])[at], first)
            else:
                carry = (states or [])[at]
            program = self.compiler(self._advancing(group, warming, carry))
            # What is in a journal's store need not be held.
            room = self._room if self.journal is not None and sampling else None
            line = Line(program, group, carry, self.seed, self.segments, warming, first, count, room)
            if restored is not None:
                line.restore(restored[at]._replace(carry=carry))
            lines.append(line)
        return lines

    def _drive(self, stage: Stage, lines: list[Line], report: Report) -> None:
        """Calls the lines' programs on threads until all have their draws, or the run is interrupted."""
        stepwise, journal = isinstance(self.sampler, Stepwise), self.journal
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

        watch = Watch(report, stage.phase, lines, self.vectorized, self.posterior.batch or 1)
        looks = report.shown or journal is not None
        # Programs run on threads of their own, also where there is one, so that an interrupt finds this one waiting.
        threads = len(lines) if self.vectorized else min(len(lines), cores())
        with ThreadPoolExecutor(threads) as pool:
            workers = [pool.submit(work) for _ in range(threads)]
            try:
                while wait(workers, LOOK_SECONDS if looks else None, FIRST_EXCEPTION).not_done:
                    if any(worker.done() and worker.exception() for worker in workers):
                        break
                    watch.look()
                    if journal is not None:
                        journal.take(stage, lines, self._totals)
            except KeyboardInterrupt:
                self.interrupted = True
            except BaseException:
                # What cannot be written stops the chains.
                self._stop.set()
                raise
            # Those that go on after an interrupt or another's error stop when their call returns.
            if self.interrupted or any(worker.done() and worker.exception() for worker in workers):
                self._stop.set()
            for worker in workers:
                worker.result()
        for line in lines:
            line.fetch()
        watch.look()

    @property
    def _room(self) -> int:
        """Rows that a line holds for a journal."""
        return 2 * self.programs.capacity + (0 if self.journal is None else self.journal.block)

    def _begun(self, group: Group, warming: bool, state: Any, index: int) -> Any:
        """A Machine at the beginning of a draw, the index-th of its phase."""
        begin = self.compiler(self._beginning(group, warming, state))
        counts = np.int32(index), np.bool_(warming)
        return begin(group.chains, self.segments, state, group.learnt, self.seed, *counts, group.data)

    def _gather(self, lines: list[Line]) -> Phase:
        """The draws that all chains have."""
        least = min(int(line.done.min()) for line in lines)
        if least == 0:
            raise KeyboardInterrupt
        rows = joined_rows([line.store for line in lines], self.vectorized, self.programs.batched)
        positions, infos, lessons = jax.tree.map(lambda leaf: leaf[:, :least], rows)
        return Phase(positions, infos._asdict(), lessons)
