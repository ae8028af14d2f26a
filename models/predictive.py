"""Prior draws, predicted counts and pointwise log-likelihoods of a PartialPooling tree."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from pelton.engine.errors import ArgumentError
from pelton.engine.precision import using
from pelton.kernels.beta_binomial import log_pmf
from pelton.models.priors import Prior
from pelton.models.rates import Hyperparameters, block_width, rate_blocks, rate_seed

PRIOR_DRAWS = 1000
# A group with a value for each draw and unit is refused past this size.
GROUP_BYTES = 2**30


def rng(tree: xr.DataTree, purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, the same for the same tree."""
    return np.random.default_rng([rate_seed(tree), *purpose.encode()])


def prior_draws(prior: Prior, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(logit mean, log concentration), each [draws], from the prior.

    Raises:
        ArgumentError: the prior is improper.
    """
    with using("float64"):
        key = jax.random.wrap_key_data(jnp.asarray(np.random.SeedSequence((seed, 1)).generate_state(2)))
        mean, concentration = prior.draw(key, draws)
    return np.asarray(mean), np.asarray(concentration)


def predict_counts(rng: np.random.Generator, trials: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """k ~ Binomial(n, theta) for rates [draw, unit]."""
    return rng.binomial(trials.astype(np.int64), np.clip(rates, 0.0, 1.0))


def draw_beta(source: np.random.Generator, alpha: np.ndarray, beta: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Beta draws; where both shapes are so small that the generator gives 0/0, the limit: 1 with the mean's odds."""
    rates = source.beta(alpha, beta, shape)
    odd = ~np.isfinite(rates)
    if odd.any():
        rates = np.where(odd, source.random(shape) < alpha / (alpha + beta), rates)
    return rates


@jax.jit
def _log_pmf(successes: Any, trials: Any, alpha: Any, beta: Any) -> Any:
    return log_pmf(successes, trials, alpha, beta)


def _refuse_large(draws: int, units: int, name: str) -> None:
    if draws * units * 8 > GROUP_BYTES:
        raise ArgumentError(
            f"the group {name!r} would hold {draws} draws x {units} units, {draws * units * 8 / 2**30:.1f} GiB; "
            "take fewer draws, or fit a sample of the units"
        )


def add_group(tree: xr.DataTree, name: str, prior: Prior | None, seed: int) -> None:
    """Adds prior, prior_predictive, posterior_predictive or log_likelihood; only the first two need the prior.

    prior: the population's hyperparameters. prior_predictive: counts of the data's trials from the prior.
    posterior_predictive: new counts of the same units, k_i ~ Binomial(n_i, theta_i). log_likelihood: the beta-binomial
    log probability of each unit's count given the hyperparameters, rates integrated out, which is what leave-one-out
    cross-validation of a new unit needs.

    Raises:
        ArgumentError: the prior is improper, or the group would not fit the memory.
    """
    known = Hyperparameters.of(tree)
    sizes = tree["posterior"].sizes
    unit = np.asarray(tree["observed_data"]["unit"])
    per_unit = {"unit": unit}
    if name in ("prior", "prior_predictive"):
        assert prior is not None
        mean, concentration = prior_draws(prior, PRIOR_DRAWS, seed)
        log_alpha = concentration - np.logaddexp(0.0, -mean)
        log_beta = concentration - np.logaddexp(0.0, mean)
        if name == "prior":
            values = {
                "logit_mu": mean,
                "log_kappa": concentration,
                "mu": np.exp(log_alpha - concentration),
                "kappa": np.exp(concentration),
                "alpha": np.exp(log_alpha),
                "beta": np.exp(log_beta),
            }
            group = xr.Dataset({key: (("chain", "draw"), value[None]) for key, value in values.items()})
        else:
            if known.level is not None or known.coefficient is not None:
                raise ArgumentError("prior_predictive is offered for one population, without groups or covariates")
            _refuse_large(PRIOR_DRAWS, known.units, name)
            source = rng(tree, name)
            shape = (PRIOR_DRAWS, known.units)
            rates = draw_beta(source, np.exp(log_alpha)[:, None], np.exp(log_beta)[:, None], shape)
            counts = predict_counts(source, known.trials, rates)
            group = xr.Dataset({"successes": (("chain", "draw", "unit"), counts[None])}, per_unit)
    else:
        _refuse_large(known.draws, known.units, name)
        values = np.empty((known.draws, known.units), np.int64 if name == "posterior_predictive" else np.float64)
        if name == "posterior_predictive":
            source = rng(tree, name)
            for units, rates in rate_blocks(tree):
                values[:, units] = predict_counts(source, known.trials[units], rates)
        else:
            width = block_width(known.draws, known.units)
            for start in range(0, known.units, width):
                units = slice(start, min(start + width, known.units))
                with using("float64"):
                    values[:, units] = np.asarray(
                        _log_pmf(known.successes[units], known.trials[units], *known.shapes(units))
                    )
        shaped = values.reshape(sizes["chain"], sizes["draw"], known.units)
        group = xr.Dataset({"successes": (("chain", "draw", "unit"), shaped)}, per_unit)
    tree[name] = xr.DataTree(
        group.assign_coords(chain=np.arange(group.sizes["chain"]), draw=np.arange(group.sizes["draw"]))
    )
