"""pelton's NUTS beside NumPyro's and BlackJAX's on the same posteriors, in one run."""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import pelton
from pelton.benchmarks import record
from pelton.engine.errors import ConvergenceWarning
from pelton.engine.placement import choose_devices, together_on
from pelton.engine.posterior import Posterior, data_size
from pelton.engine.stepping import TILE_PASSES, tile_of

RESULTS = record.CHECKOUT / "benchmarks" / "results" / "nuts.jsonl"
SAMPLERS = ("nuts", "numpyro-nuts", "blackjax-nuts")


def _eight_markets() -> Posterior:
    from pelton.benchmarks.markets import model_of
    from pelton.models.simulate import simulate_markets

    return model_of(simulate_markets(0)).posterior()


def _large_panel() -> Posterior:
    from pelton.benchmarks.markets import model_of
    from pelton.models.simulate import simulate_media

    return model_of(simulate_media(200, 156, 10)).posterior()


def _countries() -> Posterior:
    from pelton.benchmarks.countries import load_panel
    from pelton.models.countries import country_mix

    return country_mix(load_panel()).posterior()


def _surgical() -> Posterior:
    successes = [0, 18, 8, 46, 8, 13, 9, 31, 14, 8, 29, 24]
    trials = [47, 148, 119, 810, 211, 196, 148, 215, 207, 97, 256, 360]
    return pelton.PartialPooling(successes, trials).posterior()


# The eight markets, the country case, 200 geos x 156 weeks x 10 channels, and surgical mortality with both
# hyperparameters by NUTS.
TARGETS: dict[str, Callable[[], Posterior]] = {
    "markets": _eight_markets,
    "countries": _countries,
    "panel": _large_panel,
    "surgical": _surgical,
}


def lock_step(steps: np.ndarray) -> float:
    """Gradients computed over gradients used, of chains that wait for the longest tree at every draw [chain, draw].

    >>> lock_step(np.array([[1, 3], [3, 1]]))
    1.5
    """
    return float(round(len(steps) * int(steps.max(axis=0).sum()) / int(steps.sum()), 3))


def own_pace(steps: np.ndarray) -> float:
    """The same of chains that go on by themselves, and wait at the end of the run alone [chain, draw].

    >>> own_pace(np.array([[1, 3], [3, 1]]))
    1.0
    """
    return float(round(len(steps) * int(steps.sum(axis=1).max()) / int(steps.sum()), 3))


def in_tiles(steps: np.ndarray, tile: int, most: int = TILE_PASSES) -> float:
    """The same of chains in tiles that take turns, in which those that have their draws make way [chain, draw].

    >>> in_tiles(np.array([[1, 3], [3, 1]]), 2), in_tiles(np.array([[1, 1], [1, 1], [9, 9], [1, 1]]), 2, most=2)
    (1.0, 1.667)
    """
    left, computed = steps.sum(axis=1), 0
    while left.max() > 0:
        order = np.argsort(left == 0, kind="stable")
        for begin in range(0, np.count_nonzero(left), tile):
            # Where chains do not divide into tiles the last chain fills the last tile.
            at = order[np.minimum(np.arange(begin, begin + tile), len(left) - 1)]
            made = min(most, left[at].max())
            left[at] = np.maximum(left[at] - made, 0)
            computed += tile * made
    return float(round(computed / int(steps.sum()), 3))


def run(posterior: Posterior, sampler: str, seed: int, **settings: Any) -> dict[str, Any]:
    """One fit and what it cost."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        tree = pelton.sample(posterior, sampler=sampler, seed=seed, progress=False, **settings)
    attrs, steps = tree.attrs, np.asarray(tree["sample_stats"]["n_steps"])
    least = float(attrs["least_ess_bulk"])
    together = together_on(choose_devices("cpu", 1)[0], posterior.dimension + data_size(posterior))
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
        "waste": round(float(attrs["gradients_computed"]) / float(attrs["gradient_evaluations"]), 3),
        "own_pace": own_pace(steps),
        "in_tiles": in_tiles(steps, tile_of(len(steps), together) or len(steps)),
        "lock_step": lock_step(steps),
        "device": attrs["device"],
    }


def main() -> None:
    """`python -m pelton.benchmarks.nuts`: each target by each sampler in turn, a line of the results file each.

    On a GPU: `python -m pelton.benchmarks.nuts --device gpu --targets markets panel --chains 4 64 512 2048 --draws 200
    --warmup 300`.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--targets", nargs="+", choices=sorted(TARGETS), default=["markets", "surgical"])
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--warmup", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--chains", type=int, nargs="+", default=[4])
    parser.add_argument("--vectorized", action="store_true", help="all chains in one program, as on a GPU")
    parser.add_argument("--device", help="cpu or gpu")
    parser.add_argument("--target-accept", type=float, help="of all samplers; by default each one's for the model")
    asked = parser.parse_args()
    settings: dict[str, Any] = {"draws": asked.draws, "warmup": asked.warmup, "device": asked.device}
    if asked.vectorized:
        settings["chain_method"] = "vectorized"
    if asked.target_accept:
        settings["target_accept"] = asked.target_accept
    about = {"machine": record.machine(), "versions": record.versions(), "commit": record.commit(), **settings}
    for name in asked.targets:
        posterior = TARGETS[name]()
        for chains in asked.chains:
            for seed in range(asked.repeats):
                for sampler in asked.samplers:
                    row = {"target": name, "chains": chains} | run(posterior, sampler, seed, chains=chains, **settings)
                    print(json.dumps(row), flush=True)
                    record.append(RESULTS, about | row)


if __name__ == "__main__":
    main()
