"""CmdStan, by CmdStanPy: it runs where CmdStan itself has been built beforehand."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cmdstanpy
import numpy as np

PACKAGES = ["cmdstanpy", "numpy"]
# Importing this file fails, and says why, where CmdStan is not installed.
TOOLCHAIN = cmdstanpy.cmdstan_path()
RATES = """
data { int N; array[N] int k; array[N] int n; }
parameters { real<lower=0> alpha; real<lower=0> beta; }
model { alpha ~ gamma(0.5, 0.5); beta ~ gamma(0.5, 0.5); k ~ beta_binomial(n, alpha, beta); }
generated quantities { real logit_mu = log(alpha / beta); real log_kappa = log(alpha + beta); }
"""


def fit(job: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    """The rates integrated out; building the program counts as compiling."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "rates.stan"
        program.write_text(RATES)
        counts = {name: data[key].tolist() for name, key in (("k", "successes"), ("n", "trials"))}
        file = Path(folder) / "data.json"
        file.write_text(json.dumps({"N": len(counts["n"]), **counts}))
        model = cmdstanpy.CmdStanModel(stan_file=str(program))
        built = time.perf_counter()
        drawn = model.sample(
            str(file),
            chains=job["chains"],
            iter_warmup=job["warmup"],
            iter_sampling=job["draws"],
            seed=job["seed"],
            show_progress=False,
        )
        draws = {name: drawn.stan_variable(name).reshape(job["chains"], job["draws"]) for name in job["quantities"]}
    return {"draws": draws, "compiling": built - began, "divergences": int(np.sum(drawn.divergences))}
