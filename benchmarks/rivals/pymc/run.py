"""PyMC with nutpie on the models as its users write them."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import time
from typing import Any

import numpy as np
import nutpie
import pymc as pm
import pytensor.tensor as pt

PACKAGES = ["pymc", "nutpie", "pytensor", "numba", "numpy"]
LAGS = 21


def _shapes(prior: str) -> tuple[Any, Any]:
    """alpha and beta under one of the priors."""
    if prior == "gamma":
        return pm.Gamma("alpha", 0.5, 0.5), pm.Gamma("beta", 0.5, 0.5)
    if prior == "mean_concentration":
        mu, kappa = pm.Beta("mu", 2, 2), pm.Pareto("kappa", alpha=1.5, m=1.0)
        return mu * kappa, (1 - mu) * kappa
    shapes = pm.HalfFlat("shapes", shape=2, initval=[2.0, 10.0])
    pm.Potential("hyperprior", -2.5 * pt.log(pt.sum(shapes)))
    return shapes[0], shapes[1]


def rates(prior: str, data: dict[str, np.ndarray]) -> None:
    """k_i ~ Binomial(n_i, theta_i), theta_i ~ Beta(alpha, beta)."""
    alpha, beta = _shapes(prior)
    pm.Deterministic("logit_mu", pt.log(alpha / beta))
    pm.Deterministic("log_kappa", pt.log(alpha + beta))
    theta = pm.Beta("theta", alpha, beta, shape=len(data["trials"]))
    pm.Binomial("k", n=data["trials"], p=theta, observed=data["successes"])


def eight_schools(data: dict[str, np.ndarray]) -> None:
    """mean ~ Normal(0, 5), between ~ HalfCauchy(5), truth ~ Normal(mean, between), by offsets."""
    mean, between = pm.Normal("mean", 0, 5), pm.HalfCauchy("between", 5)
    offset = pm.Normal("offset", shape=len(data["effect"]))
    truth = pm.Deterministic("truth", mean + between * offset)
    pm.Normal("effect", truth, data["error"], observed=data["effect"])


def radon(data: dict[str, np.ndarray]) -> None:
    """Intercepts by county about a common mean, by offsets."""
    mean, spread = pm.Normal("mean", 0, 3), pm.HalfNormal("spread", 1)
    offset = pm.Normal("offset", shape=int(data["counties"]))
    slope, noise = pm.Normal("slope", 0, 2), pm.HalfNormal("noise", 2)
    mu = (mean + spread * offset)[data["county"]] + slope * data["floor"]
    pm.Normal("log_radon", mu, noise, observed=data["log_radon"])


def _by_geo(name: str, prior: Any, sd: float, geos: int, columns: int, low: float = 0.0, high: float = np.inf) -> Any:
    """A parameter by geo and column: offsets from the typical geo on the logarithmic or logistic scale."""
    typical = prior(f"{name}_population", columns)
    spread = pm.HalfNormal(f"{name}_sd", sd, shape=columns)
    offset = pm.Normal(f"{name}_offset", shape=(geos, columns))
    if np.isinf(high):
        return pm.Deterministic(name, pt.exp(pt.log(typical) + spread * offset))
    share = (typical - low) / (high - low)
    moved = pt.log(share) - pt.log1p(-share) + spread * offset
    return pm.Deterministic(name, low + (high - low) * pm.math.sigmoid(moved))


def media_mix(data: dict[str, np.ndarray]) -> None:
    """The media mix of pelton's docs/media-mix.md, adstock by lags."""
    window, late = int(data["window"]), np.flatnonzero(data["delayed"])
    soon = np.flatnonzero(~data["delayed"])
    media, baseline = data["media"], data["baseline"]
    geos, weeks, channels = media.shape
    padded = np.pad(media, ((0, 0), (window - 1, 0), (0, 0)))
    lags = np.stack([padded[:, window - 1 - lag : window - 1 - lag + weeks] for lag in range(window)], axis=-1)
    lag = np.arange(window, dtype=float)
    alpha, weights = pt.zeros((geos, channels)), pt.zeros((geos, channels, window))
    if len(soon):
        geometric = _by_geo("alpha_geometric", lambda n, c: pm.Beta(n, 1, 3, shape=c), 0.5, geos, len(soon), 0.0, 1.0)
        alpha = pt.set_subtensor(alpha[:, soon], geometric)
        weights = pt.set_subtensor(weights[:, soon], geometric[..., None] ** lag)
    if len(late):
        share = _by_geo("alpha_delayed", lambda n, c: pm.Beta(n, 2, 2, shape=c), 0.5, geos, len(late), 0.0, 1.0)

        def peak(name: str, columns: int) -> Any:
            return pm.TruncatedNormal(name, 1.0, 1.5, lower=0.0, upper=window - 1.0, shape=columns)

        theta = _by_geo("theta", peak, 0.5, geos, len(late), 0.0, window - 1.0)
        alpha = pt.set_subtensor(alpha[:, late], share)
        weights = pt.set_subtensor(weights[:, late], share[..., None] ** (lag - theta[..., None]) ** 2)
    pm.Deterministic("alpha", alpha)
    weights = weights / weights.sum(-1, keepdims=True)

    def lognormal(loc: float, scale: float) -> Any:
        return lambda name, columns: pm.LogNormal(name, loc, scale, shape=columns)

    half = _by_geo("half_saturation", lognormal(0.0, 0.7), 0.3, geos, channels)
    slope = _by_geo("slope", lognormal(0.2, 0.4), 0.2, geos, channels)
    contribution = _by_geo("contribution", lognormal(np.log(0.05), 1.0), 0.5, geos, channels)
    carried = (lags * weights[:, None]).sum(-1)
    some = pt.gt(carried, 0)
    power = pt.switch(some, pt.switch(some, carried, 1.0) ** slope[:, None], 0.0)
    bound = half**slope
    mean = (power / (power + bound[:, None]) * (contribution * (1 + bound))[:, None]).sum(-1)
    terms = baseline.shape[0]
    typical = pm.Normal("baseline_population", baseline[:, 0], baseline[:, 1], shape=terms)
    spread = pm.HalfNormal("baseline_sd", baseline[:, 2], shape=terms)
    coefficient = typical + spread * pm.Normal("baseline_offset", shape=(geos, terms))
    pm.Deterministic("intercept", coefficient[:, 0])
    sigma = pm.HalfNormal("sigma", 0.5, shape=geos)
    mean = mean + (data["design"] * coefficient[:, None]).sum(-1)
    geo, week = np.nonzero(data["observed"])
    pm.Normal("target", mean[geo, week], sigma[geo], observed=data["target"][geo, week])


def countries(data: dict[str, np.ndarray]) -> None:
    """The countries system written in the obvious way."""
    coef_lam, sat_lam, base_lam = (pm.Exponential(name, 10.0) for name in ("coef_lam", "sat_lam", "base_lam"))
    car_alpha, car_beta = (pm.Exponential(name, 0.01) for name in ("car_alpha", "car_beta"))
    for country in range(int(data["countries"])):
        media, target = data[f"media_{country}"], data[f"sales_{country}"]
        padded = np.pad(media, ((LAGS - 1, 0), (0, 0)))
        mean = pm.Exponential(f"base_{country}", base_lam)
        for channel in range(media.shape[1]):
            coef = pm.Exponential(f"coef_{country}_{channel}", coef_lam)
            sat = pm.Exponential(f"sat_{country}_{channel}", sat_lam)
            car = pm.Beta(f"car_{country}_{channel}", car_alpha, car_beta)
            lags = np.stack([padded[LAGS - 1 - lag : len(padded) - lag, channel] for lag in range(LAGS)], axis=-1)
            carryover = pt.dot(lags, car ** np.arange(LAGS, dtype=float))
            mean = mean + coef * (1 - pt.exp(-sat * carryover))
        noise = pm.Exponential(f"noise_{country}", 0.001)
        pm.Normal(f"sales_{country}", mean, noise, observed=target)


def _compiled(job: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    """The model, compiled by nutpie."""
    with pm.Model() as model:
        match job["model"]:
            case "rates":
                rates(job["settings"]["prior"], data)
            case "eight_schools":
                eight_schools(data)
            case "radon":
                radon(data)
            case "media_mix":
                media_mix(data)
            case "countries":
                countries(data)
            case other:
                raise ValueError(f"no model {other!r} here")
    names = [one.name for one in model.unobserved_RVs]
    kept = [one.name for one in model.free_RVs] if job["model"] == "countries" else job["quantities"]
    return nutpie.compile_pymc_model(model, var_names=[name for name in kept if name in names])


_KEPT: dict[str, Any] = {}


def fit(job: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    """nutpie on the compiled model, which a second fit finds at hand."""
    began = time.perf_counter()
    if not _KEPT:
        _KEPT["compiled"] = _compiled(job, data)
    compiled = time.perf_counter()
    tree = nutpie.sample(
        _KEPT["compiled"],
        draws=job["draws"],
        tune=job["warmup"],
        chains=job["chains"],
        seed=job["seed"],
        target_accept=job["settings"].get("target_accept", 0.8),
        save_warmup=False,
        progress_bar=False,
    )
    stats = tree["sample_stats"]
    return {
        "draws": {str(name): tree["posterior"][name].values for name in tree["posterior"].data_vars},
        "compiling": compiled - began,
        "gradients": int(stats["n_steps"].sum()),
        "divergences": int(stats["diverging"].sum()),
    }
