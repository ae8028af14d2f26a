"""Reference system 4: does the hierarchical fit of the eight markets recover the truth, and what pooling buys."""

import argparse
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import pelton
from pelton.benchmarks import record
from pelton.engine.errors import ConvergenceWarning
from pelton.models.adstock import Delayed
from pelton.models.attribution import roas
from pelton.models.leave_one_out import compare_loo
from pelton.models.media_checks import recovery
from pelton.models.media_mix import MediaMix
from pelton.models.panel import Panel
from pelton.models.simulate import SimulatedMarkets, simulate_markets

RESULTS = record.CHECKOUT / "benchmarks" / "results" / "markets.jsonl"
QUANTITIES = ("alpha", "theta", "half_saturation", "slope", "coef", "contribution", "sigma", "roas")
PROBABILITY = 0.94
# Markets with half a year of data: what pooling is for.
SHORT = ("PL", "SE")


def model_of(markets: SimulatedMarkets, pooling: str = "hierarchical") -> MediaMix:
    """The model that the simulation follows."""
    panel = Panel.from_frame(markets.frame, **markets.columns)
    delayed = {str(name): Delayed() for name in markets.truth["channel"].values[markets.truth["adstock"] == "delayed"]}
    return MediaMix(panel, pooling=pooling, adstock=delayed, trend="linear", seasonality=2)


def truth_of(markets: SimulatedMarkets, model: MediaMix) -> dict[str, xr.DataArray]:
    """True values under the names of the tree; contributions in units of the realised mean target, as the fit's are."""
    truth = {name: markets.truth[name] for name in QUANTITIES if name in markets.truth}
    scale = xr.DataArray(model.panel.target_scale, {"geo": list(model.panel.geos)}, "geo")
    return truth | {"contribution": truth["contribution"] / scale}


def fit(seed: int, pooling: str = "hierarchical", **settings: Any) -> tuple[xr.DataTree, dict[str, Any]]:
    """Fits one simulated data set and measures it.

    Returns:
        The tree, and seed, pooling, seconds, R-hat, ESS, divergences, coverage by quantity, and the root mean squared
        error of log ROAS over the channels of the short markets.
    """
    markets = simulate_markets(seed)
    model = model_of(markets, pooling)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        tree = pelton.sample(model, seed=seed, progress=False, **settings)
    seconds = time.perf_counter() - began
    truth = truth_of(markets, model)
    covered: Any = recovery(tree, truth, PROBABILITY)["covered"]
    returns = roas(tree).sel(geo=list(SHORT)).mean(("chain", "draw"))
    wrong = np.log(returns) - np.log(truth["roas"].sel(geo=list(SHORT), channel=returns["channel"]))
    return tree, {
        "seed": seed,
        "pooling": pooling,
        "sampler": str(tree.attrs["sampler"]),
        "seconds": round(seconds, 1),
        "rhat": round(float(tree.attrs["worst_rhat"]), 4),
        "ess_bulk": round(float(tree.attrs["least_ess_bulk"]), 1),
        "ess_tail": round(float(tree.attrs["least_ess_tail"]), 1),
        "divergences": int(tree.attrs["divergences"]),
        "coverage": {name: [int(covered.loc[name].sum()), len(covered.loc[name])] for name in truth},
        "roas_error_short": round(float(np.sqrt((wrong**2).mean())), 4),
    }


def compare(seed: int, **settings: Any) -> dict[str, Any]:
    """Pooled, unpooled and hierarchical fits of one data set: elpd by PSIS-LOO and errors in the short markets."""
    trees, rows = {}, {}
    for pooling in ("pooled", "unpooled", "hierarchical"):
        trees[pooling], rows[pooling] = fit(seed, pooling, groups=("log_likelihood",), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = compare_loo(trees)
    # The best model has nothing to be worse than.
    ranks = table.reset_index(names="pooling").astype(object)
    return {"seed": seed, "fits": rows, "loo": ranks.where(ranks.notna(), None).to_dict("records")}


def total_coverage(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Share covered by quantity and in all, over fits."""
    names = [name for name in QUANTITIES if name in rows[0]["coverage"]]
    pairs = {name: np.sum([row["coverage"][name] for row in rows], axis=0) for name in names}
    return {name: round(float(hit / size), 4) for name, (hit, size) in pairs.items()} | {
        "all": round(
            float(np.sum([pair[0] for pair in pairs.values()]) / np.sum([pair[1] for pair in pairs.values()])), 4
        )
    }


def main() -> None:
    """`python -m pelton.benchmarks.markets`: the fits, one line of the results file each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--count", type=int, default=30, help="how many data sets")
    parser.add_argument("--compare", action="store_true", help="pooled, unpooled and hierarchical fits of each")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--warmup", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    settings = {"draws": chosen.draws, "warmup": chosen.warmup}
    about = {"machine": record.machine(), "commit": record.commit(), **settings}
    rows = []
    for seed in range(chosen.first, chosen.first + chosen.count):
        row = compare(seed, **settings) if chosen.compare else fit(seed, **settings)[1]
        record.append(chosen.out, {**row, **about})
        print(row, flush=True)
        rows.append(row)
    if not chosen.compare:
        print("coverage of 94% intervals:", total_coverage(rows))
        print("largest R-hat:", max(row["rhat"] for row in rows))


if __name__ == "__main__":
    main()
