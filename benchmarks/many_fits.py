"""Many small hierarchies: `sample_many` against a Python loop over `sample`, on the same tables.

    python -m pelton.benchmarks.many_fits [--fits 1000] [--units 200] [--looped 10] [--results FILE]

Every table has so many stores, trials uniform between 20 and 100, rates from Beta(5, 45). The loop is timed on a few
fits after one that compiles, and extrapolated to all; the two take turns. Both are timed with what they return as it
is: trees with rates from the loop, trees that are yet to be made from `sample_many`, so the record has, too, what the
loop takes without rates and judgement, and what it takes to make and judge every tree. Posteriors of the looped fits
are compared in standard errors of both.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from pelton.benchmarks.record import append, commit, machine, versions

# Of each way, in turns; the ratio is the median of the rounds'.
ROUNDS = 5


def tables(fits: int, units: int, seed: int = 0) -> list[Any]:
    """A model of each table."""
    import pelton

    source = np.random.default_rng(seed)
    models = []
    for _ in range(fits):
        trials = source.integers(20, 100, units, endpoint=True)
        models.append(pelton.PartialPooling(source.binomial(trials, source.beta(5, 45, units)), trials))
    return models


def _timed(call: Any) -> tuple[Any, float, float]:
    """What it returns, seconds on the clock, and seconds of the processor's cores."""
    began, busy = time.perf_counter(), time.process_time()
    found = call()
    return found, time.perf_counter() - began, time.process_time() - busy


def z_score(one: np.ndarray, other: np.ndarray) -> float:
    """Difference of means in standard errors of independent draws [chain, draw], the effective ones counted."""
    from arviz_stats.base import array_stats  # pyright: ignore[reportPrivateImportUsage]

    errors = np.array([array_stats.mcse(draws, method="mean") for draws in (one, other)], dtype=float)
    return float((one.mean() - other.mean()) / np.sqrt((errors**2).sum()))


def measure(fits: int, units: int, looped: int) -> dict[str, Any]:
    """Seconds of both, and how far their posteriors are apart."""
    import pelton
    from pelton.engine.convergence import summary  # noqa: F401  loaded before the clock starts

    models = tables(fits, units)
    _, first, _ = _timed(lambda: pelton.sample_many(models, progress=False))
    # Shapes differ from table to table, and each compiles once.
    for model in models[:looped]:
        pelton.sample(model, seed=1, progress=False)
    posteriors = [model.posterior() for model in models[:looped]]
    rounds = []
    found: Any = None
    trees: Any = None
    # In turns, for the machine is not always as fast.
    for seed in range(1, ROUNDS + 1):
        # What the last round found is let go first: nobody holds five times the draws.
        del found, trees
        found, *many = _timed(lambda seed=seed: pelton.sample_many(models, seed=seed, progress=False))
        trees, *loop = _timed(
            lambda seed=seed: [pelton.sample(model, seed=100 + seed, progress=False) for model in models[:looped]]
        )
        bare = _timed(lambda seed=seed: [pelton.sample(one, seed=100 + seed, progress=False) for one in posteriors])[1:]
        rounds.append((many, loop, bare))
    seconds, loop, bare = (statistics.median(one[at][0] for one in rounds) for at in range(3))
    busy, loop_busy = (statistics.median(one[at][1] for one in rounds) for at in range(2))
    ratios = sorted(loop[0] / looped * fits / many[0] for many, loop, _ in rounds)
    table, judging, _ = _timed(found.table)
    made, making, _ = _timed(lambda: found[:looped])
    worst = max(
        abs(z_score(np.asarray(one["posterior"][name]), np.asarray(other["posterior"][name])))
        for one, other in zip(made, trees, strict=True)
        for name in ("logit_mu", "log_kappa", "alpha", "beta")
    )
    return {
        "fits": fits,
        "units": units,
        "looped": looped,
        "seconds": {
            "sample_many": round(seconds, 3),
            "sample_many_cores": round(busy, 3),
            "sample_many_first": round(first, 2),
            "table": round(judging, 2),
            "a_tree": round(making / looped, 4),
            "loop_a_fit": round(loop / looped, 4),
            "loop_a_fit_cores": round(loop_busy / looped, 4),
            "loop_a_fit_without_rates": round(bare / looped, 4),
        },
        "times_faster": [round(one, 1) for one in (statistics.median(ratios), ratios[0], ratios[-1])],
        "times_faster_without_rates": round(bare / looped * fits / seconds, 1),
        "times_faster_all_trees_made": round(loop / looped * fits / (seconds + making / looped * fits), 2),
        "failed": len(found.errors),
        "worst_rhat": round(float(table.rhat.max()), 4),
        "least_ess_bulk": round(float(table.ess_bulk.min()), 0),
        "mean_ess_bulk": round(float(table.ess_bulk.mean()), 0),
        "worst_z": round(worst, 2),
        "comparisons": 4 * looped,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=1000)
    parser.add_argument("--units", type=int, default=200)
    parser.add_argument("--looped", type=int, default=10)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/many_fits.jsonl"))
    asked = parser.parse_args()
    found = measure(asked.fits, asked.units, asked.looped)
    append(asked.results, {"machine": machine(), "versions": versions(), "commit": commit(), **found})
    print(found)


if __name__ == "__main__":
    main()
