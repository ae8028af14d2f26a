"""NumPyro models as posteriors: names, dims, data as arguments, what is refused."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import pelton


def schools(effect, error):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(effect)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("effect", dist.Normal(theta, error), obs=effect)


EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERROR = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def test_plates_name_dims_and_coords_label_them():
    names = list("ABCDEFGH")
    target = pelton.from_numpyro(schools, EFFECT, ERROR, coords={"school": names}, dims={"theta": ["school"]})
    assert target.dimension == 10
    tree = pelton.sample(target, chains=2, warmup=500, draws=1000, target_accept=0.95)
    assert tree["posterior"]["z"].dims == ("chain", "draw", "school")
    assert list(tree["posterior"]["theta"]["school"].values) == names
    assert tree["observed_data"]["effect"].dims == ("school",)
    np.testing.assert_array_equal(tree["observed_data"]["effect"], EFFECT)


def test_a_number_may_be_observed():
    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mean, 1), obs=y)

    target = pelton.from_numpyro(model, 0.5)
    np.testing.assert_array_equal(target.observed["y"], 0.5)


def test_eight_schools_agrees_with_quadrature():
    """Schools integrated out, effect_j ~ Normal(mu, tau^2 + error_j^2); mu is normal given tau, and tau summed."""
    from scipy import stats

    from tests.statistics import assert_agrees

    tau = np.concatenate([np.linspace(1e-6, 100, 200_001)[:-1], np.geomspace(100, 1e6, 20_001)])
    width = np.gradient(tau)
    variance = tau[:, None] ** 2 + ERROR**2
    precision = (1 / variance).sum(1) + 1 / 25
    mean = (EFFECT / variance).sum(1) / precision
    log_density = (
        stats.halfcauchy(scale=5).logpdf(tau)
        - 0.5 * np.log(variance).sum(1)
        - 0.5 * np.log(precision)
        - 0.5 * ((EFFECT**2 / variance).sum(1) - precision * mean**2)
    )
    weights = np.exp(log_density - log_density.max()) * width
    weights /= weights.sum()
    tree = pelton.sample(pelton.from_numpyro(schools, EFFECT, ERROR), draws=4000, target_accept=0.95)
    assert_agrees(tree["posterior"]["mu"], mean=weights @ mean)
    assert_agrees(tree["posterior"]["tau"], mean=weights @ tau)


def test_the_log_density_is_the_models():
    target = pelton.from_numpyro(schools, EFFECT, ERROR)
    position = np.linspace(-1, 1, 10).astype(np.float32)
    # Latents in the order of their names: mu, tau (as its logarithm), z.
    mu, log_tau, z = position[0], position[1], position[2:]
    from scipy import stats

    tau = np.exp(log_tau)
    expected = (
        stats.norm(0, 5).logpdf(mu)
        + stats.halfcauchy(scale=5).logpdf(tau)
        + log_tau
        + stats.norm.logpdf(z).sum()
        + stats.norm(mu + tau * z, ERROR).logpdf(EFFECT).sum()
    )
    np.testing.assert_allclose(target.logdensity(jnp.asarray(position), target.data), expected, rtol=1e-5)


def test_equal_models_have_equal_densities():
    one, two = pelton.from_numpyro(schools, EFFECT, ERROR), pelton.from_numpyro(schools, EFFECT + 1, ERROR)
    assert one.logdensity == two.logdensity
    assert hash(one.logdensity) == hash(two.logdensity)
    assert pelton.from_numpyro(schools, EFFECT[:5], ERROR[:5]).logdensity != one.logdensity


def test_what_a_model_reads_besides_its_arguments_may_change():
    size = [2]

    def model(y):
        numpyro.sample("x", dist.Normal(0, 1).expand(size).to_event(1))
        numpyro.sample("y", dist.Normal(0, 1), obs=y)

    one = pelton.from_numpyro(model, EFFECT)
    size[0] = 3
    other = pelton.from_numpyro(model, EFFECT)
    assert (one.dimension, other.dimension) == (2, 3)
    assert pelton.sample(other, draws=500, progress=False)["posterior"]["x"].shape == (4, 500, 3)


def test_supports_and_events():
    def model(y):
        numpyro.sample("simplex", dist.Dirichlet(np.ones(3)))
        numpyro.sample("interval", dist.Uniform(2.0, 5.0))
        with numpyro.plate("row", 4):
            numpyro.sample("vector", dist.MultivariateNormal(np.zeros(2), np.eye(2)))
        numpyro.factor("y", y)

    target = pelton.from_numpyro(model, np.float64(0.0))
    assert target.dimension == 2 + 1 + 8
    tree = pelton.sample(target, chains=2, warmup=400, draws=1000)
    np.testing.assert_allclose(tree["posterior"]["simplex"].sum("simplex_dim_0"), 1.0, rtol=1e-6)
    assert tree["posterior"]["vector"].dims == ("chain", "draw", "row", "vector_dim_1")
    interval = np.asarray(tree["posterior"]["interval"])
    assert interval.min() > 2
    assert interval.max() < 5
