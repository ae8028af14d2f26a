"""Sparse regression by the regularised horseshoe: three of twenty covariates matter.

    y = X beta + noise,  beta_j = z_j tau lambda_j c / sqrt(c^2 + tau^2 lambda_j^2)

Data: simulated here, as in NumPyro's example; the truth is TRUTH.
Source: Piironen & Vehtari 2017, Sparsity information and regularization in the horseshoe.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import pelton

TRUTH = np.array([2.0, -1.5, 1.0] + [0.0] * 17)


def simulate(rows=100, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, len(TRUTH)))
    return x, x @ TRUTH + rng.normal(size=rows)


def model(x, y):
    covariates = x.shape[1]
    noise = numpyro.sample("noise", dist.HalfNormal(2.0))
    overall = numpyro.sample("overall", dist.HalfCauchy(0.05))
    slab = numpyro.sample("slab", dist.InverseGamma(2.0, 8.0))
    with numpyro.plate("covariate", covariates):
        local = numpyro.sample("local", dist.HalfCauchy(1.0))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        width = overall * local * jnp.sqrt(slab / (slab + (overall * local) ** 2))
        beta = numpyro.deterministic("beta", z * width)
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(x @ beta, noise), obs=y)


def posterior():
    return pelton.from_numpyro(model, *simulate())


if __name__ == "__main__":
    tree = pelton.sample(posterior(), target_accept=0.95, draws=3000)
    beta = tree["posterior"]["beta"]
    low, high = (beta.quantile(p, ("chain", "draw")) for p in (0.05, 0.95))
    for j, truth in enumerate(TRUTH[:6]):
        print(f"beta[{j}]: truth {truth:5.2f}, 90% interval [{low[j].item():5.2f}, {high[j].item():5.2f}]")
    print("largest of the 17 without effect:", f"{np.abs(beta.mean(('chain', 'draw'))[3:]).max().item():.3f}")
