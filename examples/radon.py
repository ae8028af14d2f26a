"""Varying intercepts by county, as for radon in Minnesota (Gelman & Hill 2006, chapter 12), on simulated houses.

Run it with `python examples/radon.py`; it needs `pip install 'pelton[pymc]'`.
"""

import arviz
import numpy as np
import pymc as pm

import pelton.pymc

COUNTIES = 60
HOUSES = 600


def simulate(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """County [house], floor [house] (0 a basement, 1 the ground floor) and log radon [house]; counties are unequal."""
    generator = np.random.default_rng(seed)
    county = generator.choice(COUNTIES, HOUSES, p=generator.dirichlet(np.full(COUNTIES, 1.5)))
    floor = generator.integers(0, 2, HOUSES)
    intercept = generator.normal(1.5, 0.35, COUNTIES)
    return county, floor, generator.normal(intercept[county] - 0.7 * floor, 0.75)


def build(seed: int = 0) -> pm.Model:
    """The model, its data as `pm.Data`: with other houses as many, a second fit compiles nothing."""
    county, floor, log_radon = simulate(seed)
    with pm.Model(coords={"county": range(COUNTIES)}) as model:
        where = pm.Data("where", county, dims="house")
        level = pm.Data("level", floor, dims="house")
        mean = pm.Normal("mean", 0, 3)
        spread = pm.HalfNormal("spread", 1)
        offset = pm.Normal("offset", dims="county")
        intercept = pm.Deterministic("intercept", mean + spread * offset, dims="county")
        slope = pm.Normal("slope", 0, 2)
        noise = pm.HalfNormal("noise", 2)
        pm.Normal("log_radon", intercept[where] + slope * level, noise, observed=log_radon, dims="house")
    return model


if __name__ == "__main__":
    with build():
        tree = pelton.pymc.sample(random_seed=1)
    print(arviz.summary(tree, var_names=["mean", "spread", "slope", "noise"]))
