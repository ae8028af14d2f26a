"""Inputs that random trials found to end in a foreign exception or warning, each with the message it has now."""

import datetime
import warnings

import numpy as np
import pandas as pd
import pytest

import pelton
from pelton.engine.errors import ArgumentError, DataError, DataWarning
from pelton.models.counts import check_counts, design
from pelton.models.media_config import read_config
from tests.models.panels import put, refused, table


def rates(**changed):
    frame = pd.DataFrame({"k": [1, 2, 3], "n": 9, "unit": ["a", "b", "c"], "x": [1.0, 2.0, 4.0]})
    return frame.assign(**changed)


def model(frame, **how):
    return pelton.PartialPooling.from_frame(frame, **{"successes": "k", "trials": "n", "unit": "unit", **how})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pd.to_timedelta([1, 2, 3], unit="D"), "holds durations"),
        ([1, 2, np.timedelta64(1, "D")], "not a number"),
        ([1, 2, b"3"], "not a number"),
        ([1, 2, 10**400], "not finite"),
        ([1, 2, datetime.date(2024, 1, 1)], "not a number"),
        (np.array([1, 2, 9e4], np.float64).astype(np.float32), "9 n; k are at most n"),
    ],
)
def test_counts(values, words):
    with pytest.raises(DataError, match=words):
        model(rates(k=pd.Series(values)))


def test_float16_counts_are_compared_in_full():
    assert check_counts(np.array([1, 2], np.float16), np.array([60000, 9], np.float16)).trials.tolist() == [60000, 9]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a\0b", "NUL"),
        ("a\ud800", "surrogate"),
        ([1], "a list, which is no name"),
        ({"a": 1}, "a dict, which is no name"),
    ],
)
def test_names_that_no_file_can_hold(name, words):
    column = pd.Series([name, "b", "c"], dtype=object)
    for how in ({}, {"groups": "g"}, {"segments": "g"}):
        with pytest.raises(DataError, match=words):
            model(rates(unit=column) if not how else rates(g=column), **how)
    frame = table()
    frame["geo"] = pd.Series([name if geo == "AT" else geo for geo in frame["geo"]], dtype=object)
    assert ("lists or tables" if "no name" in words else words) in refused(frame)
    if isinstance(name, str):
        assert words in refused(table(), channels=["tv", name])
        frame = rates()
        frame.columns = pd.Index(["k", "n", "unit", name], dtype=object)
        with pytest.raises(DataError, match=words):
            model(frame, covariates=[name])


def test_covariates():
    assert model(rates(), covariates=[]).covariates is None
    with pytest.raises(DataError, match="'x' stands 2 times"):
        model(rates(), covariates=["x", "x"])
    with pytest.raises(DataError, match="no column"):
        design(pd.DataFrame(index=range(3)), 3)
    for scale in (1e200, 5e-324):
        with pytest.raises(DataError, match="another unit"):
            model(rates(x=np.array([1.0, 2.0, 4.0]) * scale), covariates=["x"])


def test_panels_of_huge_and_tiny_numbers():
    for column in ("sales", "tv", "price"):
        for scale in (1e300, 1e-300):
            assert "give the column in another unit" in refused(table().assign(**{column: table()[column] * scale}))
    assert "lists or tables" in refused(put(table(), 3, "date", [1, 2]))
    # Too small to be squared beside what is not: constant, as far as can be computed.
    frame = table()
    frame.loc[frame["geo"] == "AT", "price"] = np.arange(12) * 1e-200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DataWarning)
        pelton.Panel.from_frame(frame, time="date", geo="geo", target="sales", media=["tv"], controls=["price"])


@pytest.mark.parametrize("trend", ["{name = {a = 1}}", "{name = 3}", '{name = "piecewise", changepoints = ["a"]}'])
def test_trends(tmp_path, trend):
    file = tmp_path / "mix.toml"
    file.write_text(f'[data]\ntime = "week"\ntarget = "sales"\n[channels.tv]\n[model]\ntrend = {trend}\n')
    with pytest.raises(ArgumentError, match=r"\[model\] trend.* must be a"):
        read_config(file)
