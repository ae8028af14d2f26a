"""What the kernels benchmark compares: each kernel's data, its straightforward compositions, its exact gradient.

A case asks for a loss and its gradient. Of a kernel on a panel that is half the sum of squared errors, and its exact
gradient that of the plain formula in NumPy's float64 by complex steps; of counts it is the log-likelihood, and the
exact one a sum of logarithms, one for each success and trial, in NumPy's longest floats. Neither uses kernels or JAX.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pelton.engine.errors import UnknownNameError
from pelton.engine.precision import Precision
from pelton.kernels import adstock, beta_binomial, media, saturation

OURS = "pelton"
# Of the complex steps: its square is nothing beside 1.
STEP = 1e-30
WINDOW, LONG_WINDOW = 13, 52
# The arrays of the histograms' `CountTables`, in its order.
_TABLES = ("total_successes", "total_failures", "successes_table", "failures_table", "trials_table")

type Arrays = Mapping[str, np.ndarray]
type Gradient = tuple[np.ndarray, ...]


class Way(NamedTuple):
    """A way to compute a case's loss: by JAX from (parameters, data), or already with its gradient, from all arrays."""

    reads: tuple[str, ...]
    loss: Callable[[Any, Any], Any] | None = None
    plain: Callable[[Arrays], Gradient] | None = None


@dataclass(frozen=True)
class Case:
    """A kernel on its data.

    Attributes:
        name: in the command line.
        title: in tables.
        precision: of the arrays and of JAX.
        arrays: data, and the values of the parameters.
        wrt: what the gradient is taken by, in its order.
        elements: of the largest array; costs are given an element.
        ways: label to way, pelton's first.
        exact: the loss and its gradient.
        peer: what a peer's program needs to build the same; None where peers have no such function.
    """

    name: str
    title: str
    precision: Precision
    arrays: Arrays
    wrt: tuple[str, ...]
    elements: int
    ways: Mapping[str, Way]
    exact: Callable[[], Gradient]
    peer: Mapping[str, Any] | None = None

    def least_bytes(self, way: str) -> int:
        """What must be moved at the least: all that is read once, the loss and the gradient written once."""
        written = [self.arrays[name] for name in self.wrt]
        read = [self.arrays[name] for name in dict.fromkeys((*self.wrt, *self.ways[way].reads))]
        return sum(array.nbytes for array in read + written) + np.dtype(self.precision).itemsize


@dataclass(frozen=True)
class Formula:
    """A carryover's weights or a saturation curve, written out for NumPy and JAX alike.

    Attributes:
        value: (numpy or jax.numpy, lags or spend, *parameters) -> weights or response.
        ranges: of the parameters' simulated values.
    """

    value: Callable[..., Any]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def _weibull_pdf(xp: Any, lags: Any, scale: Any, shape: Any) -> Any:
    t = (lags + 1.0) / scale
    density = shape / scale * t ** (shape - 1.0) * xp.exp(-(t**shape))
    least, most = density.min(-1, keepdims=True), density.max(-1, keepdims=True)
    return (density - least) / (most - least)


def _weibull_cdf(xp: Any, lags: Any, scale: Any, shape: Any) -> Any:
    survival = xp.exp(-((xp.where(lags > 0, lags, 1.0) / scale) ** shape))
    return xp.cumprod(xp.where(lags > 0, survival, 1.0), -1)


_RETENTION = {"alpha": (0.1, 0.9)}
_WEIBULL = {"scale": (1.0, 6.0), "shape": (0.7, 2.5)}
WEIGHTS = {
    "geometric": Formula(lambda xp, lags, alpha: alpha**lags, _RETENTION),
    "delayed": Formula(
        lambda xp, lags, alpha, theta: alpha ** ((lags - theta) ** 2), {**_RETENTION, "theta": (0.0, 4.0)}
    ),
    "binomial": Formula(
        lambda xp, lags, alpha: (1.0 - lags / (lags.shape[-1] + 1.0)) ** (1.0 / alpha - 1.0), _RETENTION
    ),
    "weibull_pdf": Formula(_weibull_pdf, _WEIBULL),
    "weibull_cdf": Formula(_weibull_cdf, _WEIBULL),
}
_POINT, _RATE = {"half_saturation": (0.5, 2.0)}, {"rate": (0.3, 2.0)}
CURVES = {
    "hill": Formula(lambda xp, x, k, s: x**s / (x**s + k**s), {**_POINT, "slope": (1.0, 3.0)}),
    "exponential": Formula(lambda xp, x, rate: 1.0 - xp.exp(-rate * x), _RATE),
    "logistic": Formula(lambda xp, x, rate: (1.0 - xp.exp(-rate * x)) / (1.0 + xp.exp(-rate * x)), _RATE),
    "michaelis_menten": Formula(lambda xp, x, k: x / (x + k), _POINT),
    "tanh": Formula(lambda xp, x, scale: xp.tanh(x / scale), {"scale": (0.5, 2.0)}),
    "root": Formula(lambda xp, x, power: x**power, {"power": (0.3, 0.9)}),
}


def stacked_lags(spend: Any, weights: Any) -> Any:
    """The obvious sum over lags: the series laid beside itself, a lag each on a new axis."""
    window, weeks = weights.shape[-1], spend.shape[-2]
    padded = jnp.pad(spend, ((0, 0), (window - 1, 0), (0, 0)))
    lags = jnp.stack([padded[:, window - 1 - lag : window - 1 - lag + weeks] for lag in range(window)], -1)
    return (lags * weights[:, None]).sum(-1)


def depthwise_convolution(spend: Any, weights: Any) -> Any:
    """One convolution with a group for each geo and channel."""
    geos, weeks, channels = spend.shape
    window = weights.shape[-1]
    x = lax.conv_general_dilated(
        spend.transpose(1, 0, 2).reshape(1, weeks, geos * channels),
        weights.reshape(geos * channels, window).T[::-1, None],
        window_strides=(1,),
        padding=[(window - 1, 0)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=geos * channels,
        precision=lax.Precision.HIGHEST,
    )
    return x.reshape(weeks, geos, channels).transpose(1, 0, 2)


def _slid(spend: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sum over lags in NumPy, a lag after another."""
    total = weights[:, None, :, 0] * spend
    for lag in range(1, min(weights.shape[-1], spend.shape[-2])):
        total[:, lag:] += weights[:, None, :, lag] * spend[:, :-lag]
    return total


def _response(
    xp: Any, over_lags: Callable[..., Any], names: tuple[str | None, str | None], window: int, values: Mapping[str, Any]
) -> Any:
    """The plain formula: adstock, then saturation, then the coefficients, of which a case has one, two or all."""
    carryover, curve = names
    x = values["spend"]
    if carryover is not None:
        formula = WEIGHTS[carryover]
        lags = xp.arange(window).astype(x.dtype)
        weights = formula.value(xp, lags, *(values[name][..., None] for name in formula.ranges))
        x = over_lags(x, weights / weights.sum(-1, keepdims=True))
    if curve is not None:
        formula = CURVES[curve]
        x = formula.value(xp, x, *(values[name][:, None] for name in formula.ranges))
    return values["coef"][:, None] * x if "coef" in values else x


def _exact_panel(arrays: Arrays, wrt: tuple[str, ...], respond: Callable[[Mapping[str, np.ndarray]], Any]) -> Gradient:
    """Half the sum of squared errors; a complex step in a parameter of all cells at once, since none has two cells."""
    values = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    response = respond(values)
    summed = values["target"].ndim < response.ndim
    error = (response.sum(-1) if summed else response) - values["target"]
    cotangent = error[..., None] if summed else error
    found = [np.asarray(0.5 * (error * error).sum())]
    for name in wrt:
        slope = cotangent * np.imag(respond(values | {name: values[name] + 1j * STEP})) / STEP
        found.append(slope if values[name].ndim == slope.ndim else slope.sum(-2))
    return tuple(found)


def _half_squares(respond: Callable[[Mapping[str, Any]], Any], parameters: Any, data: Any) -> Any:
    error = respond({**data, **parameters}) - data["target"]
    return 0.5 * (error * error).sum()


def _panel_case(
    name: str,
    title: str,
    names: tuple[str | None, str | None],
    ours: Callable[..., Any],
    shape: tuple[int, int, int],
    window: int,
    *,
    convolve: bool = False,
) -> Case:
    """A case on spend [geo, time, channel], the parameters of which are [geo, channel]."""
    rng = np.random.default_rng(0)
    carryover, curve = names
    summed = carryover is not None and curve is not None
    spend = rng.gamma(0.5, 2.0, shape)
    if carryover is None:
        # What a curve gets is carryover, which is seldom near zero.
        spend = rng.gamma(2.0, 0.5, shape)
    else:
        spend[:, 1:] *= rng.random(shape)[:, 1:] < 0.8
    ranges = dict(WEIGHTS[carryover].ranges) if carryover else {}
    ranges |= dict(CURVES[curve].ranges) if curve else {}
    ranges |= {"coef": (0.1, 1.0)} if summed else {}
    cell = (shape[0], shape[2])
    values = {"spend": spend, "target": rng.normal(size=shape[:2] if summed else shape)}
    values |= {name: rng.uniform(*ends, cell) for name, ends in ranges.items()}
    arrays = {name: array.astype(np.float32) for name, array in values.items()}
    wrt = tuple(ranges) if carryover else ("spend", *ranges)

    def plain(over_lags: Callable[..., Any], values: Mapping[str, Any]) -> Any:
        found = _response(jnp, over_lags, names, window, values)
        return found.sum(-1) if summed else found

    reads = ("spend", "target")
    ways = {OURS: Way(reads, partial(_half_squares, lambda v: ours(v["spend"], *(v[name] for name in ranges))))}
    obvious = "stacked lags" if carryover else "plain formula"
    ways[obvious] = Way(reads, partial(_half_squares, partial(plain, stacked_lags)))
    if convolve:
        ways["depthwise convolution"] = Way(reads, partial(_half_squares, partial(plain, depthwise_convolution)))
    return Case(
        name,
        title,
        "float32",
        arrays,
        wrt,
        spend.size,
        ways,
        lambda: _exact_panel(arrays, wrt, partial(_response, np, _slid, names, window)),
        {"adstock": carryover, "saturation": curve, "window": window, "parameters": list(ranges), "wrt": list(wrt)},
    )


def _rising(x: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log of x (x+1) ... (x+count-1), and its derivative by x, unit by unit."""
    log, slope = (np.zeros(count.shape, np.longdouble) for _ in range(2))
    for j in range(int(count.max())):
        inside = count > j
        log += np.where(inside, np.log(x + j), 0)
        slope += np.where(inside, 1 / (x + j), 0)
    return log, slope


def _exact_counts(arrays: Arrays) -> Gradient:
    """The beta-binomial log-likelihood without log C(n, k), and its gradient, by sums of logarithms."""
    logit, log_kappa = (np.asarray(arrays[name], np.longdouble) for name in ("logit_mean", "log_concentration"))
    mu, kappa = 1 / (1 + np.exp(-logit)), np.exp(log_kappa)
    a, b = mu * kappa, (1 - mu) * kappa
    k, n = arrays["successes"], arrays["trials"]
    (log_a, by_a), (log_b, by_b), (log_n, by_n) = _rising(a, k), _rising(b, n - k), _rising(kappa, n)
    by_a, by_b = by_a - by_n, by_b - by_n
    by_logit = a * (1 - mu) * (by_a - by_b)
    found = ((log_a + log_b - log_n).sum(), by_logit if logit.ndim else by_logit.sum(), (a * by_a + b * by_b).sum())
    return tuple(np.asarray(one, np.float64) for one in found)


def _by_scipy(arrays: Arrays) -> Gradient:
    """The same by SciPy's betaln and psi, unit by unit."""
    from scipy.special import betaln, expit, psi

    logit, kappa = arrays["logit_mean"], np.exp(arrays["log_concentration"])
    mu = expit(logit)
    a, b = mu * kappa, (1 - mu) * kappa
    k, n = arrays["successes"], arrays["trials"]
    total = psi(kappa) - psi(kappa + n)
    by_a, by_b = psi(a + k) - psi(a) + total, psi(b + n - k) - psi(b) + total
    by_logit = a * (1 - mu) * (by_a - by_b)
    value = (betaln(a + k, b + n - k) - betaln(a, b)).sum()
    return tuple(map(np.asarray, (value, by_logit if logit.ndim else by_logit.sum(), (a * by_a + b * by_b).sum())))


def _shapes(parameters: Any) -> tuple[Any, Any]:
    mu, kappa = jax.nn.sigmoid(parameters["logit_mean"]), jnp.exp(parameters["log_concentration"])
    return mu * kappa, (1.0 - mu) * kappa


def _log_gammas(parameters: Any, data: Any) -> Any:
    betaln = jax.scipy.special.betaln
    (a, b), k = _shapes(parameters), data["successes"]
    return (betaln(a + k, b + data["trials"] - k) - betaln(a, b)).sum()


def _numpyro(parameters: Any, data: Any) -> Any:
    from numpyro.distributions import BetaBinomial

    found = BetaBinomial(*_shapes(parameters), total_count=data["trials"]).log_prob(data["successes"])
    return found.sum() - data["log_choose"]


def _histograms(parameters: Any, data: Any) -> Any:
    totals, margins = (
        (data[name] for name in _TABLES[:2]),
        (beta_binomial.Exceedance(data[name]) for name in _TABLES[2:]),
    )
    tables = beta_binomial.CountTables(*totals, *margins)
    return beta_binomial.log_likelihood(parameters["logit_mean"], parameters["log_concentration"], tables)


def _unit_by_unit(parameters: Any, data: Any) -> Any:
    means, log_kappa = parameters["logit_mean"], parameters["log_concentration"]
    return beta_binomial.log_likelihood_units(means, log_kappa, data["successes"], data["trials"]).sum()


def _count_case(name: str, title: str, units: int, ours: Way, logit: Any) -> Case:
    from scipy.special import betaln

    rng = np.random.default_rng(1)
    n = rng.integers(60, 159, units, endpoint=True)
    k = rng.binomial(n, rng.beta(2.5, 8.0, units))
    tables = beta_binomial.count_tables(k, n, form="histogram")
    choose = (-np.log1p(n) - betaln(k + 1.0, n - k + 1.0)).sum()
    arrays = {"successes": k, "trials": n, "log_choose": np.asarray(choose)}
    arrays |= {"logit_mean": np.asarray(logit, np.float64), "log_concentration": np.asarray(2.2)}
    arrays |= dict(zip(_TABLES, map(np.asarray, jax.tree.leaves(tables)), strict=True))
    reads = ("successes", "trials")
    ways = {
        OURS: ours,
        "log-gamma of every unit": Way(reads, _log_gammas),
        "NumPyro's BetaBinomial": Way((*reads, "log_choose"), _numpyro),
        "SciPy's betaln and psi": Way(reads, plain=_by_scipy),
    }
    wrt = ("logit_mean", "log_concentration")
    return Case(name, title, "float64", arrays, wrt, units, ways, lambda: _exact_counts(arrays))


_NAMES = {
    "hill": "Hill",
    "michaelis menten": "Michaelis-Menten",
    "weibull pdf": "Weibull PDF",
    "weibull cdf": "Weibull CDF",
}


def _label(name: str) -> str:
    words = name.replace("_", " ")
    return _NAMES.get(words, words)


def cases(shape: tuple[int, int, int] = (50, 208, 30), units: int = 100_000) -> dict[str, Callable[[], Case]]:
    """Name to what builds the case, on a panel of (geos, weeks, channels) and so many units.

    >>> case = cases((2, 5, 3), 10)["hill"]()
    >>> case.wrt, case.arrays["spend"].shape
    (('spend', 'half_saturation', 'slope'), (2, 5, 3))
    """

    def carried(name: str, window: int) -> Case:
        ours = partial(getattr(adstock, name), l_max=window)
        title = f"{_label(name)} adstock, {window} weeks"
        key = name if window == WINDOW else f"{name}-{window}"
        return _panel_case(key, title, (name, None), ours, shape, window, convolve=name == "geometric")

    def saturated(name: str) -> Case:
        def ours(x: Any, *parameters: Any) -> Any:
            return getattr(saturation, name)(x, *(value[:, None] for value in parameters))

        return _panel_case(name, f"{_label(name)} saturation", (None, name), ours, shape, WINDOW)

    def fused(window: int) -> Case:
        ours = partial(media.geometric_hill, l_max=window)
        title = f"media term (geometric, Hill, sum), {window} weeks"
        key = "media" if window == WINDOW else f"media-{window}"
        return _panel_case(key, title, ("geometric", "hill"), ours, shape, window, convolve=True)

    found: dict[str, Callable[[], Case]] = {name: partial(carried, name, WINDOW) for name in WEIGHTS}
    found[f"geometric-{LONG_WINDOW}"] = partial(carried, "geometric", LONG_WINDOW)
    found |= {name: partial(saturated, name) for name in CURVES}
    found |= {"media": partial(fused, WINDOW), f"media-{LONG_WINDOW}": partial(fused, LONG_WINDOW)}
    logits = np.random.default_rng(2).normal(-1.2, 0.3, units)
    by_unit = Way(("successes", "trials"), _unit_by_unit)
    found["rates"] = lambda: _count_case(
        "rates", f"beta-binomial, {units:,} units of one population", units, Way(_TABLES, _histograms), -1.2
    )
    found["rates-units"] = lambda: _count_case(
        "rates-units", f"beta-binomial, {units:,} units with means of their own", units, by_unit, logits
    )
    return found


def chosen(names: list[str], *, shape: tuple[int, int, int] = (50, 208, 30), units: int = 100_000) -> list[Case]:
    """The cases of those names, all where there is none.

    Raises:
        UnknownNameError: there is no such case.
    """
    known = cases(shape, units)
    for name in names:
        if name not in known:
            raise UnknownNameError("kernel", name, known)
    return [build() for name, build in known.items() if not names or name in names]
