"""Chains that ended in separate modes: which, and how much of the posterior each mode holds."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Chains are apart where, along some coordinate, their means differ by more than this many sds of either: the normal
# distributions of two such chains share less than one in twenty thousand of their draws.
APART = 4.0
# Fewer draws do not say how wide a mode is.
LEAST_DRAWS = 50


@dataclass(frozen=True)
class Mode:
    """Chains that share a mode.

    Attributes:
        chains: their numbers.
        log_mass: logarithm of the integral of the density over the mode, as if it were normal, less the greatest one.
        weight: the mode's share of the masses.
    """

    chains: tuple[int, ...]
    log_mass: float
    weight: float


def modes(positions: Float[np.ndarray, "chain draw d"], lp: Float[np.ndarray, "chain draw"]) -> tuple[Mode, ...]:
    """The modes that chains are in, the heaviest first; one where all chains meet.

        log Z = E[log p] + H,  H = log det(2 pi e C) / 2

    of each mode, over its chains' draws; the entropy H is a normal distribution's of their covariance C. Chains that
    have hardly moved look like modes of their own, too.

    Args:
        positions: unconstrained draws.
        lp: log density there.

    >>> source = np.random.default_rng(0)
    >>> x = source.normal(size=(4, 500, 2)) + np.array([0.0, 0.0, 9.0, 9.0])[:, None, None]
    >>> lp = -0.5 * np.sum((x - np.round(x.mean(axis=(1, 2), keepdims=True) / 9) * 9) ** 2, axis=-1)
    >>> lp = lp - np.array([0.0, 0.0, 1.0, 1.0])[:, None]
    >>> [(mode.chains, round(mode.weight, 1)) for mode in modes(x, lp)]
    [((0, 1), 0.7), ((2, 3), 0.3)]
    """
    count = len(positions)
    positions, lp = positions.astype(np.float64), lp.astype(np.float64)
    mean, sd = positions.mean(axis=1), positions.std(axis=1)
    group = np.arange(count)
    for one in range(count):
        for other in range(one):
            far = np.abs(mean[one] - mean[other]) > APART * np.maximum(sd[one], sd[other])
            if not np.any(far):
                group[group == group[one]] = group[other]
    members = [np.flatnonzero(group == label) for label in np.unique(group)]
    if len(members) == 1 or positions.shape[1] < LEAST_DRAWS:
        return (Mode(tuple(range(count)), 0.0, 1.0),)
    log_mass = np.array([lp[chains].mean() + _entropy(positions[chains]) for chains in members])
    log_mass -= log_mass.max()
    weight = np.exp(log_mass) / np.exp(log_mass).sum()
    return tuple(
        Mode(tuple(int(chain) for chain in members[at]), float(log_mass[at]), float(weight[at]))
        for at in np.argsort(-log_mass)
    )


def _entropy(positions: Float[np.ndarray, "chain draw d"]) -> float:
    """Of a normal distribution with the draws' covariance; with their variances where there are too few draws."""
    draws = positions.reshape(-1, positions.shape[-1])
    count, d = draws.shape
    variances = np.maximum(draws.var(axis=0), np.finfo(float).tiny)
    log_det = np.sum(np.log(variances))
    if count > 10 * d:
        correlations = np.cov(draws.T).reshape(d, d) / np.sqrt(np.outer(variances, variances))
        log_det += np.linalg.slogdet(correlations)[1]
    return 0.5 * (log_det + d * np.log(2 * np.pi * np.e))


def remark(found: tuple[Mode, ...]) -> str | None:
    """The modes in words, with the remedy; None where there is one.

    >>> print(remark((Mode((0, 2), 0.0, 0.9), Mode((1,), -2.2, 0.1))))
    chains are in 2 separate modes, 0, 2 (0.9 of the posterior) and 1 (0.1): are all meant? 'smc' weighs modes
    """
    if len(found) < 2:
        return None
    parts = [
        f"{', '.join(map(str, mode.chains))} ({mode.weight:.2g}{' of the posterior' if at == 0 else ''})"
        for at, mode in enumerate(found)
    ]
    return f"chains are in {len(found)} separate modes, {' and '.join(parts)}: are all meant? 'smc' weighs modes"
