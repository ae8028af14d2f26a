"""Panels in tables of other libraries: the panel of the same table in pandas, or refused in pelton's own words."""

import datetime
import decimal

import numpy as np
import polars as pl
import pyarrow as pa
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import pelton
from tests.fuzz.tally import examples

WEEKS = 8
HOW = {"time": "date", "geo": "geo", "target": "sales", "media": ["tv", "radio"]}
GEOS = ["AT", "CH", "", " AT", "東京", "a\x1b[31m", "café", "1", "nan", "😀", "x" * 300]
DAYS = [datetime.date(2024, 1, 1) + datetime.timedelta(days=7 * week) for week in range(WEEKS)]


def _moments(days):
    return [None if day is None else datetime.datetime.combine(day, datetime.time()) for day in days]


# Ways to hold dates and numbers, of a list of values.
DATES = {
    "date32": lambda days: pa.array(days, pa.date32()),
    "date64": lambda days: pa.array(days, pa.date64()),
    "seconds": lambda days: pa.array(_moments(days), pa.timestamp("s")),
    "nanoseconds": lambda days: pa.array(_moments(days), pa.timestamp("ns")),
    "UTC": lambda days: pa.array(_moments(days), pa.timestamp("us", "UTC")),
    "Vienna": lambda days: pa.array(_moments(days), pa.timestamp("us", "Europe/Vienna")),
    "text": lambda days: pa.array([None if day is None else day.isoformat() for day in days], pa.string()),
    "categories": lambda days: pa.array([None if day is None else day.isoformat() for day in days]).dictionary_encode(),
    "integer": lambda days: pa.array([None if day is None else day.toordinal() for day in days], pa.int32()),
}
NUMBERS = {
    **{str(kind): (lambda values, kind=kind: pa.array(values, kind)) for kind in (pa.int16(), pa.int64(), pa.uint16())},
    **{str(kind): (lambda values, kind=kind: pa.array(values, kind)) for kind in (pa.uint64(), pa.float64())},
    "float32": lambda values: pa.array(values, pa.float32()),
    "decimal": lambda values: pa.array([v if v is None else decimal.Decimal(v) for v in values], pa.decimal128(20, 3)),
    "categories": lambda values: pa.array(values, pa.int64()).dictionary_encode(),
}
ODD = {
    "text": lambda values: pa.array([None if v is None else f"{v}" for v in values], pa.string()),
    "words": lambda values: pa.array(["many"] * len(values)),
    "bool": lambda values: pa.array([None if v is None else v % 2 == 0 for v in values], pa.bool_()),
    "null": lambda values: pa.nulls(len(values)),
    "list": lambda values: pa.array([[1, 2]] * len(values)),
    "struct": lambda values: pa.array([{"a": 1}] * len(values)),
    "map": lambda values: pa.array([[("a", 1)]] * len(values), pa.map_(pa.string(), pa.int64())),
    "binary": lambda values: pa.array([b"\xff"] * len(values)),
    "duration": lambda values: pa.array(values, pa.duration("s")),
    "time": lambda values: pa.array([datetime.time(1)] * len(values)),
    "dates": lambda values: pa.array([DAYS[0]] * len(values)),
    "not a number": lambda values: pa.array([float("nan"), *([1.0] * (len(values) - 1))]),
    "infinite": lambda values: pa.array([float("inf"), *([1.0] * (len(values) - 1))]),
    "huge": lambda values: pa.array([2**64 - 1] * len(values), pa.uint64()),
}


@st.composite
def tables(draw):
    """An Arrow table of geos and dates, of any types and mostly with something odd about it."""
    geos = draw(st.lists(st.sampled_from(GEOS), min_size=1, max_size=2, unique=True))
    rows = WEEKS * len(geos)
    source = np.random.default_rng(draw(st.integers(0, 99)))
    values = {name: source.integers(1, 1000, rows).tolist() for name in ("tv", "radio", "sales")}
    days, places = DAYS * len(geos), [geo for geo in geos for _ in DAYS]
    blank = draw(st.sampled_from([None, None, None, "date", "geo", "tv", "sales"]))
    lists = {"date": days, "geo": places, **values}
    if blank is not None:
        lists[blank][draw(st.integers(0, rows - 1))] = None
    columns = {"date": DATES[draw(st.sampled_from(sorted(DATES)))](lists["date"])}
    geo = pa.array(lists["geo"], pa.string())
    columns["geo"] = geo.dictionary_encode() if draw(st.booleans()) else geo
    for name in values:
        columns[name] = NUMBERS[draw(st.sampled_from(sorted(NUMBERS)))](lists[name])
    if draw(st.booleans()):
        name = draw(st.sampled_from(list(columns)))
        columns[name] = ODD[draw(st.sampled_from(sorted(ODD)))](values["tv"])
    table = pa.table(columns)
    shape = draw(st.sampled_from(["plain", "plain", "plain", "chunks", "empty", "twice", "lacking"]))
    if shape == "chunks":
        return pa.concat_tables([table.slice(0, 3), table.slice(3)])
    if shape == "empty":
        return table.slice(0, 0)
    if shape == "twice":
        return table.append_column(draw(st.sampled_from(list(columns))), table.column("tv"))
    return table.drop_columns([draw(st.sampled_from(list(columns)))]) if shape == "lacking" else table


def others(table):
    """The same table in other libraries, where they can hold it."""
    found = {"pyarrow": table}
    if len(set(table.column_names)) == len(table.column_names):
        found["polars"] = pl.DataFrame(pl.from_arrow(table))
        found["polars, lazy"] = found["polars"].lazy()
        frame = table.to_pandas()
        found["xarray"] = xr.Dataset({name: ("row", frame[name].to_numpy()) for name in frame.columns})
    return found


def fitted(frame):
    """A panel's numbers."""
    return pelton.Panel.from_frame(frame, missing="mask-target", **HOW)


@examples(120)
@given(table=tables())
def test_panels_of_other_libraries(tally, table):
    """Panels of any types, in tables of pandas, pyarrow, polars and xarray, given to `Panel.from_frame`."""
    first = tally.attempt(lambda: fitted(table.to_pandas()))
    for library, other in others(table).items():
        panel = tally.attempt(lambda other=other: fitted(other))
        assert first is None or panel is not None, library
        if first is None or panel is None:
            continue
        assert panel.geos == first.geos, library
        assert np.array_equal(panel.dates, first.dates), library
        for name in ("media", "target", "inside", "observed"):
            assert np.array_equal(getattr(panel, name), getattr(first, name), equal_nan=True), (library, name)
