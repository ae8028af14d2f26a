"""What makes a model and its data the same as those that a run was begun with."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from pelton.engine.errors import StoreError
from pelton.engine.posterior import Posterior
from pelton.engine.results import dataset, versions

# Where an object lies in memory is no part of a program.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def identity(posterior: Posterior) -> dict[str, Any]:
    """A posterior by its log density's program, its variables and its data, as plain values.

    The program is that which JAX traces, its constants included: another prior or another formula is another program.
    It is comparable between processes with the same versions.

    >>> import pelton
    >>> one = pelton.PartialPooling([9, 22, 31], [138, 72, 157]).posterior()
    >>> other = pelton.PartialPooling([9, 22, 32], [138, 72, 157]).posterior()
    >>> identity(one)["program"] == identity(other)["program"], identity(one)["data"] == identity(other)["data"]
    (True, False)
    """
    data = jax.tree.map(np.asarray, posterior.data)
    leaves = jax.tree_util.tree_flatten_with_path(data)[0]
    return {
        "program": _program(posterior, data),
        "dimension": posterior.dimension,
        "data": {jax.tree_util.keystr(path): _digest(leaf) for path, leaf in leaves},
        "versions": versions(),
    }


def _program(posterior: Posterior, data: Any) -> str:
    """A digest of the log density's program."""
    if posterior.dimension == 0:
        return ""
    batched = posterior.batch is not None
    shapes = jax.tree.map(lambda leaf: jax.eval_shape(jnp.asarray, leaf[0] if batched else leaf), data)
    position = jax.ShapeDtypeStruct((posterior.dimension,), jnp.result_type(float))
    closed = jax.make_jaxpr(posterior.logdensity)(position, shapes)
    digest = hashlib.sha256(_ADDRESS.sub("", str(closed.jaxpr)).encode())
    for constant in closed.consts:
        digest.update(_digest(np.asarray(constant)).encode())
    return digest.hexdigest()


def _digest(array: np.ndarray) -> str:
    """Shape, type and SHA-256 of an array's values."""
    data = np.ascontiguousarray(array)
    text = repr(data.tolist()).encode() if data.dtype.hasobject else data.tobytes()
    return f"{data.shape} {data.dtype} {hashlib.sha256(text).hexdigest()}"


def check_identity(path: str, stored: Mapping[str, Any], posterior: Posterior, tree: xr.DataTree) -> tuple[str, ...]:
    """Refuses to go on with another model or other data than a run was begun with.

    Args:
        path: of the run, for messages.
        stored: the identity that it was begun with.
        posterior: to go on with.
        tree: the run's, whose observed and constant data are compared first, since they have names.

    Returns:
        What differs without standing in the way, in words.

    Raises:
        StoreError: with the first difference.
    """
    begun = f"the run in {path!r} was begun with other data"
    for group, values in (("observed_data", posterior.observed), ("constant_data", posterior.constant)):
        if group not in tree.children:
            # Cut short before there was a tree: the arrays themselves are compared below.
            continue
        now = dataset(values, posterior.dims, posterior.coords, ())
        before = tree[group].to_dataset()
        if (difference := _difference(before, now)) is not None:
            raise StoreError(f"{begun}: {difference}; give it the same, or begin another run")
    found = identity(posterior)
    for where, digest in found["data"].items():
        if (was := stored["data"].get(where)) != digest:
            what = "is new" if was is None else "has other values"
            kinds = [text.rpartition(" ")[0] for text in (was or digest, digest)]
            if kinds[0] != kinds[1]:
                what = f"was {kinds[0]} and is {kinds[1]}"
            raise StoreError(f"{begun}: the array {where} that the density reads {what}; give it the same")
    if set(stored["data"]) != set(found["data"]):
        raise StoreError(f"{begun}: {', '.join(sorted(set(stored['data']) - set(found['data'])))} is missing")
    if stored["dimension"] != found["dimension"]:
        raise StoreError(
            f"the run in {path!r} was begun with a model of {stored['dimension']} unknowns, and this one has "
            f"{found['dimension']}; give it the same model, or begin another run"
        )
    changed = [
        f"{name} {was} is {found['versions'].get(name)} now"
        for name, was in stored["versions"].items()
        if found["versions"].get(name) != was
    ]
    if not changed and stored["program"] != found["program"]:
        raise StoreError(
            f"the run in {path!r} was begun with another model: its log density has another formula or other priors; "
            "give it the same model, or begin another run"
        )
    return tuple(changed)


def _difference(before: xr.Dataset, now: xr.Dataset) -> str | None:
    """The first difference between two groups of data, in words."""
    for name in sorted({*map(str, before.variables), *map(str, now.variables)}):
        if name not in before.variables:
            return f"{name!r} is new"
        if name not in now.variables:
            return f"{name!r} is missing"
        was, value = np.asarray(before[name]), np.asarray(now[name])
        if was.shape != value.shape:
            return f"{name!r} had the shape {was.shape} and has {value.shape}"
        floating = was.dtype.kind == "f" and value.dtype.kind == "f"
        same = (was == value) | ((was != was) & (value != value)) if floating else was == value
        if not np.all(same):
            at = tuple(int(i) for i in np.argwhere(~np.atleast_1d(same))[0])[: was.ndim]
            where = f"[{', '.join(str(i) for i in at)}]" if at else ""
            return f"{name}{where} was {was[at]} and is {value[at]}"
    return None
