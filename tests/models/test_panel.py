"""Panel: the example tables, dense arrays and scales against plain loops, calendars, round trips."""

import dataclasses
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pelton.engine.errors import ArgumentError, DataWarning, UnknownNameError
from pelton.models.panel import Panel
from pelton.models.panel_calendar import FREQUENCIES, Calendar
from tests.models.panels import meridian, ragged, read, refused, same, table

# The example tables, by naming columns only.


def test_countries(cases):
    frame = pd.read_csv(cases / "bhmmm.csv")
    panel = Panel.from_frame(frame, time="Date", geo="Country", target="Sales", media=["TV", "Radio", "Banners"])
    assert panel.geos == ("Germany", "Austria", "Switzerland")
    assert panel.weeks.tolist() == [200, 100, 20]
    assert (panel.frequency, panel.period, panel.period_days) == ("W-SUN", "week", 7.0)
    assert panel.target.shape == (3, 200)
    assert panel.media.shape == panel.spend.shape == (3, 200, 3)
    assert not panel.has_spend
    wide = frame.pivot_table(index="Country", columns="Date", values=["Sales", "Radio"])
    for row, geo in enumerate(panel.geos):
        np.testing.assert_array_equal(panel.target[row], wide.loc[geo, "Sales"])
        np.testing.assert_array_equal(panel.media[row, :, 1], wide.loc[geo, "Radio"].fillna(0))
    assert list(panel.dates.astype(str)) == list(wide["Sales"].columns)


def test_meridian(cases):
    frame, panel = meridian(cases)
    assert panel.media.shape == (20, 156, 4)
    assert (panel.frequency, panel.has_spend) == ("W-MON", True)
    assert panel.observed.all()
    at = frame.set_index(["geo", "time"]).loc[("Geo7", "2022-03-14")]
    geo, week = panel.geos.index("Geo7"), panel.dates.tolist().index(pd.Timestamp("2022-03-14").date())
    assert panel.media[geo, week, 2] == at["Channel2_impression"]
    assert panel.spend[geo, week, 2] == at["Channel2_spend"]
    assert panel.controls[geo, week, 1] == at["sentiment_score_control"]
    assert panel.population is not None
    assert panel.population[geo] == at["population"]


def test_pymc_marketing(cases):
    frame = pd.read_csv(cases / "pymc_marketing_two_geos.csv")
    panel = Panel.from_frame(
        frame, time="date", geo="geo", target="y", media=["x1", "x2"], events=["event_1", "event_2"]
    )
    assert panel.media.shape == (2, 159, 2)
    assert panel.event_names == ("event_1", "event_2")
    np.testing.assert_array_equal(panel.events.sum(axis=(0, 1)), frame[["event_1", "event_2"]].sum())
    frame = pd.read_csv(cases / "pymc_marketing_roas.csv")
    panel = Panel.from_frame(frame, time="date", target="y", media=["x1", "x2"])
    assert (panel.geos, panel.geo_name, panel.frequency) == (("all",), "geo", "W-SAT")
    np.testing.assert_array_equal(panel.target[0], frame["y"])


# The dense arrays.


def test_dense_arrays_against_a_loop():
    frame = ragged()
    panel = read(
        frame,
        events=["holiday"],
        spend=["radio", "people"],
        media=["radio", "tv"],
        missing=("impute-zero-spend", "mask-target"),
    )
    dates = list(pd.date_range("2024-01-07", periods=10, freq="W-SUN").date)
    assert panel.dates.tolist() == dates
    assert panel.geos == ("A", "B", "C")
    for g, geo in enumerate(panel.geos):
        mine = frame[frame["geo"] == geo]
        first, last = mine["date"].min(), mine["date"].max()
        for t, date in enumerate(map(pd.Timestamp, dates)):
            row = mine[mine["date"] == date]
            assert panel.inside[g, t] == (first <= date <= last)
            if len(row) == 0:
                expected = mine["price"].mean() if first <= date <= last else 0.0
                np.testing.assert_allclose(panel.controls[g, t], [expected], rtol=1e-14)
                assert not panel.media[g, t].any()
                assert not panel.spend[g, t].any()
                assert not panel.events[g, t].any()
                assert np.isnan(panel.target[g, t])
                assert not panel.observed[g, t]
                continue
            np.testing.assert_array_equal(panel.media[g, t], row[["radio", "tv"]].iloc[0])
            np.testing.assert_array_equal(panel.spend[g, t], row[["radio", "people"]].iloc[0])
            assert panel.controls[g, t, 0] == row["price"].iloc[0]
            assert panel.events[g, t, 0] == row["holiday"].iloc[0]
            np.testing.assert_array_equal(panel.target[g, t], row["sales"].iloc[0])
            assert panel.observed[g, t] == row["sales"].notna().iloc[0]
    assert panel.weeks.tolist() == [7, 7, 4]


def read_back(panel):
    spend = [f"{name}_spend" for name in panel.channels] if panel.has_spend else None
    return Panel.from_frame(
        panel.to_frame(),
        time=panel.time_name,
        geo=panel.geo_name,
        target=panel.target_name,
        media=panel.channels,
        controls=panel.control_names,
        events=panel.event_names,
        spend=spend,
        population=None if panel.population is None else "population",
        missing="mask-target",
        frequency=panel.frequency,
    )


@st.composite
def panels(draw):
    """A table with geos of random lengths, starts and gaps, its columns shuffled, and how to read it."""
    frequency = draw(st.sampled_from(["D", "W-TUE", "W-SUN", "MS", "ME"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dates = pd.date_range("2019-12-20", periods=30, freq=frequency)
    channels = [f"channel {k}" for k in range(draw(st.integers(1, 4)))]
    controls = [f"control {k}" for k in range(draw(st.integers(0, 2)))]
    parts = []
    for geo in draw(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=4, unique_by=str.strip)):
        if not geo.strip():
            continue
        start = draw(st.integers(0, 20))
        length = draw(st.integers(4, 30 - start))
        part = pd.DataFrame(rng.normal(size=(length, len(controls))), columns=controls)
        part[channels] = rng.gamma(0.5, 1e4, (length, len(channels)))
        part["target"], part["geo"], part["date"] = rng.normal(50, 9, length), geo, dates[start : start + length]
        part["people"] = rng.integers(1, 10**6)
        if draw(st.booleans()):
            part.loc[draw(st.integers(0, length - 3)), "target"] = np.nan
        if length > 5 and draw(st.booleans()):
            part = part.drop(index=draw(st.integers(1, length - 3)))
        parts.append(part)
    frame = pd.concat(parts) if parts else pd.DataFrame()
    frame = frame[draw(st.permutations(list(frame.columns)))]
    if len(frame) and draw(st.booleans()):
        frame = frame.sort_values("date", kind="stable")
    settings = {"media": channels, "controls": controls}
    if draw(st.booleans()):
        frame = frame.assign(**{f"money {k}": frame[name] / 7 for k, name in enumerate(channels) if len(frame)})
        settings["spend"] = [f"money {k}" for k in range(len(channels))]
    return frame, frequency, settings


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(panels())
def test_round_trip(drawn):
    frame, frequency, how = drawn
    if not len(frame):
        return
    with warnings.catch_warnings():
        # Few weeks of random numbers may be collinear.
        warnings.simplefilter("ignore", DataWarning)
        panel = Panel.from_frame(
            frame,
            time="date",
            geo="geo",
            target="target",
            population="people",
            missing=["impute-zero-spend", "mask-target"],
            frequency=frequency,
            **how,
        )
        same(panel, read_back(panel))
    known = frame.groupby("geo", sort=False)
    assert panel.geos == tuple(known.groups)
    np.testing.assert_array_equal(panel.observed.sum(axis=1), known["target"].count())
    np.testing.assert_allclose(panel.media.sum(axis=1), known[how["media"]].sum())
    long = panel.to_frame()
    merged = frame.merge(long, on=["geo", "date"], suffixes=("", " read"))
    assert len(merged) == len(frame)
    np.testing.assert_array_equal(merged["target"], merged["target read"])
    for column in how["media"]:
        np.testing.assert_array_equal(merged[column], merged[f"{column} read"])


def test_names_of_the_long_table():
    panel = read(table().assign(geo_=1.0), geo="geo", spend={"tv": "people", "radio": "radio"}, events=["holiday"])
    assert list(panel.to_frame().columns) == [
        *("date", "geo", "sales", "tv", "radio", "tv_spend", "radio_spend", "price", "holiday")
    ]
    frame = table().iloc[:12].rename(columns={"sales": "geo", "geo": "market"})
    one = read(frame, geo=None, target="geo", population="people")
    assert one.geo_name == "geo_"
    assert list(one.to_frame().columns) == ["date", "geo_", "geo", "tv", "radio", "price", "population"]


def test_subset():
    frame = ragged()
    panel = read(frame, missing=("impute-zero-spend", "mask-target"), population="people")
    for geos in (["C"], ["C", "A"], ["B"]):
        part = panel.subset(geos)
        alone = frame[frame["geo"].isin(geos)].sort_values(
            "geo", key=lambda names: names.map(geos.index), kind="stable"
        )
        same(part, read(alone, missing=("impute-zero-spend", "mask-target"), population="people"))
    assert panel.subset("B").spend is panel.subset("B").media or not panel.has_spend
    with pytest.raises(UnknownNameError, match="unknown geo 'D'"):
        panel.subset(["A", "D"])
    with pytest.raises(ArgumentError, match="each once"):
        panel.subset(["A", "A"])
    with pytest.raises(ArgumentError, match="at least one geo"):
        panel.subset([])


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        read(table()).has_spend = True  # type: ignore[misc]


# Scales.


def test_scales_against_loops():
    frame = table(20, ("A", "B", "C"))
    frame.loc[frame["tv"] < 40, "tv"] = 0.0
    frame.loc[frame["geo"] == "B", "radio"] = 0.0
    frame.loc[3, "sales"] = np.nan
    frame.loc[frame["geo"] == "C", "sales"] -= 100
    panel = read(frame.drop(index=range(52, 60)), missing="mask-target")
    frame = frame.drop(index=range(52, 60))
    target, mean = {}, {}
    for geo in "ABC":
        mine = frame[frame["geo"] == geo]
        seen = [value for value in mine["sales"] if not np.isnan(value)]
        average = sum(seen) / len(seen)
        target[geo] = max(abs(average), (sum((value - average) ** 2 for value in seen) / len(seen)) ** 0.5)
        for channel in ("tv", "radio"):
            active = [value for value in mine[channel] if value > 0]
            mean[geo, channel] = sum(active) / len(active) if active else None
    # C's sales are near 0, so that its scale is their standard deviation.
    assert target["C"] > abs(frame[frame["geo"] == "C"]["sales"].mean())
    np.testing.assert_allclose(panel.target_scale, [target[geo] for geo in "ABC"], rtol=1e-13)
    np.testing.assert_allclose(panel.media_scale[:, 0], [mean[geo, "tv"] for geo in "ABC"], rtol=1e-13)
    ratios = sorted(mean[geo, "radio"] / target[geo] for geo in "AC")
    expected = [mean["A", "radio"], (ratios[0] + ratios[1]) / 2 * target["B"], mean["C", "radio"]]
    np.testing.assert_allclose(panel.media_scale[:, 1], expected, rtol=1e-13)
    price = frame["price"].to_numpy()
    np.testing.assert_allclose(panel.control_mean, [price.sum() / len(price)], rtol=1e-13)
    np.testing.assert_allclose(panel.control_scale, [np.sqrt(np.mean((price - price.mean()) ** 2))], rtol=1e-12)


def test_media_scale_by_population():
    frame = table(20, ("A", "B", "C"))
    frame.loc[frame["geo"] == "B", "radio"] = 0.0
    panel = read(frame, population="people")
    people = {"A": 9e6, "B": 8e6, "C": 7e6}
    for channel, geos in (("tv", "ABC"), ("radio", "AC")):
        ratios = sorted(frame.loc[frame["geo"] == geo, channel].mean() / people[geo] for geo in geos)
        middle = ratios[1] if len(ratios) == 3 else (ratios[0] + ratios[1]) / 2
        expected = [people[geo] * middle for geo in "ABC"]
        np.testing.assert_allclose(panel.media_scale[:, ("tv", "radio").index(channel)], expected, rtol=1e-13)


def test_padding_changes_no_scale():
    panel = read(table())

    def pad(values, empty):
        shape = (panel.inside.shape[0] + 1, panel.inside.shape[1] + 4, *values.shape[2:])
        padded = np.full(shape, empty, values.dtype)
        padded[:-1, :-4] = values
        return padded

    wide = dataclasses.replace(
        panel,
        geos=(*panel.geos, "empty"),
        dates=np.arange(panel.dates[0], panel.dates[-1] + np.timedelta64(29, "D"), np.timedelta64(7, "D")),
        target=pad(panel.target, np.nan),
        **{
            name: pad(getattr(panel, name), 0)
            for name in ("observed", "inside", "media", "spend", "controls", "events")
        },
    )
    # Longer sums are added up in another order.
    np.testing.assert_allclose(wide.target_scale[:-1], panel.target_scale, rtol=1e-14)
    np.testing.assert_allclose(wide.media_scale[:-1], panel.media_scale, rtol=1e-14)
    np.testing.assert_array_equal(wide.control_mean, panel.control_mean)
    np.testing.assert_array_equal(wide.control_scale, panel.control_scale)
    # The empty geo's scales are the typical ones: positive, so that nothing is divided by 0.
    assert wide.target_scale[-1] == np.median(wide.target_scale[:-1])
    assert (wide.media_scale[-1] > 0).all()
    assert wide.summary().loc["empty", ["weeks", "masked"]].tolist() == [0, 0]


def test_a_channel_without_media_in_a_subset_has_a_scale():
    frame = table()
    frame.loc[frame["geo"] == "CH", "radio"] = 0.0
    part = read(frame).subset(["CH"])
    assert part.media_scale[0, 1] == part.target_scale[0]


# Calendars.


@pytest.mark.parametrize("frequency", [name for name in FREQUENCIES if name != "W"])
def test_calendar_is_that_of_pandas(frequency):
    dates = pd.date_range("1968-11-20", periods=60, freq=frequency)
    days = dates.to_numpy().astype("M8[D]")
    calendar = Calendar(frequency)
    position = calendar.position(days)
    np.testing.assert_array_equal(np.diff(position), 1)
    np.testing.assert_array_equal(calendar.dates(int(position[0]), 60), days)
    assert calendar.holds(days).all()
    if frequency != "D":
        assert not calendar.holds(days + np.timedelta64(1, "D")).any()


@pytest.mark.parametrize("frequency", ["D", "W-MON", "W-WED", "W-SUN", "MS", "ME"])
def test_frequency_is_inferred(frequency):
    frame = table(14, freq=frequency)
    panel = read(frame.drop(index=[3, 20, 21]), missing="impute-zero-spend")
    assert panel.frequency == frequency
    assert panel.dates.tolist() == list(frame["date"].iloc[:14].dt.date)
    np.testing.assert_array_equal((~panel.observed).sum(axis=1), [1, 2])
    period = {"D": ("day", 1.0), "W": ("week", 7.0), "M": ("month", 30.4375)}[frequency[0]]
    assert (panel.period, panel.period_days) == period


def test_a_frequency_that_is_given():
    every_second = table().assign(date=list(pd.date_range("2024-01-07", periods=12, freq="14D")) * 2)
    panel = read(every_second, frequency="W", missing="impute-zero-spend")
    assert (panel.frequency, panel.weeks.tolist()) == ("W-SUN", [23, 23])
    assert "frequency='W-MON' is asked for" in refused(table(), frequency="W-MON")
    with pytest.raises(UnknownNameError, match="unknown frequency 'w-sun'"):
        read(table(), frequency="w-sun")


@pytest.mark.parametrize(
    "convert",
    [
        lambda dates: dates.dt.strftime("%Y-%m-%d"),
        lambda dates: dates.dt.strftime("%d/%m/%Y"),
        lambda dates: dates.dt.strftime("%m/%d/%Y"),
        lambda dates: dates.dt.strftime("%d.%m.%y"),
        lambda dates: dates.dt.strftime("%Y%m%d"),
        lambda dates: dates.dt.strftime("%Y-%m-%dT00:00:00Z"),
        lambda dates: dates.dt.strftime("%d %b %Y"),
        lambda dates: dates.dt.date,
        lambda dates: dates.dt.to_period("D"),
        lambda dates: dates.astype(object),
        lambda dates: dates.astype("category"),
        lambda dates: dates.dt.strftime("%d/%m/%Y").astype("category"),
        lambda dates: dates.dt.tz_localize("Asia/Tokyo"),
        lambda dates: dates.astype("date32[day][pyarrow]"),
        lambda dates: dates.astype("timestamp[ns][pyarrow]"),
    ],
)
def test_dates_of_any_kind(convert):
    frame = table()
    same(read(frame), read(frame.assign(date=convert(frame["date"]))))


def test_weekly_and_monthly_periods_count_by_their_first_day():
    frame = table()
    panel = read(frame.assign(date=frame["date"].dt.to_period("W-SUN")))
    assert (panel.frequency, str(panel.dates[0])) == ("W-MON", "2024-01-01")
    months = list(pd.period_range("2024-01", periods=12, freq="M")) * 2
    assert read(frame.assign(date=months)).frequency == "MS"
    assert read(frame.assign(date=[str(month) for month in months])).frequency == "MS"


@pytest.mark.parametrize("dtype", ["float32", "int16", "Int64", "double[pyarrow]", "boolean"])
def test_columns_of_any_numeric_kind(dtype):
    frame = table().assign(tv=np.tile([1, 0, 0, 1], 6))
    expected = read(frame)
    same(expected, read(frame.astype({"tv": dtype})))
    same(expected, read(frame.astype({"tv": object})))
    same(expected, read(frame.astype({"tv": "category", "geo": "category"})))


def test_summary_against_groups():
    frame = ragged()
    panel = read(
        frame,
        missing=("impute-zero-spend", "mask-target"),
        population="people",
        channels=["TV", "Radio"],
        spend=["holiday", "radio"],
    )
    summary = panel.summary()
    known = frame.groupby("geo")
    assert summary.index.name == "geo"
    assert summary["first"].tolist() == known["date"].min().tolist()
    assert summary["last"].tolist() == known["date"].max().tolist()
    assert summary["weeks"].tolist() == [7, 7, 4]
    assert summary["masked"].tolist() == [1, 1, 0]
    assert summary["population"].tolist() == [9e6, 8e6, 7e6]
    np.testing.assert_allclose(summary["target_mean"], known["sales"].mean(), rtol=1e-13)
    np.testing.assert_allclose(summary["target_sd"], known["sales"].std(), rtol=1e-12)
    money = known[["holiday", "radio"]].sum()
    np.testing.assert_allclose(summary["spend"], money.sum(axis=1), rtol=1e-13)
    np.testing.assert_allclose(summary["spend_to_target"], money.sum(axis=1) / known["sales"].sum(), rtol=1e-13)
    np.testing.assert_allclose(summary["spend_Radio"], money["radio"], rtol=1e-13)
    np.testing.assert_allclose(summary["share_TV"], money["holiday"] / money.sum(axis=1), rtol=1e-13)
    np.testing.assert_allclose(summary["media_TV"], known["tv"].sum(), rtol=1e-13)
    np.testing.assert_allclose(summary["active_TV"], known["tv"].count() / [7, 7, 4], rtol=1e-13)


def test_repr():
    assert repr(read(table())) == (
        "Panel(2 geos, 12 weeks from 2024-01-07 to 2024-03-24, 2 channels: tv, radio, 1 control)"
    )


def test_a_large_table_is_read_quickly():
    geos, weeks, channels = 1000, 200, [f"c{k}" for k in range(10)]
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.gamma(1, 1, (geos * weeks, 10)), columns=channels)
    dates = pd.date_range("2020-01-06", periods=weeks, freq="W-MON").strftime("%Y-%m-%d")
    frame["geo"] = np.repeat([f"store {number}" for number in range(geos)], weeks)
    frame["date"], frame["sales"] = np.tile(dates, geos), rng.normal(10, 1, geos * weeks)
    seconds = []
    for _ in range(3):
        begun = time.process_time()
        panel = read(frame, media=channels, controls=[])
        seconds.append(time.process_time() - begun)
    assert panel.media.shape == (geos, weeks, 10)
    np.testing.assert_array_equal(panel.media.reshape(-1, 10), frame[channels])
    # A fifth of a second on an idle core; a busy machine may double it, a loop over rows makes it a minute.
    assert min(seconds) < 1
