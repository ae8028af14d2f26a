"""BlackJAX's NUTS after its window adaptation, all chains vmapped, on densities written by hand in JAX."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import time
from collections.abc import Callable
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln
from jax.scipy.stats import cauchy, norm

PACKAGES = ["blackjax", "jax", "jaxlib", "numpy"]


def rates(prior: str, x: dict[str, Any], k: Any, n: Any) -> Any:
    """The rates integrated out; x holds logit mu and the log of kappa (above 1, where the prior starts there)."""
    mu, rest = jax.nn.sigmoid(x["logit_mu"]), jax.nn.sigmoid(-x["logit_mu"])
    kappa = jnp.exp(x["log_kappa"])
    a, b = mu * kappa, rest * kappa
    if prior == "gamma":
        log_prior = 0.5 * jnp.log(a * b) - 0.5 * (a + b)
    elif prior == "mean_concentration":
        # log kappa ~ Exponential(1.5), as the exponential of its logarithm u: d log kappa = log kappa du.
        log_prior = 2 * jnp.log(mu * rest) - 1.5 * x["log_kappa"] + jnp.log(x["log_kappa"])
    else:
        log_prior = jnp.log(a * b) - 2.5 * x["log_kappa"]
    return log_prior + jnp.sum(betaln(a + k, b + n - k) - betaln(a, b))


def eight_schools(x: dict[str, Any], effect: Any, error: Any) -> Any:
    """Offsets from the mean, and the logarithm of the between-school sd."""
    between = jnp.exp(x["log_between"])
    return (
        norm.logpdf(x["mean"], 0.0, 5.0)
        + cauchy.logpdf(between, 0.0, 5.0)
        + x["log_between"]
        + norm.logpdf(x["offset"]).sum()
        + norm.logpdf(effect, x["mean"] + between * x["offset"], error).sum()
    )


def _posed(
    job: dict[str, Any], data: dict[str, np.ndarray], random: np.random.Generator
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Callable[[Any], dict[str, Any]]]:
    """Log density, its data, starts of all chains, and the quantities of its draws."""

    def start(*shape: int) -> np.ndarray:
        return random.uniform(-1, 1, (job["chains"], *shape))

    if job["model"] == "rates":
        prior = job["settings"]["prior"]
        late = prior == "mean_concentration"

        def natural(x: Any) -> Any:
            return {"logit_mu": x["logit_mu"], "log_kappa": jnp.exp(x["log_kappa"]) if late else x["log_kappa"]}

        def density(x: Any, k: Any, n: Any) -> Any:
            return rates(prior, natural(x), k, n)

        arrays = (jnp.asarray(data["successes"], float), jnp.asarray(data["trials"], float))
        return density, arrays, {"logit_mu": start(), "log_kappa": start() + (0 if late else 2)}, natural
    if job["model"] == "eight_schools":

        def schools(x: Any) -> Any:
            between = jnp.exp(x["log_between"])
            truth = x["mean"][..., None] + between[..., None] * x["offset"]
            return {"mean": x["mean"], "between": between, "truth": truth}

        arrays = (jnp.asarray(data["effect"]), jnp.asarray(data["error"]))
        return eight_schools, arrays, {"mean": start(), "log_between": start(), "offset": start(8)}, schools
    raise ValueError(f"no model {job['model']!r} here")


_KEPT: dict[str, Any] = {}


def _programs(job: dict[str, Any], density: Callable[..., Any]) -> tuple[Any, Any]:
    """Warm-up and draws of all chains, compiled once."""
    target = job["settings"].get("target_accept", 0.8)

    @jax.jit
    def warm(keys: Any, positions: Any, arrays: Any) -> Any:
        def one(key: Any, position: Any) -> Any:
            adaptation: Any = blackjax.window_adaptation(
                blackjax.nuts, lambda x: density(x, *arrays), target_acceptance_rate=target
            )
            (state, parameters), _ = adaptation.run(key, position, job["warmup"])
            return state, parameters

        return jax.vmap(one)(keys, positions)

    @jax.jit
    def draw(keys: Any, states: Any, parameters: Any, arrays: Any) -> Any:
        def one(key: Any, state: Any, tuned: Any) -> Any:
            step = blackjax.nuts(lambda x: density(x, *arrays), **tuned).step

            def body(state: Any, key: Any) -> Any:
                state, info = step(key, state)
                return state, (state.position, info.num_integration_steps, info.is_divergent)

            return jax.lax.scan(body, state, jax.random.split(key, job["draws"]))[1]

        return jax.vmap(one)(keys, states, parameters)

    return warm, draw


def fit(job: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    """In float64, all chains in one program."""
    jax.config.update("jax_enable_x64", True)
    density, arrays, starts, quantities = _posed(job, data, np.random.default_rng(job["seed"]))
    if not _KEPT:
        # The same programs again, so that a second fit finds them compiled; the density has no data in it.
        _KEPT["programs"] = _programs(job, density)
    warm, draw = _KEPT["programs"]
    first, second = jax.random.split(jax.random.key(job["seed"]))
    began = time.perf_counter()
    states, parameters = jax.block_until_ready(warm(jax.random.split(first, job["chains"]), starts, arrays))
    warmed = time.perf_counter()
    positions, steps, divergent = draw(jax.random.split(second, job["chains"]), states, parameters, arrays)
    found = {name: np.asarray(value) for name, value in quantities(positions).items()}
    return {
        "draws": found,
        "warmup": warmed - began,
        "sampling": time.perf_counter() - warmed,
        "gradients": int(np.sum(steps)),
        "divergences": int(np.sum(divergent)),
    }
