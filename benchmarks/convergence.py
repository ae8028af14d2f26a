"""Times of R-hat and effective sample sizes: ArviZ a parameter at a time against our compiled programs.

`python -m pelton.benchmarks.convergence 4 1000 2000` prints one line of JSON for draws of that shape. The process must
be fresh, for it times the first call too; PELTON_CACHE_DIR="" keeps the cache on disk out of it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def main(arguments: list[str]) -> None:
    """Times both on AR(1) chains of correlation 0.5 in float64, after checking that they agree."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name in ("chains", "draws", "parameters"):
        parser.add_argument(name, type=int)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args(arguments)

    import jax
    from arviz_stats.base.array import array_stats

    from pelton.benchmarks.record import machine
    from pelton.engine.compilation import Compiler
    from pelton.engine.convergence import summary
    from pelton.engine.precision import using

    draws = np.random.default_rng(0).normal(size=(asked.chains, asked.draws, asked.parameters))
    for i in range(1, asked.draws):
        draws[:, i] = 0.5 * draws[:, i - 1] + np.sqrt(0.75) * draws[:, i]
    compiler = Compiler()

    def ours() -> dict[str, Any]:
        return jax.block_until_ready(summary(draws, errors=False, compiler=compiler))

    def theirs() -> dict[str, Any]:
        stacked = np.moveaxis(draws, 2, 0)
        return {
            "rhat": array_stats.rhat(stacked, method="rank"),
            "ess_bulk": array_stats.ess(stacked, method="bulk"),
            "ess_tail": array_stats.ess(stacked, method="tail", prob=(0.05, 0.95)),
        }

    def timed(function: Callable[[], Any]) -> tuple[Any, float]:
        started = time.perf_counter()
        found = function()
        return found, time.perf_counter() - started

    with using("float64"):
        jax.block_until_ready(jax.numpy.zeros(1))
        found, cold = timed(ours)
        wanted, first = timed(theirs)
        for name, values in wanted.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-10, err_msg=name)
        warm, arviz = [], [first]
        for _ in range(asked.repeats):
            warm.append(timed(ours)[1])
            arviz.append(timed(theirs)[1])
    record = {
        "shape": draws.shape,
        "cold": cold,
        "compiling": compiler.seconds,
        "warm": min(warm),
        "arviz": min(arviz),
        **machine(),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main(sys.argv[1:])
