"""`pelton init media-mix` on random tables and `pelton allocate` with random settings: done, or refused on one line."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pelton.report.media
from tests.fuzz.columns import names, oddities, wild
from tests.fuzz.commands import run
from tests.fuzz.tally import examples
from tests.fuzz.test_panel_frames import tables as panels
from tests.models.media_trees import GEOS, media_tree

WEEKS = 12
NAMES = [
    "week",
    "date",
    "country",
    "tv_spend",
    "tv_impressions",
    "radio",
    "sales",
    "revenue",
    "price",
    "promo",
    "people",
]
CHANNELS = ("tv", "a/b", "c=d")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder to work in, with a run to allocate: three geos, one of which never spent on the last channel."""
    path = tmp_path_factory.mktemp("mixes")
    form = ("geometric", 6, True, "hill")
    tree = media_tree(dict.fromkeys(CHANNELS, form), weeks=30, chains=1, draws=10)
    tree.to_netcdf(path / "posterior.nc", engine="h5netcdf")
    with pytest.MonkeyPatch.context() as patch:
        # Pictures are not what is tried here.
        for name in ("allocation_picture", "allocation_lines_picture"):
            patch.setattr(pelton.report.media, name, lambda *args: None)
        patch.chdir(path)
        patch.setenv("COLUMNS", "160")
        yield path


@st.composite
def tables(draw):
    """A table such as a marketing team keeps, with any columns in it."""
    geos = draw(st.sampled_from([[], ["AT"], ["AT", "CH"]]))
    rows = WEEKS * max(1, len(geos))
    source = np.random.default_rng(draw(st.integers(0, 99)))
    columns = {}
    dates = pd.date_range("2023-01-02", periods=WEEKS, freq=draw(st.sampled_from(["7D", "D", "MS", "10D"])))
    if draw(st.integers(0, 9)):
        columns["week"] = np.tile(dates, max(1, len(geos)))
    if geos:
        columns["country"] = np.repeat(geos, WEEKS)
    for name in draw(st.lists(st.one_of(st.sampled_from(NAMES), names), max_size=7, unique=True)):
        kind = draw(st.sampled_from(["media", "media", "number", "flag", "constant", "odd", "wild"]))
        if kind == "odd":
            columns[name] = draw(st.lists(oddities, min_size=rows, max_size=rows))
        elif kind == "wild":
            columns[name] = draw(wild(rows))
        else:
            columns[name] = {
                "media": source.gamma(1, 100, rows) * (source.random(rows) < 0.8),
                "number": source.normal(100, 20, rows),
                "flag": source.integers(0, 2, rows),
                "constant": np.full(rows, 7),
            }[kind]
    frame = pd.concat([pd.Series(values) for values in columns.values()], axis=1) if columns else pd.DataFrame()
    # As objects: pandas' own strings cannot hold a lone surrogate.
    return frame.set_axis(pd.Index(list(columns), dtype=object), axis=1)


@st.composite
def files(draw):
    """A file of a table: CSV with any delimiter, or Parquet; its name and its bytes."""
    if draw(st.integers(0, 3)) == 0:
        file = io.BytesIO()
        pq.write_table(draw(panels()), file)
        return "data.parquet", file.getvalue()
    sep = draw(st.sampled_from(",,,;\t"))
    text = draw(tables()).to_csv(index=False, sep=sep, date_format="%Y-%m-%d", errors="replace")
    return "data.csv", text.encode(errors="replace")


@examples(40)
@given(file=files())
def test_init_of_any_table(tally, folder, file):
    """Random tables given to `pelton init media-mix`."""
    name, content = file
    Path(name).write_bytes(content)
    result = run(tally, "init", "media-mix", name, "--out", "guessed.toml", "--force")
    if result.exit_code == 0:
        assert Path("guessed.toml").read_text(encoding="utf-8").startswith("#")


numbers = st.one_of(
    st.sampled_from(["0", "1", "-1", "0.5", "1.5", "1e9", "1e308", "1e-300", "nan", "inf", "-inf", "many", "", " 2 "]),
    st.floats(0, 3).map(lambda value: f"{value:.2f}"),
)
ends = st.one_of(st.tuples(numbers, numbers).map(":".join), st.sampled_from(["0.5:1.5", ":2", "0.2:", ":", "1", ""]))
geo = st.sampled_from([*GEOS, "FR", ""])
channel = st.sampled_from([*CHANNELS, "radio", ""])
line = st.tuples(geo, channel).map("/".join)


@st.composite
def settings(draw):
    """Options of `pelton allocate`, most of them such as would be given."""
    budget = draw(st.one_of(st.floats(10, 1e5).map(str), st.sampled_from(["0", "-1", "nan", "inf", "1e308"])))
    args = ["--budget", budget]
    if draw(st.booleans()):
        args += ["--periods", str(draw(st.sampled_from([1, 4, 13, 13, 0, -1, 10**9])))]
    if draw(st.booleans()):
        args += ["--bounds", draw(ends)]
    for option, name in (("channel", channel), ("geo", geo), ("line", line)):
        if draw(st.integers(0, 2)) == 0:
            args += [f"--{option}-bounds", f"{draw(name)}={draw(ends)}"]
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        what = draw(st.one_of(line, line, geo, channel))
        args += ["--fix", what if draw(st.booleans()) else f"{what}={draw(numbers)}"]
    if draw(st.integers(0, 2)) == 0:
        args += ["--objective", draw(st.sampled_from(["mean", "0.1", "0.9", "0", "1", "2", "nan", "median"]))]
    return args


@examples(12)
@given(args=settings())
def test_allocations_with_any_settings(tally, folder, args):
    """Random budgets, bounds and fixed sums given to `pelton allocate`."""
    result = run(tally, "allocate", "posterior.nc", *args, "--out", "there")
    if result.exit_code == 0:
        found = pd.read_csv("there/allocation.csv", keep_default_na=False)
        assert found["spend"].min() >= 0
        assert found["spend"].sum() == pytest.approx(float(args[1]), rel=1e-6)
