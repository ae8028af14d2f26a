"""The driver: one function runs every sampler, chains on their own threads or vectorised, in chunks."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from pelton.engine.arguments import whole
from pelton.engine.compilation import Compiler, Request
from pelton.engine.errors import ArgumentError, ModelError, UnknownNameError
from pelton.engine.placement import cores
from pelton.engine.posterior import Hierarchy, Model, Posterior
from pelton.engine.precision import choose_precision, using
from pelton.engine.progress import Report, progress
from pelton.engine.results import Draws, build_tree
from pelton.engine.samplers import DEFAULT, Info, Sampler, sampler_class
from pelton.engine.samplers.base import Bound, Stepwise, empty_info

type Method = Literal["threads", "vectorized"]

# Draws that leave the device together; a run of any length uses the same compiled program.
CHUNK_DRAWS = 250
CHUNK_BYTES = 64 * 2**20
# A dense metric costs d^2 a leapfrog and pays on the correlated posteriors of few dimensions.
DENSE_UP_TO = 20
DEFAULT_TARGET_ACCEPT = 0.8
START_TRIES = 100
CONSTRAIN_BATCH = 256
CONSTRAIN_BLOCK = 4096


@dataclass(frozen=True)
class _Programs:
    """What to compile: a posterior's functions, a sampler's, and how the chains are laid out."""

    posterior: tuple[Callable, Callable, Hierarchy | None]
    sampler: Sampler
    batched: bool
    vectorized: bool
    capacity: int


def _key(seed: Any, chain: Any) -> Any:
    return jax.random.fold_in(jax.random.wrap_key_data(seed), chain)


def _phase_key(seed: Any, chain: Any, segment: Any, warming: bool) -> Any:
    """Warm-up and sampling take their randomness from keys apart from one another and from the start's."""
    return jax.random.fold_in(jax.random.fold_in(_key(seed, chain), segment), 1 + warming)


def _room(position: Any, rows: int) -> tuple[Any, Info]:
    """Room for that many draws like the position, and for their reports."""
    return jnp.zeros((rows, *position.shape), position.dtype), empty_info(rows, position.dtype)


def _stored(store: Any, row: Any, values: Any) -> Any:
    """The store with the values in one row."""
    return jax.tree.map(lambda rows, one: jax.lax.dynamic_update_index_in_dim(rows, one, row, 0), store, values)


def _strong(tree: Any) -> Any:
    """Leaves without JAX's weak types, so that a state looks the same to the next program as to the last."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.result_type(leaf)), tree)


def _over_batch_and_chains(function: Callable, programs: _Programs, chain_axes: tuple) -> Callable:
    """Maps a one-chain program over segments and, where chains are vectorised, over chains.

    The function takes (chain, segment, ..., data); chain_axes are the mapped axes of what stands between.
    """
    if programs.batched:
        function = jax.vmap(function, in_axes=(None, 0, *chain_axes, 0))
    if programs.vectorized:
        function = jax.vmap(function, in_axes=(0, None, *chain_axes, None))
    return function


def _build_init(programs: _Programs) -> Callable:
    """(chain, segment, seed, data) -> state, and whether its log density and gradient are finite."""
    (logdensity, start, hierarchy), sampler = programs.posterior, programs.sampler

    def init(chain: Any, segment: Any, seed: Any, data: Any) -> tuple[Any, Any]:
        bound = Bound(logdensity, data, start, hierarchy)
        key = jax.random.fold_in(_key(seed, chain), segment)
        key_start, key_init = jax.random.split(key)

        def finite(position: Any) -> Any:
            value, gradient = jax.value_and_grad(bound)(position)
            return jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))

        def again(carry: tuple) -> tuple:
            index, _, _ = carry
            position = start(jax.random.fold_in(key_start, index), data)
            return index + 1, position, finite(position)

        # The first try is made in the loop as well: each place that evaluates the density is compiled on its own.
        shape = jax.eval_shape(start, key_start, data)
        _, position, good = jax.lax.while_loop(
            lambda carry: ~carry[2] & (carry[0] < START_TRIES),
            again,
            (0, jnp.zeros(shape.shape, shape.dtype), jnp.asarray(False)),
        )
        return _strong(sampler.init(bound, position, key_init)), good

    def program(chain: Any, segment: Any, seed: Any, data: Any) -> tuple[Any, Any]:
        mapped = _over_batch_and_chains(lambda c, s, d: init(c, s, seed, d), programs, ())
        return mapped(chain, segment, data)

    return program


def _build_advance(programs: _Programs, warming: bool) -> Callable:
    """(chain, segment, state, seed, first, count, data) -> state, positions [capacity, d], Info [capacity].

    Only the first `count` rows are filled: the count is an argument, so that every length of run shares one program.
    """
    (logdensity, start, hierarchy), sampler = programs.posterior, programs.sampler

    def advance(
        chain: Any, segment: Any, state: Any, data: Any, seed: Any, first: Any, count: Any
    ) -> tuple[Any, Any, Any]:
        bound = Bound(logdensity, data, start, hierarchy)

        key = _phase_key(seed, chain, segment, warming)

        def iterate(index: Any, state: Any) -> tuple[Any, Info]:
            step_key = jax.random.fold_in(key, index)
            if warming:
                return sampler.warmup(bound, state, step_key, index)
            return sampler.step(bound, state, step_key)

        store = _room(sampler.position(state), programs.capacity)

        def body(offset: Any, carry: tuple) -> tuple:
            state, store = carry
            state, info = iterate(first + offset, state)
            state = _strong(state)
            return state, _stored(store, offset, (sampler.position(state), info))

        state, (positions, infos) = jax.lax.fori_loop(0, count, body, (state, store))
        return state, positions, infos

    def program(
        chain: Any, segment: Any, state: Any, seed: Any, first: Any, count: Any, data: Any
    ) -> tuple[Any, Any, Any]:
        mapped = _over_batch_and_chains(lambda c, s, st, d: advance(c, s, st, d, seed, first, count), programs, (0,))
        return mapped(chain, segment, state, data)

    return program


def _build_stepwise(programs: _Programs, warming: bool) -> Callable:
    """As `_build_advance`, for a sampler that is advanced a gradient at a time: one loop over all draws and chains.

    Each pass of the loop is one gradient of every chain. A chain whose draw is ready stores it and begins the next in
    the same pass; one that has all its draws goes on for nothing until the last has.
    """
    (logdensity, start, hierarchy), sampler = programs.posterior, programs.sampler
    assert isinstance(sampler, Stepwise)
    capacity = programs.capacity

    def program(
        chain: Any, segment: Any, state: Any, seed: Any, first: Any, count: Any, data: Any
    ) -> tuple[Any, Any, Any]:
        def begin(chain: Any, segment: Any, state: Any, done: Any) -> Any:
            key = _phase_key(seed, chain, segment, warming)
            return _strong(sampler.begin(state, jax.random.fold_in(key, first + done)))

        def begin_first(chain: Any, segment: Any, state: Any, data: Any) -> tuple[Any, Any]:
            del data
            return begin(chain, segment, state, 0), sampler.scratch(state)

        def store_of(chain: Any, segment: Any, state: Any, data: Any) -> tuple[Any, Any]:
            del chain, segment, data
            # One row more than there are draws takes what is not to be kept.
            return _room(sampler.position(state), capacity + 1)

        def tick(chain: Any, segment: Any, carry: tuple, data: Any) -> tuple:
            state, work, scratch, done = carry
            bound = Bound(logdensity, data, start, hierarchy)
            work, scratch = sampler.advance(bound, state, work, scratch)
            ready = sampler.finished(work)

            def next_draw() -> tuple[Any, Any, Any, Any]:
                drawn, info = sampler.complete(state, work)
                if warming:
                    drawn = sampler.adapt(drawn, info, first + done)
                # What a chain does past its last draw leaves no trace.
                drawn = jax.tree.map(lambda new, old: jnp.where(done < count, new, old), _strong(drawn), state)
                return drawn, begin(chain, segment, drawn, done + 1), done + 1, info

            def same_draw() -> tuple[Any, Any, Any, Any]:
                nothing = jax.tree.map(lambda rows: rows[0], empty_info(1, work_dtype))
                return state, work, done, nothing

            work_dtype = sampler.position(state).dtype
            drawn, work, now, info = jax.lax.cond(ready, next_draw, same_draw)
            row = jnp.where(ready & (done < count), done, capacity)
            return (drawn, work, scratch, now), (row, (sampler.position(drawn), info))

        def over(function: Callable, axes: tuple) -> Callable:
            return _over_batch_and_chains(function, programs, axes)

        def put(chain: Any, segment: Any, store: Any, row: Any, values: Any, data: Any) -> Any:
            del chain, segment, data
            return _stored(store, row, values)

        work, scratch = over(begin_first, (0,))(chain, segment, state, data)
        store = over(store_of, (0,))(chain, segment, state, data)
        done = over(lambda c, s, d: jnp.zeros((), jnp.int32), ())(chain, segment, data)

        def body(carry: tuple) -> tuple:
            machine, store = carry
            machine, (row, values) = over(tick, (0,))(chain, segment, machine, data)
            return machine, over(put, (0, 0, 0))(chain, segment, store, row, values, data)

        (state, *_), store = jax.lax.while_loop(
            lambda carry: jnp.any(carry[0][3] < count), body, ((state, work, scratch, done), store)
        )
        axis = int(programs.vectorized) + int(programs.batched)
        positions, infos = jax.tree.map(lambda leaf: jax.lax.slice_in_dim(leaf, 0, capacity, axis=axis), store)
        return state, positions, infos

    return program


def _build_constrain(constrain: Callable, batched: bool) -> Callable:
    """(positions [all, (segment), d], data) -> variables with the same leading axes."""

    def program(positions: Any, data: Any) -> dict[str, Any]:
        def one(position: Any) -> dict[str, Any]:
            return jax.vmap(constrain)(position, data) if batched else constrain(position, data)

        return jax.lax.map(one, positions, batch_size=CONSTRAIN_BATCH)

    return program


def sample(
    model: Model | Posterior,
    *,
    sampler: str | None = None,
    chains: int = 4,
    warmup: int = 1000,
    draws: int = 1000,
    seed: int = 0,
    target_accept: float | None = None,
    max_tree_depth: int = 10,
    dense: bool | None = None,
    precision: str | None = None,
    chain_method: Method | None = None,
    groups: Sequence[str] = (),
    keep_warmup: bool = False,
    progress: bool | None = None,
) -> xr.DataTree:
    """Draws from a posterior.

    Args:
        model: a pelton model, or a Posterior (`pelton.from_numpyro` makes one).
        sampler: a registered sampler, see `pelton.samplers()`; by default 'nuts', or what the model asks for:
            PartialPooling asks for the grid where it has two hyperparameters, whose draws are independent.
        chains: independent chains, each from its own start.
        warmup: adapting iterations a chain; they are not draws.
        draws: draws a chain.
        seed: of the run's randomness; the same seed, device, versions and precision give the same draws.
        target_accept: mean acceptance probability that the step size is adapted to, between 0 and 1; by default 0.8,
            or what the model asks for of samplers that take the same step everywhere.
        max_tree_depth: limit on a trajectory's doublings.
        dense: whether the metric is dense; by default it is up to 20 dimensions.
        precision: "float32", "float64", or None for float64 on a CPU and float32 on an accelerator. It holds for the
            run alone: the process's own settings stay.
        chain_method: "threads" (a compiled program a chain, on the cores) or "vectorized" (all chains in one
            program); by default threads on a CPU and vectorized on an accelerator.
        groups: further groups of the tree, of "prior", "prior_predictive", "posterior_predictive" and
            "log_likelihood", where the model offers them.
        keep_warmup: whether the tree holds the groups warmup_posterior and warmup_sample_stats.
        progress: whether to show a progress bar; None shows it on a terminal.

    Returns:
        A DataTree in ArviZ's schema. Its attributes record versions, settings, seconds, gradient evaluations and
        whether the draws converged ("status").

    Raises:
        ArgumentError: a setting is out of range.
        ModelError: the log density is not finite at any of a hundred starts.

    Warns:
        ConvergenceWarning: the draws should not be trusted as they are.

    >>> import numpy as np
    >>> import pelton
    >>> model = pelton.PartialPooling([9, 22, 31], [138, 72, 157])
    >>> tree = pelton.sample(model, chains=2, draws=500)
    >>> tree["posterior"]["mu"].shape
    (2, 500)
    """
    _check(sampler, chains, warmup, draws, seed, target_accept, max_tree_depth)
    run_precision = choose_precision(precision, jax.default_backend())
    method = _method(chain_method)
    if not isinstance(model, Posterior | Model):
        raise ArgumentError(f"sample takes a pelton model or a Posterior, not {type(model).__name__}")
    for name in groups:
        if isinstance(model, Posterior):
            raise ArgumentError(f"a Posterior offers no further groups; {', '.join(groups)} need a pelton model")
        if name not in model.extra_groups:
            raise UnknownNameError("group", name, model.extra_groups)
    posterior = model if isinstance(model, Posterior) else model.posterior()
    if sampler is None:
        sampler = posterior.sampler or DEFAULT
    if target_accept is None:
        asked = None if sampler_class(sampler).local_steps else posterior.target_accept
        target_accept = DEFAULT_TARGET_ACCEPT if asked is None else asked
    with using(run_precision):
        if posterior.dimension == 0:
            run, name = _Run.constant(posterior, chains, draws), "conjugate"
        else:
            chosen = _sampler(
                sampler,
                posterior,
                warmup,
                target_accept=float(target_accept),
                max_tree_depth=int(max_tree_depth),
                dense=posterior.dimension <= DENSE_UP_TO if dense is None else bool(dense),
            )
            run, name = _Run.of(posterior, chosen, chains, draws, seed, method, keep_warmup, progress), sampler
        tree = build_tree(
            posterior,
            run.draws,
            attrs={
                "sampler": name,
                "chains": chains,
                "draws": draws,
                "warmup": run.warmup,
                "seed": seed,
                "target_accept": target_accept,
                "max_tree_depth": max_tree_depth,
                "metric": run.metric,
                "precision": run_precision,
                "device": str(jax.devices()[0].device_kind),
                "chain_method": method,
                "seconds_compiling": run.seconds_compiling,
                "seconds_warmup": run.seconds_warmup,
                "seconds_sampling": run.seconds_sampling,
                "gradient_evaluations": run.gradients,
            },
        )
    return tree if isinstance(model, Posterior) else model.finish(tree, seed=seed, groups=groups)


def _check(
    sampler: str | None,
    chains: int,
    warmup: int,
    draws: int,
    seed: int,
    target_accept: float | None,
    max_tree_depth: int,
) -> None:
    """Refuses settings out of range before anything is compiled."""
    if sampler is not None:
        sampler_class(sampler)
    for what, value, least in (
        ("chains", chains, 1),
        ("draws", draws, 1),
        ("warmup", warmup, 0),
        ("seed", seed, 0),
        ("max_tree_depth", max_tree_depth, 1),
    ):
        whole(what, value, least)
    if seed >= 2**64:
        raise ArgumentError(f"seed is below 2**64, not {seed}")
    if target_accept is not None and not 0 < target_accept < 1:
        raise ArgumentError(f"target_accept lies between 0 and 1, not {target_accept!r}; 0.8 is usual")


def _method(chain_method: str | None) -> Method:
    if chain_method is None:
        return "threads" if jax.default_backend() == "cpu" else "vectorized"
    if chain_method in ("threads", "vectorized"):
        return cast("Method", chain_method)
    raise ArgumentError(f"chain_method is 'threads', 'vectorized' or None (by device), not {chain_method!r}")


def _sampler(name: str, posterior: Posterior, warmup: int, **settings: Any) -> Sampler:
    kind = sampler_class(name)
    widest = posterior.widest if kind.by_blocks else posterior.dimension
    if kind.max_dimension is not None and widest > kind.max_dimension:
        raise ArgumentError(
            f"sampler {name!r} takes at most {kind.max_dimension} dimensions{' a block' if kind.by_blocks else ''} and "
            f"this posterior has {widest}; use {DEFAULT!r}"
        )
    return kind(warmup_steps=int(warmup) if kind.needs_warmup else 0, **settings)


@dataclass
class _Run:
    """The draws of a run, and what it cost."""

    draws: Draws
    warmup: int
    metric: str
    seconds_compiling: float
    seconds_warmup: float
    seconds_sampling: float
    gradients: int

    @classmethod
    def constant(cls, posterior: Posterior, chains: int, draws: int) -> "_Run":
        """Nothing is unknown that needs a sampler: the constants, as often as there are draws."""
        compiler = Compiler()
        zeros = np.zeros((chains, draws, *posterior.batch_shape))
        values = _constrained(posterior, zeros[..., None][..., :0], compiler)
        stats = {"lp": zeros, "diverging": zeros.astype(bool)}
        return cls(Draws(values, stats, None, None), 0, "none", compiler.seconds, 0.0, 0.0, 0)

    @classmethod
    def of(
        cls,
        posterior: Posterior,
        sampler: Sampler,
        chains: int,
        draws: int,
        seed: int,
        method: Method,
        keep_warmup: bool,
        show: bool | None,
    ) -> "_Run":
        engine = _Engine(posterior, sampler, chains, seed, method)
        total = chains * (sampler.warmup_steps + draws)
        with progress(f"{sampler.name}, {chains} chains", total, show) as report:
            warm, kept = engine.run(draws, report)
        seconds_draws = engine.seconds
        keep = keep_warmup and sampler.warmup_steps > 0
        warm_values = _constrained(posterior, warm.positions, engine.compiler) if keep else None
        values = _constrained(posterior, kept.positions, engine.compiler)
        return cls(
            draws=Draws(values, kept.stats, warm_values, warm.stats if keep else None),
            warmup=sampler.warmup_steps,
            metric="dense" if sampler.dense else "diagonal",
            seconds_compiling=engine.compiler.seconds,
            seconds_warmup=seconds_draws["warmup"],
            seconds_sampling=seconds_draws["sampling"],
            gradients=int(kept.stats["n_steps"].sum() + warm.stats["n_steps"].sum()),
        )


@dataclass
class _Phase:
    """Positions [chain, draw, (segment), d] and statistics [chain, draw, (segment)] of one phase."""

    positions: np.ndarray
    stats: dict[str, np.ndarray]


class _Engine:
    """Runs one sampler's chains, each on its own thread or all in one vectorised program."""

    def __init__(self, posterior: Posterior, sampler: Sampler, chains: int, seed: int, method: Method):
        self.posterior = posterior
        self.sampler = sampler
        self.chains = chains
        self.vectorized = method == "vectorized"
        self.compiler = Compiler()
        self.seconds = {"warmup": 0.0, "sampling": 0.0}
        self.stop = threading.Event()
        width = posterior.dimension * (posterior.batch or 1) * 8 * (chains if self.vectorized else 1)
        self.programs = _Programs(
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

    def run(self, draws: int, report: Report) -> tuple[_Phase, _Phase]:
        every = np.arange(self.chains, dtype=np.uint32)
        groups = [every] if self.vectorized else list(every)
        precision = "float64" if jax.config.jax_enable_x64 else "float32"
        # Programs are compiled before the clock of the phases starts.
        self._compile(groups[0], draws)
        began = time.perf_counter()
        if self.sampler.shared_init:
            starts = [self._init(groups[0])] * len(groups)
        else:
            starts = [self._init(chain) for chain in groups]
        jax.block_until_ready(starts)
        self.seconds["warmup"] += time.perf_counter() - began

        def advance(phase: str, count: int, states: list[Any]) -> tuple[list[Any], _Phase]:
            def one(at: int) -> tuple[Any, list[Any]]:
                with using(precision):
                    return self._advance(phase, groups[at], states[at], count, report)

            began = time.perf_counter()
            if len(groups) == 1:
                results = [one(0)]
            else:
                with ThreadPoolExecutor(min(len(groups), cores())) as pool:
                    try:
                        results = list(pool.map(one, range(len(groups))))
                    except KeyboardInterrupt:
                        self.stop.set()
                        raise
            self.seconds[phase] += time.perf_counter() - began
            return [state for state, _ in results], self._gather([chunks for _, chunks in results])

        states, warm = advance("warmup", self.sampler.warmup_steps, starts)
        _, kept = advance("sampling", draws, states)
        return warm, kept

    def _compile(self, chain: Any, draws: int) -> None:
        """Compiles every program of the run, side by side."""
        init = self._initial(chain)
        state, _ = self.compiler.result_shapes(init)
        phases = [False] + ([True] if self.sampler.warmup_steps and not self.sampler.adapts_in_step else [])
        self.compiler.together(
            [
                *(self._advancing(warming, chain, state) for warming in phases),
                init,
                _constraining(self.posterior, (self.chains, draws), self.data),
            ]
        )

    def _advancing(self, warming: bool, chain: Any, state: Any) -> Request:
        args = (jnp.asarray(chain), self.segments, state, self.seed, np.int32(0), np.int32(0), self.data)
        build = _build_stepwise if isinstance(self.sampler, Stepwise) else _build_advance
        return Request(build, (self.programs, warming), args)

    def _initial(self, chain: Any) -> Request:
        return Request(_build_init, (self.programs,), (jnp.asarray(chain), self.segments, self.seed, self.data))

    def _init(self, chain: Any) -> Any:
        request = self._initial(np.zeros_like(chain) if self.sampler.shared_init else chain)
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
        self, phase: str, chain: Any, state: Any, count: int, report: Report
    ) -> tuple[Any, list[tuple[np.ndarray, Info]]]:
        if count == 0:
            return state, []
        warming = phase == "warmup" and not self.sampler.adapts_in_step
        program = self.compiler(*self._advancing(warming, chain, state))
        # Where one program serves both phases, the sampling phase goes on counting.
        offset = self.sampler.warmup_steps if phase == "sampling" and self.sampler.adapts_in_step else 0
        chunks, done = [], 0
        while done < count and not self.stop.is_set():
            size = min(self.programs.capacity, count - done)
            args = (jnp.asarray(chain), self.segments, state, self.seed)
            state, positions, infos = program(*args, np.int32(offset + done), np.int32(size), self.data)
            axis = int(self.vectorized) + int(self.programs.batched)
            rows = (slice(None),) * axis + (slice(0, size),)
            chunks.append(jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], (positions, infos)))
            done += size
            diverging = int(np.sum(chunks[-1][1].diverging))
            report(
                size * (self.chains if self.vectorized else 1),
                phase if warming or not diverging else f"{phase}, {diverging} divergences in the last chunk",
            )
        return state, chunks

    def _gather(self, results: list[list[tuple[np.ndarray, Info]]]) -> _Phase:
        batched = int(self.programs.batched)

        def join(leaves: list[np.ndarray]) -> np.ndarray:
            # Chunks hold [(chain), (segment), draw, ...]; the tree wants [chain, draw, (segment), ...].
            whole = np.concatenate(leaves, axis=int(self.vectorized) + batched)
            whole = whole if self.vectorized else whole[None]
            return np.moveaxis(whole, 1, 2) if batched else whole

        if not results[0]:
            empty = np.zeros((self.chains, 0, *self.posterior.batch_shape))
            positions = np.zeros((*empty.shape, self.posterior.dimension))
            return _Phase(positions, dict.fromkeys(Info._fields, empty))
        parts = [jax.tree.map(lambda *leaves: join(list(leaves)), chunks[0], *chunks[1:]) for chunks in results]
        positions, infos = jax.tree.map(lambda *leaves: np.concatenate(leaves), parts[0], *parts[1:])
        return _Phase(positions, infos._asdict())


def _constraining(posterior: Posterior, draws: tuple[int, int], data: Any) -> Request:
    """The program that names the variables, for blocks of a power of two, so that runs of other lengths share it."""
    size = min(1 << max(8, int(np.ceil(np.log2(draws[0] * draws[1])))), CONSTRAIN_BLOCK)
    positions = jax.ShapeDtypeStruct((size, *posterior.batch_shape, posterior.dimension), jnp.result_type(float))
    return Request(_build_constrain, (posterior.constrain, posterior.batch is not None), (positions, data))


def _constrained(posterior: Posterior, positions: np.ndarray, compiler: Compiler) -> dict[str, np.ndarray]:
    """Variables [chain, draw, ...] at positions [chain, draw, ...], computed in blocks of one compiled size."""
    chains, draws = positions.shape[:2]
    flat = positions.reshape(chains * draws, *positions.shape[2:])
    data = jax.tree.map(jnp.asarray, posterior.data)
    request = _constraining(posterior, (chains, draws), data)
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
