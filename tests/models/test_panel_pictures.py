"""The pictures of a panel: what is drawn is what the table holds, at any size."""

import warnings

import numpy as np
import pytest

from pelton.engine.errors import DataWarning, UnknownNameError
from tests.models.panels import ragged, read, table


def test_picture_of_weeks():
    panel = read(ragged(), missing=("impute-zero-spend", "mask-target"))
    (axes,) = panel.plot("weeks").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A", "B", "C"]
    assert [text.get_text() for text in axes.texts] == ["7 (1 masked)", "7 (1 masked)", "4"]
    start = np.datetime64("2024-01-07")
    spans = [
        [(round(path.vertices[:, 0].min()), round(path.vertices[:, 0].max())) for path in bars.get_paths()]
        for bars in axes.collections
    ]
    day = int(start.astype("M8[D]").astype(int))

    def weeks(*ends):
        return [(day + 7 * first, day + 7 * last) for first, last in ends]

    # Observed, then masked, geo by geo.
    expected = [weeks((0, 2), (3, 7)), weeks((2, 3)), weeks((3, 5), (6, 10)), weeks((5, 6)), weeks((6, 10)), []]
    assert spans == expected


def test_picture_of_spend():
    panel = read(ragged(), missing=("impute-zero-spend", "mask-target"))
    left, right = (panel.plot("spend").axes[side::2] for side in (0, 1))
    by_week = ragged().groupby("date")[["tv", "radio"]].sum()
    for k, channel in enumerate(("tv", "radio")):
        np.testing.assert_allclose(left[k].patches[0].get_data().values, by_week[channel], rtol=1e-13)
        share = by_week[channel].sum() / by_week.to_numpy().sum()
        assert left[k].get_title(loc="left").startswith(f"{channel}: {share:.0%} of all spend")
        cells = right[k].images[0].get_array()
        np.testing.assert_array_equal(np.ma.getmaskarray(np.ma.masked_invalid(cells)), ~panel.inside)
        assert np.nanmax(cells) == 1.0


def test_picture_of_targets():
    panel = read(ragged(), missing=("impute-zero-spend", "mask-target"))
    for geo, axes in enumerate(panel.plot("target").axes[:3]):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), panel.target[geo])
    with pytest.raises(UnknownNameError, match="unknown picture 'targets'; did you mean 'target'"):
        panel.plot("targets")


@pytest.mark.parametrize(("count", "weeks"), [(1, 2), (1, 120), (2, 9), (8, 120), (20, 9), (30, 2), (60, 120)])
def test_pictures_are_drawn_for_any_size(count, weeks):
    geos = [f"$mark_{number}^" for number in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        panel = read(table(weeks, geos), controls=[])
    figure = panel.plot()
    figure.draw_without_rendering()
    assert figure.get_size_inches()[1] < 40


def test_pictures_leave_the_users_settings_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    read(table()).plot()
    assert dict(mpl.rcParams) == before
