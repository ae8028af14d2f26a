"""The mode: the one point of greatest log density in the unconstrained space."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pelton.engine.approximations import ascent, optimum
from pelton.engine.approximations.base import Approximation, Found
from pelton.engine.approximations.laplace import Laplace
from pelton.engine.samplers.base import Bound

# Above so many dimensions the curvature is looked at along the gradient alone.
HESSIAN_UP_TO = Laplace.max_dimension or 0


@dataclass(frozen=True)
class Map(Approximation):
    """The maximum a posteriori point, of the density that samplers see: with the log Jacobian of the transforms."""

    name: ClassVar[str] = "map"

    def explore(self, density: Bound, position: Float[Array, " d"], key: PRNGKeyArray) -> Found:
        del key
        climb = ascent.ascend(density, position, self.steps)
        return Found(climb.position, climb.value, climb.gradients, jnp.zeros((), jnp.int32))

    def refine(self, density: Bound, fit: Any, key: PRNGKeyArray) -> tuple[Any, Int[Array, ""]]:
        del key
        examined = optimum.polished if fit.shape[0] <= HESSIAN_UP_TO else optimum.along_gradient
        top = examined(density, fit)
        return top, top.gradients

    def check(self, fit: Any, starts: int) -> dict[str, float]:
        optimum.refuse_slope(fit, starts)
        return {"gradient_norm": float(np.linalg.norm(fit.gradient)), "mode_lp": float(fit.value)}
