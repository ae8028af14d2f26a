"""Tables of any library as pandas DataFrames: the one place where a frame is converted."""

from collections.abc import Iterable
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import xarray as xr

from pelton.engine.errors import DataError, UnknownNameError

_TAKEN = "pandas, polars, pyarrow, xarray or another library that Narwhals reads"


def to_pandas(frame: Any, what: str = "the table") -> pd.DataFrame:
    """The table as a pandas DataFrame; one that is a DataFrame already is returned as it is.

    Args:
        frame: a DataFrame of pandas or polars, a LazyFrame (collected), a pyarrow Table, an xarray Dataset or named
            DataArray (one row for each combination of its coordinates, which become columns; combinations without any
            value are left out), or any frame that Narwhals reads.
        what: what the table stands for, in the messages.

    Raises:
        DataError: it is no table, one with two columns of one name, or an xarray DataArray without a name.

    >>> import pyarrow as pa
    >>> to_pandas(pa.table({"store": ["A", "B"], "visits": [100, 80]}))
      store  visits
    0     A     100
    1     B      80
    """
    if isinstance(frame, pd.DataFrame):
        return frame
    if isinstance(frame, xr.Dataset | xr.DataArray):
        return _from_xarray(frame, what)
    try:
        found = nw.from_native(frame, pass_through=True)
        if isinstance(found, nw.LazyFrame):
            found = found.collect()
    except nw.exceptions.DuplicateError as error:
        said = " ".join(str(error).split())
        raise DataError(f"{what} has two columns of one name; name its columns apart ({said})") from None
    if not isinstance(found, nw.DataFrame):
        raise DataError(f"{what} comes as a frame of {_TAKEN}, not as {type(frame).__name__}")
    return found.to_pandas()


def is_table(value: Any) -> bool:
    """Whether `to_pandas` takes the value.

    >>> is_table(pd.DataFrame({"x": [1]})), is_table([1, 2])
    (True, False)
    """
    if isinstance(value, pd.DataFrame | xr.Dataset | xr.DataArray):
        return True
    try:
        return isinstance(nw.from_native(value, pass_through=True), nw.DataFrame | nw.LazyFrame)
    except nw.exceptions.DuplicateError:
        # A table all the same; `to_pandas` says what is wrong with it.
        return True


def listed(values: Any) -> list[Any]:
    """The values of a column, of any library, as Python objects.

    >>> import pyarrow as pa
    >>> listed(pa.chunked_array([["A", "B"]])), listed(pd.Index([1, 2])), listed(("x", "y"))
    (['A', 'B'], [1, 2], ['x', 'y'])
    """
    if isinstance(values, xr.DataArray):
        values = values.values
    if isinstance(values, np.ndarray | pd.Series | pd.Index):
        return values.tolist()
    found = nw.from_native(values, series_only=True, pass_through=True)
    return found.to_list() if isinstance(found, nw.Series) else list(values)


def column(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column by its name.

    Raises:
        UnknownNameError: it is not in the table; the message lists the nearest.
        DataError: its name stands twice in the table.
    """
    if name not in frame.columns:
        raise UnknownNameError("column", name, map(str, frame.columns))
    found = frame[name]
    if isinstance(found, pd.DataFrame):
        raise DataError(f"column {name!r} stands {found.shape[1]} times in the table; name its columns apart")
    return found


def check_name(name: Any, what: str) -> None:
    """Refuses a name that no file can hold: results are written under it.

    Args:
        name: of a column, unit, geo or channel.
        what: where it stands, for the message.

    Raises:
        DataError: it is a list or the like, or text with a NUL character or half a surrogate pair in it.
    """
    try:
        hash(name)
    except TypeError:
        kind = type(name).__name__
        raise DataError(f"{what} is {str(name)[:60]!r}, a {kind}, which is no name; give text or a number") from None
    if not isinstance(name, str) or name.isprintable():
        return
    if "\0" in name:
        raise DataError(f"{what} is {name!r}; leave the NUL character out of the name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{what} is {name!r}, which is no whole text: half a surrogate pair is left of a wrong decoding; read the "
            "file again as what it is, UTF-8 say, or correct the name"
        ) from None


def check_names(values: Iterable[Any], what: str, first: int = 0) -> None:
    """`check_name` of each row's name, the first of them that of row `first`, counted from 0.

    Raises:
        DataError: as there; the message names the row.
    """
    for row, value in enumerate(values):
        # Most are plain, and may be many.
        if type(value) is not int and not (type(value) is str and value.isprintable()):
            check_name(value, f"{what}: row {first + row + 1}")


def _from_xarray(data: xr.Dataset | xr.DataArray, what: str) -> pd.DataFrame:
    if isinstance(data, xr.DataArray):
        if data.name is None:
            raise DataError(f"{what} is an xarray DataArray without a name; name its column by .rename('sales')")
        data = data.to_dataset()
    table = data.to_dataframe(dim_order=_order(data)) if data.dims else data.expand_dims("row").to_dataframe()
    # A Dataset is a full grid: geos that began later have cells without anything in them but what they always have.
    varying = [name for name, values in data.data_vars.items() if set(values.dims) == set(data.dims)]
    return table.dropna(how="all", subset=varying or list(data.data_vars)).reset_index()


def _order(data: xr.Dataset) -> list[Any]:
    """Dimensions with those of time last, so that rows of a geo stand in the order of their dates."""
    dims: Iterable[Any] = data.sizes
    return sorted(dims, key=lambda dim: dim in data.coords and data[dim].dtype.kind == "M")
