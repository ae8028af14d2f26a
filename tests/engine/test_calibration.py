"""Simulation-based calibration as a library: what is right passes, what is wrong is told, and every model passes."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import pelton
from pelton.engine.errors import ArgumentError, UnknownNameError
from pelton.report.ranks import rank_picture

SHORT = {"sampler": "nuts", "chains": 2, "warmup": 200, "draws": 400}


def schools(y, sd):
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfNormal(3.0))
    with numpyro.plate("school", y.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        effect = numpyro.deterministic("effect", mean + spread * z)
        numpyro.sample("y", dist.Normal(effect, sd), obs=y)


SD = np.array([1.0, 2.0, 3.0, 4.0])


def simulated(source, model=schools, narrow=1.0):
    mean, spread, z = source.normal(0, 5), abs(source.normal(0, 3)), source.normal(size=4)
    effect = mean + spread * z
    y = source.normal(effect, SD)
    return pelton.from_numpyro(model, y, narrow * SD), {"mean": mean, "spread": spread, "effect": effect}, y


def simulate(source):
    return simulated(source)[:2]


def log_likelihood(values, model):
    y = np.asarray(model.observed["y"])
    return float(scipy.stats.norm.logpdf(y, values["effect"], SD).sum())


@pytest.mark.long
def test_what_is_right_passes():
    found = pelton.calibrate(simulate, sets=60, quantities={"log-likelihood": log_likelihood}, **SHORT)
    assert list(found.ranks) == ["mean", "spread", *(f"effect[{at}]" for at in range(4)), "log-likelihood"]
    assert found.problems == ()
    table = found.table()
    assert table["band"].all()
    assert found.ranks.to_numpy().max() <= found.draws
    # Few of sixty hierarchies of four groups are hard; a fit that fails is counted, not left out.
    assert len(found.converged) == 60
    assert "uniform" in rank_picture(found).title


@pytest.mark.long
def test_what_is_wrong_is_told():
    """A standard deviation of the data that is too small by half, of which the log-likelihood knows most."""
    quantities = {"log-likelihood": log_likelihood}
    found = pelton.calibrate(lambda source: simulated(source, narrow=0.5)[:2], sets=50, quantities=quantities, **SHORT)
    assert any("log-likelihood" in problem for problem in found.problems)
    assert not found.table().loc["log-likelihood", "band"]
    assert "not uniform for" in rank_picture(found).title


@pytest.mark.slow
def test_a_forgotten_jacobian_is_told():
    """The density of log x in place of that of x: what the scipy reference of the stores forgets."""

    def density(position, data):
        # x = exp(position) ~ Gamma(1/2, 1/2), y ~ Poisson(x); the Jacobian would add position.
        x = jnp.exp(position)
        return jnp.sum(-0.5 * position - 0.5 * x + data * position - x)

    def named(position, data):
        del data
        return {"x": jnp.exp(position[0])}

    def right(position, data):
        return density(position, data) + position[0]

    def made(logdensity):
        def simulate(source):
            x = source.gamma(0.5, 2.0)
            model = pelton.Posterior(1, logdensity, named, _start, data=np.float64(source.poisson(x)))
            return model, {"x": x}

        return simulate

    assert pelton.calibrate(made(right), sets=60, seed=4, **SHORT).problems == ()
    assert pelton.calibrate(made(density), sets=60, seed=4, **SHORT).problems


def _start(key, data):
    del key, data
    return jnp.zeros(1)


def test_refusals():
    with pytest.raises(ArgumentError, match="sets is a whole number of at least 20"):
        pelton.calibrate(simulate, sets=3)
    with pytest.raises(UnknownNameError, match="unknown variable 'maen'; did you mean 'mean'"):
        pelton.calibrate(lambda source: (simulate(source)[0], {"maen": 1.0}), sets=20, **SHORT)
    with pytest.raises(ArgumentError, match=r"the true 'effect' has the shape \(3,\) and the variable \(4,\)"):
        pelton.calibrate(lambda source: (simulate(source)[0], {"effect": np.zeros(3)}), sets=20, **SHORT)
    with pytest.raises(ArgumentError, match="too few to rank"):
        pelton.calibrate(simulate, sets=20, **SHORT | {"draws": 20})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "settings"),
    [
        ("nuts", {}),
        ("nuts", {"chain_method": "vectorized"}),
        ("nuts", {"precision": "float32"}),
        ("nuts", {"metric": "diagonal"}),
        ("numpyro-nuts", {}),
        ("blackjax-nuts", {}),
        ("mclmc", {"draws": 1000}),
        ("chees", {"chains": 16}),
    ],
)
def test_samplers(sampler, settings):
    settings = SHORT | {"sampler": sampler, "warmup": 400} | settings
    found = pelton.calibrate(simulate, sets=300, quantities={"log-likelihood": log_likelihood}, **settings)
    assert found.problems == ()
