"""Meridian's default model of a geo panel with spend, written for NumPyro: its priors, its scales, its parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd

# Of ModelSpec(): max_lag of 8, and the priors of PriorDistribution().
WINDOW = 9
CONTROLS = ("competitor_activity_score_control", "sentiment_score_control")


def scaled(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The arrays that Meridian works on, from its example's long table.

    KPI and media are taken by head, media in units of the channel's median over weeks with any, the KPI and the
    controls standardised over all geos and weeks.

    >>> row = {name: [1.0, 2.0] for name in (*CONTROLS, "A_impression", "A_spend", "conversions")}
    >>> row |= {"geo": ["x", "x"], "time": ["2021-01-04", "2021-01-11"], "population": [2.0, 2.0]}
    >>> found = scaled(pd.DataFrame(row | {"revenue_per_conversion": [1.0, 1.0]}))
    >>> found["media"].shape, found["kpi"].round(6).tolist()
    ((1, 2, 1), [[-1.0, 1.0]])
    """
    table = table.sort_values(["geo", "time"])
    geos = len(set(table["geo"]))

    def column(name: str) -> np.ndarray:
        return np.asarray(table[name], float).reshape(geos, -1)

    channels = [name.removesuffix("_impression") for name in table.columns if name.endswith("_impression")]
    population = column("population")[:, 0]
    by_head = np.stack([column(f"{name}_impression") for name in channels], -1) / population[:, None, None]
    media = by_head / np.array([np.median(one[one > 0]) for one in np.moveaxis(by_head, -1, 0)])
    kpi = column("conversions") / population[:, None]
    controls = np.stack([column(name) for name in CONTROLS], -1)
    return {
        "media": media,
        "kpi": (kpi - kpi.mean()) / kpi.std(),
        "controls": (controls - controls.mean((0, 1))) / controls.std((0, 1)),
        "spend": np.array([column(f"{name}_spend").sum() for name in channels]),
        # What a unit of the scaled KPI is worth, by geo and week.
        "worth": column("revenue_per_conversion") * population[:, None] * kpi.std(),
        "largest": np.asarray(population.argmax()),
    }


def model(data: dict[str, Any]) -> None:
    """kpi[g,t] ~ Normal(tau_g + mu_t + sum_m beta_gm hill(adstock(media))[g,t,m] + sum_c gamma_gc controls, sigma).

    beta_gm = exp(beta_m + eta_m z_gm), beta_m solved from the return roi_m ~ LogNormal(0.2, 0.9); a knot each week.

    Source: google-meridian 2.1, meridian/model/posterior_sampler.py, for the model; the code is its own.
    """
    media, controls = data["media"], data["controls"]
    geos, weeks, channels = media.shape

    def draw(name: str, prior: Any, *shape: int) -> Any:
        return numpyro.sample(name, prior.expand(shape) if shape else prior)

    week = draw("mu_t", dist.Normal(0.0, 5.0), weeks)
    sigma = draw("sigma", dist.HalfNormal(5.0))
    others = draw("tau_g_excl_baseline", dist.Normal(0.0, 5.0), geos - 1)
    # The largest geo is the one that the others are compared with.
    place = jnp.arange(geos)
    level = jnp.where(place == data["largest"], 0.0, others[jnp.clip(place - (place > data["largest"]), 0, geos - 2)])
    alpha = draw("alpha_m", dist.Uniform(0.0, 1.0), channels)
    half = draw("ec_m", dist.TruncatedNormal(0.8, 0.8, low=0.1, high=10.0), channels)
    eta = draw("eta_m", dist.HalfNormal(1.0), channels)
    roi = draw("roi_m", dist.LogNormal(0.2, 0.9), channels)
    deviation = draw("beta_gm_dev", dist.Normal(0.0, 1.0), geos, channels)
    weights = alpha[:, None] ** jnp.arange(WINDOW)
    weights = weights / weights.sum(-1, keepdims=True)
    carried = sum(weights[:, lag] * jnp.pad(media, ((0, 0), (lag, 0), (0, 0)))[:, :weeks] for lag in range(WINDOW))
    response = carried / (carried + half)
    own = jnp.exp(eta * deviation)
    brought = jnp.einsum("gtm,gt,gm->m", response, data["worth"], own, precision=jax.lax.Precision.HIGHEST)
    coefficient = roi * data["spend"] / brought * own
    common = draw("gamma_c", dist.Normal(0.0, 5.0), controls.shape[-1])
    spread = draw("xi_c", dist.HalfNormal(5.0), controls.shape[-1])
    offset = draw("gamma_gc_dev", dist.Normal(0.0, 1.0), geos, controls.shape[-1])
    mean = (
        level[:, None]
        + week
        + jnp.einsum("gtm,gm->gt", response, coefficient)
        + jnp.einsum("gtc,gc->gt", controls, common + spread * offset)
    )
    numpyro.sample("kpi", dist.Normal(mean, sigma), obs=data["kpi"])
