"""How long customers renew their contracts: PyMC-Marketing's shifted beta-geometric model on two published cohorts.

Run it with `python examples/contracts.py`; it needs `pip install pelton pymc-marketing`.
"""

import arviz
import numpy as np
import pandas as pd
from pymc_marketing.clv import ShiftedBetaGeoModel

import pelton.pymc

# Fader & Hardie 2007, How to project customer retention, table 1: of 1,000 customers, how many are left each year.
LEFT = {
    "regular": [1000, 631, 468, 382, 326, 289, 262, 241],
    "high-end": [1000, 869, 743, 653, 593, 551, 517, 491],
}


def customers() -> pd.DataFrame:
    """One row a customer: the year of the last renewal (recency), the last year that was seen (T), the cohort."""
    rows = []
    for cohort, left in LEFT.items():
        years = len(left)
        lost = -np.diff(left)
        recency = np.concatenate([np.repeat(np.arange(1, years), lost), np.full(left[-1], years)])
        rows.append(pd.DataFrame({"recency": recency, "T": years, "cohort": cohort}))
    return pd.concat(rows, ignore_index=True).rename_axis("customer_id").reset_index()


def build() -> ShiftedBetaGeoModel:
    """The model, without data."""
    return ShiftedBetaGeoModel()


if __name__ == "__main__":
    model = build()
    # In place of model.fit(customers(), random_seed=1):
    pelton.pymc.fit(model, customers(), random_seed=1)
    print(arviz.summary(model.idata, var_names=["alpha", "beta"]))
