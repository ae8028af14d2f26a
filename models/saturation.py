"""Saturation as objects: how the response to media flattens, with priors for the parameters and pictures.

    saturation = pelton.saturation.Hill(slope=dist.LogNormal(0.0, 0.2))
    saturation.inverse(0.9, half_saturation=3.0, slope=1.0)   # media at 90% of saturation
    saturation.plot(today=1.4, half_saturation=3.0, slope=1.0)   # or plot() for what the prior says
    pelton.saturation.for_kind("video")

Priors speak of media scaled so that a typical active week is 1: the mean over the weeks with any. `unscale` takes the
parameters to the units of the data. Each prior puts the median of the media at half of saturation at that typical week,
and nine tenths of them between a third of it and three times as much.

| class | name | response | parameter | prior of the typical geo | sd between geos |
|---|---|---|---|---|---|
| Hill | hill | x^s / (x^s + k^s) | half_saturation | LogNormal(0, 0.7) | HalfNormal(0.3) of the log |
| | | | slope | LogNormal(0.2, 0.4) | HalfNormal(0.2) of the log |
| Exponential | exponential | 1 - exp(-rate x) | rate | LogNormal(-0.37, 0.7) | HalfNormal(0.3) of the log |
| Logistic | logistic | tanh(rate x / 2) | rate | LogNormal(0.09, 0.7) | HalfNormal(0.3) of the log |
| MichaelisMenten | michaelis_menten | x / (k + x) | half_saturation | LogNormal(0, 0.7) | HalfNormal(0.3) of the log |
| Tanh | tanh | tanh(x / c) | tanh_scale | LogNormal(0.6, 0.7) | HalfNormal(0.3) of the log |
| Root | root | x^p | power | Beta(2, 2) | HalfNormal(0.3) of the logit |

The half-saturation's prior is close to Meridian's TruncatedNormal(0.8, 0.8, low=0.1, high=10) of media over their
median, and all but 3% of the slope's lie in Robyn's range of 0.5 to 3. A root has no bound, and so no half-saturation.

The formulas' sources: `pelton.kernels.saturation`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from pelton.engine.errors import ArgumentError, UnknownNameError
from pelton.engine.precision import using
from pelton.kernels import saturation as kernels
from pelton.models import curves
from pelton.models.distributions import parse


@dataclass(frozen=True, eq=False, repr=False)
class Saturation(curves.Curve):
    """How the response to media flattens, as a share of its maximum.

    Raises:
        ArgumentError: a prior with the wrong support.
    """

    noun: ClassVar[str] = "saturation"

    def __post_init__(self) -> None:
        self._check_priors()

    @property
    def supports(self) -> dict[str, tuple[float, float]]:
        return {name: (0.0, 1.0) if name == "power" else (0.0, np.inf) for name in self._sds}

    def apply(self, x: Any, **parameters: Any) -> Array:
        """The response to media, element by element.

        Args:
            x: media, zero or more; the unit of the parameters.
            parameters: by name, of shapes that broadcast with x; traced or not.

        Returns:
            Of the broadcast shape; between 0 and 1, but for the root, which has no bound.

        Raises:
            UnknownNameError, ArgumentError: a parameter that there is not, or that is missing.

        >>> Hill().apply(np.array([0.0, 2.0]), half_saturation=2.0, slope=1.5)
        Array([0. , 0.5], dtype=float32)
        """
        # A family and its kernel have one name.
        return getattr(kernels, self.name)(x, *self._ordered(parameters))

    @abstractmethod
    def _unscaled(self, scale: Any, *values: Any) -> tuple[tuple[Any, ...], Any]:
        """The parameters in order for media times scale, and the factor of the coefficient."""

    @abstractmethod
    def _inverted(self, share: np.ndarray, *values: np.ndarray) -> Any:
        """Media at a share of the maximum, given the parameters in order."""

    def unscale(self, scale: Any, **parameters: Any) -> tuple[dict[str, Any], Any]:
        """The parameters in raw media units, from those of media divided by a scale.

        With (raw, factor) the result, for every x: apply(x / scale, **parameters) = factor * apply(x, **raw).

        Args:
            scale: raw media units in one scaled unit, positive.
            parameters: by name, for scaled media, of shapes that broadcast with scale; traced or not.

        Returns:
            The parameters by name in raw units, and what to multiply the coefficient by: 1, but for the root.

        Raises:
            UnknownNameError, ArgumentError: as for `apply`.

        >>> Hill().unscale(200.0, half_saturation=1.5, slope=2.0)
        ({'half_saturation': 300.0, 'slope': 2.0}, 1.0)
        >>> Root().unscale(100.0, power=0.5)
        ({'power': 0.5}, 0.1)
        """
        values, factor = self._unscaled(scale, *self._ordered(parameters))
        return dict(zip(self._sds, values, strict=True)), factor

    def inverse(self, share: Any, **parameters: Any) -> np.ndarray:
        """Media at which the response is that share of its maximum: at 0.5 half of saturation, at 0.9 nine tenths.

        The root has no maximum: NaN.

        Args:
            share: above 0 and below 1; a number or an array.
            parameters: by name, NumPy or JAX arrays or numbers, of shapes that broadcast with share.

        Returns:
            Media in the unit of the parameters, float64, of the broadcast shape.

        Raises:
            UnknownNameError, ArgumentError: as for `apply`; or a share or a parameter out of its range.

        >>> Hill().inverse([0.5, 0.9], half_saturation=100.0, slope=2.0).round(1)
        array([100., 300.])
        """
        share = np.asarray(share, np.float64)
        bad = share[~((share > 0) & (share < 1))]
        if bad.size:
            raise ArgumentError(f"share is {bad.flat[0]:g}; it must lie above 0 and below 1")
        arrays = np.broadcast_arrays(share, *self._as_numbers(parameters).values())
        # A rate or a slope of 0 never gets there: infinite.
        with np.errstate(divide="ignore", over="ignore"):
            return np.asarray(self._inverted(*arrays))

    def describe(self) -> dict[str, Any]:
        """What `from_name` makes it from again, its priors apart.

        >>> Hill().describe()
        {'name': 'hill'}
        """
        return {"name": self.name}

    def plot(
        self,
        ax: Any = None,
        today: Any = None,
        *,
        unit: str = "media",
        labels: Sequence[str] | None = None,
        **parameters: Any,
    ) -> Any:
        """Draws the response to media, with half and 90% of saturation marked.

        Up to six parameter values are a line each. More are taken as draws of one curve: their median, and where half
        and 94% of them lie. Without parameters the priors are drawn so, on media of which a typical week is 1.

        Args:
            ax: matplotlib axes; a new figure's when None.
            today: media now, marked on the curves; one number, or one a line.
            unit: of the media, on the axis.
            labels: names of the lines, in the order of the parameters' values.
            parameters: by name, numbers or arrays that broadcast.

        Returns:
            The axes.

        Raises:
            UnknownNameError, ArgumentError: as for `inverse`; or another number of labels or of today's media than of
                lines.
        """
        values = curves.rows(self, parameters)
        names = curves.row_labels(values, labels)
        half, most = self.inverse(0.5, **values), self.inverse(0.9, **values)
        now = _today(today, len(half))
        reach = _reach(half, most, now)
        x = np.linspace(0.0, reach, 401)
        columns = {name: value[:, None] for name, value in values.items()}
        with using("float64"):
            response = np.asarray(self.apply(x, **columns))
            at_now = None if now is None else np.asarray(self.apply(now[:, None], **columns))[:, 0]
        axes = curves.new_axes(ax)
        whose = "draws" if parameters else "prior"
        curves.draw_responses(axes, x, response, (half, most), names, whose, now, at_now)
        axes.set_xlabel(unit if parameters else "media, where a typical active week is 1")
        curves.legend(axes, f"{self.name.replace('_', ' ')} saturation")
        return axes


def _today(today: Any, size: int) -> np.ndarray | None:
    if today is None:
        return None
    now = np.asarray(today, np.float64).ravel()
    if now.size != 1 and (now.size != size or size > curves.MOST_LINES):
        raise ArgumentError(f"today has {now.size} values, and there are {size} curves; give one, or one a line")
    bad = now[~((now >= 0) & np.isfinite(now))]
    if bad.size:
        raise ArgumentError(f"today is {bad[0]:g}; media are finite numbers, zero or more")
    return np.broadcast_to(now, (size,))


def _reach(half: np.ndarray, most: np.ndarray, now: np.ndarray | None) -> float:
    """How far to draw: past today, and to 90% of saturation where that is not too far away."""
    middle, end = (np.median(v) if len(half) > curves.MOST_LINES else np.max(v) for v in (half, most))
    reach = 2.0 if np.isnan(middle) else min(1.15 * end, 5.0 * middle)
    reach = max(reach, 0.0 if now is None else 1.25 * float(now.max()))
    return float(reach) if np.isfinite(reach) and reach > 0 else 2.0


@dataclass(frozen=True, eq=False, repr=False)
class Hill(Saturation):
    """x^s / (x^s + k^s): half of the maximum at media k, S-shaped where the slope s is above 1.

    Args:
        half_saturation: prior of k, positive.
        slope: prior of s, positive.

    Source: Jin et al. 2017, equation (5).

    >>> Hill()
    Hill(half_saturation=LogNormal(0, 0.7), slope=LogNormal(0.2, 0.4))
    """

    half_saturation: dist.Distribution = field(default_factory=lambda: dist.LogNormal(0.0, 0.7))
    slope: dist.Distribution = field(default_factory=lambda: dist.LogNormal(0.2, 0.4))

    name: ClassVar[str] = "hill"
    _sds: ClassVar[dict[str, float]] = {"half_saturation": 0.3, "slope": 0.2}

    def _unscaled(self, scale: Any, *values: Any) -> tuple[tuple[Any, ...], Any]:
        half_saturation, slope = values
        return (half_saturation * scale, slope), 1.0

    def _inverted(self, share: np.ndarray, *values: np.ndarray) -> Any:
        half_saturation, slope = values
        return half_saturation * (share / (1.0 - share)) ** (1.0 / slope)


@dataclass(frozen=True, eq=False, repr=False)
class Exponential(Saturation):
    """1 - exp(-rate x): steepest at the first unit of media.

    Args:
        rate: prior of the rate, in one over the unit of media, positive.

    >>> Exponential()
    Exponential(rate=LogNormal(-0.37, 0.7))
    """

    rate: dist.Distribution = field(default_factory=lambda: dist.LogNormal(-0.37, 0.7))

    name: ClassVar[str] = "exponential"
    _sds: ClassVar[dict[str, float]] = {"rate": 0.3}

    def _unscaled(self, scale: Any, *values: Any) -> tuple[tuple[Any, ...], Any]:
        return (values[0] / scale,), 1.0

    def _inverted(self, share: np.ndarray, *values: np.ndarray) -> Any:
        return -np.log1p(-share) / values[0]


@dataclass(frozen=True, eq=False, repr=False)
class Logistic(Saturation):
    """(1 - exp(-rate x)) / (1 + exp(-rate x)) = tanh(rate x / 2).

    Args:
        rate: prior of the rate, in one over the unit of media, positive.

    Source: `logistic_saturation` of PyMC-Marketing.

    >>> Logistic()
    Logistic(rate=LogNormal(0.09, 0.7))
    """

    rate: dist.Distribution = field(default_factory=lambda: dist.LogNormal(0.09, 0.7))

    name: ClassVar[str] = "logistic"
    _sds: ClassVar[dict[str, float]] = {"rate": 0.3}

    def _unscaled(self, scale: Any, *values: Any) -> tuple[tuple[Any, ...], Any]:
        return (values[0] / scale,), 1.0

    def _inverted(self, share: np.ndarray, *values: np.ndarray) -> Any:
        return 2.0 * np.arctanh(share) / values[0]


@dataclass(frozen=True, eq=False, repr=False)
class MichaelisMenten(Saturation):
    """x / (k + x): the Hill curve of slope 1, half of the maximum at media k.

    Args:
        half_saturation: prior of k, positive.

    Source: `michaelis_menten` of PyMC-Marketing.

    >>> MichaelisMenten()
    MichaelisMenten(half_saturation=LogNormal(0, 0.7))
    """

    half_saturation: dist.Distribution = field(default_factory=lambda: dist.LogNormal(0.0, 0.7))

    name: ClassVar[str] = "michaelis_menten"
    _sds: ClassVar[dict[str, float]] = {"half_saturation": 0.3}

    def _unscaled(self, scale: Any, *values: Any) -> tuple[tuple[Any, ...], Any]:
        return (values[0] * scale,), 1.0

    def _inverted(self, share: np.ndarray, *values: np.ndarray) -> Any:
        return values[0] * (share / (1.0 - share))


@dataclass(frozen=True, eq=False, repr=False)
class Tanh(Saturation):
    """tanh(x / c): nearly straight up to half of the maximum.

    Args:
        tanh_scale: prior of c, in the unit of media, positive.

    Source: `tanh_saturation` of PyMC-Marketing, with its b = 1.

    >>> Tanh()
    Tanh(tanh_scale=LogNormal(0.6, 0.7))
    """

    tanh_scale: dist.Distribution = field(default_factory=lambda: dist.LogNormal(0.6, 0.7))

    name: ClassVar[str] = "tanh"
    _sds: ClassVar[dict[str, float]] = {"tanh_scale": 0.3}

    def _unscaled(self, scale: Any, *values: Any) -> tuple[tuple[Any, ...], Any]:
        return (values[0] * scale,), 1.0

    def _inverted(self, share: np.ndarray, *values: np.ndarray) -> Any:
        return values[0] * np.arctanh(share)


@dataclass(frozen=True, eq=False, repr=False)
class Root(Saturation):
    """x^p: it flattens, and has no maximum; the coefficient is the response to one unit of media.

    Args:
        power: prior of p, on (0, 1).

    Source: `root_saturation` of PyMC-Marketing.

    >>> Root()
    Root(power=Beta(2, 2))
    """

    power: dist.Distribution = field(default_factory=lambda: dist.Beta(2.0, 2.0))

    name: ClassVar[str] = "root"
    _sds: ClassVar[dict[str, float]] = {"power": 0.3}

    def _unscaled(self, scale: Any, *values: Any) -> tuple[tuple[Any, ...], Any]:
        return values, scale ** -values[0]

    def _inverted(self, share: np.ndarray, *values: np.ndarray) -> Any:
        return np.full(share.shape, np.nan)


SATURATIONS: dict[str, type[Saturation]] = {
    family.name: family for family in (Hill, Exponential, Logistic, MichaelisMenten, Tanh, Root)
}


def from_name(name: str, **settings: Any) -> Saturation:
    """The saturation of a name in `SATURATIONS`.

    Args:
        name: hill, exponential, logistic, michaelis_menten, tanh or root.
        settings: priors by parameter name, as distributions or as text.

    Raises:
        UnknownNameError: no such saturation or parameter; the message lists the nearest.
        ArgumentError: as for the classes.

    >>> from_name("hill", slope="LogNormal(0, 0.2)")
    Hill(half_saturation=LogNormal(0, 0.7), slope=LogNormal(0, 0.2))
    """
    return curves.from_registry(SATURATIONS, "saturation", name, settings)


class Kind(NamedTuple):
    """A preset of one kind of channel.

    Attributes:
        half_saturation: prior on media of which a typical active week is 1, as text.
        slope: prior of the Hill slope, as text.
        why: where it comes from.
    """

    half_saturation: str
    slope: str
    why: str


KINDS: dict[str, Kind] = {
    "search": Kind(
        "LogNormal(0, 0.7)",
        "LogNormal(0, 0.3)",
        "The likeliest buyers are served first and there are only so many queries: flattening from the first unit.",
    ),
    "social": Kind(
        "LogNormal(0, 0.7)",
        "LogNormal(0.1, 0.3)",
        "Auctions sell the likeliest buyers first, and reach then costs more: flattening nearly from the first unit.",
    ),
    "display": Kind(
        "LogNormal(0, 0.7)",
        "LogNormal(0.1, 0.3)",
        "Bought in the same auctions as social.",
    ),
    "video": Kind(
        "LogNormal(0.2, 0.7)",
        "LogNormal(0.5, 0.4)",
        "Few exposures leave no memory: S-shaped, with room above the typical week.",
    ),
    "audio": Kind(
        "LogNormal(0.2, 0.7)",
        "LogNormal(0.3, 0.4)",
        "As video, less marked: listeners hear a spot often even in a small flight.",
    ),
    "out_of_home": Kind(
        "LogNormal(0, 0.7)",
        "LogNormal(0.3, 0.4)",
        "A few posters go unnoticed; past a network of them the same people pass by again.",
    ),
    "print": Kind(
        "LogNormal(0, 0.7)",
        "LogNormal(0.2, 0.4)",
        "Readership bounds the reach of an issue; nothing more is known, so the priors of `Hill` itself.",
    ),
}


def for_kind(kind: str) -> Hill:
    """A Hill curve with the preset priors of that kind of channel.

    Args:
        kind: search, social, display, video, audio, out_of_home or print. `KINDS[kind].why` says why.

    Raises:
        UnknownNameError: no such kind.

    No figures by kind are published that we know of. The slopes are a judgement of how much exposure a first sale
    takes, nearly all in the range of 0.5 to 3 that Robyn's documentation of `hyper_names` gives for every channel.

    >>> for_kind("search")
    Hill(half_saturation=LogNormal(0, 0.7), slope=LogNormal(0, 0.3))
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of channel", kind, KINDS)
    preset = KINDS[kind]
    return Hill(half_saturation=parse(preset.half_saturation), slope=parse(preset.slope))
