"""ParquetUnits: successes and trials of units in Parquet files, read in batches and checked on the way."""

import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pelton.engine.errors import ArgumentError, DataError, UnknownNameError
from pelton.models.counts import LARGEST, check_counts

BATCH_ROWS = 1_000_000

type Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Batch:
    """Some rows of the files.

    Attributes:
        successes, trials: int64 [row], checked.
        names: the units' names, an Arrow array [row]; their positions in all files where there is no such column.
        file: which file it is from.
        first: rows of that file before these.
    """

    successes: np.ndarray
    trials: np.ndarray
    names: pa.Array
    file: int
    first: int


@dataclass(frozen=True)
class ParquetUnits:
    """Parquet files with one row a unit, as they were when they were first looked at.

    Attributes:
        paths: of the files, in the order in which they are read.
        sizes, modified: bytes, and nanoseconds since the epoch, of each.
        rows: of each.
        successes, trials: names of the columns of counts.
        unit: the name of the column of names, or None.
        types: Arrow types of these columns, as text.
        batch_rows: most rows at a time.
        groups: row groups of each file that are read; None where all are.
    """

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    modified: tuple[int, ...]
    rows: tuple[int, ...]
    successes: str
    trials: str
    unit: str | None
    types: tuple[str, ...]
    batch_rows: int
    groups: tuple[range, ...] | None = None

    @classmethod
    def of(
        cls, path: Paths, successes: str, trials: str, unit: str | None, batch_rows: int = BATCH_ROWS
    ) -> "ParquetUnits":
        """Looks at the files, and reads their schemas alone.

        Raises:
            DataError: there is no such file, one is no Parquet file, or files have columns of different types.
            UnknownNameError: a file lacks a column; the message lists the nearest.
            ArgumentError: batch_rows is below 1, or a column is asked for twice.
        """
        if not isinstance(batch_rows, int | np.integer) or batch_rows < 1:
            raise ArgumentError(f"batch_rows is a whole number of at least 1, not {batch_rows!r}")
        columns = [name for name in (successes, trials, unit) if name is not None]
        if len(set(columns)) < len(columns):
            raise ArgumentError(f"successes, trials and unit are columns of their own, not {', '.join(columns)}")
        paths = find(path)
        states, rows, types = [_state(file) for file in paths], [], None
        for file in paths:
            schema, length = _opened(file)
            for name in columns:
                if name not in schema.names:
                    raise UnknownNameError("column", name, schema.names)
                if schema.names.count(name) > 1:
                    raise DataError(f"column {name!r} stands {schema.names.count(name)} times in {file!r}")
            found = tuple(str(schema.field(name).type) for name in columns)
            if types is not None and found != types:
                where = next(i for i, pair in enumerate(zip(types, found, strict=True)) if pair[0] != pair[1])
                raise DataError(
                    f"column {columns[where]!r} is {types[where]} in {paths[0]!r} and {found[where]} in {file!r}; "
                    "write the files with one schema"
                )
            types = found
            rows.append(length)
        if not sum(rows):
            raise DataError("the table is empty; there is no unit to fit")
        sizes, modified = zip(*states, strict=True)
        return cls(paths, sizes, modified, tuple(rows), successes, trials, unit, types or (), int(batch_rows))

    def __len__(self) -> int:
        return sum(self.rows)

    @property
    def length(self) -> int:
        """Rows that are read: of the chosen row groups."""
        if self.groups is None:
            return len(self)
        chosen = zip(self.paths, self.groups, strict=True)
        return sum(int(_group_rows(file)[part.start : part.stop].sum()) for file, part in chosen if len(part))

    @property
    def unit_name(self) -> str:
        return self.unit or "unit"

    def share(self, number: int, of: int) -> "ParquetUnits":
        """The number-th of so many shares: neighbouring row groups, of about as many rows as the others have.

        Raises:
            ArgumentError: a share has no row group.
        """
        lengths = [_group_rows(file) for file in self.paths]
        # A group goes where its middle row does.
        middles = np.cumsum(np.concatenate(lengths)) - np.concatenate(lengths) / 2
        owner = np.minimum((middles * of / max(len(self), 1)).astype(int), of - 1)
        if len(set(owner.tolist())) < of:
            raise ArgumentError(
                f"{len(owner)} row groups cannot be shared by {of} processes so that each has some of them; write the "
                "files with smaller row groups, or take fewer processes"
            )
        ends = np.cumsum([0, *map(len, lengths)])
        chosen = [np.flatnonzero(owner[begin:end] == number) for begin, end in itertools.pairwise(ends)]
        return replace(self, groups=tuple(range(at[0], at[-1] + 1) if len(at) else range(0) for at in chosen))

    def check_unchanged(self) -> None:
        """Refuses files that are not what they were.

        Raises:
            DataError: one was changed or is gone; the message names it.
        """
        for file, size, modified in zip(self.paths, self.sizes, self.modified, strict=True):
            try:
                now = _state(file)
            except DataError:
                now = None
            if now != (size, modified):
                what = "is gone" if now is None else "was changed"
                raise DataError(
                    f"{file!r} {what} since the model was made of it; make the model again by "
                    "PartialPooling.from_parquet and sample it, so that both passes read the same units"
                )

    def batches(self) -> Iterator[Batch]:
        """The units, in the order of the files.

        Raises:
            DataError: a value is no count, successes exceed trials, a unit has no name; the message names the row of
                its file, the unit and the value. What is wrong with several rows is counted within the batch.
        """
        columns = [name for name in (self.successes, self.trials, self.unit) if name is not None]
        ends = np.cumsum([0, *self.rows])
        for index, (file, rows) in enumerate(zip(self.paths, self.rows, strict=True)):
            chosen = None if self.groups is None else self.groups[index]
            if chosen is not None and not len(chosen):
                continue
            first, last = 0, rows
            try:
                with pq.ParquetFile(file, pre_buffer=False) as opened:
                    if chosen is not None:
                        lengths = [opened.metadata.row_group(at).num_rows for at in range(chosen.stop)]
                        first, last = sum(lengths[: chosen.start]), sum(lengths)
                    groups = None if chosen is None else list(chosen)
                    for part in opened.iter_batches(batch_size=self.batch_rows, columns=columns, row_groups=groups):
                        yield self._checked(part, index, first, int(ends[index]) + first)
                        first += len(part)
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise DataError(f"{file!r} cannot be read past row {first}: {_short(error)}") from error
            if first != last:
                raise DataError(f"{file!r} had {last} rows and now has {first}; leave it alone while it is read")

    def _checked(self, part: pa.RecordBatch, index: int, first: int, before: int) -> Batch:
        k, n = part.column(self.successes), part.column(self.trials)
        names = pa.array(np.arange(before, before + len(part))) if self.unit is None else part.column(self.unit)
        if pa.types.is_dictionary(names.type):
            names = names.dictionary_decode()
        if _clean(k) and _clean(n) and not _nameless(names):
            successes, trials = (_integers(column) for column in (k, n))
            if successes.min() >= 0 and trials.max() <= LARGEST and not (successes > trials).any():
                return Batch(successes, trials, names, index, first)
        try:
            counts = check_counts(
                k.to_pandas(),
                n.to_pandas(),
                names.to_pylist(),
                successes_name=self.successes,
                trials_name=self.trials,
                unit_name=self.unit_name,
                first=first,
                warn=False,
            )
        except DataError as error:
            if len(self.paths) == 1:
                raise
            raise DataError(f"{self.paths[index]!r}: {error}") from None
        return Batch(counts.successes, counts.trials, names, index, first)


def find(path: Paths) -> tuple[str, ...]:
    """Files of a path, a glob, a folder (all its *.parquet) or a list of these, each once and in the order of names.

    Raises:
        DataError: there is none.
    """
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    found: set[str] = set()
    for each in given:
        text = os.fspath(each)
        if os.path.isdir(text):
            files = [str(file) for file in Path(text).rglob("*.parquet")]
        elif os.path.exists(text):
            files = [text]
        else:
            files = [file for file in glob.glob(text, recursive=True) if os.path.isfile(file)]
        if not files:
            raise DataError(f"there is no Parquet file at {text!r}; give a file, a folder or a pattern like 'stores/*'")
        found.update(files)
    if not found:
        raise DataError("the list of Parquet files is empty")
    return tuple(sorted(found))


def _state(file: str) -> tuple[int, int]:
    try:
        found = os.stat(file)
    except OSError as error:
        raise DataError(f"{file!r} cannot be read: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns


def _opened(file: str) -> tuple[Any, int]:
    try:
        with pq.ParquetFile(file) as opened:
            return opened.schema_arrow, opened.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file!r} is no Parquet file: {_short(error)}") from None


def _group_rows(file: str) -> np.ndarray:
    with pq.ParquetFile(file) as opened:
        about = opened.metadata
        return np.array([about.row_group(at).num_rows for at in range(about.num_row_groups)], np.int64)


def _short(error: Exception) -> str:
    return str(error).splitlines()[0]


def _clean(column: Any) -> bool:
    """Whether it is whole numbers with none missing, the usual case, which needs no look at each row."""
    return pa.types.is_integer(column.type) and not column.null_count


def _integers(column: Any) -> np.ndarray:
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype == np.uint64:
        # Past int64 they would turn negative, and the message would name another value.
        values = np.minimum(values, np.uint64(2**62))
    return values.astype(np.int64, copy=False)


def _nameless(names: Any) -> bool:
    if names.null_count:
        return True
    return pa.types.is_floating(names.type) and bool(np.isnan(names.to_numpy(zero_copy_only=False)).any())
