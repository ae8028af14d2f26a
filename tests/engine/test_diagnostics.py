"""Diagnostics against ArviZ's, and the words for each failure."""

import warnings

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr

import pelton
from pelton.engine import diagnostics
from pelton.engine.precision import using


def tree_of(draws, **stats):
    shape = draws.shape[:2]
    base = {
        "lp": np.zeros(shape),
        "energy": np.random.default_rng(0).normal(size=shape),
        "diverging": np.zeros(shape, bool),
        "reached_max_tree_depth": np.zeros(shape, bool),
        "tree_depth": np.ones(shape, int),
        "step_size": np.ones(shape),
        "n_steps": np.ones(shape, int),
    } | stats
    coords = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    dims = ("chain", "draw", *(f"axis{i}" for i in range(draws.ndim - 2)))
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"x": (dims, draws)}, coords),
            "sample_stats": xr.Dataset({k: (("chain", "draw"), v) for k, v in base.items()}, coords),
        }
    )


def autoregressive(shape, correlation, seed=0):
    rng = np.random.default_rng(seed)
    draws = rng.normal(size=shape)
    for i in range(1, shape[1]):
        draws[:, i] = correlation * draws[:, i - 1] + np.sqrt(1 - correlation**2) * draws[:, i]
    return draws


def test_table_equals_arviz():
    tree = tree_of(autoregressive((4, 500, 3), 0.5))
    ours = diagnostics.table(tree)
    theirs = az.summary(tree, round_to="none")
    assert list(ours.index) == ["x[0]", "x[1]", "x[2]"]
    tail = az.ess(tree, method="tail", prob=(0.05, 0.95))["x"]
    np.testing.assert_allclose(ours["ess_tail"], tail, rtol=1e-9)
    for ours_name, theirs_name in (("rhat", "r_hat"), ("ess_bulk", "ess_bulk")):
        np.testing.assert_allclose(ours[ours_name], theirs[theirs_name].astype(float), rtol=1e-9)
    np.testing.assert_allclose(ours["mcse_mean"], theirs["mcse_mean"].astype(float), rtol=1e-9)


def test_the_programs_for_many_draws_give_arvizs_figures(monkeypatch):
    draws = autoregressive((4, 101, 6), 0.5)
    draws[..., 2] = 3.0
    tree = tree_of(draws)
    by_arviz = diagnostics.table(tree)
    monkeypatch.setattr(diagnostics, "COMPILED_FROM", 0)
    # In float64, though the run is not.
    with using("float32"):
        by_programs = diagnostics.table(tree)
        assert diagnostics.diagnose(tree).worst_rhat == by_programs["rhat"].max()
    pd.testing.assert_frame_equal(by_programs, by_arviz, rtol=1e-10)
    assert by_programs.drop(index="x[2]").notna().all(axis=None)
    assert by_programs.loc["x[2]"].notna().sum() == 2
    tree = tree_of(np.where(draws > 2.5, np.inf, draws)[..., :2])
    assert diagnostics.table(tree, errors=False)["ess_bulk"].notna().all()


def problem(tree):
    found = diagnostics.diagnose(tree)
    assert not found.converged
    return " | ".join(found.problems)


def test_one_chain_is_judged_by_its_effective_size():
    tree = tree_of(autoregressive((1, 2000), 0.2))
    assert problem(tree).startswith("one chain cannot show")
    assert diagnostics.diagnose(tree).least_ess_bulk > 500
    independent = tree_of(autoregressive((1, 2000), 0.0), step_size=np.zeros((1, 2000)))
    assert diagnostics.diagnose(independent).converged


def test_a_sampler_without_fresh_momenta_is_not_judged_by_its_energies():
    slow = autoregressive((4, 1000), 0.95)
    kept = tree_of(autoregressive((4, 1000), 0.2), lp=slow, energy=-slow, tree_depth=np.zeros((4, 1000), int))
    assert diagnostics.diagnose(kept).problems == ()
    drawn = tree_of(autoregressive((4, 1000), 0.2), lp=slow, energy=-slow + 1e-9)
    assert "missing information" in problem(drawn)


def test_divergences_of_a_sampler_without_trees_are_divergences():
    shape = (4, 1000)
    tree = tree_of(autoregressive(shape, 0.2), tree_depth=np.zeros(shape, int), diverging=np.ones(shape, bool))
    assert "4000 divergent transitions" in problem(tree)


def test_converged_draws_have_no_problems():
    assert diagnostics.diagnose(tree_of(autoregressive((4, 1000), 0.2))).problems == ()


def test_each_failure_has_its_remedy():
    good = autoregressive((4, 1000), 0.2)
    apart = good + np.array([0, 0, 0, 3.0])[:, None]
    assert "chains disagree" in problem(tree_of(apart))
    assert "take more draws" in problem(tree_of(autoregressive((4, 1000), 0.995)))
    diverging = np.zeros(good.shape, bool)
    diverging[0, :7] = True
    assert "7 divergent transitions of 4000" in problem(tree_of(good, diverging=diverging))
    assert "max_tree_depth" in problem(tree_of(good, reached_max_tree_depth=np.ones(good.shape, bool)))
    slow = np.cumsum(np.random.default_rng(1).normal(size=good.shape), axis=1)
    assert "missing information" in problem(tree_of(good, energy=slow))
    assert "no variable moved" in problem(tree_of(np.ones((4, 100))))


def test_warnings_are_convergence_warnings():
    apart = autoregressive((4, 1000), 0.2) + np.array([0, 0, 0, 3.0])[:, None]
    found = diagnostics.diagnose(tree_of(apart))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        diagnostics.warn(found)
    assert [str(warning.message) for warning in caught] == list(found.problems)
    assert {warning.category for warning in caught} == {pelton.errors.ConvergenceWarning}


def test_too_few_draws_are_said_to_be_too_few():
    assert "cannot be judged" in problem(tree_of(autoregressive((1, 1), 0.2)))


def test_many_short_chains_are_judged_by_their_energies_together():
    """Single fractions of twenty draws fall below 0.3 by chance."""
    for correlation, told in ((0.3, False), (0.95, True)):
        shape = (500, 20)
        tree = tree_of(np.random.default_rng(1).normal(size=(*shape, 2)), energy=autoregressive(shape, correlation))
        # (E_n - E_n-1)^2 has mean 2 (1 - correlation).
        np.testing.assert_allclose(diagnostics.diagnose(tree).least_bfmi, 2 * (1 - correlation), rtol=0.1)
        assert any("missing information" in problem for problem in diagnostics.diagnose(tree).problems) is told
