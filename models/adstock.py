"""Adstock as objects: how long a week's media act, with priors for the parameters, half-lives and pictures.

    adstock = pelton.adstock.Geometric(l_max=8, alpha=dist.Beta(2, 5))
    adstock.half_life(alpha=0.5)     # weeks
    adstock.plot(alpha=[0.2, 0.5])   # or plot() for what the prior says
    pelton.adstock.for_kind("video")

The response in week t is sum_l w_l media[t-l] over lags l = 0 .. l_max-1. Normalised weights sum to 1, so that adstock
moves the effect in time and leaves its size to the coefficient.

| class | name | parameter | prior of the typical geo | sd between geos |
|---|---|---|---|---|
| Geometric | geometric | alpha | Beta(1, 3) | HalfNormal(0.5) of the logit |
| Delayed | delayed | alpha | Beta(2, 2) | HalfNormal(0.5) of the logit |
| | | theta | TruncatedNormal(1, 1.5, low=0, high=l_max-1) | HalfNormal(0.5) of the logit |
| Binomial | binomial | alpha | Beta(1, 5) | HalfNormal(0.5) of the logit |
| WeibullPdf | weibull_pdf | weibull_scale | LogNormal(0.7, 0.5) | HalfNormal(0.3) of the log |
| | | weibull_shape | LogNormal(0.4, 0.3) | HalfNormal(0.2) of the log |
| WeibullCdf | weibull_cdf | weibull_scale | LogNormal(1, 0.6) | HalfNormal(0.3) of the log |
| | | weibull_shape | LogNormal(0, 0.3) | HalfNormal(0.2) of the log |

With these, 90% of the prior's half-lives lie between 0.5 and 1.6 weeks (geometric), 0.8 and 4.2 (delayed), 0.5 and 3.6
(binomial), 0.6 and 2.9 (Weibull density), and 0.7 and 1.9 (Weibull survival), each at l_max = 12. Beta(1, 3) is also
PyMC-Marketing's prior of a geometric alpha. Delayed weights with alpha near 0 fall on a single week, and the posterior
of theta then has a step at each half week: hence Beta(2, 2), close to the Beta(3, 3) of Jin et al. 2017.

The weights, their sources and how the window maps to other libraries: `pelton.kernels.adstock`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from pelton.engine.errors import ArgumentError, UnknownNameError
from pelton.engine.precision import using
from pelton.kernels import adstock as kernels
from pelton.models import curves
from pelton.models.distributions import parse

# Weights computed at a time, so that memory stays bounded for any number of draws.
_BLOCK = 2**21


@dataclass(frozen=True, eq=False, repr=False)
class Adstock(curves.Curve):
    """How a week's media act in the weeks after.

    Args:
        l_max: weeks that a week's media act in, its own included.
        normalize: divide the weights by their sum.

    Raises:
        ArgumentError: l_max below 1, or a prior with the wrong support.
    """

    noun: ClassVar[str] = "adstock"

    l_max: int | None = 12
    normalize: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.normalize, bool | np.bool_):
            raise ArgumentError(f"normalize is True or False, not {self.normalize!r}")
        object.__setattr__(self, "normalize", bool(self.normalize))
        object.__setattr__(self, "l_max", self._checked_l_max())
        self._check_priors()

    def _checked_l_max(self) -> int | None:
        if self.l_max is None:
            raise ArgumentError(f"the {self.name} adstock needs l_max; only the geometric one may go on for ever")
        if not isinstance(self.l_max, int | np.integer) or isinstance(self.l_max, bool) or self.l_max < 1:
            raise ArgumentError(f"l_max is {self.l_max!r}; it is a whole number of weeks, 1 for the media's own alone")
        return int(self.l_max)

    @property
    def _window(self) -> int:
        assert self.l_max is not None
        return self.l_max

    @property
    def supports(self) -> dict[str, tuple[float, float]]:
        return {name: (0.0, 1.0) if name == "alpha" else (0.0, np.inf) for name in self._sds}

    def _weights(self, *values: Any) -> Array:
        # A family and its kernel have one name.
        kernel = getattr(kernels, f"{self.name}_weights")
        return kernel(*values, l_max=self.l_max, normalize=self.normalize)

    def apply(self, media: Any, *, axis: int = -2, **parameters: Any) -> Array:
        """Media spread over later weeks: y[t] = sum_l w_l media[t-l].

        Args:
            media: [..., time, channel], any unit, zero before its first week.
            axis: the time axis of media.
            parameters: by name, [..., channel]; traced or not.

        Returns:
            The shape and the unit of media, broadcast with the parameters.

        Raises:
            UnknownNameError, ArgumentError: a parameter that there is not, or that is missing.

        >>> import jax.numpy as jnp
        >>> Geometric(l_max=3, normalize=False).apply(jnp.array([[8.0], [0.0], [0.0]]), alpha=jnp.array([0.5]))[:, 0]
        Array([8., 4., 2.], dtype=float32)
        """
        kernel = getattr(kernels, self.name)
        return kernel(media, *self._ordered(parameters), l_max=self.l_max, normalize=self.normalize, axis=axis)

    def weights(self, **parameters: Any) -> Array:
        """The weights of lags 0 .. l_max-1.

        Args:
            parameters: by name, of any shapes that broadcast; traced or not.

        Returns:
            [*shape of the parameters, lag].

        Raises:
            UnknownNameError, ArgumentError: as for `apply`; or l_max is None, which has no last lag.

        >>> Geometric(l_max=3).weights(alpha=0.5).round(2)
        Array([0.57, 0.29, 0.14], dtype=float32)
        """
        values = self._ordered(parameters)
        if self.l_max is None:
            raise ArgumentError("an adstock that goes on for ever has no last lag; use dataclasses.replace(l_max=...)")
        return self._weights(*values)

    def total(self, **parameters: Any) -> Array:
        """The sum of the weights: 1 where they are normalised.

        Args:
            parameters: by name, of any shapes that broadcast; traced or not.

        Returns:
            Of the parameters' broadcast shape.

        Raises:
            UnknownNameError, ArgumentError: as for `apply`.

        >>> Geometric(l_max=3, normalize=False).total(alpha=0.5), Geometric(l_max=3).total(alpha=0.5)
        (Array(1.75, dtype=float32), Array(1., dtype=float32))
        """
        values = kernels.as_floats(*self._ordered(parameters))
        if self.normalize:
            return jnp.ones_like(jnp.broadcast_arrays(*values)[0])
        return self._weights(*values).sum(-1)

    def weeks_until(self, share: float, **parameters: Any) -> np.ndarray:
        """Weeks from the start of a week of media until that share of its whole effect has happened.

        With w_l the weights over their sum and C_n = w_0 + ... + w_(n-1) the share after n weeks, interpolated within
        the week in which the share is reached: for the n with C_n < share <= C_(n+1),

            n + (share - C_n) / w_n

        Args:
            share: of the whole effect, above 0 and below 1.
            parameters: by name, NumPy or JAX arrays or numbers, of any shapes that broadcast.

        Returns:
            Weeks, float64, of the parameters' broadcast shape.

        Raises:
            UnknownNameError, ArgumentError: as for `apply`; or a share or a parameter out of its range.

        >>> Geometric(l_max=None).weeks_until(0.9, alpha=[0.0, 0.5]).round(2)
        array([0.9, 3.4])
        """
        if not 0 < share < 1:
            raise ArgumentError(f"share is {share!r}; it must lie above 0 and below 1")
        arrays = np.broadcast_arrays(*self._as_numbers(parameters).values())
        return self._weeks_until(float(share), *arrays)

    def _weeks_until(self, share: float, *values: np.ndarray) -> np.ndarray:
        shape, size = values[0].shape, values[0].size
        flat = [array.ravel() for array in values]
        found = np.empty(size)
        normalised = replace(self, normalize=True)
        rows = max(1, _BLOCK // self._window)
        for start in range(0, size, rows):
            block = slice(start, start + rows)
            with using("float64"):
                weights = np.asarray(normalised._weights(*(array[block] for array in flat)))
            reached = np.cumsum(weights, axis=-1)
            # The last week counts as reached whatever the rounding of the sum.
            reached[:, -1] = 1.0
            week = np.argmax(reached >= share, axis=-1)[:, None]
            weight = np.take_along_axis(weights, week, -1)
            before = np.take_along_axis(reached, week, -1) - weight
            found[block] = (week + (share - before) / weight)[:, 0]
        return found.reshape(shape)

    def half_life(self, **parameters: Any) -> np.ndarray:
        """Weeks from the start of a week of media until half of its whole effect has happened.

        `weeks_until` with share 1/2: 0.5 where there is no carryover (half of the week), and for the geometric adstock
        without end the usual log(1/2) / log(alpha) wherever that is a whole number.

        Args:
            parameters: by name, NumPy or JAX arrays or numbers, of any shapes that broadcast.

        Returns:
            Weeks, float64, of the parameters' broadcast shape.

        Raises:
            UnknownNameError, ArgumentError: as for `weeks_until`.

        >>> Geometric(l_max=None).half_life(alpha=[0.0, 0.5, 0.5**0.5]).round(2)
        array([0.5, 1. , 2. ])
        """
        return self.weeks_until(0.5, **parameters)

    def describe(self) -> dict[str, Any]:
        """What `from_name` makes it from again, its priors apart.

        >>> Delayed(l_max=8).describe()
        {'name': 'delayed', 'l_max': 8, 'normalize': True}
        """
        return {"name": self.name, "l_max": self.l_max, "normalize": self.normalize}

    def plot(
        self, ax: Any = None, period: str = "weeks", *, labels: Sequence[str] | None = None, **parameters: Any
    ) -> Any:
        """Draws the weights by lag, with the half-life marked.

        Up to six parameter values are a line each. More are taken as draws of one curve: their median, and where half
        and 94% of them lie. Without parameters the priors are drawn so.

        Args:
            ax: matplotlib axes; a new figure's when None.
            period: what a step of time is called, in the plural.
            labels: names of the lines, in the order of the parameters' values.
            parameters: by name, numbers or arrays that broadcast.

        Returns:
            The axes.

        Raises:
            UnknownNameError, ArgumentError: as for `half_life`; or another number of labels than of lines.
        """
        values = curves.rows(self, parameters)
        window = self
        if self.l_max is None:
            # Until 97% of the effect, two years at most.
            weeks = np.max(self.weeks_until(0.97, **values), initial=4.0)
            window = replace(self, l_max=int(np.ceil(min(weeks, 104.0))))
        with using("float64"):
            weights = np.asarray(window.weights(**values))
        axes = curves.new_axes(ax)
        whose = "draws" if parameters else "prior"
        curves.draw_weights(axes, weights, self.half_life(**values), curves.row_labels(values, labels), period, whose)
        axes.set_ylabel("share of the effect" if self.normalize else "weight")
        span = "without end" if self.l_max is None else f"{self.l_max} {period}"
        curves.legend(axes, f"{self.name.replace('_', ' ')} adstock, {span}")
        return axes


@dataclass(frozen=True, eq=False, repr=False)
class Geometric(Adstock):
    """w_l = alpha^l: each week keeps the share alpha of the week before.

    Args:
        l_max: weeks in the window; None goes on for ever, y[t] = media[t] + alpha y[t-1].
        normalize: divide by the sum of the weights.
        alpha: prior of the share, on (0, 1).

    Source: Jin et al. 2017, equation (2).

    >>> Geometric(l_max=8)
    Geometric(l_max=8, normalize=True, alpha=Beta(1, 3))
    >>> import numpyro.distributions as dist
    >>> Geometric(alpha=dist.Normal(0.0, 1.0))
    Traceback (most recent call last):
        ...
    pelton.engine.errors.ArgumentError: the prior of alpha of the geometric adstock is Normal(0, 1), with values from \
-inf to inf; they must lie within 0 and 1
    """

    alpha: dist.Distribution = field(default_factory=lambda: dist.Beta(1.0, 3.0))

    name: ClassVar[str] = "geometric"
    _sds: ClassVar[dict[str, float]] = {"alpha": 0.5}

    def _checked_l_max(self) -> int | None:
        return None if self.l_max is None else super()._checked_l_max()

    def total(self, **parameters: Any) -> Array:
        if self.normalize or self.l_max is not None:
            return super().total(**parameters)
        (alpha,) = kernels.as_floats(*self._ordered(parameters))
        return 1.0 / (1.0 - alpha)

    def _weeks_until(self, share: float, *values: np.ndarray) -> np.ndarray:
        if self.l_max is not None:
            return super()._weeks_until(share, *values)
        (alpha,) = values
        # C_n = 1 - alpha^n, and w_n = (1 - alpha) alpha^n.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            weeks = np.floor(np.log1p(-share) / np.log(alpha))
            left = alpha**weeks
            found = weeks + (share - (1.0 - left)) / ((1.0 - alpha) * left)
        return np.where(alpha == 1.0, np.inf, found)


@dataclass(frozen=True, eq=False, repr=False)
class Delayed(Adstock):
    """w_l = alpha^((l - theta)^2): the effect peaks theta weeks after the media.

    Args:
        l_max: weeks in the window, at least 2.
        normalize: divide by the sum of the weights.
        alpha: prior of the retention, on (0, 1).
        theta: prior of the delay in weeks, on (0, l_max - 1); by default TruncatedNormal(1, 1.5) on that interval.

    Source: Jin et al. 2017, equation (3).

    >>> Delayed(l_max=8)
    Delayed(l_max=8, normalize=True, alpha=Beta(2, 2), theta=TruncatedNormal(1, 1.5, low=0, high=7))
    """

    alpha: dist.Distribution = field(default_factory=lambda: dist.Beta(2.0, 2.0))
    theta: dist.Distribution | None = None

    name: ClassVar[str] = "delayed"
    _sds: ClassVar[dict[str, float]] = {"alpha": 0.5, "theta": 0.5}

    def __post_init__(self) -> None:
        if self._checked_l_max() == 1:
            raise ArgumentError("l_max is 1; the delayed adstock needs at least 2 weeks for its peak to move in")
        if self.theta is None:
            object.__setattr__(self, "theta", dist.TruncatedNormal(1.0, 1.5, low=0.0, high=self._window - 1.0))
        super().__post_init__()

    @property
    def supports(self) -> dict[str, tuple[float, float]]:
        return {"alpha": (0.0, 1.0), "theta": (0.0, self._window - 1.0)}


@dataclass(frozen=True, eq=False, repr=False)
class Binomial(Adstock):
    """w_l = (1 - l/(l_max+1))^(1/alpha - 1): a decay that keeps more for the end of the window.

    Args:
        l_max: weeks in the window.
        normalize: divide by the sum of the weights.
        alpha: prior on (0, 1): near 0 no carryover, at 1/2 a straight line, near 1 equal weights.

    Source: `binomial_adstock` of PyMC-Marketing; the binomial decay of Meridian, whose window ends a lag earlier.

    >>> Binomial()
    Binomial(l_max=12, normalize=True, alpha=Beta(1, 5))
    """

    alpha: dist.Distribution = field(default_factory=lambda: dist.Beta(1.0, 5.0))

    name: ClassVar[str] = "binomial"
    _sds: ClassVar[dict[str, float]] = {"alpha": 0.5}


@dataclass(frozen=True, eq=False, repr=False)
class WeibullPdf(Adstock):
    """w_l from the Weibull density at l + 1, rescaled to [0, 1]: an effect that may rise before it falls.

    Args:
        l_max: weeks in the window.
        normalize: then divide by the sum of the weights.
        weibull_scale: prior of the scale in weeks, positive.
        weibull_shape: prior of the shape, positive; above 1 the peak may come later than the first week.

    Source: `weibull_adstock` of PyMC-Marketing, type PDF; Robyn.

    >>> WeibullPdf()
    WeibullPdf(l_max=12, normalize=True, weibull_scale=LogNormal(0.7, 0.5), weibull_shape=LogNormal(0.4, 0.3))
    """

    weibull_scale: dist.Distribution = field(default_factory=lambda: dist.LogNormal(0.7, 0.5))
    weibull_shape: dist.Distribution = field(default_factory=lambda: dist.LogNormal(0.4, 0.3))

    name: ClassVar[str] = "weibull_pdf"
    _sds: ClassVar[dict[str, float]] = {"weibull_scale": 0.3, "weibull_shape": 0.2}


@dataclass(frozen=True, eq=False, repr=False)
class WeibullCdf(Adstock):
    """w_l = prod_{j=1..l} exp(-(j/scale)^shape): each week keeps less and less of the week before.

    Args:
        l_max: weeks in the window.
        normalize: divide by the sum of the weights.
        weibull_scale: prior of the scale in weeks, positive.
        weibull_shape: prior of the shape, positive.

    Source: `weibull_adstock` of PyMC-Marketing, type CDF; Robyn.

    >>> WeibullCdf()
    WeibullCdf(l_max=12, normalize=True, weibull_scale=LogNormal(1, 0.6), weibull_shape=LogNormal(0, 0.3))
    """

    weibull_scale: dist.Distribution = field(default_factory=lambda: dist.LogNormal(1.0, 0.6))
    weibull_shape: dist.Distribution = field(default_factory=lambda: dist.LogNormal(0.0, 0.3))

    name: ClassVar[str] = "weibull_cdf"
    _sds: ClassVar[dict[str, float]] = {"weibull_scale": 0.3, "weibull_shape": 0.2}


ADSTOCKS: dict[str, type[Adstock]] = {
    family.name: family for family in (Geometric, Delayed, Binomial, WeibullPdf, WeibullCdf)
}


def from_name(name: str, **settings: Any) -> Adstock:
    """The adstock of a name in `ADSTOCKS`.

    Args:
        name: geometric, delayed, binomial, weibull_pdf or weibull_cdf.
        settings: l_max, normalize, and priors by parameter name, as distributions or as text.

    Raises:
        UnknownNameError: no such adstock or setting; the message lists the nearest.
        ArgumentError: as for the classes.

    >>> from_name("geometric", l_max=8, alpha="Beta(2, 5)")
    Geometric(l_max=8, normalize=True, alpha=Beta(2, 5))
    >>> from_name(**Geometric(l_max=8).describe()) == Geometric(l_max=8)
    True
    """
    return curves.from_registry(ADSTOCKS, "adstock", name, settings)


class Kind(NamedTuple):
    """A preset of one kind of channel.

    Attributes:
        l_max: weeks; less than a twentieth of the effect comes later, even at the prior's 90th percentile.
        alpha: prior of the geometric alpha, as text.
        why: where it comes from.
    """

    l_max: int
    alpha: str
    why: str


_ROBYN = "Robyn's guide for its decay rate theta"
KINDS: dict[str, Kind] = {
    "search": Kind(
        8,
        "Beta(1, 5)",
        "Search answers people who are about to buy, so that little carries over and none may; 83% of the prior lies "
        f"within 0 and 0.3, {_ROBYN} of digital media.",
    ),
    "social": Kind(
        8,
        "Beta(2, 8)",
        "A post is seen within days, and some who saw it buy later; 80% of the prior lies within 0 and 0.3, "
        f"{_ROBYN} of digital media.",
    ),
    "display": Kind(
        8,
        "Beta(2, 8)",
        f"As social; 80% of the prior lies within 0 and 0.3, {_ROBYN} of digital media.",
    ),
    "video": Kind(
        14,
        "Beta(4, 3)",
        "Television and online video build memory that fades over months; 83% of the prior lies within 0.3 and 0.8, "
        f"{_ROBYN} of TV.",
    ),
    "audio": Kind(
        8,
        "Beta(3, 9)",
        f"Radio, streaming and podcasts; 79% of the prior lies within 0.1 and 0.4, {_ROBYN} of radio.",
    ),
    "out_of_home": Kind(
        8,
        "Beta(3, 9)",
        f"Posters are seen for as long as they hang; 79% of the prior lies within 0.1 and 0.4, {_ROBYN} of "
        "out-of-home media.",
    ),
    "print": Kind(
        8,
        "Beta(3, 9)",
        f"An issue lies about for a while; 79% of the prior lies within 0.1 and 0.4, {_ROBYN} of print.",
    ),
}


def for_kind(kind: str, l_max: int | None = None) -> Geometric:
    """A geometric adstock for weekly data with the preset prior of that kind of channel.

    Args:
        kind: search, social, display, video, audio, out_of_home or print. `KINDS[kind].why` says where its prior comes
            from.
        l_max: weeks in the window; the preset's when None.

    Raises:
        UnknownNameError: no such kind.

    Source: the ranges for theta in the documentation of Robyn's `hyper_names` (TV 0.3 to 0.8; out-of-home, print and
    radio 0.1 to 0.4; digital 0 to 0.3), taken as four fifths of a prior rather than as limits.

    >>> for_kind("video")
    Geometric(l_max=14, normalize=True, alpha=Beta(4, 3))
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of channel", kind, KINDS)
    preset = KINDS[kind]
    return Geometric(l_max=preset.l_max if l_max is None else l_max, alpha=parse(preset.alpha))
