"""The compiled programs behind the response of a media mix: adstock, saturation, sums over time and derivatives."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from pelton.engine.compilation import Compiler, Request
from pelton.engine.precision import using
from pelton.models.adstock import Adstock
from pelton.models.saturation import Saturation

# The draws of each group's parameters, name -> [draw, geo, channel of the group].
type Values = tuple[dict[str, Any], ...]


class Form(NamedTuple):
    """A group of channels with one form of adstock and one of saturation, which are computed together."""

    adstock: Adstock
    saturation: Saturation
    channels: tuple[int, ...]

    def carried(self, media: ArrayLike, values: Mapping[str, Any]) -> Array:
        """Media [..., geo, time, channel] after adstock, with parameters [draw, geo, channel]."""
        return self.adstock.apply(media, **{name: values[name] for name in self.adstock.parameters})

    def saturated(self, carried: ArrayLike, values: Mapping[str, Any]) -> Array:
        """The saturation of media after adstock [draw, geo, time, channel]."""
        return self.saturation.apply(carried, **{name: values[name][:, :, None] for name in self.saturation.parameters})


def run(build: Callable, forms: tuple[Form, ...], args: tuple) -> Any:
    """build(forms)(*args) in float64 on NumPy arrays, compiled once for their shapes."""
    with using("float64"):
        args = jax.tree.map(jnp.asarray, args)
        return jax.tree.map(np.asarray, Compiler()(Request(build, (forms,), args))(*args))


def _by_group(forms: tuple[Form, ...], values: Values, series: Array, function: Callable) -> Array:
    """function(form, its channels of the series, its values), its results in the order of the channels."""
    pieces = [function(form, series[..., np.array(form.channels)], of) for form, of in zip(forms, values, strict=True)]
    order = np.argsort([channel for form in forms for channel in form.channels])
    joined = jnp.concatenate(pieces, axis=-1)
    return joined if np.array_equal(order, np.arange(len(order))) else joined[..., order]


def build_carried(forms: tuple[Form, ...]) -> Callable:
    """(values, media [geo, time, channel]) -> media after adstock [draw, geo, time, channel]."""
    return lambda values, media: _by_group(forms, values, media, Form.carried)


def build_saturated(forms: tuple[Form, ...]) -> Callable:
    """(values, coef [draw, geo, channel], carried [draw, geo, time, channel]) -> coef saturation(carried)."""
    return lambda values, coef, carried: coef[:, :, None] * _by_group(forms, values, carried, Form.saturated)


def build_contributions(forms: tuple[Form, ...]) -> Callable:
    """(values, coef, media) -> coef saturation(adstock(media)) [draw, geo, time, channel]."""

    def both(form: Form, media: Array, of: Mapping[str, Any]) -> Array:
        return form.saturated(form.carried(media, of), of)

    return lambda values, coef, media: coef[:, :, None] * _by_group(forms, values, media, both)


def build_totals(forms: tuple[Form, ...]) -> Callable:
    """(values, coef, media, weights [geo, time]) -> contributions summed over time [draw, geo, channel]."""
    contributions = build_contributions(forms)
    return lambda values, coef, media, weights: jnp.einsum("dgtc,gt->dgc", contributions(values, coef, media), weights)


def build_slopes(forms: tuple[Form, ...]) -> Callable:
    """(values, coef, media, direction, weights) -> derivative of the totals as media move along the direction.

    A cell depends on its own media alone, so that one forward derivative gives every cell's own.
    """
    totals = build_totals(forms)

    def program(values: Values, coef: Array, media: Array, direction: Array, weights: Array) -> Array:
        return jax.jvp(lambda moved: totals(values, coef, moved, weights), (media,), (direction,))[1]

    return program


def build_sums(forms: tuple[Form, ...]) -> Callable:
    """(values, coef, media, inside [geo, time], counted [draw]) -> two sums of contributions, in one pass.

    Over draws with the weights `counted` [geo, time, channel], and over the weeks inside [draw, geo, channel].
    """
    contributions = build_contributions(forms)

    def program(values: Values, coef: Array, media: Array, inside: Array, counted: Array) -> tuple[Array, Array]:
        found = contributions(values, coef, media)
        return jnp.einsum("dgtc,d->gtc", found, counted), jnp.einsum("dgtc,gt->dgc", found, inside)

    return program


def build_plan(forms: tuple[Form, ...]) -> Callable:
    """(values, coef, carried, level [geo, channel]) -> sum over time of coef saturation(level carried), and its slope.

    Both are [draw, geo, channel]; the slope is by the cell's own level.
    """
    saturated = build_saturated(forms)

    def program(values: Values, coef: Array, carried: Array, level: Array) -> tuple[Array, Array]:
        def total(level: Array) -> Array:
            return jnp.sum(saturated(values, coef, carried * level[:, None]), axis=2)

        return jax.jvp(total, (level,), (jnp.ones_like(level),))

    return program
