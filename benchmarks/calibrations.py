"""Simulation-based calibration of every model by its default sampler: the ranks, their pictures, and the table.

    python -m pelton.benchmarks.calibrations [NAME ...] [--sets 200]

draws parameters from each model's prior and data from the parameters with NumPy, fits, and ranks the truth among the
draws (`pelton.calibrate`). It writes docs/calibration/NAME.png and the rows of the table in docs/calibration.md; the
slow suite asks of the same cases that no quantity's ranks are far from uniform.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import scipy.stats
from scipy.special import betaln, expit

import pelton
from pelton.benchmarks.record import CHECKOUT, append, commit, machine, read, versions
from pelton.benchmarks.reliability import between
from pelton.engine.calibration import BAND, Calibration, calibrate
from pelton.engine.errors import ArgumentError
from pelton.models.countries import country_mix
from pelton.models.simulate import simulate_media
from pelton.report.ranks import rank_picture

PAGE = CHECKOUT / "docs" / "calibration.md"
PICTURES = CHECKOUT / "docs" / "calibration"
RESULTS = CHECKOUT / "benchmarks" / "results" / "calibrations.jsonl"

type Values = Mapping[str, np.ndarray]
type Simulated = tuple[Any, Values]


@dataclass(frozen=True)
class Case:
    """A model whose calibration is tried.

    Attributes:
        what: it is, in words.
        simulate: a data set's model, and its truth.
        log_likelihood: of values given the model's data, in plain NumPy and SciPy.
        settings: of `pelton.sample`.
        sets: data sets, unless told otherwise.
    """

    what: str
    simulate: Callable[[np.random.Generator], Simulated]
    log_likelihood: Callable[[Values, Any], float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    sets: int = 200


def run(case: Case, sets: int | None = None, seed: int = 0) -> Calibration:
    """The ranks of a case."""
    quantities = {"log-likelihood": case.log_likelihood}
    return calibrate(case.simulate, sets=sets or case.sets, quantities=quantities, seed=seed, **case.settings)


# -- Rates

TRIALS = np.array([5, 10, 20, 40, 80, 160] * 2)
REGION = np.repeat(np.arange(4), 10)
REGION_TRIALS = np.tile([10, 15, 20, 30, 40], 8)
COVARIATES = np.random.default_rng(4).normal(size=(len(REGION), 2))
STANDARD = (COVARIATES - COVARIATES.mean(0)) / COVARIATES.std(0)
REGION_PRIOR = pelton.MeanConcentration(mean=dist.Beta(4.0, 8.0), concentration=dist.LogNormal(3.0, 0.5))


def _rates(source: np.random.Generator, logit_mean: Any, log_concentration: Any, size: Any) -> np.ndarray:
    concentration = np.exp(log_concentration)
    rates = source.beta(expit(logit_mean) * concentration, expit(-np.asarray(logit_mean)) * concentration, size)
    return np.clip(rates, 1e-12, 1 - 1e-12)


def population(prior: Any, draw: Callable[[np.random.Generator], tuple[float, float]]) -> Callable[..., Simulated]:
    """Twelve stores of one population, whose mean and concentration come from `draw`."""

    def simulate(source: np.random.Generator) -> Simulated:
        mean, concentration = draw(source)
        rate = _rates(source, np.log(mean / (1 - mean)), np.log(concentration), len(TRIALS))
        model = pelton.PartialPooling(source.binomial(TRIALS, rate), TRIALS, prior=prior)
        return model, {"mu": np.asarray(mean), "kappa": np.asarray(concentration), "rate": rate}

    return simulate


def binomial_of_rates(values: Values, model: Any) -> float:
    """Log-likelihood of the units' counts given their rates."""
    rate = np.clip(values["rate"], 1e-12, 1 - 1e-7)
    return float(scipy.stats.binom.logpmf(model.counts.successes, model.counts.trials, rate).sum())


def regions(groups: bool, covariates: bool) -> Callable[[np.random.Generator], Simulated]:
    """Forty stores in four regions, or with two covariates, or both."""

    def simulate(source: np.random.Generator) -> Simulated:
        mean = source.beta(4.0, 8.0)
        centre, concentration = np.log(mean / (1 - mean)), source.normal(3.0, 0.5)
        truth = {}
        by_unit: list[Any] = [np.full(len(REGION), centre), np.full(len(REGION), concentration)]
        if groups:
            spreads = np.abs(source.normal(size=2))
            levels = [
                location + sd * source.normal(size=4)
                for location, sd in zip((centre, concentration), spreads, strict=True)
            ]
            truth |= {"population_logit_mu": centre, "population_log_kappa": concentration}
            truth |= {"sd_logit_mu": spreads[0], "sd_log_kappa": spreads[1]}
            truth |= {"logit_mu": levels[0], "log_kappa": levels[1]}
            by_unit = [level[REGION] for level in levels]
        else:
            truth |= {"logit_mu": centre, "log_kappa": concentration}
        if covariates:
            truth["standardized_coefficient"] = source.normal(size=2)
            by_unit[0] = by_unit[0] + STANDARD @ truth["standardized_coefficient"]
        rate = _rates(source, *by_unit, size=len(REGION))
        model = pelton.PartialPooling(
            source.binomial(REGION_TRIALS, rate),
            REGION_TRIALS,
            prior=REGION_PRIOR,
            groups=REGION if groups else None,
            covariates=COVARIATES if covariates else None,
        )
        return model, {name: np.asarray(value) for name, value in truth.items()}

    return simulate


def beta_binomial(values: Values, model: Any) -> float:
    """Log-likelihood of the units' counts given their population, the rates integrated out."""
    mean, concentration = (np.asarray(values[name]) for name in ("logit_mu", "log_kappa"))
    if mean.ndim:
        mean, concentration = mean[REGION], concentration[REGION]
    if "standardized_coefficient" in values:
        mean = mean + STANDARD @ values["standardized_coefficient"]
    a, b = expit(mean) * np.exp(concentration), expit(-mean) * np.exp(concentration)
    successes, trials = model.counts.successes, model.counts.trials
    return float(np.sum(betaln(a + successes, b + trials - successes) - betaln(a, b)))


# -- Media mixes


def _panel() -> Any:
    simulated = simulate_media(3, [40, 30, 16], 2, seed=5)
    columns: dict[str, Any] = simulated.columns | {"controls": [], "events": []}
    return pelton.Panel.from_frame(simulated.frame, **columns)


def hill_of_adstock(spend: np.ndarray, alpha: Any, k: Any, s: Any, l_max: int = 12) -> np.ndarray:
    """One geo and channel; spend and half-saturation in one unit."""
    weights = alpha ** np.arange(l_max)
    carried = np.convolve(spend, weights / weights.sum())[: len(spend)]
    return np.where(carried > 0, carried**s / (carried**s + k**s), 0.0)


def media_mean(values: Values, panel: Any) -> np.ndarray:
    """The target's mean [geo, time] on its scale, which is 1 here."""
    mean = np.zeros(panel.target.shape)
    for g, c in np.ndindex(values["alpha"].shape):
        weeks = np.flatnonzero(panel.inside[g])
        k, s = values["half_saturation"][g, c], values["slope"][g, c]
        scale = panel.media_scale[g, c]
        shape = hill_of_adstock(panel.media[g, weeks, c] / scale, values["alpha"][g, c], k / scale, s)
        mean[g, weeks] += values["contribution"][g, c] * (1 + (k / scale) ** s) * shape
    return mean + values["baseline_coefficient"][:, :1]


def media_mix(source: np.random.Generator) -> Simulated:
    """Three geos of 40, 30 and 16 weeks with two channels: the default model, everything from its priors."""
    base = _panel()
    geos, channels = len(base.geos), len(base.channels)
    truth: dict[str, np.ndarray] = {}

    def hierarchical(location: Any, scale: float) -> tuple[np.ndarray, np.ndarray]:
        sd = np.abs(source.normal(0, scale, np.shape(location)))
        return location + sd * source.normal(size=(geos, *np.shape(location))), sd

    beta = source.beta(1.0, 3.0, channels)
    alpha, truth["alpha_sd"] = hierarchical(np.log(beta / (1 - beta)), 0.5)
    k, truth["half_saturation_sd"] = hierarchical(source.normal(0.0, 0.7, channels), 0.3)
    s, truth["slope_sd"] = hierarchical(source.normal(0.2, 0.4, channels), 0.2)
    location = source.normal(np.log(0.05), 1.0, channels)
    share, truth["contribution_sd"] = hierarchical(location, 0.5)
    truth["contribution_population"] = np.exp(location)
    truth["intercept_population"] = source.normal(0.5, 0.5, 1)
    truth["baseline_coefficient"], truth["intercept_sd"] = hierarchical(truth["intercept_population"], 0.3)
    truth["alpha"], truth["slope"], truth["contribution"] = expit(alpha), np.exp(s), np.exp(share)
    truth["half_saturation"] = np.exp(k) * base.media_scale
    truth["sigma"] = np.abs(source.normal(0, 0.5, geos))
    mean = media_mean(truth, base)
    noisy = mean + truth["sigma"][:, None] * source.normal(size=mean.shape)
    panel = replace(base, target=np.where(base.inside, noisy, np.nan))
    # The priors speak of the scaled target; here its scale is known to be 1.
    panel.__dict__["target_scale"] = np.ones(geos)
    panel.__dict__["media_scale"] = base.media_scale
    return pelton.MediaMix(panel), truth


def normal_of_weeks(values: Values, model: Any) -> float:
    """Log-likelihood of the weeks' target."""
    panel = model.panel
    terms = scipy.stats.norm.logpdf(panel.target, media_mean(values, panel), values["sigma"][:, None])
    return float(np.sum(terms[panel.inside]))


@functools.cache
def _few_countries() -> Any:
    """Three countries of 40, 30 and 16 weeks with two channels, whose media are so small that most do not saturate."""
    source = np.random.default_rng(6)
    weeks = [40, 30, 16]
    frame = pd.DataFrame(
        {
            "country": np.repeat(["AT", "CH", "DE"], weeks),
            "week": np.concatenate([pd.date_range("2024-01-01", periods=count, freq="W-MON") for count in weeks]),
            "sales": source.random(sum(weeks)),
            "tv": source.gamma(1.0, 0.05, sum(weeks)),
            "radio": source.gamma(0.5, 0.1, sum(weeks)) * (source.random(sum(weeks)) < 0.5),
        }
    )
    return pelton.Panel.from_frame(frame, time="week", geo="country", target="sales", media=["tv", "radio"])


def country_mean(values: Values, panel: Any) -> np.ndarray:
    """The target's mean [geo, time]."""
    mean = np.zeros(panel.target.shape)
    for g in range(len(panel.geos)):
        weeks = np.flatnonzero(panel.inside[g])
        mean[g, weeks] = values["base"][g]
        for c in range(len(panel.channels)):
            kernel = values["car"][g, c] ** np.arange(21)
            carried = np.convolve(panel.media[g, weeks, c], kernel)[: len(weeks)]
            mean[g, weeks] -= values["coef"][g, c] * np.expm1(-values["sat"][g, c] * carried)
    return mean


def countries(source: np.random.Generator) -> Simulated:
    """The model of the countries, everything from its priors."""
    base = _few_countries()
    cells = len(base.geos), len(base.channels)
    truth: dict[str, Any] = {name: source.exponential(0.1) for name in ("coef_lam", "sat_lam", "base_lam")}
    truth |= {name: source.exponential(100.0) for name in ("car_alpha", "car_beta")}
    truth["coef"] = source.exponential(1 / truth["coef_lam"], cells)
    truth["sat"] = source.exponential(1 / truth["sat_lam"], cells)
    truth["car"] = source.beta(truth["car_alpha"], truth["car_beta"], cells)
    truth["base"] = source.exponential(1 / truth["base_lam"], cells[0])
    truth["noise"] = source.exponential(1000.0, cells[0])
    mean = country_mean(truth, base)
    noisy = mean + truth["noise"][:, None] * source.normal(size=mean.shape)
    panel = replace(base, target=np.where(base.inside, noisy, np.nan))
    return country_mix(panel), truth


def normal_of_countries(values: Values, model: Any) -> float:
    """Log-likelihood of the weeks' target."""
    panel = model.panel
    terms = scipy.stats.norm.logpdf(panel.target, country_mean(values, panel), values["noise"][:, None])
    return float(np.sum(terms[panel.inside]))


SHORT = {"chains": 2, "warmup": 300, "draws": 500}


def _mean_concentration(source: np.random.Generator) -> tuple[float, float]:
    return source.beta(2.0, 4.0), np.exp(source.normal(3.0, 0.7))


def _gamma_shapes(source: np.random.Generator) -> tuple[float, float]:
    alpha, beta = source.gamma(2.0, 5.0, size=2)
    return alpha / (alpha + beta), alpha + beta


def _cases() -> dict[str, Case]:
    cases = {}
    priors = {
        "mean-concentration": (
            pelton.MeanConcentration(mean=dist.Beta(2.0, 4.0), concentration=dist.LogNormal(3.0, 0.7)),
            _mean_concentration,
        ),
        "gamma-shapes": (pelton.GammaShapes(2.0, 0.2), _gamma_shapes),
    }
    for name, prior in priors.items():
        for sampler in ("grid", "nuts"):
            what = f"12 stores, `{type(prior[0]).__name__}`"
            settings = SHORT | {"sampler": sampler}
            cases[f"{name}-{sampler}"] = Case(what, population(*prior), binomial_of_rates, settings, 400)
    nuts = SHORT | {"sampler": "nuts"}
    hard = nuts | {"target_accept": 0.95}
    cases["regions"] = Case("40 stores in 4 regions", regions(True, False), beta_binomial, hard)
    cases["covariates"] = Case("40 stores with 2 covariates", regions(False, True), beta_binomial, nuts)
    what = "40 stores in 4 regions with 2 covariates"
    cases["regions-covariates"] = Case(what, regions(True, True), beta_binomial, hard)
    what = "media mix: geos of 40, 30 and 16 weeks, 2 channels"
    cases["media-mix"] = Case(what, media_mix, normal_of_weeks, nuts | {"warmup": 500})
    what = "country model: countries of 40, 30 and 16 weeks, 2 channels"
    cases["country-mix"] = Case(
        what, countries, normal_of_countries, SHORT | {"sampler": "mixture", "warmup": 100, "draws": 750}, 100
    )
    return cases


CASES = _cases()


def table(rows: list[dict[str, Any]]) -> str:
    """The last result of each case, as Markdown."""
    last = {row["case"]: row for row in rows if row["case"] in CASES}
    lines = [
        "| model | sampler | sets | quantities | smallest p-value | needed | outside the 99% band | not converged |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in last.items():
        cells = (
            f"[{CASES[name].what}](calibration/{name}.png)",
            f"`{row['sampler']}`",
            row["sets"],
            row["quantities"],
            f"{row['smallest_p']:.2g}",
            f"{(1 - BAND) / row['quantities']:.1g}",
            row["outside"],
            row["not_converged"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Runs cases and writes their pictures and the page's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; all when absent")
    parser.add_argument("--sets", type=int, help="data sets of each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.names or CASES:
        if name not in CASES:
            raise ArgumentError(f"there is no case {name!r}; there are {', '.join(CASES)}")
        began = time.perf_counter()
        found = run(CASES[name], options.sets, options.seed)
        rows = found.table()
        record = {
            "case": name,
            "sampler": CASES[name].settings["sampler"],
            "sets": len(found.ranks),
            "quantities": len(rows),
            "smallest_p": float(np.min(rows["p_value"].to_numpy(float))),
            "outside": int(np.sum(~rows["band"].to_numpy(bool))),
            "not_converged": int((~found.converged).sum()),
            "problems": list(found.problems),
            "seed": options.seed,
            "seconds": round(time.perf_counter() - began, 1),
            "commit": commit(),
            "versions": versions(),
            "machine": machine(),
        }
        append(RESULTS, record)
        PICTURES.mkdir(exist_ok=True)
        rank_picture(found).save_png(PICTURES / f"{name}.png")
        print(json.dumps({key: record[key] for key in (*list(record)[:8], "seconds")}), flush=True)
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), "calibrations", table(read(RESULTS))), encoding="utf-8")


if __name__ == "__main__":
    main()
