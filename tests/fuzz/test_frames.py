"""Tables of other libraries, and Parquet files: read as pandas reads them, or refused in pelton's own words."""

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import pelton
from tests.fuzz.tally import examples

CHEAP = pelton.FixedBeta(2, 8)
COUNTS = {
    **{f"int{bits}": getattr(pa, f"int{bits}")() for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": getattr(pa, f"uint{bits}")() for bits in (8, 16, 32, 64)},
    "float32": pa.float32(),
    "float64": pa.float64(),
    "decimal": pa.decimal128(12, 2),
}
ODD = {
    "bool": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.sampled_from(["3", "many", "", "1e3"])),
    "null": (pa.null(), st.none()),
    "date": (pa.date32(), st.dates(datetime.date(1990, 1, 1), datetime.date(2050, 1, 1))),
    "duration": (pa.duration("s"), st.timedeltas(datetime.timedelta(0), datetime.timedelta(9))),
    "list": (pa.list_(pa.int64()), st.lists(st.integers(0, 3), max_size=2)),
    "struct": (pa.struct([("a", pa.int64())]), st.fixed_dictionaries({"a": st.integers(0, 3)})),
    "binary": (pa.binary(), st.binary(max_size=2)),
    "uint64": (pa.uint64(), st.integers(2**63, 2**64 - 1)),
}
UNITS = {
    "text": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)),
    "large text": (pa.large_string(), st.sampled_from(["A", "B", "C", "é", "東京", " ", "a b", "1"])),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from("ABCDEFGH")),
    "integer": (pa.int32(), st.integers(-5, 5)),
    "number": (pa.float64(), st.floats(-5, 5)),
    "day": (pa.date32(), st.dates(datetime.date(2020, 1, 1), datetime.date(2020, 2, 1))),
    "moment": (
        pa.timestamp("us", tz="Europe/Vienna"),
        st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2020, 2, 1)),
    ),
}


@st.composite
def tables(draw, rows=None):
    """An Arrow table of counts and names, mostly with something odd about it."""
    size = draw(st.sampled_from([0, 1, 2, 4, 7])) if rows is None else rows
    columns = {}
    for name, low, high in (("k", 0, 20), ("n", 20, 99)):
        values = draw(st.lists(st.integers(low, high), min_size=size, max_size=size))
        kind = draw(st.sampled_from(sorted(COUNTS)))
        if kind == "decimal":
            values = [decimal.Decimal(value) for value in values]
        columns[name] = pa.array(values, COUNTS[kind])
    kind, values = UNITS[draw(st.sampled_from(sorted(UNITS)))]
    # A table has names only once, and a row in twenty none.
    unique = draw(st.lists(values, min_size=size, max_size=size, unique=draw(st.sampled_from([True, True, False]))))
    columns["unit"] = _array(unique, kind)
    if draw(st.integers(0, 2)) == 0:
        name = draw(st.sampled_from(sorted(columns)))
        kind, values = ODD[draw(st.sampled_from(sorted(ODD)))]
        columns[name] = _array(draw(st.lists(values, min_size=size, max_size=size)), kind)
    if size and draw(st.integers(0, 3)) == 0:
        name, row = draw(st.sampled_from(sorted(columns))), draw(st.integers(0, size - 1))
        mask = np.arange(size) == row
        values = [None if hit else value for hit, value in zip(mask, columns[name].to_pylist(), strict=True)]
        columns[name] = _array(values, columns[name].type)
    return pa.table(columns)


def _array(values, kind):
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, kind)


def fitted(frame):
    """What a model has of a table, or the class of its refusal."""
    model = pelton.PartialPooling.from_frame(frame, successes="k", trials="n", unit="unit", prior=CHEAP)
    return [str(unit) for unit in model.counts.units], model.counts.successes.tolist(), model.counts.trials.tolist()


@examples(150)
@given(table=tables(), chunked=st.booleans())
def test_tables_of_other_libraries(tally, table, chunked):
    """Arrow tables of any types, as pyarrow's, polars' and xarray's, given to `PartialPooling.from_frame`."""
    if chunked:
        table = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    found = tally.attempt(lambda: fitted(table))
    others: dict[str, Any] = {"polars": pl.from_arrow(table)}
    if found is not None and table.num_rows:
        frame = table.to_pandas()
        others["pandas"] = frame
        others["xarray"] = xr.Dataset({name: ("row", frame[name].to_numpy()) for name in ("k", "n", "unit")})
    for library, other in others.items():
        again = tally.attempt(lambda other=other: fitted(other))
        if found is not None and again is not None:
            assert again[1:] == found[1:], library


@examples(60)
@given(parts=st.lists(tables(), min_size=1, max_size=3), group=st.integers(1, 5), damage=st.integers(0, 7))
def test_parquet_files(tally, tmp_path_factory, parts, group, damage):
    """Parquet files of any types, some cut short or with a byte changed, given to `PartialPooling.from_parquet`."""
    folder = tmp_path_factory.mktemp("parquet")
    for number, part in enumerate(parts):
        pq.write_table(part, folder / f"{number}.parquet", row_group_size=group)
    if damage < 2:
        file = folder / "0.parquet"
        data = bytearray(file.read_bytes())
        if damage == 0:
            del data[len(data) // 2 :]
        else:
            data[len(data) // 3] ^= 0x55
        file.write_bytes(data)

    def read():
        model = pelton.PartialPooling.from_parquet(folder, successes="k", trials="n", unit="unit", prior=CHEAP)
        assert int(model.trials.units.sum()) == len(model.source)
        return model

    model = tally.attempt(read)
    if model is None or damage == 1:
        return
    frame = pd.concat([part.to_pandas() for part in parts], ignore_index=True)
    assert np.array_equal(
        np.repeat(model.successes.values, model.successes.units), np.sort(frame["k"].to_numpy().astype(np.int64))
    )
    assert np.array_equal(
        np.repeat(model.trials.values, model.trials.units), np.sort(frame["n"].to_numpy().astype(np.int64))
    )
