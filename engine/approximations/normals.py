"""Normal distributions with a covariance that is diagonal plus low rank, as L-BFGS learns them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pelton.engine.approximations.base import LOG_TWO_PI


class LowRank(NamedTuple):
    """Normal(mean, F F') with F = diag(sd) (I + Q (L - I) Q'), Q of r orthonormal columns, L lower triangular.

    Attributes:
        mean, sd: [d].
        basis: Q [d, r].
        factor: L [r, r].
        log_det: log |F|.
    """

    mean: Float[Array, "*batch d"]
    sd: Float[Array, "*batch d"]
    basis: Float[Array, "*batch d r"]
    factor: Float[Array, "*batch r r"]
    log_det: Float[Array, "*batch"]

    def spread(self, noise: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """F u for standard normal u."""
        along = noise @ self.basis
        return self.sd * (noise + (along @ self.factor.T - along) @ self.basis.T)

    def log_pdf(self, point: Float[Array, " d"]) -> Float[Array, ""]:
        """Normalised log density at a point."""
        scaled = (point - self.mean) / self.sd
        along = scaled @ self.basis
        inner = jax.scipy.linalg.solve_triangular(self.factor, along, lower=True)
        noise = scaled + self.basis @ (inner - along)
        return -0.5 * (noise @ noise + LOG_TWO_PI * noise.shape[0]) - self.log_det

    def marginal_sd(self) -> Float[Array, " d"]:
        """Standard deviation of each coordinate."""
        change = self.basis @ (self.factor - jnp.eye(self.factor.shape[0], dtype=self.factor.dtype))
        return self.sd * jnp.sqrt(1 + jnp.sum(2 * change * self.basis + change**2, axis=1))


class Pairs(NamedTuple):
    """The last steps of a climb and the falls of the gradient over them, each pair scaled to s'z = 1.

    Attributes:
        steps, falls: s and z [memory, d], zeros where there are none yet.
        diagonal: alpha [d], of the inverse Hessian's diagonal part.
    """

    steps: Float[Array, "memory d"]
    falls: Float[Array, "memory d"]
    diagonal: Float[Array, " d"]

    @classmethod
    def none(cls, position: Float[Array, " d"], memory: int) -> "Pairs":
        """Before the first step."""
        empty = jnp.zeros((memory, *position.shape), position.dtype)
        return cls(empty, empty, jnp.ones_like(position))

    def pushed(self, step: Float[Array, " d"], fall: Float[Array, " d"]) -> "Pairs":
        """With one more pair, the oldest falling out; unchanged where the curvature along it is not positive."""
        along = step @ fall
        curved = along > jnp.finfo(step.dtype).eps * jnp.linalg.norm(step) * jnp.linalg.norm(fall)
        # The update of BFGS stays the same if both are scaled alike, and so scaled nothing underflows near the optimum.
        scale = jax.lax.rsqrt(jnp.where(curved, along, 1.0))
        s, z = step * scale, fall * scale
        # Zhang et al. 2022, algorithm 3, with b = s'z = 1.
        a, c = jnp.sum(self.diagonal * z**2), jnp.sum(s**2 / self.diagonal)
        diagonal = 1 / (a / self.diagonal + z**2 - a * s**2 / (c * self.diagonal**2))
        sound = curved & jnp.all(jnp.isfinite(diagonal) & (diagonal > 0))
        new = Pairs(jnp.roll(self.steps, -1, 0).at[-1].set(s), jnp.roll(self.falls, -1, 0).at[-1].set(z), diagonal)
        return jax.tree.map(lambda after, before: jnp.where(sound, after, before), new, self)

    def factors(self) -> tuple[Float[Array, "d columns"], Float[Array, "columns columns"]]:
        """beta and gamma of the inverse Hessian diag(alpha) + beta gamma beta' (Zhang et al. 2022, formula II.2)."""
        size = self.steps.shape[0]
        products = jnp.triu(self.steps @ self.falls.T)
        # Every pair has s'z = 1; the places without a pair take no part, whatever their diagonal.
        products = products.at[jnp.diag_indices(size)].set(1.0)
        identity = jnp.eye(size, dtype=products.dtype)
        inverse = jax.scipy.linalg.solve_triangular(products, identity, lower=False)
        scaled = self.falls * self.diagonal
        corner = inverse.T @ (scaled @ self.falls.T + identity) @ inverse
        beta = jnp.concatenate([scaled, self.steps]).T
        return beta, jnp.block([[jnp.zeros_like(corner), -inverse], [-inverse.T, corner]])

    def normal(self, position: Float[Array, " d"], gradient: Float[Array, " d"]) -> LowRank:
        """The normal whose covariance is the inverse Hessian, and whose mean is one Newton step up from the position.

        Zhang et al. 2022, algorithm 4; NaN where the estimate is not positive definite.
        """
        alpha = self.diagonal
        beta, gamma = self.factors()
        sd = jnp.sqrt(alpha)
        basis, upper = jnp.linalg.qr(beta / sd[:, None], mode="reduced")
        inner = jnp.eye(upper.shape[0], dtype=upper.dtype) + upper @ gamma @ upper.T
        factor = jnp.linalg.cholesky(inner)
        log_det = jnp.sum(jnp.log(sd)) + jnp.sum(jnp.log(jnp.diag(factor)))
        mean = position + alpha * gradient + beta @ (gamma @ (beta.T @ gradient))
        return LowRank(mean, sd, basis, factor, log_det)
