"""PyMC-Marketing's media mix on its own example, with its own priors, sampled by nutpie."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import time
from typing import Any

import numpy as np
import pandas as pd
from pymc_marketing.mmm import MMM, GeometricAdstock, LogisticSaturation

PACKAGES = ["pymc-marketing", "pymc", "nutpie", "pytensor", "numba", "numpy"]


def build(data: dict[str, np.ndarray]) -> tuple[MMM, pd.DataFrame, pd.Series]:
    """The model without data, its table, and its target."""
    table = pd.DataFrame(
        {
            "date": pd.to_datetime(data["table.date"]),
            "x1": data["table.x1"],
            "x2": data["table.x2"],
            "trend": data["table.trend"],
        }
    )
    mmm = MMM(
        date_column="date",
        target_column="y",
        channel_columns=["x1", "x2"],
        control_columns=["trend"],
        adstock=GeometricAdstock(l_max=8),
        saturation=LogisticSaturation(),
        yearly_seasonality=2,
    )
    return mmm, table, pd.Series(data["table.y"], name="y")


def fit(job: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    """mmm.fit; what is not sampling counts as compiling."""
    mmm, table, target = build(data)
    began = time.perf_counter()
    tree = mmm.fit(
        table,
        target,
        draws=job["draws"],
        tune=job["warmup"],
        chains=job["chains"],
        random_seed=job["seed"],
        nuts_sampler="nutpie",
        target_accept=job["settings"].get("target_accept", 0.8),
        progressbar=False,
        compute_convergence_checks=False,
    )
    whole = time.perf_counter() - began
    posterior = mmm.idata["posterior"]
    stats = mmm.idata["sample_stats"]
    running = float(posterior.attrs["sampling_time"])
    del tree
    return {
        "draws": {name: posterior[name].values for name in job["quantities"]},
        "compiling": whole - running,
        "gradients": int(stats["n_steps"].sum()),
        "divergences": int(stats["diverging"].sum()),
    }
