"""The country model: densities against plain loops, the plain NumPyro model and quadrature; the tree it makes."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from numpyro.infer.util import log_density
from scipy import integrate, stats

import pelton
from pelton.benchmarks.countries import COUNTRIES, DATA, load_panel
from pelton.benchmarks.rivals.numpyro.run import countries as plain_model
from pelton.engine.errors import ArgumentError, DataError
from pelton.models import countries as module
from pelton.models.panel import Panel

country_mix = module.country_mix

CHANNELS = ("tv", "radio")


def table(seed=0, lengths=(30, 18), late=6):
    """Two countries of unequal lengths; the second begins `late` weeks after the first."""
    rng = np.random.default_rng(seed)
    weeks = pd.date_range("2024-01-07", periods=max(lengths[0], late + lengths[1]), freq="W-SUN")
    frames = []
    for name, first, length in (("AT", 0, lengths[0]), ("CH", late, lengths[1])):
        media = rng.gamma(1.0, 100.0, (length, 2)) * (rng.random((length, 2)) < 0.6)
        sales = 50 + 300 * (1 - np.exp(-0.004 * media[:, 0])) + 100 * (media[:, 1] > 0) + rng.normal(0, 20, length)
        dates = weeks[first : first + length]
        frames.append(
            pd.DataFrame({"geo": name, "week": dates, "tv": media[:, 0], "radio": media[:, 1], "sales": sales})
        )
    return pd.concat(frames, ignore_index=True)


def panel_of(frame, **settings):
    return Panel.from_frame(frame, time="week", geo="geo", target="sales", media=list(CHANNELS), **settings)


@pytest.fixture
def model():
    return country_mix(panel_of(table()))


def data_of(model):
    return jax.tree.map(jnp.asarray, model.data)


def positions(posterior, count=5, seed=1):
    """Draws of the references, which lie where the data matter."""
    mean, sd = posterior.hierarchy.references(jax.tree.map(jnp.asarray, posterior.data))
    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(mean), count)
    return np.asarray(mean)[which] + 0.5 * np.asarray(sd)[which] * rng.normal(size=(count, posterior.dimension))


def loop_loglikelihood(values, geo, media, target):
    """Plain loops over weeks, channels and lags; weeks with NaN are left out."""
    total = 0.0
    for t in range(len(target)):
        mean = values["base"][geo]
        for c in range(media.shape[1]):
            carryover = sum(values["car"][geo, c] ** lag * media[t - lag, c] for lag in range(21) if t - lag >= 0)
            mean += values["coef"][geo, c] * (1 - np.exp(-values["sat"][geo, c] * carryover))
        if not np.isnan(target[t]):
            total += stats.norm.logpdf(target[t], mean, values["noise"][geo])
    return total


def test_block_likelihood_is_that_of_plain_loops_with_masked_weeks_and_a_late_start():
    frame = table(lengths=(30, 41), late=4)
    frame.loc[[3, 40], "sales"] = np.nan
    panel = panel_of(frame, missing="mask-target")
    model = country_mix(panel)
    with jax.enable_x64(True):
        posterior, data = model.posterior(), data_of(model)
        for position in positions(posterior):
            values = {k: np.asarray(v) for k, v in posterior.constrain(jnp.asarray(position), data).items()}
            for geo, name in enumerate(panel.geos):
                rows = frame[frame["geo"] == name]
                truth = loop_loglikelihood(values, geo, rows[list(CHANNELS)].to_numpy(), rows["sales"].to_numpy())
                place = int(data["place"][geo])
                block = jnp.asarray(position)[5:].reshape(2, 8)[place]
                found = posterior.hierarchy.block_likelihood(block, place, data)
                np.testing.assert_allclose(found, truth, rtol=1e-10)


def test_density_is_that_of_its_blocks(model):
    with jax.enable_x64(True):
        posterior, data = model.posterior(), data_of(model)
        h = posterior.hierarchy
        for position in jnp.asarray(positions(posterior)):
            shared, blocks = position[:5], position[5:].reshape(2, 8)
            parts = h.shared_density(shared, data) + sum(
                h.block_prior(blocks[b], shared, data) + h.block_likelihood(blocks[b], b, data) for b in range(2)
            )
            np.testing.assert_allclose(posterior.logdensity(position, data), parts, rtol=1e-9)


@pytest.mark.skipif(not DATA.exists(), reason="the reference cases are not at hand")
def test_density_is_the_plain_numpyro_models_with_the_jacobian():
    panel = load_panel()
    model = country_mix(panel)
    weeks = panel.inside.sum(axis=1)
    media = [panel.media[g, : weeks[g]] for g in range(3)]
    sales = [panel.target[g, : weeks[g]] for g in range(3)]
    assert panel.geos == COUNTRIES
    with jax.enable_x64(True):
        posterior, data = model.posterior(), data_of(model)
        for position in positions(posterior):
            values = posterior.constrain(jnp.asarray(position), data)
            params = {name: values[name] for name in module.HYPERS}
            for g in range(3):
                params |= {f"base_{g}": values["base"][g], f"noise_{g}": values["noise"][g]}
                for c in range(3):
                    params |= {f"{name}_{g}_{c}": values[name][g, c] for name in ("coef", "sat", "car")}
            truth, _ = log_density(plain_model, (media, sales), {}, params)
            # d exp(x) = exp(x) dx, and |d car / d log(-log car)| = car |log car|.
            jacobian = sum(
                float(jnp.log(v)) for k, v in params.items() if not k.startswith("car_") or k in module.HYPERS
            )
            car = np.asarray(values["car"])
            jacobian += np.sum(np.log(car) + np.log(-np.log(car)))
            np.testing.assert_allclose(posterior.logdensity(jnp.asarray(position), data), truth + jacobian, rtol=1e-9)


def test_integrated_prior_is_the_prior_integrated_over_the_rates(model):
    with jax.enable_x64(True):
        posterior, data = model.posterior(), data_of(model)
        h = posterior.hierarchy
        position = jnp.asarray(positions(posterior)[0])
        shared, blocks = position[:5], position[5:].reshape(2, 8)
        # The rates are independent given the blocks: the joint density at given rates, times each one's integral
        # over its own density there.
        log_joint = float(h.shared_density(shared, data) + sum(h.block_prior(block, shared, data) for block in blocks))
        sums = [float(jnp.exp(blocks[:, i]).sum()) for i in (slice(2, 4), slice(4, 6), slice(0, 1))]
        counts = [4, 4, 2]
        for n, total, log_rate in zip(counts, sums, np.asarray(shared[2:]), strict=True):
            scale = (n + 1) / (10 + total)

            def density(rate, n=n, total=total):
                return 10 * np.exp(-10 * rate) * rate**n * np.exp(-total * rate)

            mass = integrate.quad(lambda u, s=scale: density(u * s) * s, 0, 40, epsabs=0, limit=400)[0]
            log_joint += np.log(mass) - (np.log(density(np.exp(log_rate))) + log_rate)
        found = h.conjugate.prior(blocks, shared[:2], data)
        np.testing.assert_allclose(found, log_joint, rtol=1e-7)


def test_rates_given_the_blocks_are_gamma(model):
    with jax.enable_x64(True):
        posterior, data = model.posterior(), data_of(model)
        blocks = jnp.asarray(positions(posterior)[0])[5:].reshape(2, 8)
        keys = jax.random.split(jax.random.key(0), 4000)
        drawn = np.exp(jax.vmap(lambda key: posterior.hierarchy.conjugate.draw(key, blocks, data))(keys))
    sums = [np.exp(np.asarray(blocks)[:, i]).sum() for i in (slice(2, 4), slice(4, 6), slice(0, 1))]
    for column, n, total in zip(drawn.T, (4, 4, 2), sums, strict=True):
        assert stats.kstest(column, stats.gamma(n + 1, scale=1 / (10 + total)).cdf).pvalue > 1e-4


def test_padding_changes_nothing():
    """A country alone has the density of that country beside a longer one."""
    frame = table()
    both, alone = country_mix(panel_of(frame)), country_mix(panel_of(frame[frame["geo"] == "CH"]))
    with jax.enable_x64(True):
        block = jnp.asarray(positions(alone.posterior())[0])[5:]
        place = int(both.data["place"][1])
        one = module.block_likelihood(block, 0, data_of(alone))
        beside = module.block_likelihood(block, place, data_of(both))
    np.testing.assert_allclose(one, beside, rtol=1e-13)


def test_countries_come_by_their_weeks_and_leave_in_the_panels_order():
    frame = table(lengths=(18, 30), late=0)
    model = country_mix(panel_of(frame))
    assert list(model.data["place"]) == [1, 0]
    assert list(model.data["weeks"]) == [30, 18]


def test_references_cover_every_set_of_three_channels():
    sets = module._sets(3)
    assert sorted(map(tuple, sets.tolist())) == [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    assert len(module._sets(5)) == 12
    assert len(module._sets(1)) == 2


@pytest.mark.long
def test_tree(model):
    with warnings.catch_warnings():
        # Two hundred draws are too few for the diagnostics.
        warnings.simplefilter("ignore", pelton.errors.ConvergenceWarning)
        tree = pelton.sample(
            model, chains=2, warmup=50, draws=200, seed=0, groups=("log_likelihood", "posterior_predictive")
        )
    posterior = tree["posterior"]
    assert posterior["car"].dims == ("chain", "draw", "geo", "channel")
    assert posterior["coef"].sel(geo="CH", channel="radio").shape == (2, 200)
    assert np.array_equal(posterior["sigma"], posterior["noise"])
    assert np.array_equal(posterior["baseline_coefficient"].sel(term="intercept"), posterior["base"])
    described = json.loads(tree.attrs["media_mix"])
    assert described["kind"] == "country_mix"
    assert described["channels"][0]["adstock"] == {
        "name": "geometric",
        "l_max": 21,
        "normalize": False,
        "parameters": {"alpha": "car"},
    }
    assert tree.attrs["sampler"] == "mixture"
    assert set(tree["constant_data"].data_vars) == {
        "media",
        "spend",
        "inside",
        "baseline_design",
        "baseline_part",
        "target_scale",
        "media_scale",
    }
    # The group's log-likelihood is that of plain loops over the draw's values.
    values = {
        name: np.asarray(posterior[name].isel(chain=1, draw=7)) for name in ("base", "noise", "coef", "sat", "car")
    }
    frame = table()
    total = 0.0
    for geo, name in enumerate(("AT", "CH")):
        rows = frame[frame["geo"] == name]
        total += loop_loglikelihood(values, geo, rows[list(CHANNELS)].to_numpy(), rows["sales"].to_numpy())
    found = float(np.nansum(tree["log_likelihood"]["target"].isel(chain=1, draw=7)))
    np.testing.assert_allclose(found, total, rtol=1e-8)


def test_refuses_what_it_cannot_model():
    # In a test run the shape checks are the first to refuse it.
    with pytest.raises((ArgumentError, TypeError), match="Panel"):
        country_mix(table())
    frame = table()
    frame["price"] = np.random.default_rng(0).normal(size=len(frame))
    with pytest.raises(DataError, match="no controls or events, and the panel has price"):
        country_mix(panel_of(frame, controls=["price"]))
