"""The NumPyro model of a media mix: what is fixed of it, what is data, and the log density of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, PRNGKeyArray

from pelton.kernels.media import geometric_hill
from pelton.kernels.random_effects import draw_effects, log_marginal
from pelton.models.adstock import Adstock
from pelton.models.baseline import Trend
from pelton.models.pooling import Parameter
from pelton.models.saturation import Saturation

type Values = dict[str, Array]

_HALF_LOG_TWO_PI = 0.5 * float(np.log(2 * np.pi))
EFFECTS = ("contribution", "coefficient", "roi")


@dataclass(frozen=True)
class Group:
    """Channels with the same form of adstock and saturation, computed together."""

    adstock: Adstock
    saturation: Saturation
    channels: tuple[int, ...]

    @property
    def fused(self) -> bool:
        """Whether one kernel computes the whole media term."""
        return self.adstock.name == "geometric" and self.saturation.name == "hill"


@dataclass(frozen=True)
class Structure:
    """The part of a media mix that is no data; equal structures share compiled programs.

    Attributes:
        channels: names.
        groups: of channels.
        media: parameters of adstock and saturation.
        effect: the parameter that the coefficients follow from; its name says which.
        baseline: parameters of the baseline, in the order of the design's columns.
        trend: the trend's form.
        sigma: of the noise, in units of the mean target.
        nu: degrees of freedom of a Student-t likelihood; None for a normal one.
        geos: how many.
    """

    channels: tuple[str, ...]
    groups: tuple[Group, ...]
    media: tuple[Parameter, ...]
    effect: Parameter
    baseline: tuple[Parameter, ...]
    trend: Trend | None
    sigma: Parameter
    nu: Parameter | None
    geos: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter that has a value per geo and column."""
        extra = () if self.nu is None else (self.nu,)
        return (*self.media, self.effect, *self.baseline, self.sigma, *extra)

    @property
    def collapsed(self) -> tuple[Parameter, ...]:
        """Parameters of the baseline that are integrated out: those with normal priors, under a normal likelihood."""
        return () if self.nu is not None else tuple(one for one in self.baseline if one.normal is not None)

    @property
    def collapsed_terms(self) -> tuple[int, ...]:
        """Their columns of the design."""
        owners = [one for one in self.baseline for _ in one.columns]
        return tuple(term for term, owner in enumerate(owners) if owner in self.collapsed)

    @property
    def collapsed_levels(self) -> tuple[list[int], list[int]]:
        """Which of the collapsed terms the population has, and which of them the geos have."""
        levels = [one.levels for one in self.collapsed for _ in one.columns]
        return [at for at, (own, _) in enumerate(levels) if own], [at for at, (_, own) in enumerate(levels) if own]

    @cached_property
    def columns(self) -> dict[str, dict[int, int]]:
        """Where a channel stands among the columns of a media parameter: parameter -> channel -> column."""
        number = {name: i for i, name in enumerate(self.channels)}
        return {
            parameter.name: {number[name]: column for column, name in enumerate(parameter.columns)}
            for parameter in self.media
        }

    def of_group(self, group: Group, names: Any, values: Mapping[str, Array]) -> Values:
        """Those parameters of a group's channels [..., channel of the group]."""
        chosen = {}
        for name in names:
            columns = [self.columns[name][channel] for channel in group.channels]
            whole = columns == list(range(values[name].shape[-1]))
            chosen[name] = values[name] if whole else values[name][..., np.array(columns)]
        return chosen


def response(structure: Structure, group: Group, media: Array, values: Values) -> Array:
    """Saturated adstock of a group's channels [geo, time, channel of the group], for a coefficient of 1."""
    # With time innermost a window's lags are whole rows; the recursion without end pairs rows of weeks.
    axis = -1 if group.adstock.l_max is not None else -2
    media = jnp.moveaxis(media, -2, axis)
    adstocked = group.adstock.apply(media, axis=axis, **structure.of_group(group, group.adstock.parameters, values))
    # A parameter stands beside channels, without time.
    shape = structure.of_group(group, group.saturation.parameters, values)
    shape = {name: jnp.expand_dims(value, axis) for name, value in shape.items()}
    return jnp.moveaxis(group.saturation.apply(adstocked, **shape), axis, -2)


def _steady(structure: Structure, group: Group, values: Values) -> Array:
    """Response to a typical week's media every week [geo, channel of the group], for a coefficient of 1."""
    carried = group.adstock.total(**structure.of_group(group, group.adstock.parameters, values))
    return group.saturation.apply(carried, **structure.of_group(group, group.saturation.parameters, values))


def coefficients_at(structure: Structure, data: Any, values: Values, computed: list[Array | None]) -> list[Array]:
    """Effect at a response of 1, in units of the mean target, by group [geo, channel of the group]."""
    kind = structure.effect.name
    found = []
    for index, group in enumerate(structure.groups):
        effect = values[kind][:, np.array(group.channels)]
        if kind == "contribution":
            effect = effect / _steady(structure, group, values)
        elif kind == "roi":
            found_response = computed[index]
            assert found_response is not None
            total = jnp.sum(jnp.where(data["inside"][..., None], found_response, 0.0), axis=1)
            active = total > 0
            # Where nothing was spent, what a typical week would cost and bring.
            bought = jnp.where(active, data["spent"][index], data["typical_spend"][index])
            brought = jnp.where(active, jnp.where(active, total, 1.0), _steady(structure, group, values))
            effect = effect * bought / brought
        found.append(effect)
    return found


def _media_term(structure: Structure, data: Any, values: Values) -> tuple[Array, list[Array]]:
    """Media effect [geo, time] in units of the mean target, and the coefficients by group."""
    # A coefficient that follows from a return needs the response first, so that the fused kernel has no place there.
    by_roi = structure.effect.name == "roi"
    pairs = list(zip(structure.groups, data["media"], strict=True))
    computed = [
        None if group.fused and not by_roi else response(structure, group, media, values) for group, media in pairs
    ]
    coefficients = coefficients_at(structure, data, values, computed)
    total = jnp.zeros_like(data["target"])
    for (group, media), found, coef in zip(pairs, computed, coefficients, strict=True):
        if found is not None:
            total = total + jnp.einsum("gtc,gc->gt", found, coef, precision=jax.lax.Precision.HIGHEST)
            continue
        of = structure.of_group(group, ("alpha", "half_saturation", "slope"), values)
        shape = (of["alpha"], of["half_saturation"], of["slope"])
        total = total + geometric_hill(
            media, *shape, coef, l_max=group.adstock.l_max, normalize=group.adstock.normalize
        )
    return total, coefficients


def media_mix(structure: Structure, data: Any) -> None:
    """y[g,t] ~ Normal or StudentT(sum_k D[g,t,k] b[g,k] + sum_c coef[g,c] saturation(adstock(x[g,:,c]))[t], sigma[g]).

    Everything is scaled: the target by the geo's mean, media by a typical active week's. What is recorded is in the
    units of the data.

    Where likelihood and priors are normal, the baseline is integrated out, population and geos, and drawn back from
    standard normal coordinates: its funnels, and its ridges with the media, never meet the sampler.
    """
    values: Values = {}
    for parameter in structure.parameters:
        if parameter not in structure.collapsed:
            geos = 1 if parameter is structure.nu else structure.geos
            values[parameter.name] = parameter.sites(geos, data["centring"].get(parameter.name))
    effect, coefficients = _media_term(structure, data, values)
    sigma = values[structure.sigma.name][:, 0]
    baseline = _observe(structure, data, values, effect, sigma)
    _lifts(structure, data, values, coefficients)
    _record(structure, data, values, coefficients, baseline, sigma)


def _observe(structure: Structure, data: Any, values: Values, effect: Array, sigma: Array) -> Array:
    """Adds the likelihood of the target and returns the baseline's coefficients [geo, term]."""
    scale: Any = 1.0 if structure.trend is None else structure.trend.scale()
    level, wide, between = [], [], []
    for parameter in structure.baseline:
        shape = (structure.geos, len(parameter.columns))
        times = scale if parameter.name == "trend" else 1.0
        if parameter in structure.collapsed:
            assert parameter.normal is not None
            location, spread = parameter.normal
            level.append(jnp.broadcast_to(location * times, shape))
            own, (of_population, of_geos) = spread * times * jnp.ones(shape[1]), parameter.levels
            wide.append(own * of_population)
            between.append(jnp.exp(parameter.spread()) * times if of_population and of_geos else own * of_geos)
        else:
            level.append(values[parameter.name] * times)
    baseline = jnp.concatenate(level, axis=-1)
    mean = effect + jnp.einsum("gtk,gk->gt", data["design"], baseline, precision=jax.lax.Precision.HIGHEST)
    if not structure.collapsed:
        family: Any = dist.Normal(mean, sigma[:, None])
        if structure.nu is not None:
            nu = values[structure.nu.name][0, 0]
            family = dist.StudentT(nu, mean, sigma[:, None])
            numpyro.deterministic("nu", nu)
        terms = jnp.where(data["observed"], family.log_prob(data["target"]), 0.0)
        numpyro.factor("likelihood", jnp.sum(terms))
        return baseline
    sds = jnp.concatenate(wide), jnp.concatenate(between)
    # An effect that the population, or the geos, do not have needs no coordinate.
    common, noise = (jnp.zeros((*lead, sds[0].shape[0])) for lead in ((), (structure.geos,)))
    of_population, of_geos = structure.collapsed_levels
    if of_population:
        drawn: Any = numpyro.sample("baseline_population_noise", _standard(len(of_population)))
        common = common.at[np.array(of_population)].set(drawn)
    if of_geos:
        drawn = numpyro.sample("baseline_noise", _standard(structure.geos, len(of_geos)))
        noise = noise.at[:, np.array(of_geos)].set(drawn)
    residual = jnp.where(data["observed"], data["target"] - mean, 0.0)
    design = (data["deviations"], data["gram"])
    likelihood = log_marginal(residual, *design, *sds, sigma, data["count"])
    numpyro.factor("likelihood", likelihood - jnp.sum(data["count"]) * _HALF_LOG_TWO_PI)
    population, deviations = draw_effects(common, noise, residual, *design, *sds, sigma)
    at = 0
    for parameter in structure.collapsed:
        assert parameter.normal is not None
        own = population[at : at + len(parameter.columns)] / (scale if parameter.name == "trend" else 1.0)
        if parameter.pooling == "hierarchical":
            numpyro.deterministic(f"{parameter.name}_population", parameter.normal[0] + own)
        at += len(parameter.columns)
    return baseline.at[:, np.array(structure.collapsed_terms)].add(population + deviations)


def _standard(*shape: int) -> Any:
    return dist.Normal(0.0, 1.0).expand(shape)


def _lifts(structure: Structure, data: Any, values: Values, coefficients: list[Array]) -> None:
    """Lift tests: delta_y_i ~ Normal(sum_g coef (f(x + delta_x) - f(x)), sigma_i), f the steady response."""
    for index, (group, tests) in enumerate(zip(structure.groups, data["lift"], strict=True)):
        if tests is None:
            continue
        column = tests["column"]
        adstock = structure.of_group(group, group.adstock.parameters, values)
        carried = group.adstock.total(**adstock) * jnp.ones_like(coefficients[index])
        shape = {
            name: value[:, column].T
            for name, value in structure.of_group(group, group.saturation.parameters, values).items()
        }

        carried = carried[:, column].T
        gain = group.saturation.apply(carried * (tests["media"] + tests["change"]), **shape)
        gain = gain - group.saturation.apply(carried * tests["media"], **shape)
        # In units of the target: the geos of one test have different scales.
        lift = jnp.sum(gain * (coefficients[index] * data["target_scale"][:, None])[:, column].T, axis=-1)
        numpyro.factor(f"lift_{index}", jnp.sum(dist.Normal(lift, tests["sd"]).log_prob(tests["lift"])))


def _record(
    structure: Structure, data: Any, values: Values, coefficients: list[Array], baseline: Array, sigma: Array
) -> None:
    """The parameters in the units of the data."""
    scale = data["target_scale"][:, None]
    by_name: dict[str, dict[int, Array]] = {parameter.name: {} for parameter in structure.media}
    coef: dict[int, Array] = {}
    for index, group in enumerate(structure.groups):
        own = structure.of_group(group, (*group.adstock.parameters, *group.saturation.parameters), values)
        shape = {name: own[name] for name in group.saturation.parameters}
        raw, factor = group.saturation.unscale(data["media_scale"][index], **shape)
        own |= dict(raw)
        of_target = coefficients[index] * factor * scale
        for at, channel in enumerate(group.channels):
            coef[channel] = of_target[:, at]
            for name, value in own.items():
                by_name[name][structure.columns[name][channel]] = value[:, at]
    for name, found in by_name.items():
        numpyro.deterministic(name, jnp.stack([found[column] for column in range(len(found))], axis=-1))
    numpyro.deterministic("coef", jnp.stack([coef[channel] for channel in range(len(coef))], axis=-1))
    if structure.effect.name != "coefficient":
        numpyro.deterministic(structure.effect.name, values[structure.effect.name])
    numpyro.deterministic("baseline_coefficient", baseline * scale)
    numpyro.deterministic("sigma", sigma * data["target_scale"])


def start(key: PRNGKeyArray, structure: Structure, data: Any) -> dict[str, Array]:
    """A start near the middle of the prior, half of its spread to either side, with geos close to one another."""
    found: dict[str, Array] = {}

    def around(name: str, shape: tuple[int, ...], index: int) -> Array:
        middle, spread = data["start"][name]
        return middle + 0.5 * spread * jax.random.uniform(jax.random.fold_in(key, index), shape, minval=-1.0)

    for index, parameter in enumerate(structure.parameters):
        geos = 1 if parameter is structure.nu else structure.geos
        name, columns = parameter.name, len(parameter.columns)
        if parameter.pooling == "unpooled":
            if parameter not in structure.collapsed:
                found[f"{name}_own_u"] = parameter.prior.at(around(name, (geos, columns), 4 * index))
            continue
        log_sd: Any = 0.0
        if parameter.pooling == "hierarchical":
            log_sd = around(f"{name}_sd", (columns,), 4 * index + 1)
            found[f"{name}_sd_u"] = parameter.sd_prior.at(log_sd)
        if parameter in structure.collapsed:
            continue
        location = around(name, (columns,), 4 * index)
        found[f"{name}_location_u"] = parameter.prior.at(location)
        if parameter.pooling == "hierarchical":
            share = jnp.asarray(data["centring"].get(name, 0.0))
            noise = jax.random.uniform(jax.random.fold_in(key, 4 * index + 2), (geos, columns), minval=-0.5, maxval=0.5)
            found[f"{name}_offset"] = share * location + jnp.exp(share * log_sd) * noise
    if structure.collapsed:
        (of_population, of_geos), last = structure.collapsed_levels, 4 * len(structure.parameters)
        shapes = {"baseline_population_noise": (len(of_population),), "baseline_noise": (structure.geos, len(of_geos))}
        for index, (name, shape) in enumerate(shapes.items()):
            if 0 not in shape:
                found[name] = jax.random.normal(jax.random.fold_in(key, last + index), shape)
    if structure.trend is not None:
        found |= {name: jnp.log(middle) for name, middle in structure.trend.hyperparameters.items()}
    return found
