"""Data of the suite's cases and their right answers: simulated, published, or read from the cases folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pelton.benchmarks import countries as countries_system
from pelton.benchmarks.quadrature import posterior_moments
from pelton.benchmarks.record import CHECKOUT
from pelton.benchmarks.verdicts import Truth
from pelton.engine.errors import DataError

RESULTS = CHECKOUT / "benchmarks" / "results"
REFERENCES = RESULTS / "references"
SHARED = CHECKOUT.parent / "shared" / "cases"
# With this seed and these trials the 40 stores are those of the reference system, count by count.
SEED, TRIALS = 123, (60, 159)
# Weeks of carryover in the media mixes: pelton's default.
WINDOW = 12


@dataclass(frozen=True)
class Problem:
    """What a case's rivals are given, and what they should find.

    Attributes:
        data: arrays by name, as they go over the boundary.
        truth: by quantity; empty where none is known.
        source: where the data come from.
        reference: how the truth was found.
        settings: of the model, alike for all rivals.
    """

    data: dict[str, np.ndarray]
    truth: Mapping[str, Truth]
    source: str
    reference: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def _shared(name: str) -> Path:
    """A file of the cases folder.

    Raises:
        DataError: it is not there.
    """
    path = SHARED / name
    if not path.exists():
        raise DataError(f"{name} is not at {SHARED}; the case needs it")
    return path


def _exact(name: str) -> dict[str, Truth]:
    """Exact posteriors of the count tables, by quadrature in float64 (references.json)."""
    found = json.loads(_shared("references.json").read_text())[name]
    return {
        key: Truth(np.asarray(found[key]["mean"]), np.asarray(found[key]["sd"])) for key in ("logit_mu", "log_kappa")
    }


def stored(name: str) -> tuple[dict[str, Truth], str]:
    """A case's reference from a long run that was stored, and who made it."""
    path = REFERENCES / f"{name}.json"
    if not path.exists():
        return {}, "none: the rivals are held against nothing"
    found = json.loads(path.read_text())
    return (
        {
            key: Truth(*(np.asarray(value[part]) for part in ("mean", "sd", "mean_error", "sd_error")))
            for key, value in found["quantities"].items()
        },
        found["made_by"],
    )


def stores(count: int) -> Problem:
    """Simulated stores with Beta(2.5, 8) rates."""
    from pelton.models.simulate import simulate_stores

    frame = simulate_stores(count, trials=TRIALS, seed=SEED)
    k, n = frame["conversions"].to_numpy(), frame["impressions"].to_numpy()
    moments = posterior_moments(k, n)
    return Problem(
        {"successes": k, "trials": n},
        {key: Truth(np.asarray(moments.mean[key]), np.asarray(moments.sd[key])) for key in ("logit_mu", "log_kappa")},
        f"simulate_stores({count}, trials={TRIALS}, seed={SEED})",
        "quadrature in float64 (benchmarks/quadrature.py)",
    )


def categories() -> Problem:
    """25 content categories, bundled with the package."""
    from pelton.examples import load

    table = load("categories")
    counts = {"successes": table["clicks"].to_numpy(), "trials": table["impressions"].to_numpy()}
    return Problem(counts, _exact("streamrec_categories"), "example:categories", "quadrature in float64")


def rats() -> Problem:
    """Rat tumours, BDA3 table 5.1."""
    counts = pd.read_csv(_shared("rat_tumors.csv"), comment="#").to_numpy()
    return Problem(
        {"successes": counts[:, 0], "trials": counts[:, 1]},
        _exact("rat_tumors"),
        "Tarone 1982, BDA3 table 5.1",
        "quadrature in float64",
    )


def eight_schools() -> Problem:
    """Rubin 1981, table 1; the truth by quadrature over the between-school sd and the mean, by Gauss on a grid."""
    effect = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    error = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    return Problem(
        {"effect": effect, "error": error},
        _eight_schools_truth(effect, error),
        "Rubin 1981, table 1",
        "quadrature over the between-school sd; the rest is normal",
    )


def _eight_schools_truth(effect: np.ndarray, error: np.ndarray) -> dict[str, Truth]:
    """mean ~ Normal(0, 5) and truth are normal given between ~ HalfCauchy(5), which a fine grid integrates out."""
    # between = 5 tan(u pi / 2), u uniform on (0, 1): the prior itself.
    u = (np.arange(200_000) + 0.5) / 200_000
    between = 5 * np.tan(u * np.pi / 2)
    variance = error**2 + between[:, None] ** 2
    precision = 1 / 25 + (1 / variance).sum(axis=1)
    centre = (effect / variance).sum(axis=1) / precision
    log_weight = (
        -0.5 * np.log(variance).sum(axis=1)
        - 0.5 * (effect**2 / variance).sum(axis=1)
        - 0.5 * np.log(25 * precision)
        + 0.5 * centre**2 * precision
    )
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    share = between[:, None] ** 2 / variance
    # truth_j = share effect_j + (1 - share) mean + noise of variance share error_j^2.
    truth = share * effect + (1 - share) * centre[:, None]
    spread = share * error**2 + (1 - share) ** 2 / precision[:, None]

    def moments(mean: np.ndarray, within: np.ndarray) -> Truth:
        first = np.tensordot(weight, mean, 1)
        return Truth(first, np.sqrt(np.tensordot(weight, within + (mean - first) ** 2, 1)))

    return {
        "mean": moments(centre, 1 / precision),
        "between": moments(between, np.zeros_like(between)),
        "truth": moments(truth, spread),
    }


def radon() -> Problem:
    """Simulated houses as in examples/radon.py."""
    generator = np.random.default_rng(0)
    counties, houses = 60, 600
    county = generator.choice(counties, houses, p=generator.dirichlet(np.full(counties, 1.5)))
    floor = generator.integers(0, 2, houses)
    intercept = generator.normal(1.5, 0.35, counties)
    log_radon = generator.normal(intercept[county] - 0.7 * floor, 0.75)
    truth, made_by = stored("radon")
    return Problem(
        {"county": county, "floor": floor.astype(float), "log_radon": log_radon, "counties": np.asarray(counties)},
        truth,
        "simulated as in examples/radon.py, seed 0",
        made_by,
    )


def _table(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """A table's columns as they go over the boundary: numbers, or texts."""
    return {
        f"table.{name}": frame[name].to_numpy()
        if pd.api.types.is_numeric_dtype(frame[name])
        else np.asarray(frame[name].astype(str), dtype=str)
        for name in map(str, frame.columns)
    }


def _media(name: str, markets: Any, source: str) -> Problem:
    """A media mix over geos: the scaled arrays for rivals, the table itself for pelton."""
    from pelton.benchmarks.markets import model_of

    model = model_of(markets)
    panel, base = model.panel, model.base
    parts = {part.name: part for part in base.parts}
    prior = np.array(
        [
            [float(parts[kind].prior.loc), float(parts[kind].prior.scale), parts[kind].sd]  # pyright: ignore
            for kind in base.kinds
        ]
    )
    delayed = np.asarray(markets.truth["adstock"].sel(channel=list(panel.channels)) == "delayed")
    arrays = {
        "media": panel.media / panel.media_scale[:, None],
        "target": np.where(panel.observed, panel.target, 0.0) / panel.target_scale[:, None],
        "observed": np.asarray(panel.observed),
        "design": base.design,
        "baseline": prior,
        "delayed": delayed,
        "window": np.asarray(WINDOW),
        "media_scale": panel.media_scale,
        "target_scale": panel.target_scale,
    }
    table = _table(markets.frame)
    late = [str(channel) for channel, flag in zip(panel.channels, delayed, strict=True) if flag]
    truth, made_by = stored(name)
    return Problem(arrays | table, truth, source, made_by, {"columns": markets.columns, "delayed": late})


def markets() -> Problem:
    """The eight markets of the reference system, seed 0."""
    from pelton.models.simulate import simulate_markets

    return _media("markets", simulate_markets(0), "pelton simulate markets --seed 0")


def geos(count: int, weeks: int, channels: int) -> Problem:
    """A simulated panel of equally long geos."""
    from pelton.models.simulate import simulate_media

    source = f"simulate_media({count}, {weeks}, {channels})"
    return _media(f"geos-{count}", simulate_media(count, weeks, channels), source)


def countries() -> Problem:
    """The countries system's weeks, and the reference of benchmarks/countries_reference."""
    _shared("bhmmm.csv")
    panel = countries_system.load_panel()
    arrays: dict[str, np.ndarray] = {"countries": np.asarray(len(panel.geos))}
    for at in range(len(panel.geos)):
        inside = panel.inside[at]
        arrays[f"media_{at}"], arrays[f"sales_{at}"] = panel.media[at, inside], panel.target[at, inside]
    found = json.loads((RESULTS / "countries_reference.json").read_text())
    truth = {
        name: Truth(*(np.asarray(value[part][at]) for at in (0, 1) for part in ("mean", "sd")))
        for name, value in found["parameters"].items()
    }
    return Problem(arrays, truth, "Garve/datasets, bhmmm.csv", "a Metropolis chain in C++ of its own")


def country_parameters(draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The plain model's parameters on the scales of the reference: logarithms, and log(-log car)."""
    found = {}
    for name, values in draws.items():
        kind, *place = name.rsplit("_", 2) if name.startswith(("coef_", "sat_", "car_")) else name.rsplit("_", 1)
        if name in ("coef_lam", "sat_lam", "base_lam", "car_alpha", "car_beta"):
            found[f"log {name}"] = np.log(values)
            continue
        country = countries_system.COUNTRIES[int(place[0])]
        where = ",".join([country, *(countries_system.MEDIA[int(channel)] for channel in place[1:])])
        if kind == "car":
            held = np.clip(values, np.finfo(float).tiny, 1 - np.finfo(float).epsneg)
            found[f"log -log car[{where}]"] = np.log(-np.log(held))
        else:
            found[f"log {kind}[{where}]"] = np.log(values)
    return found


def meridian() -> Problem:
    """Meridian's simulated geo data."""
    truth, made_by = stored("meridian-geo")
    return Problem(
        _table(pd.read_csv(_shared("meridian_geo_media.csv"))), truth, "google/meridian, simulated_data/csv", made_by
    )


def pymc_marketing() -> Problem:
    """PyMC-Marketing's ROAS example, two channels."""
    truth, made_by = stored("pymc-marketing")
    return Problem(_table(pd.read_csv(_shared("pymc_marketing_roas.csv"))), truth, "pymc-marketing, data/", made_by)
