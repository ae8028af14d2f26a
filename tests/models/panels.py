"""Small tables of geos and weeks for the tests of panels, and how they are read."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from pelton.engine.errors import DataError
from pelton.models.panel import Panel

NAMES = {"time": "date", "geo": "geo", "target": "sales", "media": ["tv", "radio"], "controls": ["price"]}


def table(weeks=12, geos=("AT", "CH"), freq="W-SUN"):
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {
                "geo": geo,
                "date": pd.date_range("2024-01-07", periods=weeks, freq=freq),
                "tv": rng.gamma(1, 100, weeks),
                "radio": rng.gamma(1, 50, weeks),
                "price": rng.normal(3, 1, weeks),
                "sales": rng.normal(100, 10, weeks),
                "people": 9e6 - 1e6 * number,
                "holiday": (np.arange(weeks) == 5) * 1,
            }
        )
        for number, geo in enumerate(geos)
    ]
    return pd.concat(parts, ignore_index=True)


def read(frame, **changed):
    return Panel.from_frame(frame, **{**NAMES, **changed})


def put(frame, row, column, value):
    frame = frame.astype({column: object})
    frame.loc[row, column] = value
    return frame


def refused(frame, error=DataError, **changed):
    with pytest.raises(error) as caught:
        read(frame, **changed)
    return str(caught.value)


def ragged():
    """Three geos on overlapping weeks, rows interleaved by date, one target masked and one week lacking."""
    frame = table(10, ("A", "B", "C"))
    week = np.tile(np.arange(10), 3)
    keep = (frame["geo"] == "A") & (week < 7) | (frame["geo"] == "B") & (week >= 3) | (frame["geo"] == "C") & (week > 5)
    keep &= ~((frame["geo"] == "B") & (week == 5))
    frame.loc[(frame["geo"] == "A") & (week == 2), "sales"] = np.nan
    return frame[keep].sort_values("date", kind="stable", ignore_index=True)


def same(first, second):
    for field in dataclasses.fields(Panel):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=field.name)
            assert a.dtype == b.dtype, field.name
        else:
            assert a == b, field.name


def meridian(cases):
    """Meridian's example: its table, and the panel that naming the columns makes of it."""
    frame = pd.read_csv(cases / "meridian_geo_media.csv")
    channels = [f"Channel{number}" for number in range(4)]
    panel = Panel.from_frame(
        frame,
        time="time",
        geo="geo",
        target="conversions",
        media=[f"{name}_impression" for name in channels],
        spend={name: f"{name}_spend" for name in channels},
        channels=channels,
        controls=["competitor_activity_score_control", "sentiment_score_control"],
        population="population",
    )
    return frame, panel
