"""The countries system: the reference's summaries, and runs of pelton held against them."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pelton.benchmarks.record import CHECKOUT, append, commit, machine, versions

RESULTS = Path(__file__).resolve().parent / "results"
REFERENCE = RESULTS / "countries_reference.json"
DATA = CHECKOUT.parent / "shared" / "cases" / "bhmmm.csv"
MEDIA = ("TV", "Radio", "Banners")
COUNTRIES = ("Germany", "Austria", "Switzerland")
# Weeks whose noise is below this lie in the Swiss mode where television works in proportion.
SMOOTH_NOISE = 900.0


def load_panel(path: Path = DATA) -> Any:
    """The case's panel."""
    import pandas as pd

    from pelton.models.panel import Panel

    table = pd.read_csv(path)
    return Panel.from_frame(table, time="Date", geo="Country", target="Sales", media=list(MEDIA))


def parameters(tree: Any) -> dict[str, np.ndarray]:
    """Draws [chain, draw] of every parameter by name, on the logarithmic scale; carryovers as log(-log car)."""
    posterior = tree["posterior"]
    found = {}
    for name in ("coef_lam", "sat_lam", "base_lam", "car_alpha", "car_beta"):
        found[f"log {name}"] = np.log(np.asarray(posterior[name]))
    for country in posterior["geo"].values:
        for name in ("base", "noise"):
            found[f"log {name}[{country}]"] = np.log(np.asarray(posterior[name].sel(geo=country)))
        for channel in posterior["channel"].values:
            at = {"geo": country, "channel": channel}
            for name in ("coef", "sat"):
                found[f"log {name}[{country},{channel}]"] = np.log(np.asarray(posterior[name].sel(at)))
            car = np.clip(np.asarray(posterior["car"].sel(at)), np.finfo(float).tiny, 1 - np.finfo(float).epsneg)
            found[f"log -log car[{country},{channel}]"] = np.log(-np.log(car))
    return found


def summary(draws: np.ndarray) -> dict[str, Any]:
    """mean, sd and quantiles of draws [chain, draw], each with its Monte Carlo standard error."""
    from arviz_stats.base.array import array_stats

    stats: Any = array_stats
    points = (0.05, 0.25, 0.5, 0.75, 0.95)
    return {
        "mean": [float(draws.mean()), float(stats.mcse(draws, method="mean"))],
        "sd": [float(draws.std(ddof=1)), float(stats.mcse(draws, method="sd"))],
        "quantiles": {
            str(p): [float(np.quantile(draws, p)), float(stats.mcse(draws, method="quantile", prob=p))] for p in points
        },
        "ess": float(stats.ess(draws, method="bulk")),
    }


def z_scores(found: dict[str, Any], truth: dict[str, Any]) -> dict[str, float]:
    """(found - truth) / sqrt(se^2 + se^2) of two summaries' mean, sd and quantiles.

    >>> one = {"mean": [1.0, 0.3], "sd": [2.0, 0.1], "quantiles": {"0.5": [1.0, 0.3]}}
    >>> two = {"mean": [0.0, 0.4], "sd": [2.0, 0.1], "quantiles": {"0.5": [0.5, 0.4]}}
    >>> z_scores(one, two)
    {'mean': 2.0, 'sd': 0.0, '0.5': 1.0}
    """
    pairs = {"mean": (found["mean"], truth["mean"]), "sd": (found["sd"], truth["sd"])}
    pairs |= {p: (value, truth["quantiles"][p]) for p, value in found["quantiles"].items()}
    return {name: float((a[0] - b[0]) / np.hypot(a[1], b[1])) for name, (a, b) in pairs.items()}


def run(seed: int, draws: int) -> dict[str, Any]:
    """One run of that many draws a chain: its diagnostics, mode shares and largest z-score against the reference."""
    from arviz_stats.base.array import array_stats

    import pelton
    from pelton.models.countries import country_mix

    began = time.perf_counter()
    tree: Any = pelton.sample(country_mix(load_panel()), draws=draws, seed=seed, progress=False)
    seconds = time.perf_counter() - began
    found = parameters(tree)
    stacked = np.stack(list(found.values()))
    rhat, ess = (np.asarray(getattr(array_stats, name)(stacked)) for name in ("rhat", "ess"))
    record = {
        "system": "countries",
        "seed": seed,
        "draws": draws,
        "seconds": seconds,
        "rhat": float(rhat.max()),
        "rhat_of": list(found)[int(rhat.argmax())],
        "ess": float(ess.min()),
        "ess_of": list(found)[int(ess.argmin())],
        "divergences": int(tree["sample_stats"]["diverging"].sum()),
        "smooth_share": float(np.mean(np.asarray(tree["posterior"]["noise"].sel(geo="Switzerland")) < SMOOTH_NOISE)),
        **{key: tree.attrs[key] for key in ("seconds_compiling", "seconds_warmup", "seconds_sampling")},
    }
    if REFERENCE.exists():
        truth = json.loads(REFERENCE.read_text())["parameters"]
        scores = {
            f"{quantity} of {name}": z
            for name, values in found.items()
            for quantity, z in z_scores(summary(values), truth[name]).items()
        }
        worst = max(scores, key=lambda name: abs(scores[name]))
        record |= {"z": scores[worst], "z_of": worst}
    return record


def carryovers(seed: int) -> dict[str, Any]:
    """94% intervals of the Swiss carryovers, from all countries together and from Switzerland alone."""
    import pelton
    from pelton.models.countries import country_mix

    panel = load_panel()
    trees = {"together": country_mix(panel), "alone": country_mix(panel.subset(["Switzerland"]))}
    found: dict[str, Any] = {}
    for name, model in trees.items():
        tree: Any = pelton.sample(model, seed=seed, progress=False)
        car = tree["posterior"]["car"].sel(geo="Switzerland")
        found[name] = {
            str(channel): [float(end) for end in np.quantile(np.asarray(car.sel(channel=channel)), (0.03, 0.97))]
            for channel in car["channel"].values
        }
    widths = {name: {c: high - low for c, (low, high) in ends.items()} for name, ends in found.items()}
    found["width_ratio"] = {c: widths["together"][c] / widths["alone"][c] for c in widths["alone"]}
    return found


def main(arguments: list[str]) -> None:
    """Runs seeds, prints a line each, and appends them to benchmarks/results/countries.jsonl."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--draws", type=int, default=1500)
    parser.add_argument("--carryovers", action="store_true", help="compare Switzerland with and without the others")
    asked = parser.parse_args(arguments)
    made = {"commit": commit(), "machine": machine(), "versions": versions()}
    if asked.carryovers:
        record = {"system": "countries, Swiss carryovers", "seed": asked.first} | carryovers(asked.first)
        print(json.dumps(record))
        append(RESULTS / "countries.jsonl", record | made)
        return
    for seed in range(asked.first, asked.first + asked.seeds):
        record = run(seed, asked.draws)
        print(json.dumps(record), flush=True)
        append(RESULTS / "countries.jsonl", record | made)


if __name__ == "__main__":
    main(sys.argv[1:])
