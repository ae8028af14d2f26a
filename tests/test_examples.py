"""The examples' posteriors, by pelton and by NumPyro's own NUTS."""

import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from arviz_stats.base import array_stats
from numpyro.infer import MCMC, NUTS

import pelton
from tests.statistics import assert_agrees

FOLDER = Path(__file__).resolve().parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"examples.{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# Arguments of the model, variables to compare, and what the acceptance is adapted to.
CASES = {
    "eight_schools": (lambda m: (m.EFFECT, m.ERROR), ("mean", "between", "truth"), 0.9),
    "baseball": (lambda m: (m.AT_BATS, m.HITS), ("centre", "spread", "logit"), 0.95),
    "horseshoe": (lambda m: m.simulate(), ("noise", "beta"), 0.95),
    "stochastic_volatility": (lambda m: m.simulate()[:1], ("step", "df", "path"), 0.8),
}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_pelton_agrees_with_numpyros_nuts(name):
    module = load(name)
    arguments, variables, target_accept = CASES[name]
    tree = pelton.sample(module.posterior(), target_accept=target_accept, warmup=700, draws=1500, seed=1)
    with jax.enable_x64(True):
        mcmc = MCMC(
            NUTS(module.model, target_accept_prob=target_accept),
            num_warmup=700,
            num_samples=1000,
            num_chains=4,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(jax.random.key(2), *arguments(module))
        theirs = mcmc.get_samples(group_by_chain=True)
    for variable in variables:
        # Chain and draw last, as the statistics take them; every fifth coordinate of long vectors.
        ours, other = (
            np.moveaxis(np.asarray(values).reshape(*np.shape(values)[:2], -1), 2, 0)[::5]
            for values in (tree["posterior"][variable], theirs[variable])
        )
        assert np.min(array_stats.ess(other, method="bulk")) > 400
        error = array_stats.mcse(other, method="mean")
        assert_agrees(ours, mean=other.mean(axis=(-2, -1)), truth_error=error, least_ess=400)


def test_the_simulated_truth_is_found():
    module = load("horseshoe")
    tree = pelton.sample(module.posterior(), target_accept=0.95, draws=3000, seed=4)
    beta = tree["posterior"]["beta"].mean(("chain", "draw")).values
    np.testing.assert_allclose(beta, module.TRUTH, atol=0.35)
