"""What a run on disk costs: seconds and peak memory of many draws with a store, and the same work in memory.

    python -m pelton.benchmarks.streaming [--draws 1000000] [--parameters 500] [--store run.zarr]

Each run is a process of its own. The target is a correlated normal distribution, whose means and sds are compared with
the draws' in Monte Carlo standard errors.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RHO = 0.5


def _run(draws: int, parameters: int, chains: int, store: str | None) -> dict[str, Any]:
    """One run in this process."""
    import jax.numpy as jnp

    import pelton
    from pelton.engine.diagnostics import table

    def logdensity(position: Any, data: Any) -> Any:
        # x_i given x_{i-1} ~ Normal(rho x_{i-1}, 1 - rho^2): every sd is 1.
        steps = (position[1:] - RHO * position[:-1]) / jnp.sqrt(1 - RHO**2)
        return -0.5 * (position[0] ** 2 + jnp.sum(steps**2)) + 0.0 * data

    def named(position: Any, data: Any) -> dict[str, Any]:
        del data
        return {"x": position}

    def start(key: Any, data: Any) -> Any:
        import jax

        del data
        return jax.random.normal(key, (parameters,))

    posterior = pelton.Posterior(parameters, logdensity, named, start, data=np.float64(0.0))
    began = time.perf_counter()
    tree = pelton.sample(
        posterior, sampler="nuts", metric="diagonal", chains=chains, warmup=500, draws=draws // chains, store=store
    )
    seconds = time.perf_counter() - began
    rows = table(tree)
    z = np.abs(np.concatenate([rows["mean"] / rows["mcse_mean"], (rows["sd"] - 1) / rows["mcse_sd"]]))
    return {
        "draws": draws,
        "parameters": parameters,
        "chains": chains,
        "store": store is not None,
        "seconds": seconds,
        "seconds_sampling": tree.attrs["seconds_sampling"],
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "stored_gigabytes": 0.0 if store is None else _size(store) / 2**30,
        "least_ess_bulk": tree.attrs["least_ess_bulk"],
        "worst_rhat": tree.attrs["worst_rhat"],
        "largest_z": float(z.max()),
        "versions": tree.attrs["versions"],
    }


def _size(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def main() -> None:
    """Runs the sizes asked for, with and without a store, and prints a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--parameters", type=int, default=500)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--only", choices=("store", "memory"), help="one of the two")
    parser.add_argument("--here", metavar="STORE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here is not None:
        found = _run(options.draws[0], options.parameters, options.chains, options.here or None)
        print(json.dumps(found))
        return
    for draws in options.draws:
        for kind in ("store", "memory") if options.only is None else (options.only,):
            with tempfile.TemporaryDirectory() as folder:
                store = f"{folder}/run.zarr" if kind == "store" else ""
                command = [sys.executable, "-m", "pelton.benchmarks.streaming", "--here", store]
                sizes = ["--draws", draws, "--parameters", options.parameters, "--chains", options.chains]
                subprocess.run([*command, *map(str, sizes)], check=True)


if __name__ == "__main__":
    main()
