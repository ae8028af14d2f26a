"""A soak: runs on disk, cut short again and again by faults at random, and their draws compared with unbroken runs'.

    python -m pelton.benchmarks.soak [--minutes 20] [--kills 100] [--seed 0]

Each run is begun and gone on with in processes of its own. A fault is one of

- a kill: SIGKILL at a random moment;
- a full disk: every write from a random one on fails, and the process must end with an OutputError;
- a power cut: a kill, after which the files written since the last checkpoint, itself included, lose their ends.

The soak ends when it has lasted and killed as asked for. It prints a line of JSON, and exits with 1 if any draw was
lost or differs.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

RUNS = {
    "threads": {"sampler": "nuts", "chain_method": "threads", "chains": 2},
    "vectorized": {"sampler": "nuts", "chain_method": "vectorized", "chains": 3},
    "warm-up kept": {"sampler": "nuts", "chains": 2, "keep_warmup": True},
    "numpyro": {"sampler": "numpyro-nuts", "chains": 2},
    "ensemble": {"sampler": "chees", "chains": 8},
}
DRAWS = {"threads": 12_000, "vectorized": 12_000, "warm-up kept": 12_000, "numpyro": 6_000, "ensemble": 6_000}
WARMUP = 2500
FULL = "pelton-soak: the disk is full"


def _model() -> Any:
    """Schools of unequal size, not centred: a hierarchy with correlations."""
    import numpyro
    import numpyro.distributions as dist

    import pelton

    def schools(y: Any, sd: Any) -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
        spread = numpyro.sample("spread", dist.HalfNormal(5.0))
        with numpyro.plate("school", 15):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            effect = numpyro.deterministic("effect", mean + spread * z)
            numpyro.sample("y", dist.Normal(effect, sd), obs=y)

    source = np.random.default_rng(0)
    return pelton.from_numpyro(schools, source.normal(3.0, 4.0, 15), source.uniform(1.0, 5.0, 15))


def _child(kind: str, seed: int, path: str, full_after: int) -> None:
    """Begins a run, or goes on with it; with `full_after` every write from that one on fails."""
    import errno
    import os
    import warnings

    import pelton
    from pelton.engine import chains, journal, lines, place

    warnings.simplefilter("ignore")
    # Checkpoints as often as there is time for them: the more is written, the more can go wrong.
    journal.LEAST_SECONDS, journal.COST_IN, chains.LOOK_SECONDS, lines.CHUNK_SECONDS = 0.0, 1.0, 0.02, 0.05
    replace, left = os.replace, [full_after]

    def counted(source: Any, name: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            print(FULL, flush=True)
        if full_after > 0 and left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, name)

    place.os.replace = counted  # pyright: ignore[reportAttributeAccessIssue]
    try:
        if Path(path, ".pelton/run").exists():
            tree = pelton.resume(path, _model())
        else:
            tree = pelton.sample(_model(), warmup=WARMUP, draws=DRAWS[kind], seed=seed, store=path, **RUNS[kind])
    except pelton.errors.OutputError as error:
        print(f"OutputError: {error}", flush=True)
        sys.exit(3)
    print(f"done {tree['posterior'].sizes['draw']}", flush=True)


def _start(kind: str, seed: int, path: Path, log: Path, full_after: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-m", "pelton.benchmarks.soak", "--child", kind, str(seed), str(path), str(full_after)]
    with log.open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def _cut_ends(path: Path, source: random.Random) -> int:
    """Cuts the ends off the files that were written after the last checkpoint but one; how many."""
    written = sorted((path / ".pelton").glob("checkpoint-?"), key=lambda file: file.stat().st_mtime_ns)
    if len(written) < 2:
        return 0
    since = written[0].stat().st_mtime_ns
    late = [file for file in path.rglob("*") if file.is_file() and file.stat().st_mtime_ns > since]
    late = [file for file in late if file.name not in ("lock", "run") and file.stat().st_size]
    for file in late:
        data = file.read_bytes()
        file.write_bytes(data[: source.randrange(len(data))])
    return len(late)


def _stage(path: Path) -> str:
    """Where the run was when it was cut short: as its last whole checkpoint says."""
    from pelton.engine.checkpoint import unpacked
    from pelton.engine.errors import StoreError

    found = [(0, "before the first checkpoint")]
    for file in (path / ".pelton").glob("checkpoint-?"):
        try:
            header, _ = unpacked(file.read_bytes(), file.name)
            found.append((header["number"], header["stage"]["phase"]))
        except StoreError:
            continue
    return max(found)[1]


def _same(whole: Any, path: Path) -> tuple[int, int]:
    """Numbers compared, and numbers that differ."""
    import pelton

    found, compared, different = pelton.load(path), 0, 0
    for group in whole.children:
        for name in whole[group].data_vars:
            one, other = np.asarray(whole[group][name]), np.asarray(found[group][name])
            compared += one.size
            equal = one.shape == other.shape and one.dtype == other.dtype
            different += int(np.sum(one != other)) if equal else one.size
    return compared, different


def _fault(
    kind: str, number: int, path: Path, log: Path, source: random.Random, counts: Counter[str], failures: list[str]
) -> bool:
    """Begins the run, or goes on with it, until a fault; False where it was done before."""
    fault = source.choice(["kill", "kill", "kill", "full disk", "power cut"])
    child = _start(kind, number, path, log, source.randrange(1, 400) if fault == "full disk" else 0)
    if fault == "full disk":
        status, text = child.wait(), log.read_text()
        if status == 0:
            return False
        counts["full disks"] += 1
        if status != 3 or "No space left on device" not in text or "Traceback" in text:
            failures.append(f"{kind} {number}: {text[-2000:]}")
        return True
    # A process needs some seconds before it writes; most kills fall after, some before.
    until, early = time.monotonic() + source.uniform(1.0, 25.0), source.random() < 0.1
    before = _checkpoints(path)
    while child.poll() is None and time.monotonic() < until:
        if not early and _checkpoints(path) != before:
            time.sleep(source.choice([0.3, 1.0, 6.0]) * source.random())
            break
        time.sleep(0.02)
    if child.poll() is not None:
        return False
    child.send_signal(signal.SIGKILL)
    child.wait()
    counts["kills"] += 1
    if fault == "power cut":
        counts["power cuts"] += 1
        counts["files cut"] += _cut_ends(path, source)
    return True


def _checkpoints(path: Path) -> dict[str, int]:
    """When each was written."""
    return {file.name: file.stat().st_mtime_ns for file in (path / ".pelton").glob("checkpoint-?")}


def soak(minutes: float, kills: int, seed: int) -> dict[str, Any]:
    """The soak's counts."""
    import warnings

    import pelton

    warnings.simplefilter("ignore")
    source, counts = random.Random(seed), Counter()
    stages: Counter[str] = Counter()
    began, failures = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        number = 0
        while time.monotonic() - began < 60 * minutes or counts["kills"] < kills:
            kind = list(RUNS)[number % len(RUNS)]
            whole = pelton.sample(_model(), warmup=WARMUP, draws=DRAWS[kind], seed=number, **RUNS[kind])
            path, log = Path(folder) / f"{number}.zarr", Path(folder) / f"{number}.log"
            for _ in range(source.randrange(3, 8)):
                if not _fault(kind, number, path, log, source, counts, failures):
                    break
                stages[_stage(path)] += 1
            status = _start(kind, number, path, log).wait()
            text = log.read_text()
            if status or "done" not in text:
                failures.append(f"{kind} {number}: {text[-2000:]}")
            else:
                compared, different = _same(whole, path)
                counts["numbers compared"] += compared
                counts["numbers different"] += different
            counts["runs"] += 1
            number += 1
            print(f"{counts} {stages} {failures}", file=sys.stderr, flush=True)
    return {
        "minutes": round((time.monotonic() - began) / 60, 1),
        **counts,
        "faults by stage": dict(stages),
        "failures": failures,
        "versions": pelton.sample(_model(), warmup=10, draws=10).attrs["versions"],
    }


def main() -> None:
    """Runs the soak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        kind, seed, path, full_after = options.child
        _child(kind, int(seed), path, int(full_after))
        return
    found = soak(options.minutes, options.kills, options.seed)
    print(json.dumps(found))
    sys.exit(1 if found["failures"] or found["numbers different"] else 0)


if __name__ == "__main__":
    main()
