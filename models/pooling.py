"""Parameters with a value per geo and column (channel, control ...), pooled, unpooled or hierarchical."""

# NumPyro's base class takes more optional arguments than its own subclasses do.
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints
from numpyro.distributions.transforms import biject_to

from pelton.models.distributions import identity

type Pooling = Literal["hierarchical", "pooled", "unpooled"]

POOLINGS: tuple[Pooling, ...] = ("hierarchical", "pooled", "unpooled")
# Of the inverse of `Coordinates`; it converges quadratically.
NEWTON_STEPS = 12


class Unconstrained(dist.Distribution):
    """Independent priors, one a column, written for the unconstrained value eta of each.

        log p(eta) = log p_X(T(eta)) + log |T'(eta)|,   x = T(eta)

    T is NumPyro's map onto the prior's support: exp onto (0, inf), the logistic function onto (0, 1), an affine
    logistic function onto an interval, the identity onto the real line. Columns of one family share one evaluation.
    """

    pytree_aux_fields = ("priors",)

    def __init__(self, priors: Sequence[dist.Distribution]):
        self.priors = tuple(priors)
        super().__init__(batch_shape=(len(self.priors),))

    @property
    def support(self) -> Any:
        return constraints.real

    def _families(self) -> list[tuple[list[int], Any]]:
        """(columns, the distribution of all of them at once)."""
        groups: dict[Any, list[int]] = {}
        for column, prior in enumerate(self.priors):
            plain = type(prior).__name__ in _STACKABLE
            groups.setdefault(type(prior) if plain else column, []).append(column)
        return [(columns, _stacked([self.priors[column] for column in columns])) for columns in groups.values()]

    def _by_family(self, value: Array, function: Any) -> Array:
        families = self._families()
        if len(families) == 1:
            return function(families[0][1], value)
        pieces = [function(family, value[..., np.array(columns)]) for columns, family in families]
        order = np.argsort([column for columns, _ in families for column in columns])
        return jnp.concatenate(pieces, axis=-1)[..., order]

    def log_prob(self, value: Array) -> Array:
        return self._by_family(value, _log_prob)

    def constrain(self, value: Array) -> Array:
        """x = T(eta)."""
        return self._by_family(value, lambda family, eta: biject_to(family.support)(eta))

    def log(self, value: Array) -> Array:
        """log x of positive x."""
        # Where T is exp its logarithm is there already.
        return self._by_family(
            value,
            lambda family, eta: (
                eta if family.support is constraints.positive else jnp.log(biject_to(family.support)(eta))
            ),
        )

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        keys = jax.random.split(key, len(self.priors))
        draws = [
            biject_to(prior.support).inv(prior.sample(one, sample_shape))
            for one, prior in zip(keys, self.priors, strict=True)
        ]
        return jnp.stack(draws, axis=-1)


class Coordinates(Unconstrained):
    """The same priors, written for the coordinates u that are sampled, which have no long tails:

        positive, no tail heavier than an exponential's   eta = log E[x] + u q / 2 - log q,  q = (sqrt(u^2 + 4) - u) / 2
        on an interval                                    eta = u sqrt(u^2 + 4) / 2 + 2 asinh(u / 2)
        any other                                         eta = u

    with derivatives q and sqrt(u^2 + 4). Data that leave a standard deviation free to be 0 give its logarithm an
    endless tail, which a sampler crosses slowly, and the sd itself a wall; so it is with a share that may be 0 or 1.
    Here x falls as exp(-u^2 / 2) towards a finite end and grows as u towards an infinite one, so that u is nearly
    normal where x is half-normal or uniform.
    """

    def log_prob(self, value: Array) -> Array:
        def by(family: Any, u: Array) -> Array:
            eta, log_slope = _bent(family, u)
            return _log_prob(family, eta) + log_slope

        return self._by_family(value, by)

    def eta(self, value: Array) -> Array:
        """The unconstrained values at coordinates u."""
        return self._by_family(value, lambda family, u: _bent(family, u)[0])

    def at(self, eta: Array) -> Array:
        """The coordinates of unconstrained values."""
        return self._by_family(eta, _unbent)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        return self.at(super().sample(key, sample_shape))


def _is_light(family: Any) -> bool:
    return isinstance(family, dist.HalfNormal | dist.Exponential | dist.Gamma)


def _is_interval(family: Any) -> bool:
    ends = (getattr(family.support, name, np.inf) for name in ("lower_bound", "upper_bound"))
    return all(bool(np.all(np.isfinite(end))) for end in ends)


def _bent(family: Any, u: Array) -> tuple[Array, Array]:
    """eta and log d eta / du of `Coordinates`."""
    root = jnp.sqrt(u**2 + 4)
    # On the right q is the reciprocal of this, where the difference would lose its digits.
    half = 0.5 * (root + jnp.abs(u))
    if _is_interval(family):
        return 0.5 * u * root + 2 * jnp.sign(u) * jnp.log(half), jnp.log(root)
    if _is_light(family):
        log_q = jnp.where(u < 0, 1.0, -1.0) * jnp.log(half)
        return jnp.log(family.mean) + 0.5 * u * jnp.where(u < 0, half, 1 / half) - log_q, log_q
    return u, jnp.zeros_like(u)


def _unbent(family: Any, eta: Array) -> Array:
    """u at eta, by Newton's method from where the curve bends away: it never passes the root."""
    if _is_interval(family):
        first = 0.5 * eta
    elif _is_light(family):
        first = -1 - jnp.sqrt(2 * jnp.maximum(jnp.log(family.mean) - eta, 0.0))
    else:
        return eta

    def step(_: Any, u: Array) -> Array:
        value, log_slope = _bent(family, u)
        return u + (eta - value) * jnp.exp(-log_slope)

    return jax.lax.fori_loop(0, NEWTON_STEPS, step, first)


# Families that their constructor builds from arrays under the names that they keep them by.
_STACKABLE = ("Beta", "Exponential", "Gamma", "HalfCauchy", "HalfNormal", "InverseGamma", "Laplace", "LogNormal")
_STACKABLE += ("Normal", "StudentT", "Uniform", "Weibull")


def _stacked(priors: Sequence[dist.Distribution]) -> Any:
    first: Any = priors[0]
    if len(priors) == 1:
        return first
    parameters = {name: np.array([float(getattr(prior, name)) for prior in priors]) for name in first.arg_constraints}
    return type(first)(**parameters)


def _log_prob(family: Any, eta: Array) -> Array:
    if isinstance(family, dist.LogNormal):
        # exp and its logarithm would only lose digits.
        return dist.Normal(family.loc, family.scale).log_prob(eta)
    transform = biject_to(family.support)
    value = transform(eta)
    if _is_light(family):
        # float32 has no exp(-100), and 0 is outside of the support.
        value = jnp.maximum(value, jnp.finfo(value.dtype).tiny)
    return family.log_prob(value) + transform.log_abs_det_jacobian(eta, value)


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter of every geo and column.

    On the unconstrained scale (log of a positive parameter, logit of one on an interval, itself otherwise),

        hierarchical   eta[g,c] ~ Normal(location[c], sd[c]),  T(location) ~ prior,  sd ~ prior of the sd
        unpooled       T(eta[g,c]) ~ prior for each geo by itself
        pooled         eta[g,c] = location[c]

    so that the prior always speaks of a geo's value on the natural scale: of the typical geo's, where hierarchical.

    Attributes:
        name: the variable's name in the tree.
        columns: labels of the columns.
        priors: of the natural value, one scalar distribution a column.
        sd_priors: of the between-geo standard deviation on the unconstrained scale, one a column.
        pooling: hierarchical, unpooled or pooled.
    """

    name: str
    columns: tuple[str, ...]
    priors: tuple[dist.Distribution, ...]
    sd_priors: tuple[dist.Distribution, ...]
    pooling: Pooling

    def _key(self) -> tuple:
        return (self.name, self.columns, identity(*self.priors), identity(*self.sd_priors), self.pooling)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Parameter) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def prior(self) -> Coordinates:
        """The prior of one value [column]."""
        return Coordinates(self.priors)

    @property
    def sd_prior(self) -> Coordinates:
        """The prior of the between-geo standard deviation [column]."""
        return Coordinates(self.sd_priors)

    @property
    def levels(self) -> tuple[bool, bool]:
        """Whether the population has a value of its own, and whether the geos have."""
        return self.pooling != "unpooled", self.pooling != "pooled"

    @property
    def recorded(self) -> tuple[str, ...]:
        """Names of what `sites` records beside the values."""
        return (f"{self.name}_population", f"{self.name}_sd") if self.pooling == "hierarchical" else ()

    def sites(self, geos: int, centring: Float[ArrayLike, "geo column"] | None = None) -> Float[Array, "geo column"]:
        """Samples the parameter within a NumPyro model and returns its natural values.

        Args:
            geos: how many.
            centring: for a hierarchical parameter, from 0 (offsets from the population, in its standard deviations) to
                1 (the values themselves); it changes the coordinates, not the posterior. With share c the sampled
                coordinate is z ~ Normal(c location, sd^c), and eta = location + sd^(1-c) (z - c location)
                (Papaspiliopoulos, Roberts & Skold 2007; Gorinova, Moore & Hoffman 2020).
        """
        prior = self.prior
        shape = (geos, len(self.columns))
        if self.pooling == "unpooled":
            own: Any = numpyro.sample(f"{self.name}_own_u", prior.expand(shape))
            return prior.constrain(prior.eta(own))
        common: Any = numpyro.sample(f"{self.name}_location_u", prior)
        location = prior.eta(common)
        if self.pooling == "pooled":
            return prior.constrain(jnp.broadcast_to(location, shape))
        log_sd = self.spread()
        numpyro.deterministic(f"{self.name}_population", prior.constrain(location))
        share: Any = jnp.asarray(0.0 if centring is None else centring)
        spread = jnp.broadcast_to(jnp.exp(share * log_sd), shape)
        z: Any = numpyro.sample(f"{self.name}_offset", dist.Normal(share * location, spread))
        return prior.constrain(location + jnp.exp((1 - share) * log_sd) * (z - share * location))

    def spread(self) -> Array:
        """Samples a hierarchical parameter's between-geo sd and returns its logarithm [column]."""
        prior = self.sd_prior
        free: Any = numpyro.sample(f"{self.name}_sd_u", prior)
        log_sd = prior.log(prior.eta(free))
        numpyro.deterministic(f"{self.name}_sd", jnp.exp(log_sd))
        return log_sd

    @property
    def normal(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Means and standard deviations of the priors where all are normal, else None."""
        priors: list[Any] = list(self.priors)
        if not all(type(prior) is dist.Normal for prior in priors):
            return None
        return np.array([float(one.loc) for one in priors]), np.array([float(one.scale) for one in priors])


def middle_and_spread(parameters: Sequence[Parameter]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each prior's median and half its central two thirds, on the unconstrained scale: name -> ([column], [column]).

    By summing the density over a grid that is fine near 0 and reaches 10^5.

    >>> prior = Parameter("k", ("tv",), (dist.LogNormal(1.0, 0.5),), (dist.HalfNormal(1.0),), "pooled")
    >>> middle, spread = middle_and_spread([prior])["k"]
    >>> middle.round(2), spread.round(2)
    (array([1.]), array([0.48]))
    """
    grid = np.sinh(np.linspace(-12.2, 12.2, 8001))

    @jax.jit
    def densities() -> dict[str, Array]:
        return {
            one.name: Unconstrained(one.priors).log_prob(
                jnp.broadcast_to(jnp.asarray(grid)[:, None], (len(grid), len(one.priors)))
            )
            for one in parameters
        }

    found = {}
    for name, value in densities().items():
        density = np.nan_to_num(np.asarray(value, np.float64), nan=-np.inf)
        weight = np.exp(density - density.max(axis=0)) * np.gradient(grid)[:, None]
        below = np.cumsum(weight, axis=0) / weight.sum(axis=0)
        quantiles = [[np.interp(q, column, grid) for column in below.T] for q in (1 / 6, 1 / 2, 5 / 6)]
        low, middle, high = np.array(quantiles)
        found[name] = middle, np.maximum((high - low) / 2, 1e-3)
    return found
