"""Stan, by PyStan: its NUTS on models in its own language, compiled by the C++ compiler."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import time
from typing import Any

import numpy as np
import stan

PACKAGES = ["pystan", "httpstan", "numpy"]

PRIORS = {
    "gamma": ("real<lower=0> alpha; real<lower=0> beta;", "", "alpha ~ gamma(0.5, 0.5); beta ~ gamma(0.5, 0.5);"),
    "mean_concentration": (
        "real<lower=0, upper=1> mu; real<lower=1> kappa;",
        "real alpha = mu * kappa; real beta = (1 - mu) * kappa;",
        "mu ~ beta(2, 2); kappa ~ pareto(1, 1.5);",
    ),
    "bda": ("real<lower=0> alpha; real<lower=0> beta;", "", "target += -2.5 * log(alpha + beta);"),
}
# The rates integrated out, as the user's guide advises.
RATES = """
data {{ int N; array[N] int k; array[N] int n; }}
parameters {{ {parameters} }}
transformed parameters {{ {transformed} }}
model {{ {prior} k ~ beta_binomial(n, alpha, beta); }}
generated quantities {{ real logit_mu = log(alpha / beta); real log_kappa = log(alpha + beta); }}
"""
SCHOOLS = """
data { int J; vector[J] effect; vector[J] error; }
parameters { real mean_; real<lower=0> between; vector[J] shift; }
transformed parameters { vector[J] truth = mean_ + between * shift; }
model { mean_ ~ normal(0, 5); between ~ cauchy(0, 5); shift ~ normal(0, 1); effect ~ normal(truth, error); }
"""
RADON = """
data { int N; int C; array[N] int county; vector[N] level; vector[N] log_radon; }
parameters { real mean_; real<lower=0> spread; vector[C] shift; real slope; real<lower=0> noise; }
model {
  mean_ ~ normal(0, 3); spread ~ normal(0, 1); shift ~ normal(0, 1); slope ~ normal(0, 2); noise ~ normal(0, 2);
  log_radon ~ normal((mean_ + spread * shift)[county] + slope * level, noise);
}
"""


def _model(job: dict[str, Any], data: dict[str, np.ndarray]) -> tuple[str, dict[str, Any]]:
    """The program and its data."""
    match job["model"]:
        case "rates":
            parameters, transformed, prior = PRIORS[job["settings"]["prior"]]
            program = RATES.format(parameters=parameters, transformed=transformed, prior=prior)
            k, n = ([int(value) for value in data[name]] for name in ("successes", "trials"))
            return program, {"N": len(n), "k": k, "n": n}
        case "eight_schools":
            return SCHOOLS, {
                "J": len(data["effect"]),
                "effect": data["effect"].tolist(),
                "error": data["error"].tolist(),
            }
        case "radon":
            return RADON, {
                "N": len(data["county"]),
                "C": int(data["counties"]),
                "county": (data["county"] + 1).tolist(),
                "level": data["floor"].tolist(),
                "log_radon": data["log_radon"].tolist(),
            }
    raise ValueError(f"no model {job['model']!r} here")


def fit(job: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    """A chain a process, as many at once as there are cores; building the program counts as compiling."""
    program, of = _model(job, data)
    began = time.perf_counter()
    posterior = stan.build(program, data=of, random_seed=job["seed"])
    built = time.perf_counter()
    drawn = posterior.sample(
        num_chains=job["chains"],
        num_warmup=job["warmup"],
        num_samples=job["draws"],
        delta=job["settings"].get("target_accept", 0.8),
    )
    sampled = time.perf_counter()

    def by_chain(name: str) -> np.ndarray:
        # PyStan joins draws and chains on the last axis, chains within draws.
        values = np.asarray(drawn[name])
        whole = values.reshape(*values.shape[:-1], job["draws"], job["chains"])
        return np.moveaxis(whole, (-1, -2), (0, 1)).reshape(job["chains"], job["draws"], *values.shape[:-1])

    draws = {}
    for name in job["quantities"]:
        values = by_chain("mean_" if name == "mean" else name)
        draws[name] = values[..., 0] if values.ndim > 2 and values.shape[2] == 1 else values
    return {
        "draws": draws,
        "compiling": built - began,
        "sampling": sampled - built,
        "gradients": int(by_chain("n_leapfrog__").sum()),
        "divergences": int(by_chain("divergent__").sum()),
    }
