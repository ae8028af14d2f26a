"""Posterior: all that a sampler needs to know of a model."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from pelton.engine.errors import ArgumentError, UnknownNameError

type LogDensity = Callable[[Float[Array, " dimension"], Any], Float[Array, ""]]
type Constrain = Callable[[Float[Array, " dimension"], Any], dict[str, Array]]
type Start = Callable[[PRNGKeyArray, Any], Float[Array, " dimension"]]
type Named = dict[str, Array]


@dataclass(frozen=True)
class Conjugate:
    """Shared coordinates that can be integrated out, the last ones, and drawn exactly given the blocks.

    Attributes:
        kept: number of shared coordinates, at the front, that stay.
        prior: (blocks [block, size], kept [kept], data) -> log density of all blocks and the kept coordinates, the
            others integrated over their density.
        draw: (key, blocks [block, size], data) -> the others from their density given the blocks.
    """

    kept: int
    prior: Callable[[Array, Array, Any], Array]
    draw: Callable[[PRNGKeyArray, Array, Any], Array]


@dataclass(frozen=True)
class Hierarchy:
    """How a log density divides into shared coordinates and blocks that are independent given them.

        log p(x) = shared_density(s) + sum_b [ block_prior(z_b, s) + block_likelihood(z_b, b) ]

    for the position x = (s, z_0, ..., z_{B-1}), the blocks being of one size. A sampler that knows it moves a block at
    the price of that block's data, and the shared coordinates without touching any data.

    The callables take the posterior's data as their last argument and, like those of Posterior, close over none of it.

    Attributes:
        shared: number of shared coordinates, at the front of the position.
        blocks: number of blocks B.
        size: coordinates of a block.
        shared_density: (s [shared], data) -> log density of the shared coordinates.
        block_prior: (z [size], s [shared], data) -> log density of a block given the shared coordinates.
        block_likelihood: (z [size], b, data) -> log-likelihood of the b-th block; b may be traced.
        references: data -> means and sds [reference, dimension] of normal distributions, together much broader than
            the posterior, from which populations are carried to it; one for each kind of mode that there may be.
        conjugate: the shared coordinates that a block need not be moved against, where there are such.
        cost: data -> price of each block's likelihood [block], in any unit: cheap blocks are moved more often while
            populations are made. None: all cost the same.
    """

    shared: int
    blocks: int
    size: int
    shared_density: Callable[[Array, Any], Array]
    block_prior: Callable[[Array, Array, Any], Array]
    block_likelihood: Callable[[Array, Any, Any], Array]
    references: Callable[[Any], tuple[Array, Array]]
    conjugate: Conjugate | None = None
    cost: Callable[[Any], Array] | None = None

    @property
    def kept(self) -> int:
        """Shared coordinates that cannot be integrated out."""
        return self.shared if self.conjugate is None else self.conjugate.kept


@dataclass(frozen=True)
class Posterior:
    """A log density on one flat unconstrained vector, with names for what the vector means.

    The callables take the data as an argument and close over none of it, so that new data of the same
    shape compile nothing. They must be hashable and equal for equal models: compiled programs are cached
    by them.

    Attributes:
        dimension: length of the unconstrained position.
        logdensity: (position [dimension], data) -> log density up to a constant, with the log Jacobian of the
            transform to the constrained space included.
        constrain: (position [dimension], data) -> the named variables, latents first, then deterministics.
        start: (key, data) -> a starting position, dispersed over starts with other keys.
        data: pytree of arrays. With `batch`, every leaf has a leading axis of that length.
        dims: names of each variable's axes, without chain and draw (and without the batch dimension).
        coords: labels along those axes.
        observed: observed variables for the tree's observed_data group.
        constant: covariates, exposures and the like for its constant_data group.
        batch: number of independent posteriors of this shape, fitted side by side in one program; None for one.
        batch_dim: the name of the batch's axis.
        sampler: the sampler that suits it, where the model knows better than the default.
        target_accept: acceptance probability to adapt to, where the model knows better than the default.
        hierarchy: how the log density divides into blocks, for the samplers that use it.
        zero_rows: of the data's structure, whether a leaf's leading axis takes rows of zeros that change nothing, so
            that any number of devices can share it; None: no leaf.
        attrs: what the model wishes to record in the tree's attributes.
        loglikelihood: (position, data) -> pointwise log-likelihood of each observed variable; with this and the next
            two, `sample(groups=)` offers the groups that they make.
        predict: (key, position, data) -> new values of the observed variables, at a position.
        prior: (key, data) -> a draw of the variables from the prior, and observed variables given it.
        explain: (position, data) -> the log density's terms by name, for the error of a run that finds no start.

    Raises:
        ArgumentError: the dimension is negative.

    Made by `pelton.from_numpyro`, `from_logdensity` and `from_pymc`; a model's `posterior()` returns its own.

    >>> import pelton
    >>> posterior = pelton.PartialPooling([9, 22, 31], [138, 72, 157]).posterior()
    >>> position = posterior.start(jax.random.key(0), posterior.data)
    >>> posterior.dimension, sorted(posterior.constrain(position, posterior.data))
    (2, ['alpha', 'beta', 'kappa', 'log_kappa', 'logit_mu', 'mu'])
    """

    dimension: int
    logdensity: LogDensity
    constrain: Constrain
    start: Start
    data: Any = ()
    dims: Mapping[str, Sequence[str]] = field(default_factory=dict)
    coords: Mapping[str, Any] = field(default_factory=dict)
    observed: Mapping[str, Any] = field(default_factory=dict)
    constant: Mapping[str, Any] = field(default_factory=dict)
    batch: int | None = None
    batch_dim: str = "segment"
    sampler: str | None = None
    target_accept: float | None = None
    hierarchy: Hierarchy | None = None
    zero_rows: Any = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    loglikelihood: Callable[[Array, Any], Named] | None = None
    predict: Callable[[PRNGKeyArray, Array, Any], Named] | None = None
    prior: Callable[[PRNGKeyArray, Any], tuple[Named, Named]] | None = None
    explain: Callable[[Array, Any], Named] | None = None

    @property
    def extra_groups(self) -> tuple[str, ...]:
        """Groups of the tree that can be had on request."""
        makers = {
            "prior": self.prior,
            "prior_predictive": self.prior,
            "posterior_predictive": self.predict,
            "log_likelihood": self.loglikelihood,
        }
        return tuple(name for name, maker in makers.items() if maker is not None)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes that the batch adds: one or none."""
        return () if self.batch is None else (self.batch,)

    @property
    def batch_dims(self) -> tuple[str, ...]:
        """Names of those axes."""
        return () if self.batch is None else (self.batch_dim,)

    @property
    def widest(self) -> int:
        """Dimension of the largest block, or of the shared coordinates; without a hierarchy of the whole position."""
        return self.dimension if self.hierarchy is None else max(self.hierarchy.shared, self.hierarchy.size)

    def __post_init__(self) -> None:
        if self.dimension < 0:
            raise ArgumentError(f"a posterior has a dimension of at least 0, not {self.dimension}")


@runtime_checkable
class Model(Protocol):
    """What `sample` asks of a pelton model."""

    @property
    def extra_groups(self) -> Sequence[str]:
        """Groups of the tree that `finish` adds on request."""
        ...

    def posterior(self) -> Posterior:
        """The log density, and what its variables are called."""
        ...

    def finish(self, tree: xr.DataTree, *, seed: int, groups: Sequence[str] = ()) -> xr.DataTree:
        """Adds what follows from the draws without sampling: conjugate rates, predictive groups."""
        ...


def adopted(model: Any) -> Any:
    """Another library's model as a pelton model, anything else as it is; the library is not loaded for that."""
    core = sys.modules.get("pymc.model.core")
    if core is None or not isinstance(model, core.BaseModel):
        return model
    from pelton.engine.sources.pymc import PyMCModel

    return PyMCModel(model)


def data_size(posterior: Posterior) -> int:
    """Numbers in the data, each of which a gradient reads."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(posterior.data))


def posterior_of(model: Any, groups: Sequence[str], caller: str) -> Posterior:
    """The posterior of a model, or what is one already.

    Args:
        model: a pelton model or a Posterior.
        groups: further groups that the tree is to have.
        caller: who asks, for the message.

    Raises:
        ArgumentError: it is neither, or does not offer the groups.
    """
    if not isinstance(model, Posterior | Model):
        raise ArgumentError(
            f"{caller} takes a pelton model or a Posterior, not {type(model).__name__}; pelton.from_numpyro makes one "
            "of a NumPyro model and its arguments, pelton.from_logdensity of a log density and where to start"
        )
    for name in groups:
        if isinstance(model, Posterior) and not model.extra_groups:
            raise ArgumentError(f"this Posterior offers no further groups, and {', '.join(groups)} were asked for")
        if name not in model.extra_groups:
            raise UnknownNameError("group", name, model.extra_groups)
    return model if isinstance(model, Posterior) else model.posterior()
