"""Rat tumours: 71 experiments with a beta population of rates, as Gelman et al. (Bayesian Data Analysis, 5.3) have it.

Run it with `python examples/rat_tumours.py`; it needs `pip install 'pelton[pymc]'`.
"""

import arviz
import pymc as pm
import pytensor.tensor as pt

import pelton.pymc

# Tarone 1982, table 5.1 of Bayesian Data Analysis: rats with tumours, and rats, in each experiment.
# fmt: off
TUMOURS = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 5, 2, 5,
    2, 7, 7, 3, 3, 2, 9, 10, 4, 4, 4, 4, 4, 4, 4, 10, 4, 4, 4, 5, 11, 12, 5, 5, 6, 5, 6, 6, 6, 6, 16, 15, 15, 9,
    4,
]
RATS = [
    20, 20, 20, 20, 20, 20, 20, 19, 19, 19, 19, 18, 18, 17, 20, 20, 20, 20, 19, 19, 18, 18, 27, 25, 24, 23, 20,
    20, 20, 20, 20, 20, 10, 49, 19, 46, 17, 49, 47, 20, 20, 13, 48, 50, 20, 20, 20, 20, 20, 20, 20, 48, 19, 19,
    19, 22, 46, 49, 20, 20, 23, 19, 22, 20, 20, 20, 52, 46, 47, 24, 14,
]
# fmt: on


def build() -> pm.Model:
    """p(alpha, beta) proportional to (alpha + beta)^(-5/2), rates beta, tumours binomial."""
    with pm.Model(coords={"experiment": range(len(RATS))}) as model:
        shapes = pm.HalfFlat("shapes", shape=2, initval=[2.0, 10.0])
        pm.Potential("hyperprior", -2.5 * pt.log(pt.sum(shapes)))
        pm.Deterministic("logit_mu", pt.log(shapes[0] / shapes[1]))
        pm.Deterministic("log_kappa", pt.log(pt.sum(shapes)))
        rate = pm.Beta("rate", shapes[0], shapes[1], dims="experiment")
        pm.Binomial("tumours", n=RATS, p=rate, observed=TUMOURS, dims="experiment")
    return model


if __name__ == "__main__":
    with build():
        tree = pelton.pymc.sample(random_seed=1)
    print(arviz.summary(tree, var_names=["logit_mu", "log_kappa"]))
