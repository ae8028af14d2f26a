"""The far side of the boundary: runs one rival on one job in its own environment, and knows nothing of pelton.

`python launch.py --check RIVAL` imports RIVAL/run.py and no more. `python launch.py RIVAL FOLDER` reads FOLDER/job.json
and FOLDER/data.npz, imports RIVAL/run.py, calls its

    fit(job, data) -> {"draws": {name: [chain, draw, ...]}, ...}

and writes FOLDER/draws.npz and FOLDER/result.json. Beside the draws, fit may name seconds "compiling", "warmup" and
"sampling", "gradients" (of the log density, over all chains, after warm-up), "divergences" and "notes".

With "again" in the job a second fit follows in the same process, by another seed, where the first took no longer than
that many seconds: what a rival compiled for the first is at hand for it. Its draws go to again.npz.
"""

import importlib.util
import json
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

# Of the second fit's seed.
NEXT_SEED = 1000


def peak_bytes() -> int:
    """Largest resident memory of this process so far.

    On Linux from VmHWM, which starts afresh with the program: ru_maxrss there is at least the memory of the process
    that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), None)
        if line is not None:
            return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def covered(intervals: list[tuple[float, float]], start: float, end: float) -> float:
    """How much of the time from start to end the intervals cover; they may lie in one another."""
    total, reached = 0.0, start
    for first, last in sorted(intervals):
        total += max(0.0, min(last, end) - max(first, reached))
        reached = max(reached, last)
    return total


class CompileClock:
    """The intervals in which JAX traced, lowered or compiled; none where the rival does without JAX."""

    def __init__(self) -> None:
        self.intervals: list[tuple[float, float]] = []
        if "jax" in sys.modules:
            import jax.monitoring  # pyright: ignore[reportMissingImports]

            jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            self.intervals.append((now - duration_secs, now))


def load(folder: Path, file: str = "run.py") -> ModuleType:
    """A module of the rival's folder."""
    spec = importlib.util.spec_from_file_location(f"rival_{folder.name}", folder / file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"there is no {file} in {folder}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hide_folder() -> None:
    """Takes this file's folder from the path: a rival's folder is called as its package is."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != here]


def versions(packages: list[str]) -> dict[str, str]:
    """Versions of those packages that are installed here, and Python's."""
    found = {"python": sys.version.split()[0]}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main(rival: str, where: str) -> None:
    """Does the job."""
    folder = Path(where)
    job = json.loads((folder / "job.json").read_text())
    hide_folder()
    began = time.perf_counter()
    module = load(Path(__file__).resolve().parent / rival)
    importing = time.perf_counter() - began
    clock = CompileClock()
    import numpy as np

    with np.load(folder / "data.npz") as stored:
        data = {name: stored[name] for name in stored.files}

    fits: list[dict[str, Any]] = []

    def fit(seed: int, file: str) -> float:
        started = time.perf_counter()
        found = module.fit(job | {"seed": seed}, data)
        ended = time.perf_counter()
        np.savez(folder / file, **dict(found.pop("draws")))
        compiling = found.pop("compiling", None)
        if compiling is None:
            compiling = covered(clock.intervals, started, ended)
        fits.append({"seconds": ended - started, "compiling": float(compiling), **found})
        return ended - started

    took = fit(job["seed"], "draws.npz")
    done, peak = time.time(), peak_bytes()
    if took <= job.get("again", -1.0):
        fit(job["seed"] + NEXT_SEED, "again.npz")
    result = {
        "importing": importing,
        "done": done,
        "peak_bytes": peak,
        "fits": fits,
        "versions": versions(getattr(module, "PACKAGES", [])),
    }
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        hide_folder()
        load(Path(__file__).resolve().parent / sys.argv[2])
    else:
        main(*sys.argv[1:])
