"""What a fresh process does for the stores benchmark: loads counts, samples, and says when it was done."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def peak_bytes() -> int:
    """Largest resident memory of this process so far.

    On Linux from VmHWM, which starts afresh with the program: ru_maxrss there is at least the memory of the
    process that started this one.

    >>> peak_bytes() > 2**20
    True
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), None)
        if line is not None:
            return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def smallest_ess(*variables: Any) -> float:
    """Smallest bulk effective sample size of variables [chain, draw], by ArviZ.

    >>> noise = np.random.default_rng(0).normal(size=(4, 500))
    >>> 1500 < smallest_ess(noise, noise**3) < 2500
    True
    """
    from arviz_stats.base.array import array_stats

    stacked = np.stack([np.asarray(values, np.float64) for values in variables])
    return float(np.min(np.asarray(array_stats.ess(stacked, method="bulk"))))


def main(arguments: list[str]) -> None:
    """Samples the counts of a file [2, unit] (successes, trials) and prints one line of JSON.

    The line holds done (seconds since the epoch when the draws, or the summaries, were there), ess and
    peak_bytes.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("counts", type=Path)
    parser.add_argument("--sampler", required=True)
    for name in ("chains", "warmup", "draws", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--summaries", action="store_true")
    asked = parser.parse_args(arguments)

    import pelton

    successes, trials = np.load(asked.counts)
    tree = pelton.sample(
        pelton.PartialPooling(successes, trials, prior=pelton.GammaShapes(0.5, 0.5)),
        sampler=asked.sampler,
        chains=asked.chains,
        warmup=asked.warmup,
        draws=asked.draws,
        seed=asked.seed,
        progress=False,
    )
    if asked.summaries:
        from pelton.models.rates import unit_summary

        unit_summary(tree)
    done = time.time()
    ess = smallest_ess(tree["posterior"]["alpha"], tree["posterior"]["beta"])
    print(json.dumps({"done": done, "ess": ess, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(sys.argv[1:])
