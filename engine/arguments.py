"""Checks of arguments that are plain numbers, each with one clear error."""

from typing import Any

import numpy as np

from pelton.engine.errors import ArgumentError


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """The value as an int, if it is a whole number within its limits.

    Raises:
        ArgumentError: it is not; the message gives name, limits and value.

    >>> whole("chains", 4, 1)
    4
    >>> whole("chains", 0, 1)
    Traceback (most recent call last):
        ...
    pelton.engine.errors.ArgumentError: chains is a whole number of at least 1, not 0
    """
    fits = isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_) and value >= least
    if not fits or (most is not None and value > most):
        limits = f"of at least {least}" + ("" if most is None else f" and at most {most}")
        raise ArgumentError(f"{name} is a whole number {limits}, not {value!r}")
    return int(value)


def seed_of(value: Any) -> int:
    """The value as an int, if it is a seed: a whole number from 0 to below 2**64.

    Raises:
        ArgumentError: it is not.

    >>> seed_of(7)
    7
    """
    seed = whole("seed", value, 0)
    if seed >= 2**64:
        raise ArgumentError(f"seed is below 2**64, not {seed}")
    return seed


def positive(name: str, value: Any, wanted: str = "a positive finite number") -> float:
    """The value as a float, if it is finite and above 0.

    Raises:
        ArgumentError: it is not; the message says what is wanted.

    >>> positive("budget", -2, "an amount of money above 0")
    Traceback (most recent call last):
        ...
    pelton.engine.errors.ArgumentError: budget is an amount of money above 0, not -2
    """
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not np.isfinite(value) or value <= 0:
        raise ArgumentError(f"{name} is {wanted}, not {value!r}")
    return float(value)


def central(probability: float) -> tuple[float, float]:
    """The lower and upper tail of a central interval.

    Raises:
        ArgumentError: the probability is not between 0 and 1.

    >>> low, high = central(0.94)
    >>> round(low, 2), round(high, 2)
    (0.03, 0.97)
    """
    if not 0 < probability < 1:
        raise ArgumentError(f"probability lies between 0 and 1, not {probability!r}; 0.94 is usual")
    return (1 - probability) / 2, (1 + probability) / 2
