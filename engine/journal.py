"""The journal of a run on disk: its draws in order, and what it takes to go on where it stopped."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from pelton.engine.checkpoint import packed, unpacked
from pelton.engine.compilation import Compiler
from pelton.engine.errors import ArgumentError, StoreError
from pelton.engine.keys import key_of
from pelton.engine.lines import Line, Snapshot
from pelton.engine.memory import draw_bytes
from pelton.engine.naming import constrained
from pelton.engine.phase import Phase, Stage, joined_rows
from pelton.engine.place import PRIVATE, Place
from pelton.engine.posterior import Posterior
from pelton.engine.samplers import Info
from pelton.engine.settings import Settings
from pelton.engine.store import Store, block_draws

# Seconds between two checkpoints at the least, and how many times the cost of one: what it costs of a run is one in so
# many.
LEAST_SECONDS = 2.0
COST_IN = 40.0
# The group of positions, which is there where other groups are made from them.
POSITIONS = "unconstrained_posterior"
# Of positions so many bytes are kept in memory, evenly, to tell modes apart.
_KEPT_BYTES = 4 * 2**20
_RUN, _CHECKPOINT, _WINDOW = f"{PRIVATE}/run", f"{PRIVATE}/checkpoint", f"{PRIVATE}/window"


@dataclass
class Totals:
    """What a run has cost up to the beginning of a stage, and what its chains know there."""

    seconds: dict[str, float]
    gradients: int
    evaluations: int
    learnt: Any
    summary: dict[str, list[float]]


@dataclass
class _Found:
    """A checkpoint: the stage, its header and its arrays."""

    stage: Stage
    header: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def leaves(self, prefix: str) -> list[np.ndarray]:
        """The arrays of a tree, in order."""
        return _leaves(self.arrays, prefix)


def has_run(where: Place) -> bool:
    """Whether there is a run, or what is left of one."""
    return where.read(_RUN) is not None or where.read("zarr.json") is not None


def begun(where: Place) -> dict[str, Any]:
    """What a run was begun with."""
    data = where.read(_RUN)
    if data is None:
        raise StoreError(f"{where.url!r} is no run of pelton that can be resumed: it has no {_RUN}")
    return unpacked(data, _RUN)[0]


class Journal:
    """A run on disk.

    Of each stage the rows of all chains go, block by block, to the store, where readers see them; what does not fill a
    block yet stands in the checkpoints, with the chains' states in the middle of their draws. Two checkpoints are kept
    in turn, so that there is a whole one whatever happens to the last.

    Attributes:
        seconds: spent writing by this process, while chains ran or waited for it.

    Args:
        where: its files.
        posterior: what is drawn from.
        stored: what the run was begun with: its `settings`, the draws a chain then `planned`, and its `model`.
        settings: of this process.
    """

    def __init__(self, where: Place, posterior: Posterior, stored: Mapping[str, Any], settings: Settings):
        self.where, self.posterior, self.stored, self.settings = where, posterior, stored, settings
        self.batched = posterior.batch is not None
        itemsize, chains = np.dtype(settings.precision).itemsize, settings.chains
        self.block = block_draws(chains * sum(draw_bytes(posterior, itemsize)))
        width = chains * posterior.dimension * (posterior.batch or 1) * itemsize
        self.thin = max(1, -(-stored["planned"] * width // _KEPT_BYTES))
        self.warm: list[Phase] = []
        self.compiler = Compiler()
        self.store: Store
        self.groups: set[str] = set()
        self._found: _Found | None = None
        self._number = 0
        # Draws in whole blocks of the store, and the rows after them up to the stage's beginning.
        self._written = 0
        self._pending: Phase | None = None
        self._kept: list[Phase] = []
        self._due = 0.0
        self.seconds = 0.0

    # -- Beginning and going on

    def begin(self, template: xr.DataTree) -> None:
        """A new run."""
        self.where.write(_RUN, packed(self.stored, {}))
        self.groups = set(template.children)
        self.store = Store(self.where, template, self.block)
        self._publish(0)
        self._due = time.perf_counter() + LEAST_SECONDS

    def resume(self, template: xr.DataTree) -> None:
        """The run as its last whole checkpoint has it."""
        self._found = found = self._last_checkpoint()
        drawing = found if found is not None and found.stage.phase == "sampling" else None
        if drawing is not None:
            self._refuse_fewer(drawing)
        # A run that was made longer stays so.
        self.where.write(_RUN, packed({**self.stored, "settings": self.settings.plain()}, {}))
        self.groups = set(template.children)
        self.store = Store(self.where, template, self.block)
        if found is not None:
            self._number = found.header["number"]
        if drawing is not None:
            self._written = drawing.header["written"]
            for group in self.groups & {"posterior", "sample_stats", POSITIONS}:
                self.store.adopt(group, self._written)
            if self.settings.keeps_warmup:
                for group in ("warmup_posterior", "warmup_sample_stats"):
                    self.store.adopt(group, drawing.header["warmup"])
            self._pending, kept = _phase(drawing.leaves("pending")), _phase(drawing.leaves("kept"))
            self._kept = [] if kept is None else [kept]
        self._publish(self._written)
        self.store.forget()
        self.store.verify()
        self._due = time.perf_counter() + LEAST_SECONDS

    def _refuse_fewer(self, found: _Found) -> None:
        """Raises an ArgumentError where fewer draws are asked for than there are."""
        lines = range(len(found.header["lines"]))
        done = found.stage.begin + max(int(found.arrays[f"line/{at}/done"].max()) for at in lines)
        if done > (asked := self.settings.draws):
            raise ArgumentError(
                f"the run in {self.where.url!r} has {done} draws a chain already; ask for at least as many, not {asked}"
            )

    @property
    def at(self) -> Stage | None:
        """The stage to go on with; None for a run from the beginning."""
        return None if self._found is None else self._found.stage

    def totals(self, learnt: Any) -> Totals:
        """What the run had cost and learnt when it stopped, in the tree of `learnt`."""
        assert self._found is not None
        head = self._found.header
        return Totals(
            head["seconds"],
            head["gradients"],
            head["evaluations"],
            jax.tree.unflatten(jax.tree.structure(learnt), self._found.leaves("learnt")),
            head["summary"],
        )

    def lines(self, carries: Sequence[Any], rows: Any) -> list[Snapshot]:
        """The lines as they were.

        Args:
            carries: of each, for the structure.
            rows: structure of the rows.
        """
        assert self._found is not None
        found, self._found = self._found, None
        if len(carries) != len(found.header["lines"]):
            raise StoreError(
                f"the run in {self.where.url!r} was begun with chains in {len(found.header['lines'])} programs and now "
                f"there are {len(carries)}: resume it with as many devices"
            )
        snapshots = []
        for at, (carry, head) in enumerate(zip(carries, found.header["lines"], strict=True)):
            leaves = found.leaves(f"line/{at}/rows")
            snapshots.append(
                Snapshot(
                    carry=_unflattened(carry, found.leaves(f"line/{at}/carry"), "the chains' states"),
                    done=found.arrays[f"line/{at}/done"],
                    rows=jax.tree.unflatten(jax.tree.structure(rows), leaves) if leaves else None,
                    base=head["base"],
                    gradients=head["gradients"],
                    evaluations=head["evaluations"],
                )
            )
        return snapshots

    def windows(self, number: int, lessons: Any) -> list[Phase]:
        """The first so many windows of the warm-up, with lessons of that structure."""
        for at in range(number):
            data = self.where.read(f"{_WINDOW}-{at}")
            if data is None:
                raise StoreError(f"the run in {self.where.url!r} lacks its file {_WINDOW}-{at}; begin it again")
            _, arrays = unpacked(data, f"{_WINDOW}-{at}")
            stats = {name.removeprefix("stat/"): value for name, value in arrays.items() if name.startswith("stat/")}
            tree = jax.tree.unflatten(jax.tree.structure(lessons), _leaves(arrays, "lesson"))
            self.warm.append(Phase(arrays["positions"], stats, tree))
        return list(self.warm)

    # -- Writing

    def take(self, stage: Stage, lines: Sequence[Line], totals: Callable[[], Totals]) -> None:
        """Writes a checkpoint, if one is due, and what is new for readers."""
        if time.perf_counter() >= self._due:
            self.write(stage, lines, totals)

    def write(self, stage: Stage, lines: Sequence[Line], totals: Callable[[], Totals]) -> list[Snapshot]:
        """Writes a checkpoint and what is new for readers; where the lines were."""
        began = time.perf_counter()
        snapshots = [line.snapshot() for line in lines]
        written, kept = self._written, self._kept
        if stage.phase == "sampling":
            written, kept = self._grow(stage, snapshots)
        self._checkpoint(stage, snapshots, totals(), written, kept)
        if stage.phase == "sampling":
            self._written, self._kept = written, kept
            for line in lines:
                line.release(max(written - stage.begin, 0))
            if written > stage.begin:
                self._pending = None
            self._publish(stage.begin + _least(snapshots))
        cost = time.perf_counter() - began
        self.seconds += cost
        self._due = time.perf_counter() + max(LEAST_SECONDS, COST_IN * cost)
        return snapshots

    def end_window(self, stage: Stage, phase: Phase) -> None:
        """A window of the warm-up that is over."""
        began = time.perf_counter()
        arrays = {"positions": phase.positions}
        arrays |= {f"stat/{name}": value for name, value in phase.stats.items()}
        arrays |= _named("lesson", phase.lessons)
        self.where.write(f"{_WINDOW}-{stage.number}", packed({}, arrays))
        self.warm.append(phase)
        if self.settings.keeps_warmup:
            joined = Phase.joined(self.warm)
            last = stage.end == self.settings.warmup
            for start in range(0, stage.end, self.block):
                piece = joined.piece(slice(start, start + self.block))
                self.store.put("warmup_posterior", self._values(piece.positions), start, last)
                self.store.put("warmup_sample_stats", piece.stats, start, last)
            self._publish(0)
        self.seconds += time.perf_counter() - began

    def end_stage(self, stage: Stage, lines: Sequence[Line], totals: Callable[[], Totals]) -> int:
        """A stretch of draws that is over; the draws that all chains have."""
        snapshots = self.write(stage, lines, totals)
        total = stage.begin + _least(snapshots)
        self._pending = self._rows(stage, snapshots, self._written, total) if total > self._written else None
        return total

    def put_all(self, values: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray]) -> xr.DataTree:
        """All draws of a run that needs no chains."""
        for start in range(0, self.settings.draws, self.block):
            here = slice(start, start + self.block)
            for group, found in (("posterior", values), ("sample_stats", stats)):
                self.store.put(group, {name: value[:, here] for name, value in found.items()}, start, durable=True)
        self._publish(self.settings.draws)
        return self.store.open()

    def complete(self, tree: xr.DataTree) -> xr.DataTree:
        """The whole tree of a run that is over, its attributes and what follows from its draws included, as stored."""
        self.store.complete(tree)
        return self.store.open()

    def kept(self) -> Phase:
        """Positions and log densities of evenly spaced draws."""
        last = [] if self._pending is None else [self._evenly(self._pending, self._written)]
        return Phase.joined([*self._kept, *last])

    def _grow(self, stage: Stage, snapshots: Sequence[Snapshot]) -> tuple[int, list[Phase]]:
        """Puts the draws that all chains have; how many are in whole blocks now, and the evenly spaced ones of them."""
        total, kept = stage.begin + _least(snapshots), list(self._kept)
        if total == self._written:
            return self._written, kept
        rows = self._rows(stage, snapshots, self._written, total)
        whole = total // self.block * self.block
        for start in range(self._written, total, self.block):
            piece = rows.piece(slice(start - self._written, start - self._written + self.block))
            durable = start < whole
            self.store.put("posterior", self._values(piece.positions), start, durable)
            self.store.put("sample_stats", piece.stats, start, durable)
            if POSITIONS in self.groups:
                self.store.put(POSITIONS, {"position": piece.positions}, start, durable)
            if durable:
                kept.append(self._evenly(piece, start))
        return whole, kept

    def _rows(self, stage: Stage, snapshots: Sequence[Snapshot], start: int, end: int) -> Phase:
        """Draws [chain, draw, (segment), ...] from the start-th to the end-th of the phase."""
        pieces = []
        if start < stage.begin and self._pending is not None:
            pieces.append(self._pending)
        begin = max(start, stage.begin) - stage.begin
        if end > stage.begin:
            rows = [
                jax.tree.map(
                    lambda leaf, found=found: leaf[
                        (slice(None),) * found.done.ndim + (slice(begin - found.base, end - stage.begin - found.base),)
                    ],
                    found.rows[:2],
                )
                for found in snapshots
            ]
            positions, infos = joined_rows(rows, self.settings.chain_method == "vectorized", self.batched)
            pieces.append(Phase(positions, infos._asdict()))
        return Phase.joined(pieces)

    def _values(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Variables at at most a block of positions, each computed at the place of the program that a whole block has.

        So that a resumed run, whose checkpoints fall elsewhere, computes every one of them as the unbroken run does.
        """
        count = positions.shape[1]
        fill = np.repeat(positions[:, -1:], self.block - count, axis=1)
        values = constrained(self.posterior, np.concatenate([positions, fill], axis=1), self.compiler)
        return {name: value[:, :count] for name, value in values.items()}

    def _evenly(self, rows: Phase, start: int) -> Phase:
        """Of draws of which the first is the start-th, the evenly spaced ones."""
        at = np.flatnonzero((start + np.arange(rows.positions.shape[1])) % self.thin == 0)
        return Phase(rows.positions[:, at], {"lp": rows.stats["lp"][:, at]})

    def _checkpoint(
        self, stage: Stage, snapshots: Sequence[Snapshot], totals: Totals, written: int, kept: Sequence[Phase]
    ) -> None:
        header: dict[str, Any] = {
            "number": self._number + 1,
            "stage": stage._asdict(),
            "written": written,
            "warmup": self.settings.warmup,
            "seconds": totals.seconds,
            "gradients": totals.gradients,
            "evaluations": totals.evaluations,
            "summary": totals.summary,
            "lines": [],
        }
        arrays = _named("learnt", totals.learnt)
        if self._pending is not None and written <= stage.begin:
            arrays |= _named("pending", [self._pending.positions, *self._pending.stats.values()])
        if kept:
            joined = Phase.joined(kept)
            arrays |= _named("kept", [joined.positions, joined.stats["lp"]])
        for at, found in enumerate(snapshots):
            # What stands in whole blocks need not stand here.
            base = max(found.base, written - stage.begin) if stage.phase == "sampling" else found.base
            counts = {key: getattr(found, key) for key in ("gradients", "evaluations")}
            header["lines"].append({"base": base, **counts})
            arrays[f"line/{at}/done"] = found.done
            arrays |= _named(f"line/{at}/carry", found.carry)
            if found.rows is not None:
                after = (slice(None),) * found.done.ndim + (slice(base - found.base, None),)
                arrays |= _named(f"line/{at}/rows", jax.tree.map(lambda leaf, after=after: leaf[after], found.rows))
        self.where.write(f"{_CHECKPOINT}-{header['number'] % 2}", packed(header, arrays))
        self._number = header["number"]

    def _last_checkpoint(self) -> _Found | None:
        """The latest that is whole; None before there was one.

        Raises:
            StoreError: both are damaged. Of a run's first one alone nothing is lost that is not made again.
        """
        found, damaged = [], []
        for name in (f"{_CHECKPOINT}-0", f"{_CHECKPOINT}-1"):
            data = self.where.read(name)
            if data is None:
                continue
            try:
                header, arrays = unpacked(data, name)
            except StoreError as error:
                damaged.append(error)
                continue
            found.append(_Found(Stage(**header["stage"]), header, arrays))
        if len(damaged) > 1:
            raise damaged[0]
        return max(found, key=lambda one: one.header["number"], default=None)

    def _publish(self, done: int) -> None:
        status = f"UNFINISHED: {done} of {self.settings.draws} draws a chain so far; pelton.resume goes on with it"
        self.store.publish({"inference_library": "pelton", "converged": 0, "status": status})


def _least(snapshots: Sequence[Snapshot]) -> int:
    """Draws of the stage that all chains have."""
    return min(int(found.done.min()) for found in snapshots)


def _named(prefix: str, tree: Any) -> dict[str, np.ndarray]:
    """A tree's leaves by number; keys of random numbers as their words."""
    return {f"{prefix}/{at}": np.asarray(_words(leaf)) for at, leaf in enumerate(jax.tree.leaves(tree))}


def _leaves(arrays: Mapping[str, np.ndarray], prefix: str) -> list[np.ndarray]:
    """What `_named` named, in order."""
    count = sum(name.startswith(f"{prefix}/") for name in arrays)
    return [arrays[f"{prefix}/{at}"] for at in range(count)]


def _words(leaf: Any) -> Any:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _unflattened(like: Any, leaves: Sequence[np.ndarray], what: str) -> Any:
    """Stored leaves as a tree like another, of whose shapes and types they must be."""
    models, structure = jax.tree.flatten(like)
    made = []
    for model, leaf in zip(models, leaves, strict=True) if len(models) == len(leaves) else ():
        is_key = jnp.issubdtype(model.dtype, jax.dtypes.prng_key)
        made.append(key_of(jnp.asarray(leaf)) if is_key else leaf)
        if made[-1].shape != model.shape or made[-1].dtype != model.dtype:
            break
    else:
        if len(made) == len(models):
            return jax.tree.unflatten(structure, made)
    raise StoreError(f"the stored run does not fit this version of its sampler ({what} look different): begin it again")


def _phase(leaves: Sequence[np.ndarray]) -> Phase | None:
    """Rows from their leaves: all statistics, or the log density alone."""
    if not leaves:
        return None
    positions, *stats = leaves
    names = Info._fields if len(stats) == len(Info._fields) else ("lp",)
    return Phase(positions, dict(zip(names, stats, strict=True)))
