"""Faults of a panel's table: each its own message with geo, date, row, column, value and remedy."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pelton.engine.errors import ArgumentError, DataWarning, PeltonError, UnknownNameError
from tests.models.panels import put, read, refused, same, table


def test_unsorted():
    message = refused(table().iloc[[0, 2, 1, *range(3, 24)]])
    assert "geo 'AT': row 3 has 2024-01-14, after 2024-01-21 in row 2" in message
    assert "df = df.sort_values(['geo', 'date'])" in message
    assert "format=" not in message
    written = table().assign(date=lambda frame: frame["date"].dt.strftime("%d/%m/%Y"))
    assert "pd.to_datetime(df['date'], format=...)" in refused(written.iloc[::-1])
    assert "row 2 has 2024-03-17" in refused(table().iloc[11::-1], geo=None)
    same(read(table()), read(table().iloc[::-1].sort_values(["geo", "date"])))


def test_duplicated():
    message = refused(pd.concat([table(), table().iloc[[14]]]))
    assert "geo 'CH', date 2024-01-21 stands in rows 15 and 25" in message
    message = refused(table(), geo=None)
    assert "date 2024-01-07 stands in rows 1 and 13 (12 rows repeat a date)" in message
    assert "geo=" in message


def test_unreadable():
    text = table().assign(date=lambda frame: frame["date"].dt.strftime("%Y-%m-%d"))
    message = refused(put(text, 14, "date", "week 3"))
    for part in ("date: row 15 (geo 'CH') is 'week 3'", "not a date that can be read", "pd.to_datetime"):
        assert part in message
    for value in (None, np.nan, pd.NaT):
        assert "row 5 (geo 'AT') has no date (1 such)" in refused(put(table(), 4, "date", value))
    assert "row 1 (geo 'AT') is 20240107, which is not a date" in refused(table().assign(date=20240107))
    assert "row 5 (geo 'AT') is 3.5, which is not a date" in refused(put(table(), 4, "date", 3.5))
    timed = table().assign(date=lambda frame: frame["date"] + pd.Timedelta(hours=9))
    assert "has a time of day" in refused(timed)
    assert "(24 such rows)" in refused(timed)


def test_day_and_month_in_doubt():
    months = pd.date_range("2024-01-01", periods=12, freq="MS").strftime("%d/%m/%Y")
    message = refused(table().assign(date=list(months) * 2))
    for part in ("'01/02/2024' is 2024-02-01 if written %d/%m/%Y", "2024-01-02 if written %m/%d/%Y", "format="):
        assert part in message


def test_mixed_frequencies():
    weeks = table()
    monthly = weeks.assign(date=[*weeks["date"][:12], *pd.date_range("2024-01-01", periods=12, freq="MS")])
    message = refused(monthly)
    for part in ("mixed frequencies: geo 'CH' has months", "weeks dated on Sundays (W-SUN)", "row 13", "2024-01-01"):
        assert part in message
    mondays = weeks.assign(date=[*weeks["date"][:12], *(weeks["date"][12:] + pd.Timedelta(days=1))])
    mondays = pd.concat([mondays, table(12, ["DE"])])
    message = refused(mondays)
    assert "geo 'CH' has weeks dated on Mondays (W-MON), as in row 13" in message
    # The remedy is one that works.
    code = message.split("for instance with ")[1]
    exec(code, {"df": mondays, "pd": pd})
    assert read(mondays).frequency == "W-SUN"
    daily = weeks.assign(date=[*weeks["date"][:12], *pd.date_range("2024-01-07", periods=12)])
    message = refused(daily)
    assert "mixed frequencies: geo 'AT' steps by 7 days from row 1" in message
    assert "the table has days (D)" in message
    within = [*pd.date_range("2024-01-01", periods=8), *pd.date_range("2024-01-15", periods=4, freq="7D")]
    assert "mixed frequencies: geo 'AT' steps by 7 days at a time from row 8" in refused(weeks.assign(date=within * 2))
    stray = put(weeks, 5, "date", pd.Timestamp("2024-02-13"))
    message = refused(stray)
    assert "mixed frequencies: row 6 (geo 'AT', date 2024-02-13), a Tuesday" in message


@pytest.mark.parametrize(("step", "suggested", "count"), [("14D", "W-SUN", 14), ("QS", "MS", 92), ("5D", "D", 5)])
def test_other_frequencies(step, suggested, count):
    start = "2024-01-01" if step == "QS" else "2024-01-07"
    frame = table().assign(date=list(pd.date_range(start, periods=12, freq=step)) * 2)
    message = refused(frame)
    assert f"the dates step by {count} days most often" in message
    assert f"frequency={suggested!r} with missing='impute-zero-spend'" in message
    assert read(frame, frequency=suggested, missing="impute-zero-spend").frequency == suggested


def test_missing_weeks():
    message = refused(table().drop(index=[3, 4, 8, 15]))
    for part in ("geo 'AT' lacks 3 of the 12 weeks", "2024-01-28, 2024-02-04, 2024-03-03.", "'CH' 1"):
        assert part in message
    assert "impute-zero-spend" in message
    message = refused(table(40).drop(index=range(10, 30)))
    assert "lacks 20 of the 40 weeks between its first and its last: 2024-03-17" in message
    assert "and 15 more" in message
    many = pd.concat([table(6, [f"g{number}"]).drop(index=2) for number in range(9)])
    assert "'g5' 1 and 3 more geos" in refused(many)
    # Masking targets is no leave to add rows.
    assert "lacks 1 of" in refused(table().drop(index=3), missing="mask-target")


def test_missing_choices():
    with pytest.raises(UnknownNameError, match="unknown choice of missing 'impute'; did you mean 'impute-zero-spend'"):
        read(table(), missing="impute")
    assert "choose" in refused(table(), ArgumentError, missing=["error", "mask-target"])
    same(read(table()), read(table(), missing=["impute-zero-spend", "mask-target"]))


# Faults of values.


@pytest.mark.parametrize(
    ("column", "value", "parts"),
    [
        ("tv", -5.0, ["media 'tv'", "-5.0", "negative", "refunds"]),
        ("tv", np.nan, ["media 'tv'", "nan", "missing", "write 0"]),
        ("tv", None, ["media 'tv'", "None", "missing"]),
        ("tv", np.inf, ["media 'tv'", "inf", "not finite"]),
        ("tv", "1,200", ["media 'tv'", "'1,200'", "not a number", "pd.to_numeric"]),
        ("tv", "12", ["media 'tv'", "'12'", "not a number"]),
        ("tv", [1], ["media 'tv'", "[1]", "not a number"]),
        ("price", np.nan, ["control 'price'", "missing", "interpolation"]),
        ("price", "high", ["control 'price'", "'high'", "pd.get_dummies"]),
        ("price", -np.inf, ["control 'price'", "-inf", "not finite"]),
        ("sales", np.nan, ["target 'sales'", "missing", "missing='mask-target'"]),
        ("sales", pd.NA, ["target 'sales'", "missing"]),
        ("sales", np.inf, ["target 'sales'", "not finite"]),
        ("sales", "n/a", ["target 'sales'", "'n/a'", "not a number"]),
        ("holiday", np.nan, ["event 'holiday'", "missing", "write 0"]),
        ("holiday", "Easter", ["event 'holiday'", "'Easter'", "pd.get_dummies"]),
        ("money", -1.0, ["spend 'money'", "-1.0", "negative"]),
        ("money", np.nan, ["spend 'money'", "missing"]),
        ("people", np.nan, ["population 'people'", "missing"]),
    ],
)
def test_bad_values_name_the_place(column, value, parts):
    frame = put(table().assign(money=1.0), 15, column, value)
    message = refused(frame, events=["holiday"], spend=["money", "radio"], population="people")
    for part in [*parts, "row 16 (geo 'CH', date 2024-01-28)"]:
        assert part in message


def test_bad_columns():
    assert "complex" in refused(table().assign(tv=1j))
    assert "not a number" in refused(table().assign(tv=table()["date"]))
    assert "(24 such rows)" in refused(table().assign(price="high"))
    # The row is the table's, whatever the order that geos are read in.
    mixed = table().sort_values("date", kind="stable", ignore_index=True)
    assert "row 6 (geo 'CH', date 2024-01-21)" in refused(put(mixed, 5, "tv", -1.0))


def test_columns_without_information():
    frame = table()
    assert "media 'tv' is 0 in every row" in refused(frame.assign(tv=0.0))
    assert "spend 'free' is 0 in every row" in refused(frame.assign(free=0), spend=["people", "free"])
    flat = np.where(frame["geo"] == "CH", 7.0, frame["sales"])
    assert "target 'sales' of geo 'CH' is 7 on every date" in refused(frame.assign(sales=flat))
    assert "control 'price' is 2 in every row" in refused(frame.assign(price=2))
    assert "event 'holiday' is 0 in every row" in refused(frame.assign(holiday=0), events=["holiday"])
    panel = read(frame.assign(tv=np.where(frame["geo"] == "CH", 0.0, frame["tv"])))
    assert not panel.media[1, :, 0].any()


def test_too_few():
    assert "geo 'CH' has 1 row; a geo needs at least two" in refused(table().iloc[:13])
    seen = table()
    seen.loc[13:, "sales"] = np.nan
    assert "geo 'CH' has 1 date with a target" in refused(seen, missing="mask-target")
    assert "the table is empty" in refused(table().iloc[:0])


def test_bad_geos():
    for value in (None, np.nan, pd.NA):
        assert "geo: row 4 has no name (1 such)" in refused(put(table(), 3, "geo", value))
    assert "geo: row 4 has the name ' '" in refused(put(table(), 3, "geo", " "))
    assert "'1' stands there both as text and as a number" in refused(table().assign(geo=[1] * 12 + ["1"] * 12))
    assert read(table().assign(geo=[1] * 12 + [2] * 12)).geos == ("1", "2")


def test_bad_population():
    frame = table()
    message = refused(put(frame, 14, "people", 0.0), population="people")
    assert "row 15 (geo 'CH', date 2024-01-21) is 0; a population is above 0" in message
    message = refused(put(frame, 14, "people", 5e6), population="people")
    assert "varies within geo 'CH': 8e+06, but 5e+06 in row 15" in message


def test_bad_settings():
    frame = table()
    with pytest.raises(UnknownNameError, match="unknown column 'radoi'; did you mean 'radio'"):
        read(frame, media=["tv", "radoi"])
    with pytest.raises(UnknownNameError, match="unknown column 'day'"):
        read(frame, time="day")
    assert "'tv' is named twice, as media and as control" in refused(frame, ArgumentError, controls=["tv"])
    assert "'tv' is named twice, as media and as media" in refused(frame, ArgumentError, media=["tv", "tv"])
    assert "'tv' is named twice, as media and as spend" in refused(frame, ArgumentError, spend=["people", "tv"])
    assert "write media=['tv']" in refused(frame, ArgumentError, media="tv")
    assert "write controls=['price']" in refused(frame, ArgumentError, controls="price")
    assert "at least one channel" in refused(frame, ArgumentError, media=[])
    assert "stands 2 times" in refused(pd.concat([frame, frame[["tv"]]], axis=1))
    assert "2 media columns and 1 channels" in refused(frame, ArgumentError, channels=["a"])
    assert "names one twice" in refused(frame, ArgumentError, channels=["a", "a"])
    assert "'sales' has the name of another column" in refused(frame, ArgumentError, channels=["a", "sales"])
    assert "2 channels and 1 spend columns" in refused(frame, ArgumentError, spend=["people"])
    assert "no column for channel 'radio'" in refused(frame, ArgumentError, spend={"tv": "people"})
    with pytest.raises(UnknownNameError, match="unknown channel 'tvv'; did you mean 'tv'"):
        read(frame, spend={"tvv": "people", "radio": "radio"})


@pytest.mark.parametrize("rows", [12, 24])
def test_collinear_controls(rows):
    rng = np.random.default_rng(4)
    frame = table().iloc[:rows]
    close = frame["price"] + rng.normal(0, 0.1, rows) + 50 * (frame["geo"] == "CH")
    with pytest.warns(DataWarning) as caught:
        read(frame.assign(promotion=close), controls=["price", "promotion"])
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "control 'price' and control 'promotion' are collinear" in message
    stated = float(message.split("correlation of ")[1].split(" ", maxsplit=1)[0])
    # Centred and scaled by geo, then over all rows.
    scaled = [
        np.concatenate(
            [(values[geo] - values[geo].mean()) / values[geo].std() for geo in frame.groupby("geo").indices.values()]
        )
        for values in (frame["price"].to_numpy(), close.to_numpy())
    ]
    assert stated == pytest.approx(np.corrcoef(scaled)[0, 1], abs=5e-4)


def test_collinear_otherwise():
    frame = table()
    with pytest.warns(DataWarning, match=r"'tv' and media 'radio' are collinear, with a correlation of 1\.000"):
        read(frame.assign(radio=3 * frame["tv"]))
    with pytest.warns(DataWarning, match=r"correlation of -1\.000"):
        read(frame.assign(cost=-frame["price"]), controls=["price", "cost"])
    with pytest.warns(DataWarning, match="'people' does not change over time within any geo"):
        read(frame, controls=["price", "people"])
    total = (frame["price"] - 3) / 1.0 + (frame["tv"] - 100) / 100
    with pytest.warns(DataWarning, match="each is a sum of the others"):
        read(frame.assign(total=total), controls=["price", "total"])


anything = st.one_of(
    st.integers(-3, 2**40), st.floats(), st.none(), st.text(max_size=3), st.booleans(), st.just(pd.NA), st.just(pd.NaT)
)
dated = st.one_of(
    st.dates(pd.Timestamp("2024-01-01").date(), pd.Timestamp("2024-01-31").date()),
    st.sampled_from(["2024-01-01", "2024-01-08", "1/2/24", "x", ""]),
    anything,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.one_of(st.sampled_from(["a", "b"]), anything), dated, *[st.one_of(st.floats(0, 9), anything)] * 3),
        max_size=8,
    )
)
def test_any_table_is_read_or_refused_in_our_words(rows):
    frame = pd.DataFrame(rows, columns=["geo", "date", "tv", "price", "sales"], dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        try:
            panel = read(frame, media=["tv"], missing=["impute-zero-spend", "mask-target"])
        except PeltonError:
            return
    assert np.isfinite(panel.media).all()
    assert (panel.observed.sum(axis=1) >= 2).all()
