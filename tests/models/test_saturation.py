"""Saturation objects against the formulas in plain NumPy, scipy's root finder and scipy's priors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import optimize, stats

from pelton.engine.errors import ArgumentError, UnknownNameError
from pelton.models import curves, saturation
from pelton.models.distributions import to_text
from pelton.models.saturation import KINDS, SATURATIONS, Exponential, Hill, Root, Tanh, for_kind, from_name

FORMULAS = {
    "hill": lambda x, half_saturation, slope: x**slope / (x**slope + half_saturation**slope),
    "exponential": lambda x, rate: 1 - np.exp(-rate * x),
    "logistic": lambda x, rate: (1 - np.exp(-rate * x)) / (1 + np.exp(-rate * x)),
    "michaelis_menten": lambda x, half_saturation: x / (half_saturation + x),
    "tanh": lambda x, tanh_scale: np.tanh(x / tanh_scale),
    "root": lambda x, power: x**power,
}
# [geo, channel]
VALUES = {
    "half_saturation": np.array([[0.3, 1.0, 2.0], [0.7, 1.4, 5.0]]),
    "slope": np.array([[0.6, 1.0, 2.0], [1.3, 3.0, 0.9]]),
    "rate": np.array([[0.2, 0.7, 2.0], [0.4, 1.1, 3.0]]),
    "tanh_scale": np.array([[0.5, 1.8, 4.0], [1.0, 2.5, 0.8]]),
    "power": np.array([[0.1, 0.5, 0.9], [0.3, 0.7, 1.0]]),
}
PRIORS = {
    ("hill", "half_saturation"): stats.lognorm(0.7),
    ("hill", "slope"): stats.lognorm(0.4, scale=np.exp(0.2)),
    ("exponential", "rate"): stats.lognorm(0.7, scale=np.exp(-0.37)),
    ("logistic", "rate"): stats.lognorm(0.7, scale=np.exp(0.09)),
    ("michaelis_menten", "half_saturation"): stats.lognorm(0.7),
    ("tanh", "tanh_scale"): stats.lognorm(0.7, scale=np.exp(0.6)),
    ("root", "power"): stats.beta(2, 2),
}
NAME = pytest.mark.parametrize("name", sorted(FORMULAS))
BOUNDED = pytest.mark.parametrize("name", sorted(set(FORMULAS) - {"root"}))


def given(name):
    return {key: VALUES[key] for key in SATURATIONS[name]._sds}


@NAME
def test_apply(name):
    media = np.random.default_rng(0).gamma(1.0, 1.0, (2, 30, 3))
    media[:, ::5] = 0.0
    values = {key: value[:, None] for key, value in given(name).items()}
    with jax.enable_x64(True):
        found = from_name(name).apply(media, **values)
    np.testing.assert_allclose(found, FORMULAS[name](media, **values), rtol=1e-12, atol=1e-15)


@NAME
def test_unscale(name):
    """factor * apply(raw media, raw parameters) = apply(media / scale, scaled parameters)."""
    scale = np.array([[2e4, 350.0, 0.02], [1e6, 1.0, 77.0]])
    shape = from_name(name)
    raw, factor = shape.unscale(scale, **given(name))
    assert list(raw) == list(given(name))
    media = scale * np.linspace(0, 6, 13)[:, None, None]
    expected = FORMULAS[name](media / scale, **given(name))
    np.testing.assert_allclose(FORMULAS[name](media, **raw) * factor, expected, rtol=1e-10)
    with jax.enable_x64(True):
        np.testing.assert_allclose(shape.apply(media, **raw) * factor, expected, rtol=1e-10)
        traced = jax.jit(lambda scale, values: shape.unscale(scale, **values))(scale, given(name))
    np.testing.assert_allclose(traced[1], factor, rtol=1e-12)
    for key, value in raw.items():
        np.testing.assert_allclose(traced[0][key], value, rtol=1e-12)


@BOUNDED
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_inverse(name, share):
    found = from_name(name).inverse(share, **given(name))
    assert found.dtype == np.float64
    for cell in np.ndindex(2, 3):
        values = {key: value[cell] for key, value in given(name).items()}
        exact = optimize.brentq(
            lambda x, values=values: FORMULAS[name](x, **values) - share, 1e-12, 1e6, xtol=1e-14, rtol=1e-14
        )
        np.testing.assert_allclose(found[cell], exact, rtol=1e-9)


def test_inverse_broadcasts_and_knows_its_limits():
    found = Hill().inverse([[0.5], [0.9]], half_saturation=jnp.array([1.0, 10.0], jnp.float32), slope=1.0)
    np.testing.assert_allclose(found, [[1, 10], [9, 90]], rtol=1e-12)
    assert np.isnan(Root().inverse([0.5, 0.9], power=0.5)).all()
    assert np.isinf(Exponential().inverse(0.5, rate=0.0))
    for share in (0.0, 1.0, np.nan, [0.5, -1.0]):
        with pytest.raises(ArgumentError, match=r"share is .*; it must lie above 0 and below 1"):
            Hill().inverse(share, half_saturation=1.0, slope=1.0)


def test_equality_is_by_value():
    one = Hill(slope=dist.LogNormal(0.0, 0.2))
    with jax.enable_x64(True):
        same = Hill(slope=dist.LogNormal(0, 0.2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != Hill()
    assert from_name("exponential", rate="Gamma(3, 1)") != from_name("logistic", rate="Gamma(3, 1)")
    assert len({one, same, Hill(), Hill(), Exponential(), Root()}) == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.slope = dist.LogNormal(0.0, 1.0)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Hill(half_saturation=dist.Normal(1.0, 1.0)),
            r"the prior of half_saturation of the hill saturation is Normal\(1, 1\), with values from -inf to inf; "
            "they must be positive",
        ),
        (lambda: Root(power=dist.HalfNormal(1.0)), "from 0 to inf; they must lie within 0 and 1"),
        (lambda: Tanh(tanh_scale=dist.Beta(np.ones(2), 1.0)), r"one number, not of shape \(2,\)"),
    ],
)
def test_wrong_priors(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_wrong_parameters():
    with pytest.raises(UnknownNameError, match="unknown parameter of the hill saturation 'slop'; did you mean 'slope'"):
        Hill().apply(1.0, half_saturation=1.0, slop=1.0)
    with pytest.raises(ArgumentError, match="needs half_saturation and slope; slope was not given"):
        Hill().unscale(2.0, half_saturation=1.0)
    with pytest.raises(ArgumentError, match="slope of the hill saturation is -2; it must be positive"):
        Hill().inverse(0.5, half_saturation=1.0, slope=[1.0, -2.0])
    with pytest.raises(ArgumentError, match=r"power of the root saturation is 1\.5; it must lie within 0 and 1"):
        Root().plot(Figure().subplots(), power=1.5)


def test_by_name():
    assert sorted(SATURATIONS) == sorted(FORMULAS)
    for name, family in SATURATIONS.items():
        shape = family()
        assert shape.describe() == {"name": name}
        assert from_name(**shape.describe()) == shape
        assert set(shape.parameters) == set(shape.sds) == set(shape.supports)
        text = {key: to_text(prior) for key, prior in shape.parameters.items()}
        assert from_name(name, **text) == shape
    with pytest.raises(UnknownNameError, match="unknown saturation 'hil'; did you mean 'hill'"):
        from_name("hil")
    with pytest.raises(UnknownNameError, match="unknown setting of the hill saturation 'slpe'; did you mean 'slope'"):
        from_name("hill", slpe="LogNormal(0, 1)")


@pytest.mark.parametrize(("name", "parameter"), sorted(PRIORS))
def test_default_priors_are_those_of_the_text(name, parameter):
    prior = from_name(name).parameters[parameter]
    oracle = PRIORS[name, parameter]
    x = oracle.ppf([0.1, 0.5, 0.9])
    np.testing.assert_allclose(prior.log_prob(x), oracle.logpdf(x), rtol=1e-4, atol=1e-4)
    assert f"| {parameter} | {to_text(prior)} | HalfNormal({from_name(name).sds[parameter]}) of the " in str(
        saturation.__doc__
    )


@BOUNDED
def test_half_of_saturation_lies_near_the_typical_week(name):
    """Half-saturation is monotone in its parameter: its quantiles follow from the prior's."""
    parameter = next(iter(from_name(name).parameters))
    quantiles = PRIORS[name, parameter].ppf([0.05, 0.5, 0.95])
    formula = FORMULAS[name]
    slope = {"slope": 1.0} if name == "hill" else {}
    half = [optimize.brentq(lambda x, q=q: formula(x, **{parameter: q}, **slope) - 0.5, 1e-9, 1e3) for q in quantiles]
    low, middle, high = sorted(half)
    assert abs(middle - 1) < 0.02
    assert 0.3 < low < 1 / 3
    assert 3 < high < 3.3


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_presets(kind):
    """Slopes in Robyn's range of 0.5 to 3, half-saturations around the typical week."""
    shape = for_kind(kind)
    slope, half = (
        stats.lognorm(prior.scale, scale=np.exp(prior.loc))  # pyright: ignore[reportAttributeAccessIssue]
        for prior in (shape.slope, shape.half_saturation)
    )
    assert slope.cdf(3.0) - slope.cdf(0.5) > 0.9
    assert 0.9 < half.median() < 1.3
    assert len(KINDS[kind].why) > 20
    assert kind != "video" or slope.median() > 1.5


def test_an_unknown_kind():
    with pytest.raises(UnknownNameError, match="unknown kind of channel 'serch'; did you mean 'search'"):
        for_kind("serch")


def legend_of(axes):
    return " | ".join(text.get_text().replace("\n", " ") for text in axes.get_legend().get_texts())


def line_of(axes, colour):
    return next(line for line in axes.lines if len(line.get_xdata()) > 100 and to_hex(line.get_color()) == colour)


def points_of(axes, marker):
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == marker]


def test_plot_of_a_few_values():
    axes = Figure().subplots()
    drawn = Hill().plot(
        axes, today=[50.0, 400.0], half_saturation=[100.0, 200.0], slope=2.0, unit="clicks", labels=["a", "b"]
    )
    assert drawn is axes
    for colour, k in zip(curves.COLOURS, (100.0, 200.0), strict=False):
        line = line_of(axes, colour)
        x = np.asarray(line.get_xdata())
        np.testing.assert_allclose(line.get_ydata(), x**2 / (x**2 + k**2), rtol=1e-9)
    np.testing.assert_allclose(points_of(axes, "o"), [(100, 0.5), (200, 0.5)])
    np.testing.assert_allclose(points_of(axes, "s"), [(300, 0.9), (600, 0.9)])
    np.testing.assert_allclose(points_of(axes, "D"), [(50, 0.2), (400, 0.8)])
    assert axes.get_xlabel() == "clicks"
    assert legend_of(axes) == (
        "a: half at 100, 90% at 300; today, 50, is at 20% | b: half at 200, 90% at 600; today, 400, is at 80%"
    )


def test_plot_reaches_today_and_not_beyond_reason():
    axes = Figure().subplots()
    Hill().plot(axes, half_saturation=100.0, slope=0.5)
    # 90% of saturation would be at 8,100.
    np.testing.assert_allclose(axes.get_xlim(), (0, 500))
    assert points_of(axes, "s") == []
    assert "90% at 8,100" in legend_of(axes)
    axes = Figure().subplots()
    Hill().plot(axes, today=1000.0, half_saturation=100.0, slope=0.5)
    np.testing.assert_allclose(axes.get_xlim(), (0, 1250))


def test_plot_of_draws_and_of_the_prior():
    rate = np.random.default_rng(0).gamma(100, 1e-5, (4, 100))
    axes = Figure().subplots()
    Exponential().plot(axes, today=700.0, rate=rate)
    line = line_of(axes, curves.COLOURS[0])
    x = np.asarray(line.get_xdata())
    np.testing.assert_allclose(line.get_ydata(), np.median(1 - np.exp(-rate.reshape(-1, 1) * x), 0), rtol=1e-9)
    words = legend_of(axes)
    half = f"{np.median(np.log(2) / rate):.1e}"
    assert words.startswith(f"94% of the draws | 50% of the draws | median | 50% of saturation at {float(half):g} (94%")
    assert words.endswith(f"today, 700, is at {np.median(1 - np.exp(-rate * 700)):.0%}")
    with pytest.raises(ArgumentError, match="today has 2 values, and there are 400 curves"):
        Exponential().plot(axes, today=[1.0, 2.0], rate=rate)
    with pytest.raises(ArgumentError, match="today is -1; media are finite numbers, zero or more"):
        Exponential().plot(axes, today=-1.0, rate=rate)
    axes = Figure().subplots()
    Exponential().plot(axes)
    assert axes.get_xlabel() == "media, where a typical active week is 1"
    assert "94% of the prior" in legend_of(axes)


def test_plot_of_a_root():
    axes = Figure().subplots()
    Root().plot(axes, today=4.0, power=0.5)
    assert legend_of(axes) == "power 0.5; today, 4"
    np.testing.assert_allclose(points_of(axes, "D"), [(4, 2)])
    assert points_of(axes, "o") == points_of(axes, "s") == []
