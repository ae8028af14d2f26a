"""Posteriors of PyMC models against the same models compiled by PyTensor."""

import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.adapters.marks import MARKS, REASON

pm = pytest.importorskip("pymc", reason=REASON)
pytestmark = MARKS

import pytensor.tensor as pt  # noqa: E402

import pelton  # noqa: E402
from pelton.engine.errors import ModelError, UnknownNameError  # noqa: E402
from pelton.engine.lines import on_device  # noqa: E402
from pelton.engine.precision import using  # noqa: E402

# PyTensor's own evaluation, without a compiler.
SLOW = "FAST_COMPILE"


def _regression(seed=0, size=30, constant_column=False):
    generator = np.random.default_rng(seed)
    design = generator.normal(size=(size, 3))
    if constant_column:
        design[:, 2] = 0.0
    with pm.Model(coords={"column": ["a", "b", "c"], "group": range(4)}) as model:
        x = pm.Data("x", design, dims=("row", "column"))
        group = pm.Data("group_of", generator.permutation(np.arange(size) % 4), dims="row")
        slope = pm.Normal("slope", 0, 2, dims="column")
        spread = pm.LogNormal("spread", 0, 0.3)
        level = pm.Normal("level", 0, spread, dims="group")
        noise = pm.Exponential("noise", 1)
        mean = pm.Deterministic("mean", level[group] + x @ slope, dims="row")
        pm.Normal("y", mean, noise, observed=generator.normal(size=size), dims="row")
    return model


def _counts():
    with pm.Model() as model:
        rate = pm.Beta("rate", 2, 3, shape=3)
        pm.Binomial("k", n=[10, 20, 30], p=rate, observed=[3, 4, 20])
        concentration = pm.LogNormal("concentration", 0, 1)
        pm.BetaBinomial("b", alpha=concentration, beta=2.0, n=7, observed=[1, 6])
        pm.NegativeBinomial("nb", mu=concentration, alpha=2.0, observed=[0, 3, 9])
    return model


def _simplex_and_order():
    with pm.Model() as model:
        weights = pm.Dirichlet("weights", np.ones(3))
        centres = pm.Normal(
            "centres", 0, 3, shape=3, transform=pm.distributions.transforms.ordered, initval=[-1.0, 0.0, 1.0]
        )
        pm.NormalMixture("y", w=weights, mu=centres, sigma=1.0, observed=[-1.0, 0.2, 2.0, 0.1])
        pm.ZeroSumNormal("contrast", 1.0, shape=4)
        pm.Uniform("bounded", -1, 2)
        pm.TruncatedNormal("truncated", 0, 1, lower=0.5)
        pm.VonMises("angle", 0, 2)
    return model


def _correlated():
    with pm.Model() as model:
        chol, _, _ = pm.LKJCholeskyCov("chol", n=3, eta=2, sd_dist=pm.Exponential.dist(1.0, shape=3))
        effects = pm.MvNormal("effects", mu=np.zeros(3), chol=chol, shape=(5, 3))
        pm.StudentT("y", nu=4, mu=effects.sum(axis=1), sigma=1.0, observed=np.arange(5.0))
    return model


def _series():
    with pm.Model() as model:
        rho = pm.Uniform("rho", -1, 1)
        pm.AR("state", rho=rho, sigma=1.0, init_dist=pm.Normal.dist(0, 1), steps=11)
        walk = pm.GaussianRandomWalk("walk", sigma=0.3, init_dist=pm.Normal.dist(), steps=11)
        pm.Normal("y", walk, 0.5, observed=np.sin(np.arange(12)))
    return model


def _process():
    points = np.linspace(0, 3, 8)[:, None]
    with pm.Model() as model:
        scale = pm.InverseGamma("scale", 3, 2)
        process = pm.gp.Marginal(cov_func=pm.gp.cov.ExpQuad(1, ls=scale))
        process.marginal_likelihood("y", X=points, y=np.cos(points.ravel()), sigma=0.1)
    return model


def _missing_and_potential():
    with pm.Model() as model:
        mean = pm.Normal("mean")
        pm.Normal("y", mean, 1.0, observed=np.array([0.3, np.nan, 1.0]))
        pm.Potential("penalty", -0.5 * (mean - 1) ** 2)
        pm.Censored("late", pm.Exponential.dist(pt.exp(mean)), lower=None, upper=2.0, observed=[0.5, 2.0])
    return model


MODELS = (_regression, _counts, _simplex_and_order, _correlated, _series, _process, _missing_and_potential)


def _positions(posterior, model, count=3):
    """Positions about the initial point, and the same as PyMC's points."""
    generator = np.random.default_rng(1)
    position = posterior.data["points"][0]
    names = [value.name for value in model.value_vars]
    shapes = [np.shape(model.initial_point(0)[name]) for name in names]
    for _ in range(count):
        moved = position + generator.uniform(-0.4, 0.4, position.shape)
        pieces = np.split(moved, np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
        yield moved, {n: p.reshape(shape) for n, p, shape in zip(names, pieces, shapes, strict=True)}


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__.strip("_"))
def test_density_gradient_and_variables_are_pymc_s(build):
    model = build()
    posterior = pelton.from_pymc(model)
    density, gradient = model.compile_logp(mode=SLOW), model.compile_dlogp(mode=SLOW)
    named = [v for v in model.unobserved_value_vars if v.name in {u.name for u in model.unobserved_RVs}]
    variables = model.compile_fn(named, inputs=model.value_vars, on_unused_input="ignore", mode=SLOW)
    assert posterior.dimension == sum(np.size(value) for value in model.initial_point(0).values())
    for position, point in _positions(posterior, model):
        for precision, tolerance in (("float64", 1e-9), ("float32", 2e-3)):
            with using(precision):
                data = on_device(posterior.data, None)
                found, slope = jax.value_and_grad(posterior.logdensity)(jnp.asarray(position, precision), data)
                values = posterior.constrain(jnp.asarray(position, precision), data)
            assert found.dtype == slope.dtype == precision
            # A sum of many terms, and a gradient that cancels: relative to the largest of it.
            expected = gradient(point)
            np.testing.assert_allclose(found, density(point), rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(slope, expected, atol=tolerance * max(1.0, np.abs(expected).max()))
            for variable, value in zip(named, variables(point), strict=True):
                np.testing.assert_allclose(values[variable.name], value, rtol=tolerance, atol=tolerance)
    assert set(values) == {variable.name for variable in model.unobserved_RVs}


def test_equal_models_share_compiled_programs_whatever_their_data():
    first, second = pelton.from_pymc(_regression(0)), pelton.from_pymc(_regression(1))
    for part in ("logdensity", "constrain", "start"):
        assert getattr(first, part) == getattr(second, part)
        assert hash(getattr(first, part)) == hash(getattr(second, part))
    settings = {"chains": 2, "warmup": 100, "draws": 100, "progress": False}
    with pytest.warns(pelton.errors.ConvergenceWarning):
        one, other = pelton.sample(first, **settings), pelton.sample(second, **settings)
    assert other.attrs["seconds_compiling"] == 0.0
    assert not np.array_equal(one["posterior"]["slope"], other["posterior"]["slope"])


def test_models_that_differ_are_not_equal():
    first = pelton.from_pymc(_regression(0))
    assert first.logdensity != pelton.from_pymc(_regression(0, size=31)).logdensity
    assert first.logdensity != pelton.from_pymc(_counts()).logdensity
    # A column of zeros lets PyTensor simplify; if it does the graphs differ, and in either case the density is right.
    model = _regression(0, constant_column=True)
    posterior = pelton.from_pymc(model)
    (position, point), *_ = _positions(posterior, model)
    with using("float64"):
        value = posterior.logdensity(jnp.asarray(position), on_device(posterior.data, None))
    np.testing.assert_allclose(value, model.compile_logp(mode=SLOW)(point), rtol=1e-10)


def test_data_set_anew_count():
    model = _regression(0)
    before = pelton.from_pymc(model)
    pm.set_data({"x": np.zeros((30, 3))}, model=model)
    after = pelton.from_pymc(model)
    (position, point), *_ = _positions(after, model)
    with using("float64"):
        value = after.logdensity(jnp.asarray(position), on_device(after.data, None))
        old = before.logdensity(jnp.asarray(position), on_device(before.data, None))
    np.testing.assert_allclose(value, model.compile_logp(mode=SLOW)(point), rtol=1e-10)
    assert abs(old - value) > 1e-3


def test_bounds_are_checked_as_the_model_asks():
    def build(check):
        with pm.Model(check_bounds=check) as model:
            spread = pm.Normal("spread", initval=1.0)
            pm.Normal("y", 0, spread, observed=[0.5])
        return pelton.from_pymc(model)

    for check, finite in ((True, False), (False, False)):
        posterior = build(check)
        with using("float64"):
            data = on_device(posterior.data, None)
            assert np.isfinite(posterior.logdensity(jnp.array([1.0]), data))
            value = posterior.logdensity(jnp.array([-1.0]), data)
        assert np.isfinite(value) == finite
        assert (value == -np.inf) == check


def test_starts_are_pymc_s_initial_values_with_jitter():
    with pm.Model() as model:
        pm.Normal("far", 100.0, 1.0)
        pm.LogNormal("given", 0, 1, initval=20.0)
        pm.Normal("replaced")
    still = pelton.from_pymc(model, initvals={"replaced": 7.0}, jitter=False)
    moved = pelton.from_pymc(model, initvals={"replaced": 7.0})
    with using("float64"):
        middle = still.start(jax.random.key(0), on_device(still.data, None))
        keys = jax.random.split(jax.random.key(1), 500)
        starts = jax.vmap(moved.start, (0, None))(keys, on_device(moved.data, None))
    np.testing.assert_allclose(middle, [100.0, np.log(20.0), 7.0])
    apart = np.asarray(starts - middle)
    assert np.abs(apart).max() <= 1
    assert np.all(np.abs(apart).max(axis=0) > 0.95)


def test_random_initial_values_differ_between_chains():
    with pm.Model() as model:
        pm.Normal("x", 0, 10, initval="prior")
    posterior = pelton.from_pymc(model, jitter=False)
    with using("float64"):
        data = on_device(posterior.data, None)
        starts = [float(posterior.start(jax.random.key(seed), data)[0]) for seed in range(20)]
    assert len(set(starts)) > 10
    assert 4 < np.std(starts) < 20


def test_refusals_name_the_variable():
    with pm.Model() as discrete:
        pm.Poisson("visits", 3)
        pm.Normal("mean")
    with pytest.raises(ModelError, match="'visits'"):
        pelton.from_pymc(discrete)
    with pm.Model() as outside:
        pm.HalfNormal("spread")
        pm.LogNormal("income", 0, 1, observed=[1.0, -2.0])
    with pytest.raises(ModelError, match="not finite of 'income' \\(-inf\\)"):
        pelton.sample(outside, progress=False)
    with pm.Model() as batches:
        mean = pm.Normal("mean")
        batch = pm.Minibatch(np.zeros(100), batch_size=10)
        pm.Normal("y", mean, observed=batch, total_size=100)
    with pytest.raises(ModelError, match="'y'"):
        pelton.from_pymc(batches)
    with pm.Model() as noisy:
        mean = pm.Normal("mean")
        pm.Deterministic("noise", mean + pm.Normal.dist())
    with pytest.raises(ModelError, match="'noise'"):
        pelton.from_pymc(noisy)
    assert pelton.from_pymc(noisy, keep=["mean"]).dimension == 1
    with pm.Model() as empty:
        pm.Normal("y", observed=[1.0])
    with pytest.raises(ModelError, match="no free variables"):
        pelton.from_pymc(empty)
    with pytest.raises(UnknownNameError, match="'maen'; did you mean 'mean'"):
        pelton.from_pymc(noisy, keep=["maen"])
    with pytest.raises(UnknownNameError, match="'maen'"):
        pelton.from_pymc(noisy, keep=["mean"], initvals={"maen": 1.0})


def test_not_a_number_is_blamed_on_its_variable():
    with pm.Model() as model:
        pm.HalfNormal("spread")
        pm.Normal("fine", observed=[0.0])
        pm.Potential("broken", pt.log(pt.as_tensor(-1.0)) * model["spread"])
    with pytest.raises(ModelError, match=r"not finite of 'broken' \(nan\)"):
        pelton.sample(model, progress=False)


def test_a_pymc_model_is_sampled_as_it_is():
    model = _regression()
    groups = ("prior", "prior_predictive", "posterior_predictive", "log_likelihood")
    tree = pelton.sample(model, chains=2, draws=1000, seed=3, progress=False, groups=groups)
    assert {"posterior", "observed_data", "constant_data", *groups} <= set(tree.children)
    assert tree["posterior"]["slope"].dims == ("chain", "draw", "column")
    assert list(tree["posterior"]["column"].values) == ["a", "b", "c"]
    assert tree["log_likelihood"]["y"].shape == (2, 1000, 30)
    fitted = pelton.approximate(model, "laplace", draws=200)
    assert fitted["posterior"]["level"].shape == (1, 200, 4)


def test_pelton_does_not_load_pymc():
    code = "import sys, pelton; pelton.sample, pelton.Posterior; assert 'pymc' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_a_run_on_disk_is_gone_on_with_in_another_process(tmp_path):
    settings = {"chains": 2, "seed": 4, "progress": False}
    path = str(tmp_path / "run.zarr")
    # Too few draws for thirty means: what counts is that they are the same.
    warnings.simplefilter("ignore")
    pelton.sample(_regression(), draws=500, store=path, **settings)
    code = (
        "import sys; from tests.adapters.test_source import _regression; import pelton; "
        "pelton.resume(sys.argv[1], _regression(), draws=700, progress=False)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], check=True, timeout=300)
    whole = pelton.sample(_regression(), draws=700, **settings)
    stored = pelton.load(path)
    np.testing.assert_array_equal(stored["posterior"]["slope"], whole["posterior"]["slope"])
    with pytest.raises(pelton.errors.StoreError, match="other data"):
        pelton.resume(path, _regression(seed=1), progress=False)
