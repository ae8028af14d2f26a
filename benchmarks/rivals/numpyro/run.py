"""NumPyro's NUTS on the models as its users write them: plain priors, offsets from the population, adstock by lags."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions.transforms import biject_to
from numpyro.infer import MCMC, NUTS

PACKAGES = ["numpyro", "jax", "jaxlib", "numpy"]
LAGS = 21


def draw(name: str, prior: Any, obs: Any = None) -> Any:
    """numpyro.sample."""
    return numpyro.sample(name, prior, obs=obs)


def _shapes(prior: str) -> tuple[Any, Any]:
    """alpha and beta under one of the priors."""
    if prior == "gamma":
        return draw("alpha", dist.Gamma(0.5, 0.5)), draw("beta", dist.Gamma(0.5, 0.5))
    if prior == "mean_concentration":
        mu = draw("mu", dist.Beta(2.0, 2.0))
        kappa = draw("kappa", dist.Pareto(1.0, 1.5))
        return mu * kappa, (1 - mu) * kappa
    pair = [draw(name, dist.ImproperUniform(dist.constraints.positive, (), ())) for name in ("alpha", "beta")]
    numpyro.factor("hyperprior", -2.5 * jnp.log(pair[0] + pair[1]))
    return pair[0], pair[1]


def rates(prior: str, marginal: bool, successes: Any, trials: Any) -> None:
    """k_i ~ Binomial(n_i, theta_i), theta_i ~ Beta(alpha, beta); or k_i ~ BetaBinomial."""
    alpha, beta = _shapes(prior)
    numpyro.deterministic("logit_mu", jnp.log(alpha / beta))
    numpyro.deterministic("log_kappa", jnp.log(alpha + beta))
    with numpyro.plate("unit", len(successes)):
        if marginal:
            draw("k", dist.BetaBinomial(alpha, beta, trials), obs=successes)
        else:
            theta = draw("theta", dist.Beta(alpha, beta))
            draw("k", dist.Binomial(trials, theta), obs=successes)


def eight_schools(effect: Any, error: Any) -> None:
    """mean ~ Normal(0, 5), between ~ HalfCauchy(5), truth ~ Normal(mean, between), by offsets."""
    mean = draw("mean", dist.Normal(0.0, 5.0))
    between = draw("between", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(effect)):
        offset = draw("offset", dist.Normal(0.0, 1.0))
        truth = numpyro.deterministic("truth", mean + between * offset)
        draw("effect", dist.Normal(truth, error), obs=effect)


def radon(county: Any, floor: Any, log_radon: Any, counties: int) -> None:
    """Intercepts by county about a common mean, by offsets."""
    mean = draw("mean", dist.Normal(0.0, 3.0))
    spread = draw("spread", dist.HalfNormal(1.0))
    slope = draw("slope", dist.Normal(0.0, 2.0))
    noise = draw("noise", dist.HalfNormal(2.0))
    with numpyro.plate("county", counties):
        offset = draw("offset", dist.Normal(0.0, 1.0))
    intercept: Any = numpyro.deterministic("intercept", mean + spread * offset)
    draw("log_radon", dist.Normal(intercept[county] + slope * floor, noise), obs=log_radon)


def _by_geo(name: str, prior: Any, sd: float, geos: int, columns: int) -> Any:
    """A parameter by geo and column: offsets from the typical geo on the logarithmic or logistic scale."""
    typical = draw(f"{name}_population", prior.expand((columns,)))
    spread = draw(f"{name}_sd", dist.HalfNormal(sd).expand((columns,)))
    offset = draw(f"{name}_offset", dist.Normal(0.0, 1.0).expand((geos, columns)))
    onto = biject_to(prior.support)
    return numpyro.deterministic(name, onto(onto.inv(typical) + spread * offset))


def media_mix(lags: Any, target: Any, observed: Any, design: Any, baseline: Any, delayed: tuple[bool, ...]) -> None:
    """The media mix of docs/media-mix.md: lags [geo, time, channel, lag], baseline [term, (loc, scale, sd)]."""
    geos, _, channels, window = lags.shape
    late = np.flatnonzero(delayed)
    soon = np.flatnonzero(~np.asarray(delayed))
    lag = jnp.arange(window)
    weights = jnp.zeros((geos, channels, window))
    alpha = jnp.zeros((geos, channels))
    if len(soon):
        geometric = _by_geo("alpha_geometric", dist.Beta(1.0, 3.0), 0.5, geos, len(soon))
        weights = weights.at[:, soon].set(geometric[..., None] ** lag)
        alpha = alpha.at[:, soon].set(geometric)
    if len(late):
        share = _by_geo("alpha_delayed", dist.Beta(2.0, 2.0), 0.5, geos, len(late))
        peak = dist.TruncatedNormal(1.0, 1.5, low=0.0, high=window - 1.0)
        theta = _by_geo("theta", peak, 0.5, geos, len(late))
        weights = weights.at[:, late].set(share[..., None] ** (lag - theta[..., None]) ** 2)
        alpha = alpha.at[:, late].set(share)
    numpyro.deterministic("alpha", alpha)
    weights = weights / weights.sum(-1, keepdims=True)
    half = _by_geo("half_saturation", dist.LogNormal(0.0, 0.7), 0.3, geos, channels)
    slope = _by_geo("slope", dist.LogNormal(0.2, 0.4), 0.2, geos, channels)
    contribution = _by_geo("contribution", dist.LogNormal(np.log(0.05), 1.0), 0.5, geos, channels)
    carried = jnp.einsum("gtcl,gcl->gtc", lags, weights)
    # The power of 0 has no finite derivative by the slope.
    some = carried > 0
    power = jnp.where(some, jnp.where(some, carried, 1.0) ** slope[:, None], 0.0)
    bound = half**slope
    mean = jnp.einsum("gtc,gc->gt", power / (power + bound[:, None]), contribution * (1 + bound))
    terms = design.shape[-1]
    typical = draw("baseline_population", dist.Normal(baseline[:, 0], baseline[:, 1]))
    spread = draw("baseline_sd", dist.HalfNormal(baseline[:, 2]))
    offset = draw("baseline_offset", dist.Normal(0.0, 1.0).expand((geos, terms)))
    coefficient = typical + spread * offset
    numpyro.deterministic("intercept", coefficient[:, 0])
    sigma = draw("sigma", dist.HalfNormal(0.5).expand((geos,)))
    mean = mean + jnp.einsum("gtk,gk->gt", design, coefficient)
    with numpyro.handlers.mask(mask=observed):
        draw("target", dist.Normal(mean, sigma[:, None]), obs=target)


def countries(media: Any, sales: Any) -> None:
    """The countries system written in the obvious way: per country media [week, channel] and sales [week]."""

    coef_lam, sat_lam, base_lam = (draw(name, dist.Exponential(10.0)) for name in ("coef_lam", "sat_lam", "base_lam"))
    car_alpha, car_beta = (draw(name, dist.Exponential(0.01)) for name in ("car_alpha", "car_beta"))
    for country, (spend, target) in enumerate(zip(media, sales, strict=True)):
        mean = draw(f"base_{country}", dist.Exponential(base_lam))
        for channel in range(spend.shape[1]):
            coef = draw(f"coef_{country}_{channel}", dist.Exponential(coef_lam))
            sat = draw(f"sat_{country}_{channel}", dist.Exponential(sat_lam))
            car = draw(f"car_{country}_{channel}", dist.Beta(car_alpha, car_beta))
            carryover = jnp.convolve(spend[:, channel], car ** jnp.arange(LAGS))[: spend.shape[0]]
            mean = mean + coef * (1 - jnp.exp(-sat * carryover))
        noise = draw(f"noise_{country}", dist.Exponential(0.001))
        draw(f"sales_{country}", dist.Normal(mean, noise), obs=target)


def stacked_lags(media: np.ndarray, window: int) -> np.ndarray:
    """Media [geo, time, channel] of 0 to window - 1 weeks before [geo, time, channel, lag]."""
    padded = np.pad(media, ((0, 0), (window - 1, 0), (0, 0)))
    weeks = media.shape[1]
    return np.stack([padded[:, window - 1 - lag : window - 1 - lag + weeks] for lag in range(window)], axis=-1)


def _model(job: dict[str, Any], data: dict[str, np.ndarray]) -> tuple[Callable[..., None], tuple]:
    """The model of the job, and its arguments."""
    prior, marginal = job["settings"].get("prior", ""), job["variant"] == "marginal"
    match job["model"]:
        case "rates":
            return partial(rates, prior, marginal), (data["successes"], data["trials"])
        case "eight_schools":
            return eight_schools, (data["effect"], data["error"])
        case "radon":
            counties = int(data["counties"])
            chosen = (data["county"], data["floor"], data["log_radon"])
            return partial(radon, counties=counties), chosen
        case "media_mix":
            late = tuple(map(bool, data["delayed"]))
            lags = stacked_lags(data["media"], int(data["window"]))
            arrays = (lags, data["target"], data["observed"], data["design"], data["baseline"])
            return partial(media_mix, delayed=late), arrays
        case "countries":
            media, sales = (
                [data[f"{name}_{country}"] for country in range(int(data["countries"]))] for name in ("media", "sales")
            )
            return countries, (media, sales)
    raise ValueError(f"no model {job['model']!r} here")


_KEPT: dict[str, Any] = {}


def fit(job: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    """A chain a thread, as NumPyro's chain_method="parallel" has it, in float64."""
    if not _KEPT:
        numpyro.set_host_device_count(job["chains"])
        numpyro.enable_x64()
        model, arguments = _model(job, data)
        # The same object again, so that a second fit finds its programs compiled.
        _KEPT["arguments"] = arguments
        _KEPT["chain"] = MCMC(
            NUTS(model, target_accept_prob=job["settings"].get("target_accept", 0.8)),
            num_warmup=job["warmup"],
            num_samples=job["draws"],
            num_chains=job["chains"],
            chain_method="parallel",
            progress_bar=False,
        )
    chain: MCMC = _KEPT["chain"]
    began = time.perf_counter()
    chain.warmup(jax.random.key(job["seed"]), *_KEPT["arguments"])
    state = jax.block_until_ready(chain.post_warmup_state)
    warmed = time.perf_counter()
    chain.run(state.rng_key, *_KEPT["arguments"], extra_fields=("num_steps", "diverging"))
    found = jax.block_until_ready(chain.get_samples(group_by_chain=True))
    fields = chain.get_extra_fields(group_by_chain=True)
    return {
        "draws": {name: np.asarray(found[name]) for name in _kept_names(job, found)},
        "warmup": warmed - began,
        "sampling": time.perf_counter() - warmed,
        "gradients": int(np.sum(fields["num_steps"])),
        "divergences": int(np.sum(fields["diverging"])),
    }


def _kept_names(job: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The quantities of interest; of the countries every parameter."""
    return list(found) if job["model"] == "countries" else [name for name in job["quantities"] if name in found]
