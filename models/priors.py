"""Priors of a beta population of rates, each written in (logit mean, log concentration)."""

# NumPyro's base class takes more optional arguments than its own subclasses do.
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false, reportAssignmentType=false

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.nn import log_sigmoid
from jaxtyping import Array, PRNGKeyArray
from numpyro.distributions import constraints
from numpyro.distributions.transforms import AffineTransform, ComposeTransform, SoftplusTransform, biject_to

from pelton.engine.errors import ArgumentError, DataError, UnknownNameError
from pelton.models.distributions import bounds as _bounds
from pelton.models.distributions import identity as _identity
from pelton.models.distributions import scalar as _scalars
from pelton.models.distributions import to_text as _name

# What a NumPyro statement returns: an array, which its annotations widen.
type Site = Any


def log_shapes(logit_mean: Array, log_concentration: Array) -> tuple[Array, Array]:
    """(log alpha, log beta) of a beta distribution with that mean and concentration alpha + beta."""
    return log_sigmoid(logit_mean) + log_concentration, log_sigmoid(-logit_mean) + log_concentration


class _Above(constraints.greater_than):
    """x > lower, reached by x = lower + softplus(u).

    NumPyro reaches such a support by lower + exp(u). For the logarithm of a positive number that is an exponential too
    many: the log density of u then bends ever more sharply to the right, where leapfrogs diverge. With the softplus,
    log kappa = log(m) + softplus(u) grows like u.
    """


@biject_to.register(_Above)
def _reach_above(constraint: Any) -> Any:
    shift = AffineTransform(constraint.lower_bound, 1.0, domain=constraints.softplus_positive)
    return ComposeTransform([SoftplusTransform(), shift])


def _interval(lower: float, upper: float) -> Any:
    if np.isinf(lower) and np.isinf(upper):
        return constraints.real
    if np.isinf(upper):
        return _Above(lower)
    if np.isinf(lower):
        return constraints.less_than(upper)
    return constraints.interval(lower, upper)


class _Logit(dist.Distribution):
    """logit X for X on an interval within (0, 1): log p(x) = log p_X(sigmoid x) + log sigmoid(x) + log sigmoid(-x)."""

    pytree_data_fields = ("base",)
    pytree_aux_fields = ("_ends",)

    def __init__(self, base: dist.Distribution, ends: tuple[float, float]):
        self.base: Any = base
        self._ends = ends
        super().__init__()

    @property
    def support(self) -> Any:
        with np.errstate(divide="ignore"):
            lower, upper = (float(np.log(end) - np.log1p(-end)) for end in self._ends)
        return _interval(lower, upper)

    def log_prob(self, value: Array) -> Array:
        positive, negative = log_sigmoid(value), log_sigmoid(-value)
        if isinstance(self.base, dist.Beta):
            shapes: Any = self.base
            a, b = shapes.concentration1, shapes.concentration0
            constant = jax.scipy.special.betaln(a, b)
            return a * positive + b * negative - constant
        return self.base.log_prob(jax.nn.sigmoid(value)) + positive + negative

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        return jax.scipy.special.logit(self.base.sample(key, sample_shape))


class _Log(dist.Distribution):
    """log X for positive X: log p(t) = log p_X(exp t) + t, in closed form where exp t would overflow first."""

    pytree_data_fields = ("base",)
    pytree_aux_fields = ("_ends",)

    def __init__(self, base: dist.Distribution, ends: tuple[float, float]):
        self.base: Any = base
        self._ends = ends
        super().__init__()

    @property
    def support(self) -> Any:
        with np.errstate(divide="ignore"):
            lower, upper = (float(np.log(end)) for end in self._ends)
        return _interval(lower, upper)

    def log_prob(self, value: Array) -> Array:
        base: Any = self.base
        if isinstance(self.base, dist.Pareto):
            return base.alpha * jnp.log(base.scale) + jnp.log(base.alpha) - base.alpha * value
        if isinstance(self.base, dist.LogNormal):
            return dist.Normal(base.loc, base.scale).log_prob(value)
        return base.log_prob(jnp.exp(value)) + value

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        return jnp.log(self.base.sample(key, sample_shape))


class _LogitLogShapes(dist.Distribution):
    """(logit mean, log concentration) of independent shapes; the Jacobian from (log alpha, log beta) is 1."""

    pytree_data_fields = ("alpha", "beta")
    support = constraints.real_vector

    def __init__(self, alpha: dist.Distribution, beta: dist.Distribution):
        self.alpha = alpha
        self.beta = beta
        super().__init__(event_shape=(2,))

    def log_prob(self, value: Array) -> Array:
        log_alpha, log_beta = log_shapes(value[..., 0], value[..., 1])
        ends = (0.0, np.inf)
        return _Log(self.alpha, ends).log_prob(log_alpha) + _Log(self.beta, ends).log_prob(log_beta)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        key_alpha, key_beta = jax.random.split(key)
        log_alpha = jnp.log(self.alpha.sample(key_alpha, sample_shape))
        log_beta = jnp.log(self.beta.sample(key_beta, sample_shape))
        return jnp.stack([log_alpha - log_beta, jnp.logaddexp(log_alpha, log_beta)], axis=-1)


class Prior(ABC):
    """A prior of the population of rates, theta ~ Beta(mean * concentration, (1 - mean) * concentration)."""

    # Whether the prior can be drawn from, and whether there is anything to infer.
    proper: ClassVar[bool] = True
    fixed: ClassVar[bool] = False

    @abstractmethod
    def sites(self, prefix: str = "") -> tuple[Site, Site]:
        """NumPyro sample statements for the pair (logit mean, log concentration)."""

    def draw(self, key: PRNGKeyArray, draws: int) -> tuple[Array, Array]:
        """Independent draws [draws] of the pair.

        Raises:
            ArgumentError: the prior is improper.
        """
        if not self.proper:
            raise ArgumentError(
                f"{self} is improper and cannot be drawn from; for prior draws use MeanConcentration or GammaShapes"
            )

        def one(key: PRNGKeyArray) -> Any:
            return numpyro.handlers.seed(self.sites, key)()

        return jax.vmap(one)(jax.random.split(key, draws))


@dataclass(frozen=True, eq=False)
class MeanConcentration(Prior):
    """Independent priors of the population's mean mu on (0, 1) and its concentration kappa > 0.

    Args:
        mean: any NumPyro distribution on (0, 1) or an interval within.
        concentration: any NumPyro distribution of a positive number. kappa is worth so many trials of evidence.

    Raises:
        ArgumentError: a distribution has the wrong support, or is not of one number.

    Source: Gelman et al., Bayesian Data Analysis, 3rd ed., section 5.3; the Pareto(1.5) concentration is that of
    Carpenter's repeated binary trials study for Stan.

    >>> import numpyro.distributions as dist
    >>> MeanConcentration(mean=dist.Beta(2, 2), concentration=dist.Pareto(1.0, 1.5))
    MeanConcentration(mean=Beta(2, 2), concentration=Pareto(1, 1.5))
    >>> MeanConcentration(mean=dist.Normal(0, 1))
    Traceback (most recent call last):
        ...
    pelton.engine.errors.ArgumentError: the mean's prior has support from -inf to inf; it must lie within 0 and 1
    """

    mean: dist.Distribution = field(default_factory=lambda: dist.Beta(1.0, 1.0))
    concentration: dist.Distribution = field(default_factory=lambda: dist.Pareto(1.0, 1.5))

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _scalars(self.mean, "the mean's prior"))
        object.__setattr__(self, "concentration", _scalars(self.concentration, "the concentration's prior"))
        lower, upper = self._mean_ends
        if lower < 0 or upper > 1:
            raise ArgumentError(f"the mean's prior has support from {lower:g} to {upper:g}; it must lie within 0 and 1")
        lower, upper = self._concentration_ends
        if lower < 0:
            raise ArgumentError(
                f"the concentration's prior has support from {lower:g} to {upper:g}; it must be positive"
            )

    @property
    def _mean_ends(self) -> tuple[float, float]:
        return _bounds(self.mean, "the mean's prior")

    @property
    def _concentration_ends(self) -> tuple[float, float]:
        return _bounds(self.concentration, "the concentration's prior")

    def sites(self, prefix: str = "") -> tuple[Site, Site]:
        logit_mean = numpyro.sample(f"{prefix}logit_mu", _Logit(self.mean, self._mean_ends))
        log_concentration = numpyro.sample(f"{prefix}log_kappa", _Log(self.concentration, self._concentration_ends))
        return logit_mean, log_concentration

    def __repr__(self) -> str:
        return f"MeanConcentration(mean={_name(self.mean)}, concentration={_name(self.concentration)})"

    @cached_property
    def _key(self) -> Hashable:
        return _identity(self.mean, self.concentration)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MeanConcentration) and self._key == other._key


@dataclass(frozen=True, eq=False)
class Shapes(Prior):
    """Independent priors of the population's two shapes, alpha and beta.

    Args:
        alpha, beta: NumPyro distributions of a positive number.

    Raises:
        ArgumentError: a distribution has another support.

    >>> import numpyro.distributions as dist
    >>> Shapes(dist.HalfNormal(10.0), dist.HalfNormal(100.0))
    Shapes(alpha=HalfNormal(10), beta=HalfNormal(100))
    """

    alpha: dist.Distribution
    beta: dist.Distribution

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            value = _scalars(getattr(self, name), f"the prior of {name}")
            lower, upper = _bounds(value, f"the prior of {name}")
            if lower != 0 or not np.isinf(upper):
                raise ArgumentError(
                    f"the prior of {name} has support from {lower:g} to {upper:g}; it must be that of a positive number"
                )
            object.__setattr__(self, name, value)

    def sites(self, prefix: str = "") -> tuple[Site, Site]:
        pair: Any = numpyro.sample(f"{prefix}population", _LogitLogShapes(self.alpha, self.beta))
        return (
            numpyro.deterministic(f"{prefix}logit_mu", pair[0]),
            numpyro.deterministic(f"{prefix}log_kappa", pair[1]),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(alpha={_name(self.alpha)}, beta={_name(self.beta)})"

    @cached_property
    def _key(self) -> Hashable:
        return _identity(self.alpha, self.beta)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shapes) and self._key == other._key


class GammaShapes(Shapes):
    """alpha, beta ~ Gamma(shape, rate), independently.

    The prior of the stores reference system with shape = rate = 1/2. It holds alpha and beta to a few units: for rates
    that vary little between units (a concentration in the hundreds) choose MeanConcentration.

    Raises:
        ArgumentError: shape or rate is not positive.

    >>> GammaShapes(0.5, 0.5)
    GammaShapes(0.5, 0.5)
    """

    def __init__(self, shape: float = 0.5, rate: float = 0.5):
        if not (np.isfinite(shape) and np.isfinite(rate) and shape > 0 and rate > 0):
            raise ArgumentError(f"GammaShapes takes a positive shape and rate, not ({shape!r}, {rate!r})")
        super().__init__(dist.Gamma(float(shape), float(rate)), dist.Gamma(float(shape), float(rate)))
        object.__setattr__(self, "_given", (float(shape), float(rate)))

    def __repr__(self) -> str:
        shape, rate = self._given  # pyright: ignore[reportAttributeAccessIssue]
        return f"GammaShapes({shape:g}, {rate:g})"


@dataclass(frozen=True)
class Bda(Prior):
    """The diffuse p(alpha, beta) proportional to (alpha + beta)^(-5/2).

    In (logit mu, log kappa) its density is mu (1 - mu) kappa^(-1/2). It is improper, so there are no prior draws; the
    posterior is proper once a unit has both successes and failures.

    Source: Gelman et al., Bayesian Data Analysis, 3rd ed., equation 5.9.

    >>> Bda()
    Bda()
    """

    proper: ClassVar[bool] = False

    def sites(self, prefix: str = "") -> tuple[Site, Site]:
        flat = dist.ImproperUniform(constraints.real, (), ())
        logit_mean: Any = numpyro.sample(f"{prefix}logit_mu", flat)
        log_concentration: Any = numpyro.sample(f"{prefix}log_kappa", flat)
        log_density = log_sigmoid(logit_mean) + log_sigmoid(-logit_mean) - log_concentration / 2
        numpyro.factor(f"{prefix}prior", log_density)
        return logit_mean, log_concentration


@dataclass(frozen=True)
class FixedBeta(Prior):
    """theta ~ Beta(alpha, beta) with known shapes: every unit's posterior is Beta(alpha + k, beta + n - k).

    Raises:
        ArgumentError: a shape is not positive and finite.

    >>> FixedBeta(11.5, 48.5)
    FixedBeta(alpha=11.5, beta=48.5)
    """

    alpha: float
    beta: float
    fixed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ArgumentError(f"FixedBeta takes a positive finite {name}, not {value!r}")
            object.__setattr__(self, name, float(value))

    def sites(self, prefix: str = "") -> tuple[Site, Site]:
        log_mean = np.log(self.alpha) - np.log(self.beta)
        return (
            numpyro.deterministic(f"{prefix}logit_mu", jnp.asarray(log_mean)),
            numpyro.deterministic(f"{prefix}log_kappa", jnp.asarray(np.log(self.alpha + self.beta))),
        )


# name: how the command line writes it, and how it is made from numbers.
BY_NAME: dict[str, tuple[str, Callable[..., Prior]]] = {
    "default": ("default", MeanConcentration),
    "gamma-shapes": ("gamma-shapes[:SHAPE,RATE]", GammaShapes),
    "mean-concentration": (
        "mean-concentration[:A,B,MIN,TAIL]",
        lambda a=1.0, b=1.0, minimum=1.0, tail=1.5: MeanConcentration(dist.Beta(a, b), dist.Pareto(minimum, tail)),
    ),
    "bda": ("bda", Bda),
    "fixed-beta": ("fixed-beta:ALPHA,BETA", FixedBeta),
}


def from_text(text: str) -> Prior:
    """A prior as the command line writes it: a name, and its numbers after a colon.

    Args:
        text: "default", "gamma-shapes:0.5,0.5", "mean-concentration:2,2,1,1.5" (a Beta(2, 2) mean and a Pareto
            concentration of minimum 1 and tail 1.5), "bda" or "fixed-beta:11.5,48.5".

    Raises:
        UnknownNameError: no such prior.
        ArgumentError: the numbers do not fit it.

    >>> from_text("gamma-shapes:0.5,0.5")
    GammaShapes(0.5, 0.5)
    """
    name, _, rest = text.strip().partition(":")
    if name not in BY_NAME:
        raise UnknownNameError("prior", name, BY_NAME)
    usage, make = BY_NAME[name]
    try:
        numbers = [float(part) for part in rest.split(",")] if rest else []
        return make(*numbers)
    except (TypeError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"prior {text!r} does not read as {usage}") from None


@cache
def _default() -> Prior:
    """One for all, so that models without a prior of their own are known to share it at a glance."""
    return MeanConcentration()


def checked_prior(prior: Prior | None) -> Prior:
    """The prior, or the default one.

    Raises:
        ArgumentError: it is no prior of pelton.
    """
    prior = _default() if prior is None else prior
    if not isinstance(prior, Prior):
        raise ArgumentError(
            f"prior is a pelton prior such as MeanConcentration(mean, concentration), not {type(prior).__name__}"
        )
    return prior


def check_mixed(prior: Prior, mixed: bool) -> None:
    """Refuses an improper prior where no unit has both successes and failures.

    Raises:
        DataError: the posterior would be improper.
    """
    if not prior.proper and not mixed:
        raise DataError(
            "no unit has both successes and failures, and with an improper prior the posterior is improper too; "
            "choose MeanConcentration or GammaShapes"
        )
