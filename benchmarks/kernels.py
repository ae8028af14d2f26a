"""Benchmark of the kernels: each one's gradient against the straightforward JAX composition and the peers' functions.

    python -m pelton.benchmarks.kernels [KERNEL ...] [--device gpu] [--rounds 15] [--peers NAME ...] [--pages-only]

Every way's loss and gradient are held against float64 first (see `kernel_cases.py`); one that is off gets no time. Then
all take turns, round by round, so that a busy machine slows all alike; peers wait in processes of their own, in their
own environments. A line for each kernel goes to benchmarks/results/kernels.jsonl, from which docs/benchmarks-kernels.md
is written.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from pelton.benchmarks import environments, record
from pelton.benchmarks.kernel_cases import OURS, Case, Way, chosen
from pelton.benchmarks.suite import environment
from pelton.benchmarks.verdicts import spread
from pelton.engine.errors import ArgumentError
from pelton.engine.precision import using

STORE = record.CHECKOUT / "benchmarks" / "results" / "kernels.jsonl"
PEERS = ("pymc_marketing", "meridian")
FAR_BYTES = 256 * 2**20
# A loss or gradient may be off by so much of its largest entry: some hundred epsilons of float32.
LARGEST_ERROR = 1e-5
# Calls of a way in a round: so many seconds' worth, and no more than so many.
ROUND_SECONDS, MOST_CALLS = 0.01, 20
# Seconds within which a peer has to answer.
LIMIT = 300.0


class Timed(NamedTuple):
    """A way that was right, by what it runs."""

    seconds: Callable[[int], list[float]]
    calls: int


class Peer:
    """A rival's process, which builds and runs its kernels as it is told; see rivals/serve.py."""

    def __init__(self, name: str, folder: Path, platform: str) -> None:
        self.name, self.folder = name, folder
        variables = environment(folder, None)
        if platform == "cpu":
            variables |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        command = [str(environments.interpreter(name)), str(environments.RIVALS / "serve.py"), name]
        self.said = (folder / f"{name}.txt").open("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, env=variables, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()
        self.said.close()

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Its answer.

        Raises:
            RuntimeError: it ended, or took longer than `LIMIT` and was ended; the message is its last line.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        timer = threading.Timer(LIMIT, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            self.said.seek(0)
            words = [one.strip() for one in self.said.read().splitlines() if one.strip()]
            raise RuntimeError(words[-1] if words else f"no answer within {LIMIT:.0f} s")
        return json.loads(line)

    def about(self) -> dict[str, Any]:
        """Versions, and the platform of each of its ways."""
        return self.ask(do="about")

    def build(self, case: Case, way: str, options: dict[str, Any]) -> tuple[np.ndarray, ...]:
        """Its loss and gradient.

        Raises:
            RuntimeError: it has no such kernel, or failed.
        """
        data, to = self.folder / f"{case.name}.npz", self.folder / f"{self.name}.npz"
        if not data.exists():
            np.savez(data, **case.arrays)  # pyright: ignore[reportArgumentType]
        why = self.ask(do="build", way=way, file=str(data), options=options, to=str(to)).get("why")
        if why is not None:
            raise RuntimeError(why)
        with np.load(to) as stored:
            return tuple(stored[key] for key in stored.files)

    def seconds(self, way: str, calls: int) -> list[float]:
        """Of so many calls."""
        return self.ask(do="time", way=way, repeats=calls)["seconds"]


def _called(call: Callable[[], Any], calls: int) -> list[float]:
    found = []
    for _ in range(calls):
        began = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - began)
    return found


def error_of(found: Sequence[Any], exact: Sequence[np.ndarray]) -> float:
    """The largest distance from the exact results, as a share of the largest entry of each.

    >>> error_of([np.array([1.0, 2.0])], [np.array([1.0, 4.0])])
    0.5
    """
    return max(
        float(np.abs(np.asarray(one, np.float64) - other).max() / np.abs(other).max())
        for one, other in zip(found, exact, strict=True)
    )


def _compiled(case: Case, way: Way, device: Any) -> tuple[Callable[[], Any], float | None]:
    """A way as a call without arguments, and the bytes that XLA counts for it."""
    if way.plain is not None:
        plain = way.plain
        return lambda: plain(case.arrays), None

    def placed(names: Iterable[str]) -> dict[str, Any]:
        return {name: jax.device_put(case.arrays[name], device) for name in names}

    assert way.loss is not None
    parameters, data = placed(case.wrt), placed(name for name in way.reads if name not in case.wrt)
    program = jax.jit(jax.value_and_grad(way.loss)).lower(parameters, data).compile()
    counted = program.cost_analysis() or {}

    def call() -> Any:
        value, gradient = program(parameters, data)
        return value, *(gradient[name] for name in case.wrt)

    return call, counted.get("bytes accessed")


def copier(size: int, device: Any) -> Callable[[], Any]:
    """Reads an array of so many bytes and writes another."""
    array = jax.device_put(np.zeros(max(1, size // 4), np.float32), device)
    add = jax.jit(lambda x: x + jnp.float32(1.0))
    return lambda: add(array)


def _prepared(
    case: Case, device: Any, peers: Sequence[tuple[Peer, dict[str, Any]]]
) -> tuple[dict[str, Timed], list[dict[str, Any]]]:
    """The ways that are right, ready to run, and a row for every way."""
    exact, ready, rows = case.exact(), {}, []

    def enter(label: str, least: int, prepare: Callable[[], tuple[Any, Callable[[int], list[float]], Any]]) -> None:
        row: dict[str, Any] = {"way": label, "least_bytes": least, "xla_bytes": None, "error": None, "why": None}
        rows.append(row)
        try:
            result, seconds, row["xla_bytes"] = prepare()
        except RuntimeError as error:
            row["why"] = str(error)
            return
        row["error"] = error_of(result, exact)
        if not row["error"] <= LARGEST_ERROR:
            row["why"] = f"off float64 by {row['error']:.1e}, more than {LARGEST_ERROR:.0e}"
            return
        once = statistics.median(seconds(3))
        ready[label] = Timed(seconds, int(np.clip(ROUND_SECONDS / once, 1, MOST_CALLS)))

    for label, way in case.ways.items():

        def prepare(way: Way = way) -> Any:
            call, moved = _compiled(case, way, device)
            return jax.device_get(call()), lambda calls: _called(call, calls), moved

        enter(label, case.least_bytes(label), prepare)
    for peer, about in peers if case.peer is not None else []:
        for name, platform in about["ways"].items():

            def prepare_peer(peer: Peer = peer, name: str = name, platform: str = platform) -> Any:
                if platform != device.platform:
                    raise RuntimeError(f"runs on {platform} alone here")
                options = dict(case.peer or {})
                return peer.build(case, name, options), lambda calls: peer.seconds(name, calls), None

            enter(f"{peer.name}/{name}", case.least_bytes(OURS), prepare_peer)
    return ready, rows


def measure(
    case: Case, *, rounds: int = 15, device: Any = None, peers: Sequence[tuple[Peer, dict[str, Any]]] = ()
) -> dict[str, Any]:
    """Checks and times every way of a case, in turns.

    Args:
        case: of `kernel_cases`.
        rounds: turns of each way.
        device: a JAX device; the default one when absent.
        peers: processes, and what they said of themselves.

    Returns:
        What the results' file keeps: seconds of each way (median over rounds, least, greatest), its time over
        pelton's (the same, of quotients within a round), bytes, and the share of the copy bandwidth of the same rounds.

    Raises:
        ArgumentError: rounds below 1.
    """
    if rounds < 1:
        raise ArgumentError(f"rounds is a whole number of at least 1, not {rounds!r}")
    device = device or jax.devices()[0]
    with using(case.precision), jax.default_device(device):
        ready, rows = _prepared(case, device, peers)
        size = max(row["least_bytes"] for row in rows)
        copies = {"near": copier(size, device), "far": copier(FAR_BYTES, device)}
        for copy in copies.values():
            _called(copy, 2)
        taken: dict[str, list[float]] = {name: [] for name in (*ready, *copies)}
        for _ in range(rounds):
            for name, timed in ready.items():
                taken[name].append(statistics.median(timed.seconds(timed.calls)))
            for name, copy in copies.items():
                taken[name].append(statistics.median(_called(copy, 5 if name == "near" else 1)))
    moved = {"near": 2 * size, "far": 2 * FAR_BYTES}
    speed = {name: moved[name] / statistics.median(taken[name]) for name in copies}
    for row in rows:
        seconds = taken.get(row["way"])
        row |= {"seconds": None, "over_ours": None, "share": None}
        if seconds is None:
            continue
        row["seconds"] = spread(seconds)
        if OURS in ready:
            row["over_ours"] = spread([one / other for one, other in zip(seconds, taken[OURS], strict=True)])
        row["share"] = row["least_bytes"] / row["seconds"][0] / speed["near"]
    return {
        "kernel": case.name,
        "title": case.title,
        "precision": case.precision,
        "platform": device.platform,
        "device": str(device.device_kind),
        "elements": case.elements,
        "shape": list(case.arrays["spend" if "spend" in case.arrays else "trials"].shape),
        "rounds": rounds,
        "copy_bytes": size,
        "copy_bytes_per_second": speed["near"],
        "far_bytes_per_second": speed["far"],
        "ways": rows,
    }


def run(
    names: Sequence[str] = (),
    *,
    rounds: int = 15,
    device: str | None = None,
    peers: Sequence[str] = PEERS,
    shape: tuple[int, int, int] = (50, 208, 30),
    units: int = 100_000,
    store: Path = STORE,
) -> list[dict[str, Any]]:
    """Measures kernels, prints a line for each way, and stores a record for each kernel.

    Args:
        names: of `kernel_cases.cases`; all when absent.
        rounds: turns of each way.
        device: cpu or gpu; JAX's default when absent.
        peers: rivals that have a kernels.py; one whose environment is not there is listed with the reason.
        shape: geos, weeks and channels of the panel.
        units: of the counts.
        store: the file of JSON lines to add to.

    Raises:
        UnknownNameError: a kernel or a rival that is not there.
        ArgumentError: no such device, or rounds below 1.
    """
    try:
        where = jax.devices(device)[0]
    except RuntimeError as error:
        raise ArgumentError(f"there is no device {device!r}: {error}") from error
    found, absent = [], {}
    with tempfile.TemporaryDirectory(prefix="pelton-kernels-") as folder, ExitStack() as stack:
        ready = []
        for name in map(environments.known, peers):
            why = environments.reason(name)
            if why is None:
                peer = stack.enter_context(Peer(name, Path(folder), where.platform))
                try:
                    ready.append((peer, peer.about()))
                except RuntimeError as error:
                    why = str(error)
            if why is not None:
                absent[name] = why
                print(f"{name}: {why}", flush=True)
        made = {
            "machine": record.machine(),
            "commit": record.commit(),
            "versions": record.versions(),
            "peers": {peer.name: about["versions"] for peer, about in ready},
            "absent": absent,
        }
        for case in chosen(list(names), shape=shape, units=units):
            began = time.perf_counter()
            line = measure(case, rounds=rounds, device=where, peers=ready)
            line |= made | {"recorded": datetime.now(UTC).isoformat(timespec="seconds")}
            record.append(store, line)
            for row in line["ways"]:
                print(f"{case.name}, {row['way']}: {_words(row)}", flush=True)
            print(f"{case.name}: {time.perf_counter() - began:.0f} s", flush=True)
            found.append(line)
    return found


def _words(row: dict[str, Any]) -> str:
    if row["seconds"] is None:
        return f"no time: {row['why']}"
    return (
        f"{1e6 * row['seconds'][0]:,.0f} us, {row['over_ours'][0]:.3g} times ours, {row['share']:.3g} of the copy "
        f"bandwidth, {row['error']:.1e} off float64"
    )


def main(arguments: list[str] | None = None) -> None:
    """Measures kernels and writes the page."""
    from pelton.benchmarks.kernel_tables import write_page

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", nargs="*")
    parser.add_argument("--device", choices=["cpu", "gpu"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), help="none after the option: no peers")
    parser.add_argument("--panel", type=int, nargs=3, default=[50, 208, 30], metavar=("GEOS", "WEEKS", "CHANNELS"))
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--store", type=Path, default=STORE, help="another file of results; then no page is written")
    parser.add_argument(
        "--pages-only", action="store_true", help="write docs/benchmarks-kernels.md from what is stored"
    )
    asked = parser.parse_args(arguments)
    if not asked.pages_only:
        run(
            asked.kernels,
            rounds=asked.rounds,
            device=asked.device,
            peers=asked.peers,
            shape=tuple(asked.panel),
            units=asked.units,
            store=asked.store,
        )
    if asked.store == STORE:
        write_page(STORE)


if __name__ == "__main__":
    main()
