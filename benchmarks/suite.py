"""The benchmark suite: every rival on the same data, each fit in a process of its own, correctness before speed.

`python -m pelton.benchmarks.suite --repeats 3 stores-40 markets` runs cases, adds a line for each system and case to
benchmarks/results/suite.jsonl, and writes benchmarks/report.html and the tables in README.md and docs/benchmarks.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import pelton
from pelton.benchmarks import environments, record
from pelton.benchmarks.case_data import RESULTS, Problem
from pelton.benchmarks.cases import Case, System, chosen, write_reference
from pelton.benchmarks.verdicts import COUNTED, Judge, elements, spread, worth
from pelton.engine.errors import ArgumentError, DataError, UnknownNameError
from pelton.engine.progress import progress

STORE = RESULTS / "suite.jsonl"
# A second fit in the same process is made where the first took no longer than so many seconds.
AGAIN = 30.0
# A process that took longer than this has one run, however many are asked for.
REPEAT_BELOW = 45.0


@dataclass
class Fit:
    """One process: what it drew, and what it cost.

    Attributes:
        cold: seconds from the process's start to the draws of its first fit.
        result: the launcher's result.json.
        draws: of the first fit and, where there was one, of the second.
    """

    cold: float
    result: dict[str, Any]
    draws: list[dict[str, np.ndarray]]


@dataclass
class Entry:
    """A system on a case: its fits so far, or why there are none.

    Attributes:
        system: who.
        judge: of all its draws.
        runs: figures of each process.
        why: the reason where it cannot run or a process failed.
        status: "ran", "absent", "failed" or "timed out".
    """

    system: System
    judge: Judge
    runs: list[dict[str, Any]] = field(default_factory=list)
    why: str | None = None
    status: str = "ran"
    packages: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def environment(folder: Path, ours: Path | None) -> dict[str, str]:
    """A process's environment: no cache of compiled programs is at hand, and no path of ours unless it runs pelton."""
    dropped = ("PYTHONPATH", "JAX_COMPILATION_CACHE_DIR", "PYTENSOR_FLAGS")
    found = {name: value for name, value in os.environ.items() if name not in dropped}
    found |= {name: str(folder / "cache") for name in ("PELTON_CACHE_DIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    found |= {"PYTENSOR_FLAGS": f"base_compiledir={folder / 'cache' / 'pytensor'}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if ours is not None:
        found["PYTHONPATH"] = str(ours)
    return found


def run_process(
    case: Case, system: System, problem: Problem, seed: int, *, device: str | None = None, source: Path | None = None
) -> Fit:
    """One process: a fit, and where it was quick a second one.

    Args:
        case, system, problem: what to run.
        seed: of the draws.
        device: cpu or gpu, for those who can choose.
        source: folder that holds the package pelton; this one's own when absent.

    Raises:
        subprocess.TimeoutExpired: it took longer than the case allows.
        RuntimeError: it failed; the message is its last line.
    """
    with tempfile.TemporaryDirectory(prefix="pelton-suite-") as name:
        folder = Path(name)
        job = {
            "case": case.name,
            "model": case.model,
            "variant": system.variant,
            "quantities": list(case.quantities),
            "chains": system.chains,
            "warmup": system.warmup,
            "draws": system.draws,
            "seed": seed,
            "settings": {**problem.settings, **system.settings},
            "device": device,
            "again": AGAIN,
        }
        (folder / "job.json").write_text(json.dumps(job))
        np.savez(folder / "data.npz", **problem.data)  # pyright: ignore[reportArgumentType]
        ours = source or Path(pelton.__file__).resolve().parents[1]
        python = environments.interpreter(system.environment or system.rival)
        command = [str(python), str(environments.LAUNCH), system.rival, str(folder)]
        variables = environment(folder, ours if system.rival == environments.OURS else None)
        with (folder / "said").open("w+") as said:
            began = time.time()
            done = subprocess.run(
                command, env=variables, stdout=said, stderr=said, cwd=folder, timeout=case.limit, check=False
            )
            said.seek(0)
            if done.returncode:
                lines = [line.strip() for line in said.read().splitlines() if line.strip()]
                raise RuntimeError(lines[-1] if lines else f"ended with status {done.returncode} and no word")
        result = json.loads((folder / "result.json").read_text())
        draws = []
        for file in ("draws.npz", "again.npz"):
            if (folder / file).exists():
                with np.load(folder / file) as stored:
                    draws.append({key: stored[key] for key in stored.files})
        return Fit(result["done"] - began, result, draws)


def _figures(fit: Fit, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of a process; found: the worth of its fits' draws."""
    fits = fit.result["fits"]
    warm, last = fits[-1], found[-1]
    seconds = max(warm["seconds"] - warm["compiling"], 1e-6)
    gradients = warm.get("gradients")
    return {
        **{name: last[name] for name in ("ess_bulk", "ess_bulk_median", "ess_tail", "ess_tail_median", "rhat")},
        "ess_bulk_of": last.get("ess_bulk_of"),
        "cold_seconds": fit.cold,
        "cold_ess_per_second": found[0]["ess_bulk"] / fit.cold,
        "warm_seconds": seconds,
        "warm_ess_per_second": last["ess_bulk"] / seconds,
        "second_fit": len(fits) > 1,
        "importing": fit.result["importing"],
        "compiling": fits[0]["compiling"],
        "warmup": warm.get("warmup"),
        "sampling": warm.get("sampling"),
        "gradients_per_draw": None if not gradients or not last["ess_bulk"] else gradients / last["ess_bulk"],
        "divergences": warm.get("divergences"),
        "peak_bytes": fit.result["peak_bytes"],
        "notes": warm.get("notes", []),
    }


def _quantities(case: Case, draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    derived = case.derive(draws)
    return derived if case.quantities == ("*",) else {key: derived[key] for key in case.quantities if key in derived}


def _attempt(entry: Entry, case: Case, problem: Problem, repeat: int, device: str | None, source: Path | None) -> None:
    """One more process of a system, unless it cannot run, failed before, or is too dear to repeat."""
    if entry.status != "ran" or (entry.runs and entry.runs[0]["process_seconds"] > REPEAT_BELOW):
        return
    began = time.perf_counter()
    try:
        fit = run_process(case, entry.system, problem, 1 + repeat, device=device, source=source)
    except subprocess.TimeoutExpired:
        entry.status, entry.why = "timed out", f"not done after {case.limit:.0f} s"
        return
    except (RuntimeError, OSError) as error:
        entry.status, entry.why = "failed", str(error)[:300]
        return
    named = [_quantities(case, draws) for draws in fit.draws]
    found = [worth(draws) for draws in named]
    for draws, figures in zip(named, found, strict=True):
        entry.judge.take(draws, figures)
    entry.packages = fit.result["versions"]
    entry.runs.append(_figures(fit, found) | {"process_seconds": time.perf_counter() - began})


def _line(case: Case, problem: Problem, entry: Entry) -> dict[str, Any]:
    """What the file keeps of a system on a case."""
    system, ran = entry.system, bool(entry.runs)
    answer = entry.judge.answer() if ran else None
    counted = answer in (*COUNTED, "unchecked")
    distances = entry.judge.distances()
    worst = max(distances, key=lambda name: abs(distances[name])) if distances else None
    return {
        "case": case.name,
        "title": case.title,
        "size": case.size,
        "system": system.name,
        "chains": system.chains,
        "warmup": system.warmup,
        "draws": system.draws,
        "settings": dict(system.settings),
        "status": entry.status if not ran else "ran",
        "why": entry.why,
        "answer": answer,
        "worst_z": None if worst is None else round(distances[worst], 2),
        "worst_z_of": worst,
        "ess_in_all": round(entry.judge.ess, 1),
        # A wrong answer gets no speed.
        "warm": spread([run["warm_ess_per_second"] for run in entry.runs]) if ran and counted else None,
        "cold": spread([run["cold_ess_per_second"] for run in entry.runs]) if ran and counted else None,
        "runs": entry.runs,
        "packages": entry.packages,
        "source": problem.source,
        "reference": problem.reference,
    }


def run_case(
    case: Case,
    *,
    repeats: int = 3,
    rivals: Sequence[str] = (),
    device: str | None = None,
    show: bool | None = False,
    sources: Sequence[tuple[str, Path]] = (),
) -> list[dict[str, Any]]:
    """Measures the systems of a case in turns, and returns a line for each.

    Args:
        case: of `pelton.benchmarks.cases`.
        repeats: processes of each system, a seed each; one where a process takes more than 45 s.
        rivals: names; all of the case when absent. pelton always runs.
        device: cpu or gpu, for those who can choose.
        show: whether to show a progress bar; None shows it on a terminal.
        sources: (label, folder) of several pelton packages, which then run in place of the case's systems.

    Raises:
        DataError: the case's data are not at hand.
        ArgumentError: repeats below 1.
    """
    if repeats < 1:
        raise ArgumentError(f"repeats is a whole number of at least 1, not {repeats!r}")
    problem = case.build()
    wanted = [one for one in case.systems if not rivals or one.rival in (environments.OURS, *rivals)]
    if sources:
        wanted = [one for one in wanted if one.rival == environments.OURS and one.environment is None]
    places = sources or [("", None)]
    entries = [(label, place, Entry(system, Judge(problem.truth))) for system in wanted for label, place in places]
    for _, _, entry in entries:
        why = environments.reason(entry.system.environment or entry.system.rival)
        if why is not None:
            entry.status, entry.why = "absent", why
    with progress(case.title, repeats * len(entries), show) as report:
        for repeat in range(repeats):
            for _, place, entry in entries:
                _attempt(entry, case, problem, repeat, device, place)
                report(1, entry.system.name)
    return [_line(case, problem, entry) | ({"label": label} if label else {}) for label, _, entry in entries]


def about() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "machine": record.machine(),
        "commit": record.commit(),
        "recorded": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def make_reference(case: Case, system: System, seed: int = 12345) -> Path:
    """Runs a rival for long and stores its draws' moments as the case's reference.

    Raises:
        ArgumentError: the run did not converge.
    """
    fit = run_process(case, system, case.build(), seed)
    draws = _quantities(case, fit.draws[0])
    found = worth(draws)
    if found["rhat"] > 1.01 or found["ess_bulk"] < 1000:
        raise ArgumentError(f"R-hat {found['rhat']:.3f}, smallest ESS {found['ess_bulk']:.0f}: too little for a truth")
    made_by = (
        f"{system.name}, {system.chains} x {system.draws} draws after {system.warmup}, smallest ESS "
        f"{found['ess_bulk']:.0f}, R-hat {found['rhat']:.4f}"
    )
    return write_reference(case.name, draws, made_by)
