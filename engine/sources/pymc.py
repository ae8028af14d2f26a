"""A PyMC model turned into a Posterior, its data passed as arguments."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pymc as pm
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from pymc.backends.arviz import coords_and_dims_for_inferencedata, find_constants, find_observations
from pymc.initial_point import make_initial_point_fn
from pymc.model.core import BaseModel
from pymc.model.transform.optimization import freeze_dims_and_data
from pymc.util import get_default_varnames

from pelton.engine.errors import ModelError, UnknownNameError
from pelton.engine.posterior import Posterior
from pelton.engine.sources.layout import Layout
from pelton.engine.sources.pytensor import Arrays, Graph, graph_of, random_inputs, traced

# PyMC's: a chain starts from the model's initial point, moved by up to so much in every coordinate.
JITTER = 1.0
# Starts drawn of a model whose initial values are themselves random.
RANDOM_STARTS = 64
# ZeroSumNormal's check of its own transform, to 1e-9: it holds by construction, but not to that in float32.
UNCHECKED = ("mean(value, axis=n_zerosum_axes) = 0",)
# PyTensor's rewrite of a parameter out of its range to a log density of minus infinity.
CHECKED = "local_check_parameter_to_ninf_switch"


@dataclass(frozen=True)
class _LogDensity:
    graph: Graph
    layout: Layout

    def __call__(self, position: Float[Array, " dimension"], data: Any) -> Float[Array, ""]:
        (value,) = self.graph(self.layout.arrays(position), data["arrays"], position.dtype.name)
        return jnp.asarray(value, position.dtype).reshape(())


@dataclass(frozen=True)
class _Constrain:
    graph: Graph
    layout: Layout
    names: tuple[str, ...]

    def __call__(self, position: Float[Array, " dimension"], data: Any) -> dict[str, Array]:
        values = self.graph(self.layout.arrays(position), data["arrays"], position.dtype.name)
        return {name: jnp.asarray(value) for name, value in zip(self.names, values, strict=True)}


@dataclass(frozen=True)
class _Start:
    jitter: bool

    def __call__(self, key: PRNGKeyArray, data: Any) -> Float[Array, " dimension"]:
        points = jnp.asarray(data["points"], jnp.result_type(float))
        key_point, key_jitter = jax.random.split(key)
        point = points[jax.random.randint(key_point, (), 0, points.shape[0])]
        if not self.jitter:
            return point
        return point + jax.random.uniform(key_jitter, point.shape, point.dtype, -JITTER, JITTER)


@dataclass(frozen=True, eq=False)
class _Explain:
    """The terms of the log density by the model's variables; their graph is made when a run has found no start."""

    model: BaseModel
    layout: Layout
    values: tuple[Any, ...]

    def __call__(self, position: Float[Array, " dimension"], data: Any) -> dict[str, Array]:
        del data
        factors = [*self.model.basic_RVs, *self.model.potentials]
        arrays = Arrays()
        terms = [term.sum() for term in self.model.logp(factors, sum=False)]
        graph = graph_of(self.values, terms, arrays, [CHECKED], UNCHECKED)
        found = graph(
            self.layout.arrays(position), [jnp.asarray(array) for array in arrays.values], position.dtype.name
        )
        return {factor.name: jnp.asarray(term) for factor, term in zip(factors, found, strict=True)}


def _check(model: BaseModel) -> None:
    """Refuses what NUTS cannot draw."""
    if not model.free_RVs:
        raise ModelError("the PyMC model has no free variables, so there is nothing to sample")
    discrete = [variable.name for variable in model.free_RVs if np.dtype(variable.dtype).kind not in "f"]
    if discrete:
        raise ModelError(
            f"latent variables of the PyMC model are discrete: {', '.join(map(repr, discrete))}; NUTS needs continuous "
            "latents: marginalise them (pymc_extras.marginalize), observe them, or sample the model with pm.sample"
        )


def _frozen(model: BaseModel) -> BaseModel:
    """The model with the lengths of its dimensions and its data as they are now."""
    try:
        return freeze_dims_and_data(model)
    except NotImplementedError:
        # Initial values that are graphs cannot be carried over; the log density can be had without.
        return model


def _points(model: BaseModel, initvals: Mapping[Any, Any] | None, layout: Layout) -> np.ndarray:
    """Where chains start, without the jitter [point, dimension]: one point, or many where they are random."""
    try:
        draw = make_initial_point_fn(model=model, overrides=dict(initvals or {}))
    except KeyError as error:
        raise UnknownNameError("variable in initvals", error.args[0], [v.name for v in model.free_RVs]) from error
    points = np.stack([layout.flat(draw(seed)) for seed in range(2)])
    if np.array_equal(points[0], points[1], equal_nan=True):
        return points[:1]
    return np.stack([layout.flat(draw(seed)) for seed in range(RANDOM_STARTS)])


def _dims(model: BaseModel) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The model's coords and dims, an axis without a name being named after its variable."""
    coords, dims = coords_and_dims_for_inferencedata(model)
    return coords, {
        name: [f"{name}_dim_{axis}" if dim is None else dim for axis, dim in enumerate(names)]
        for name, names in dims.items()
    }


def from_pymc(
    model: BaseModel,
    *,
    initvals: Mapping[Any, Any] | None = None,
    jitter: bool = True,
    keep: Sequence[str] | None = None,
) -> Posterior:
    """The posterior of a PyMC model with continuous latents.

    The model's log density, with its transforms' log Jacobians and its potentials, is compiled to JAX by PyTensor. The
    flat position holds the value variables in the order of `model.free_RVs`; nothing else is computed while chains run,
    and deterministics are computed from the draws.

    `pm.Data` and observed values count as they are now. What depends on them alone is computed once; the arrays that
    remain, data and design matrices among them, are leaves of the posterior's data. The callables are equal for models
    of equal graphs: a model built anew with other data of the same shapes reuses every compiled program, unless
    PyTensor simplified the graph by the data's values (a column of zeros, say), in which case it is compiled afresh.
    Numbers that stand alone, such as the constants of priors, are part of the graph.

    float64 and float32 hold for the run whatever PyTensor's floatX says, which decides only in what precision data
    were rounded when the model was built. What is inside a `scan` keeps the types that PyTensor gave it.

    Chains start where `pm.sample` starts them with `jitter+adapt_diag`: at the model's initial values (`initval=`,
    support points, or draws from the prior where the model asks for them), moved by a uniform of (-1, 1) in the
    unconstrained space.

    Importing PyTensor's JAX backend sets JAX's `jax_enable_x64` for the process to what floatX says. That is PyTensor's
    doing and is left so: `pm.sample(nuts_sampler="numpyro")` relies on it.

    Args:
        model: the model.
        initvals: initial values by variable, in place of the model's own, the same for all chains.
        jitter: whether starts are moved.
        keep: variables to keep in the tree; every free variable and deterministic when absent.

    Raises:
        ModelError: a latent is discrete, there is none, something draws random numbers, or JAX lacks an operation.
        UnknownNameError: `keep` or `initvals` name what the model has not.

    >>> import pymc as pm
    >>> with pm.Model() as model:
    ...     mean = pm.Normal("mean")
    ...     spread = pm.HalfNormal("spread")
    ...     y = pm.Normal("y", mean, spread, observed=[0.3, 0.1])
    >>> from_pymc(model).dimension
    2
    """
    _check(model)
    frozen = _frozen(model)
    # Freezing reorders the variables.
    order = {name: index for index, name in enumerate(v.name for v in [*model.free_RVs, *model.deterministics])}
    values = [frozen.rvs_to_values[rv] for rv in sorted(frozen.free_RVs, key=lambda rv: order[rv.name])]
    initial = model.initial_point(0)
    layout = Layout(
        tuple(value.name for value in values), tuple(tuple(np.shape(initial[value.name])) for value in values)
    )
    named = {v.name: v for v in get_default_varnames(frozen.unobserved_value_vars, include_transformed=False)}
    names = tuple(sorted(named, key=order.__getitem__) if keep is None else keep)
    for name in names:
        if name not in named:
            raise UnknownNameError("variable", name, named)
    logp = frozen.logp()
    if random_inputs([logp]):
        factors = [*frozen.basic_RVs, *frozen.potentials]
        culprits = [
            f.name for f, term in zip(factors, frozen.logp(factors, sum=False), strict=True) if random_inputs([term])
        ]
        raise ModelError(
            f"the log density of {', '.join(map(repr, culprits))} draws random numbers (a Minibatch, say), which "
            " no gradient-based sampler can follow; observe all the data"
        )
    for name in names:
        if random_inputs([named[name]]):
            raise ModelError(
                f"deterministic {name!r} draws random numbers; leave it out of the draws, and compute it afterwards "
                "with pm.sample_posterior_predictive"
            )
    arrays = Arrays()
    check = CHECKED if model.check_bounds else "local_remove_check_parameter"
    logdensity = _LogDensity(graph_of(values, [logp], arrays, [check], UNCHECKED), layout)
    constrain = _Constrain(graph_of(values, [named[name] for name in names], arrays), layout, names)
    points = _points(model, initvals, layout)
    data = {"arrays": arrays.values, "points": points}
    traced(logdensity, points[0], data)
    traced(constrain, points[0], data)
    coords, dims = _dims(model)
    return Posterior(
        dimension=layout.dimension,
        logdensity=logdensity,
        constrain=constrain,
        start=_Start(jitter),
        data=data,
        dims=dims,
        coords=coords,
        observed=find_observations(model),
        constant=find_constants(model),
        explain=_Explain(frozen, layout, tuple(values)),
    )


@dataclass(frozen=True, eq=False)
class PyMCModel:
    """A PyMC model as `sample` and `approximate` take it: its posterior, and the groups that PyMC adds to the tree."""

    model: BaseModel

    @property
    def extra_groups(self) -> Sequence[str]:
        """Groups of the tree that `finish` adds on request."""
        return ("prior", "prior_predictive", "posterior_predictive", "log_likelihood")

    def posterior(self) -> Posterior:
        """The log density, and what its variables are called."""
        return from_pymc(self.model)

    def finish(self, tree: xr.DataTree, *, seed: int, groups: Sequence[str] = ()) -> xr.DataTree:
        """The tree with the groups asked for, by PyMC's own functions."""
        return add_groups(self.model, tree, seed, groups)


def add_groups(
    model: BaseModel, tree: xr.DataTree, seed: int, groups: Sequence[str], observed: Sequence[str] | None = None
) -> xr.DataTree:
    """The tree with predictive groups and the pointwise log-likelihood, computed by PyMC from its draws.

    Args:
        model: what the tree was drawn from.
        tree: its posterior holds every free variable.
        seed: of predictive draws.
        groups: of "prior", "prior_predictive", "posterior_predictive" and "log_likelihood".
        observed: variables whose log-likelihood is wanted; all when absent.
    """
    # PyMC's seeds have 32 bits.
    seed = seed % 2**32
    if {"prior", "prior_predictive"} & set(groups):
        found = pm.sample_prior_predictive(model=model, random_seed=seed)
        for name in ("prior", "prior_predictive"):
            if name in groups and name in found.children:
                tree[name] = found[name]
    if "posterior_predictive" in groups:
        found = pm.sample_posterior_predictive(tree, model=model, random_seed=seed, progressbar=False)
        tree["posterior_predictive"] = found["posterior_predictive"]
    if "log_likelihood" in groups:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            found = pm.compute_log_likelihood(
                tree, var_names=observed, model=model, extend_inferencedata=False, progressbar=False
            )
        tree["log_likelihood"] = xr.DataTree(found) if isinstance(found, xr.Dataset) else found
    return tree
