"""Starting positions from an approximation, so that no chain starts in a mode that hardly matters."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from pelton.engine.approximate import positions
from pelton.engine.errors import ArgumentError
from pelton.engine.posterior import Posterior
from pelton.engine.samplers import DEFAULT, Sampler

METHODS = ("pathfinder",)
# Positions that chains start from, one of them each at random.
_POSITIONS = 1000
# Paths at the least: each ends in the mode whose slope it began on.
_LEAST_PATHS = 8
_MOST_PATHS = 64


@dataclass(frozen=True)
class _OfModel:
    """A function of a position and the model's data, which stand beside the starts."""

    function: Callable[[Array, Any], Any]

    def __call__(self, position: Array, data: Any) -> Any:
        return self.function(position, data["model"])


@dataclass(frozen=True)
class _Picked:
    """One of the positions, each equally probable."""

    def __call__(self, key: PRNGKeyArray, data: Any) -> Array:
        return data["starts"][jax.random.randint(key, (), 0, _POSITIONS)]


def check_start(start: str | None, posterior: Posterior, kind: type[Sampler]) -> str | None:
    """The method, once it is known that it can serve.

    Raises:
        ArgumentError: it is unknown, or the sampler finds its own starts, or there is a batch of posteriors.
    """
    if start is None or posterior.dimension == 0:
        return None
    if start not in METHODS:
        raise ArgumentError(f"start is 'pathfinder' or None (the model's own starts), not {start!r}")
    if kind.shared_init:
        raise ArgumentError(f"the sampler {kind.name!r} finds its own starts; leave start out, or use {DEFAULT!r}")
    if posterior.batch is not None:
        raise ArgumentError(
            f"start={start!r} is for one posterior, and this is a batch of {posterior.batch} ({posterior.batch_dim}); "
            "leave start out"
        )
    return start


def started(posterior: Posterior, method: str | None, chains: int, seed: int, device: Any, known: bool) -> Posterior:
    """The posterior with starts drawn from an approximation to it.

    Pathfinder climbs from the model's own starts, as many as there are chains and at least eight, and draws from the
    best normal distribution of every climb; the draws are chosen by their importance weights over all climbs (Zhang et
    al. 2022, multi-path Pathfinder), so that starts fall into modes as the modes have mass.

    Args:
        posterior: to start on.
        method: of `METHODS`; None leaves the posterior as it is.
        chains: how many will start.
        seed: of the run.
        device: to climb on.
        known: whether the chains have started already, so that no start will be asked for.
    """
    if method is None:
        return posterior
    if known:
        starts = np.zeros((_POSITIONS, posterior.dimension))
    else:
        starts = positions(posterior, method, _POSITIONS, min(max(_LEAST_PATHS, chains), _MOST_PATHS), seed, device)
    return replace(
        posterior,
        logdensity=_OfModel(posterior.logdensity),
        constrain=_OfModel(posterior.constrain),
        start=_Picked(),
        data={"model": posterior.data, "starts": np.asarray(starts, jnp.result_type(float))},
        hierarchy=None,
        explain=None if posterior.explain is None else _OfModel(posterior.explain),
    )
