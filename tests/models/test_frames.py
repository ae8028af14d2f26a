"""Tables of other libraries: the same model as from pandas."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr

import pelton
from pelton.models.frames import listed, to_pandas

STORES = pd.DataFrame(
    {"store": ["A", "B", "C", "D"], "region": ["n", "n", "s", "s"], "visits": [100, 80, 60, 90], "sales": [12, 9, 3, 7]}
)
WEEKS = pd.DataFrame(
    {
        "week": np.tile(pd.date_range("2024-01-01", periods=6, freq="W-MON"), 2),
        "country": ["DE"] * 6 + ["FR"] * 6,
        "tv": [3.0, 0, 2, 5, 1, 4, 2, 2, 0, 3, 6, 1],
        "sales": [20.0, 15, 18, 25, 17, 22, 10, 11, 8, 12, 15, 9],
    }
)
polars_missing = "polars is not installed; it is in pelton's extra 'test'"


def _polars(frame):
    return pytest.importorskip("polars", reason=polars_missing).from_pandas(frame)


def _lazy(frame):
    return _polars(frame).lazy()


LIBRARIES = {"polars": _polars, "lazy polars": _lazy, "pyarrow": pa.Table.from_pandas}


def _same_panel(one, other):
    assert one.geos == other.geos
    assert one.channels == other.channels
    for name in ("dates", "media", "target", "inside", "observed"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("library", LIBRARIES)
def test_rates_from_any_table(library):
    settings = {"successes": "sales", "trials": "visits", "unit": "store", "groups": "region"}
    expected = pelton.PartialPooling.from_frame(STORES, **settings)
    found = pelton.PartialPooling.from_frame(LIBRARIES[library](STORES), **settings)
    assert found.counts.units == expected.counts.units
    assert found.group_names == expected.group_names
    np.testing.assert_array_equal(found.counts.successes, expected.counts.successes)
    np.testing.assert_array_equal(found.counts.trials, expected.counts.trials)


@pytest.mark.parametrize("library", LIBRARIES)
def test_panels_from_any_table(library):
    settings = {"time": "week", "geo": "country", "target": "sales", "media": ["tv"]}
    _same_panel(
        pelton.Panel.from_frame(LIBRARIES[library](WEEKS), **settings), pelton.Panel.from_frame(WEEKS, **settings)
    )


def test_polars_dates_categories_and_nulls():
    pl = pytest.importorskip("polars", reason=polars_missing)
    settings = {"time": "week", "geo": "country", "target": "sales", "media": ["tv"], "missing": "mask-target"}
    target = WEEKS["sales"].tolist()
    frame = _polars(WEEKS).with_columns(
        pl.col("week").cast(pl.Date),
        pl.col("country").cast(pl.Categorical),
        pl.Series("sales", [None, *target[1:]]),
    )
    expected = WEEKS.assign(sales=[np.nan, *target[1:]])
    _same_panel(pelton.Panel.from_frame(frame, **settings), pelton.Panel.from_frame(expected, **settings))


def test_panel_from_an_xarray_dataset():
    """Cells of a geo that began later hold nothing, and are no rows; what belongs to the geo stands in every row."""
    late = WEEKS.iloc[[*range(6), *range(8, 12)]]
    grid = late.set_index(["week", "country"]).to_xarray().assign(people=("country", [80.0, 60.0]))
    settings = {"time": "week", "geo": "country", "target": "sales", "media": ["tv"], "population": "people"}
    expected = late.assign(people=late["country"].map({"DE": 80.0, "FR": 60.0}))
    found = pelton.Panel.from_frame(grid, **settings)
    _same_panel(found, pelton.Panel.from_frame(expected, **settings))
    np.testing.assert_array_equal(found.population, [80, 60])


def test_a_data_array_is_a_table_of_one_column():
    array = xr.DataArray([[1.0, 2], [3, 4]], {"geo": ["a", "b"], "t": [0, 1]}, name="sales")
    assert to_pandas(array)["sales"].tolist() == [1, 2, 3, 4]
    with pytest.raises(pelton.errors.DataError, match="without a name"):
        to_pandas(array.rename(None))


def test_covariates_past_campaigns_and_columns_of_other_libraries():
    table = pa.Table.from_pandas(STORES)
    model = pelton.PartialPooling(table["sales"], table["visits"], unit=table["store"], groups=table["region"])
    assert model.counts.units == ("A", "B", "C", "D")
    assert model.group_names == ("n", "s")
    covariates = pa.table({"size": [1.0, 2, 4, 3]})
    assert pelton.PartialPooling(table["sales"], table["visits"], covariates=covariates).covariate_names == ("size",)
    past = {"successes": "sales", "trials": "visits", "draws": 200}
    assert pelton.fit_prior(table, **past) == pelton.fit_prior(STORES, **past)
    assert listed(xr.DataArray([1, 2])) == [1, 2]


@pytest.mark.parametrize("wrong", [None, [1, 2], {"a": [1]}, "table.csv"])
def test_no_table(wrong):
    with pytest.raises(pelton.errors.DataError, match="the table comes as a frame of pandas"):
        pelton.Panel.from_frame(wrong, time="week", target="sales", media=["tv"])
