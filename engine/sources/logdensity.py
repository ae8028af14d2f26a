"""A plain log density of a pytree of unconstrained arrays turned into a Posterior."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from pelton.engine.errors import ArgumentError, ModelError
from pelton.engine.posterior import Posterior
from pelton.engine.precision import choose_precision, using
from pelton.engine.sources.layout import Layout

# Name of a density's only variable, and of the list or tuple that it takes, where the pytree gives none.
ALONE = "x"


@dataclass(frozen=True)
class _Leaves(Layout):
    """The leaves of a pytree in the flat position."""

    treedef: Any

    def tree(self, position: Array) -> Any:
        return jax.tree.unflatten(self.treedef, self.arrays(position))


@dataclass(frozen=True)
class _LogDensity:
    function: Callable
    layout: _Leaves
    has_data: bool

    def __call__(self, position: Array, data: Any) -> Any:
        given = (data["data"],) if self.has_data else ()
        return self.function(self.layout.tree(position), *given)


@dataclass(frozen=True)
class _Constrain:
    layout: _Leaves
    function: Callable | None
    has_data: bool

    def __call__(self, position: Array, data: Any) -> dict[str, Array]:
        values = self.layout.named(position)
        if self.function is None:
            return values
        given = (data["data"],) if self.has_data else ()
        more = self.function(self.layout.tree(position), *given)
        if not isinstance(more, Mapping):
            raise ModelError(f"constrain returns a dict of arrays by name, not {type(more).__name__}")
        return values | {str(name): jnp.asarray(value) for name, value in more.items()}


@dataclass(frozen=True)
class _Jittered:
    jitter: float

    def __call__(self, key: PRNGKeyArray, data: Any) -> Array:
        init = jnp.asarray(data["init"], float)
        return init + jax.random.uniform(key, init.shape, minval=-self.jitter, maxval=self.jitter)


@dataclass(frozen=True)
class _OwnStart:
    function: Callable
    layout: _Leaves
    has_data: bool

    def __call__(self, key: PRNGKeyArray, data: Any) -> Array:
        given = (data["data"],) if self.has_data else ()
        leaves, treedef = jax.tree.flatten(self.function(key, *given))
        shapes = tuple(jnp.shape(leaf) for leaf in leaves)
        if treedef != self.layout.treedef or shapes != self.layout.shapes:
            raise ModelError(
                f"start gives {treedef} with shapes {shapes}, and init is {self.layout.treedef} with shapes "
                f"{self.layout.shapes}; give a start like init"
            )
        return jnp.concatenate([jnp.ravel(jnp.asarray(leaf, float)) for leaf in leaves])


def _name(path: Sequence[Any]) -> str:
    """Keys, fields and indices joined by dots; what has no key or field in front gets `ALONE`."""
    parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", None)))) for key in path]
    if not path or hasattr(path[0], "idx"):
        parts = [ALONE, *parts]
    return ".".join(parts)


def _read(init: Any) -> tuple[_Leaves, np.ndarray]:
    """The layout of a pytree of floating-point arrays, and its numbers.

    Raises:
        ArgumentError: a leaf is no array of finite floating-point numbers, or two have one name.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path(init)
    if not paths:
        raise ArgumentError(f"init holds no array: {init!r}; give the unconstrained values to start from")
    names, arrays = [], []
    for path, leaf in paths:
        name = _name(path)
        array = np.asarray(leaf)
        if array.dtype.kind in "iub":
            raise ArgumentError(
                f"init: {name!r} holds {array.dtype.name} numbers, which have no gradient; write floating-point ones, "
                "such as 1.0"
            )
        # JAX's short floating-point types are of NumPy's kind "V".
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ArgumentError(f"init: {name!r} is no array of floating-point numbers but {array.dtype.name}")
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            at = np.argwhere(~np.isfinite(array))[0].tolist()
            raise ArgumentError(f"init: {name!r} is {array[tuple(at)]} at {at}; start from finite numbers")
        if name in names:
            raise ArgumentError(f"init: two arrays have the name {name!r}; rename a key")
        names.append(name)
        arrays.append(array)
    shapes = tuple(array.shape for array in arrays)
    return _Leaves(tuple(names), shapes, treedef), np.concatenate([array.ravel() for array in arrays])


def _arrays(data: Any) -> Any:
    """The data as NumPy and JAX arrays.

    Raises:
        ArgumentError: a leaf is no array of numbers.
    """

    def array(path: Sequence[Any], leaf: Any) -> Any:
        found = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        if not jnp.issubdtype(found.dtype, jnp.number) and not jnp.issubdtype(found.dtype, jnp.bool_):
            raise ArgumentError(
                f"data{jax.tree_util.keystr(tuple(path))} is {leaf!r}; data are arrays of numbers, and what else a "
                "density needs is bound to it, as by functools.partial of one function kept for all calls"
            )
        return found

    return jax.tree_util.tree_map_with_path(array, data)


def _check(density: _LogDensity, position: np.ndarray, data: Any) -> None:
    """Evaluates the density once, where the sampling starts from.

    Raises:
        ModelError: it is no number, or it or its gradient is not finite.
    """
    layout = density.layout
    with using(choose_precision(None, jax.default_backend())):
        start = jnp.asarray(position, float)
        given = jax.tree.map(jnp.asarray, data)
        found = jax.eval_shape(density, start, given)
        if not hasattr(found, "shape") or found.shape != ():
            raise ModelError(
                f"the log density is one number, and {_called(density.function)} returns "
                f"{'shape ' + str(found.shape) if hasattr(found, 'shape') else type(found).__name__}; add up its terms"
            )
        if not jnp.issubdtype(found.dtype, jnp.floating):
            raise ModelError(
                f"the log density is a floating-point number, and {_called(density.function)} returns {found.dtype}"
            )
        value, gradient = jax.value_and_grad(density)(start, given)
        wrong = [name for name, part in layout.named(gradient).items() if not bool(jnp.all(jnp.isfinite(part)))]
    if not np.isfinite(value):
        raise ModelError(
            f"the log density {_called(density.function)} is {float(value)} at init; start inside the support, and "
            "write constrained parameters by unconstrained ones (an sd as exp(log_sd), with log_sd added to the "
            "density)"
        )
    if wrong:
        raise ModelError(
            f"the gradient of the log density {_called(density.function)} is not finite at init with respect to "
            f"{', '.join(map(repr, wrong))}; a jnp.where over a branch that is not finite does that"
        )


def _called(function: Callable) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def from_logdensity(
    fn: Any,
    init: Any,
    *,
    data: Any = None,
    constrain: Callable[..., Mapping[str, Array]] | None = None,
    start: Callable[..., Any] | None = None,
    jitter: float = 1.0,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> Posterior:
    """The posterior whose log density is a JAX function of a pytree of unconstrained arrays.

    Variables take their names from the pytree: a dict's keys, the fields of a named tuple, the indices of lists and
    tuples, joined by dots where they are nested ("sd.group", "w.0"). An array alone is "x", and the parts of a list or
    tuple at the top are "x.0", "x.1" and so on. The arrays reach the function in the run's precision.

    Programs are compiled for the function as an object, and compiled once. A function defined anew, a fresh lambda or
    a fresh `functools.partial` among them, compiles anew; and what a function closes over is frozen into its programs:
    arrays changed afterwards have no effect. So pass data as `data`: new values of the same shapes compile nothing.

    Args:
        fn: a function, init -> log density up to a constant, or (init, data) -> the same where `data` is given.
        init: pytree of floating-point arrays, all real numbers being allowed: where to start.
        data: pytree of arrays, handed to `fn`, `constrain` and `start` as their last argument.
        constrain: init -> further quantities by name, such as {"sd": jnp.exp(tree["log_sd"])}; one with the name of an
            array of the pytree takes its place in the tree of draws. Computed after sampling.
        start: key -> a pytree like init, dispersed over keys, in place of the jitter.
        jitter: starts are uniform within this distance of init in every coordinate.
        dims: names of the axes of variables.
        coords: labels along the axes.

    Raises:
        ArgumentError: init has no arrays, or integers, or values that are not finite; data are no arrays of numbers;
            jitter is negative.
        ModelError: the density is not one number, or not finite, or without a finite gradient, at init.

    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> def density(tree, y):
    ...     sd = jnp.exp(tree["log_sd"])
    ...     return -0.5 * jnp.sum(((y - tree["mean"]) / sd) ** 2) - y.size * tree["log_sd"] - 0.5 * tree["mean"] ** 2
    >>> posterior = from_logdensity(
    ...     density, {"mean": 0.0, "log_sd": 0.0}, data=np.array([1.0, 3.0, 2.0]),
    ...     constrain=lambda tree, y: {"sd": jnp.exp(tree["log_sd"])},
    ... )
    >>> posterior.dimension
    2
    >>> from_logdensity(density, {"mean": 0, "log_sd": 0.0}, data=np.ones(3))
    Traceback (most recent call last):
        ...
    pelton.engine.errors.ArgumentError: init: 'mean' holds int64 numbers, which have no gradient; write floating-point \
ones, such as 1.0
    """
    if not callable(fn):
        raise ArgumentError(f"a log density is a function of init, not {type(fn).__name__}")
    if not jitter >= 0 or not np.isfinite(jitter):
        raise ArgumentError(f"jitter is a finite distance of at least 0, not {jitter!r}")
    layout, position = _read(init)
    has_data = data is not None
    # The start is data too, so that another init compiles nothing.
    everything = {"init": position, "data": _arrays(data)}
    density = _LogDensity(fn, layout, has_data)
    _check(density, position, everything)
    return Posterior(
        dimension=layout.dimension,
        logdensity=density,
        constrain=_Constrain(layout, constrain, has_data),
        start=_Jittered(float(jitter)) if start is None else _OwnStart(start, layout, has_data),
        data=everything,
        dims=dict(dims or {}),
        coords=dict(coords or {}),
    )
