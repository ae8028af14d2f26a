"""The stores benchmark: our samplers and the SciPy reference measured on the same data in one call."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from pelton.benchmarks import record, scipy_gibbs
from pelton.benchmarks.fresh import smallest_ess
from pelton.benchmarks.quadrature import Moments, posterior_moments
from pelton.benchmarks.stores_report import notes, table
from pelton.benchmarks.stores_results import (
    CORRECTED,
    MANY_MOVES,
    MOVES,
    PUBLISHED,
    Answer,
    Memory,
    Results,
    Row,
)
from pelton.engine.errors import ArgumentError, DataError, PeltonError, PeltonWarning, UnknownNameError
from pelton.engine.progress import Report, progress
from pelton.engine.samplers import sampler_class
from pelton.models.counts import check_counts
from pelton.models.simulate import simulate_stores

SAMPLERS = ("numpyro-nuts", "blackjax-nuts", "grid")
# With this seed and these trials the 40 stores are those of the reference system, count by count.
SEED, TRIALS = 123, (60, 159)
# A mean is judged once so many effective draws are there, and may lie so many standard errors from the truth.
MIN_ESS = 400
LARGEST_Z = 5.0
COLD_ESS = 1000
CHAINS = 4
DRAWS = 10_000
# Draws a chain in a fresh process: the default of pelton.sample.
FRESH_DRAWS = 1000
# Past this many stores the published step of 0.2 is too wide, and the reference tunes its own.
STEP_FITS = 100
TUNED_BURN_IN = 20
# Sweeps of the reference over all its chains, and stores x sweeps that cut them: a minute or so of drawing
# rates.
SWEEPS, STORE_SWEEPS = 80_000, 2_000_000_000
# Share of them for the forms that answer side questions.
MANY_MOVES_SHARE, PUBLISHED_SHARE = 0.25, 1.0
DEAR_MANY_MOVES_SHARE, DEAR_PUBLISHED_SHARE = 0.4, 0.25
# Seconds past which a reference's run is not repeated.
REPEAT_BELOW = 15.0


@dataclass
class _Run:
    """One timed run: draws [chain, draw], seconds, settings and seconds spent inside."""

    alpha: np.ndarray
    beta: np.ndarray
    seconds: float
    details: dict[str, Any]


@dataclass
class _System:
    """Something that draws from the posterior, run(seed), and its runs so far."""

    name: str
    cores: int
    run: Callable[[int], _Run]
    ours: bool
    runs: list[_Run] = field(default_factory=list)
    warned: set[str] = field(default_factory=set)

    def measure(self, seed: int) -> None:
        """A timed run."""
        with self._listening():
            self.runs.append(self.run(seed))

    def compile(self) -> None:
        """A run that is not timed, in which the programs of the timed ones are compiled."""
        with self._listening():
            self.run(0)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        self.warned |= {str(each.message) for each in caught if issubclass(each.category, PeltonWarning)}


def errors(draws: np.ndarray, truth: float) -> float:
    """(mean - truth) / MCSE: how many Monte Carlo standard errors the mean of draws [chain, draw] lies off.

    Source: Vehtari et al. 2021 for the standard error, by ArviZ.

    >>> noise = np.random.default_rng(0).normal(size=(4, 1000))
    >>> abs(errors(noise, 0.0)) < 4, errors(noise, 1.0) < -50
    (True, True)
    """
    from arviz_stats.base.array import array_stats

    standard_error: Any = array_stats.mcse(draws, method="mean")
    return (float(draws.mean()) - truth) / float(standard_error)


def _counts(stores: int | str | Path) -> tuple[np.ndarray, np.ndarray, str]:
    """Successes and trials [unit], and where they come from."""
    if isinstance(stores, int | np.integer):
        frame = simulate_stores(int(stores), trials=TRIALS, seed=SEED)
        source = f"simulate_stores({stores}, trials={TRIALS}, seed={SEED})"
        return frame["conversions"].to_numpy(), frame["impressions"].to_numpy(), source
    path = Path(stores)
    try:
        frame = pd.read_parquet(path) if path.suffix in (".parquet", ".pq") else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path} as a table: {error}") from error
    for column in ("conversions", "impressions"):
        if column not in frame.columns:
            raise UnknownNameError("column", column, map(str, frame.columns))
    counts = check_counts(
        frame["conversions"],
        frame["impressions"],
        successes_name="conversions",
        trials_name="impressions",
    )
    return counts.successes, counts.trials, path.name


def _ours(name: str, successes: np.ndarray, trials: np.ndarray, warmup: int, draws: int) -> _System:
    import pelton

    inside = (
        "seconds_compiling",
        "seconds_warmup",
        "seconds_sampling",
        "precision",
        "gradient_evaluations",
    )

    def run(seed: int) -> _Run:
        began = time.perf_counter()
        tree = pelton.sample(
            pelton.PartialPooling(successes, trials, prior=pelton.GammaShapes(0.5, 0.5)),
            sampler=name,
            chains=CHAINS,
            warmup=warmup,
            draws=draws,
            seed=seed,
            progress=False,
        )
        alpha, beta = (np.asarray(tree["posterior"][shape]) for shape in ("alpha", "beta"))
        seconds = time.perf_counter() - began
        settings = {"chains": CHAINS, "warmup": tree.attrs["warmup"], "draws": draws}
        return _Run(alpha, beta, seconds, settings | {key: tree.attrs[key] for key in inside})

    return _System(f"pelton {name}", record.cores(), run, ours=True)


def _reference(
    name: str,
    successes: np.ndarray,
    trials: np.ndarray,
    *,
    sweeps: int,
    jacobian: bool = True,
    moves: int = 1,
) -> _System:
    stores = len(successes)
    tuned = stores > STEP_FITS
    # Where sweeps are dear, fewer chains leave each long enough for its effective sample size to be
    # estimated.
    chains = CHAINS if stores <= 10_000 else 2
    settings: dict[str, Any] = {
        "jacobian": jacobian,
        "chains": chains,
        "sweeps": max(4, sweeps // chains),
        "burn_in": TUNED_BURN_IN if tuned else scipy_gibbs.BURN_IN,
        "step": None if tuned else scipy_gibbs.STEP,
        "moves": moves,
    }

    def run(seed: int) -> _Run:
        drawn = scipy_gibbs.sample(successes, trials, seed=seed, **settings)
        details = settings | {"step": drawn.step, "tuned": tuned, "acceptance": drawn.acceptance}
        return _Run(drawn.alpha, drawn.beta, drawn.seconds, details)

    return _System(name, 1, run, ours=False)


def _references(successes: np.ndarray, trials: np.ndarray, sweeps: int | None) -> list[_System]:
    """The reference's three forms, with as many sweeps as a minute or so allows."""
    total = sweeps or min(SWEEPS, max(8, STORE_SWEEPS // len(successes)))
    dear = total < SWEEPS and sweeps is None
    many = int(total * (DEAR_MANY_MOVES_SHARE if dear else MANY_MOVES_SHARE))
    published = int(total * (DEAR_PUBLISHED_SHARE if dear else PUBLISHED_SHARE))
    return [
        _reference(CORRECTED, successes, trials, sweeps=total),
        _reference(MANY_MOVES, successes, trials, sweeps=many, moves=MOVES),
        _reference(PUBLISHED, successes, trials, sweeps=published, jacobian=False),
    ]


def _row(system: _System, truth: Moments) -> Row:
    ess = [smallest_ess(run.alpha, run.beta) for run in system.runs]
    draws = {name: np.concatenate([getattr(run, name) for run in system.runs]) for name in ("alpha", "beta")}
    z = {name: errors(values, truth.mean[name]) for name, values in draws.items()}
    answer: Answer = "right"
    if max(map(abs, z.values())) > LARGEST_Z:
        answer = "WRONG"
    elif smallest_ess(*draws.values()) < MIN_ESS:
        answer = "few draws"
    first = system.runs[0].details
    medians = {
        key: median(run.details[key] for run in system.runs) for key, value in first.items() if isinstance(value, float)
    }
    return Row(
        system=system.name,
        cores=system.cores,
        runs=len(system.runs),
        mean={name: float(values.mean()) for name, values in draws.items()},
        z=z,
        answer=answer,
        ess=median(ess),
        seconds=median(run.seconds for run in system.runs),
        ess_per_second=median(size / run.seconds for size, run in zip(ess, system.runs, strict=True)),
        details=first | medians,
        warnings=sorted(system.warned),
    )


def _fresh(
    counts: Path, sampler: str, *, seed: int, cache: Path, warmup: int, summaries: bool = False
) -> dict[str, float]:
    """A fresh process, from its start to its draws: seconds, ess and peak_bytes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    environment["PELTON_CACHE_DIR"] = str(cache)
    command = [sys.executable, "-m", "pelton.benchmarks.fresh", str(counts), "--sampler", sampler]
    for name, value in (("chains", CHAINS), ("warmup", warmup), ("draws", FRESH_DRAWS), ("seed", seed)):
        command += [f"--{name}", str(value)]
    command += ["--summaries"] if summaries else []
    began = time.time()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["no message"]
        raise PeltonError(f"a fresh process that sampled by {sampler} ended with status {ended.returncode}: {last[0]}")
    found = json.loads(ended.stdout.splitlines()[-1])
    return {"seconds": found["done"] - began, "ess": found["ess"], "peak_bytes": found["peak_bytes"]}


@dataclass(frozen=True)
class _Fresh:
    """Fresh processes on the same counts, kept in a folder with a compilation cache for each."""

    folder: Path
    samplers: Sequence[str]
    warmup: int
    report: Report

    @property
    def counts(self) -> Path:
        return self.folder / "counts.npy"

    def times(self, repeats: int) -> dict[str, dict[str, float | None]]:
        """A row's cold_seconds, cached_seconds and cold_ess, by system."""
        runs: dict[str, list[tuple[dict, dict]]] = {name: [] for name in self.samplers}
        for repeat in range(repeats):
            for name in self.samplers:
                cache = self.folder / f"{name}-{repeat}"
                pair = []
                for kind in ("cold", "cached"):
                    pair.append(_fresh(self.counts, name, seed=repeat, cache=cache, warmup=self.warmup))
                    self.report(1, f"{name}, {kind}")
                runs[name].append((pair[0], pair[1]))
        found: dict[str, dict[str, float | None]] = {}
        for name, pairs in runs.items():
            least = min(run["ess"] for pair in pairs for run in pair)
            cold, cached = (median(pair[kind]["seconds"] for pair in pairs) for kind in (0, 1))
            reached = least >= COLD_ESS
            found[f"pelton {name}"] = {
                "cold_seconds": cold if reached else None,
                "cached_seconds": cached if reached else None,
                "cold_ess": least,
            }
        return found

    def memory(self) -> Memory:
        """Peak memory with summaries of every unit, by the first sampler."""
        name = self.samplers[0]
        cache = self.folder / "memory"
        found = _fresh(self.counts, name, seed=0, cache=cache, warmup=self.warmup, summaries=True)
        self.report(1, "memory")
        return Memory(name, CHAINS * FRESH_DRAWS, int(found["peak_bytes"]), found["seconds"])


def run(
    stores: int | str | Path = 40,
    samplers: Sequence[str] = SAMPLERS,
    repeats: int = 3,
    *,
    cold: bool = True,
    memory: bool = False,
    draws: int = DRAWS,
    warmup: int = 1000,
    sweeps: int | None = None,
    show: bool | None = False,
) -> Results:
    """Measures our samplers and the reference on the same counts, interleaved, each against the exact answer.

    Every system draws (alpha, beta) of k_i ~ Binomial(n_i, theta_i), theta_i ~ Beta(alpha, beta),
    alpha, beta ~ Gamma(1/2, 1/2). The truth is `pelton.benchmarks.quadrature`. A run of ours is timed from
    counts to draws with its programs compiled: building the model and its histograms, warm-up, sampling,
    diagnostics and, where the tree stores them, drawing the rates; tables of unit summaries are not in it.
    The reference's chains run one after another on one core, and its time includes pilot and burn-in. It has
    three
    forms: corrected, corrected with 30 Metropolis moves for each draw of the rates, and as published.

    Args:
        stores: how many to simulate, with rates from Beta(2.5, 8) and 60 to 159 trials each, or a CSV or
            Parquet file with columns impressions and conversions. 40 are the reference system's own.
        samplers: of ours.
        repeats: timed runs of each, a seed each; a reference whose run takes more than 15 s has one.
        cold: whether fresh processes are timed too.
        memory: whether to measure the peak memory of a fresh process with unit summaries, by the first
            sampler.
        draws, warmup: of ours, a chain, in the timed runs; four chains.
        sweeps: of the corrected reference over all its chains; by default 80,000, or fewer with many stores.
        show: whether to show a progress bar; None shows it on a terminal.

    Raises:
        UnknownNameError: a sampler or a column that is not there.
        ArgumentError, DataError: settings or counts that cannot be used.
        PeltonError: a fresh process failed.

    >>> found = run(40, ["grid"], repeats=1, cold=False, draws=500, sweeps=2000)
    >>> [row.system for row in found.rows][:2]
    ['pelton grid', 'scipy corrected']
    """
    if repeats < 1:
        raise ArgumentError(f"repeats is a whole number of at least 1, not {repeats!r}")
    if sweeps is not None and sweeps < 16:
        raise ArgumentError(f"sweeps is a whole number of at least 16, not {sweeps!r}")
    if not samplers:
        raise ArgumentError(f"name at least one sampler, such as {', '.join(SAMPLERS)}")
    samplers = list(dict.fromkeys(samplers))
    for name in samplers:
        sampler_class(name)
    successes, trials, source = _counts(stores)
    machine = record.machine()
    systems = [_ours(name, successes, trials, warmup, draws) for name in samplers]
    systems += _references(successes, trials, sweeps)
    steps = 1 + len(samplers) + repeats * len(systems) + 2 * repeats * len(samplers) * cold + memory
    with progress(f"stores benchmark, {len(successes)} stores", steps, show) as report:
        truth = posterior_moments(successes, trials)
        report(1, "quadrature")
        for system in systems:
            if system.ours:
                system.compile()
                report(1, f"{system.name}, compiling")
        for repeat in range(repeats):
            for system in systems:
                if system.ours or repeat == 0 or system.runs[0].seconds < REPEAT_BELOW:
                    system.measure(seed=1 + repeat)
                report(1, system.name)
        rows = [_row(system, truth) for system in systems]
        with tempfile.TemporaryDirectory(prefix="pelton-stores-") as folder:
            fresh = _Fresh(Path(folder), samplers, warmup, report)
            np.save(fresh.counts, np.stack([successes, trials]))
            times = fresh.times(repeats) if cold else {}
            used = fresh.memory() if memory else None
    base = next(row for row in rows if row.system == CORRECTED)
    finished = []
    for row in rows:
        comparable = "WRONG" not in (row.answer, base.answer)
        ratio = row.ess_per_second / base.ess_per_second if comparable else None
        finished.append(dataclasses.replace(row, ratio=ratio, **times.get(row.system, {})))
    return Results(
        stores=len(successes),
        source=source,
        truth=truth,
        rows=finished,
        memory=used,
        machine=machine,
        versions=record.versions(),
        commit=record.commit(),
        recorded=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def run_and_print(
    stores: int | str | Path,
    samplers: Sequence[str] = SAMPLERS,
    repeats: int = 3,
    save: Path | None = None,
    *,
    cold: bool = True,
    memory: bool = False,
) -> int:
    """Runs the benchmark, prints its table, and appends the results to a file of JSON lines.

    Args:
        stores, samplers, repeats, cold, memory: as for `run`.
        save: the file, or None.

    Returns:
        0; 1 where one of our samplers, or a corrected form of the reference, gave a wrong answer.

    Raises:
        PeltonError: as for `run`, and OutputError where the file cannot be written (the table is printed
            first).
    """
    from rich.console import Console

    results = run(stores, samplers, repeats, cold=cold, memory=memory, show=None)
    console = Console()
    console.print(table(results, console.width))
    for note in [f"Data: {results.source}.", *notes(results)]:
        console.print(note, highlight=False, markup=False)
    if save is not None:
        record.append(save, results.as_record())
        console.print(f"Saved to {save}.", highlight=False, markup=False)
    return int(any(row.answer == "WRONG" for row in results.rows if row.system != PUBLISHED))
