"""How a run scales over host devices: chains one way, shards of the data the other.

    python -m pelton.benchmarks.scaling [--devices 1 2 4] [--units 20000] [--results FILE]

Each mesh is a process of its own, for JAX fixes its devices when it starts. The model is a regression of so many
units with one covariate, four chains of vectorised NUTS of a few draws; of each mesh the record has seconds without
compiling and gradients a second. Host devices share the machine's cores: past these there is nothing to gain.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pelton.benchmarks.record import append, commit, machine, versions

CHAINS = 4
# Seconds after which a process is given up.
LIMIT = 120


def measure(devices: int, axis: str, units: int, draws: int) -> dict[str, Any]:
    """Chains, or the data, over all devices, in this process."""
    import warnings

    import pelton
    from pelton.engine.errors import ConvergenceWarning

    source = np.random.default_rng(0)
    covariate = source.normal(size=units)
    trials = source.integers(20, 90, units)
    successes = source.binomial(trials, 1 / (1 + np.exp(1.5 - 0.4 * covariate)))
    model = pelton.PartialPooling(successes, trials, covariates=covariate)
    mesh = {"none": pelton.Mesh(), "chains": pelton.Mesh(chains=devices), "data": pelton.Mesh(data=devices)}[axis]
    with warnings.catch_warnings():
        # A few draws are not for their posterior.
        warnings.simplefilter("ignore", ConvergenceWarning)
        settings: dict[str, Any] = {"sampler": "nuts", "chains": CHAINS, "warmup": draws, "draws": draws}
        attrs = pelton.sample(model.posterior(), mesh=mesh, progress=False, **settings).attrs
    seconds = float(attrs["seconds_warmup"]) + float(attrs["seconds_sampling"])
    return {
        "devices": devices,
        "axis": axis,
        "units": units,
        "seconds": round(seconds, 3),
        "gradients_per_second": round(float(attrs["gradients_computed"]) / seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--units", type=int, default=20_000)
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--here", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--axis", default="none", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/scaling.jsonl"))
    asked = parser.parse_args()
    if asked.here is not None:
        print(json.dumps(measure(asked.here, asked.axis, asked.units, asked.draws)))
        return
    setting = {"machine": machine(), "versions": versions(), "commit": commit()}
    for devices in asked.devices:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        for axis in ("chains", "data") if devices > 1 else ("none",):
            command = [sys.executable, "-m", "pelton.benchmarks.scaling", "--here", str(devices), "--axis", axis]
            command += ["--units", str(asked.units), "--draws", str(asked.draws)]
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    timeout=LIMIT,
                    check=True,
                    env=os.environ | {"XLA_FLAGS": flags.strip()},
                )
            except subprocess.TimeoutExpired:
                record = {"devices": devices, "axis": axis, "units": asked.units, "given_up_after": LIMIT}
            else:
                record = json.loads(done.stdout.splitlines()[-1])
            append(asked.results, {**setting, **record})
            print(record)


if __name__ == "__main__":
    main()
