"""A media mix model of PyMC-Marketing (geometric adstock, logistic saturation) on simulated weeks.

Run it with `python examples/media_mix.py`; it needs `pip install pelton pymc-marketing`.
"""

import arviz
import numpy as np
import pandas as pd
from pymc_marketing.mmm import MMM, GeometricAdstock, LogisticSaturation

import pelton.pymc

WEEKS = 104


def simulate(seed: int) -> tuple[pd.DataFrame, pd.Series]:
    """Weeks with spend on television and search, a price index, and sales."""
    generator = np.random.default_rng(seed)
    spend = generator.gamma(2.0, 1.0, (WEEKS, 2))
    carried = np.stack([spend[:, 0], spend[:, 1]], axis=1)
    for week in range(1, WEEKS):
        carried[week] = spend[week] + np.array([0.5, 0.2]) * carried[week - 1]
    price = generator.normal(0.0, 1.0, WEEKS)
    saturated = (1 - np.exp(-0.6 * carried)) / (1 + np.exp(-0.6 * carried))
    sales = 5.0 + saturated @ np.array([3.0, 1.5]) - 0.3 * price + generator.normal(0.0, 0.3, WEEKS)
    weeks = pd.date_range("2023-01-02", periods=WEEKS, freq="W-MON")
    frame = pd.DataFrame({"date": weeks, "television": spend[:, 0], "search": spend[:, 1], "price": price})
    return frame, pd.Series(sales, name="sales")


def build() -> MMM:
    """The model, without data."""
    return MMM(
        date_column="date",
        target_column="sales",
        channel_columns=["television", "search"],
        control_columns=["price"],
        adstock=GeometricAdstock(l_max=6),
        saturation=LogisticSaturation(),
    )


if __name__ == "__main__":
    mmm = build()
    # In place of mmm.fit(X, y, random_seed=1):
    pelton.pymc.fit(mmm, *simulate(0), random_seed=1)
    print(arviz.summary(mmm.idata, var_names=["adstock_alpha", "saturation_lam", "saturation_beta"]))
