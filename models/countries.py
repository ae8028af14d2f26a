"""The hierarchical country model: geometric carryover, exponential saturation, pooled over countries and channels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from pelton.engine.errors import ArgumentError, DataError
from pelton.engine.posterior import Conjugate, Hierarchy, Posterior
from pelton.kernels.adstock import geometric
from pelton.kernels.saturation import exponential
from pelton.models.media_groups import add_group
from pelton.models.panel import Panel

LAGS = 21
# Rates of the exponential priors, as the model was published.
HYPER_RATE = 10.0
SHAPE_RATE = 0.01
NOISE_RATE = 0.001
HYPERS = ("car_alpha", "car_beta", "coef_lam", "sat_lam", "base_lam")
# The references from which populations are tempered: sds of the hyperparameters' logarithms; mean and sd of
# log(-log car); and of a channel that acts in proportion, and of one that acts as a switch, mean (beside minus the
# logarithm of typical media) and sd of log sat, by which alone the two are told apart.
SHARED_SD = (1.5, 1.5, 2.5, 2.5, 2.5)
CARRYOVER = (0.4, 1.3)
SMOOTH = (-0.5, 1.0)
SWITCH = (6.0, 4.0)
TARGET_ACCEPT = 0.95


def _exponential_logpdf(log_value: Array, rate: Array | float, log_rate: Array | float) -> Array:
    """Log density of log X for X ~ Exponential(rate), the log Jacobian included."""
    return log_rate + log_value - rate * jnp.exp(log_value)


def _log_carryover(cloglog: Array) -> Array:
    """log car for the coordinate log(-log car)."""
    return -jnp.exp(cloglog)


def _split(block: Array, channels: int) -> tuple[Array, ...]:
    """log base, log noise, log coef [channel], log sat [channel], log(-log car) [channel]."""
    media = block[2:].reshape(3, channels)
    return block[0], block[1], media[0], media[1], media[2]


def shared_density(shared: Float[Array, " shared"], data: Any) -> Float[Array, ""]:
    """log p of log car_alpha and car_beta ~ Exponential(0.01), log coef_lam, sat_lam and base_lam ~ Exponential(10)."""
    del data
    rates = jnp.asarray([SHAPE_RATE] * 2 + [HYPER_RATE] * 3, shared.dtype)
    return jnp.sum(_exponential_logpdf(shared, rates, jnp.log(rates)))


def block_prior(block: Float[Array, " size"], shared: Float[Array, " shared"], data: Any) -> Float[Array, ""]:
    """log p of a country's coordinates given the hyperparameters, with the log Jacobians of the logarithms."""
    channels = data["media"].shape[-1]
    base, noise, coef, sat, cloglog = _split(block, channels)
    log_rates = shared[2:]
    rates = jnp.exp(log_rates)
    return (
        _exponential_logpdf(base, rates[2], log_rates[2])
        + jnp.sum(_exponential_logpdf(coef, rates[0], log_rates[0]) + _exponential_logpdf(sat, rates[1], log_rates[1]))
        + _noise_and_carryover(noise, cloglog, shared[:2])
    )


def _noise_and_carryover(noise: Array, cloglog: Array, log_shapes: Array) -> Array:
    """With w = log(-log car), Beta(a, b) has the log density w - a e^w + (b - 1) log(1 - exp(-e^w)) - log B(a, b)."""
    a, b = jnp.exp(log_shapes)
    log_car = _log_carryover(cloglog)
    log_beta = gammaln(a) + gammaln(b) - gammaln(a + b)
    car = cloglog + a * log_car + (b - 1) * jnp.log(-jnp.expm1(log_car)) - log_beta
    return _exponential_logpdf(noise, NOISE_RATE, np.log(NOISE_RATE)) + jnp.sum(car)


def _sums(blocks: Array, channels: int) -> tuple[Array, Array, Array]:
    """Counts and sums [3] of all coef, sat and base, and the log Jacobian of their logarithms."""
    base, _, coef, sat, _ = jax.vmap(_split, (0, None))(blocks, channels)
    logs = (coef, sat, base)
    counts = jnp.asarray([values.size for values in logs], blocks.dtype)
    sums = jnp.stack([jnp.sum(jnp.exp(values)) for values in logs])
    return counts, sums, jnp.sum(jnp.stack([jnp.sum(values) for values in logs]))


def integrated_prior(
    blocks: Float[Array, "block size"], log_shapes: Float[Array, " two"], data: Any
) -> Float[Array, ""]:
    """log p of all countries' coordinates with log car_alpha and log car_beta, the rates integrated out.

    n values with the sum S have the density n! 10 / (10 + S)^(n + 1).
    """
    channels = data["media"].shape[-1]
    counts, sums, jacobian = _sums(blocks, channels)
    rates = gammaln(counts + 1) + np.log(HYPER_RATE) - (counts + 1) * jnp.log(HYPER_RATE + sums)
    _, noise, _, _, cloglog = jax.vmap(_split, (0, None))(blocks, channels)
    rest = jax.vmap(_noise_and_carryover, (0, 0, None))(noise, cloglog, log_shapes)
    shapes = jnp.sum(_exponential_logpdf(log_shapes, SHAPE_RATE, np.log(SHAPE_RATE)))
    return shapes + jacobian + jnp.sum(rates) + jnp.sum(rest)


def draw_rates(key: PRNGKeyArray, blocks: Float[Array, "block size"], data: Any) -> Float[Array, " three"]:
    """Logarithms of coef_lam, sat_lam and base_lam given all countries: Gamma(n + 1, rate 10 + S)."""
    counts, sums, _ = _sums(blocks, data["media"].shape[-1])
    return jax.random.loggamma(key, counts + 1) - jnp.log(HYPER_RATE + sums)


def _normal_loglikelihood(squares: Array, weeks: Array, log_noise: Array) -> Array:
    return -weeks * (log_noise + 0.5 * np.log(2 * np.pi)) - 0.5 * squares * jnp.exp(-2 * log_noise)


def block_likelihood(block: Float[Array, " size"], country: Any, data: Any) -> Float[Array, ""]:
    """log p of a country's target, by a recursion that costs nothing past the country's last week.

    carryover[t] = car carryover[t-1] + media[t] - car^21 media[t-21]: the window of 21 lags.
    """
    channels = data["media"].shape[-1]
    base, noise, coef, sat, cloglog = _split(block, channels)
    car, oldest = jnp.exp(_log_carryover(cloglog)), jnp.exp(LAGS * _log_carryover(cloglog))
    coef, sat, base = jnp.exp(coef), jnp.exp(sat), jnp.exp(base)
    media, target, observed = (data[name][country] for name in ("recursion", "target", "observed"))

    def week(t: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        carryover, squares = carry
        carryover = jnp.maximum(car * carryover + media[t + LAGS] - oldest * media[t], 0.0)
        mean = base + jnp.sum(coef * (1 - jnp.exp(-sat * carryover)))
        return carryover, squares + observed[t] * (target[t] - mean) ** 2

    start = (jnp.zeros_like(car), jnp.zeros_like(base))
    _, squares = jax.lax.fori_loop(0, data["weeks"][country], week, start)
    return _normal_loglikelihood(squares, data["count"][country], noise)


def full_density(position: Float[Array, " dimension"], data: Any) -> Float[Array, ""]:
    """log p of the whole position, by the library's kernels: what has a gradient, for other samplers."""
    geos, _, channels = data["media"].shape
    shared, blocks = position[: len(HYPERS)], position[len(HYPERS) :].reshape(geos, 2 + 3 * channels)
    base, noise, coef, sat, cloglog = jax.vmap(_split, (0, None))(blocks, channels)
    carryover = geometric(data["media"], jnp.exp(_log_carryover(cloglog)), LAGS, normalize=False)
    effect = jnp.exp(coef)[:, None] * exponential(carryover, jnp.exp(sat)[:, None])
    residual = data["observed"] * (data["target"] - jnp.exp(base)[:, None] - jnp.sum(effect, axis=-1))
    squares = jnp.sum(residual**2, axis=-1)
    prior = jax.vmap(block_prior, (0, None, None))(blocks, shared, data)
    return shared_density(shared, data) + jnp.sum(prior + _normal_loglikelihood(squares, data["count"], noise))


def constrain(position: Float[Array, " dimension"], data: Any) -> dict[str, Array]:
    """The variables at a position, the countries in the panel's order."""
    geos, _, channels = data["media"].shape
    shared, blocks = position[: len(HYPERS)], position[len(HYPERS) :].reshape(geos, 2 + 3 * channels)
    base, noise, coef, sat, cloglog = jax.vmap(_split, (0, None))(blocks[data["place"]], channels)
    values = dict(zip(HYPERS, jnp.exp(shared), strict=True))
    values |= {"base": jnp.exp(base), "coef": jnp.exp(coef), "sat": jnp.exp(sat)}
    values |= {"car": jnp.exp(_log_carryover(cloglog)), "noise": jnp.exp(noise)}
    return values | {"baseline_coefficient": values["base"][:, None], "sigma": values["noise"]}


def _sets(channels: int) -> np.ndarray:
    """Sets of channels [set, channel]: all, none, each alone, each left out.

    With three channels these are all sets there are.
    """
    alone = np.eye(channels, dtype=bool)
    return np.unique(
        np.concatenate([np.ones((1, channels), bool), ~alone, alone, np.zeros((1, channels), bool)]), axis=0
    )


def references(data: Any) -> tuple[Array, Array]:
    """Means and sds [reference, dimension] of the references that `CountryMix.data` holds."""
    return data["reference_mean"], data["reference_sd"]


def cost(data: Any) -> Array:
    """Price of each country's likelihood [country]: its weeks."""
    return data["weeks"]


def start(key: PRNGKeyArray, data: Any) -> Float[Array, " dimension"]:
    """A draw from the reference where all channels act in proportion, for samplers that start from a point."""
    mean, sd = (values[-1] for values in references(data))
    return mean + sd * jax.random.normal(key, mean.shape, mean.dtype)


@dataclass(frozen=True, eq=False)
class CountryMix:
    """The country model of a panel; `country_mix` makes it and states the model."""

    panel: Panel

    @property
    def extra_groups(self) -> Sequence[str]:
        """Groups of the tree that `finish` adds on request."""
        return ("posterior_predictive", "log_likelihood")

    @cached_property
    def data(self) -> dict[str, np.ndarray]:
        """What the densities take: the countries by falling number of observed weeks, each from its own first week.

        `recursion` holds the media after 21 weeks of zeros, `weeks` the weeks from the first to the last, `count` those
        with a target, and `place` where each of the panel's countries stands.
        """
        panel = self.panel
        order = np.argsort(-panel.observed.sum(axis=1), kind="stable")
        first = np.argmax(panel.inside, axis=1)
        weeks = panel.inside.sum(axis=1)
        geos, longest, channels = len(panel.geos), int(weeks.max()), len(panel.channels)
        media, target, observed = (np.zeros((geos, longest, *rest)) for rest in ((channels,), (), ()))
        for row, geo in enumerate(order):
            span = slice(first[geo], first[geo] + weeks[geo])
            media[row, : weeks[geo]] = panel.media[geo, span]
            observed[row, : weeks[geo]] = panel.observed[geo, span]
            target[row, : weeks[geo]] = np.where(panel.observed[geo, span], panel.target[geo, span], 0.0)
        mean, sd = self._references(order)
        return {
            "media": media,
            "recursion": np.concatenate([np.zeros((geos, LAGS, channels)), media], axis=1),
            "target": target,
            "observed": observed,
            "weeks": weeks[order].astype(np.int32),
            "count": observed.sum(axis=1),
            "place": np.argsort(order).astype(np.int32),
            "reference_mean": mean,
            "reference_sd": sd,
        }

    def _references(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One for each set of channels that act in proportion while the others act as switches: `_sets`."""
        panel = self.panel
        channels = len(panel.channels)
        scale, media = panel.target_scale[order], panel.media_scale[order]
        observed = zip(panel.target[order], panel.observed[order], strict=True)
        spread = np.array([values[seen].std() for values, seen in observed])
        typical = np.log(scale.mean())
        ones, means, sds = np.ones(channels), [], []
        for smooth in _sets(channels):
            sat_shift, sat_sd = np.where(smooth[:, None], SMOOTH, SWITCH).T
            mean = [np.array([0.0, 1.0, -typical - 0.5, -0.5, -typical / 2])]
            sd = [np.array(SHARED_SD)]
            for geo in range(len(panel.geos)):
                log_scale = np.log(scale[geo])
                mean += [[log_scale - 4.0, np.log(spread[geo]) - 0.7], log_scale * ones]
                mean += [sat_shift - np.log(media[geo]), CARRYOVER[0] * ones]
                sd += [[3.0, 0.7], ones, sat_sd, CARRYOVER[1] * ones]
            means.append(np.concatenate(mean))
            sds.append(np.concatenate(sd))
        return np.stack(means), np.stack(sds)

    def posterior(self) -> Posterior:
        """The log density with its blocks, and what the tree is to hold beside the draws."""
        panel = self.panel
        geos, channels = len(panel.geos), len(panel.channels)
        size = 2 + 3 * channels
        medium = ("geo", "channel")
        return Posterior(
            dimension=len(HYPERS) + geos * size,
            logdensity=full_density,
            constrain=constrain,
            start=start,
            data=self.data,
            dims={
                **dict.fromkeys(HYPERS, ()),
                **dict.fromkeys(("base", "noise", "sigma", "target_scale"), ("geo",)),
                **dict.fromkeys(("coef", "sat", "car", "media_scale"), medium),
                **dict.fromkeys(("media", "spend"), ("geo", "time", "channel")),
                **dict.fromkeys(("target", "inside"), ("geo", "time")),
                "baseline_coefficient": ("geo", "term"),
                "baseline_design": ("geo", "time", "term"),
                "baseline_part": ("term",),
            },
            coords={
                "geo": np.array(panel.geos, dtype=str),
                "time": panel.dates.astype("datetime64[ns]"),
                "channel": np.array(panel.channels, dtype=str),
                "term": np.array(["intercept"]),
            },
            observed={"target": np.where(panel.observed, panel.target, np.nan)},
            constant={
                "media": panel.media,
                "spend": panel.spend,
                "inside": panel.inside.astype(np.int8),
                "baseline_design": panel.inside.astype(float)[..., None],
                "baseline_part": np.array(["intercept"]),
                "target_scale": panel.target_scale,
                "media_scale": panel.media_scale,
            },
            sampler="mixture",
            target_accept=TARGET_ACCEPT,
            hierarchy=Hierarchy(
                len(HYPERS),
                geos,
                size,
                shared_density,
                block_prior,
                block_likelihood,
                references,
                Conjugate(2, integrated_prior, draw_rates),
                cost,
            ),
            attrs={"model": f"country_mix({panel!r})", "media_mix": json.dumps(self.describe())},
        )

    def describe(self) -> dict[str, Any]:
        """The form of the model as plain data: with the draws and the panel all that attribution needs."""
        panel = self.panel
        adstock = {"name": "geometric", "l_max": LAGS, "normalize": False, "parameters": {"alpha": "car"}}
        saturation = {"name": "exponential", "parameters": {"rate": "sat"}}
        return {
            "kind": "country_mix",
            "target": panel.target_name,
            "time": panel.time_name,
            "geo": panel.geo_name,
            "frequency": panel.frequency,
            "period_days": panel.period_days,
            "has_spend": panel.has_spend,
            "likelihood": "normal",
            "pooling": dict.fromkeys(("adstock", "saturation", "effect", "baseline"), "hierarchical"),
            "channels": [
                {"name": name, "adstock": adstock, "saturation": saturation, "coef": "coef"} for name in panel.channels
            ],
        }

    def finish(self, tree: xr.DataTree, *, seed: int, groups: Sequence[str] = ()) -> xr.DataTree:
        """Adds the groups asked for."""
        for name in groups:
            add_group(tree, name, cast("Any", self), seed)
        return tree


def country_mix(panel: Panel) -> CountryMix:
    """The hierarchical country model: all countries and channels share the hyperparameters.

        target[g,t] ~ Normal(base_g + sum_c coef_gc (1 - exp(-sat_gc carryover[g,t,c])), noise_g)
        carryover[g,t,c] = sum_{l=0}^{20} car_gc^l media[g,t-l,c],  media = 0 before the country's first week

        coef ~ Exponential(coef_lam)   sat ~ Exponential(sat_lam)   car ~ Beta(car_alpha, car_beta)
        base ~ Exponential(base_lam)   noise ~ Exponential(0.001)
        coef_lam, sat_lam, base_lam ~ Exponential(10)   car_alpha, car_beta ~ Exponential(0.01)

    all of them rates, with media and target in their own units. The position is in logarithms, the carryovers as
    log(-log car): minus the logarithm of the weeks after which a share 1/e is left, in which carryovers near 0 have no
    long tail.

    Its posterior has several modes: a channel with a saturation rate far above one over its media is a switch, on in
    the weeks in which its carryover is not yet forgotten. `pelton.sample` takes the sampler "mixture" for it, which
    crosses between them.

    Args:
        panel: target and media; weeks without a target are left out of the likelihood.

    Raises:
        ArgumentError: not a Panel.
        DataError: a panel with controls or events, for which the model has no place.

    Source: Garve 2022, the hierarchical Bayesian marketing mix model of the reference systems.

    >>> import pandas as pd
    >>> table = pd.DataFrame({
    ...     "country": ["AT"] * 4 + ["CH"] * 3,
    ...     "week": ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22", "2024-01-08", "2024-01-15", "2024-01-22"],
    ...     "tv": [0, 250.0, 80, 0, 40, 0, 0],
    ...     "sales": [910.0, 1200, 1100, 950, 310, 290, 280],
    ... })
    >>> panel = Panel.from_frame(table, time="week", geo="country", target="sales", media=["tv"])
    >>> country_mix(panel).posterior().dimension
    15
    """
    if not isinstance(panel, Panel):
        raise ArgumentError(
            f"country_mix takes a Panel (pelton.Panel.from_frame makes one), not {type(panel).__name__}"
        )
    extra = [*panel.control_names, *panel.event_names]
    if extra:
        raise DataError(
            f"country_mix has no controls or events, and the panel has {', '.join(extra)}; leave these columns out, or "
            "use MediaMix"
        )
    return CountryMix(panel)
