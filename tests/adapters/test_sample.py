"""pelton.pymc.sample beside pm.sample: arguments, groups, names and what is refused."""

import inspect

import numpy as np
import pytest
import scipy.stats

from tests.adapters.marks import MARKS, REASON
from tests.statistics import assert_agrees

pm = pytest.importorskip("pymc", reason=REASON)
pytestmark = MARKS

import pelton  # noqa: E402
import pelton.pymc  # noqa: E402
from pelton.engine.errors import ArgumentError, ConvergenceWarning, UnknownNameError  # noqa: E402

OBSERVED = np.array([0.2, 1.1, -0.4, 0.9])


@pytest.fixture(scope="module")
def model():
    """A normal mean with a known posterior, of many kinds of variables."""
    with pm.Model(coords={"week": [10, 11, 12, 13]}) as model:
        shift = pm.Data("shift", np.zeros(4), dims="week")
        mean = pm.Normal("mean", 0, 2)
        pm.Deterministic("twice", 2 * mean)
        pm.HalfNormal("spread", 1, dims="week")
        pm.Normal("y", mean + shift, 1.0, observed=OBSERVED, dims="week")
    return model


# Of a normal mean with a normal prior.
PRECISION = 1 / 4 + len(OBSERVED)
MEAN, SD = OBSERVED.sum() / PRECISION, PRECISION**-0.5


def test_the_tree_is_pm_sample_s(model):
    settings = {"draws": 1000, "tune": 500, "chains": 4, "random_seed": 1, "progressbar": False}
    settings |= {"discard_tuned_samples": False, "idata_kwargs": {"log_likelihood": True}}
    with model:
        ours = pelton.pymc.sample(**settings)
        theirs = pm.sample(**settings)
    assert set(ours.children) == set(theirs.children)
    for group in ("posterior", "warmup_posterior", "observed_data", "constant_data", "log_likelihood"):
        mine, other = ours[group].to_dataset(), theirs[group].to_dataset()
        assert set(mine.data_vars) == set(other.data_vars)
        for name in other.data_vars:
            assert mine[name].dims == other[name].dims
        for name in set(other.coords) - {"chain", "draw"}:
            np.testing.assert_array_equal(mine[name], other[name])
    np.testing.assert_array_equal(ours["observed_data"]["y"], OBSERVED)
    assert set(ours["posterior"].attrs) >= {"sampling_time", "tuning_steps", "inference_library", "created_at"}
    assert_agrees(ours["posterior"]["mean"].values, mean=MEAN, sd=SD)
    np.testing.assert_allclose(ours["posterior"]["twice"], 2 * ours["posterior"]["mean"])
    expected = scipy.stats.norm.logpdf(OBSERVED, ours["posterior"]["mean"].values[..., None], 1.0)
    np.testing.assert_allclose(ours["log_likelihood"]["y"], expected)


def test_seeds_repeat(model):
    def draw(seed):
        tree = pelton.pymc.sample(100, tune=100, model=model, random_seed=seed, quiet=True)
        return tree["posterior"]["mean"].values

    np.testing.assert_array_equal(draw(5), draw(5))
    np.testing.assert_array_equal(draw(np.random.default_rng(5)), draw(5))
    assert not np.array_equal(draw(5), draw(6))
    assert not np.array_equal(draw(None), draw(None))


def test_variables_are_chosen_and_ordered(model):
    settings = {"draws": 200, "tune": 200, "model": model, "random_seed": 1, "quiet": True}
    assert list(pelton.pymc.sample(**settings)["posterior"].data_vars) == ["mean", "spread", "twice"]
    tree = pelton.pymc.sample(var_names=["twice"], idata_kwargs={"log_likelihood": ["y"]}, **settings)
    assert list(tree["posterior"].data_vars) == ["twice"]
    assert list(tree["log_likelihood"].data_vars) == ["y"]
    with pytest.raises(UnknownNameError, match="'twize'"):
        pelton.pymc.sample(var_names=["twize"], **settings)


def test_checks_can_be_left_out(model):
    settings = {"draws": 20, "tune": 0, "chains": 2, "model": model, "random_seed": 1, "progressbar": False}
    with pytest.warns(ConvergenceWarning):
        pelton.pymc.sample(**settings)
    tree = pelton.pymc.sample(compute_convergence_checks=False, **settings)
    assert tree["posterior"].attrs["converged"] == 0


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_both_precisions(model, precision):
    tree = pelton.pymc.sample(model=model, random_seed=2, progressbar=False, precision=precision)
    assert tree["posterior"]["mean"].dtype == precision
    assert_agrees(tree["posterior"]["mean"].values, mean=MEAN, sd=SD)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"step": object()}, "step="),
        ({"trace": object()}, "to_netcdf"),
        ({"callback": print}, "stop_at"),
        ({"nuts_sampler": "nutpie"}, "sampler="),
        ({"init": "advi"}, "init is one of"),
        ({"n_init": 7}, "n_init=7"),
        ({"mp_ctx": "spawn"}, "threads"),
        ({"blas_cores": 1}, "blas_cores=1"),
        ({"compile_kwargs": {"mode": "NUMBA"}}, "JAX"),
        ({"backend": "numba"}, "'numba'"),
        ({"return_inferencedata": False}, "MultiTrace"),
        ({"initvals": [{"mean": 1.0}] * 4}, "one mapping"),
        ({"idata_kwargs": {"dims": {}}}, "'dims'"),
        ({"nuts": {"step_scale": 1.0}}, "'step_scale'"),
        ({"nuts": {"target_accept": 0.9}, "target_accept": 0.8}, "twice"),
        ({"keep_warning_stat": True}, "status"),
    ],
)
def test_what_means_nothing_here_is_refused(model, settings, words):
    with pytest.raises(ArgumentError, match=words):
        pelton.pymc.sample(model=model, **settings)


def test_fewer_cores_are_refused_and_more_are_not(model, monkeypatch):
    monkeypatch.setattr(pelton.pymc, "usable_cores", lambda: 4)
    with pytest.raises(ArgumentError, match="cores=1"):
        pelton.pymc.sample(model=model, cores=1)
    pelton.pymc.sample(50, tune=50, model=model, cores=4, quiet=True)


def test_arguments_that_change_nothing_pass(model):
    tree = pelton.pymc.sample(
        50,
        tune=50,
        model=model,
        step=None,
        trace=None,
        callback=None,
        n_init=200_000,
        jitter_max_retries=10,
        blas_cores="auto",
        nuts={"target_accept": 0.9, "max_treedepth": 8},
        init="jitter+adapt_diag",
        quiet=True,
    )
    assert tree["posterior"].attrs["target_accept"] == 0.9
    assert tree["posterior"].attrs["max_tree_depth"] == 8


def test_the_sampler_object_has_the_run_s_arguments(model):
    sampler = pelton.pymc.Pelton(target_accept=0.9)
    assert sampler == pelton.pymc.Pelton(target_accept=0.9)
    tree = sampler.sample_from_init(
        model=model,
        draws=300,
        tune=300,
        chains=4,
        cores=None,
        initvals=None,
        random_seed=1,
        progressbar=False,
        discard_tuned_samples=True,
        keep_warning_stat=False,
        var_names=["mean"],
        idata_kwargs=None,
        compute_convergence_checks=False,
        compile_kwargs=None,
    )
    assert tree["posterior"].attrs["target_accept"] == 0.9
    # Its arguments are pm.sample's, as the interface asks.
    run = set(inspect.signature(pelton.pymc.Pelton.sample_from_init).parameters) - {"self"}
    assert run <= set(inspect.signature(pm.sample).parameters)
    # And pelton.pymc.sample takes what pm.sample takes, were it to refuse it.
    ours = set(inspect.signature(pelton.pymc.sample).parameters) | set(pelton.pymc._REFUSED)
    assert set(inspect.signature(pm.sample).parameters) - {"kwargs"} <= ours


def test_a_model_of_another_library_is_refused():
    with pytest.raises(ArgumentError, match="PyMC-Marketing"):
        pelton.pymc.fit(object())
