"""Draws turned into a DataTree in ArviZ's schema."""

import functools
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import xarray as xr

from pelton.engine.diagnostics import Judgement, diagnose, warn
from pelton.engine.posterior import Posterior


@dataclass(frozen=True)
class Draws:
    """Variables and statistics [chain, draw, ...] of the sampling phase, and of the warm-up where it was kept."""

    values: Mapping[str, np.ndarray]
    stats: Mapping[str, np.ndarray]
    warmup_values: Mapping[str, np.ndarray] | None
    warmup_stats: Mapping[str, np.ndarray] | None


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("pelton", "jax", "jaxlib", "numpyro", "blackjax", "arviz", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def dataset(
    values: Mapping[str, Any],
    dims: Mapping[str, Any],
    coords: Mapping[str, Any],
    leading: tuple[str, ...] = ("chain", "draw"),
) -> xr.Dataset:
    """Arrays with leading sample axes as a Dataset; axes without a name of their own are named after the variable."""
    variables: dict[str, Any] = {}
    used: dict[str, int] = {}
    for name, value in values.items():
        array = np.asarray(value)
        rest = list(dims.get(name, ()))
        missing = array.ndim - len(leading) - len(rest)
        names = [*leading, *rest, *(f"{name}_dim_{axis}" for axis in range(missing))]
        variables[name] = (names, array)
        used.update(zip(names, array.shape, strict=True))
    labels = {dim: coords.get(dim, np.arange(size)) for dim, size in used.items()}
    return xr.Dataset(variables, {dim: np.asarray(label) for dim, label in labels.items()})


def assemble(posterior: Posterior, draws: Draws) -> xr.DataTree:
    """The groups of a run."""
    leading = ("chain", "draw", *posterior.batch_dims)
    groups = {
        "posterior": dataset(draws.values, posterior.dims, posterior.coords, leading),
        "sample_stats": dataset(draws.stats, {}, posterior.coords, leading),
    }
    if draws.warmup_values is not None and draws.warmup_stats is not None:
        groups["warmup_posterior"] = dataset(draws.warmup_values, posterior.dims, posterior.coords, leading)
        groups["warmup_sample_stats"] = dataset(draws.warmup_stats, {}, posterior.coords, leading)
    if posterior.observed:
        groups["observed_data"] = dataset(posterior.observed, posterior.dims, posterior.coords, ())
    if posterior.constant:
        groups["constant_data"] = dataset(posterior.constant, posterior.dims, posterior.coords, ())
    return xr.DataTree.from_dict(groups)


def judge(
    tree: xr.DataTree,
    posterior: Posterior,
    *,
    attrs: Mapping[str, Any],
    remarks: Sequence[str] = (),
    by: Callable[[xr.DataTree], Judgement] | None = None,
) -> xr.DataTree:
    """The tree with its attributes, judged and, where it failed, warned of.

    Args:
        tree: the groups of a run, or of an approximation.
        posterior: what was drawn from.
        attrs: of the tree.
        remarks: what else speaks against the chains.
        by: tells whether the draws can be trusted; by default, whether the chains converged.
    """
    tree.attrs.update(attrs)
    if by is None:
        diagnosis = diagnose(tree)
        judgement: Judgement = replace(diagnosis, problems=(*remarks, *diagnosis.problems))
    else:
        judgement = by(tree)
    tree.attrs.update(
        {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "inference_library": "pelton",
            "inference_library_version": versions()["pelton"],
            "versions": " ".join(f"{name}={number}" for name, number in versions().items()),
            **attrs,
            **posterior.attrs,
            **judgement.attrs(),
        }
    )
    for name in ("posterior", "sample_stats"):
        tree[name].attrs.update(tree.attrs)
    warn(judgement)
    return tree
