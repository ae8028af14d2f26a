"""The interface of an approximation: explore from each start, refine what is kept, draw."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pelton.engine.samplers.base import Bound

LOG_TWO_PI = float(np.log(2 * np.pi))


class Found(NamedTuple):
    """What one start led to.

    Attributes:
        fit: what the method goes on with.
        score: by which the best start is chosen: log density or evidence lower bound; -inf where it led nowhere.
        gradients: gradient evaluations, each counted with its value.
        densities: further evaluations of the log density alone.
    """

    fit: Any
    score: Float[Array, "..."]
    gradients: Int[Array, "..."]
    densities: Int[Array, "..."]


@dataclass(frozen=True)
class Approximation(ABC):
    """Settings of an approximation and its pure functions; a static argument of the compiled programs.

    Attributes:
        steps: limit on the optimiser's iterations from each start.
        covariance: "full" or "diagonal", for the methods that offer both.
    """

    steps: int
    covariance: str = "full"

    name: ClassVar[str]
    default_starts: ClassVar[int] = 4
    default_steps: ClassVar[int] = 1000
    # All starts' fits are drawn from, or that of the best start.
    keeps_all: ClassVar[bool] = False
    # Whether draws are resampled by their importance unless the caller says otherwise.
    resamples: ClassVar[bool] = False
    offers_diagonal: ClassVar[bool] = False
    max_dimension: ClassVar[int | None] = None

    @abstractmethod
    def explore(self, density: Bound, position: Float[Array, " d"], key: PRNGKeyArray) -> Found:
        """From one start to a fit and its score."""

    @abstractmethod
    def refine(self, density: Bound, fit: Any, key: PRNGKeyArray) -> tuple[Any, Int[Array, ""]]:
        """The fit to draw from, of the best start or stacked of all [start, ...]; and gradient evaluations."""

    def check(self, fit: Any, starts: int) -> dict[str, float]:
        """Attributes that tell how good the fit is; NumPy arrays throughout.

        Raises:
            ModelError: the fit is none.
        """
        del fit, starts
        return {}


class Distribution(Approximation):
    """An approximation that is a distribution: it can be drawn from and weighed against the posterior."""

    @abstractmethod
    def draw(self, fit: Any, key: PRNGKeyArray, count: int) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """That many independent draws of the approximation, and their normalised log density under it."""
