"""Stochastic volatility: log volatility as a random walk, returns with heavy tails.

    s_t = s_{t-1} + Normal(0, step),  r_t ~ StudentT(df, 0, exp(s_t))

Data: simulated here, 100 days, the path known. NumPyro's example fits S&P 500 returns, which it loads from the network.
Source: Hoffman & Gelman 2014, section 4.4.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import pelton


def simulate(days=100, seed=3):
    rng = np.random.default_rng(seed)
    path = -4.5 + np.cumsum(rng.normal(0.0, 0.15, days))
    return np.exp(path) * rng.standard_t(8, days), path


def model(returns):
    step = numpyro.sample("step", dist.Exponential(10.0))
    df = numpyro.sample("df", dist.Gamma(4.0, 0.4))
    first = numpyro.sample("first", dist.Normal(-4.5, 1.0))
    # The walk by its standardised increments: a centred one has a funnel at small steps.
    change = numpyro.sample("change", dist.Normal(0.0, 1.0).expand([len(returns)]).to_event(1))
    path = numpyro.deterministic("path", first + step * jnp.cumsum(change))
    with numpyro.plate("day", len(returns)):
        numpyro.sample("return", dist.StudentT(df, 0.0, jnp.exp(path)), obs=returns)


def posterior():
    returns, _ = simulate()
    return pelton.from_numpyro(model, returns, dims={"path": ["day"]})


if __name__ == "__main__":
    tree = pelton.sample(posterior(), draws=1500)
    _, path = simulate()
    found = tree["posterior"]["path"]
    low, high = (found.quantile(p, ("chain", "draw")).values for p in (0.05, 0.95))
    held = np.mean((low < path) & (path < high))
    print(f"the 90% intervals of log volatility hold the simulated path on {held:.0%} of days")
    for name in ("step", "df"):
        print(f"{name}: {tree['posterior'][name].mean().item():.3f}")
