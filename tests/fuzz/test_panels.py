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


# Ways to hold dates, of the dates and their frequency.
_DATES = {
    "plain": lambda dates, frequency: dates,
    "zone": lambda dates, frequency: dates.tz_localize("Europe/Vienna"),
    "text": lambda dates, frequency: dates.strftime("%Y-%m-%d"),
    "slashes": lambda dates, frequency: dates.strftime("%d/%m/%y"),
    "period": lambda dates, frequency: dates.to_period({"MS": "M", "ME": "M"}.get(frequency, frequency)),
    "date": lambda dates, frequency: pd.Index(dates.date, dtype=object),
    "arrow": lambda dates, frequency: pd.Index(dates.astype("timestamp[ns][pyarrow]")),
    "seconds": lambda dates, frequency: dates.as_unit("s"),
    "category": lambda dates, frequency: pd.CategoricalIndex(dates),
}
_TYPES = ["float32", "category", "double[pyarrow]", "Float64", "str", "object", "float16"]


def _value(draw, frame, name, value):
    """A column with one value exchanged: by its place, so that a list is one value and not many."""
    values = np.empty(len(frame), object)
    for at, known in enumerate(frame[name]):
        values[at] = known
    values[draw(st.integers(0, len(frame) - 1))] = value
    return frame.assign(**{name: pd.Series(values, index=frame.index, dtype=object)})


def _dated(draw, frame):
    start = draw(st.sampled_from(["1700-01-03", "2200-01-01", "2024-01-01 12:00", "1969-12-25"]))
    step = draw(st.sampled_from(["D", "2D", "7D", "10D", "MS", "YS", "h"]))
    return frame.assign(date=pd.date_range(start, periods=len(frame), freq=step))


# What may be wrong with a table: of draw, the table, a column, a column of numbers, and a row.
_FAULTS = {
    "nothing": lambda draw, frame, name, number, row: frame,
    "gap": lambda draw, frame, name, number, row: frame.drop(index=frame.index[row]),
    "twice": lambda draw, frame, name, number, row: pd.concat([frame, frame.iloc[[row]]]),
    "one row": lambda draw, frame, name, number, row: frame.iloc[: WEEKS + 1],
    "blank": lambda draw, frame, name, number, row: _value(draw, frame, name, np.nan),
    "odd value": lambda draw, frame, name, number, row: _value(draw, frame, name, draw(oddities)),
    "constant": lambda draw, frame, name, number, row: frame.assign(**{number: 7.0}),
    "zero": lambda draw, frame, name, number, row: frame.assign(**{number: 0}),
    "huge": lambda draw, frame, name, number, row: frame.assign(**{number: frame[number] * 1e300}),
    "tiny": lambda draw, frame, name, number, row: frame.assign(**{number: frame[number] * 1e-300}),
    "negative": lambda draw, frame, name, number, row: frame.assign(**{number: -frame[number]}),
    "shuffled": lambda draw, frame, name, number, row: frame.sample(frac=1, random_state=row),
    "odd column": lambda draw, frame, name, number, row: frame.assign(
        **{name: draw(wild(len(frame))).set_axis(frame.index)}
    ),
    "odd dates": lambda draw, frame, name, number, row: _dated(draw, frame),
    "empty": lambda draw, frame, name, number, row: frame.iloc[:0],
    "columns twice": lambda draw, frame, name, number, row: frame[[*frame.columns, name]],
    "levels": lambda draw, frame, name, number, row: frame.set_axis(
        pd.MultiIndex.from_product([frame.columns, ["a"]]), axis=1
    ),
    "type": lambda draw, frame, name, number, row: frame.assign(
        **{number: frame[number].astype(draw(st.sampled_from(_TYPES)))}
    ),
}


def _spoil(draw, frame, fault):
    row = draw(st.integers(0, max(0, len(frame) - 1)))
    name, number = draw(st.sampled_from([*NUMBERS, "geo", "date"])), draw(st.sampled_from(NUMBERS))
    if not len(frame) or not {name, number} <= set(frame.columns):
        return frame
    try:
        return _FAULTS[fault](draw, frame, name, number, row)
    except (TypeError, ValueError, ArithmeticError, NotImplementedError, AttributeError, RuntimeWarning):
        # A fault on top of another that pandas itself refuses to make.
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
    dates = pd.date_range("2023-12-20", periods=WEEKS, freq=frequency)
    dates = _DATES[draw(st.sampled_from(list(_DATES)))](dates, frequency)
    frame["date"] = dates.append([dates] * (len(geos) - 1)) if len(geos) > 1 else dates
    how = {"time": "date", "target": "sales", "media": ["tv", "radio"], "geo": "geo"}
    optional = {"controls": ["price"], "events": ["holiday"], "population": "people", "frequency": "W"}
    optional |= {"missing": ["impute-zero-spend", "mask-target"], "spend": {"tv": "tv", "radio": "price"}}
    chosen = draw(st.lists(st.sampled_from(list(optional)), max_size=3, unique=True))
    how |= {key: optional[key] for key in chosen}
    for fault in draw(st.lists(st.sampled_from(["nothing", "renamed", *_FAULTS]), max_size=2)):
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
        assert repr(panel)
        assert len(panel.to_frame()) >= len(frame)
        assert len(panel.summary()) == len(panel.geos)


@examples(12)
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
