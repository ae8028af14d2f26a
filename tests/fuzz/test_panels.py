"""Panels of geos and dates: each is fitted, or refused in pelton's own words."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

import pelton
from pelton.engine.precision import using
from tests.fuzz.columns import names, oddities, wild
from tests.fuzz.tally import examples

NUMBERS = ["tv", "radio", "price", "holiday", "people", "sales"]
# Sizes of geos are few, so that programs are compiled for few shapes.
WEEKS = 14


def _dates(kind, frequency, count):
    dates = pd.date_range("2023-12-20", periods=count, freq=frequency)
    if kind == "zone":
        return dates.tz_localize("Europe/Vienna")
    if kind == "text":
        return dates.strftime("%Y-%m-%d")
    if kind == "slashes":
        return dates.strftime("%d/%m/%y")
    if kind == "period":
        return dates.to_period({"W-SUN": "W-SUN", "MS": "M", "ME": "M", "D": "D"}[frequency])
    if kind == "date":
        return pd.Index(dates.date, dtype=object)
    if kind == "arrow":
        return pd.Index(dates.astype("timestamp[ns][pyarrow]"))
    if kind == "seconds":
        return dates.as_unit("s")
    if kind == "category":
        return pd.CategoricalIndex(dates)
    return dates


_KINDS = ["plain", "zone", "text", "slashes", "period", "date", "arrow", "seconds", "category"]
_FAULTS = [
    *("nothing", "nothing", "nothing", "gap", "twice", "one row", "blank", "odd value", "constant", "zero", "huge"),
    *(
        "tiny",
        "shuffled",
        "odd column",
        "odd dates",
        "empty",
        "columns twice",
        "levels",
        "dtype",
        "renamed",
        "negative",
    ),
]


def _spoil(draw, frame, fault):
    row = draw(st.integers(0, max(0, len(frame) - 1)))
    name = draw(st.sampled_from([*NUMBERS, "geo", "date"]))
    number = draw(st.sampled_from(NUMBERS))
    if name not in frame.columns or number not in frame.columns or not len(frame):
        return frame
    if fault == "gap":
        return frame.drop(index=frame.index[row])
    if fault == "twice":
        return pd.concat([frame, frame.iloc[[row]]])
    if fault == "one row":
        return frame.iloc[: WEEKS + 1]
    if fault in ("blank", "odd value"):
        values = np.empty(len(frame), object)
        for at, value in enumerate(frame[name]):
            values[at] = value
        # By its place alone is a list one value, and not many.
        values[row] = np.nan if fault == "blank" else draw(oddities)
        return frame.assign(**{name: pd.Series(values, index=frame.index, dtype=object)})
    if fault in ("constant", "zero", "huge", "tiny", "negative"):
        by = {"huge": 1e300, "tiny": 1e-300, "negative": -1.0}
        values = frame[number].astype(float)
        values = values * by[fault] if fault in by else values * 0 + (fault == "constant") * 7.0
        return frame.assign(**{number: values})
    if fault == "shuffled":
        return frame.sample(frac=1, random_state=draw(st.integers(0, 9)))
    if fault == "odd column":
        return frame.assign(**{name: draw(wild(len(frame))).set_axis(frame.index)})
    if fault == "odd dates":
        start = draw(st.sampled_from(["1700-01-03", "2200-01-01", "2024-01-01 12:00", "1969-12-25"]))
        step = draw(st.sampled_from(["D", "2D", "7D", "10D", "MS", "YS", "h"]))
        return frame.assign(date=pd.date_range(start, periods=len(frame), freq=step))
    if fault == "empty":
        return frame.iloc[:0]
    if fault == "columns twice":
        return pd.concat([frame, frame[[name]]], axis=1)
    if fault == "levels":
        return frame.set_axis(pd.MultiIndex.from_product([frame.columns, ["a"]]), axis=1)
    if fault == "dtype":
        dtype = draw(st.sampled_from(["float32", "category", "double[pyarrow]", "Float64", "str", "object", "float16"]))
        return frame.assign(**{number: frame[number].astype(dtype)})
    return frame


@st.composite
def tables(draw):
    """A table of geos and dates, mostly with something wrong, and how to read and to model it."""
    frequency = draw(st.sampled_from(["D", "W-SUN", "W-SUN", "W-SUN", "MS", "ME"]))
    source = np.random.default_rng(draw(st.integers(0, 99)))
    geos = draw(st.lists(names, min_size=1, max_size=3, unique_by=lambda name: name.strip()))
    parts = []
    for geo in geos:
        parts.append(
            pd.DataFrame(
                {
                    "geo": pd.Series([geo] * WEEKS, dtype=object),
                    "date": pd.date_range("2023-12-20", periods=WEEKS, freq=frequency),
                    "tv": source.gamma(0.5, 100, WEEKS),
                    "radio": source.gamma(1, 50, WEEKS) * (source.random(WEEKS) < 0.5),
                    "price": source.normal(3, 1, WEEKS),
                    "holiday": (np.arange(WEEKS) == 5) * 1,
                    "people": source.integers(1, 10**6),
                    "sales": source.normal(100, 10, WEEKS),
                }
            )
        )
    frame = pd.concat(parts, ignore_index=True)
    dates = _dates(draw(st.sampled_from(_KINDS)), frequency, WEEKS)
    frame["date"] = dates.append([dates] * (len(geos) - 1)) if len(geos) > 1 else dates
    how = {"time": "date", "target": "sales", "media": ["tv", "radio"], "geo": "geo"}
    optional = {"controls": ["price"], "events": ["holiday"], "population": "people", "frequency": "W"}
    optional |= {"missing": ["impute-zero-spend", "mask-target"], "spend": {"tv": "tv", "radio": "price"}}
    chosen = draw(st.lists(st.sampled_from(list(optional)), max_size=3, unique=True))
    how |= {key: optional[key] for key in chosen}
    for fault in draw(st.lists(st.sampled_from(_FAULTS), max_size=2)):
        if fault == "renamed" and not isinstance(frame.columns, pd.MultiIndex):
            old, new = draw(st.sampled_from(["tv", "sales", "geo", "date"])), draw(names)
            frame.columns = pd.Index([new if name == old else name for name in frame.columns], dtype=object)
            how = {
                key: new if value == old else [new if one == old else one for one in value] if key == "media" else value
                for key, value in how.items()
            }
        else:
            frame = _spoil(draw, frame, fault)
    model = {
        "pooling": draw(st.sampled_from(["hierarchical", "pooled", "unpooled"])),
        "effect": draw(st.sampled_from(["contribution", "coefficient", "roi"])),
        "trend": draw(st.sampled_from([None, "linear", "piecewise"])),
        "seasonality": draw(st.sampled_from([0, 1, 30])),
        "likelihood": draw(st.sampled_from(["normal", "student_t"])),
        "adstock": pelton.adstock.Geometric(l_max=draw(st.sampled_from([3, 50]))),
    }
    return frame, how, model


@examples(100)
@given(drawn=tables())
def test_any_panel_is_read_or_refused(tally, drawn):
    """Tables of geos and dates given to `Panel.from_frame`."""
    frame, how, _ = drawn
    panel = tally.attempt(lambda: pelton.Panel.from_frame(frame, **how))
    if panel is not None:
        assert np.isfinite(panel.media).all()
        assert np.isfinite(panel.target[panel.observed]).all()
        assert np.isfinite(panel.media_scale).all()
        assert (panel.target_scale > 0).all()
        repr(panel), panel.to_frame(), panel.summary()


@examples(20)
@given(drawn=tables())
def test_any_media_mix_has_a_log_density(tally, drawn):
    """Media mixes of such tables: one evaluation of the log density in float64."""
    import jax
    import jax.numpy as jnp

    frame, how, options = drawn

    def evaluated():
        with using("float64"):
            posterior = pelton.MediaMix(pelton.Panel.from_frame(frame, **how), **options).posterior()
            data = jax.tree.map(jnp.asarray, posterior.data)
            start = posterior.start(jax.random.key(0), data)
            return float(posterior.logdensity(start, data))

    value = tally.attempt(evaluated)
    assert value is None or np.isfinite(value)
