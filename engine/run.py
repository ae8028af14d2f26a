"""The driver: one function runs every sampler, chains on their own threads or vectorised, in chunks."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from pelton.engine.arguments import whole
from pelton.engine.chains import Chains
from pelton.engine.compilation import Compiler
from pelton.engine.errors import ArgumentError, OutputError, PeltonWarning, StoreError
from pelton.engine.groups import add_groups
from pelton.engine.identity import check_identity, identity
from pelton.engine.journal import POSITIONS, Journal, begun, has_run
from pelton.engine.mesh import Mesh
from pelton.engine.modes import modes, remark
from pelton.engine.naming import constrained, named_shapes
from pelton.engine.place import place
from pelton.engine.placement import choose_devices, device_failures
from pelton.engine.plan import check_settings, plan, sampler_of
from pelton.engine.posterior import Posterior, adopted, data_size, posterior_of
from pelton.engine.progress import progress
from pelton.engine.results import Draws, assemble, dataset, judge
from pelton.engine.samplers.base import Stepwise, empty_info
from pelton.engine.settings import Method, Settings
from pelton.engine.sources.logdensity import from_logdensity
from pelton.engine.starts import started
from pelton.engine.stopping import Target
from pelton.engine.store import load


def sample(
    model: Any,
    *,
    init: Any = None,
    data: Any = None,
    sampler: str | None = None,
    chains: int = 4,
    warmup: int = 1000,
    draws: int = 1000,
    seed: int = 0,
    target_accept: float | None = None,
    max_tree_depth: int = 10,
    metric: str = "auto",
    precision: str | None = None,
    device: str | None = None,
    chain_method: Method | None = None,
    start: str | None = None,
    store: str | os.PathLike[str] | None = None,
    stop_at: Target | None = None,
    groups: Sequence[str] = (),
    keep_warmup: bool = False,
    mesh: Mesh | None = None,
    progress: bool | None = None,
) -> xr.DataTree:
    """Draws from a posterior.

    Args:
        model: a pelton model, a PyMC model, a Posterior (`pelton.from_numpyro` makes one), or with `init` a log
            density.
        init: where to start, a pytree of arrays, if the model is a function of it: see `pelton.from_logdensity`.
        data: of the log density that `init` is given for.
        sampler: a registered sampler, see `pelton.samplers()`; by default 'nuts', or what the model asks for:
            PartialPooling asks for the grid where it has two hyperparameters, whose draws are independent. 'nuts',
            'numpyro-nuts', 'blackjax-nuts' and 'mclmc' are for few chains or many, 'chees' (8 and more) and 'meads'
            (32 and more) for many that learn from one another, 'smc' and 'mixture' for several modes.
        chains: independent chains, each from its own start (from 64 chains on in groups, so that nested R-hat can judge
            chains of few draws); with 'smc' each a population of its own.
        warmup: adapting iterations a chain; they are not draws.
        draws: draws a chain.
        seed: of the run's randomness; the same seed, device, versions and precision give the same draws.
        target_accept: mean acceptance probability that the step size is adapted to, between 0 and 1; by default what
            the model asks for of samplers that take the same step everywhere, or the sampler's own: 0.8, with 'mclmc'
            and 'smc' 0.9, with 'chees' 0.651 (of a harmonic mean). 'meads' does not use it.
        max_tree_depth: limit on a trajectory's doublings.
        metric: form of the inverse mass matrix: "diagonal", "dense", "low-rank" (a diagonal and the directions in which
            it is wrong; 'nuts' alone), or "auto": dense up to 20 dimensions, past them low-rank where the sampler has
            it.
        precision: "float32", "float64", or None for float64 on a CPU and float32 on an accelerator. It holds for the
            run alone: the process's own settings stay.
        device: "cpu", "gpu" or "tpu"; None takes an accelerator where there is one and the model, its chains included,
            is large enough to gain.
        chain_method: "threads" (a compiled program a chain, on the cores) or "vectorized" (all chains of a device in
            one program, spread over all devices of that kind); by default threads on a CPU and vectorized on an
            accelerator. 'chees' and 'meads' are always vectorized.
        start: "pathfinder" starts chains from draws of a Pathfinder approximation, chosen by importance, which costs
            some climbs and keeps them out of modes that hardly matter; None starts them where the model says.
        store: a path such as "run.zarr", or an fsspec URL, where the draws go while they are made. The memory needed
            does not grow with their number, ArviZ and xarray open the run while it goes on (`pelton.load` checks it,
            too), and if it is cut short `pelton.resume` goes on with it. The tree's variables are read when used.
        stop_at: a `pelton.Target` at which the run stops before it has `draws`.
        groups: further groups of the tree, of "prior", "prior_predictive", "posterior_predictive" and
            "log_likelihood", where the model offers them.
        keep_warmup: whether the tree holds the groups warmup_posterior and warmup_sample_stats.
        mesh: a `pelton.Mesh` of devices, over which chains and data are divided.
        progress: whether to show a progress bar; None shows it on a terminal.

    Returns:
        A DataTree in ArviZ's schema. Its attributes record versions, settings, seconds, gradient evaluations and
        whether the draws converged ("status"); with 'smc' also each chain's log_evidence and effective_particles.

    Raises:
        ArgumentError: a setting is out of range.
        ModelError: the log density is not finite at any of a hundred starts.
        OutputError: the store holds a run already, or cannot be written to; what it holds then is whole.
        ResourceError: the run would not fit into memory, or did not.
        DeviceError: a device failed; with `store` the run can be resumed.

    Warns:
        ConvergenceWarning: the draws should not be trusted as they are.

    >>> import numpy as np
    >>> import pelton
    >>> model = pelton.PartialPooling([9, 22, 31], [138, 72, 157])
    >>> tree = pelton.sample(model, chains=2, draws=500)
    >>> tree["posterior"]["mu"].shape
    (2, 500)
    """
    check_settings(sampler, chains, warmup, draws, seed, target_accept, max_tree_depth, stop_at)
    if init is not None:
        model = from_logdensity(model, init, data=data)
    elif data is not None:
        raise ArgumentError("data are those of a log density, which needs init as well: where to start")
    model = adopted(model)
    posterior = posterior_of(model, groups, "sample")
    devices = choose_devices(device, chains * data_size(posterior))
    settings = plan(
        posterior,
        devices[0].platform,
        sampler=sampler,
        chains=chains,
        warmup=warmup,
        draws=draws,
        seed=seed,
        target_accept=target_accept,
        max_tree_depth=max_tree_depth,
        metric=metric,
        precision=precision,
        chain_method=chain_method,
        start=start,
        stop_at=stop_at,
        groups=groups,
        keep_warmup=keep_warmup,
        mesh=mesh,
    )
    settings.places(devices)
    own = tuple(groups) if isinstance(model, Posterior) else ()
    if store is None:
        with device_failures(devices[0]):
            return _finished(model, settings, _run(posterior, settings, devices, progress, None, own))
    where = place(store)
    with where.locked(), settings.in_force(devices), device_failures(devices[0], where.url):
        if has_run(where):
            raise OutputError(
                f"there is a run in {where.url!r} already: go on with it by pelton.resume, or give another path"
            )
        stored = {"settings": settings.plain(), "planned": settings.draws, "model": identity(posterior)}
        journal = Journal(where, posterior, stored, settings)
        journal.begin(_template(posterior, settings, own))
        tree = _finished(model, settings, _run(posterior, settings, devices, progress, journal, own))
        return journal.complete(tree)


def resume(
    path: str | os.PathLike[str],
    model: Any = None,
    *,
    draws: int | None = None,
    progress: bool | None = None,
) -> xr.DataTree:
    """Goes on with a run that was cut short, or takes more draws of a finished one.

    On the same device and with the same versions the draws are, bit for bit, those of a run that was never cut short,
    and those of a run that was given `draws` from the beginning.

    Args:
        path: of the run, as given to `pelton.sample(..., store=path)`.
        model: the model that it was begun with, which no run holds: it is code. Its settings stand in the run.
        draws: draws a chain in all; by default as many as the run was begun with.
        progress: whether to show a progress bar; None shows it on a terminal.

    Returns:
        The run's tree, as `pelton.sample` returns it.

    Raises:
        StoreError: there is no run, some of it is damaged, or it was begun with another model or other data; the
            message names the difference.
        OutputError: another process is writing it, or it cannot be written to.
        ArgumentError: no model is given, or the run has more draws than are asked for.

    Warns:
        PeltonWarning: versions have changed since, so that the draws go on from where they were but may not be the
            unbroken run's to the bit.

    >>> import tempfile
    >>> import pelton
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = f"{folder.name}/run.zarr"
    >>> model = pelton.PartialPooling([9, 22, 31], [138, 72, 157])
    >>> tree = pelton.sample(model, sampler="nuts", draws=400, store=path)
    >>> more = pelton.resume(path, model, draws=800)
    >>> more["posterior"].sizes["draw"], bool((more["posterior"]["mu"][:, :400] == tree["posterior"]["mu"]).all())
    (800, True)
    >>> folder.cleanup()
    """
    where = place(path)
    if not has_run(where):
        raise StoreError(f"there is no run in {where.url!r}; pelton.sample(..., store={where.url!r}) begins one")
    if model is None:
        raise ArgumentError(
            f"the run in {where.url!r} holds draws, data and settings, but not its model, which is code; make "
            f"the model again as it was begun with and give it: pelton.resume({where.url!r}, model)"
        )
    with where.locked():
        stored = begun(where)
        settings = Settings.of(stored["settings"])
        if draws is not None:
            settings = replace(settings, draws=whole("draws", draws, 1))
        model = adopted(model)
        posterior = posterior_of(model, settings.groups, "resume")
        devices = choose_devices(settings.platform, 0)
        with settings.in_force(devices), device_failures(devices[0], where.url):
            journal = Journal(where, posterior, stored, settings)
            try:
                named = load(where.url, verify=False)
            except StoreError:
                # Cut short before there was one, or while it was replaced: the journal makes it again.
                named = xr.DataTree()
            for text in check_identity(where.url, stored["model"], posterior, named):
                warnings.warn(
                    f"{text}: the run goes on, but its draws may not be to the bit those of an unbroken one",
                    PeltonWarning,
                    stacklevel=2,
                )
            own = settings.groups if isinstance(model, Posterior) else ()
            journal.resume(_template(posterior, settings, own))
            tree = _finished(model, settings, _run(posterior, settings, devices, progress, journal, own))
            return journal.complete(tree)


def _run(
    posterior: Posterior,
    settings: Settings,
    devices: Sequence[Any],
    progress: bool | None,
    journal: Journal | None,
    groups: Sequence[str] = (),
) -> xr.DataTree:
    """The run's tree, judged, with further groups that the posterior itself offers."""
    with settings.in_force(devices):
        if posterior.dimension == 0:
            run, name = _Run.constant(posterior, settings, journal), "conjugate"
        else:
            chosen = sampler_of(settings, posterior)
            known = journal is not None and journal.at is not None
            engine = Chains(
                started(posterior, settings.start, settings.chains, settings.seed, devices[0], known),
                chosen,
                settings.chains,
                settings.seed,
                settings.chain_method == "vectorized",
                settings.places(devices),
                journal,
            )
            run, name = _Run.of(engine, settings, progress), settings.sampler
        tree = judge(
            run.tree,
            posterior,
            attrs={
                **settings.attrs(name, run.metric, run.warmup, str(devices[0].device_kind)),
                "draws": int(run.tree["sample_stats"].sizes["draw"]),
                **({} if run.starts in (0, settings.chains) else {"starts": run.starts}),
                "seconds_compiling": run.seconds_compiling,
                "seconds_warmup": run.seconds_warmup,
                "seconds_sampling": run.seconds_sampling,
                **({} if journal is None else {"seconds_storing": journal.seconds}),
                "gradient_evaluations": run.gradients,
                "gradients_computed": run.computed,
                **run.summary,
            },
            remarks=run.remarks,
        )
        return add_groups(tree, posterior, run.positions, groups, settings.seed)


def _finished(model: Any, settings: Settings, tree: xr.DataTree) -> xr.DataTree:
    """The tree with what follows from the draws."""
    return tree if isinstance(model, Posterior) else model.finish(tree, seed=settings.seed, groups=settings.groups)


def _template(posterior: Posterior, settings: Settings, groups: Sequence[str]) -> xr.DataTree:
    """The run's tree with no draws; with the groups that are made from positions, these too."""
    empty = np.zeros((settings.chains, 0, *posterior.batch_shape))
    values = named_shapes(posterior, (settings.chains, 0))
    info = empty_info(1, np.dtype(settings.precision))._asdict()
    names = tuple(info) if posterior.dimension else CONSTANT_STATS
    stats = {name: empty.astype(info[name].dtype) for name in names}
    kept = (values, stats) if settings.keeps_warmup else (None, None)
    tree = assemble(posterior, Draws(values, stats, *kept))
    if groups:
        positions = np.zeros((*empty.shape, posterior.dimension), settings.precision)
        leading = ("chain", "draw", *posterior.batch_dims)
        tree[POSITIONS] = xr.DataTree(dataset({"position": positions}, {}, posterior.coords, leading))
    return tree


# What is said of draws that needed no sampler.
CONSTANT_STATS = ("lp", "diverging")


@dataclass
class _Run:
    """The tree of a run, what it cost, and what speaks against it besides its diagnostics."""

    tree: xr.DataTree
    positions: np.ndarray
    warmup: int
    metric: str
    seconds_compiling: float
    seconds_warmup: float
    seconds_sampling: float
    gradients: int
    computed: int
    starts: int = 0
    remarks: tuple[str, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def constant(cls, posterior: Posterior, settings: Settings, journal: Journal | None) -> "_Run":
        """Nothing is unknown that needs a sampler: the constants, as often as there are draws."""
        compiler = Compiler()
        zeros = np.zeros((settings.chains, settings.draws, *posterior.batch_shape))
        stats = {"lp": zeros, "diverging": zeros.astype(bool)}
        positions = zeros[..., None][..., :0]
        values = constrained(posterior, positions, compiler)
        tree = (
            assemble(posterior, Draws(values, stats, None, None)) if journal is None else journal.put_all(values, stats)
        )
        return cls(tree, positions, 0, "none", compiler.seconds, 0.0, 0.0, 0, 0)

    @classmethod
    def of(cls, engine: Chains, settings: Settings, show: bool | None) -> "_Run":
        posterior, sampler, draws = engine.posterior, engine.sampler, settings.draws
        total = engine.chains * (sampler.warmup_steps + draws)
        with progress(f"{sampler.name}, {engine.chains} chains", total, show) as report:
            warm, kept = engine.run(draws, report, settings.stop_at)
        seconds = dict(engine.seconds)
        if engine.journal is not None:
            tree = engine.journal.store.open()
        else:
            keep = settings.keeps_warmup and sampler.warmup_steps > 0
            warm_values = constrained(posterior, warm.positions, engine.compiler) if keep else None
            values = constrained(posterior, kept.positions, engine.compiler)
            tree = assemble(posterior, Draws(values, kept.stats, warm_values, warm.stats if keep else None))
        made = tree["sample_stats"].sizes["draw"]
        remedy = "run it again" if engine.journal is None else "pelton.resume goes on with it"
        remarks = [f"interrupted after {made} of {draws} draws a chain: {remedy}"] if engine.interrupted else []
        # Of a batch each posterior would have modes of its own.
        found = modes(kept.positions, kept.stats["lp"]) if posterior.batch is None else ()
        remarks += [words] if (words := remark(found)) else []
        before = sum(engine.summary.get("population_gradients", ()))
        return cls(
            tree=tree,
            positions=np.asarray(tree[POSITIONS]["position"]) if POSITIONS in tree.children else kept.positions,
            warmup=sampler.warmup_steps,
            metric=sampler.metric,
            seconds_compiling=engine.compiler.seconds,
            seconds_warmup=seconds["warmup"],
            seconds_sampling=seconds["sampling"],
            gradients=int(engine.evaluations + before),
            computed=int(engine.gradients + before),
            starts=engine.starts,
            remarks=tuple(remarks),
            summary=engine.summary | (sampler.attrs(engine.learnt) if isinstance(sampler, Stepwise) else {}),
        )
