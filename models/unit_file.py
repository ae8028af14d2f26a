"""write_unit_summary: the second pass over units in Parquet files, which writes each unit's rate to Parquet."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from pelton.engine.errors import ArgumentError, OutputError, PeltonError
from pelton.engine.hosts import Hosts, packed, unpacked
from pelton.models.mixtures import Wanted, coarse, quantile_names, summarise, top_thresholds
from pelton.models.nodes import Nodes, nodes_for
from pelton.models.parquet import Batch
from pelton.models.partial_pooling import PartialPooling
from pelton.models.streamed import ParquetPooling, check_tree
from pelton.models.tally import pair_key, pair_of

# Rows of a row group: enough to compress well, few enough for readers that take one at a time.
ROW_GROUP = 1_000_000


@dataclass(frozen=True)
class UnitFile:
    """What `write_unit_summary` wrote, and how.

    Attributes:
        path: of the file.
        units: its rows.
        pairs: distinct pairs of counts, whose units share a posterior; None where they were too many to hold.
        draws: of the hyperparameters in the tree.
        nodes: points that stand for these draws; as many as there are different draws where each was used.
        error: largest difference that this made to the probabilities that were tried.
        top_rate: mean over draws of the rate above which `top` units are expected; None without `top`.
    """

    path: Path
    units: int
    pairs: int | None
    draws: int
    nodes: int
    error: float
    top_rate: float | None


def write_unit_summary(
    tree: xr.DataTree,
    model: ParquetPooling | PartialPooling,
    path: str | os.PathLike[str],
    *,
    threshold: float | None = None,
    top: int | None = None,
    quantiles: Sequence[float] = (0.03, 0.97),
    row_group: int = ROW_GROUP,
) -> UnitFile:
    """Reads the units of a `PartialPooling.from_parquet` model again, and writes their rates to a Parquet file.

    Given draws d of the hyperparameters a unit's rate has the mixture of Beta(alpha_d + k, beta_d + n - k). Mean, sd,
    quantiles and P(rate > threshold) are those of the mixture; no rates are drawn. Units with equal counts have equal
    posteriors, which are worked out once. For many distinct counts a few weighted points stand for the draws, chosen so
    that probabilities change by less than 1e-7 (`pelton.models.nodes`).

    P(among the top k) is approximated: t_d is the rate that k units exceed in expectation given draw d,
    sum_i P(theta_i > t_d | d) = k, and p_top the mean over draws of P(theta_i > t_d | d). It treats the rate of the
    k-th unit as known given d. That rate's own chance vanishes as units grow, and p_top sums to k over units; of 2,000
    units it is within 0.02 of full ranks. `pelton.ranking` counts ranks where units fit the memory.

    The file is written beside its place and takes it when it is whole. Hosts write a file each, of the units that each
    has read, into a folder of that name: part-00000.parquet and so on, in the order of the files read. Where there are
    more than four million distinct pairs of counts, posteriors are worked out batch by batch, and the thresholds t_d
    from cells of like counts (trials within 3%, the rarer outcome within an eighth of its standard deviation) that a
    pass of their own fills.

    Args:
        tree: of `pelton.sample(model)`.
        model: of `PartialPooling.from_parquet`.
        path: of the file to write, or of the folder where the model has hosts; what stands there is replaced.
        threshold: a rate between 0 and 1; adds the column p_above.
        top: how many units are at the top; adds the column p_top.
        quantiles: probabilities between 0 and 1.
        row_group: most rows of a row group.

    Returns:
        A record of what was written. The file has one row a unit, in the order of the files read: the unit's name
        (under its column's name), successes, trials, raw (k/n; null without trials), mean, sd, q03, q97 and so on,
        p_above and p_top.

    Raises:
        ArgumentError: threshold, top, quantiles or row_group are out of range, the model is not of files, or the path
            is one of the files read.
        DataError: the tree is not the model's, or a file was changed since the model was made.
        OutputError: the file cannot be written; what stood there before is untouched.
        HostError: another of the hosts has failed or is gone.

    >>> import tempfile, pelton, pandas
    >>> folder = tempfile.TemporaryDirectory()
    >>> pelton.simulate_stores(500).to_parquet(f"{folder.name}/stores.parquet")
    >>> model = pelton.PartialPooling.from_parquet(
    ...     f"{folder.name}/stores.parquet", successes="conversions", trials="impressions", unit="store"
    ... )
    >>> written = write_unit_summary(pelton.sample(model), model, f"{folder.name}/rates.parquet", top=10)
    >>> table = pandas.read_parquet(written.path)
    >>> list(table.columns)
    ['store', 'successes', 'trials', 'raw', 'mean', 'sd', 'q03', 'q97', 'p_top']
    >>> round(float(table["p_top"].sum()), 3)
    10.0
    >>> folder.cleanup()
    """
    target = Path(path)
    if not isinstance(model, ParquetPooling):
        raise ArgumentError(
            "write_unit_summary takes a model of PartialPooling.from_parquet; the units of this one are in memory, and "
            "pelton.unit_table(tree).to_parquet(path) writes them"
        )
    _check(model, target, threshold, top, quantiles, row_group)
    model.source.check_unchanged()
    check_tree(tree, model)
    mean, concentration = (
        np.asarray(tree["posterior"][name], np.float64).ravel() for name in ("logit_mu", "log_kappa")
    )
    wanted = Wanted(tuple(quantiles), threshold)
    if model.pairs is not None:
        k, n, units = model.pairs.successes, model.pairs.trials, model.pairs.units
    else:
        k, n, units = _cells(model) if top is not None else _some(model)
    nodes = nodes_for(mean, concentration, k, n)
    top_rate = None
    if top is not None:
        everyone = top >= len(model.source)
        rates = np.zeros(len(nodes)) if everyone else top_thresholds(k, n, units, nodes, int(top))
        wanted, top_rate = replace(wanted, top=rates), float(nodes.weight @ rates)
    lookup = _shared(model, nodes, wanted) if model.pairs is not None else _each(nodes, wanted)
    record = UnitFile(
        target,
        len(model.source),
        None if model.pairs is None else len(k),
        len(mean),
        len(nodes),
        nodes.error,
        top_rate,
    )
    with _aside(target) if model.hosts is None else _aside_together(target, model.hosts) as scratch:
        _write(model, lookup, scratch, int(row_group), tree, record)
        model.source.check_unchanged()
    return record


def _check(
    model: ParquetPooling,
    target: Path,
    threshold: float | None,
    top: int | None,
    quantiles: Sequence[float],
    row_group: int,
) -> None:
    if threshold is not None and not 0 <= threshold <= 1:
        raise ArgumentError(f"threshold is a rate between 0 and 1, not {threshold!r}")
    if top is not None and (not isinstance(top, int | np.integer) or top < 1):
        raise ArgumentError(f"top is a whole number of at least 1, not {top!r}")
    if not isinstance(row_group, int | np.integer) or row_group < 1:
        raise ArgumentError(f"row_group is a whole number of at least 1, not {row_group!r}")
    if any(not 0 < p < 1 for p in quantiles):
        raise ArgumentError(f"quantiles are probabilities between 0 and 1, not {list(quantiles)!r}")
    names = quantile_names(quantiles)
    taken = ["successes", "trials", "raw", "mean", "sd", *names, "p_above", "p_top"]
    if len(set(names)) < len(names):
        raise ArgumentError(f"quantiles are named by whole percents, and {list(quantiles)!r} share a name")
    if model.source.unit_name in taken:
        raise ArgumentError(
            f"the column of names is called {model.source.unit_name!r}, as a column of the summary; rename it"
        )
    if any(Path(file).resolve().is_relative_to(target.resolve()) for file in model.source.paths):
        raise ArgumentError(f"{str(target)!r} is one of the files that are read, or holds one; write to another")
    if model.hosts is not None and target.exists() and _stranger(target):
        raise ArgumentError(f"{str(target)!r} is no folder of units that hosts wrote; choose another place")


def _stranger(target: Path) -> bool:
    return not target.is_dir() or any(not re.fullmatch(r"part-\d{5,}\.parquet", file.name) for file in target.iterdir())


def _shared(model: ParquetPooling, nodes: Nodes, wanted: Wanted) -> Callable[[Batch], dict[str, np.ndarray]]:
    """Columns of a batch from those of the distinct pairs, worked out once."""
    pairs = model.pairs
    assert pairs is not None
    columns = summarise(pairs.successes, pairs.trials, nodes, wanted)
    table = None
    if len(pairs.key) and pairs.key[-1] < 8 * len(pairs.key) + 2**22:
        # Keys are nearly dense: a table finds the pair without a search.
        table = np.zeros(int(pairs.key[-1]) + 1, np.int32)
        table[pairs.key] = np.arange(len(pairs.key), dtype=np.int32)

    def of(batch: Batch) -> dict[str, np.ndarray]:
        key = pair_key(batch.successes, batch.trials)
        at = np.searchsorted(pairs.key, key) if table is None else table[key]
        return {name: values[at] for name, values in columns.items()}

    return of


def _each(nodes: Nodes, wanted: Wanted) -> Callable[[Batch], dict[str, np.ndarray]]:
    """Columns of a batch, whose own distinct pairs are worked out."""

    def of(batch: Batch) -> dict[str, np.ndarray]:
        keys, at = np.unique(pair_key(batch.successes, batch.trials), return_inverse=True)
        return {name: values[at] for name, values in summarise(*pair_of(keys), nodes, wanted).items()}

    return of


def _some(model: ParquetPooling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first batch's counts, by which nodes are chosen where pairs are not held."""
    # Of all hosts the same.
    batch = next(model.source.batches())
    return batch.successes, batch.trials, np.ones(len(batch.trials))


def _cells(model: ParquetPooling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean successes, mean trials and units of cells of like counts, by a pass of its own."""
    total: Any = pd.DataFrame()
    for batch in model.batches():
        rows = pd.DataFrame({"k": batch.successes, "n": batch.trials, "units": 1}, dtype=np.float64)
        found: Any = rows.groupby(coarse(batch.successes, batch.trials)).sum()
        total = found if total.empty else pd.concat([total, found]).groupby(level=0).sum()
    if model.hosts is not None:
        own = packed(cell=total.index.to_numpy(), **{name: total[name].to_numpy() for name in total.columns})
        every = [pd.DataFrame(unpacked(data)).set_index("cell") for data in model.hosts.gather(own)]
        total = pd.concat(every).groupby(level=0).sum()
    units = total["units"].to_numpy()
    return total["k"].to_numpy() / units, total["n"].to_numpy() / units, units


def _tables(model: ParquetPooling, lookup: Callable[[Batch], dict[str, np.ndarray]]) -> Iterator[pa.Table]:
    for batch in model.batches():
        k, n = batch.successes, batch.trials
        raw = np.divide(k, n, out=np.full(len(k), np.nan), where=n > 0)
        columns: dict[str, Any] = {
            model.source.unit_name: batch.names,
            "successes": k,
            "trials": n,
            "raw": pa.array(raw, from_pandas=True),
        }
        yield pa.table(columns | lookup(batch))


def _write(
    model: ParquetPooling,
    lookup: Callable[[Batch], dict[str, np.ndarray]],
    scratch: Path,
    row_group: int,
    tree: xr.DataTree,
    record: UnitFile,
) -> None:
    about = {
        "pelton.model": repr(model),
        "pelton.status": tree.attrs.get("status", ""),
        "pelton.seed": tree.attrs.get("seed", ""),
        "pelton.draws": record.draws,
        "pelton.nodes": record.nodes,
        "pelton.error": record.error,
    }
    tables = _regrouped(_tables(model, lookup), row_group)
    first = next(tables)
    schema = first.schema.with_metadata({key: str(value) for key, value in about.items()})
    # One thread writes a row group while the next is made; it ends before the file is closed.
    with (
        pq.ParquetWriter(scratch, schema, compression="zstd", compression_level=1) as writer,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting: Future[None] = pool.submit(writer.write_table, first, row_group)
        for table in tables:
            waiting.result()
            waiting = pool.submit(writer.write_table, table, row_group)
        waiting.result()


def _regrouped(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Tables of that many rows each, the last one with what is left."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        while sum(map(len, held)) >= rows:
            together = pa.concat_tables(held)
            yield together.slice(0, rows)
            held = [together.slice(rows)] if len(together) > rows else []
    if held:
        yield pa.concat_tables(held)


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A file to write beside the target, whose place it takes at the end; if writing fails, it is gone.

    Raises:
        OutputError: the operating system refuses.
    """
    scratch: Path | None = None
    try:
        with _refused(target):
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
            os.close(handle)
            scratch = Path(name)
            yield scratch
            _complete(scratch, 0o666)
            os.replace(scratch, target)
    finally:
        if scratch is not None:
            scratch.unlink(missing_ok=True)


@contextmanager
def _aside_together(target: Path, hosts: Hosts) -> Iterator[Path]:
    """This host's file in a folder beside the target, whose place the folder takes once all files are whole."""

    made: list[Path] = []

    def begin() -> bytes:
        with _refused(target):
            made.append(Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-")))
        return str(made[0]).encode()

    try:
        scratch = Path(hosts.first(begin).decode())
        with _refused(target):
            yield (part := scratch / part_name(hosts.index))
            _complete(part, 0o666)
        hosts.gather(b"")
        if hosts.index == 0:
            with _refused(target):
                _complete(scratch, 0o777)
                if target.exists():
                    before = scratch.with_name(f"{scratch.name}-before")
                    os.replace(target, before)
                os.replace(scratch, target)
        hosts.gather(b"")
    finally:
        for scratch in made:
            before = scratch.with_name(f"{scratch.name}-before")
            if before.exists() and not target.exists():
                # The new folder could not take its place.
                os.replace(before, target)
            for left in (scratch, before):
                shutil.rmtree(left, ignore_errors=True)


def part_name(host: int) -> str:
    """The file of a host in the folder of all."""
    return f"part-{host:05}.parquet"


def _complete(written: Path, mode: int) -> None:
    """Puts it on the disk for good, as open to others as any file of results."""
    handle = os.open(written, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    umask = os.umask(0)
    os.umask(umask)
    written.chmod(mode & ~umask)


@contextmanager
def _refused(target: Path) -> Iterator[None]:
    """What the operating system refuses, as an OutputError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PeltonError):
            raise
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(f"cannot write {str(target)!r}: {reason}; choose another place") from error
