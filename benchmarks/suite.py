"""The benchmark suite: every rival on the same data, each fit in a process of its own, correctness before speed.

`python -m pelton.benchmarks.suite --repeats 3 stores-40 markets` runs cases, adds a line for each system and case to
benchmarks/results/suite.jsonl, and writes benchmarks/report.html and the tables in README.md and docs/benchmarks.md.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import pelton
from pelton.benchmarks import environments, record
from pelton.benchmarks.case_data import RESULTS, Problem
from pelton.benchmarks.cases import Case, System, chosen, with_chains, write_reference
from pelton.benchmarks.suite_tables import CHAINS, against
from pelton.benchmarks.verdicts import COUNTED, LARGEST_RHAT, Answer, Judge, spread, truth_of, worth
from pelton.engine.errors import ArgumentError, DataError, UnknownNameError
from pelton.engine.progress import progress

STORE = RESULTS / "suite.jsonl"
# A second fit in the same process is made where the first took no longer than so many seconds.
AGAIN = 30.0
# A process that took longer than this has one run, however many are asked for.
REPEAT_BELOW = 45.0
# Effective draws from which a rival may stand for a reference where there is none.
PEER_ESS = 100


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
        draws: of every fit, kept where rivals are held against one another.
        reference: what the answer was held against.
        label: of the commit, where two are compared.
        runs: figures of each process.
        why: the reason where it cannot run or a process failed.
        status: "ran", "absent", "failed" or "timed out".
    """

    system: System
    judge: Judge
    reference: str
    label: str = ""
    draws: list[dict[str, np.ndarray]] = field(default_factory=list)
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
        if not problem.truth:
            entry.draws.append(draws)
    entry.packages = fit.result["versions"]
    entry.runs.append(_figures(fit, found) | {"process_seconds": time.perf_counter() - began})


def _hold_together(entries: Sequence[Entry]) -> dict[int, Judge]:
    """Where there is no reference: each system against a converged one of another rival, by its entry's place."""
    able = [one for one in entries if one.runs and one.judge.rhat <= LARGEST_RHAT and one.judge.ess >= PEER_ESS]
    # Ours are held against others rather than the others against ours.
    able.sort(key=lambda one: one.system.rival == environments.OURS)
    found = {}
    for at, entry in enumerate(entries):
        own = (entry.system.rival, entry.label)
        peer = next((one for one in able if (one.system.rival, one.label) != own), None)
        if peer is None or not entry.runs:
            continue
        judge = Judge(truth_of({name: np.concatenate([one[name] for one in peer.draws]) for name in peer.draws[0]}))
        for draws in entry.draws:
            judge.take(draws, worth(draws))
        entry.reference = f"none exact; held against {peer.label or peer.system.name}"
        found[at] = judge
    return found


def _answer(entry: Entry, exact: bool) -> Answer | None:
    """The verdict; between rivals alone it is that they agree, or do not."""
    if not entry.runs:
        return None
    found = entry.judge.answer()
    return found if exact else {"right": "agrees", "wrong": "disagrees"}.get(found, found)  # pyright: ignore


def _line(case: Case, problem: Problem, entry: Entry) -> dict[str, Any]:
    """What the file keeps of a system on a case."""
    system, ran = entry.system, bool(entry.runs)
    answer = _answer(entry, bool(problem.truth))
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
        "reference": entry.reference,
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
    entries = [
        (place, Entry(system, Judge(problem.truth), problem.reference, label))
        for system in wanted
        for label, place in places
    ]
    for _, entry in entries:
        why = environments.reason(entry.system.environment or entry.system.rival)
        if why is not None:
            entry.status, entry.why = "absent", why
    with progress(case.title, repeats * len(entries), show) as report:
        for repeat in range(repeats):
            for place, entry in entries:
                _attempt(entry, case, problem, repeat, device, place)
                report(1, entry.system.name)
    if not problem.truth:
        together = _hold_together([entry for _, entry in entries])
        for at, judge in together.items():
            entries[at][1].judge = judge
    return [_line(case, problem, entry) | ({"label": entry.label} if entry.label else {}) for _, entry in entries]


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


def write_all(store: Path) -> None:
    """The report, the README's block and the page in docs/, from the stored results."""
    from pelton.benchmarks import suite_report, suite_tables

    lines = record.stored(store)
    if lines:
        suite_report.REPORT.write_text(suite_report.page(lines), encoding="utf-8")
    suite_tables.write_tables(store)


def run(
    names: Sequence[str] = (),
    *,
    rivals: Sequence[str] = (),
    repeats: int = 3,
    device: str | None = None,
    chains: Sequence[int] = (),
    store: Path = STORE,
    pages: bool = True,
) -> list[dict[str, Any]]:
    """Runs cases, prints a line for each system, stores them, and writes the pages.

    Args:
        names: cases or families of them; all that are not opt-in when absent. One whose data are not at hand is
            passed over with a line that says so.
        rivals: names; all when absent. pelton always runs.
        repeats: processes of each system.
        device: cpu or gpu, for those who can choose.
        chains: numbers of chains, each a run of its own, in place of each system's; such lines stand in a picture and
            a table of their own.
        store: the file of JSON lines to add to.
        pages: whether to write report, README and docs from what is stored.

    Raises:
        UnknownNameError: a case or a rival that is not there.
    """
    known = [environments.known(name) for name in rivals]
    made = about() | ({"label": CHAINS} if chains else {})
    lines = []
    cases = chosen(list(names))
    for case in [with_chains(case, number) for case in cases for number in chains] or cases:
        began = time.perf_counter()
        try:
            found = run_case(case, repeats=repeats, rivals=known, device=device, show=None)
        except DataError as error:
            print(f"{case.name}: left out: {error}", flush=True)
            continue
        for line in found:
            record.append(store, line | made)
            print(_words(line), flush=True)
        print(f"{case.name}: {time.perf_counter() - began:.0f} s", flush=True)
        lines += found
        if pages:
            write_all(store)
    return lines


def _words(line: dict[str, Any]) -> str:
    """A line of results in a line of text."""
    start = f"{line['case']}, {line['system']}, {line['chains']} chains"
    if not line["runs"]:
        return f"{start}: {line['status']}: {line['why']}"
    speed = "no speed" if line["warm"] is None else f"{line['warm'][0]:.4g} ESS/s, cold {line['cold'][0]:.4g}"
    far = "" if line["worst_z"] is None else f" (z {line['worst_z']:+.1f}, {line['worst_z_of']})"
    return f"{start}: {line['answer']}{far}, {speed}"


def compare(commit: str, names: Sequence[str] = (), *, repeats: int = 3, store: Path = STORE) -> list[dict[str, Any]]:
    """This checkout against another commit: pelton of each in turns on the same data, as ratios.

    Args:
        commit: anything that git takes for one.
        names: cases; all that are not opt-in when absent.
        repeats: processes of each.
        store: the file of JSON lines to add to.

    Returns:
        case, system, and the ratio of effective draws a second here over there, warm and cold: median, least, greatest.

    Raises:
        ArgumentError: git does not know the commit.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="pelton-commit-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(record.CHECKOUT), "worktree"]
        made = subprocess.run([*git, "add", "--detach", str(tree), commit], capture_output=True, text=True, check=False)
        if made.returncode:
            raise ArgumentError(f"cannot check out {commit!r}: {made.stderr.strip().splitlines()[-1]}")
        try:
            sources = [("here", Path(pelton.__file__).resolve().parents[1]), (commit, tree / "src")]
            for case in chosen(list(names)):
                try:
                    lines = run_case(case, repeats=repeats, show=None, sources=sources)
                except DataError as error:
                    print(f"{case.name}: left out: {error}", flush=True)
                    continue
                for here, there in zip(lines[::2], lines[1::2], strict=True):
                    for line in (here, there):
                        record.append(store, line | about())
                    ratio = against(here, there)
                    row = {"case": case.name, "system": here["system"], "warm": ratio.warm, "cold": ratio.cold}
                    print(_ratio_words(row, here, there), flush=True)
                    found.append(row)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], capture_output=True, check=False)
    return found


def _ratio_words(row: dict[str, Any], here: dict[str, Any], there: dict[str, Any]) -> str:
    start = f"{row['case']}, {row['system']}"
    if row["warm"] is None:
        words = [str(line["answer"] or f"{line['status']} ({line['why']})") for line in (here, there)]
        return f"{start}: no ratio: {words[0]} here, {words[1]} there"
    texts = [f"{kind} {row[kind][0]:.3g} ({row[kind][1]:.3g} to {row[kind][2]:.3g})" for kind in ("warm", "cold")]
    return f"{start}: ESS/s here over there: {', '.join(texts)}"


def main(arguments: list[str] | None = None) -> None:
    """Runs the suite, or makes a case's reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--rivals", nargs="+", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "gpu"])
    parser.add_argument("--chains", type=int, nargs="+", default=[], metavar="N", help="a run at each number of chains")
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--store", type=Path, default=STORE, help="another file of results; then no page is written")
    parser.add_argument("--pages-only", action="store_true", help="write report, README and docs from what is stored")
    parser.add_argument("--reference", nargs=3, metavar=("SYSTEM", "WARMUP", "DRAWS"), help="a long run of one case")
    asked = parser.parse_args(arguments)
    if asked.pages_only:
        write_all(asked.store)
    elif asked.reference:
        name, warmup, draws = asked.reference
        for case in chosen(asked.cases):
            system = next((one for one in case.systems if one.name == name), None)
            if system is None:
                raise UnknownNameError("system", name, [one.name for one in case.systems])
            print(make_reference(case, replace(system, warmup=int(warmup), draws=int(draws))))
    elif asked.against:
        compare(asked.against, asked.cases, repeats=asked.repeats, store=asked.store)
    else:
        run(
            asked.cases,
            rivals=asked.rivals,
            repeats=asked.repeats,
            device=asked.device,
            chains=asked.chains,
            store=asked.store,
            pages=asked.store == STORE,
        )


if __name__ == "__main__":
    main()
