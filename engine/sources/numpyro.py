"""A NumPyro model turned into a Posterior, its data passed as arguments."""

import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import constrain_fn, potential_energy

from pelton.engine.errors import ModelError
from pelton.engine.posterior import Posterior


def _bind_submodules() -> None:
    """Makes numpyro.distributions whole again where it was loaded twice.

    ArviZ loads NumPyro lazily; if `numpyro.distributions` is the first thing asked of that lazy module, Python runs the
    package twice, and the second run finds its submodules loaded already and does not bind them, so that
    `numpyro.factor` fails for want of `numpyro.distributions.distribution`.
    """
    for name, module in list(sys.modules.items()):
        parent, _, child = name.rpartition(".")
        if parent == "numpyro.distributions" and not hasattr(sys.modules[parent], child):
            setattr(sys.modules[parent], child, module)


_bind_submodules()

# Starts are uniform on (-2, 2) in the unconstrained space, as in Stan and NumPyro.
START_RADIUS = 2.0


@dataclass(frozen=True)
class _Arguments:
    """How a call's leaves divide: arrays are data, everything else is part of the model."""

    treedef: Any
    fixed: tuple[Hashable, ...]

    @classmethod
    def split(cls, args: tuple, kwargs: dict) -> tuple["_Arguments", list[Any]]:
        leaves, treedef = jax.tree.flatten((args, kwargs))
        is_array = [isinstance(leaf, np.ndarray | jax.Array | np.generic) for leaf in leaves]
        fixed = tuple(_DATA if array else leaf for leaf, array in zip(leaves, is_array, strict=True))
        return cls(treedef, fixed), [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]

    def join(self, data: Sequence[Any]) -> tuple[tuple, dict]:
        arrays = iter(data)
        leaves = [next(arrays) if leaf is _DATA else leaf for leaf in self.fixed]
        return jax.tree.unflatten(self.treedef, leaves)


class _Data:
    """Marks the place of an array among a call's leaves."""

    def __repr__(self) -> str:
        return "<data>"


_DATA = _Data()


@dataclass(frozen=True)
class _Layout:
    """Where each latent's unconstrained value lies in the flat position."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def dimension(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def unravel(self, position: Array) -> dict[str, Array]:
        values, at = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            size = int(np.prod(shape))
            values[name] = position[at : at + size].reshape(shape)
            at += size
        return values


@dataclass(frozen=True)
class _LogDensity:
    model: Callable
    arguments: _Arguments
    layout: _Layout

    def __call__(self, position: Array, data: Any) -> Array:
        args, kwargs = self.arguments.join(data)
        return -potential_energy(self.model, args, kwargs, self.layout.unravel(position))  # pyright: ignore


@dataclass(frozen=True)
class _Constrain:
    model: Callable
    arguments: _Arguments
    layout: _Layout
    keep: tuple[str, ...]

    def __call__(self, position: Array, data: Any) -> dict[str, Array]:
        args, kwargs = self.arguments.join(data)
        values = constrain_fn(self.model, args, kwargs, self.layout.unravel(position), return_deterministic=True)
        return {name: values[name] for name in self.keep}


@dataclass(frozen=True)
class _Start:
    dimension: int

    def __call__(self, key: PRNGKeyArray, data: Any) -> Array:
        del data
        return jax.random.uniform(key, (self.dimension,), minval=-START_RADIUS, maxval=START_RADIUS)


@dataclass(frozen=True)
class _ModelStart:
    """A start that takes the model's own arguments and names its latents' unconstrained values."""

    start: Callable
    arguments: _Arguments
    layout: _Layout

    def __call__(self, key: PRNGKeyArray, data: Any) -> Array:
        args, kwargs = self.arguments.join(data)
        values = self.start(key, *args, **kwargs)
        missing = set(self.layout.names) ^ set(values)
        if missing:
            raise ModelError(f"the start and the model's latents differ in {', '.join(sorted(missing))}")
        pieces = [
            jnp.broadcast_to(jnp.asarray(values[name], float), shape).ravel()
            for name, shape in zip(self.layout.names, self.layout.shapes, strict=True)
        ]
        return jnp.concatenate(pieces) if pieces else jnp.zeros(0)


def _describe(model: Callable, arguments: _Arguments, data: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """The model's sites, traced abstractly: nothing is computed or compiled."""
    found: dict[str, dict[str, Any]] = {}

    def trace(key: PRNGKeyArray, data: Sequence[Any]) -> int:
        args, kwargs = arguments.join(data)
        # An improper prior cannot be drawn from; a value for it is made up, as NumPyro's own initialisation does.
        seeded = handlers.substitute(handlers.seed(model, key), substitute_fn=init_to_uniform)
        for name, site in handlers.trace(seeded).get_trace(*args, **kwargs).items():
            kind = site["type"]
            if kind == "sample":
                function = site["fn"]
                latent = not site["is_observed"]
                if latent and function.support.is_discrete:
                    raise ModelError(
                        f"latent variable {name!r} is discrete ({type(function).__name__}); NUTS needs continuous "
                        "latents: marginalise it, or observe it"
                    )
                found[name] = {
                    "kind": "latent" if latent else "observed",
                    "shape": tuple(jnp.shape(site["value"])),
                    "unconstrained": tuple(biject_to(function.support).inverse_shape(jnp.shape(site["value"])))
                    if latent
                    else None,
                    "plates": {frame.dim: frame.name for frame in site["cond_indep_stack"]},
                    "event": len(function.event_shape),
                }
            elif kind == "deterministic":
                found[name] = {
                    "kind": "deterministic",
                    "shape": tuple(jnp.shape(site["value"])),
                    "plates": {},
                    "event": 0,
                }
        return 0

    jax.eval_shape(trace, jax.eval_shape(lambda: jax.random.key(0)), data)
    return found


def _dims(site: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A plate names its axis; an axis without a plate is named after its variable."""
    rank, event = len(site["shape"]), site["event"]
    names = [f"{name}_dim_{axis}" for axis in range(rank)]
    for dim, plate in site["plates"].items():
        axis = rank - event + dim
        if 0 <= axis < rank:
            names[axis] = plate
    return tuple(names)


def from_numpyro(
    model: Callable,
    *args: Any,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Hashable]] | None = None,
    start: Callable[..., Mapping[str, Array]] | None = None,
    keep: Sequence[str] | None = None,
    batch: int | None = None,
    **kwargs: Any,
) -> Posterior:
    """The posterior of a NumPyro model with continuous latents.

    Array arguments are data: a call with other arrays of the same shapes reuses every compiled program. Anything else
    among the arguments is part of the model. The flat position holds the latents' unconstrained values in the order of
    their names; its log density is the model's with the log Jacobian of NumPyro's transforms.

    Args:
        model: the model.
        *args, **kwargs: its arguments.
        dims: names of the axes of variables, where plates do not name them.
        coords: labels along the axes.
        start: (key, *args, **kwargs) -> the unconstrained value of every latent by name, each of its latent's shape or
            broadcasting to it; uniform on (-2, 2) in every coordinate when absent.
        keep: variables to keep in the tree; every latent and deterministic when absent.
        batch: every array argument has a leading axis of this length: so many independent posteriors.

    Raises:
        ModelError: a latent is discrete.

    >>> import numpy as np, numpyro, numpyro.distributions as dist
    >>> def model(y):
    ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    ...     numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
    >>> from_numpyro(model, np.array([0.3, 0.1])).dimension
    1
    """
    arguments, data = _Arguments.split(args, kwargs)
    one = data if batch is None else [leaf[0] for leaf in data]
    sites = _describe(model, arguments, one)
    latents = sorted(name for name, site in sites.items() if site["kind"] == "latent")
    layout = _Layout(tuple(latents), tuple(sites[name]["unconstrained"] for name in latents))
    variables = latents + [name for name, site in sites.items() if site["kind"] == "deterministic"]
    kept = tuple(variables if keep is None else keep)
    return Posterior(
        dimension=layout.dimension,
        logdensity=_LogDensity(model, arguments, layout),
        constrain=_Constrain(model, arguments, layout, kept),
        start=_Start(layout.dimension) if start is None else _ModelStart(start, arguments, layout),
        data=data,
        dims={name: _dims(sites[name], name) for name in kept} | dict(dims or {}),
        coords=dict(coords or {}),
        batch=batch,
    )
