"""R-hat, effective sample sizes and the like against ArviZ, and nested R-hat against a loop from the paper."""

import jax
import numpy as np
import pytest
import scipy.stats
from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.engine import convergence
from pelton.engine.compilation import Compiler
from pelton.engine.errors import ArgumentError
from pelton.engine.precision import using


def autoregressive(rng, shape, correlation):
    draws = rng.normal(size=shape)
    for i in range(1, shape[1]):
        draws[:, i] = correlation * draws[:, i - 1] + np.sqrt(1 - correlation**2) * draws[:, i]
    return draws


def stuck(rng, shape):
    draws = rng.normal(size=shape)
    draws[1] = draws[1, :1]
    return draws


KINDS = {
    "independent": lambda rng, shape: rng.normal(size=shape),
    "correlated": lambda rng, shape: autoregressive(rng, shape, 0.9),
    "antithetic": lambda rng, shape: autoregressive(rng, shape, -0.5),
    "heavy tails": lambda rng, shape: rng.standard_cauchy(size=shape),
    "apart": lambda rng, shape: rng.normal(size=shape) + np.arange(shape[0])[:, None, None],
    "counts": lambda rng, shape: rng.poisson(1.3, size=shape).astype(float),
    "repeated": lambda rng, shape: np.repeat(rng.normal(size=shape), 3, axis=1)[:, : shape[1]],
    "stuck chain": stuck,
    "two values": lambda rng, shape: (rng.uniform(size=shape) < 0.5).astype(float),
}
SHAPES = [(1, 100), (2, 4), (3, 5), (2, 7), (4, 100), (5, 101), (64, 40), (4, 1000)]
NAMES = ("rhat", "ess_bulk", "ess_tail", "ess_mean", "mcse_mean", "mcse_sd")


def by_arviz(draws):
    draws = np.moveaxis(np.asarray(draws, np.float64), 2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "rhat": array_stats.rhat(draws, method="rank"),
            "ess_bulk": array_stats.ess(draws, method="bulk"),
            "ess_tail": array_stats.ess(draws, method="tail", prob=(0.05, 0.95)),
            "ess_mean": array_stats.ess(draws, method="mean"),
            "mcse_mean": array_stats.mcse(draws, method="mean"),
            "mcse_sd": array_stats.mcse(draws, method="sd"),
        }


def all_kinds(shape, parameters=3):
    """Draws [chain, draw, parameter] of every kind, one after the other."""
    rng = np.random.default_rng(7)
    kinds = [kind for kind in KINDS if kind != "stuck chain" or shape[0] > 1]
    return np.concatenate([KINDS[kind](rng, (*shape, parameters)) for kind in kinds], axis=2)


def agrees(found, wanted, tolerance, name):
    # Where no half chain moves, R-hat is infinite or, by the rounding of a mean of equal numbers, immense.
    found, wanted = (np.where(np.asarray(values) > 1e6, np.inf, values) for values in (found, wanted))
    np.testing.assert_allclose(found, wanted, rtol=tolerance, err_msg=name)


@pytest.mark.parametrize("shape", SHAPES)
def test_summary_equals_arviz(shape):
    draws = all_kinds(shape)
    with using("float64"):
        found = convergence.summary(draws)
    for name, wanted in by_arviz(draws).items():
        agrees(found[name], wanted, 1e-10, name)
    np.testing.assert_allclose(found["mean"], draws.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(found["sd"], draws.std(axis=(0, 1), ddof=1), rtol=1e-12)


@pytest.mark.parametrize("shape", [(5, 101), (1, 100)])
def test_each_function_equals_arviz(shape):
    draws = all_kinds(shape)
    wanted = by_arviz(draws)
    with using("float64"):
        for name in ("rhat", "ess_bulk", "ess_tail", "ess_mean"):
            agrees(getattr(convergence, name)(draws), wanted[name], 1e-10, name)
        split = array_stats.rhat(np.moveaxis(draws, 2, 0), method="split")
        np.testing.assert_allclose(convergence.split_rhat(draws), split, rtol=1e-10)


def test_float32_is_near():
    draws = all_kinds((4, 1000)).astype(np.float32)
    with using("float32"):
        found = convergence.summary(draws)
    assert {str(values.dtype) for values in found.values()} == {"float32"}
    for name, wanted in by_arviz(draws).items():
        agrees(found[name], wanted, 1e-3, name)


def test_float32_keeps_the_digits_of_draws_far_from_zero():
    draws = (autoregressive(np.random.default_rng(3), (4, 500, 4), 0.5) + 3e4).astype(np.float32)
    wanted = by_arviz(draws)
    with using("float32"):
        near = convergence.summary(draws)
        split = convergence.split_rhat(draws)
    with using("float64"):
        same = convergence.summary(jax.numpy.asarray(draws))
    for name in NAMES:
        np.testing.assert_allclose(near[name], wanted[name], rtol=1e-3, err_msg=name)
        np.testing.assert_allclose(same[name], wanted[name], rtol=1e-10, err_msg=name)
    np.testing.assert_allclose(near["sd"], draws.astype(np.float64).std(axis=(0, 1), ddof=1), rtol=1e-5)
    np.testing.assert_allclose(
        split, array_stats.rhat(np.moveaxis(draws.astype(np.float64), 2, 0), method="split"), rtol=1e-5
    )


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_rank_normalized_is_the_formula(precision):
    draws = all_kinds((3, 21))
    size = 3 * 21
    with using(precision):
        draws = draws.astype(precision)
        found = convergence.rank_normalized(draws)
    for parameter in range(draws.shape[2]):
        rank = scipy.stats.rankdata(draws[..., parameter].ravel())
        wanted = scipy.special.ndtri((rank - 3 / 8) / (size + 1 / 4)).reshape(3, 21)
        tolerance = {"float32": 3e-6, "float64": 1e-13}[precision]
        np.testing.assert_allclose(found[..., parameter], wanted, atol=tolerance)


def test_minus_zero_ties_with_zero():
    draws = np.array([0.0, -0.0, 1.0, -1.0, 0.0, 2.0])[None, :, None]
    with using("float64"):
        scores = np.asarray(convergence.rank_normalized(draws))[0, :, 0]
    assert scores[0] == scores[1] == scores[4]


def test_what_cannot_be_judged_is_nan():
    draws = np.random.default_rng(0).normal(size=(3, 20, 5))
    draws[..., 1] = 2.5
    draws[1, 3, 2] = np.nan
    draws[2, 7, 3] = np.inf
    with using("float64"):
        found = convergence.summary(draws)
        alone = {name: getattr(convergence, name)(draws) for name in (*NAMES[:4], "split_rhat")}
        few = convergence.summary(draws[:, :3])
        one = convergence.summary(draws[:1])
        nested = convergence.nested_rhat(draws, [0, 1, 2])
    found, one = ({name: np.asarray(values) for name, values in some.items()} for some in (found, one))
    for name in NAMES:
        np.testing.assert_array_equal(np.isfinite(found[name]), [True, False, False, False, True], err_msg=name)
        assert np.isnan(few[name]).all()
    for name, values in alone.items():
        np.testing.assert_array_equal(np.isfinite(values), [True, False, False, False, True], err_msg=name)
    np.testing.assert_array_equal(np.isfinite(nested), [True, False, False, False, True])
    assert np.isnan(one["rhat"]).all()
    assert np.isfinite(one["ess_bulk"][0])
    assert found["mean"][1] == 2.5
    assert found["sd"][1] == 0


def test_chains_that_never_move_disagree_without_bound():
    draws = np.broadcast_to(np.arange(4.0)[:, None, None], (4, 50, 1))
    with using("float64"):
        found = np.asarray(convergence.rhat(draws))
    assert found[0] > 1e3
    np.testing.assert_array_equal(convergence.frozen(draws), np.ones((4, 1), bool))


def test_blocks_change_nothing_and_bound_the_memory():
    draws = np.random.default_rng(0).normal(size=(4, 50, 11))
    with using("float64"):
        whole = convergence.summary(draws)
        narrow = convergence.summary(draws, memory=4 * 50 * 8 * convergence.TEMPORARIES * 4)
        none = convergence.summary(draws[..., :0], memory=1)
        large = jax.ShapeDtypeStruct((4, 1000, 4000), np.float64)
        for function in (convergence.rhat, convergence.ess_bulk, convergence.ess_tail, convergence.split_rhat):
            used = function.lower(large, memory=2**24).compile().memory_analysis()
            assert used is not None
            assert used.temp_size_in_bytes <= 2**24
    for name, values in whole.items():
        np.testing.assert_allclose(narrow[name], values, rtol=1e-12)
        assert none[name].shape == (0,)


def test_a_shape_is_compiled_once():
    rng = np.random.default_rng(0)
    first, second = Compiler(), Compiler()
    with using("float64"):
        convergence.summary(rng.normal(size=(2, 33, 2)), compiler=first)
        convergence.summary(rng.normal(size=(2, 33, 2)), compiler=second)
    assert first.seconds > 0
    assert second.seconds == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.sampled_from([(1, 9), (4, 25)]), digits=st.integers(0, 6))
def test_ranks_are_all_that_counts(seed, shape, digits):
    draws = np.random.default_rng(seed).normal(size=(*shape, 2)).round(digits)
    # Strictly increasing, and exact enough to keep ties and order.
    changed = np.where(draws > 0, draws**3 + 2 * draws, 5 * draws)
    with using("float64"):
        for function in (convergence.rank_normalized, convergence.ess_bulk, convergence.ess_tail):
            np.testing.assert_array_equal(function(draws), function(changed))
        np.testing.assert_allclose(convergence.rhat(draws), convergence.rhat(-4 * draws), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), order=st.permutations(range(4)))
def test_the_order_of_chains_does_not_count(seed, order):
    draws = np.random.default_rng(seed).normal(size=(4, 25, 2))
    order = np.array(order)
    with using("float64"):
        scores = np.asarray(convergence.rank_normalized(draws))
        np.testing.assert_array_equal(convergence.rank_normalized(draws[order]), scores[order])
        for function in (convergence.rhat, convergence.split_rhat, convergence.ess_bulk, convergence.ess_mean):
            np.testing.assert_allclose(function(draws[order]), function(draws), rtol=1e-9)
        superchains = np.array([0, 0, 1, 1])
        np.testing.assert_allclose(
            convergence.nested_rhat(draws[order], superchains[order]),
            convergence.nested_rhat(draws, superchains),
            rtol=1e-9,
        )


def nested_by_loop(draws, superchains):
    """Margossian et al. 2024, equations 4 to 8, for one parameter [chain, draw]."""
    means, withins = [], []
    for superchain in sorted(set(superchains)):
        chains = [draws[c] for c in range(len(draws)) if superchains[c] == superchain]
        chain_means = [sum(chain) / len(chain) for chain in chains]
        mean = sum(chain_means) / len(chains)
        between = 0.0
        if len(chains) > 1:
            between = sum((value - mean) ** 2 for value in chain_means) / (len(chains) - 1)
        within = 0.0
        if len(draws[0]) > 1:
            for chain, chain_mean in zip(chains, chain_means, strict=True):
                within += sum((x - chain_mean) ** 2 for x in chain) / (len(chain) - 1) / len(chains)
        means.append(mean)
        withins.append(between + within)
    grand = sum(means) / len(means)
    outer = sum((mean - grand) ** 2 for mean in means) / (len(means) - 1)
    return np.sqrt(1 + outer / (sum(withins) / len(withins)))


@pytest.mark.parametrize(("superchains", "draws"), [(4, 1), (4, 2), (2, 7), (16, 3), (8, 1)])
def test_nested_rhat_is_the_papers(superchains, draws):
    rng = np.random.default_rng(5)
    labels = rng.permutation(np.repeat(np.arange(superchains) * 3, 16 // superchains))
    values = rng.normal(size=(16, draws, 3)) + labels[:, None, None] * np.array([0, 0.1, 2])
    with using("float64"):
        found = convergence.nested_rhat(values, labels, memory=1)
    wanted = [nested_by_loop(values[..., parameter], labels.tolist()) for parameter in range(3)]
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_nested_rhat_refuses_groups_that_are_none():
    draws = np.zeros((4, 1, 2))
    with pytest.raises(ArgumentError, match="one label a chain"):
        convergence.nested_rhat(draws, [0, 1])
    with pytest.raises(ArgumentError, match=r"two or more of one size, not of sizes \[1, 3\]"):
        convergence.nested_rhat(draws, [0, 1, 1, 1])
    with pytest.raises(ArgumentError, match="two or more"):
        convergence.nested_rhat(draws, [0, 0, 0, 0])
    with pytest.raises(ArgumentError, match="no variance"):
        convergence.nested_rhat(draws, [0, 1, 2, 3])


def test_reductions_are_the_plain_ones():
    rng = np.random.default_rng(2)
    energy = rng.normal(size=(4, 60)).cumsum(axis=1) + 1e3
    flags = rng.uniform(size=(4, 60)) < 0.2
    draws = rng.normal(size=(3, 10, 2))
    draws[1, :, 0] = 4.0
    with using("float64"):
        np.testing.assert_allclose(convergence.bfmi(energy), array_stats.bfmi(energy), rtol=1e-10)
        np.testing.assert_allclose(convergence.share(flags), flags.mean(axis=1))
        np.testing.assert_array_equal(convergence.total(flags), flags.sum(axis=1))
        np.testing.assert_array_equal(convergence.frozen(draws), [[False, False], [True, False], [False, False]])
