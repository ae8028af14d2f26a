"""What partial pooling of many stores costs from Parquet files: seconds and peak memory of both passes.

    python -m pelton.benchmarks.many_stores [--stores 1000000 10000000] [--most-trials 160] [--folder DIR]
                                            [--processes 1 2]

Stores are simulated to Parquet files in blocks, with a text name, trials uniform between 60 and the most, and rates
from Beta(2.5, 8). A process of its own then reads the files, samples and writes every store's summary. The
hyperparameters are compared with the truth in posterior standard deviations, and the written intervals by how many hold
the true rate. With --processes the same is done by the command line, `pelton fit --stream` and
`pelton fit --distributed` by so many processes on this machine, and their seconds are recorded.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 1_000_000
ALPHA, BETA = 2.5, 8.0
LEAST_TRIALS = 60
THRESHOLD = 0.3
# The interval is between the 3% and 97% points.
COVERAGE = 0.94


def simulate(folder: Path, stores: int, most_trials: int, files: int = 4) -> None:
    """Writes stores-0.parquet and so on: store, visits, sales and true_rate."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = np.random.default_rng(stores)
    ends = np.linspace(0, stores, files + 1).astype(np.int64)
    schema = pa.schema(
        [("store", pa.string()), ("visits", pa.int32()), ("sales", pa.int32()), ("true_rate", pa.float32())]
    )
    for index, (start, end) in enumerate(pairwise(ends.tolist())):
        with pq.ParquetWriter(folder / f"stores-{index}.parquet", schema) as writer:
            for first in range(start, end, BLOCK):
                size = min(BLOCK, end - first)
                rate = source.beta(ALPHA, BETA, size)
                visits = source.integers(LEAST_TRIALS, most_trials, size, endpoint=True)
                numbers = pa.array(np.arange(first, first + size)).cast(pa.string())
                columns = {
                    "store": numbers,
                    "visits": pa.array(visits.astype(np.int32)),
                    "sales": pa.array(source.binomial(visits, rate).astype(np.int32)),
                    "true_rate": pa.array(rate.astype(np.float32)),
                }
                writer.write_table(pa.table(columns, schema=schema))


def measure(folder: Path) -> dict[str, Any]:
    """Both passes in this process, and what they cost."""
    from pelton.benchmarks.rivals.launch import peak_bytes

    marks = [time.perf_counter()]

    def mark() -> float:
        marks.append(time.perf_counter())
        return round(marks[-1] - marks[-2], 2)

    import pelton

    # A public name is loaded on first use.
    made = pelton.PartialPooling
    seconds = {"import": mark()}
    model = made.from_parquet(folder / "stores-*.parquet", successes="sales", trials="visits", unit="store")
    seconds["first_pass"] = mark()
    tree = pelton.sample(model, progress=False)
    seconds["sample"] = mark()
    top = max(1, len(model.source) // 1000)
    record = pelton.write_unit_summary(tree, model, folder / "rates.parquet", threshold=THRESHOLD, top=top)
    seconds["second_pass"] = mark()
    found = {
        "stores": record.units,
        "pairs": record.pairs,
        "seconds": seconds | {"all": round(marks[-1] - marks[0], 2)},
        "peak_gigabytes": round(peak_bytes() / 2**30, 2),
        "written_gigabytes": round(record.path.stat().st_size / 2**30, 2),
        "nodes": record.nodes,
        "error": record.error,
        "top": top,
        "converged": bool(tree.attrs["converged"]),
        "least_ess_bulk": float(tree.attrs["least_ess_bulk"]),
    }
    for name, truth in (
        ("logit_mu", np.log(ALPHA / BETA)),
        ("log_kappa", np.log(ALPHA + BETA)),
        ("alpha", ALPHA),
        ("beta", BETA),
    ):
        draws = np.asarray(tree["posterior"][name])
        found[name] = {
            "mean": float(draws.mean()),
            "sd": float(draws.std()),
            "truth": float(truth),
            "z": round(float((draws.mean() - truth) / draws.std()), 2),
        }
    return found


def shared(folder: Path, processes: int) -> float:
    """Seconds of `pelton fit` by so many processes, from their start to the end of the last."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, "-m", "pelton.cli.main", "fit", str(folder / "stores-*.parquet"), "--stream"]
        command += ["--successes", "sales", "--trials", "visits", "--unit", "store", "--quiet", "--out", f"{out}/out"]
        many = ["--distributed", "--coordinator", address, "--processes", str(processes), "--process"]
        began = time.perf_counter()
        started = [
            subprocess.Popen([*command, *many, str(number)] if processes > 1 else command)
            for number in range(processes)
        ]
        statuses = [process.wait() for process in started]
        if any(statuses):
            raise RuntimeError(f"a fit by {processes} processes failed; its message stands above")
        return round(time.perf_counter() - began, 2)


def check(folder: Path) -> dict[str, Any]:
    """The written rates against the simulated ones: coverage, P(rate > threshold) and P(top) as frequencies."""
    import pyarrow.parquet as pq

    files = sorted(folder.glob("stores-*.parquet"))
    rates = np.concatenate([pq.read_table(file, columns=["true_rate"])["true_rate"].to_numpy() for file in files])
    rows, inside, above, expected, top = 0, 0, 0, 0.0, 0.0
    written = pq.ParquetFile(folder / "rates.parquet")
    for part in written.iter_batches(BLOCK, columns=["store", "q03", "q97", "p_above", "p_top"]):
        # Stores are named by their positions.
        if part.column("store")[0].as_py() != str(rows):
            raise AssertionError("the rows written are not in the order of those read")
        rate = rates[rows : rows + len(part)]
        low, high, chance, among = (part.column(name).to_numpy() for name in ("q03", "q97", "p_above", "p_top"))
        inside += int(((rate >= low) & (rate <= high)).sum())
        above, expected, top = above + int((rate > THRESHOLD).sum()), expected + chance.sum(), top + among.sum()
        rows += len(part)
    error = np.sqrt(COVERAGE * (1 - COVERAGE) / rows)
    return {
        "rows": rows,
        "coverage": inside / rows,
        "coverage_z": round(float((inside / rows - COVERAGE) / error), 2),
        "above_threshold": above,
        "above_threshold_expected": round(float(expected)),
        "sum_of_p_top": round(float(top), 3),
    }


def main() -> None:
    """Runs the sizes asked for and prints a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stores", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--most-trials", type=int, default=160)
    parser.add_argument("--folder", help="where the files go; by default a temporary folder")
    parser.add_argument("--processes", type=int, nargs="*", default=[], help="also by the command line, so many each")
    parser.add_argument("--here", metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here is not None:
        print(json.dumps(measure(Path(options.here))))
        return
    for stores in options.stores:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            simulate(folder, stores, options.most_trials)
            command = [sys.executable, "-m", "pelton.benchmarks.many_stores", "--here", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            seconds = {str(count): shared(folder, count) for count in options.processes}
            found |= {"most_trials": options.most_trials} | ({"seconds_of_processes": seconds} if seconds else {})
            print(json.dumps(found | check(folder)), flush=True)


if __name__ == "__main__":
    main()
