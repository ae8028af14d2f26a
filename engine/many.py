"""Many fits at once: models of one shape in one program, and a tree of each when it is asked for."""

from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import cycle, repeat
from typing import Any, Protocol, overload, runtime_checkable

import jax
import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.batches import Batch, Drawn, draw, stacked
from pelton.engine.compilation import Compiler
from pelton.engine.convergence import summary
from pelton.engine.errors import ArgumentError, ModelError, PeltonError
from pelton.engine.memory import check_host
from pelton.engine.modes import modes, remark
from pelton.engine.naming import constrained
from pelton.engine.placement import choose_devices, cores
from pelton.engine.plan import check_settings, plan
from pelton.engine.posterior import Posterior, adopted, data_size, posterior_of
from pelton.engine.precision import using
from pelton.engine.progress import progress as progress_bar
from pelton.engine.results import Draws, assemble, judge
from pelton.engine.run import sample
from pelton.engine.settings import Settings

# Fits of one program at the most, on a processor and on an accelerator.
MOST_TOGETHER, MOST_ON_ACCELERATOR = 256, 4096
# Fits judged by one program, and the columns of their table beside the status.
JUDGED_TOGETHER = 256
FIGURES = ["rhat", "ess_bulk", "ess_tail", "diverging", "acceptance_rate", "seconds"]


@runtime_checkable
class Batchable(Protocol):
    """A model that knows how to be fitted together with others of its kind, without a posterior of each."""

    @property
    def batch_key(self) -> Hashable | None:
        """Models of one key can be fitted together; None: only by what `posterior` gives."""
        ...

    def together(self, models: Sequence[Any]) -> Posterior:
        """The batch of the posteriors of models with this one's key."""
        ...

    def described(self) -> dict[str, Any]:
        """The fields of its Posterior that are its own: dims, coords, observed, constant, attrs."""
        ...


@dataclass
class _Group:
    """Fits of one shape: their numbers, and what their settings, batch and draws are."""

    fits: list[int]
    posterior: Posterior
    settings: Settings
    # A fit that was drawn again is in two of them, of which the later holds.
    drawn: list[Drawn] = field(default_factory=list)


# Without the type of its members, which checks at run time would make one of to look at.
class Fits(Sequence):
    """What `sample_many` returns: a sequence of trees, each made when it is asked for.

    Attributes:
        errors: of the fits that failed, by their places. Their trees have no groups, and say so in attrs["status"].
    """

    def __init__(self, models: Sequence[Any], groups: list[_Group], constant: dict[int, dict], errors: dict[int, Any]):
        self._models = models
        self._at = {
            int(fit): (group, drawn, column)
            for group in groups
            for drawn in group.drawn
            for column, fit in enumerate(drawn.fits)
        }
        self._groups = groups
        self._constant = constant
        self.errors: dict[int, PeltonError] = dict(sorted(errors.items()))

    def __len__(self) -> int:
        return len(self._models)

    @overload
    def __getitem__(self, index: int) -> xr.DataTree: ...
    @overload
    def __getitem__(self, index: slice) -> list[xr.DataTree]: ...

    def __getitem__(self, index: int | slice) -> xr.DataTree | list[xr.DataTree]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        fit = range(len(self))[index]
        if fit in self.errors:
            return xr.DataTree(xr.Dataset(attrs={"fit": fit, "converged": 0, "status": f"FAILED: {self.errors[fit]}"}))
        if fit in self._constant:
            return sample(self._models[fit], **self._constant[fit])
        return self._tree(fit)

    def __iter__(self) -> Iterator[xr.DataTree]:
        return (self[fit] for fit in range(len(self)))

    def __repr__(self) -> str:
        return f"Fits({len(self)} fits, {len(self.errors)} failed)"

    def _tree(self, fit: int) -> xr.DataTree:
        group, drawn, column = self._at[fit]
        model: Any = self._models[fit]
        settings = group.settings
        if _batch_key(model) is not None:
            own = model.described()
        else:
            made = posterior_of(model, (), "sample_many")
            own = {name: getattr(made, name) for name in ("dims", "coords", "observed", "constant", "attrs")}
        data = jax.tree.map(lambda leaf: leaf[column], drawn.data)
        own["dims"] = dict(group.posterior.dims) | dict(own["dims"])
        posterior = replace(group.posterior, batch=None, data=data, **own)
        positions, stats = drawn.of(column)
        with settings.in_force([drawn.device]):
            values = constrained(posterior, positions, Compiler())
            found = remark(modes(positions, stats["lp"]))
            tree = judge(
                assemble(posterior, Draws(values, stats, None, None)),
                posterior,
                attrs={
                    **settings.attrs(settings.sampler, drawn.metric, drawn.warmup, str(drawn.device.device_kind)),
                    **({} if drawn.starts in (0, settings.chains) else {"starts": drawn.starts}),
                    "fit": fit,
                    "fits_together": len(drawn.fits),
                    # Each fit's share.
                    **{f"seconds_{name}": value / len(drawn.fits) for name, value in drawn.seconds.items()},
                    "gradient_evaluations": drawn.evaluations // len(drawn.fits),
                },
                remarks=[found] if found else [],
            )
        return tree if isinstance(model, Posterior) else model.finish(tree, seed=_seed_of(settings.seed, fit))

    def table(self) -> pd.DataFrame:
        """One row a fit, without making its tree: its status, and what its unconstrained coordinates say.

        Returns:
            status ("drawn", or what failed), rhat (the largest), ess_bulk and ess_tail (the smallest), diverging (how
            many draws), acceptance_rate (mean), seconds (its share).
        """
        table = pd.DataFrame(
            {"status": "drawn"} | dict.fromkeys(FIGURES, np.nan),
            index=pd.RangeIndex(len(self), name="fit"),
        )
        for fit, error in self.errors.items():
            table.loc[fit, "status"] = f"FAILED: {error}"
        for group in self._groups:
            kept = [fit for fit in group.fits if fit not in self.errors]
            width = min(JUDGED_TOGETHER, 1 << max(len(kept) - 1, 0).bit_length())
            for first in range(0, len(kept), width):
                fits = kept[first : first + width]
                table.loc[fits, FIGURES] = self._judged(fits, width)
        return table

    def _judged(self, fits: list[int], width: int) -> np.ndarray:
        """Rows of figures of some fits of one shape; fewer than `width` are repeated, for one program to serve all."""
        lanes = [self._at[fit][1:] for fit in fits]
        found = [drawn.of(column) for drawn, column in lanes]
        positions = np.stack([positions for positions, _ in found] + [found[0][0]] * (width - len(fits)), axis=2)
        chains, draws, _, dimension = positions.shape
        with using("float64"):
            judged = summary(positions.reshape(chains, draws, width * dimension), errors=False)
        rows = [
            worst(np.asarray(judged[name]).reshape(width, dimension)[: len(fits)], axis=1)
            for name, worst in (("rhat", np.max), ("ess_bulk", np.min), ("ess_tail", np.min))
        ]
        rows.append(np.array([stats["diverging"].sum() for _, stats in found]))
        rows.append(np.array([stats["acceptance_rate"].mean() for _, stats in found]))
        rows.append(np.array([sum(drawn.seconds.values()) / len(drawn.fits) for drawn, _ in lanes]))
        return np.stack(rows, axis=1)


def _seed_of(seed: int, fit: int) -> int:
    """The seed of what is drawn after a fit: rates of different fits share nothing."""
    return int(np.random.SeedSequence((seed, fit)).generate_state(1, np.uint64)[0])


def sample_many(
    models: Sequence[Any],
    *,
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
    progress: bool | None = None,
) -> Fits:
    """Draws from many independent posteriors, those of one shape in one compiled program.

    Models are of one shape where their log densities are the same function and their data have the same shapes: the
    same class, prior and settings. `PartialPooling` of one population has histograms padded to a common length, which
    changes nothing, so that tables of any lengths are of one shape up to a factor of two in their largest number of
    trials. Programs run on all local devices of a kind, and on a processor on all its cores.

    A fit that fails leaves the others as they are: `Fits.errors` has its error. Each fit has random numbers of its own,
    which follow from the seed and its place in the list and not from what it is fitted together with.

    Args:
        models: of any kinds that `pelton.sample` takes, except log densities with `init`.
        sampler, chains, warmup, draws, seed, target_accept, max_tree_depth, metric, precision, device: as for
            `pelton.sample`, of every fit. 'nuts' runs all chains and fits of a program in one loop.
        progress: whether to show a progress bar; None shows it on a terminal.

    Returns:
        A sequence of trees, in the order of the models and as `pelton.sample` returns them; each is made, judged and
        given its rates when it is asked for, which takes longer than its draws did. `Fits.table()` judges all at once.

    Raises:
        ArgumentError: a setting is out of range, or there are no models.
        ResourceError: the draws would not fit into memory.

    >>> import pelton
    >>> models = [pelton.PartialPooling([9 + i, 22, 31], [138, 72, 157]) for i in range(5)]
    >>> fits = pelton.sample_many(models)
    >>> fits, fits[3]["posterior"]["mu"].shape, fits[3].attrs["status"]
    (Fits(5 fits, 0 failed), (4, 1000), 'converged')
    >>> bool((fits.table().rhat < 1.01).all())
    True
    """
    check_settings(sampler, chains, warmup, draws, seed, target_accept, max_tree_depth)
    models = [adopted(model) for model in models]
    if not models:
        raise ArgumentError("sample_many takes a list of models, and this one is empty")
    asked: dict[str, Any] = {
        "sampler": sampler,
        "chains": chains,
        "warmup": warmup,
        "draws": draws,
        "seed": seed,
        "target_accept": target_accept,
        "max_tree_depth": max_tree_depth,
        "metric": metric,
        "precision": precision,
    }
    shapes, errors = _shapes(models)
    constant: dict[int, dict[str, Any]] = {}
    groups: list[_Group] = []
    for fits, posterior in shapes:
        devices = choose_devices(device, chains * data_size(posterior))
        if posterior.dimension == 0:
            constant |= {
                fit: asked | {"device": device, "progress": False, "seed": _seed_of(seed, fit)} for fit in fits
            }
            continue
        settings = plan(posterior, devices[0].platform, **asked, chain_method="vectorized")
        check_host(posterior, chains, settings.warmup, draws, np.dtype(settings.precision).itemsize)
        groups.append(_Group(fits, posterior, settings))
    with progress_bar(f"{len(models)} fits", len(models), progress) as report:
        for group in groups:
            devices = choose_devices(group.settings.platform, 0)
            workers = cores() if len(devices) == 1 and devices[0].platform == "cpu" else len(devices)
            most = MOST_TOGETHER if devices[0].platform == "cpu" else MOST_ON_ACCELERATOR
            batches = _batches(group, workers, most)
            with ThreadPoolExecutor(workers) as pool:
                for found in pool.map(draw, batches, repeat(group.settings), cycle(devices)):
                    group.drawn += found
                    for drawn in found:
                        errors |= drawn.errors
                    report(len(found[0].fits), "")
    return Fits(models, groups, constant, errors)


def _shapes(models: Sequence[Any]) -> tuple[list[tuple[list[int], Posterior]], dict[int, PeltonError]]:
    """Fits of one shape with the batch of their posteriors, and the errors of those that have none."""
    errors: dict[int, PeltonError] = {}
    known: dict[Hashable, list[int]] = {}
    made: dict[Hashable, list[Posterior]] = {}
    for fit, model in enumerate(models):
        try:
            key = _batch_key(model)
            if key is None:
                posterior = posterior_of(model, (), "sample_many")
                if posterior.batch is not None:
                    raise ModelError(
                        f"model {fit} is a batch of {posterior.batch} fits already ({posterior.batch_dim}); give it to "
                        "pelton.sample by itself"
                    )
                key = _key(posterior)
                made.setdefault(key, []).append(posterior)
            known.setdefault(key, []).append(fit)
        except PeltonError as error:
            errors[fit] = error
    shapes = []
    for key, fits in known.items():
        if key in made:
            shapes.append((fits, stacked(made[key])))
        else:
            shapes.append((fits, models[fits[0]].together([models[fit] for fit in fits])))
    return shapes, errors


def _batch_key(model: Any) -> Hashable | None:
    return model.batch_key if isinstance(model, Batchable) else None


def _key(posterior: Posterior) -> Hashable:
    """Posteriors of one key share their programs."""
    leaves, treedef = jax.tree.flatten(posterior.data)
    shapes = tuple((np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves)
    functions = (posterior.logdensity, posterior.constrain, posterior.start, posterior.hierarchy)
    return functions, treedef, shapes, posterior.dimension, posterior.sampler, posterior.target_accept


def _batches(group: _Group, workers: int, most: int) -> list[Batch]:
    """The fits in batches of one size, a power of two, so that other numbers of fits share their programs."""
    count = len(group.fits)
    size = min(most, 1 << (-(-count // workers) - 1).bit_length())
    return [
        Batch(group.posterior, np.array(group.fits[first : first + size]), first, size)
        for first in range(0, count, size)
    ]
