"""Means and variances of draws that come one batch at a time."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Moments(NamedTuple):
    """Of all rows so far: how many, their mean, and the sum of squares about it.

    Source: Chan, Golub & LeVeque 1983, which does not lose digits where the mean is far from 0.
    """

    number: Float[Array, ""]
    mean: Float[Array, "..."]
    squares: Float[Array, "..."]

    @classmethod
    def none_like(cls, row: Array) -> "Moments":
        """Of no rows yet."""
        return cls(jnp.zeros((), row.dtype), jnp.zeros_like(row), jnp.zeros_like(row))

    def updated(self, rows: Float[Array, "row ..."]) -> "Moments":
        """With these rows as well."""
        number = self.number + rows.shape[0]
        mean = jnp.mean(rows, axis=0)
        apart = mean - self.mean
        return Moments(
            number,
            self.mean + apart * (rows.shape[0] / number),
            self.squares + jnp.sum((rows - mean) ** 2, axis=0) + apart**2 * (self.number * rows.shape[0] / number),
        )


def inverse_mass(moments: Moments, old: Float[Array, " d"]) -> Float[Array, " d"]:
    """The diagonal metric in which draws and scores come nearest to standard normals, sd(x) / sd(g).

    Args:
        moments: of rows (draw, score) [2, d].
        old: what serves where they say nothing.

    Source: Seyboldt et al., Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence.
    """
    ratio = jnp.sqrt(moments.squares[0] / moments.squares[1])
    return jnp.where((moments.number > 2) & jnp.isfinite(ratio) & (ratio > 0), ratio, old)


def first_inverse_mass(scores: Float[Array, "row d"]) -> Float[Array, " d"]:
    """The metric of chains that have only their first scores g: variances 1 / |g|, as far as that says anything."""
    size = jnp.abs(scores)
    size = jnp.where(jnp.isfinite(size) & (size > 0), size, 1.0)
    return jnp.clip(jnp.exp(-jnp.mean(jnp.log(size), axis=0)), 1e-16, 1e16)
