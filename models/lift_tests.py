"""Experiments that measured a channel's lift, and what they say of the model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pelton.engine.errors import DataError, UnknownNameError
from pelton.models.frames import to_pandas
from pelton.models.panel import Panel

COLUMNS = ("channel", "x", "delta_x", "delta_y", "sigma")


@dataclass(frozen=True)
class LiftTests:
    """Lift tests: media of a channel were changed from x to x + delta_x a week, and the target moved by delta_y.

        delta_y ~ Normal(sum_g coef[g,c] (f_g(x_g + delta_x_g) - f_g(x_g)), sigma)

    f_g is the steady response of geo g to that much media every week. A test in one geo names it; a test without a geo
    was in all of them, its x and delta_x being totals, which are split as the geo's media in the panel are.

    Attributes:
        channel: index of each test's channel [test].
        media, change: x and delta_x by geo, in units of media a week [test, geo].
        lift, sd: delta_y and its standard error, in units of the target a week [test].

    Source: the convention of PyMC-Marketing's lift tests, with a normal instead of a gamma likelihood, so that an
    experiment may find less than nothing.
    """

    channel: np.ndarray
    media: np.ndarray
    change: np.ndarray
    lift: np.ndarray
    sd: np.ndarray

    @classmethod
    def from_frame(cls, frame: Any, panel: Panel) -> "LiftTests":
        """The tests of a table with columns channel, x, delta_x, delta_y, sigma and optionally geo.

        Args:
            frame: one row a test.
            panel: the data, for the names of channels and geos.

        Raises:
            UnknownNameError: a channel or geo is not in the panel.
            DataError: a column is missing, a number is missing or out of range; the message names row and column.
        """
        frame = to_pandas(frame, f"lift_tests, with columns {', '.join(COLUMNS)},")
        for name in COLUMNS:
            if name not in frame.columns:
                raise DataError(f"lift_tests has no column {name!r}; it needs {', '.join(COLUMNS)}, and geo if not all")
        channels = {name: i for i, name in enumerate(panel.channels)}
        geos = {name: i for i, name in enumerate(panel.geos)}
        for row, name in enumerate(frame["channel"]):
            if name not in channels:
                raise UnknownNameError(f"channel in row {row} of lift_tests", str(name), panel.channels)
        values = {name: _numbers(frame, name) for name in COLUMNS[1:]}
        for name, wrong, must in (
            ("x", values["x"] < 0, "at least 0"),
            ("sigma", values["sigma"] <= 0, "above 0"),
            ("delta_x", values["delta_x"] == 0, "a change, not 0"),
            ("delta_x", values["x"] + values["delta_x"] < 0, "at least -x: nobody spends less than nothing"),
        ):
            if wrong.any():
                row = int(np.argmax(wrong))
                raise DataError(f"lift_tests, row {row}: {name} is {values[name][row]:g} and must be {must}")
        channel = np.array([channels[name] for name in frame["channel"]])
        share = np.zeros((len(frame), len(panel.geos)))
        total = panel.media.sum(axis=1)
        named = frame["geo"] if "geo" in frame.columns else pd.Series([None] * len(frame))
        for row, (name, index) in enumerate(zip(named, channel, strict=True)):
            if name is None or pd.isna(name):
                share[row] = total[:, index] / total[:, index].sum()
            elif str(name) in geos:
                share[row, geos[str(name)]] = 1.0
            else:
                raise UnknownNameError(f"geo in row {row} of lift_tests", str(name), panel.geos)
        x, change = values["x"][:, None] * share, values["delta_x"][:, None] * share
        return cls(channel, x, change, values["delta_y"], values["sigma"])

    def of_channels(self, channels: tuple[int, ...], panel: Panel) -> dict[str, np.ndarray] | None:
        """The tests of some channels, media scaled as the model's are; None where there are none."""
        chosen = np.isin(self.channel, channels)
        if not chosen.any():
            return None
        channel = self.channel[chosen]
        scale = panel.media_scale[:, channel].T
        return {
            "column": np.searchsorted(np.array(channels), channel),
            "media": self.media[chosen] / scale,
            "change": self.change[chosen] / scale,
            "lift": self.lift[chosen],
            "sd": self.sd[chosen],
        }


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    values = np.asarray(pd.to_numeric(frame[name], errors="coerce"), float)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise DataError(f"lift_tests, row {row}: {name} is {frame[name].iloc[row]!r}; give a finite number")
    return values
