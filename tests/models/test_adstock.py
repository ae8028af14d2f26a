"""Adstock objects against loops over the published formulas, closed-form half-lives and scipy's priors."""

import dataclasses
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import stats

from pelton.engine.errors import ArgumentError, UnknownNameError
from pelton.models import adstock, curves
from pelton.models.adstock import ADSTOCKS, KINDS, Adstock, Delayed, Geometric, WeibullPdf, for_kind, from_name
from pelton.models.distributions import to_text


def weibull_pdf(length, weibull_scale, weibull_shape):
    density = stats.weibull_min(weibull_shape, scale=weibull_scale).pdf(np.arange(1, length + 1))
    return (density - density.min()) / (density.max() - density.min())


def weibull_cdf(length, weibull_scale, weibull_shape):
    survival = stats.weibull_min(weibull_shape, scale=weibull_scale).sf(np.arange(1, length))
    return np.concatenate([[1.0], np.cumprod(survival)])


# Weights before they are normalised.
FORMULAS = {
    "geometric": lambda n, alpha: np.array([alpha**lag for lag in range(n)]),
    "delayed": lambda n, alpha, theta: np.array([alpha ** ((lag - theta) ** 2) for lag in range(n)]),
    "binomial": lambda n, alpha: np.array([(1 - lag / (n + 1)) ** (1 / alpha - 1) for lag in range(n)]),
    "weibull_pdf": weibull_pdf,
    "weibull_cdf": weibull_cdf,
}
# [geo, channel]
VALUES = {
    "alpha": np.array([[0.1, 0.5, 0.85], [0.3, 0.7, 0.95]]),
    "theta": np.array([[0.0, 1.3, 4.0], [2.0, 2.5, 5.9]]),
    "weibull_scale": np.array([[0.7, 2.0, 5.0], [1.0, 3.0, 8.0]]),
    "weibull_shape": np.array([[0.6, 1.0, 2.5], [1.5, 3.0, 0.8]]),
}
NAME = pytest.mark.parametrize("name", sorted(FORMULAS))
# The ranges of theta that Robyn's documentation gives.
ROBYN = {
    "search": (0.0, 0.3),
    "social": (0.0, 0.3),
    "display": (0.0, 0.3),
    "video": (0.3, 0.8),
    "audio": (0.1, 0.4),
    "out_of_home": (0.1, 0.4),
    "print": (0.1, 0.4),
}


def given(family: Adstock | type[Adstock]) -> dict[str, np.ndarray]:
    return {name: VALUES[name] for name in family._sds}


def expected_weights(name: str, length: int, values: dict[str, np.ndarray]) -> np.ndarray:
    shape = next(iter(values.values())).shape
    found = np.empty((*shape, length))
    for cell in np.ndindex(shape):
        found[cell] = FORMULAS[name](length, **{key: value[cell] for key, value in values.items()})
    return found


@NAME
@pytest.mark.parametrize("normalize", [True, False])
def test_weights_and_their_total(name, normalize):
    for length in (2, 7, 12):
        stock = from_name(name, l_max=length, normalize=normalize)
        values = {
            key: np.minimum(value, length - 1) if key == "theta" else value for key, value in given(stock).items()
        }
        expected = expected_weights(name, length, values)
        total = expected.sum(-1)
        if normalize:
            expected, total = expected / total[..., None], np.ones_like(total)
        with jax.enable_x64(True):
            np.testing.assert_allclose(stock.weights(**values), expected, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(stock.total(**values), total, rtol=1e-12)


@NAME
@pytest.mark.parametrize("normalize", [True, False])
def test_apply_against_a_loop(name, normalize):
    media = np.random.default_rng(0).gamma(0.5, 100.0, (2, 20, 3))
    stock = from_name(name, l_max=7, normalize=normalize)
    weights = expected_weights(name, 7, given(stock))
    if normalize:
        weights /= weights.sum(-1, keepdims=True)
    expected = np.zeros_like(media)
    for week in range(20):
        for lag in range(min(week, 6) + 1):
            expected[:, week] += weights[..., lag] * media[:, week - lag]
    with jax.enable_x64(True):
        np.testing.assert_allclose(stock.apply(media, **given(stock)), expected, rtol=1e-11)
        innermost = stock.apply(np.moveaxis(media, 1, 2), axis=-1, **given(stock))
        np.testing.assert_allclose(np.moveaxis(innermost, 2, 1), expected, rtol=1e-11)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_geometric_adstock_without_end(normalize):
    media = np.random.default_rng(1).gamma(0.5, 100.0, (2, 60, 3))
    alpha = VALUES["alpha"]
    expected, level = np.zeros_like(media), np.zeros((2, 3))
    for week in range(60):
        level = media[:, week] + alpha * level
        expected[:, week] = level * ((1 - alpha) if normalize else 1)
    stock = Geometric(l_max=None, normalize=normalize)
    with jax.enable_x64(True):
        np.testing.assert_allclose(stock.apply(media, alpha=alpha), expected, rtol=1e-11)
        np.testing.assert_allclose(stock.total(alpha=alpha), 1.0 if normalize else 1 / (1 - alpha), rtol=1e-12)
    with pytest.raises(ArgumentError, match="no last lag"):
        stock.weights(alpha=alpha)
    with jax.enable_x64(True):
        long = dataclasses.replace(stock, l_max=200).weights(alpha=0.9)
    np.testing.assert_allclose(long[:3], np.array([1, 0.9, 0.81]) * (0.1 if normalize else 1), rtol=1e-8)


@NAME
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_weeks_until_a_share(name, share):
    """The cumulative effect, straight between the ends of the weeks, read backwards by numpy.interp."""
    for normalize in (True, False):
        stock = from_name(name, l_max=7, normalize=normalize)
        weights = expected_weights(name, 7, given(stock))
        cumulative = np.cumsum(weights, -1) / weights.sum(-1, keepdims=True)
        expected = [
            [np.interp(share, np.concatenate([[0.0], cell]), np.arange(8)) for cell in geo] for geo in cumulative
        ]
        found = stock.weeks_until(share, **given(stock))
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        if share == 0.5:
            np.testing.assert_array_equal(stock.half_life(**given(stock)), found)


def test_half_lives_in_closed_form():
    weeks = np.array([1, 2, 5, 30])
    forever = Geometric(l_max=None)
    np.testing.assert_allclose(forever.half_life(alpha=0.5 ** (1 / weeks)), weeks, rtol=1e-9)
    # Half of the spend's own week where nothing carries over, half of the window where all weeks weigh the same.
    assert forever.half_life(alpha=0.0) == 0.5
    assert np.isinf(forever.half_life(alpha=1.0))
    assert Geometric(l_max=8).half_life(alpha=0.0) == 0.5
    np.testing.assert_allclose(Geometric(l_max=8).half_life(alpha=1.0), 4.0)
    np.testing.assert_allclose(Geometric(l_max=1).half_life(alpha=0.7), 0.5)
    # A symmetric peak at theta has its half in the middle of the peak's week.
    np.testing.assert_allclose(Delayed(l_max=13).half_life(alpha=[0.2, 0.8], theta=6.0), 6.5)
    # All on the lag nearest to theta as alpha goes to 0.
    np.testing.assert_allclose(Delayed(l_max=13, normalize=False).half_life(alpha=0.0, theta=2.6), 3.5)
    alpha = np.linspace(0.01, 0.9, 40)
    for share in (0.2, 0.5, 0.95):
        window = Geometric(l_max=600).weeks_until(share, alpha=alpha)
        np.testing.assert_allclose(forever.weeks_until(share, alpha=alpha), window, rtol=1e-7)


def test_half_lives_of_many_draws_come_in_blocks(monkeypatch):
    alpha, theta = np.random.default_rng(0).uniform(0, 1, (2, 5, 31))
    stock = Delayed(l_max=6)
    whole = stock.half_life(alpha=alpha, theta=5 * theta)
    monkeypatch.setattr(adstock, "_BLOCK", 6 * 7)
    np.testing.assert_array_equal(stock.half_life(alpha=jnp.asarray(alpha, jnp.float32), theta=2.0).shape, (5, 31))
    np.testing.assert_allclose(stock.half_life(alpha=alpha, theta=5 * theta), whole, rtol=1e-12)


def test_an_equal_adstock_compiles_once():
    traces = []

    def response(stock, alpha):
        traces.append(stock)
        return stock.apply(jnp.ones((5, 1)), alpha=alpha)

    compiled = jax.jit(response, static_argnums=0)
    for alpha in (0.2, 0.3):
        compiled(Geometric(l_max=4, alpha=dist.Beta(2.0, 5.0)), jnp.array([alpha]))
    assert len(traces) == 1
    compiled(Geometric(l_max=4, alpha=dist.Beta(2.0, 6.0)), jnp.array([0.2]))
    assert len(traces) == 2


def test_equality_is_by_value():
    with jax.enable_x64(True):
        same = Geometric(l_max=8, alpha=dist.Beta(2, 5))
    one = Geometric(l_max=8, alpha=dist.Beta(2.0, 5.0))
    assert one == same
    assert hash(one) == hash(same)
    others = [
        Geometric(l_max=9, alpha=dist.Beta(2.0, 5.0)),
        Geometric(l_max=8, normalize=False, alpha=dist.Beta(2.0, 5.0)),
        Geometric(l_max=8, alpha=dist.Beta(2.0, 5.5)),
        Geometric(l_max=None, alpha=dist.Beta(2.0, 5.0)),
        from_name("binomial", l_max=8, alpha=dist.Beta(2.0, 5.0)),
        "geometric",
    ]
    assert all(one != other for other in others)
    assert len({one, same, *others}) == 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.l_max = 3  # pyright: ignore[reportAttributeAccessIssue]
    assert dataclasses.replace(one, l_max=9) == others[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Geometric(alpha=dist.Normal(0.0, 1.0)),
            r"the prior of alpha of the geometric adstock is Normal\(0, 1\), with values from -inf to inf; "
            "they must lie within 0 and 1",
        ),
        (lambda: Geometric(alpha=dist.HalfNormal(1.0)), "with values from 0 to inf; they must lie within 0 and 1"),
        (lambda: Geometric(alpha=dist.Beta(np.ones(2), 1.0)), r"one number, not of shape \(2,\)"),
        (lambda: Geometric(alpha=dist.Delta(0.5)), "an interval is needed"),
        (lambda: Delayed(l_max=5, theta=dist.Uniform(0.0, 4.5)), "from 0 to 4.5; they must lie within 0 and 4"),
        (lambda: Delayed(l_max=5, theta=dist.HalfNormal(1.0)), "they must lie within 0 and 4"),
        (lambda: WeibullPdf(weibull_scale=dist.Normal(2.0, 1.0)), "from -inf to inf; they must be positive"),
        (lambda: Delayed(l_max=1), "l_max is 1; the delayed adstock needs at least 2"),
        (lambda: Geometric(l_max=0), "l_max is 0; it is a whole number of weeks"),
        (lambda: Geometric(l_max=True), "l_max is True"),
        (lambda: Delayed(l_max=None), "the delayed adstock needs l_max; only the geometric one"),
    ],
)
def test_wrong_settings(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_settings_of_the_wrong_type():
    """In a process of its own, without the test run's checks of types, which would speak first."""
    code = """
import numpy as np
from pelton.models.adstock import Geometric
for settings in ({"alpha": 0.5}, {"l_max": 2.5}, {"normalize": "yes"}):
    try:
        Geometric(**settings)
    except ValueError as error:
        print(error)
print(Geometric(l_max=np.int64(8), normalize=np.True_) == Geometric(l_max=8))
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.splitlines() == [
        "the prior of alpha of the geometric adstock is a NumPyro distribution, not float",
        "l_max is 2.5; it is a whole number of weeks, 1 for the media's own alone",
        "normalize is True or False, not 'yes'",
        "True",
    ]


def test_wrong_parameters():
    media = np.ones((4, 1))
    with pytest.raises(UnknownNameError, match="parameter of the geometric adstock 'alhpa'; did you mean 'alpha'"):
        Geometric().apply(media, alhpa=0.5)
    with pytest.raises(ArgumentError, match="the delayed adstock needs alpha and theta; theta was not given"):
        Delayed().weights(alpha=0.5)
    with pytest.raises(ArgumentError, match=r"alpha of the geometric adstock is 1\.2; it must lie within 0 and 1"):
        Geometric().half_life(alpha=[0.2, 1.2])
    with pytest.raises(ArgumentError, match="alpha of the geometric adstock is nan"):
        Geometric().half_life(alpha=np.nan)
    with pytest.raises(ArgumentError, match="weibull_scale of the weibull_pdf adstock is -1; it must be positive"):
        WeibullPdf().half_life(weibull_scale=-1.0, weibull_shape=1.0)
    for share in (0, 1, np.nan):
        with pytest.raises(ArgumentError, match="it must lie above 0 and below 1"):
            Geometric().weeks_until(share, alpha=0.5)


def test_by_name():
    assert sorted(ADSTOCKS) == sorted(FORMULAS)
    for name, family in ADSTOCKS.items():
        stock = family(l_max=9, normalize=False)
        assert stock.describe() == {"name": name, "l_max": 9, "normalize": False}
        assert from_name(**stock.describe()) == stock
        assert set(stock.parameters) == set(stock.sds) == set(stock.supports)
        text = {key: to_text(prior) for key, prior in stock.parameters.items()}
        assert from_name(name, l_max=9, normalize=False, **text) == stock
    assert from_name("geometric", l_max=None) == Geometric(l_max=None)
    with pytest.raises(UnknownNameError, match="unknown adstock 'geomtric'; did you mean 'geometric'"):
        from_name("geomtric")
    with pytest.raises(UnknownNameError, match="unknown setting of the geometric adstock 'lmax'; did you mean 'l_max'"):
        from_name("geometric", lmax=3)
    with pytest.raises(ArgumentError, match="concentration0 is -3; it must be positive"):
        from_name("geometric", alpha="Beta(1, -3)")


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("geometric", 0.5, 1.6),
        ("delayed", 0.8, 4.2),
        ("binomial", 0.5, 3.6),
        ("weibull_pdf", 0.6, 2.9),
        ("weibull_cdf", 0.7, 1.9),
    ],
)
def test_half_lives_of_the_default_priors(name, low, high):
    """What the module's text says of the priors, by scipy's draws of them."""
    theta = stats.truncnorm(-1 / 1.5, 10 / 1.5, 1, 1.5)
    priors = {
        "geometric": {"alpha": stats.beta(1, 3)},
        "delayed": {"alpha": stats.beta(2, 2), "theta": theta},
        "binomial": {"alpha": stats.beta(1, 5)},
        "weibull_pdf": {
            "weibull_scale": stats.lognorm(0.5, scale=np.exp(0.7)),
            "weibull_shape": stats.lognorm(0.3, scale=np.exp(0.4)),
        },
        "weibull_cdf": {
            "weibull_scale": stats.lognorm(0.6, scale=np.exp(1.0)),
            "weibull_shape": stats.lognorm(0.3, scale=1.0),
        },
    }[name]
    rng = np.random.default_rng(0)
    stock = from_name(name)
    half = stock.half_life(**{key: prior.rvs(40_000, random_state=rng) for key, prior in priors.items()})
    quantiles = np.quantile(half, [0.05, 0.95])
    batches = np.quantile(half.reshape(40, -1), [0.05, 0.95], axis=1)
    # The text rounds to one decimal.
    assert (np.abs(quantiles - [low, high]) < 0.05 + 5 * batches.std(axis=1) / np.sqrt(40)).all()
    found = {key: to_text(prior) for key, prior in stock.parameters.items()}
    for key, prior in stock.parameters.items():
        x = priors[key].ppf([0.1, 0.5, 0.9])
        np.testing.assert_allclose(prior.log_prob(x), priors[key].logpdf(x), rtol=1e-4, atol=1e-4)
        assert found[key].replace("high=11", "high=l_max-1") in str(adstock.__doc__)


@pytest.mark.parametrize("kind", sorted(ROBYN))
def test_presets_have_four_fifths_in_the_published_range(kind):
    assert set(KINDS) == set(ROBYN)
    stock = for_kind(kind)
    prior = stats.beta(*(float(getattr(stock.alpha, f"concentration{i}")) for i in (1, 0)))
    low, high = ROBYN[kind]
    share = prior.cdf(high) - prior.cdf(low)
    assert 0.75 < share < 0.85
    assert f"{share:.0%}" in KINDS[kind].why
    assert stock.l_max is not None
    assert prior.ppf(0.9) ** stock.l_max < 0.05
    assert for_kind(kind, l_max=4) == dataclasses.replace(stock, l_max=4)


def test_an_unknown_kind():
    with pytest.raises(UnknownNameError, match="unknown kind of channel 'vidoe'; did you mean 'video'"):
        for_kind("vidoe")


def legend_of(axes):
    return " | ".join(text.get_text() for text in axes.get_legend().get_texts())


def steps_of(axes, colour):
    """Heights of the steps drawn in a colour."""
    lines = [line for line in axes.lines if line.get_drawstyle() == "steps-post" and to_hex(line.get_color()) == colour]
    return np.asarray(lines[0].get_ydata())[:-1]


def marks_of(axes):
    """Points marked."""
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"]


def test_plot_of_a_few_values():
    axes = Figure().subplots()
    drawn = Geometric(l_max=6).plot(axes, alpha=[0.2, 0.8], labels=["search", "TV"], period="days")
    assert drawn is axes
    for colour, alpha in zip(curves.COLOURS, (0.2, 0.8), strict=False):
        weights = alpha ** np.arange(6)
        np.testing.assert_allclose(steps_of(axes, colour), weights / weights.sum(), rtol=1e-9)
    half = Geometric(l_max=6).half_life(alpha=[0.2, 0.8])
    np.testing.assert_allclose([x for x, _ in marks_of(axes)], half)
    assert legend_of(axes) == f"search: half-life {half[0]:.1f} days | TV: half-life {half[1]:.1f} days"
    assert "days" in axes.get_xlabel()
    assert axes.get_ylabel() == "share of the effect"
    with pytest.raises(ArgumentError, match="there are 2 curves and 1 labels"):
        Geometric().plot(axes, alpha=[0.2, 0.8], labels=["search"])


def test_half_of_the_drawn_area_lies_left_of_the_half_life():
    axes = Figure().subplots()
    Delayed(l_max=8).plot(axes, alpha=0.6, theta=2.2)
    (area,) = axes.collections
    outline = area.get_paths()[0].vertices
    x, y = outline[:, 0], outline[:, 1]
    shoelace = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    np.testing.assert_allclose(shoelace, 0.5, rtol=1e-6)
    assert "alpha 0.6, theta 2.2: half-life" in legend_of(axes)


def test_plot_of_draws_and_of_the_prior():
    draws = np.random.default_rng(0).beta(20, 20, (4, 100))
    axes = Figure().subplots()
    Geometric(l_max=5).plot(axes, alpha=draws)
    weights = draws.ravel()[:, None] ** np.arange(5)
    weights /= weights.sum(1, keepdims=True)
    np.testing.assert_allclose(steps_of(axes, curves.COLOURS[0]), np.median(weights, 0), rtol=1e-9)
    assert "94% of the draws | 50% of the draws | median | half-life 1.0 weeks (94%:" in legend_of(axes)
    axes = Figure().subplots()
    Geometric().plot(axes)
    found = re.search(r"94% of the prior .* half-life (\S+) weeks \(94%: (\S+) to (\S+)\)", legend_of(axes))
    assert found is not None
    exact = Geometric().half_life(alpha=stats.beta(1, 3).ppf([0.5, 0.03, 0.97]))
    # One decimal, and the quantiles' standard errors with 2,000 draws, by 400 repetitions with scipy's draws.
    error = np.array([0.005, 0.0007, 0.075])
    assert (np.abs(np.array(found.groups(), float) - exact) < 0.05 + 5 * error).all()


def test_plot_without_end():
    axes = Figure().subplots()
    Geometric(l_max=None, normalize=False).plot(axes, alpha=[0.5, 1.0])
    np.testing.assert_allclose(steps_of(axes, curves.COLOURS[0])[:3], [1, 0.5, 0.25])
    assert legend_of(axes) == "alpha 0.5: half-life 1.0 weeks | alpha 1: the effect never ends"
    assert axes.get_ylabel() == "weight"
    assert axes.get_legend().get_title().get_text() == "geometric adstock, without end"


def test_importing_loads_no_matplotlib():
    code = "import sys, pelton.models.adstock, pelton.models.saturation; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
