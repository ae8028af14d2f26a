"""How far each geo's parameters are centred, from how much its own data say of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pelton.models.media_model import Structure, coefficients_at, response
from pelton.models.pooling import Parameter

# The noise is taken to be no less than this share of the mean target, so that a few weeks fitted closely do not pass
# for certainty.
LEAST_NOISE = 0.02


def centring_shares(structure: Structure, data: Any) -> dict[str, np.ndarray]:
    """The share of each hierarchical parameter's knowledge that is the geo's own: name -> [geo, column].

    The share is v / (v + s^2), v the between-geo variance and s the standard error that a geo's own data leave: from 0,
    where the data say little or geos hardly differ (not centred suits it), to 1, where geos differ by far more than the
    data leave open (centred does). It shapes the sampler's coordinates only.

    s^2 is the diagonal of (J'J / noise^2 + diag(1 / prior variance))^-1, J the derivative of a geo's mean target by its
    parameters on the unconstrained scale, at the middle of the priors; noise is what a ridge regression on media and
    baseline leaves; v is a quarter of the variance that the prior of the sd expects. Too little centring costs a few
    leapfrogs, too much makes a funnel. Coefficients of the baseline that are not integrated out are not centred.
    """
    jacobian = _jacobian(structure, data)
    media = (*structure.media, structure.effect)
    parameters = (*media, *structure.baseline)
    wide = np.concatenate([jacobian[one.name] for one in parameters], axis=-1)
    # What a geo may be without the others: its own prior, and the spread about it.
    loose = np.concatenate([np.hypot(data["start"][one.name][1], _spread(one, data)) ** 2 for one in parameters])
    linear = np.concatenate([jacobian[structure.effect.name], np.asarray(data["design"])], axis=-1)
    variance = np.tile(loose, (structure.geos, 1))
    for geo, seen in enumerate(data["observed"]):
        if not seen.any():
            continue
        design, target = linear[geo, seen], data["target"][geo, seen]
        fitted = np.linalg.solve(design.T @ design + 1e-3 * np.eye(design.shape[1]), design.T @ target)
        freedom = max(seen.sum() - design.shape[1], seen.sum() / 4)
        noise = max(float(np.sqrt(np.sum((target - design @ fitted) ** 2) / freedom)), LEAST_NOISE)
        slopes = wide[geo, seen] / noise
        variance[geo] = np.diag(np.linalg.inv(slopes.T @ slopes + np.diag(1 / loose)))
    shares, at = {}, 0
    for parameter in parameters:
        size = len(parameter.columns)
        between = 0.25 * _spread(parameter, data) ** 2 if parameter in media else np.zeros(size)
        if parameter.pooling == "hierarchical" and parameter not in structure.collapsed:
            shares[parameter.name] = between / (between + variance[:, at : at + size])
        at += size
    return shares


def _spread(parameter: Parameter, data: Any) -> np.ndarray:
    """A middling between-geo sd [column]; 0 where there is none to be."""
    name = f"{parameter.name}_sd"
    return np.exp(data["start"][name][0]) if parameter.pooling == "hierarchical" else np.zeros(len(parameter.columns))


def _jacobian(structure: Structure, data: Any) -> dict[str, np.ndarray]:
    """Derivative of the mean by each parameter's unconstrained value, at the middle of the prior [geo, time, column].

    A parameter of one geo and channel moves the response of that geo and channel alone, so that one forward derivative
    a parameter gives all of its columns.
    """
    parameters = (*structure.media, structure.effect)

    def by_channel(unconstrained: Any, data: Any) -> Any:
        values = {one.name: one.prior.constrain(unconstrained[one.name]) for one in parameters}
        computed: list[Any] = [
            response(structure, group, media, values)
            for group, media in zip(structure.groups, data["media"], strict=True)
        ]
        coefficients = coefficients_at(structure, data, values, computed)
        pieces = [found * coef[:, None] for found, coef in zip(computed, coefficients, strict=True)]
        order = np.argsort([channel for group in structure.groups for channel in group.channels])
        return jnp.concatenate(pieces, axis=-1)[..., order]

    @jax.jit
    def derivatives(data: Any) -> Any:
        middle = {
            one.name: jnp.broadcast_to(data["start"][one.name][0], (structure.geos, len(one.columns)))
            for one in parameters
        }
        zero = jax.tree.map(jnp.zeros_like, middle)
        return {
            one.name: jax.jvp(
                lambda at: by_channel(at, data), (middle,), (zero | {one.name: jnp.ones_like(middle[one.name])},)
            )[1]
            for one in parameters
        }

    number = {name: i for i, name in enumerate(structure.channels)}
    used = {name: data[name] for name in ("media", "inside", "start", "spent", "typical_spend")}
    found = {name: np.asarray(value, np.float64) for name, value in derivatives(used).items()}
    shares = {one.name: found[one.name][..., [number[column] for column in one.columns]] for one in parameters}
    at = 0
    for parameter in structure.baseline:
        size = len(parameter.columns)
        shares[parameter.name] = np.asarray(data["design"])[..., at : at + size]
        at += size
    return shares
