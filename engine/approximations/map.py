"""The mode: the one point of greatest log density in the unconstrained space."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Array, Int, PRNGKeyArray

from pelton.engine.approximations import optimum
from pelton.engine.approximations.laplace import Laplace
from pelton.engine.approximations.optimum import Climbing
from pelton.engine.samplers.base import Bound

# Above so many dimensions the curvature is looked at along the gradient alone.
HESSIAN_UP_TO = Laplace.max_dimension or 0


@dataclass(frozen=True)
class Map(Climbing):
    """The maximum a posteriori point, of the density that samplers see: with the log Jacobian of the transforms."""

    name: ClassVar[str] = "map"

    def refine(self, density: Bound, fit: Any, key: PRNGKeyArray) -> tuple[Any, Int[Array, ""]]:
        del key
        examined = optimum.polished if fit.shape[0] <= HESSIAN_UP_TO else optimum.along_gradient
        top = examined(density, fit)
        return top, top.gradients
