"""A mixed model in Bambi's formula: reaction times over days of too little sleep, simulated.

Run it with `python examples/bambi_mixed.py`; it needs `pip install pelton bambi`.
"""

import arviz
import bambi
import numpy as np
import pandas as pd

import pelton.pymc

SUBJECTS = 24
DAYS = 10


def simulate(seed: int) -> pd.DataFrame:
    """One row a subject and day; subjects differ in level and slope."""
    generator = np.random.default_rng(seed)
    subject = np.repeat(np.arange(SUBJECTS), DAYS)
    day = np.tile(np.arange(DAYS), SUBJECTS)
    level, slope = generator.normal(250.0, 25.0, SUBJECTS), generator.normal(10.0, 6.0, SUBJECTS)
    reaction = generator.normal(level[subject] + slope[subject] * day, 25.0)
    return pd.DataFrame({"subject": [f"s{s:02d}" for s in subject], "day": day, "reaction": reaction})


def build() -> bambi.Model:
    """The model with its data."""
    return bambi.Model("reaction ~ day + (day | subject)", simulate(0))


if __name__ == "__main__":
    # In place of build().fit(random_seed=1):
    tree = pelton.pymc.fit(build(), random_seed=1, target_accept=0.9)
    print(arviz.summary(tree, var_names=["Intercept", "day", "sigma"]))
