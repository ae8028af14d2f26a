"""The baseline of a media mix: intercept, trend, seasonality, controls and events as columns of one design."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array

from pelton.engine.arguments import whole
from pelton.engine.errors import UnknownNameError

DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class Part:
    """Columns of the design that share a name and a kind of prior.

    Attributes:
        name: intercept, trend, seasonality, control or event.
        terms: names of the columns.
        design: [time, term] or [geo, time, term].
        prior: default prior of a coefficient, in units of the geo's mean target.
        sd: default scale of the half-normal prior of its between-geo standard deviation.
    """

    name: str
    terms: tuple[str, ...]
    design: np.ndarray
    prior: dist.Distribution
    sd: float


class Trend(ABC):
    """A slow movement of the baseline, a sum of columns over the calendar's time u from -1/2 to 1/2."""

    name: ClassVar[str]

    @abstractmethod
    def part(self, time: np.ndarray) -> Part:
        """The columns at times u [time]."""

    def scale(self) -> Array | float:
        """What the coefficients are multiplied by [term]; samples the trend's own hyperparameters, if it has any."""
        return 1.0

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The positive hyperparameters that `scale` samples, and a middling value of each."""
        return {}


@dataclass(frozen=True)
class LinearTrend(Trend):
    """A straight line: beta u, the change from the first date to the last in units of the mean target."""

    name: ClassVar[str] = "linear"

    def part(self, time: np.ndarray) -> Part:
        return Part("trend", ("trend",), time[:, None], dist.Normal(0.0, 0.3), 0.15)


@dataclass(frozen=True)
class PiecewiseTrend(Trend):
    """A line whose slope changes at evenly spaced dates: beta u + sum_j delta_j max(u - u_j, 0).

    Attributes:
        changepoints: how many changes of slope, at least 1.

    Source: Taylor & Letham 2018 (Forecasting at scale), section 3.1, with normal changes of slope.
    """

    changepoints: int = 5
    name: ClassVar[str] = "piecewise"

    def __post_init__(self) -> None:
        whole("changepoints", self.changepoints, 1)

    def part(self, time: np.ndarray) -> Part:
        knots = np.linspace(-0.5, 0.5, self.changepoints + 2)[1:-1]
        hinges = np.maximum(time[:, None] - knots, 0.0)
        terms = ("trend", *(f"trend_change_{j + 1}" for j in range(self.changepoints)))
        return Part("trend", terms, np.column_stack([time, hinges]), dist.Normal(0.0, 0.3), 0.15)


@dataclass(frozen=True)
class GaussianProcessTrend(Trend):
    """A smooth curve: a Gaussian process of squared-exponential kernel, by its first `basis` Hilbert-space functions.

    f(u) = sum_j sqrt(S(w_j)) beta_j phi_j(u),   phi_j(u) = sqrt(1/L) sin(w_j (u + L)),   w_j = j pi / (2 L),
    S(w) = a^2 sqrt(2 pi) l exp(-l^2 w^2 / 2), with L = 3/4: the process holds to half of the span beyond the data.

    a ~ HalfNormal(0.2) is the amplitude in units of the mean target and l ~ LogNormal(-1.2, 0.4) the length scale as a
    share of the calendar (median 0.3; shorter ones would take the seasons and the campaigns for a trend).

    Attributes:
        basis: how many functions, at least 3.

    Source: Riutort-Mayol et al. 2023 (Practical Hilbert space approximate Bayesian Gaussian processes).
    """

    basis: int = 12
    name: ClassVar[str] = "gp"

    def __post_init__(self) -> None:
        whole("basis", self.basis, 3)

    @property
    def _frequencies(self) -> np.ndarray:
        return np.arange(1, self.basis + 1) * np.pi / (2 * _BOUNDARY)

    def part(self, time: np.ndarray) -> Part:
        columns = np.sqrt(1 / _BOUNDARY) * np.sin(self._frequencies * (time[:, None] + _BOUNDARY))
        terms = tuple(f"trend_{j + 1}" for j in range(self.basis))
        return Part("trend", terms, columns, dist.Normal(0.0, 1.0), 0.5)

    def scale(self) -> Array:
        amplitude: Any = numpyro.sample("trend_amplitude", dist.HalfNormal(0.2))
        length: Any = numpyro.sample("trend_length_scale", dist.LogNormal(-1.2, 0.4))
        density = amplitude**2 * np.sqrt(2 * np.pi) * length * jnp.exp(-0.5 * (length * self._frequencies) ** 2)
        return jnp.sqrt(density)

    @property
    def hyperparameters(self) -> dict[str, float]:
        return {"trend_amplitude": 0.1, "trend_length_scale": 0.3}


_BOUNDARY = 0.75
TRENDS: dict[str, type[Trend]] = {cls.name: cls for cls in (LinearTrend, PiecewiseTrend, GaussianProcessTrend)}


def as_trend(trend: "str | Trend | None") -> Trend | None:
    """The trend of that name.

    Raises:
        UnknownNameError: no trend is called that.

    >>> as_trend("piecewise")
    PiecewiseTrend(changepoints=5)
    """
    if trend is None or isinstance(trend, Trend):
        return trend
    if trend not in TRENDS:
        raise UnknownNameError("trend", str(trend), TRENDS)
    return TRENDS[trend]()


def fourier(dates: np.ndarray, order: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Yearly sines and cosines: sin(2 pi n d / 365.25), cos(2 pi n d / 365.25), n = 1..order, d days since 1970.

    Args:
        dates: datetime64 [time].
        order: how many frequencies.

    Returns:
        Names of the columns, and the columns [time, 2 order].

    >>> names, columns = fourier(np.array(["1970-01-01", "1970-07-02"], "datetime64[D]"), 1)
    >>> names, columns.round(2).tolist()
    (('sin_1', 'cos_1'), [[0.0, 1.0], [0.01, -1.0]])
    """
    days = (dates - np.datetime64("1970-01-01", "D")).astype("timedelta64[D]").astype(float)
    angle = 2 * np.pi * np.outer(days / DAYS_A_YEAR, np.arange(1, order + 1))
    names = [f"{wave}_{n}" for n in range(1, order + 1) for wave in ("sin", "cos")]
    columns = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(days), 2 * order)
    return tuple(names), columns


@dataclass(frozen=True)
class Baseline:
    """Every part of the baseline, joined.

    Attributes:
        parts: in the order of the design's columns.
        design: [geo, time, term].
    """

    parts: tuple[Part, ...]
    design: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, panel: Any, trend: Trend | None, seasonality: int) -> "Baseline":
        """The design of a panel.

        Args:
            panel: a Panel.
            trend: the trend's form, or None.
            seasonality: yearly Fourier order, 0 for none.
        """
        whole("seasonality", seasonality, 0)
        geos, times = panel.target.shape
        parts = [Part("intercept", ("intercept",), np.ones((times, 1)), dist.Normal(0.5, 0.5), 0.3)]
        if trend is not None:
            parts.append(trend.part(np.linspace(-0.5, 0.5, times) if times > 1 else np.zeros(times)))
        if seasonality:
            names, columns = fourier(panel.dates, seasonality)
            parts.append(Part("seasonality", names, columns, dist.Normal(0.0, 0.2), 0.1))
        if panel.control_names:
            standard = (panel.controls - panel.control_mean) / panel.control_scale
            # Outside a geo's own weeks there is nothing to predict.
            standard = np.where(panel.inside[..., None], standard, 0.0)
            parts.append(Part("control", tuple(panel.control_names), standard, dist.Normal(0.0, 0.3), 0.15))
        if panel.event_names:
            parts.append(Part("event", tuple(panel.event_names), panel.events, dist.Normal(0.0, 0.5), 0.2))
        full = [np.broadcast_to(part.design, (geos, times, len(part.terms))) for part in parts]
        return cls(tuple(parts), np.concatenate(full, axis=-1))

    @property
    def terms(self) -> tuple[str, ...]:
        """A name for each column, each once: two parts may share a column's name."""
        return tuple(
            f"{part.name}[{term}]" if part.name in ("control", "event", "seasonality") else term
            for part in self.parts
            for term in part.terms
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The part that each column belongs to."""
        return tuple(part.name for part in self.parts for _ in part.terms)
