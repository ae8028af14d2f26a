"""Other people's models, unchanged: pelton's draws against those of PyMC's own sampler or an exact reference."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.special
from arviz_stats.base import array_stats

from tests.adapters.marks import MARKS, REASON
from tests.statistics import assert_agrees

pm = pytest.importorskip("pymc", reason=REASON)
pytestmark = MARKS

import pelton.pymc  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LEAST_ESS = 400


def _example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _needs(name):
    return pytest.importorskip(name, reason=f"{name} is not installed, or not for this PyMC", exc_type=ImportError)


def _draws(tree, name):
    """Draws of a variable's elements [element, chain, draw] that are not all the same."""
    values = tree["posterior"][name].transpose(..., "chain", "draw").values.astype(float)
    values = values.reshape(-1, *values.shape[-2:])
    return values[np.ptp(values, axis=(1, 2)) > 0]


def _same(ours, theirs, names=None):
    """Means and sds of every element agree within five combined standard errors."""
    names = [str(name) for name in theirs["posterior"].data_vars] if names is None else names
    assert set(names) <= set(ours["posterior"].data_vars)
    for name in names:
        mine, reference = _draws(ours, name), _draws(theirs, name)
        assert mine.shape[0] == reference.shape[0]
        assert np.min(array_stats.ess(reference, method="bulk")) >= LEAST_ESS, name
        for quantity in ("mean", "sd"):
            truth = reference.mean(axis=(1, 2)) if quantity == "mean" else reference.std(axis=(1, 2), ddof=1)
            error = array_stats.mcse(reference, method=quantity)
            assert_agrees(mine, **{quantity: truth}, truth_error=error, least_ess=LEAST_ESS)


def _by_quadrature(tumours, rats):
    """Mean and sd of logit mu and log kappa of the rats' hyperparameters, the rates integrated out, on a fine grid."""
    tumours, rats = np.asarray(tumours), np.asarray(rats)
    logit, log_kappa = np.meshgrid(np.linspace(-2.6, -0.9, 400), np.linspace(0.8, 6.5, 400), indexing="ij")
    kappa = np.exp(log_kappa)
    a, b = kappa * scipy.special.expit(logit), kappa * scipy.special.expit(-logit)
    # |d(a, b) / d(logit, log kappa)| = a b
    logp = -2.5 * log_kappa + np.log(a) + np.log(b)
    for k, n in zip(tumours, rats, strict=True):
        logp += scipy.special.betaln(a + k, b + n - k) - scipy.special.betaln(a, b)
    weights = np.exp(logp - logp.max())
    weights /= weights.sum()
    found = {}
    for name, values in (("logit_mu", logit), ("log_kappa", log_kappa)):
        mean = np.sum(weights * values)
        found[name] = mean, np.sqrt(np.sum(weights * (values - mean) ** 2))
    return found


def test_rat_tumours_against_quadrature(cases):
    example = _example("rat_tumours")
    tree = pelton.pymc.sample(3000, model=example.build(), random_seed=1, progressbar=False)
    exact = _by_quadrature(example.TUMOURS, example.RATS)
    table = np.genfromtxt(cases / "rat_tumors.csv", delimiter=",", comments="#", skip_header=0, dtype=str)
    np.testing.assert_array_equal(table[1:, :2].astype(int), np.stack([example.TUMOURS, example.RATS], axis=1))
    for name, (mean, sd) in exact.items():
        assert_agrees(tree["posterior"][name].values, mean=mean, sd=sd)


def test_radon_agrees_and_a_second_fit_compiles_nothing():
    example = _example("radon")
    model = example.build()
    tree = pelton.pymc.sample(2000, model=model, random_seed=1, progressbar=False)
    _same(tree, pm.sample(2000, tune=1000, chains=4, model=model, random_seed=2, progressbar=False))
    again = pelton.pymc.sample(2000, model=example.build(seed=1), random_seed=1, progressbar=False)
    assert again["posterior"].attrs["seconds_compiling"] == 0.0


def test_media_mix():
    _needs("pymc_marketing.mmm")
    example = _example("media_mix")
    settings = {"draws": 2000, "tune": 1000, "chains": 4, "progressbar": False}
    ours, theirs = example.build(), example.build()
    tree = pelton.pymc.fit(ours, *example.simulate(0), random_seed=1, **settings)
    theirs.fit(*example.simulate(0), random_seed=2, **settings)
    assert tree is ours.idata
    assert "_fit_mcmc" not in vars(ours)
    assert set(tree.children) == set(theirs.idata.children)
    for group in ("constant_data", "observed_data", "fit_data"):
        assert set(tree[group].data_vars) == set(theirs.idata[group].data_vars)
    _same(tree, theirs.idata)
    predictive = ours.sample_posterior_predictive(example.simulate(0)[0].iloc[:20], progressbar=False)
    assert np.all(np.isfinite(predictive["y"] if "y" in predictive else predictive[next(iter(predictive.data_vars))]))


def test_contracts():
    _needs("pymc_marketing.clv")
    example = _example("contracts")
    settings = {"draws": 1000, "tune": 1000, "chains": 4, "progressbar": False}
    ours, theirs = example.build(), example.build()
    tree = pelton.pymc.fit(ours, example.customers(), random_seed=1, **settings)
    theirs.fit(example.customers(), random_seed=2, **settings)
    _same(tree, theirs.idata)


def test_bambi():
    _needs("bambi")
    example = _example("bambi_mixed")
    settings = {"draws": 2500, "tune": 1000, "chains": 4, "target_accept": 0.9, "progressbar": False}
    tree = pelton.pymc.fit(example.build(), random_seed=1, **settings)
    _same(tree, example.build().fit(random_seed=2, inference_method="nutpie", **settings))
    assert tree["posterior"].attrs["modeling_interface"] == "bambi"


def test_a_bambi_model_s_pymc_model_is_sampled_as_it_is():
    bambi = _needs("bambi")
    example = _example("bambi_mixed")
    model = bambi.Model("reaction ~ day", example.simulate(0))
    model.build()
    tree = pelton.pymc.sample(500, model=model.backend.model, random_seed=1, quiet=True)
    assert set(tree["posterior"].data_vars) >= {"Intercept", "day", "sigma"}


# The examples of NumPyro's models run in tests/test_examples.py.
OF_PYMC = sorted(path.stem for path in EXAMPLES.glob("*.py") if re.search("pymc|bambi", path.read_text()))


@pytest.mark.parametrize("name", OF_PYMC)
def test_examples_run(name):
    source = (EXAMPLES / f"{name}.py").read_text()
    for library in ("pymc_marketing.mmm", "pymc_marketing.clv", "bambi"):
        if library.partition(".")[0] in source:
            _needs(library)
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True, cwd=EXAMPLES.parent)
    assert "r_hat" in done.stdout
