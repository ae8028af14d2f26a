"""Writes the countries system's reference: the summaries of a chain's draws, with Monte Carlo standard errors.

python summarise.py DRAWS.bin REFERENCE.json --made-by "the command that drew them"
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from pelton.benchmarks.countries import COUNTRIES, MEDIA, SMOOTH_NOISE, summary

# A row of the chain's draws: five hyperparameters, then per country 11 parameters and a log likelihood.
HYPERS = ("coef_lam", "sat_lam", "base_lam", "car_alpha", "car_beta")
WIDTH = 12
PIECES = 8  # the one chain is read as this many
BATCHES = 80  # of batch means, for the shares' standard errors
# Below this log saturation a channel works in proportion.
PROPORTIONAL = -5


def named(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Draws [piece, draw] of every parameter by the names of pelton.benchmarks.countries.parameters."""
    found = {f"log {name}": rows[..., i] for i, name in enumerate(HYPERS)}
    for g, country in enumerate(COUNTRIES):
        first = len(HYPERS) + WIDTH * g
        found[f"log base[{country}]"] = rows[..., first]
        found[f"log noise[{country}]"] = rows[..., first + 1]
        for k, medium in enumerate(MEDIA):
            coef, sat, logit = (rows[..., first + 2 + 3 * k + i] for i in range(3))
            found[f"log coef[{country},{medium}]"] = coef
            found[f"log sat[{country},{medium}]"] = sat
            found[f"log -log car[{country},{medium}]"] = np.log(np.logaddexp(0, -logit))
    return found


def share(held: np.ndarray) -> list[float]:
    """The share of draws where it held, and its standard error by batch means."""
    batches = held.reshape(BATCHES, -1).mean(1)
    return [float(batches.mean()), float(batches.std(ddof=1) / np.sqrt(BATCHES))]


def mode_shares(draws: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Shares of the Swiss mode with little noise, and per country of every set of channels working in proportion."""
    shares = {f"Swiss noise below {SMOOTH_NOISE:.0f}": share(draws["log noise[Switzerland]"] < np.log(SMOOTH_NOISE))}
    for country in COUNTRIES:
        code = sum((draws[f"log sat[{country},{m}]"] < PROPORTIONAL) * 2**k for k, m in enumerate(MEDIA))
        for value in range(2 ** len(MEDIA)):
            which = "+".join(m for k, m in enumerate(MEDIA) if value >> k & 1) or "none"
            shares[f"{country}: in proportion {which}"] = share(np.asarray(code == value))
    return shares


def main() -> None:
    """Summarises the draws, writes the reference and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("draws", type=Path, help="OUT of a chain of all three countries")
    parser.add_argument("reference", type=Path, help="where the reference goes")
    parser.add_argument("--made-by", required=True, help="how the draws were made, kept with them")
    asked = parser.parse_args()
    rows = np.fromfile(asked.draws).reshape(-1, len(HYPERS) + WIDTH * len(COUNTRIES))
    # Pieces and batches of equal length: what is left over at the end is dropped.
    count = len(rows) // BATCHES * BATCHES
    draws = named(rows[:count].reshape(PIECES, -1, rows.shape[1]))
    reference: dict[str, Any] = {
        "made_by": asked.made_by,
        "draws": count,
        "mode_shares": mode_shares(draws),
        "parameters": {name: summary(values) for name, values in draws.items()},
    }
    asked.reference.write_text(json.dumps(reference, indent=1))
    for name, (value, error) in reference["mode_shares"].items():
        if value > 0:
            print(f"{name:50s} {value:.4f} +- {error:.4f}")
    for name, found in reference["parameters"].items():
        (mean, error), sd = found["mean"], found["sd"][0]
        print(f"{name:32s} mean {mean:8.3f} +- {error:.3f} sd {sd:6.3f} ess {found['ess']:.0f}")
    from arviz_stats.base.array import array_stats

    stats: Any = array_stats
    print("largest rhat", max(float(stats.rhat(values)) for values in draws.values()))


if __name__ == "__main__":
    main()
