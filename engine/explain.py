"""What of a log density is not finite where a run looked for a start, in the words of the user's model."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pelton.engine.posterior import Posterior

# Starts that are looked at, and terms that are named.
LOOKED_AT, NAMED = 5, 6


def reason(posterior: Posterior) -> str:
    """Which of the terms are not finite at some starts, for the end of an error; empty where that is not known.

    A term is named with its value; where all values are finite, those are named whose gradient is not.
    """
    if posterior.explain is None:
        return ""
    data = jax.tree.map(jnp.asarray, posterior.data)
    if posterior.batch is not None:
        data = jax.tree.map(lambda leaf: leaf[0], data)
    # Compiled, since NumPyro warns of values outside a support where they are known.
    explain = jax.jit(posterior.explain)
    without_gradient: list[str] = []
    for number in range(LOOKED_AT):
        position = posterior.start(jax.random.key(number), data)
        terms = {name: float(value) for name, value in explain(position, data).items()}
        wrong = [f"{name!r} ({value:g})" for name, value in terms.items() if not np.isfinite(value)]
        if wrong:
            return f". At one of them the log probability is not finite of {_some(wrong)}"
        if not without_gradient:
            without_gradient = [repr(name) for name in terms if not _has_gradient(explain, name, position, data)]
    if without_gradient:
        return f". At one of them the gradient is not finite of the log probability of {_some(without_gradient)}"
    return ""


def _has_gradient(explain: Callable, name: str, position: Array, data: Any) -> bool:
    slope = jax.grad(lambda x: explain(x, data)[name])(position)
    return bool(jnp.isfinite(slope).all())


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} others" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
