"""NumPyro models of rates that come from one population, from regions or from a regression."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Num

from pelton.engine.posterior import Posterior
from pelton.engine.sources.numpyro import from_numpyro
from pelton.kernels.beta_binomial import CountTables, count_tables, log_likelihood, log_likelihood_units
from pelton.kernels.count_nodes import compressed
from pelton.models.priors import Prior, log_shapes

VARIABLES = ("logit_mu", "log_kappa", "mu", "kappa", "alpha", "beta")


def _describe(logit_mean: Array, log_concentration: Array, prefix: str = "") -> None:
    """The hyperparameters under every name that a reader may know them by."""
    log_alpha, log_beta = log_shapes(logit_mean, log_concentration)
    numpyro.deterministic(f"{prefix}mu", jnp.exp(log_alpha - log_concentration))
    numpyro.deterministic(f"{prefix}kappa", jnp.exp(log_concentration))
    numpyro.deterministic(f"{prefix}alpha", jnp.exp(log_alpha))
    numpyro.deterministic(f"{prefix}beta", jnp.exp(log_beta))


def pooled(prior: Prior, tables: CountTables) -> None:
    """One population: (logit mu, log kappa) ~ prior, rates integrated out."""
    logit_mean, log_concentration = prior.sites()
    _describe(logit_mean, log_concentration)
    numpyro.factor("likelihood", log_likelihood(logit_mean, log_concentration, tables))


def populations(
    prior: Prior,
    successes: Int[np.ndarray, " unit"],
    trials: Int[np.ndarray, " unit"],
    index: Int[np.ndarray, " unit"],
    count: int,
) -> Posterior:
    """The batch of `count` populations of one prior, each of the units with its number in `index`."""
    tables = compressed(count_tables(successes, trials, index, count))
    return from_numpyro(pooled, prior, tables, batch=count, keep=VARIABLES)


def regression(
    prior: Prior,
    groups: int,
    centring: Float[ArrayLike, "2 group"] | None,
    tables: CountTables | None,
    units: tuple[Num[ArrayLike, " unit"], Num[ArrayLike, " unit"], Int[ArrayLike, " unit"]] | None,
    covariates: Float[ArrayLike, "unit covariate"] | None,
) -> None:
    """Regions with a mean and a concentration each, partially pooled, and covariates on the logit of the mean.

    logit mu_g = m + tau_mu z_g and log kappa_g = l + tau_kappa w_g with (m, l) ~ prior, tau ~ HalfNormal(1), in a
    parameterisation between centred and not, by region: z_g ~ Normal(c m, tau^c) and mu_g = m + tau^(1-c) (z_g - c m)
    (Papaspiliopoulos, Roberts & Skold 2007; Gorinova, Moore & Hoffman 2020).
    """
    prefix = "population_" if groups else ""
    mean, concentration = prior.sites(prefix)
    _describe(mean, concentration, prefix)
    if groups:
        spread_mean = numpyro.sample("sd_logit_mu", dist.HalfNormal(1.0))
        spread_concentration = numpyro.sample("sd_log_kappa", dist.HalfNormal(1.0))
        with numpyro.plate("group", groups):
            values = []
            for name, centre, spread, c in (
                ("logit_mu", mean, spread_mean, jnp.asarray(centring)[0]),
                ("log_kappa", concentration, spread_concentration, jnp.asarray(centring)[1]),
            ):
                z = numpyro.sample(f"{name}_offset", dist.Normal(c * centre, spread**c))
                values.append(numpyro.deterministic(name, centre + spread ** (1 - c) * (z - c * centre)))
        logit_mean, log_concentration = values
        _describe(logit_mean, log_concentration)
    else:
        logit_mean, log_concentration = mean, concentration
    if tables is not None:
        numpyro.factor("likelihood", jnp.sum(log_likelihood(logit_mean, log_concentration, tables)))
        return
    assert units is not None
    successes, trials, group = units
    if groups:
        logit_mean, log_concentration = logit_mean[jnp.asarray(group)], log_concentration[jnp.asarray(group)]
    if covariates is not None:
        with numpyro.plate("covariate", np.shape(covariates)[1]):
            coefficient = numpyro.sample("standardized_coefficient", dist.Normal(0.0, 1.0))
        logit_mean = logit_mean + jnp.asarray(covariates) @ coefficient
    terms = log_likelihood_units(logit_mean, log_concentration, successes, trials)
    numpyro.factor("likelihood", jnp.sum(terms))


def textbook(prior: Prior, successes: ArrayLike, trials: ArrayLike) -> None:
    """The same posterior with the rates sampled: theta_i ~ Beta(alpha, beta), k_i ~ Binomial(n_i, theta_i).

    What an introduction to the subject writes down, for comparisons; its geometry is harder and its dimension that of
    the units.
    """
    logit_mean, log_concentration = prior.sites()
    log_alpha, log_beta = log_shapes(logit_mean, log_concentration)
    _describe(logit_mean, log_concentration)
    with numpyro.plate("unit", np.shape(successes)[0]):
        rate = numpyro.sample("rate", dist.Beta(jnp.exp(log_alpha), jnp.exp(log_beta)))
        numpyro.sample("successes", dist.Binomial(trials, probs=rate), obs=successes)
