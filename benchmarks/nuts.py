"""pelton's NUTS beside NumPyro's and BlackJAX's on the same posteriors, in one run."""

import argparse
import json
import time
import warnings
from typing import Any

import numpy as np

import pelton
from pelton.benchmarks import record
from pelton.engine.chains import CHUNK_DRAWS
from pelton.engine.errors import ConvergenceWarning
from pelton.engine.posterior import Posterior

RESULTS = record.CHECKOUT / "benchmarks" / "results" / "nuts.jsonl"
SAMPLERS = ("nuts", "numpyro-nuts", "blackjax-nuts")


def targets() -> dict[str, Posterior]:
    """The eight markets, and surgical mortality with both hyperparameters by NUTS."""
    from pelton.benchmarks.markets import model_of
    from pelton.models.simulate import simulate_markets

    successes = [0, 18, 8, 46, 8, 13, 9, 31, 14, 8, 29, 24]
    trials = [47, 148, 119, 810, 211, 196, 148, 215, 207, 97, 256, 360]
    return {
        "eight markets": model_of(simulate_markets(0)).posterior(),
        "surgical": pelton.PartialPooling(successes, trials).posterior(),
    }


def waste(steps: np.ndarray, chunk: int = CHUNK_DRAWS) -> dict[str, float]:
    """Gradients computed over gradients used by draws, of vectorised chains with steps [chain, draw].

    In lock step every draw costs each chain the longest tree of all; as a state machine a chunk of draws costs each
    chain what the chain with most steps in the chunk has.

    >>> waste(np.array([[1, 3], [3, 1]]))
    {'lock_step': 1.5, 'state_machine': 1.0}
    """
    ends = range(0, steps.shape[1], chunk)
    longest = sum(int(steps[:, at : at + chunk].sum(axis=1).max()) for at in ends)
    used, chains = int(steps.sum()), steps.shape[0]
    return {
        "lock_step": float(round(chains * int(steps.max(axis=0).sum()) / used, 3)),
        "state_machine": float(round(chains * longest / used, 3)),
    }


def run(posterior: Posterior, sampler: str, seed: int, **settings: Any) -> dict[str, Any]:
    """One fit and what it cost."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        tree = pelton.sample(posterior, sampler=sampler, seed=seed, progress=False, **settings)
    attrs, steps = tree.attrs, np.asarray(tree["sample_stats"]["n_steps"])
    least = float(attrs["least_ess_bulk"])
    return {
        "sampler": sampler,
        "seed": seed,
        "ess": round(least, 1),
        "rhat": round(float(attrs["worst_rhat"]), 4),
        "divergences": int(attrs["divergences"]),
        "steps": int(steps.sum()),
        "steps_per_ess": round(float(steps.sum()) / least, 1),
        "ess_per_second": round(least / float(attrs["seconds_sampling"]), 2),
        "ess_per_second_with_warmup": round(least / float(attrs["seconds_sampling"] + attrs["seconds_warmup"]), 2),
        "seconds": round(time.perf_counter() - began, 1),
        **{name: round(float(attrs[name]), 2) for name in ("seconds_compiling", "seconds_warmup", "seconds_sampling")},
        **({"waste": waste(steps)} if settings.get("chain_method") == "vectorized" else {}),
    }


def main() -> None:
    """`python -m pelton.benchmarks.nuts`: each target by each sampler in turn, a line of the results file each."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--vectorized", type=int, default=0, help="this many chains in one program instead of threads")
    parser.add_argument("--target-accept", type=float, help="of all samplers; by default each one's for the model")
    asked = parser.parse_args()
    settings: dict[str, Any] = {"draws": asked.draws}
    if asked.vectorized:
        settings |= {"chains": asked.vectorized, "chain_method": "vectorized"}
    if asked.target_accept:
        settings["target_accept"] = asked.target_accept
    about = {"machine": record.machine(), "versions": record.versions(), "commit": record.commit(), **settings}
    for name, posterior in targets().items():
        for seed in range(asked.repeats):
            for sampler in SAMPLERS:
                row = {"target": name} | run(posterior, sampler, seed, **settings)
                print(json.dumps(row), flush=True)
                record.append(RESULTS, row | about)


if __name__ == "__main__":
    main()
