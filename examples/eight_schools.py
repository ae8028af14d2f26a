"""Eight schools: how much coaching raises test scores, by partial pooling of eight experiments.

Data: Rubin 1981, Estimation in parallel randomized experiments, table 1.
"""

import arviz
import numpy as np
import numpyro
import numpyro.distributions as dist

import pelton

SCHOOLS = list("ABCDEFGH")
EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def model(effect, error):
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    between = numpyro.sample("between", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(effect)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        truth = numpyro.deterministic("truth", mean + between * z)
        numpyro.sample("effect", dist.Normal(truth, error), obs=effect)


def posterior():
    return pelton.from_numpyro(model, EFFECT, ERROR, coords={"school": SCHOOLS})


if __name__ == "__main__":
    tree = pelton.sample(posterior(), target_accept=0.9, groups=["log_likelihood"])
    print(arviz.summary(tree, var_names=["mean", "between", "truth"]))
    print(arviz.loo(tree))
