"""MediaMix: its log density against plain NumPy, what padding changes, and what bad input is told."""

import warnings
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.stats

import pelton
from pelton.engine.errors import ArgumentError, ConvergenceWarning, DataError, UnknownNameError
from pelton.engine.precision import using
from pelton.models.adstock import Delayed, Geometric, WeibullCdf
from pelton.models.baseline import GaussianProcessTrend, PiecewiseTrend, fourier
from pelton.models.media_mix import MediaMix
from pelton.models.panel import Panel
from pelton.models.saturation import Exponential, Hill, Root, Tanh
from pelton.models.simulate import simulate_media


def panel_of(geos=3, weeks=(30, 22, 14), channels=2, seed=1) -> Panel:
    simulated = simulate_media(geos, weeks, channels, seed=seed)
    return Panel.from_frame(simulated.frame, **simulated.columns)


def value_at(model: MediaMix, position) -> float:
    with using("float64"):
        posterior = model.posterior()
        data = jax.tree.map(jnp.asarray, posterior.data)
        return float(posterior.logdensity(jnp.asarray(position), data))


def variables_at(model: MediaMix, position) -> dict[str, np.ndarray]:
    with using("float64"):
        posterior = model.posterior()
        data = jax.tree.map(jnp.asarray, posterior.data)
        return {k: np.asarray(v) for k, v in posterior.constrain(jnp.asarray(position), data).items()}


def named(model: MediaMix, position) -> dict[str, np.ndarray]:
    """The unconstrained values by name, as the position is laid out: in the order of the names."""
    layout: Any = getattr(model.posterior().logdensity, "of").layout  # noqa: B009
    with using("float64"):
        return {name: np.asarray(value) for name, value in layout.named(jnp.asarray(position)).items()}


def draw_position(model: MediaMix, seed=0, scale=0.5) -> np.ndarray:
    with using("float64"):
        posterior = model.posterior()
        middle = posterior.start(jax.random.key(seed), jax.tree.map(jnp.asarray, posterior.data))
    rng = np.random.default_rng(seed)
    return np.asarray(middle) + scale * rng.standard_normal(posterior.dimension)


def plain_adstock(spend, alpha, l_max):
    weights = alpha ** np.arange(l_max)
    found = np.zeros(len(spend))
    for week in range(len(spend)):
        for lag in range(min(l_max, week + 1)):
            found[week] += weights[lag] * spend[week - lag]
    return found / weights.sum()


def plain_hill(x, k, s):
    return np.array([0.0 if value == 0 else value**s / (value**s + k**s) for value in x])


def plain_media(panel: Panel, variables, g) -> np.ndarray:
    """The media term of a geo in its own weeks, in the units of the data."""
    weeks, total = np.flatnonzero(panel.inside[g]), 0.0
    for c in range(len(panel.channels)):
        carried = plain_adstock(panel.media[g, weeks, c], variables["alpha"][g, c], 12)
        shape = variables["half_saturation"][g, c], variables["slope"][g, c]
        total = total + variables["coef"][g, c] * plain_hill(carried, *shape)
    return np.asarray(total)


def plain_log_likelihood(panel: Panel, variables, design, model: MediaMix) -> float:
    """Of the scaled target in each geo's own weeks, the baseline integrated out as one dense normal."""
    own = [np.flatnonzero(inside) for inside in panel.inside]
    sigma = variables["sigma"] / panel.target_scale
    rest = [
        (panel.target[g, own[g]] - plain_media(panel, variables, g)) / panel.target_scale[g] for g in range(len(own))
    ]
    priors: list[Any] = [prior for one in model.structure.baseline for prior in one.priors]
    location, wide = (np.array([float(getattr(prior, name)) for prior in priors]) for name in ("loc", "scale"))
    if model.pooling["baseline"] == "hierarchical":
        sd = np.concatenate([variables[f"{one.name}_sd"] for one in model.structure.baseline])
    else:
        wide, sd = (0 * wide, wide) if model.pooling["baseline"] == "unpooled" else (wide, 0 * wide)
    stacked = np.concatenate([design[g, weeks] for g, weeks in enumerate(own)])
    geo = np.repeat(np.arange(len(own)), [len(weeks) for weeks in own])
    covariance = (stacked * wide**2) @ stacked.T
    covariance += ((stacked * sd**2) @ stacked.T) * (geo[:, None] == geo) + np.diag(sigma[geo] ** 2)
    return float(scipy.stats.multivariate_normal.logpdf(np.concatenate(rest), stacked @ location, covariance))


def sd_of(u: Any, scale: float) -> tuple[Any, Any]:
    """A half-normal's value and its derivative at the sampler's coordinate u, from the formula of the docstring."""
    q = (np.sqrt(u**2 + 4) - u) / 2
    sd = scale * np.sqrt(2 / np.pi) * np.exp(u * q / 2) / q
    return sd, sd * q


def plain_prior(model: MediaMix, position) -> float:
    """log p of the unconstrained values under the default priors with geometric adstock and Hill saturation."""
    values, total = named(model, position), 0.0
    norm, half = scipy.stats.norm.logpdf, scipy.stats.halfnorm.logpdf

    def log_prior(prior: Any, u: Any) -> Any:
        at, root = u, np.sqrt(u**2 + 4)
        loc, scale = (float(getattr(prior, name, np.nan)) for name in ("loc", "scale"))
        if isinstance(prior, dist.LogNormal | dist.Normal):
            return norm(at, loc, scale)
        assert isinstance(prior, dist.Beta)
        x = 1 / (1 + np.exp(-u * root / 2 - 2 * np.arcsinh(u / 2)))
        shapes: Any = (prior.concentration1, prior.concentration0)
        return scipy.stats.beta.logpdf(x, *map(float, shapes)) + np.log(x * (1 - x) * root)

    for parameter in (*model.structure.media, model.structure.effect, *model.structure.baseline):
        name = parameter.name
        if parameter in model.structure.collapsed and parameter.pooling != "hierarchical":
            continue
        for column, (prior, sd_prior) in enumerate(zip(parameter.priors, parameter.sd_priors, strict=True)):
            if parameter.pooling == "unpooled":
                total += np.sum(log_prior(prior, values[f"{name}_own_u"][:, column]))
                continue
            scale = float(sd_prior.scale)  # pyright: ignore
            sd, slope = sd_of(values[f"{name}_sd_u"][column], scale)
            if f"{name}_location_u" in values:
                total += log_prior(prior, values[f"{name}_location_u"][column])
            total += half(sd, scale=scale) + np.log(slope)
            if f"{name}_offset" in values:
                total += norm(values[f"{name}_offset"][:, column]).sum()
    for name in ("baseline_noise", "baseline_population_noise"):
        total += norm(values.get(name, np.zeros(0))).sum()
    sigma, slope = sd_of(values["sigma_own_u"], 0.5)
    return float(total + np.sum(half(sigma, scale=0.5) + np.log(slope)))


@pytest.mark.parametrize("baseline", ["hierarchical", "unpooled", "pooled"])
@pytest.mark.parametrize("seed", range(3))
def test_log_density_is_that_of_plain_numpy(seed, baseline):
    panel = panel_of()
    model = MediaMix(panel, pooling={"baseline": baseline}, trend="linear", seasonality=1, centring=0.0)
    position = draw_position(model, seed)
    variables = variables_at(model, position)
    geos, weeks = panel.target.shape
    # The design by hand: intercept, trend, one sine and cosine, the standardised control, the event.
    days = (panel.dates - np.datetime64("1970-01-01")).astype(int)
    season = [np.sin(2 * np.pi * days / 365.25), np.cos(2 * np.pi * days / 365.25)]
    common = np.stack([np.ones(weeks), np.linspace(-0.5, 0.5, weeks), *season], axis=-1)
    inside = panel.controls[panel.inside]
    control = (panel.controls - inside.mean(axis=0)) / inside.std(axis=0)
    design = np.concatenate([np.broadcast_to(common, (geos, weeks, 4)), control, panel.events], axis=-1)
    likelihood = plain_log_likelihood(panel, variables, design, model)
    expected = likelihood + plain_prior(model, position)
    assert value_at(model, position) == pytest.approx(expected, rel=1e-9)


def test_units_are_those_of_the_data():
    panel = panel_of()
    model = MediaMix(panel, centring=0.0)
    variables = variables_at(model, draw_position(model))
    # A typical active week brings, where it is held, `contribution` of the mean target.
    k, s = variables["half_saturation"], variables["slope"]
    steady = variables["coef"] * panel.media_scale**s / (panel.media_scale**s + k**s)
    np.testing.assert_allclose(steady, variables["contribution"] * panel.target_scale[:, None], rtol=1e-9)
    np.testing.assert_allclose(
        variables["half_saturation_population"],
        np.exp(named(model, draw_position(model))["half_saturation_location_u"]),
        rtol=1e-12,
    )


def test_centring_changes_the_coordinates_and_nothing_else():
    panel = panel_of()
    plain, centred = MediaMix(panel, centring=0.0), MediaMix(panel, centring=0.7)
    position = draw_position(plain)
    values = named(plain, position)
    moved, log_jacobian = dict(values), 0.0
    for parameter in plain.structure.parameters:
        if f"{parameter.name}_offset" not in values:
            continue
        location = values[f"{parameter.name}_location_u"]
        if parameter.name == "alpha":
            location = location * np.sqrt(location**2 + 4) / 2 + 2 * np.arcsinh(location / 2)
        free, priors = values[f"{parameter.name}_sd_u"], [float(prior.scale) for prior in parameter.sd_priors]  # pyright: ignore
        log_sd = np.log([sd_of(u, scale)[0] for u, scale in zip(free, priors, strict=True)])
        # eta = location + sd z; the other coordinate is sd^c z + c location.
        moved[f"{parameter.name}_offset"] = np.exp(0.7 * log_sd) * values[f"{parameter.name}_offset"] + 0.7 * location
        log_jacobian += 0.7 * np.sum(log_sd) * len(panel.geos)
    other = np.concatenate([moved[name].ravel() for name in sorted(moved)])
    assert value_at(centred, other) + log_jacobian == pytest.approx(value_at(plain, position), rel=1e-11)
    for name, value in variables_at(plain, position).items():
        np.testing.assert_allclose(variables_at(centred, other)[name], value, rtol=1e-9)


def wider(panel: Panel, before: int, after: int) -> Panel:
    """The panel with masked weeks before and after."""

    def pad(values, fill):
        widths = [(0, 0)] * values.ndim
        widths[1] = (before, after)
        return np.pad(values, widths, constant_values=fill)

    week = np.timedelta64(7, "D")
    dates = panel.dates[0] + week * np.arange(-before, len(panel.dates) + after)
    return replace(
        panel,
        dates=dates,
        target=pad(panel.target, np.nan),
        observed=pad(panel.observed, False),
        inside=pad(panel.inside, False),
        media=pad(panel.media, 0.0),
        spend=pad(panel.spend, 0.0),
        controls=pad(panel.controls, 0.0),
        events=pad(panel.events, 0.0),
    )


@pytest.mark.parametrize("effect", ["contribution", "roi"])
def test_masked_weeks_change_nothing(effect):
    panel = panel_of()
    model = MediaMix(panel, seasonality=1, effect=effect)
    padded = MediaMix(wider(panel, 5, 9), seasonality=1, effect=effect)
    position = draw_position(model)
    assert value_at(padded, position) == pytest.approx(value_at(model, position), rel=1e-12)


def test_an_empty_geo_changes_no_more_than_its_own_prior():
    panel = panel_of()
    pooled = {"pooling": "pooled", "seasonality": 1}

    def grown(values, fill):
        return np.concatenate([values, np.full_like(values[:1], fill)])

    more = replace(
        panel,
        geos=(*panel.geos, "nowhere"),
        target=grown(panel.target, np.nan),
        observed=grown(panel.observed, False),
        inside=grown(panel.inside, False),
        **{name: grown(getattr(panel, name), 0.0) for name in ("media", "spend", "controls", "events")},
    )
    model, larger = MediaMix(panel, **pooled), MediaMix(more, **pooled)
    position = draw_position(model)
    values = named(model, position)
    values["sigma_own_u"] = np.concatenate([values["sigma_own_u"], [[0.3]]])
    sigma, slope = sd_of(0.3, 0.5)
    other = np.concatenate([values[name].ravel() for name in sorted(values)])
    own = scipy.stats.halfnorm.logpdf(sigma, scale=0.5) + np.log(slope)
    assert value_at(larger, other) - own == pytest.approx(value_at(model, position), rel=1e-12)


def test_unequal_lengths_have_the_log_density_of_separate_geos():
    """With unpooled parameters the panel's log density is the sum of those of its geos, each without padding."""
    panel = panel_of()
    model = MediaMix(panel, pooling="unpooled", seasonality=1)
    position = draw_position(model)
    values, total = named(model, position), 0.0
    for at, geo in enumerate(panel.geos):
        alone = panel.subset([geo])
        # Controls are standardised over the panel, so that the standard one is handed on.
        one = replace(alone, controls=(alone.controls - panel.control_mean) / panel.control_scale)
        one.__dict__["control_mean"], one.__dict__["control_scale"] = np.zeros(1), np.ones(1)
        single = MediaMix(one, seasonality=1)
        mine = {
            "baseline_population_noise" if name == "baseline_noise" else name.replace("_own_", "_location_"): value[at]
            for name, value in values.items()
            if name != "sigma_own_u"
        } | {"sigma_own_u": values["sigma_own_u"][at : at + 1]}
        total += value_at(single, np.concatenate([mine[name].ravel() for name in sorted(mine)]))
    assert value_at(model, position) == pytest.approx(total, rel=1e-11)


def test_each_channel_has_its_own_forms():
    panel = panel_of(channels=3)
    forms = {"spotify_ads": Delayed(l_max=6), "meta": WeibullCdf(l_max=5), "tiktok": Geometric(l_max=4)}
    curves = {"spotify_ads": Tanh(), "meta": Root(), "tiktok": Exponential()}
    # Under priors that are not normal the baseline stays with the other parameters.
    priors = {name: dist.Laplace(0.0, 0.5) for name in ("intercept", "control", "event")}
    pooling = {"baseline": "unpooled"}
    model = MediaMix(panel, pooling=pooling, adstock=forms, saturation=curves, centring=0.0, priors=priors)
    assert not model.structure.collapsed
    position = draw_position(model)
    found = variables_at(model, position)
    assert found["alpha"].shape == (3, 2)
    assert model.posterior().dims["alpha"] == ("geo", "alpha_channel")
    assert list(model.posterior().coords["alpha_channel"]) == ["spotify_ads", "tiktok"]

    def normalised(weights):
        return weights / weights.sum()

    expected = 0.0
    for g in range(3):
        weeks = np.flatnonzero(panel.inside[g])
        mean = found["baseline_coefficient"][g, 0] * np.ones(len(weeks))
        control = (panel.controls - panel.control_mean) / panel.control_scale
        mean = mean + control[g, weeks, 0] * found["baseline_coefficient"][g, 1]
        mean = mean + panel.events[g, weeks, 0] * found["baseline_coefficient"][g, 2]
        lag = np.arange(6)
        kernels = [
            normalised(found["alpha"][g, 0] ** ((lag - found["theta"][g, 0]) ** 2)),
            None,
            normalised(found["alpha"][g, 1] ** lag[:4]),
        ]
        survival = np.exp(-((lag[:5] / found["weibull_scale"][g, 0]) ** found["weibull_shape"][g, 0]))
        kernels[1] = normalised(np.cumprod(survival))
        shapes = [
            lambda x, g=g: np.tanh(x / found["tanh_scale"][g, 0]),
            lambda x, g=g: x ** found["power"][g, 0],
            lambda x, g=g: 1 - np.exp(-found["rate"][g, 0] * x),
        ]
        for c in range(3):
            carried = np.convolve(panel.media[g, weeks, c], kernels[c])[: len(weeks)]
            mean = mean + found["coef"][g, c] * shapes[c](carried)
        expected += scipy.stats.norm.logpdf(panel.target[g, weeks], mean, found["sigma"][g]).sum()
        expected += len(weeks) * np.log(panel.target_scale[g])
    assert value_at(model, position) - prior_alone(model, position) == pytest.approx(expected, rel=1e-9)


def prior_alone(model: MediaMix, position) -> float:
    with using("float64"):
        posterior = model.posterior()
        unseen = ("observed", "deviations", "gram", "count")
        data = dict(model.data) | {name: np.zeros_like(model.data[name]) for name in unseen}
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(data)]
        return float(posterior.logdensity(jnp.asarray(position), leaves))


def test_coefficients_follow_from_the_return():
    panel = panel_of()
    model = MediaMix(panel, effect="roi", centring=0.0)
    found = variables_at(model, draw_position(model))
    for g in range(3):
        weeks = np.flatnonzero(panel.inside[g])
        for c in range(2):
            carried = plain_adstock(panel.media[g, weeks, c], found["alpha"][g, c], 12)
            brought = found["coef"][g, c] * plain_hill(carried, found["half_saturation"][g, c], found["slope"][g, c])
            assert brought.sum() / panel.spend[g, :, c].sum() == pytest.approx(found["roi"][g, c], rel=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("effect", ["contribution", "coefficient", "roi"])
def test_a_geo_that_bought_none_of_a_channel_has_the_groups_posterior(effect):
    """Its parameters there move the prior alone, and every gradient is finite."""
    panel = panel_of()
    media = panel.media.copy()
    media[2, :, 0] = 0.0
    model = MediaMix(replace(panel, media=media, spend=media), effect=effect)
    position = draw_position(model)
    with using("float64"):
        posterior = model.posterior()
        data = jax.tree.map(jnp.asarray, posterior.data)
        gradient = jax.grad(posterior.logdensity)(jnp.asarray(position), data)
    assert np.isfinite(np.asarray(gradient)).all()
    values = named(model, position)
    for name in ("alpha", "half_saturation", "slope", effect):
        values[f"{name}_offset"] = values[f"{name}_offset"].copy()
        values[f"{name}_offset"][2, 0] += 0.7
    moved = np.concatenate([values[name].ravel() for name in sorted(values)])
    by_prior = prior_alone(model, moved) - prior_alone(model, position)
    assert value_at(model, moved) - value_at(model, position) == pytest.approx(by_prior, rel=1e-9)


def test_a_lift_test_adds_its_likelihood():
    panel = panel_of()
    tests = pd.DataFrame(
        {
            "channel": ["meta", "spotify_ads"],
            "geo": ["market_2", None],
            "x": [800.0, 1500.0],
            "delta_x": [300.0, -1500.0],
            "delta_y": [900.0, -2000.0],
            "sigma": [250.0, 400.0],
        }
    )
    plain, informed = MediaMix(panel, centring=0.0), MediaMix(panel, lift_tests=tests, centring=0.0)
    position = draw_position(plain)
    found = variables_at(plain, position)

    def steady(g, c, x):
        return found["coef"][g, c] * plain_hill([x], found["half_saturation"][g, c], found["slope"][g, c])[0]

    first = steady(1, 1, 1100.0) - steady(1, 1, 800.0)
    share = panel.media[:, :, 0].sum(axis=1) / panel.media[:, :, 0].sum()
    second = sum(steady(g, 0, 0.0) - steady(g, 0, 1500.0 * share[g]) for g in range(3))
    expected = scipy.stats.norm.logpdf([900.0, -2000.0], [first, second], [250.0, 400.0]).sum()
    assert value_at(informed, position) - value_at(plain, position) == pytest.approx(expected, rel=1e-8)


def test_student_t_likelihood():
    panel = panel_of()
    model = MediaMix(panel, likelihood="student_t", pooling="pooled")
    position = draw_position(model)
    found = variables_at(model, position)
    normal = MediaMix(panel, pooling="pooled")
    values = named(model, position)
    q = (np.sqrt(values["nu_location_u"] ** 2 + 4) - values["nu_location_u"]) / 2
    nu = float(20.0 * np.exp(values.pop("nu_location_u") * q / 2)[0] / q[0])
    # A normal likelihood has the baseline integrated out.
    names = [f"{one.name}_location_u" for one in model.structure.baseline]
    own = np.concatenate([values.pop(name) for name in names])
    values["baseline_population_noise"] = np.zeros(len(own))
    rest = np.concatenate([values[name].ravel() for name in sorted(values)])
    assert found["nu"] == pytest.approx(nu)
    prior = scipy.stats.gamma.logpdf(nu, 2.0, scale=10.0) + np.log(nu * q[0])
    normals: list[Any] = [one for parameter in model.structure.baseline for one in parameter.priors]
    loc, scale = (np.array([float(getattr(one, name)) for one in normals]) for name in ("loc", "scale"))
    prior += scipy.stats.norm.logpdf(own, loc, scale).sum() - scipy.stats.norm.logpdf(np.zeros(len(own))).sum()
    assert prior_alone(model, position) == pytest.approx(prior_alone(normal, rest) + prior, rel=1e-9)


def test_a_new_panel_of_the_same_shape_shares_the_compiled_programs():
    first, second = (MediaMix(panel_of(seed=seed)).posterior() for seed in (1, 2))
    assert first.logdensity == second.logdensity
    assert hash(first.logdensity) == hash(second.logdensity)
    assert first.start == second.start
    assert first.constrain == second.constrain
    other = MediaMix(panel_of(seed=1), priors={"alpha": dist.Beta(2.0, 2.0)}).posterior()
    assert other.logdensity != first.logdensity


@pytest.mark.parametrize(
    ("name", "prior", "words"),
    [
        (
            "alpha_sd",
            dist.Normal(0.0, 1.0),
            "Normal(0, 1), reaches from -inf to inf, but alpha_sd is positive",
        ),
        ("alpha", dist.Normal(0.0, 1.0), "but alpha lies within 0 and 1; its default is Beta(1, 3)"),
        ("slope", dist.Uniform(-1.0, 2.0), "reaches from -1 to 2, but slope is positive"),
    ],
)
def test_priors_that_reach_too_far(name, prior, words):
    with pytest.raises(ArgumentError) as caught:
        MediaMix(panel_of(), priors={name: prior})
    assert words in str(caught.value)


@pytest.mark.parametrize("prior", [dist.Uniform(0.0, 0.8), dist.TruncatedNormal(0.3, 0.2, low=0.1)])
def test_spreads_on_other_supports(prior):
    """The sd that is recorded has the prior that was asked for, and is the one that the offsets are multiplied by."""
    model = MediaMix(panel_of(), priors={"slope_sd": prior}, centring=0.0)
    position = draw_position(model)
    found, values = variables_at(model, position), named(model, position)
    spread = np.log(found["slope"] / found["slope_population"])
    np.testing.assert_allclose(spread, found["slope_sd"] * values["slope_offset"], rtol=1e-9)
    support: Any = prior.support
    assert (found["slope_sd"] > support.lower_bound).all()
    assert (found["slope_sd"] < getattr(support, "upper_bound", np.inf)).all()


def test_priors_by_name():
    panel = panel_of()
    model = MediaMix(
        panel,
        priors={
            "alpha": "Beta(2, 5)",
            "alpha[meta]": dist.Beta(5.0, 2.0),
            "control[price_index]": dist.Normal(0.0, 1.0),
        },
    )
    assert model.priors["alpha[meta]"] == "Beta(5, 2)"
    assert model.priors["alpha[spotify_ads]"] == "Beta(2, 5)"
    assert model.priors["control"] == "Normal(0, 1)"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"pooling": "partial"}, UnknownNameError, "hierarchical"),
        ({"pooling": {"adstok": "pooled"}}, UnknownNameError, "adstock"),
        ({"adstock": {"metta": Geometric()}}, UnknownNameError, "meta"),
        ({"adstock": {"meta": Hill()}}, ArgumentError, "pelton.adstock"),
        ({"saturation": {"meta": Geometric()}}, ArgumentError, "pelton.saturation"),
        ({"effect": "rio"}, UnknownNameError, "roi"),
        ({"trend": "lineer"}, UnknownNameError, "linear"),
        ({"seasonality": -1}, ArgumentError, "at least 0"),
        ({"likelihood": "students"}, UnknownNameError, "student_t"),
        ({"priors": {"alhpa": dist.Beta(1.0, 1.0)}}, UnknownNameError, "alpha"),
        ({"priors": {"alpha": 3.0}}, ArgumentError, "alpha"),
        ({"adstock": Geometric(l_max=15)}, DataError, "market_3"),
        ({"centring": 2.0}, ArgumentError, "from 0 to 1"),
    ],
)
def test_bad_options_get_one_clear_error(options, error, said):
    with pytest.raises(error, match=said):
        MediaMix(panel_of(), **options)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"channel": ["metta"]}, UnknownNameError, "row 0"),
        ({"geo": ["market_9"]}, UnknownNameError, "market_9"),
        ({"sigma": [0.0]}, DataError, "sigma"),
        ({"delta_x": [0.0]}, DataError, "delta_x"),
        ({"delta_x": [-900.0]}, DataError, "spends less"),
        ({"x": ["many"]}, DataError, "many"),
    ],
)
def test_bad_lift_tests(change, error, said):
    good = {"channel": ["meta"], "geo": ["market_1"], "x": [800.0], "delta_x": [10.0], "delta_y": [5.0], "sigma": [2.0]}
    with pytest.raises(error, match=said):
        MediaMix(panel_of(), lift_tests=pd.DataFrame(good | change))


@pytest.mark.parametrize("trend", [PiecewiseTrend(3), GaussianProcessTrend(6)])
def test_trends_are_columns_of_the_design(trend):
    panel = panel_of()
    model = MediaMix(panel, trend=trend)
    found = variables_at(model, draw_position(model))
    names = [str(name) for name in model.posterior().coords["term"] if str(name).startswith("trend")]
    assert len(names) == {"piecewise": 4, "gp": 6}[trend.name]
    assert np.isfinite(found["baseline_coefficient"]).all()


def test_the_gaussian_process_has_the_covariance_of_its_kernel():
    """Against the squared-exponential kernel itself, inside the data's span."""
    u = np.linspace(-0.5, 0.5, 41)
    trend = GaussianProcessTrend(30)
    columns = trend.part(u).design
    amplitude, length = 0.3, 0.25
    frequencies = np.arange(1, 31) * np.pi / 1.5
    density = amplitude**2 * np.sqrt(2 * np.pi) * length * np.exp(-0.5 * (length * frequencies) ** 2)
    found = (columns * density) @ columns.T
    expected = amplitude**2 * np.exp(-0.5 * ((u[:, None] - u) / length) ** 2)
    inner = slice(8, 33)
    np.testing.assert_allclose(found[inner, inner], expected[inner, inner], atol=0.02 * amplitude**2)


def test_fourier_columns():
    dates = np.array(["2024-01-01", "2024-03-05"], "datetime64[D]")
    names, columns = fourier(dates, 2)
    days = np.array([19723.0, 19787.0])
    assert names == ("sin_1", "cos_1", "sin_2", "cos_2")
    np.testing.assert_allclose(columns[:, 3], np.cos(4 * np.pi * days / 365.25), rtol=1e-9)


@pytest.mark.long
def test_sampling_recovers_a_small_truth_and_fills_the_tree():
    simulated = simulate_media(3, 60, 2, seed=4)
    panel = Panel.from_frame(simulated.frame, **simulated.columns)
    model = MediaMix(panel, trend="linear", seasonality=2)
    groups = ("prior", "prior_predictive", "posterior_predictive", "log_likelihood")
    with warnings.catch_warnings():
        # Whether a transition in thousands diverges depends on the machine's rounding.
        warnings.simplefilter("ignore", ConvergenceWarning)
        tree = pelton.sample(model, chains=2, warmup=500, draws=1000, seed=1, groups=groups, progress=False)
    assert tree.attrs["worst_rhat"] < 1.03
    assert {"posterior", "sample_stats", "observed_data", "constant_data", *groups} <= set(tree.children)
    coef = tree["posterior"]["sigma"].mean(("chain", "draw"))
    np.testing.assert_allclose(coef, simulated.truth["sigma"].sel(geo=coef["geo"]), rtol=0.5)
    assert tree["log_likelihood"]["target"].dims == ("chain", "draw", "geo", "time")
    # The pointwise terms, masked weeks apart, against scipy at one draw.
    one = tree["posterior"].to_dataset().isel(chain=1, draw=7)
    found = tree["log_likelihood"]["target"].isel(chain=1, draw=7).to_numpy()
    spend = panel.media
    mean = np.einsum("gtk,gk->gt", tree["constant_data"]["baseline_design"], one["baseline_coefficient"])
    for g in range(3):
        for c in range(2):
            carried = plain_adstock(spend[g, :, c], float(one["alpha"][g, c]), 12)
            shape = float(one["half_saturation"][g, c]), float(one["slope"][g, c])
            mean[g] += float(one["coef"][g, c]) * plain_hill(carried, *shape)
    expected = scipy.stats.norm.logpdf(panel.target, mean, one["sigma"].to_numpy()[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_structure_groups_channels_of_one_form():
    model = MediaMix(panel_of(channels=3), adstock={"meta": Delayed()})
    assert [group.channels for group in model.structure.groups] == [(0, 2), (1,)]
