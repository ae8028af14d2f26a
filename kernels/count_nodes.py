"""Owns short forms of count tables: a few nodes of a Gauss quadrature in place of a histogram of many values."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pelton.kernels.beta_binomial import CountTables, Exceedance, Margin, Nodes

__all__ = ["compressed", "nodes_needed"]

# Of rho^(-2n) / 2n below which a margin's sum is right to rounding: of it, measures tried are off by a tenth and less.
ERROR = 2e-14
# Numbers that the vectors of one block of groups may take.
_BLOCK = 1 << 24
# A Lanczos vector below this, of what it was made from, is rounding: all points of the histogram have been found.
_EXHAUSTED = 1e-13


def nodes_needed(largest: int) -> int:
    """Nodes that stand for a histogram of values up to `largest`.

    As a function of log j, log1p(j / x) is analytic but on two cuts that begin at log x +- i pi, whatever x is, and
    jumps there by a constant. On [0, log J] an n-point Gauss rule is then off by about rho^(-2n) / 2n with
    rho = b + sqrt(b^2 + 1), b = 2 pi / log J.

    >>> nodes_needed(30), nodes_needed(100), nodes_needed(1000)
    (11, 13, 18)
    """
    if largest < 3:
        return max(largest, 1)
    b = 2 * math.pi / math.log(largest)
    rho = b + math.sqrt(b * b + 1)
    enough = (n for n in range(1, largest) if rho ** (-2 * n) / (2 * n) < ERROR)
    return next(enough, largest)


def _gauss(weights: np.ndarray, count: int) -> Nodes:
    """The Gauss rule of each row's measure sum_j weights[row, j-1] at log j, by Lanczos and Golub & Welsch."""
    groups, values = weights.shape
    at = np.log(np.arange(1, values + 1))
    mass = weights.sum(axis=1)
    basis = np.zeros((groups, count, values))
    basis[:, 0] = np.sqrt(weights / np.where(mass > 0, mass, 1.0)[:, None])
    jacobi = np.zeros((groups, count, count))
    for k in range(count):
        moved = basis[:, k] * at
        size = np.linalg.norm(moved, axis=1)
        jacobi[:, k, k] = np.vecdot(moved, basis[:, k])
        if k + 1 == count:
            break
        # Twice, for one pass leaves what rounding puts back.
        for _ in range(2):
            share = basis[:, : k + 1] @ moved[:, :, None]
            moved = moved - (share.swapaxes(1, 2) @ basis[:, : k + 1])[:, 0]
        off = np.linalg.norm(moved, axis=1)
        off = np.where(off > _EXHAUSTED * np.maximum(size, 1e-300), off, 0.0)
        jacobi[:, k, k + 1] = jacobi[:, k + 1, k] = off
        basis[:, k + 1] = np.divide(moved, off[:, None], out=np.zeros_like(moved), where=off[:, None] > 0)
    points, vectors = np.linalg.eigh(jacobi)
    return Nodes(np.exp(points), mass[:, None] * vectors[:, 0] ** 2)


def _short(table: Margin) -> Margin:
    if not isinstance(table, Exceedance):
        return table
    above = np.asarray(table.above, np.float64)
    rows = above.reshape(-1, above.shape[-1])
    # Padding would lengthen the range.
    used = np.flatnonzero(rows.any(axis=0))
    rows = rows[:, : int(used[-1]) + 1 if len(used) else 1]
    # The padded length decides, so that similar data have nodes as many.
    count = nodes_needed(above.shape[-1])
    if count >= above.shape[-1]:
        return table
    step = max(1, _BLOCK // (count * rows.shape[1]))
    parts = [_gauss(rows[start : start + step], min(count, rows.shape[1])) for start in range(0, len(rows), step)]
    fill = ((0, 0), (0, max(count - rows.shape[1], 0)))
    points = np.pad(np.concatenate([part.points for part in parts]), fill, constant_values=1.0)
    weights = np.pad(np.concatenate([part.weights for part in parts]), fill)
    return Nodes(points.reshape(*above.shape[:-1], count), weights.reshape(*above.shape[:-1], count))


def compressed(tables: CountTables) -> CountTables:
    """The same tables with each histogram replaced by the nodes and weights of a Gauss quadrature.

        sum_j U_j log1p(j / x) = sum_q w_q log1p(j_q / x)   to rounding, for every x > 0

    U_j being how many units are past j. Thirteen nodes stand for the histogram of counts up to a hundred, 18 for a
    thousand: gradients cost that much less, which pays where very many posteriors are evaluated. Margins of unique
    values stay as they are.

    Args:
        tables: from `count_tables`, with or without an axis of groups.

    Returns:
        Tables that `log_likelihood` takes as it takes the others.

    Source: Golub & Welsch 1969, Calculation of Gauss quadrature rules; the rate from the Bernstein ellipse (Trefethen
    2008, Is Gauss quadrature better than Clenshaw-Curtis?).

    >>> from pelton.kernels.beta_binomial import count_tables, log_likelihood
    >>> tables = count_tables([30, 12, 51], [140, 100, 260], form="histogram")
    >>> short = compressed(tables)
    >>> tables.trials.above.shape, short.trials.points.shape
    ((362,), (16,))
    >>> bool(abs(log_likelihood(-1.0, 3.0, tables) - log_likelihood(-1.0, 3.0, short)) < 1e-10)
    True
    """
    # Linear algebra of many small matrices, side by side.
    with ThreadPoolExecutor(3) as pool:
        short = pool.map(_short, (tables.successes, tables.failures, tables.trials))
        return CountTables(tables.total_successes, tables.total_failures, *short)
