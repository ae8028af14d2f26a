"""Bad input: each its own message with row, column, unit, value and remedy, before anything is compiled."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pelton
from pelton.engine.errors import ArgumentError, DataError, DataWarning, PeltonError, UnknownNameError
from pelton.models.counts import check_counts, design, labels


def frame(successes, trials, units=("A", "B", "C")):
    return pd.DataFrame({"store": list(units), "visits": trials, "sales": successes})


def fit(table):
    return pelton.PartialPooling.from_frame(table, successes="sales", trials="visits", unit="store")


@pytest.mark.parametrize(
    ("successes", "trials", "parts"),
    [
        ([1, "two", 3], [10, 10, 10], ["sales", "row 2", "'B'", "'two'"]),
        (["1", "2", "3"], [10, 10, 10], ["sales", "row 1", "'1'", "text"]),
        ([1.0, np.nan, 3], [10, 10, 10], ["sales", "row 2", "'B'", "nan", "missing"]),
        ([1.0, np.inf, 3], [10, 10, 10], ["sales", "row 2", "inf"]),
        ([1, -2, 3], [10, 10, 10], ["sales", "row 2", "-2", "negative"]),
        ([1, 2.5, 3], [10, 10, 10], ["sales", "row 2", "2.5", "whole number"]),
        ([1, 2, 3], [10, 10, 10.5], ["visits", "row 3", "'C'", "10.5"]),
        ([1, 12, 3], [10, 10, 10], ["row 2", "'B'", "12 sales of 10 visits"]),
        ([1, 2, 3], [10, 10, 2**40], ["visits", "row 3", "above the largest count"]),
        ([1, None, 3], [10, 10, 10], ["sales", "row 2", "missing"]),
        ([1, 2 + 1j, 3], [10, 10, 10], ["sales", "complex"]),
        ([1, [2], 3], [10, 10, 10], ["sales", "row 2", "not a number"]),
    ],
)
def test_bad_counts_name_the_place(successes, trials, parts):
    with pytest.raises(DataError) as caught:
        fit(frame(successes, trials))
    for part in parts:
        assert part in str(caught.value)


def test_bad_units():
    with pytest.raises(DataError, match=r"'A' stands in rows 1 and 3"):
        fit(frame([1, 2, 3], [10, 10, 10], ("A", "B", "A")))
    with pytest.raises(DataError, match="row 2 has no name"):
        fit(frame([1, 2, 3], [10, 10, 10], ("A", None, "C")))
    with pytest.raises(DataError, match="3 counts and 2 unit names"):
        check_counts([1, 2, 3], [4, 5, 6], ["A", "B"])


def test_shapes():
    with pytest.raises(DataError, match="empty"):
        fit(frame([], [], ()))
    with pytest.raises(DataError, match="2 successes and 3 trials"):
        check_counts([1, 2], [3, 4, 5])
    with pytest.raises(DataError, match="one number per unit"):
        check_counts(3, 5)
    with pytest.raises(DataError, match="shape"):
        check_counts([[1, 2], [3, 4]], [[5, 6], [7, 8]])


def test_columns():
    table = frame([1, 2, 3], [10, 10, 10])
    with pytest.raises(UnknownNameError, match="did you mean 'sales'"):
        pelton.PartialPooling.from_frame(table, successes="sale", trials="visits")
    doubled = pd.concat([table, table[["sales"]]], axis=1)
    with pytest.raises(DataError, match="stands 2 times"):
        fit(doubled)


def test_usable_with_a_note():
    with pytest.warns(DataWarning, match=r"1 of 3 units have no visits \('B'\)"):
        assert fit(frame([1, 0, 3], [10, 0, 10])).counts.trials[1] == 0
    with pytest.warns(DataWarning, match="one unit only"):
        check_counts([1], [2])


@pytest.mark.parametrize("dtype", ["int8", "uint64", "float32", "Int64", "int64[pyarrow]", "bool"])
def test_column_types(dtype):
    table = frame([1, 0, 1], [1, 1, 1]).astype({"sales": dtype, "visits": dtype})
    assert fit(table).counts.successes.tolist() == [1, 0, 1]


def test_missing_in_nullable_and_arrow_columns():
    for column in (pd.array([1, None, 3], "Int64"), pd.Series(pa.array([1, None, 3]), dtype=pd.ArrowDtype(pa.int64()))):
        table = frame([1, 2, 3], [10, 10, 10]).assign(sales=column)
        with pytest.raises(DataError, match=r"row 2 \(unit 'B'\)"):
            fit(table)


def test_groups_and_covariates():
    with pytest.raises(DataError, match="row 2 is missing"):
        labels(["a", None, "b"], 3, "groups")
    index, names = labels(["b", "a", "b"], 3, "groups")
    assert (index.tolist(), names) == ([0, 1, 0], ("b", "a"))
    with pytest.raises(DataError, match="'size': row 2 is nan"):
        design(pd.DataFrame({"size": [1.0, np.nan, 2.0]}), 3)
    with pytest.raises(DataError, match="not numeric"):
        design(pd.DataFrame({"kind": ["x", "y", "z"]}), 3)
    with pytest.raises(DataError, match="is 4 for every unit"):
        design(pd.DataFrame({"size": [4, 4, 4]}), 3)
    with pytest.raises(DataError, match="'a' and 'b'"):
        design(pd.DataFrame({"a": [1, 2, 3, 5.0], "b": [2, 4, 6, 10.0]}), 4)


values = st.one_of(
    st.integers(-3, 2**40), st.floats(), st.none(), st.text(max_size=3), st.booleans(), st.just(pd.NA), st.just(pd.NaT)
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(values, values), max_size=6))
def test_any_table_is_read_or_refused_in_our_words(rows):
    import warnings

    successes, trials = [row[0] for row in rows], [row[1] for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        try:
            counts = check_counts(successes, trials)
        except PeltonError:
            return
    assert np.all((counts.successes >= 0) & (counts.successes <= counts.trials))


def test_argument_error_is_a_value_error():
    assert issubclass(ArgumentError, ValueError)
    assert issubclass(DataError, ValueError)
