"""Precision of a run, set for the run and not for the caller's process."""

from contextlib import AbstractContextManager
from typing import Literal, cast

import jax

from pelton.engine.errors import ArgumentError

type Precision = Literal["float32", "float64"]


def choose_precision(precision: str | None, platform: str) -> Precision:
    """The precision asked for, or else float64 on a CPU and float32 on an accelerator.

    >>> choose_precision(None, "cpu"), choose_precision(None, "gpu"), choose_precision("float32", "cpu")
    ('float64', 'float32', 'float32')
    """
    if precision is None:
        return "float64" if platform == "cpu" else "float32"
    if precision not in ("float32", "float64"):
        raise ArgumentError(f"precision is 'float32', 'float64' or None (by device), not {precision!r}")
    return cast("Precision", precision)


def current() -> Precision:
    """The precision that JAX computes in on this thread.

    >>> with using("float64"):
    ...     current()
    'float64'
    """
    return "float64" if jax.config.jax_enable_x64 else "float32"


def using(precision: Precision) -> AbstractContextManager[None]:
    """A context in which JAX computes in that precision; it binds the calling thread alone."""
    return jax.enable_x64(precision == "float64")
