"""Many fits at once: the posteriors of sample, whatever else is in the list, and a failure that stays alone."""

import warnings

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import stats

import pelton
from tests.statistics import assert_agrees


def stores(seed, units=30, most=90, **options):
    source = np.random.default_rng(seed)
    trials = source.integers(20, most, units)
    return pelton.PartialPooling(source.binomial(trials, source.beta(4, 16, units)), trials, **options)


def normal(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def by_chain(values):
    return np.moveaxis(np.asarray(values), (0, 1), (-2, -1))


@pytest.mark.long
def test_hierarchies_have_the_posteriors_of_sample():
    """Tables of other lengths, another prior, and one that needs no sampler among them."""
    models = [
        stores(1),
        stores(2, units=7),
        stores(3, prior=pelton.GammaShapes(0.5, 0.5)),
        stores(4, most=800),
        stores(6, prior=pelton.FixedBeta(2, 8)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pelton.errors.ConvergenceWarning)
        fits = pelton.sample_many(models, warmup=500, draws=1000)
        assert not fits.errors
        for model, tree in zip(models, fits, strict=True):
            alone = pelton.sample(model, warmup=500, draws=1000)
            assert list(tree.children) == list(alone.children)
            for group in alone.children:
                assert dict(tree[group].sizes) == dict(alone[group].sizes)
                assert set(tree[group].data_vars) == set(alone[group].data_vars)
            assert tree.attrs["sampler"] == alone.attrs["sampler"]
            for name in ("logit_mu", "log_kappa") if "logit_mu" in alone["posterior"] else ():
                draws = by_chain(alone["posterior"][name])
                assert_agrees(
                    by_chain(tree["posterior"][name]),
                    mean=draws.mean(axis=(-2, -1)),
                    truth_error=draws.std(axis=(-2, -1)) / np.sqrt(300),
                    least_ess=300,
                )


def test_the_draws_of_a_fit_do_not_hang_on_its_neighbours():
    models = [stores(seed) for seed in range(3)]
    alone, among = pelton.sample_many(models[:1]), pelton.sample_many([models[0], *models[2:], stores(9, most=900)])
    xr.testing.assert_allclose(alone[0]["posterior"].to_dataset(), among[0]["posterior"].to_dataset())
    # Their own random numbers: the same model twice is not the same draws.
    twice = pelton.sample_many([models[0], models[0]])
    assert not np.array_equal(twice[0]["posterior"]["mu"], twice[1]["posterior"]["mu"])


def test_a_posterior_that_the_quick_grid_does_not_hold_gets_the_full_one():
    """Three units that hardly differ leave a concentration with a long tail."""
    odd = pelton.PartialPooling([50, 51, 49], [100, 100, 100])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pelton.errors.ConvergenceWarning)
        tree, alone = pelton.sample_many([stores(1), odd])[1], pelton.sample(odd)
    draws = by_chain(alone["posterior"]["logit_mu"])
    error = draws.std() / np.sqrt(draws.size / 4)
    assert_agrees(by_chain(tree["posterior"]["logit_mu"]), mean=draws.mean(), truth_error=error)


def test_numpyro_models_of_one_shape_run_in_one_loop():
    data = np.random.default_rng(0).normal([[0.0], [5.0], [-3.0]], 1.0, (3, 20))
    fits = pelton.sample_many([pelton.from_numpyro(normal, y) for y in data], draws=1500, chains=2)
    for y, tree in zip(data, fits, strict=True):
        assert tree.attrs["sampler"] == "nuts"
        assert tree.attrs["status"] == "converged"
        np.testing.assert_array_equal(tree["observed_data"]["y"], y)
        truth = stats.norm(y.sum() / 20.01, 1 / np.sqrt(20.01))
        assert_agrees(by_chain(tree["posterior"]["mean"]), mean=truth.mean(), sd=truth.std(), least_ess=500)


def nowhere(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.factor("y", y.sum() * mean)


@pytest.mark.parametrize("sampler", ["nuts", "grid"])
def test_one_that_fails_stays_alone(sampler):
    data = [np.zeros(3), np.array([0.0, np.nan, 1.0]), np.ones(3)]
    fits = pelton.sample_many([pelton.from_numpyro(nowhere, y) for y in data], sampler=sampler, draws=400, warmup=300)
    assert list(fits.errors) == [1]
    assert isinstance(fits.errors[1], pelton.errors.ModelError)
    assert fits[1].attrs["status"].startswith("FAILED: the log density or its gradient is not finite")
    assert not fits[1].children
    for fit, mean in ((0, 0.0), (2, 3.0)):
        assert abs(np.mean(fits[fit]["posterior"]["mean"].to_numpy()) - mean) < 5 / np.sqrt(400)
    assert list(fits.table().status.str.startswith("FAILED")) == [False, True, False]


def test_all_may_fail_and_a_batch_is_refused():
    nan = pelton.from_numpyro(nowhere, np.full(3, np.nan))
    assert list(pelton.sample_many([nan, nan], sampler="nuts", warmup=10, draws=10).errors) == [0, 1]
    batch = pelton.PartialPooling([1, 2, 3, 2], [9, 9, 9, 9], segments=["a", "a", "b", "b"])
    fits = pelton.sample_many([stores(1), batch])
    assert "a batch of 2 fits already" in str(fits.errors[1])
    with pytest.raises(pelton.errors.ArgumentError, match="empty"):
        pelton.sample_many([])


def test_the_sequence():
    fits = pelton.sample_many([stores(seed) for seed in range(3)], draws=500)
    assert len(fits) == 3
    assert [tree.attrs["fit"] for tree in fits[1:]] == [1, 2]
    assert fits[-1].attrs["fit"] == 2
    with pytest.raises(IndexError):
        fits[3]
    rates = [np.asarray(tree["posterior"]["rate"]) for tree in fits[:2]]
    assert not np.array_equal(rates[0], rates[1])


@pytest.mark.slow
def test_media_mixes_of_one_shape():
    """Two panels of one shape: the returns of sample."""
    panels = []
    for seed in (1, 2):
        markets = pelton.simulate_media(geos=2, weeks=[60, 60], channels=2, seed=seed)
        panels.append(
            pelton.Panel.from_frame(
                markets.frame, time="date", geo="market", target="sales", media=list(markets.frame.columns[3:5])
            )
        )
    models = [pelton.MediaMix(panel) for panel in panels]
    fits = pelton.sample_many(models, warmup=500, draws=500)
    assert not fits.errors
    assert fits[0].attrs["fits_together"] >= 1
    for model, tree in zip(models, fits, strict=True):
        alone = pelton.sample(model, warmup=500, draws=500, seed=3)
        one, other = (by_chain(each["posterior"]["sigma"]) for each in (tree, alone))
        error = other.std(axis=(-2, -1)) / np.sqrt(200)
        assert_agrees(one, mean=other.mean(axis=(-2, -1)), truth_error=error, least_ess=200)
