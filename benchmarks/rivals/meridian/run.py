"""Meridian on its own example data, with its own priors and defaults."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import time
from typing import Any

import numpy as np
import pandas as pd
from meridian.data import load
from meridian.model import model, spec

PACKAGES = ["google-meridian", "tensorflow", "tf-keras", "tfp-nightly", "tensorflow-probability", "jax", "numpy"]


def _input(data: dict[str, np.ndarray]) -> Any:
    """The table, read as Meridian's guide reads it."""
    table = pd.DataFrame({name.split(".", 1)[1]: values for name, values in data.items() if name.startswith("table.")})
    channels = [name.removesuffix("_impression") for name in table.columns if name.endswith("_impression")]
    columns = load.CoordToColumns(
        time="time",
        geo="geo",
        kpi="conversions",
        revenue_per_kpi="revenue_per_conversion",
        population="population",
        controls=["competitor_activity_score_control", "sentiment_score_control"],
        media=[f"{name}_impression" for name in channels],
        media_spend=[f"{name}_spend" for name in channels],
    )
    loader = load.DataFrameDataLoader(
        df=table,
        kpi_type="non_revenue",
        coord_to_columns=columns,
        media_to_channel={f"{name}_impression": name for name in channels},
        media_spend_to_channel={f"{name}_spend": name for name in channels},
    )
    return loader.load()


def fit(job: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    """sample_posterior; the warm-up is two thirds adaptation and one third burn-in. It does not tell its compiling."""
    began = time.perf_counter()
    fitted = model.Meridian(input_data=_input(data), model_spec=spec.ModelSpec())
    adapt = 2 * job["warmup"] // 3
    fitted.sample_posterior(
        n_chains=job["chains"],
        n_adapt=adapt,
        n_burnin=job["warmup"] - adapt,
        n_keep=job["draws"],
        seed=job["seed"],
    )
    posterior = fitted.inference_data.posterior
    stats = fitted.inference_data.sample_stats
    steps = stats.get("n_steps")
    return {
        "draws": {name: np.asarray(posterior[name].values) for name in job["quantities"]},
        "sampling": time.perf_counter() - began,
        "gradients": None if steps is None else int(np.sum(steps.values)),
        "divergences": int(np.sum(stats["diverging"].values)) if "diverging" in stats else None,
    }
