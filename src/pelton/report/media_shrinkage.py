"""The picture of shrinkage: whether a geo's own data or its group decide each of its parameters."""

from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.ticker import PercentFormatter

from pelton.report.canvas import WIDTH, Names, Picture, Table, finish, new_figure, styled
from pelton.report.media_axes import PANELS, Labels, labels_of, left_out, percent, prepare_rows, settle
from pelton.report.media_learning import called
from pelton.report.media_numbers import Media
from pelton.report.wording import visible

FILE = "shrinkage.csv"
MOST_GEOS = 30
# Up to so many cells in a row a percentage has room.
WRITTEN = 8
# No roles of the page: cells and their words keep their colours on dark paper, where they still are read together.
_SCALE = LinearSegmentedColormap.from_list("shrinkage", ["#f2f6fa", "#7fb2d6", "#00548a"]).with_extremes(bad="#c9ced4")
_ON_PALE, _ON_DEEP = "#14181d", "#fdfdfd"


@styled
def shrinkage_picture(media: Media) -> Picture | None:
    """A heat map a parameter, geos by channels; None where nothing is pooled between several geos."""
    table = media.shrinkage
    if len(media.geos) < 2 or not len(table.columns):
        return None
    cells = table.to_numpy().reshape(len(media.geos), len(media.channels), -1)
    order, shown = media.by_size[:MOST_GEOS], media.by_effect[:PANELS]
    columns = 1 if len(shown) > WRITTEN else min(2 if len(shown) > 3 else 4, cells.shape[-1])
    rows = -(-cells.shape[-1] // columns)
    drawn = labels_of(media, 22, 18)
    longest = max(len(drawn.channels[number]) for number in shown)
    height = 0.45 + 0.25 * len(order)
    figure = new_figure(WIDTH, 1.5 + 0.06 * longest + rows * height)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    flat = list(grid.ravel())
    for at, (name, axes) in enumerate(zip(table.columns, flat, strict=False)):
        _heat(axes, cells[:, :, at][np.ix_(order, shown)], len(shown) * columns <= 2 * WRITTEN)
        axes.set_title(called(str(name), media.period), fontsize=9.5)
        below = at + columns >= cells.shape[-1]
        axes.tick_params(axis="x", labelbottom=below)
    for axes in flat[cells.shape[-1] :]:
        axes.set_visible(False)
    axes = flat[0]
    axes.set_yticks(np.arange(len(order)), labels=[drawn.geos[geo] for geo in order])
    axes.set_xticks(np.arange(len(shown)), labels=[drawn.channels[number] for number in shown])
    prepare_rows(flat)
    for label in (label for axes in flat for label in axes.get_xticklabels()):
        Names.prepare(label)
        label.set(rotation=35, ha="right", rotation_mode="anchor", fontsize=9)
    scale: Any = ScalarMappable(Normalize(0, 1), _SCALE)
    bar = figure.colorbar(scale, ax=flat[: cells.shape[-1]], location="bottom", shrink=0.45, aspect=40, pad=0.02)
    bar.ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    bar.set_label("0%: the geo's own data decide     100%: the group decides", fontsize=9)
    title = _title(media, drawn, cells)
    finish(figure, title, balanced=True)
    settle(figure)
    reading = (
        left_out(len(order), len(media.geos), "geos", "largest", FILE)
        + left_out(len(shown), len(media.channels), "channels", "strongest", FILE)
        + "Largest geos first. A pale cell is a geo whose own data decide; a deep one leans on the group, because its "
        "data say little or because the geos are alike. Grey: the channel has no such parameter."
    )
    return Picture("shrinkage", "What geos learn from one another", title, reading, figure, drawn.names, _table(media))


def _heat(axes: Any, values: np.ndarray, written: bool) -> None:
    """Cells of geos by channels, with their percentages where there is room."""
    axes.imshow(values, cmap=_SCALE, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        if written and np.isfinite(value):
            colour = _ON_DEEP if value > 0.68 else _ON_PALE
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=colour)


def _title(media: Media, drawn: Labels, cells: np.ndarray) -> str:
    """Which geo leans most on the group, and which least."""
    mean = np.nanmean(cells, axis=(1, 2))
    most, least = int(np.argmax(mean)), int(np.argmin(mean))
    if percent(mean[most]) == percent(mean[least]):
        return f"The group decides {percent(mean[most])} of each geo's parameters on average"
    return (
        f"{drawn.geos[most]} leans most on the group ({percent(mean[most])} on average), {drawn.geos[least]} least "
        f"({percent(mean[least])})"
    )


def _table(media: Media) -> Table:
    table = media.shrinkage
    mean = np.nanmean(table.to_numpy().reshape(len(media.geos), len(media.channels), -1), axis=1)
    rows = tuple(
        (visible(media.geos[geo]), *(percent(value) for value in mean[geo])) for geo in media.by_size[:MOST_GEOS]
    )
    heads = ("geo", *(called(str(name), media.period) for name in table.columns))
    return Table(f"Shrinkage of each geo, the mean over channels; {FILE} has every channel.", heads, rows)
