"""Strategies for columns, names and tables of every kind that a user may hold."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "../../x",
    "/etc/passwd",
    "..\\..\\x",
    "escape \x1b]0;title\x07 \x1b[31mred",
    "bell \x07",
    "right \u202eto left",
    "two\nlines\r\nand more",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "@SUM(1)",
    "{{7*7}}{% raw %}",
    "$x^2$ \\frac{1}{2}",
    "[bold red]markup[/]",
    "%s %(name)s {0}",
    "喜剧",
    "قناة",
    "😀",
    "'quoted' \"twice\"",
    "a,b;c\td",
    "x" * 10_000,
]

# A lone surrogate is in no encoding, but a Python string may hold one.
names = st.one_of(
    st.sampled_from([*HOSTILE, "NUL \0 within", "lone \ud800", "", " ", "1", "nan", "None"]), st.text(max_size=6)
)

oddities = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["12", "1,234", "12%", "1e3", "NaN", "inf", "0x10", "١٢"]),
    st.sampled_from(
        [
            pd.NA,
            pd.NaT,
            decimal.Decimal("1.5"),
            decimal.Decimal("NaN"),
            decimal.Decimal("sNaN"),
            decimal.Decimal("Infinity"),
            decimal.Decimal("1e400"),
            10**400,
            1j,
            complex("nan"),
            b"12",
            (1, 2),
            [1, 2],
            [],
            {"a": 1},
            {1, 2},
            np.array([1, 2]),
            np.array(3),
            np.float16(2.5),
            np.int8(3),
            np.datetime64("2024-01-01"),
            np.timedelta64(1, "D"),
            datetime.date(2024, 1, 1),
            datetime.timedelta(days=1),
            pd.Timestamp("2024-01-01", tz="Europe/Vienna"),
            pd.Period("2024-01"),
            pd.Interval(0, 1),
            object,
            len,
        ]
    ),
)

_INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
_ARROW = [
    pa.int8(),
    pa.uint64(),
    pa.float32(),
    pa.float64(),
    pa.bool_(),
    pa.string(),
    pa.decimal128(20, 2),
    pa.decimal256(60, 30),
    pa.timestamp("ns", "UTC"),
    pa.timestamp("s"),
    pa.date32(),
    pa.duration("s"),
    pa.list_(pa.int64()),
    pa.struct([("a", pa.int64())]),
    pa.null(),
    pa.binary(),
    pa.dictionary(pa.int32(), pa.string()),
]


def _of(size, values):
    return st.lists(values, min_size=size, max_size=size)


@st.composite
def _arrow(draw, size):
    kind = draw(st.sampled_from(_ARROW))
    plain = {
        pa.int8(): st.integers(-128, 127),
        pa.uint64(): st.integers(0, 2**64 - 1),
        pa.float32(): st.floats(width=32),
        pa.float64(): st.floats(),
        pa.bool_(): st.booleans(),
        pa.string(): st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        pa.decimal128(20, 2): st.decimals(-(10**9), 10**9, places=2),
        pa.decimal256(60, 30): st.decimals(-(10**9), 10**9, places=9),
        pa.timestamp("ns", "UTC"): st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1)),
        pa.timestamp("s"): st.datetimes(),
        pa.date32(): st.dates(),
        pa.duration("s"): st.timedeltas(datetime.timedelta(-99), datetime.timedelta(99)),
        pa.list_(pa.int64()): st.lists(st.integers(0, 9), max_size=2),
        pa.struct([("a", pa.int64())]): st.just({"a": 1}),
        pa.null(): st.none(),
        pa.binary(): st.binary(max_size=3),
        pa.dictionary(pa.int32(), pa.string()): st.sampled_from(["a", "b", "12"]),
    }[kind]
    values = draw(_of(size, st.one_of(plain, st.none())))
    return pd.Series(pd.array(pa.array(values, type=kind), dtype=pd.ArrowDtype(kind)))


@st.composite
def _integers(draw, size):
    dtype = np.dtype(draw(st.sampled_from(_INTEGERS)))
    limits = np.iinfo(dtype)
    return pd.Series(np.array(draw(_of(size, st.integers(limits.min, limits.max))), dtype))


@st.composite
def _floats(draw, size):
    width = draw(st.sampled_from([16, 32, 64]))
    values = st.one_of(st.floats(width=width), st.integers(0, 100).map(float))
    return pd.Series(np.array(draw(_of(size, values)), f"float{width}"))


@st.composite
def _objects(draw, size):
    column = np.empty(size, object)
    for row, value in enumerate(draw(_of(size, oddities))):
        column[row] = value
    return pd.Series(column)


@st.composite
def _categories(draw, size):
    values = st.sampled_from(draw(st.sampled_from([[1, 2, 50], ["1", "b", 2.5, True]])))
    return pd.Series(pd.Categorical(draw(_of(size, st.one_of(values, st.none())))))


@st.composite
def _nullable(draw, size):
    dtype = draw(st.sampled_from(["Int8", "UInt64", "Float32", "boolean", "string"]))
    values = {"boolean": st.booleans(), "string": st.sampled_from(["1", "x", ""])}.get(dtype, st.integers(0, 100))
    return pd.Series(pd.array(draw(_of(size, st.one_of(values, st.none()))), dtype=dtype))


@st.composite
def _times(draw, size):
    start = draw(st.sampled_from(["1700-01-01", "1999-12-31 23:00", "2024-01-01"]))
    column = pd.Series(pd.date_range(start, periods=size, freq="7D", tz=draw(st.sampled_from([None, "UTC"]))))
    return column - column.iloc[0] if size and draw(st.booleans()) else column


def _others(size):
    return st.sampled_from(
        [
            pd.Series(pd.arrays.SparseArray(np.arange(size) % 3)),
            pd.Series(pd.interval_range(0, size, periods=size) if size else pd.Index([], dtype=object)),
            pd.Series(np.arange(size) * 1j),
            pd.Series(pd.period_range("2020", periods=size, freq="M")),
            pd.Series(np.full(size, b"1")),
        ]
    )


def wild(size):
    """A column of any type and content."""
    kinds = (_integers, _floats, _objects, _categories, _arrow, _nullable, _times, _others)
    return st.one_of([kind(size) for kind in kinds])


def whole(size, least, most):
    """A column of whole numbers, in one of the ways to hold them."""
    dtypes = ["int16", "int64", "uint16", "uint64", "float32", "float64", "object", "Int32", "UInt32", "Float64"]
    dtypes += ["category", "int64[pyarrow]", "double[pyarrow]", "bool"]

    def made(drawn):
        values, dtype = drawn
        return pd.Series(values, dtype="int64").astype(dtype)

    return st.tuples(_of(size, st.integers(least, most)), st.sampled_from(dtypes)).map(made)


def labelled(size):
    """A column of names that differ."""
    values = st.lists(st.one_of(names, st.integers(-(2**40), 2**40)), min_size=size, max_size=size, unique_by=str)
    return values.map(lambda found: pd.Series(found, dtype=object))
