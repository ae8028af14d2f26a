"""What adstock and saturation curves share: priors by parameter name, equality by value, and how they are drawn."""

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar

import jax
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float

from pelton.engine.errors import ArgumentError, UnknownNameError
from pelton.engine.precision import using
from pelton.models.distributions import bounds, identity, parse, scalar, to_text

# Okabe and Ito's colours, darkened for white paper: readers with any colour vision tell them apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b05c8d", "#8a6d00", "#2f8fc4")
INK, MUTED, GRID = "#1b1f24", "#59636e", "#e1e5ea"
# More parameter values than this are taken as draws of one curve: its median and where most of the draws lie.
MOST_LINES = len(COLOURS)
PRIOR_DRAWS = 2000
_INTERVALS = ((0.03, 0.97, "94%", 0.15), (0.25, 0.75, "50%", 0.3))


class Curve(ABC):
    """A family of curves whose parameters have priors, each an attribute of its parameter's name.

    Two curves of one family with equal settings and priors are equal and have one hash, so that a compiled program can
    be looked up by them.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    # By parameter, the default scale of the HalfNormal prior of its standard deviation between geos.
    _sds: ClassVar[dict[str, float]]

    @property
    @abstractmethod
    def supports(self) -> dict[str, tuple[float, float]]:
        """By parameter, the interval that its values lie in."""

    @property
    def parameters(self) -> dict[str, dist.Distribution]:
        """By parameter, the prior of the typical geo's value, on the natural scale."""
        return {name: getattr(self, name) for name in self._sds}

    @property
    def sds(self) -> dict[str, float]:
        """By parameter, the default scale of the HalfNormal prior of its standard deviation between geos.

        On the scale where values are unconstrained: the logarithm of a positive parameter, the logit of one on an
        interval.
        """
        return dict(self._sds)

    def _check_priors(self) -> None:
        for name, (lower, upper) in self.supports.items():
            what = f"the prior of {name} of the {self.name} {self.noun}"
            prior = scalar(getattr(self, name), what)
            low, high = bounds(prior, what)
            if low < lower or high > upper:
                wanted = "be positive" if np.isinf(upper) else f"lie within {lower:g} and {upper:g}"
                raise ArgumentError(
                    f"{what} is {to_text(prior)}, with values from {low:g} to {high:g}; they must {wanted}"
                )
            object.__setattr__(self, name, prior)

    def _ordered(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The parameters' values in the order of their names here."""
        for name in parameters:
            if name not in self._sds:
                raise UnknownNameError(f"parameter of the {self.name} {self.noun}", name, self._sds)
        missing = [name for name in self._sds if name not in parameters]
        if missing:
            raise ArgumentError(
                f"the {self.name} {self.noun} needs {' and '.join(self._sds)}; {' and '.join(missing)} was not given"
            )
        return [parameters[name] for name in self._sds]

    def _as_numbers(self, parameters: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The parameters' values as float64, each within its interval."""
        arrays = {}
        for name, value in zip(self._sds, self._ordered(parameters), strict=True):
            lower, upper = self.supports[name]
            array = np.asarray(value, np.float64)
            bad = array[~((array >= lower) & (array <= upper))]
            if bad.size:
                wanted = "be positive" if np.isinf(upper) else f"lie within {lower:g} and {upper:g}"
                raise ArgumentError(f"{name} of the {self.name} {self.noun} is {bad.flat[0]:g}; it must {wanted}")
            arrays[name] = array
        return arrays

    def _key(self) -> tuple:
        settings = tuple(getattr(self, field.name) for field in _fields(self) if field.name not in self._sds)
        return type(self), settings, identity(*self.parameters.values())

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Curve) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        parts = []
        for field in _fields(self):
            value = getattr(self, field.name)
            parts.append(f"{field.name}={to_text(value) if field.name in self._sds else value}")
        return f"{type(self).__name__}({', '.join(parts)})"


def _fields(curve: Any) -> tuple:
    return fields(curve)


def from_registry(registry: Mapping[str, type], noun: str, name: str, settings: Mapping[str, Any]) -> Any:
    """The curve of that name, priors given as distributions or as text."""
    if name not in registry:
        raise UnknownNameError(noun, name, registry)
    known = [field.name for field in _fields(registry[name])]
    for key in settings:
        if key not in known:
            raise UnknownNameError(f"setting of the {name} {noun}", key, known)
    return registry[name](**{key: parse(value) if isinstance(value, str) else value for key, value in settings.items()})


# Pictures.


def new_axes(axes: Any) -> Any:
    """The axes given, or those of a new figure, with a light grid and no frame above and at the right."""
    if axes is None:
        from matplotlib import pyplot

        _, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    return axes


def rows(curve: Curve, parameters: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Values [row] by parameter, one row a curve to draw: those given, or draws of the priors where none are."""
    if parameters:
        arrays = np.broadcast_arrays(*curve._as_numbers(parameters).values())
        return {name: array.ravel() for name, array in zip(curve.parameters, arrays, strict=True)}
    with using("float64"):
        keys = jax.random.split(jax.random.key(0), len(curve.parameters))
        draws = {
            name: np.asarray(prior.sample(key, (PRIOR_DRAWS,)), np.float64)
            for key, (name, prior) in zip(keys, curve.parameters.items(), strict=True)
        }
    return curve._as_numbers(draws)


def row_labels(values: Mapping[str, np.ndarray], labels: Sequence[str] | None) -> list[str]:
    """A name for each row: the one given, or its parameters."""
    size = len(next(iter(values.values())))
    if labels is None:
        if size > MOST_LINES:
            return []
        return [
            ", ".join(f"{name.replace('_', ' ')} {number(array[row])}" for name, array in values.items())
            for row in range(size)
        ]
    if len(labels) != size:
        raise ArgumentError(f"there are {size} curves and {len(labels)} labels; give one label a curve")
    return list(labels)


def draw_band(axes: Any, x: np.ndarray, values: Float[np.ndarray, "row x"], whose: str, steps: bool) -> None:
    """The median of many curves, and where half of them and 94% of them lie at each x."""
    step = "post" if steps else None
    for low, high, share, opacity in _INTERVALS:
        ends = np.quantile(values, (low, high), axis=0)
        axes.fill_between(x, *ends, step=step, color=COLOURS[0], alpha=opacity, lw=0, label=f"{share} of the {whose}")
    median = np.median(values, axis=0)
    axes.plot(x, median, color=COLOURS[0], lw=2, drawstyle="steps-post" if steps else "default", label="median")


def draw_weights(
    axes: Any,
    weights: Float[np.ndarray, "row lag"],
    half: Float[np.ndarray, " row"],
    labels: Sequence[str],
    period: str,
    whose: str,
) -> None:
    """Weights as steps, lag l from l to l + 1, so that the area to the left of a half-life is half of the whole."""
    steps = np.arange(weights.shape[1] + 1)
    heights = np.append(weights, weights[:, -1:], axis=1)
    if len(half) > MOST_LINES:
        draw_band(axes, steps, heights, whose, steps=True)
        axes.axvline(np.median(half), color=INK, lw=1.2, ls="--", label=duration(half, period))
    else:
        for label, height, weeks, colour in zip(labels, heights, half, COLOURS, strict=False):
            words = f"{label}: {duration(np.array([weeks]), period)}"
            axes.plot(steps, height, color=colour, lw=2, drawstyle="steps-post", label=words)
            if weeks < steps[-1]:
                week = int(weeks)
                mark(axes, weeks, height[week], colour, "o")
                if len(half) == 1:
                    x, y = np.append(steps[: week + 1], weeks), height[[*range(week + 1), week]]
                    axes.fill_between(x, y, step="post", color=colour, alpha=0.18, lw=0, label="half of the effect")
    axes.set_xlim(0, steps[-1])
    axes.set_ylim(0, None)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(f"{period} since the start of the media")


def draw_responses(
    axes: Any,
    x: Float[np.ndarray, " x"],
    response: Float[np.ndarray, "row x"],
    ends: tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]],
    labels: Sequence[str],
    whose: str,
    now: Float[np.ndarray, " row"] | None,
    at_now: Float[np.ndarray, " row"] | None,
) -> None:
    """Responses over media, with marks at half and at 90% of saturation (`ends`, NaN where there is none) and today."""
    half, most = ends
    bounded = not np.isnan(half).any()
    if len(half) > MOST_LINES:
        draw_band(axes, x, response, whose, steps=False)
        if bounded:
            for share, dashes, media in ((0.5, "--", half), (0.9, ":", most)):
                words = f"{_percent(share)} of saturation at {spread(media)}"
                axes.axvline(np.median(media), color=INK, lw=1.2, ls=dashes, label=words)
        if now is not None and at_now is not None:
            words = f"today, {number(now[0])}"
            words += f", is at {_percent(np.median(at_now))}" if bounded else ""
            axes.axvline(now[0], color=COLOURS[1], lw=1.4, label=words)
    else:
        for row, (label, colour) in enumerate(zip(labels, COLOURS, strict=False)):
            words = label
            if bounded:
                words += f": half at {number(half[row])}, 90% at {number(most[row])}"
            if now is not None and at_now is not None:
                words += f"; today, {number(now[row])}" + (f", is at {_percent(at_now[row])}" if bounded else "")
                axes.plot(now[row], at_now[row], color=colour, marker="D", ms=7, mec="white", ls="none", zorder=5)
            axes.plot(x, response[row], color=colour, lw=2, label=textwrap.fill(words, 62))
            for share, marker, media in ((0.5, "o", half[row]), (0.9, "s", most[row])):
                if media <= x[-1]:
                    mark(axes, media, share, colour, marker)
    axes.set_xlim(0, x[-1])
    axes.set_ylim(0, 1.02 if bounded else None)
    axes.xaxis.set_major_formatter(lambda value, _: number(value, 10))
    if bounded:
        shares = np.array([0, 0.25, 0.5, 0.75, 0.9, 1])
        axes.set_yticks(shares, labels=[_percent(share) for share in shares])
        axes.set_ylabel("response, of its maximum")
    else:
        axes.set_ylabel("response, where that to 1 is 1")


def _percent(share: float) -> str:
    return f"{share:.0%}"


def mark(axes: Any, x: float, y: float, colour: str, marker: str) -> None:
    """A point on a curve, with a line down to the axis."""
    axes.plot([x, x], [0, y], color=colour, lw=1, ls=":")
    axes.plot([x], [y], color=colour, marker=marker, markersize=6.5, markeredgecolor="white", ls="none", zorder=4)


def legend(axes: Any, title: str) -> None:
    """Names of the lines above the axes, where they cover nothing."""
    drawn = axes.legend(
        title=title,
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        borderaxespad=0,
        frameon=False,
        alignment="left",
        fontsize=9,
    )
    drawn.get_title().set_fontweight("bold")


def number(value: float, digits: int = 3) -> str:
    """Three significant digits, written out.

    >>> number(0.123456), number(12345.0), number(2.0)
    ('0.123', '12,300', '2')
    """
    return f"{float(f'{value:.{digits}g}'):,.10g}"


def duration(half: np.ndarray, period: str) -> str:
    """A half-life, or the median half-life of draws and where 94% of them lie.

    >>> duration(np.array([0.625]), "weeks"), duration(np.linspace(1.0, 2.0, 101), "weeks")
    ('half-life 0.6 weeks', 'half-life 1.5 weeks (94%: 1.0 to 2.0)')
    >>> duration(np.array([np.inf]), "weeks")
    'the effect never ends'
    """
    if np.isinf(np.median(half)):
        return "the effect never ends"
    words = f"half-life {np.median(half):,.1f} {period}"
    if len(half) > 1:
        low, high = np.quantile(half, (0.03, 0.97), method="inverted_cdf")
        words += f" (94%: {low:,.1f} to {high:,.1f})"
    return words


def spread(values: np.ndarray) -> str:
    """The median of draws and where 94% of them lie, in two significant digits.

    >>> spread(np.arange(101.0))
    '50 (94%: 3 to 97)'
    """
    low, middle, high = np.quantile(values, (0.03, 0.5, 0.97), method="inverted_cdf")
    return f"{number(middle, 2)} (94%: {number(low, 2)} to {number(high, 2)})"
