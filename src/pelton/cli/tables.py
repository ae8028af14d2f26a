"""Reads the table that a command is given (CSV, TSV, Parquet); text stays text unless a plain number."""

import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pelton.engine.errors import DataError, UnknownNameError
from pelton.examples import text as example_text

EXAMPLE = "example:"
_DELIMITERS = {".tsv": "\t", ".tab": "\t"}
_MISSING = {"", "na", "n/a", "nan", "null", "none", "-nan", "<na>"}
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
# What a file starts with that is no table as text.
_MAGIC = {
    b"PK\x03\x04": "is a spreadsheet or a zip archive; save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "is an old Excel file; save the sheet as CSV",
    b"\x1f\x8b": "is compressed; unpack it first",
    b"\xff\xfe": "is UTF-16 text; save it as UTF-8 (in Excel: CSV UTF-8)",
    b"\xfe\xff": "is UTF-16 text; save it as UTF-8 (in Excel: CSV UTF-8)",
}


@dataclass(frozen=True)
class Columns:
    """Which columns are wanted, and as what: numbers, or labels whose text stays (007 stays 007)."""

    numbers: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Each column once."""
        return tuple(dict.fromkeys((*self.numbers, *self.labels)))


type Wanted = Columns | Callable[[list[str]], Columns]


def read_table(data: str, columns: Wanted) -> tuple[pd.DataFrame, list[str]]:
    """Reads the wanted columns.

    Plain numbers become numbers; anything else ("1,234", "12%", "many") stays text, for the model's check to
    name with its row. Empty cells and NA are missing.

    Args:
        data: path of a CSV, TSV or Parquet file, or example:NAME.
        columns: the wanted ones, or a function that chooses them from the header.

    Returns:
        The table, and notes for the reader.

    Raises:
        DataError: the file is missing, unreadable, empty or no table.
        UnknownNameError: a column is not in it; the message lists the nearest.
    """
    if data.startswith(EXAMPLE):
        return _from_text(example_text(data.removeprefix(EXAMPLE)), data, ",", columns)
    path = Path(data)
    content = _read(path, data)
    if content.startswith(b"PAR1"):
        return _from_parquet(path, data, columns), []
    if path.suffix.lower() in (".parquet", ".pq"):
        raise DataError(f"{data!r} is no Parquet file, though its name says so; write it again, or rename it to .csv")
    for magic, reason in _MAGIC.items():
        if content.startswith(magic):
            raise DataError(f"{data!r} {reason}")
    if b"\0" in content:
        raise DataError(f"{data!r} is no text; give a CSV, TSV or Parquet file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{data!r} is not UTF-8: byte 0x{content[error.start]:02x} in line {line}; save it as UTF-8 (in Excel: CSV "
            "UTF-8)"
        ) from None
    return _from_text(text, data, _DELIMITERS.get(path.suffix.lower()), columns)


def _read(path: Path, data: str) -> bytes:
    try:
        if path.is_dir():
            raise DataError(f"{data!r} is a folder; give a CSV, TSV or Parquet file")
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"there is no file {data!r}{_nearest(path)}") from None
    except ValueError as error:
        raise DataError(f"{data!r} cannot be the name of a file: {error}") from None
    except OSError as error:
        raise DataError(f"{data!r} cannot be read: {error.strerror or error}") from None
    if not content.strip():
        raise DataError(f"{data!r} is empty")
    return content


def _nearest(path: Path) -> str:
    """Names in the same folder that may have been meant."""
    import difflib

    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()][:10_000]
    except OSError:
        return f"; nor a folder {str(path.parent)!r}" if not path.parent.is_dir() else ""
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(str(path.parent / name)) for name in near)}?" if near else ""


def _wanted(header: Sequence[str], columns: Wanted) -> Columns:
    if not isinstance(columns, Columns):
        columns = columns([str(name) for name in header])
    counted = Counter(header)
    for name in columns.all:
        if name not in counted:
            raise UnknownNameError("column", name, [str(known) for known in header])
        if counted[name] > 1:
            raise DataError(f"column {name!r} stands {counted[name]} times in the table; name its columns apart")
    return columns


class _Lines:
    """Lines of a text, empty in place of comments.

    Above the header every line that starts with # is a comment. Below it, where a unit may be called #summer,
    only a line with another number of fields than the header is.

    Attributes:
        fields: of the header, set once it is read.
        kept: numbers of the lines below the header that start with # and are rows.
    """

    def __init__(self, text: str, delimiter: str):
        self.text = text
        self.delimiter = delimiter
        self.fields: int | None = None
        self.kept: list[int] = []

    def __iter__(self) -> Iterator[str]:
        quoted = False
        for number, line in enumerate(io.StringIO(self.text, newline=""), start=1):
            if not quoted and line.startswith("#"):
                if self.fields is None or len(next(self.reader([line]))) != self.fields:
                    # An empty line keeps the reader's line numbers right, and is no row.
                    yield "\n"
                    continue
                self.kept.append(number)
            quoted ^= line.count('"') % 2 == 1
            yield line

    def reader(self, lines: Iterable[str]) -> Any:
        return csv.reader(lines, delimiter=self.delimiter, skipinitialspace=self.delimiter != "\t")


def _from_text(text: str, data: str, delimiter: str | None, columns: Wanted) -> tuple[pd.DataFrame, list[str]]:
    top = next((line for line in _Lines(text, ",") if line.strip()), None)
    if top is None:
        raise DataError(f"{data!r} is empty; it holds comments alone")
    if delimiter is None:
        # Spreadsheets separate by semicolons where the comma is the decimal sign.
        delimiter = next((mark for mark in ",;\t|" if mark in top), ",")
    lines = _Lines(text, delimiter)
    reader = lines.reader(lines)
    try:
        header = [name.strip() for name in next(row for row in reader if any(row))]
        lines.fields = len(header)
        columns = _wanted(header, columns)
        found: list[list[str]] = [[] for _ in columns.all]
        places = [header.index(name) for name in columns.all]
        for row in reader:
            if len(row) == len(header):
                for column, place in zip(found, places, strict=True):
                    column.append(row[place])
            elif "".join(row).strip():
                raise DataError(
                    f"{data!r}, line {reader.line_num}: {len(row)} fields where the header has {len(header)}; put a "
                    "name or number that holds the separator in quotes"
                )
    except csv.Error as error:
        raise DataError(f"{data!r}, line {reader.line_num}: {error}") from None
    if not found[0]:
        raise DataError(f"{data!r}: the table is empty; it has a header and no rows")
    notes = []
    if lines.kept:
        notes.append(
            f"rows that start with '#' were read as data, {len(lines.kept)} of them (first: line {lines.kept[0]}); "
            "delete them if they are meant as comments"
        )
    texts = dict(zip(columns.all, found, strict=True))
    read = {name: _label(texts[name]) if name in columns.labels else _numbers(texts[name]) for name in columns.all}
    return pd.DataFrame(read), notes


def _label(texts: list[str]) -> pd.Series:
    return pd.Series([text if text.strip() else None for text in texts], dtype=object)


def _numbers(texts: list[str]) -> pd.Series:
    """Plain numbers as numbers; anything else as it stands."""
    if all(_WHOLE.fullmatch(text.strip()) for text in texts):
        return pd.Series(np.array(texts, dtype=object).astype(np.int64))
    return pd.Series([_number(text) for text in texts], dtype=object)


def _number(text: str) -> Any:
    bare = text.strip()
    if bare.lower() in _MISSING:
        return np.nan
    if _WHOLE.fullmatch(bare):
        return int(bare)
    return float(bare) if _NUMBER.fullmatch(bare) else text


def _from_parquet(path: Path, data: str, columns: Wanted) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        # pandas keeps an index of equal steps in the file's notes alone.
        kept = [index for index in (schema.pandas_metadata or {}).get("index_columns", []) if isinstance(index, dict)]
        indexes = [str(index["name"]) for index in kept if index.get("name") is not None]
        columns = _wanted([*schema.names, *indexes], columns)
        stored = [name for name in columns.all if name in schema.names]
        frame = pq.read_table(path, columns=stored).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{data!r} is no whole Parquet file: {str(error).splitlines()[0]}") from None
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    if frame.empty:
        raise DataError(f"{data!r}: the table is empty; it has columns and no rows")
    for name in columns.labels:
        frame[name] = frame[name].astype(object)
        for row, value in enumerate(frame[name]):
            if isinstance(value, str) and "\0" in value:
                raise DataError(f"{name}: row {row + 1} is {value!r}; leave the NUL character out of the name")
    return frame


def refuse_text(frame: pd.DataFrame, names: Sequence[str], unit: str | None) -> None:
    """Refuses columns of covariates that hold something else than numbers.

    Raises:
        DataError: names column, row, unit and value.
    """
    for name in names:
        for row, value in enumerate(frame[name]):
            if isinstance(value, str):
                where = f"row {row + 1}" + (f" (unit {frame[unit].iloc[row]!r})" if unit else "")
                raise DataError(
                    f"covariate {name!r}: {where} holds the text {value!r}; give numbers, a category as 0/1 columns"
                )
        # What is neither text nor a number, a date say, the model refuses.
        with contextlib.suppress(TypeError, ValueError):
            frame[name] = frame[name].astype(float)
