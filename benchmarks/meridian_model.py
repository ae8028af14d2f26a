"""Meridian's default model of a geo panel with spend, written for NumPyro: its priors, its scales, its parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from jaxtyping import Array

from pelton.kernels.adstock import geometric

# Of ModelSpec(): max_lag of 8, and the priors of PriorDistribution().
WINDOW = 9
# Sd of levels, weeks and the controls' means.
BASELINE_SD = 5.0
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
    controls = (controls - controls.mean((0, 1))) / controls.std((0, 1))
    # The largest geo is the one that the others are compared with.
    level = np.delete(np.eye(geos), population.argmax(), axis=1)
    full = design(level, controls)
    in_week = full.sum(axis=0)
    return {
        "media": media,
        "kpi": (kpi - kpi.mean()) / kpi.std(),
        "level": level,
        "controls": controls,
        "gram": np.einsum("gtk,gtl->kl", full, full),
        "gram_of_weeks": in_week.T @ in_week,
        "spend": np.array([column(f"{name}_spend").sum() for name in channels]),
        # What a unit of the scaled KPI is worth, by geo and week.
        "worth": column("revenue_per_conversion") * population[:, None] * kpi.std(),
    }


def design(level: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Columns [geo, week, effect]: levels of all geos but the largest, controls, and each control of each geo alone.

    >>> design(np.eye(3)[:, 1:], np.ones((3, 4, 2))).shape
    (3, 4, 10)
    """
    geos, weeks, several = controls.shape
    own = np.einsum("gh,gtc->gtch", np.eye(geos), controls).reshape(geos, weeks, several * geos)
    return np.concatenate([np.repeat(level[:, None], weeks, axis=1), controls, own], axis=-1)


def log_marginal(residual: Array, sigma: Array, spreads: Array, data: Any) -> Array:
    """log p of residual[g,t] = week_t + design[g,t] . b + Normal(0, sigma), weeks and b integrated out.

    The design is that of `design`; week_t ~ Normal(0, 5) and b_k ~ Normal(0, spreads_k). With
    c = 25 / (sigma^2 + 25 geos) and the product
    <v, w> = (sum_gt v w - c sum_t (sum_g v) (sum_g w)) / sigma^2, by the matrix inversion and determinant lemmas,

        -2 log p = <r, r> - h' M^-1 h + log |M|
                   + weeks ((geos - 1) log sigma^2 + log(sigma^2 + 25 geos) + geos log 2 pi)
        M = I + S <D, D> S,   h = S <D, r>,   S = diag(spreads)

    Args:
        residual: [geo, week].
        sigma: of the noise.
        spreads: [effect].
        data: of `scaled`.
    """
    geos, weeks = residual.shape
    square = sigma**2
    share = BASELINE_SD**2 / (square + BASELINE_SD**2 * geos)
    of_week = residual.sum(axis=0)
    inner = (jnp.sum(residual**2) - share * jnp.sum(of_week**2)) / square
    # The product with the design, whose columns of one geo are zero elsewhere.
    centred = residual - share * of_week
    own = jnp.einsum("gtc,gt->cg", data["controls"], centred, precision=jax.lax.Precision.HIGHEST)
    cross = jnp.concatenate([data["level"].T @ centred.sum(axis=1), own.sum(axis=1), own.ravel()]) / square
    gram = (data["gram"] - share * data["gram_of_weeks"]) / square
    factor = jnp.linalg.cholesky(jnp.eye(len(spreads)) + spreads[:, None] * gram * spreads)
    solved = jax.scipy.linalg.solve_triangular(factor, spreads * cross, lower=True)
    determinant = 2 * jnp.sum(jnp.log(jnp.diag(factor)))
    constant = (geos - 1) * jnp.log(square) + jnp.log(square + BASELINE_SD**2 * geos) + geos * np.log(2 * np.pi)
    return -0.5 * (inner - jnp.sum(solved**2) + determinant + weeks * constant)


def model(data: dict[str, Any]) -> None:
    """kpi[g,t] ~ Normal(tau_g + mu_t + sum_m beta_gm hill(adstock(media))[g,t,m] + sum_c gamma_gc controls, sigma).

    beta_gm = exp(beta_m + eta_m z_gm), beta_m solved from the return roi_m ~ LogNormal(0.2, 0.9); a knot each week.
    Geos' levels, weeks and controls are normal given the rest, and integrated out: what is left is the posterior of the
    media parameters and sigma.

    Source: google-meridian 2.1, meridian/model/posterior_sampler.py, for the model; the code is its own.
    """
    media, kpi = data["media"], data["kpi"]
    geos, _, channels = media.shape

    def draw(name: str, prior: Any, *shape: int) -> Any:
        return numpyro.sample(name, prior.expand(shape) if shape else prior)

    sigma = draw("sigma", dist.HalfNormal(5.0))
    alpha = draw("alpha_m", dist.Uniform(0.0, 1.0), channels)
    half = draw("ec_m", dist.TruncatedNormal(0.8, 0.8, low=0.1, high=10.0), channels)
    eta = draw("eta_m", dist.HalfNormal(1.0), channels)
    roi = draw("roi_m", dist.LogNormal(0.2, 0.9), channels)
    deviation = draw("beta_gm_dev", dist.Normal(0.0, 1.0), geos, channels)
    spread = draw("xi_c", dist.HalfNormal(5.0), len(CONTROLS))
    carried = geometric(media, alpha, WINDOW)
    response = carried / (carried + half)
    own = jnp.exp(eta * deviation)
    brought = jnp.einsum("gtm,gt,gm->m", response, data["worth"], own, precision=jax.lax.Precision.HIGHEST)
    coefficient = roi * data["spend"] / brought * own
    residual = kpi - jnp.einsum("gtm,gm->gt", response, coefficient)
    common = jnp.full(geos - 1 + len(CONTROLS), BASELINE_SD)
    numpyro.factor("kpi", log_marginal(residual, sigma, jnp.concatenate([common, jnp.repeat(spread, geos)]), data))
