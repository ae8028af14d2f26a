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
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import compute_log_probs, constrain_fn, potential_energy

from pelton.engine.errors import ArgumentError, ModelError, UnknownNameError
from pelton.engine.posterior import Named, Posterior
from pelton.engine.precision import using
from pelton.engine.sources.layout import Layout
from pelton.engine.sources.numpyro_sites import describe


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
        paths, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs))
        leaves = [leaf for _, leaf in paths]
        is_array = [isinstance(leaf, np.ndarray | jax.Array | np.generic) for leaf in leaves]
        for (path, leaf), array in zip(paths, is_array, strict=True):
            if not array:
                _check_hashable(path, leaf)
        fixed = tuple(_DATA if array else leaf for leaf, array in zip(leaves, is_array, strict=True))
        return cls(treedef, fixed), [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]

    def join(self, data: Sequence[Any]) -> tuple[tuple, dict]:
        arrays = iter(data)
        leaves = [next(arrays) if leaf is _DATA else leaf for leaf in self.fixed]
        return jax.tree.unflatten(self.treedef, leaves)


def _check_hashable(path: Sequence[Any], leaf: Any) -> None:
    """What is no array is part of the model, by which programs are found again."""
    try:
        hash(leaf)
    except TypeError:
        where = f"argument {path[1].idx}" if path[0].idx == 0 else f"argument {path[1].key!r}"
        advice = "give its values as an array, by .to_numpy()" if hasattr(leaf, "to_numpy") else "give an array"
        raise ArgumentError(
            f"{where} of the model is a {type(leaf).__name__}, which cannot be hashed; {advice}"
        ) from None


class _Data:
    """Marks the place of an array among a call's leaves."""

    def __repr__(self) -> str:
        return "<data>"


_DATA = _Data()


@dataclass(frozen=True)
class _Model:
    """A model with the arguments that are no data, and its latents' layout; what the functions of a Posterior share.

    Attributes:
        discrete: names of the latents that are summed over.
        plate_depth: axes from the right that plates take; those of the sums come before them.
    """

    model: Callable
    arguments: _Arguments
    layout: Layout
    discrete: tuple[str, ...] = ()
    plate_depth: int = 0

    def latents(self, position: Array, data: Any) -> Named:
        """The continuous latents' values."""
        args, kwargs = self.arguments.join(data)
        model = handlers.seed(self.model, 0) if self.discrete else self.model
        return constrain_fn(model, args, kwargs, self.layout.named(position))

    def values(self, key: PRNGKeyArray, position: Array, data: Any) -> Named:
        """The latents' values, discrete ones drawn given the continuous ones and the data."""
        values = self.latents(position, data)
        if not self.discrete:
            return values
        from numpyro.contrib.funsor import config_enumerate, infer_discrete

        args, kwargs = self.arguments.join(data)
        known = config_enumerate(handlers.substitute(self.model, data=values))
        drawn = infer_discrete(known, first_available_dim=-self.plate_depth - 1, temperature=1, rng_key=key)
        sites = handlers.trace(handlers.seed(drawn, key)).get_trace(*args, **kwargs)
        return values | {name: sites[name]["value"] for name in self.discrete}

    def trace(self, handler: Callable[[Callable], Callable], data: Any) -> dict[str, dict[str, Any]]:
        """The model's sites, run under a handler."""
        args, kwargs = self.arguments.join(data)
        return handlers.trace(handler(self.model)).get_trace(*args, **kwargs)


@dataclass(frozen=True)
class _LogDensity:
    of: _Model

    def __call__(self, position: Array, data: Any) -> Array:
        args, kwargs = self.of.arguments.join(data)
        model, summed = self.of.model, bool(self.of.discrete)
        if summed:
            from numpyro.contrib.funsor import config_enumerate, enum

            model = enum(config_enumerate(model), -self.of.plate_depth - 1)
        return -potential_energy(model, args, kwargs, self.of.layout.named(position), enum=summed)  # pyright: ignore


@dataclass(frozen=True)
class _Constrain:
    of: _Model
    keep: tuple[str, ...]
    drawn: bool

    def __call__(self, position: Array, data: Any) -> Named:
        if not self.drawn:
            args, kwargs = self.of.arguments.join(data)
            model = handlers.seed(self.of.model, 0) if self.of.discrete else self.of.model
            unconstrained = self.of.layout.named(position)
            values = constrain_fn(model, args, kwargs, unconstrained, return_deterministic=not self.of.discrete)
            return {name: values[name] for name in self.keep}
        values = self.of.values(_key_of(position), position, data)
        sites = self.of.trace(lambda model: handlers.seed(handlers.substitute(model, data=values), 0), data)
        return {name: sites[name]["value"] for name in self.keep}


def _key_of(position: Array) -> PRNGKeyArray:
    """A key from the bits of a position, for draws that depend on nothing else."""
    bits = jax.lax.bitcast_convert_type(position, jnp.uint32).ravel()
    odd = 2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1
    mixed = (bits ^ (bits >> 15)) * jnp.uint32(2654435761)
    mixed = (mixed ^ (mixed >> 13)) * odd
    return jax.random.wrap_key_data(jnp.stack([jnp.sum(mixed), jnp.sum(mixed ^ (mixed << 7))]).astype(jnp.uint32))


@dataclass(frozen=True)
class _LogLikelihood:
    of: _Model
    observed: tuple[str, ...]

    def __call__(self, position: Array, data: Any) -> Named:
        values = self.of.latents(position, data)
        sites = self.of.trace(lambda model: handlers.substitute(model, data=values), data)
        return {name: sites[name]["fn"].log_prob(sites[name]["value"]) for name in self.observed}


@dataclass(frozen=True)
class _Predict:
    of: _Model
    observed: tuple[str, ...]

    def __call__(self, key: PRNGKeyArray, position: Array, data: Any) -> Named:
        key_latents, key_observed = jax.random.split(key)
        values = self.of.values(key_latents, position, data)
        sites = _drawn_afresh(self.of, values, key_observed, data)
        return {name: sites[name]["value"] for name in self.observed}


@dataclass(frozen=True)
class _Prior:
    of: _Model
    keep: tuple[str, ...]
    observed: tuple[str, ...]

    def __call__(self, key: PRNGKeyArray, data: Any) -> tuple[Named, Named]:
        sites = _drawn_afresh(self.of, {}, key, data)
        values = {name: site["value"] for name, site in sites.items() if name in {*self.keep, *self.observed}}
        return {name: values[name] for name in self.keep}, {name: values[name] for name in self.observed}


def _drawn_afresh(of: _Model, values: Named, key: PRNGKeyArray, data: Any) -> dict[str, dict[str, Any]]:
    """The model's sites, those without a value drawn, the observed ones among them.

    Raises:
        ModelError: a distribution has no draws.
    """
    try:
        return of.trace(
            lambda model: handlers.seed(handlers.uncondition(handlers.substitute(model, data=values)), key), data
        )
    except NotImplementedError as error:
        raise ModelError(
            f"one of this model's distributions cannot be drawn from ({error or 'it has no sample method'}); leave out "
            "the groups that need its draws, or give the variable a distribution that has some"
        ) from error


@dataclass(frozen=True)
class _Explain:
    of: _Model

    def __call__(self, position: Array, data: Any) -> Named:
        args, kwargs = self.of.arguments.join(data)
        # Discrete latents, which are no part of a position, take a draw from their prior.
        model = handlers.seed(self.of.model, 0)
        return compute_log_probs(model, args, kwargs, self.of.latents(position, data))[0]


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
    layout: Layout

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


def _observed_values(of: _Model, names: Sequence[str], data: Sequence[Any]) -> dict[str, Any]:
    """Values of the observed variables: arguments of the model as they are, others computed.

    What is computed from latents is no data and left out.
    """
    arguments: dict[str, int] = {}

    def computed(key: PRNGKeyArray, data: Sequence[Any]) -> Named:
        def seeded(model: Callable) -> Callable:
            return handlers.substitute(handlers.seed(model, key), substitute_fn=init_to_uniform)

        sites = of.trace(seeded, data) if names else {}
        values = {name: sites[name]["value"] for name in names}
        for name, value in values.items():
            places = [at for at, leaf in enumerate(data) if leaf is value]
            if places:
                arguments[name] = places[0]
        return {name: jnp.asarray(value) for name, value in values.items() if name not in arguments}

    with using("float64"):
        arrays = jax.tree.map(jnp.asarray, list(data))
        rest = jax.eval_shape(computed, jax.random.key(0), arrays)
        found = {}
        if rest:
            one, two = (jax.tree.map(np.asarray, jax.jit(computed)(jax.random.key(seed), arrays)) for seed in (0, 1))
            found = {name: one[name] for name in rest if np.array_equal(one[name], two[name], equal_nan=True)}
    return found | {name: np.asarray(data[at]) for name, at in arguments.items()}


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
    """The posterior of a NumPyro model.

    Array arguments are data: a call with other arrays of the same shapes reuses every compiled program. Anything else
    among the arguments is part of the model, by value; the model itself is known as the function that it is. The flat
    position holds the latents' unconstrained values in the order of their names; its log density is the model's with
    the log Jacobian of NumPyro's transforms, masks, scales and factors included.

    Discrete latents are summed over where the package funsor is installed and their values are finite in number; the
    tree holds draws of them given the other latents, made after sampling.

    `sample(groups=)` adds "log_likelihood" (of each observed variable, of each event; scales and factors left out, as
    NumPyro's `log_likelihood` leaves them out; not where latents are summed over), "posterior_predictive", "prior" and
    "prior_predictive" (observed variables drawn anew).

    Args:
        model: the model.
        *args, **kwargs: its arguments.
        dims: names of the axes of variables, where plates do not name them.
        coords: labels along the axes.
        start: (key, *args, **kwargs) -> the unconstrained value of every continuous latent by name, each of its
            latent's shape or broadcasting to it; uniform on (-2, 2) in every coordinate when absent.
        keep: variables to keep in the tree; every latent and deterministic when absent.
        batch: every array argument has a leading axis of this length: so many independent posteriors. Their tree has no
            group observed_data.

    Raises:
        ModelError: a latent is discrete and cannot be summed over, a plate takes a random part of its members, a
            number is to be optimised (`numpyro.param`), or the model fails; the message names the variable.
        ArgumentError: an argument is neither an array nor hashable.
        UnknownNameError: `keep` names no variable of the model.

    >>> import numpy as np, numpyro, numpyro.distributions as dist
    >>> def model(y):
    ...     mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    ...     with numpyro.plate("day", len(y)):
    ...         numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)
    >>> posterior = from_numpyro(model, np.array([0.3, 0.1]))
    >>> posterior.dimension, posterior.extra_groups
    (1, ('prior', 'prior_predictive', 'posterior_predictive', 'log_likelihood'))
    """
    arguments, data = _Arguments.split(args, kwargs)
    one = data if batch is None else [leaf[0] for leaf in data]
    sites = describe(model, arguments.join, one)
    latents = sorted(sites.names("latent"))
    layout = Layout(tuple(latents), tuple(sites.by_name[name].unconstrained for name in latents))
    discrete = tuple(sites.names("discrete"))
    of = _Model(model, arguments, layout, discrete, sites.plate_depth)
    derived = [*discrete, *sites.names("deterministic")]
    variables = latents + derived
    for name in keep or ():
        if name not in variables:
            raise UnknownNameError("variable", name, variables)
    kept = tuple(variables if keep is None else keep)
    constrain = _Constrain(of, kept, drawn=bool(discrete) and any(name in derived for name in kept))
    if discrete:
        _check_summed(of, constrain, one)
    observed = tuple(name for name in sites.names("observed") if sites.by_name[name].shape is not None)
    pointwise = tuple(sites.names("observed"))
    return Posterior(
        dimension=layout.dimension,
        logdensity=_LogDensity(of),
        constrain=constrain,
        start=_Start(layout.dimension) if start is None else _ModelStart(start, arguments, layout),
        data=data,
        dims={name: sites.by_name[name].dims(name) for name in (*kept, *observed)} | dict(dims or {}),
        coords=dict(coords or {}),
        # A tree's data have no axis of a batch.
        observed=_observed_values(of, observed, data) if batch is None else {},
        batch=batch,
        loglikelihood=_LogLikelihood(of, pointwise) if pointwise and not discrete else None,
        predict=_Predict(of, observed) if observed else None,
        prior=_Prior(of, kept, observed),
        explain=_Explain(of),
    )


def _check_summed(of: _Model, constrain: _Constrain, data: Sequence[Any]) -> None:
    """Traces what funsor makes of a model.

    Raises:
        ModelError: it cannot sum over the discrete latents, or cannot draw them.
    """
    position = jax.ShapeDtypeStruct((of.layout.dimension,), jnp.result_type(float))
    names = ", ".join(map(repr, of.discrete))
    for what, function, remedy in (
        ("summed over", _LogDensity(of), "sum them out of the model"),
        ("drawn after sampling", constrain, f"leave them out of the tree by keep={[*of.layout.names]!r}"),
    ):
        try:
            jax.eval_shape(function, position, data)
        except Exception as error:
            raise ModelError(
                f"the discrete latents {names} cannot be {what} by funsor ({type(error).__name__}: {error}); {remedy}"
            ) from error
