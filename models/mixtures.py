"""Posteriors of units as mixtures of beta distributions over the hyperparameters: moments, quantiles, tails."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaincc, betaincinv, betaln, expit, logit

from pelton.engine.placement import cores
from pelton.models.nodes import Nodes

# Nodes x pairs in a block.
BLOCK = 2**17
ROUNDS = 60
# Newton's step is the last where the residual of the probability is below this: it squares it.
LAST_STEP = 1e-4
# Relative error of the expected number of units above a draw's threshold.
TOP_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Wanted:
    """Which summaries of the rates are asked for.

    Attributes:
        quantiles: probabilities.
        threshold: rate for p_above, or None.
        top: of each node the rate that as many units exceed, in expectation, as are asked for [node]; or None.
    """

    quantiles: tuple[float, ...]
    threshold: float | None = None
    top: np.ndarray | None = None


def summarise(k: np.ndarray, n: np.ndarray, nodes: Nodes, wanted: Wanted) -> dict[str, np.ndarray]:
    """Columns of posteriors theta | k, n ~ sum_d w_d Beta(alpha_d + k, beta_d + n - k), each [pair].

    mean and sd are by the law of total variance; a quantile q solves sum_d w_d I_q(alpha_d + k, beta_d + n - k) = p by
    Newton's method on log odds, from the quantile of the beta distribution with the mixture's mean and variance;
    p_above is sum_d w_d P(theta > threshold | d), and p_top the same with each node's own threshold.

    Args:
        k, n: counts [pair].
        nodes: of the hyperparameters.
        wanted: what to compute.
    """
    width = max(1, BLOCK // len(nodes))
    parts = [slice(start, start + width) for start in range(0, len(k), width)]
    with ThreadPoolExecutor(cores()) as pool:
        done = list(pool.map(lambda part: _block(k[part], n[part], nodes, wanted), parts))
    return {name: np.concatenate([each[name] for each in done]) for name in done[0]}


def _block(k: np.ndarray, n: np.ndarray, nodes: Nodes, wanted: Wanted) -> dict[str, np.ndarray]:
    weight = nodes.weight
    a, b = nodes.alpha[:, None] + k, nodes.beta[:, None] + (n - k)
    means = a / (a + b)
    mean = weight @ means
    variance = weight @ (means * (1 - means) / (a + b + 1)) + weight @ (means - mean) ** 2
    columns = {"mean": mean, "sd": np.sqrt(np.maximum(variance, 0.0))}
    for p in wanted.quantiles:
        columns[f"q{100 * p:02.0f}"] = _quantile(p, a, b, weight, mean, variance)
    if wanted.threshold is not None:
        columns["p_above"] = np.clip(weight @ betaincc(a, b, wanted.threshold), 0.0, 1.0)
    if wanted.top is not None:
        columns["p_top"] = np.clip(weight @ betaincc(a, b, wanted.top[:, None]), 0.0, 1.0)
    return columns


def _quantile(
    p: float, a: np.ndarray, b: np.ndarray, weight: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """Quantiles [pair] of mixtures over the first axis of a and b [node, pair]."""
    size = np.maximum(mean * (1 - mean) / np.maximum(variance, 1e-300) - 1, 1e-8)
    start = betaincinv(mean * size, (1 - mean) * size, p)
    # Nearer to 0 or 1 than this a rate has no meaning, and its log odds no room.
    x = logit(np.clip(start, 1e-280, 1 - 1e-15))
    low, high = np.full(x.shape, -700.0), np.full(x.shape, 40.0)
    active = np.arange(len(x))
    for _ in range(ROUNDS):
        at, shapes = x[active], (a[:, active], b[:, active])
        q = expit(at)
        residual = weight @ betainc(*shapes, q) - p
        slope = weight @ np.exp(shapes[0] * -np.logaddexp(0, -at) + shapes[1] * -np.logaddexp(0, at) - betaln(*shapes))
        low[active] = np.where(residual < 0, at, low[active])
        high[active] = np.where(residual >= 0, at, high[active])
        step = at - residual / np.maximum(slope, 1e-300)
        inside = (step >= low[active]) & (step <= high[active])
        x[active] = np.where(inside, step, (low[active] + high[active]) / 2)
        going = ~inside | (np.abs(residual) > LAST_STEP)
        # A distribution function that is flat there is as good as solved once the bracket is closed.
        going &= high[active] - low[active] > 1e-12
        active = active[going]
        if not len(active):
            break
    return expit(x)


def top_thresholds(k: np.ndarray, n: np.ndarray, units: np.ndarray, nodes: Nodes, top: int) -> np.ndarray:
    """Of each node, the rate t_d that `top` units exceed in expectation [node].

    sum_i c_i P(theta_i > t_d | d) = top over the distinct pairs of counts (k_i, n_i), c_i units having each; solved on
    log odds by Newton's method on the logarithm of the expected number, kept within a bracket.

    Args:
        k, n, units: distinct pairs and how many units have each [pair].
        nodes: of the hyperparameters.
        top: fewer than there are units.
    """
    units = units.astype(np.float64)
    order = np.argsort(-(nodes.alpha.mean() + k) / (nodes.alpha.mean() + nodes.beta.mean() + n))
    reached = int(np.searchsorted(np.cumsum(units[order]), top))
    first = order[min(reached, len(order) - 1)]
    guess = (nodes.alpha.mean() + k[first]) / (nodes.alpha.mean() + nodes.beta.mean() + n[first])

    def solve(node: int, start: float) -> float:
        a, b = nodes.alpha[node] + k, nodes.beta[node] + (n - k)
        norm = betaln(a, b)

        def expected(x: float) -> tuple[float, float]:
            above = float(units @ betaincc(a, b, expit(x)))
            return above, float(units @ np.exp(a * -np.logaddexp(0, -x) + b * -np.logaddexp(0, x) - norm))

        return _root(expected, start, top)

    # The thresholds are near one another: the first is where the others start.
    begun = solve(0, float(logit(guess)))
    with ThreadPoolExecutor(cores()) as pool:
        rest = list(pool.map(lambda node: solve(node, begun), range(1, len(nodes))))
    return expit(np.array([begun, *rest]))


def _root(expected: Callable[[float], tuple[float, float]], x: float, top: int) -> float:
    """x at which the expected number, which falls with x, is `top`; `expected` returns it and less its slope."""
    low, high = -700.0, 40.0
    for _ in range(200):
        above, slope = expected(x)
        if abs(above - top) <= TOP_TOLERANCE * top:
            return x
        low, high = (x, high) if above > top else (low, x)
        step = x + np.log(above / top) * above / slope if above > 0 and slope > 0 else np.inf
        x = step if low < step < high else (low + high) / 2
        if high - low < 1e-13 * max(1.0, abs(x)):
            return x
    return x


def coarse(k: np.ndarray, n: np.ndarray) -> np.ndarray:
    """A whole number [row] for a cell of counts that are alike: n within 3%, the rarer outcome within sd/8.

    The cells serve for thresholds where distinct pairs are too many to hold. The number m of the rarer outcome is
    rounded on the scale of sqrt(m), the standard deviation that it has by chance.

    >>> len(np.unique(coarse(np.arange(0, 100_000), np.full(100_000, 200_000))))
    2514
    """
    rarer = np.minimum(k, n - k)
    octave = np.frexp(np.maximum(n, 1).astype(np.float64))
    size = octave[1].astype(np.int64) * 32 + ((octave[0] - 0.5) * 64).astype(np.int64)
    side = (2 * k > n).astype(np.int64)
    return ((size << 1) + side << 24) + (8 * np.sqrt(rarer)).astype(np.int64)


def quantile_names(quantiles: Sequence[float]) -> list[str]:
    """Names of the columns of quantiles, as in `unit_summary`."""
    return [f"q{100 * p:02.0f}" for p in quantiles]
