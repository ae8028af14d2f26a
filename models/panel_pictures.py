"""The pictures of a panel before any model: which weeks each geo has, spend by channel over time, target by geo."""

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pelton.engine.errors import UnknownNameError
from pelton.models.panel_checks import plural

if TYPE_CHECKING:
    from pelton.models.panel import Panel

WIDTH = 9.6
# Rows with a name each, above which names no longer fit and all rows become one image.
_NAMED_ROWS = 40
_NAMED_CELLS = 20
_SINGLE_TARGETS = 24

_INK, _MUTED, _GRID = "#1b1f24", "#59636e", "#e1e5ea"
_OBSERVED, _MASKED, _OUTSIDE = "#0072b2", "#e69f00", "#eceff2"
_SPEND = LinearSegmentedColormap.from_list("spend", ["#ffffff", "#0072b2"])
_STYLE: dict[str, Any] = {
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _GRID,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
}


def draw(panel: "Panel", what: str | None = None) -> Figure:
    """One picture, or all three below one another; see `Panel.plot`."""
    pictures: dict[str, tuple[Callable[[Panel], float], Callable[[Panel, Any], None]]] = {
        "weeks": (_weeks_height, _weeks),
        "spend": (_spend_height, _spend),
        "target": (_target_height, _target),
    }
    if what is not None and what not in pictures:
        raise UnknownNameError("picture", what, pictures)
    wanted = list(pictures) if what is None else [what]
    heights = [pictures[name][0](panel) for name in wanted]
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)  # pyright: ignore[reportCallIssue, reportArgumentType]
        figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)  # pyright: ignore
        parts: Any = [figure] if what else figure.subfigures(len(wanted), 1, height_ratios=heights, hspace=0.04)
        for name, part in zip(wanted, parts, strict=True):
            pictures[name][1](panel, part)
    return figure


def _edges(panel: "Panel") -> np.ndarray:
    """Where each period begins, and where the last ends, in matplotlib's days."""
    starts = date2num(panel.dates)
    return np.r_[starts, starts[-1] + panel.period_days]


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _title(part: Any, words: str) -> None:
    words = textwrap.fill(words, int(10.5 * WIDTH))
    part.suptitle(words, x=0.01, ha="left", fontsize=11.5, fontweight="bold").set_parse_math(False)


def _dates(axes: Any, dates: np.ndarray, most: int = 7) -> None:
    """At most so many ticks on firsts of months, or on some of the dates where months are too few."""
    first, last = dates[[0, -1]].astype("M8[M]").astype(np.int64)
    for step in (1, 2, 3, 6, 12, 24, 60, 120, 240):
        ticks = np.arange(first - first % step, last + 1, step).astype("M8[M]").astype("M8[D]")
        ticks = ticks[ticks >= dates[0]]
        if len(ticks) <= most:
            break
    months = len(ticks) >= 3
    if not months:
        ticks = dates[:: -(-len(dates) // most)]
    labels, before = [], None
    for tick in ticks.astype(object):
        name = f"{tick:%b}" if months else f"{tick.day} {tick:%b}"
        labels.append(name if tick.year == before else f"{name}\n{tick.year}")
        before = tick.year
    if all((tick.month, tick.day) == (1, 1) for tick in ticks.astype(object)):
        labels = [f"{tick.year}" for tick in ticks.astype(object)]
    axes.set_xticks(date2num(ticks), labels=labels)


def _amounts(axis: Any, ticks: int = 4) -> None:
    """Few ticks, written as 1.5M rather than 1500000."""
    axis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _compact(value)))


def _compact(value: float) -> str:
    for size, letter in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def _rows(axes: Any, names: Sequence[str], size: float) -> None:
    """Geos from the top down, by name where names fit."""
    axes.grid(visible=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    if size:
        axes.set_yticks(np.arange(len(names)), labels=[_short(name) for name in names], fontsize=size)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(names):,} geos")


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and end (not included) of each stretch of True."""
    change = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    return list(zip(change[::2].tolist(), change[1::2].tolist(), strict=True))


def _weeks_height(panel: "Panel") -> float:
    return 1.2 + (0.24 * len(panel.geos) if len(panel.geos) <= _NAMED_ROWS else 4.0)


def _weeks(panel: "Panel", part: Any) -> None:
    axes = part.subplots()
    edges, weeks = _edges(panel), panel.weeks
    masked = panel.inside & ~panel.observed
    if len(panel.geos) <= _NAMED_ROWS:
        for row in range(len(panel.geos)):
            for mask, colour in ((panel.observed, _OBSERVED), (masked, _MASKED)):
                bars = [(edges[a], edges[b] - edges[a]) for a, b in _runs(mask[row])]
                axes.broken_barh(bars, (row - 0.32, 0.64), facecolor=colour, lw=0)
            note = f"{weeks[row]:,}" + (f" ({masked[row].sum():,} masked)" if masked[row].any() else "")
            axes.text(1.01, row, note, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
        _rows(axes, panel.geos, 9)
        axes.grid(visible=True, axis="x")
    else:
        order = np.lexsort((-weeks, panel.inside.argmax(axis=1)))
        kind = (panel.inside.astype(np.int8) + masked)[order]
        colours = ListedColormap([_OUTSIDE, _OBSERVED, _MASKED])
        _image(axes, edges, kind, colours, 2)
        _rows(axes, panel.geos, 0)
    axes.set_xlim(edges[0], edges[-1])
    _dates(axes, panel.dates)
    legend = [Patch(color=_OBSERVED, label="target observed")]
    legend += [Patch(color=_MASKED, label="target masked")] if masked.any() else []
    if len(panel.geos) > _NAMED_ROWS and not panel.inside.all():
        legend.append(Patch(color=_OUTSIDE, label="no data"))
    if len(legend) > 1:
        axes.legend(handles=legend, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)
    low, high = int(weeks.min()), int(weeks.max())
    if len(panel.geos) == 1:
        words = f"The table has {plural(low, panel.period)}"
    elif low == high:
        words = f"Every geo has {plural(low, panel.period)}"
    else:
        words = f"Geos have {low:,} to {plural(high, panel.period)}"
    _title(part, words)


def _image(axes: Any, edges: np.ndarray, values: np.ndarray, colours: Any, most: float) -> None:
    """Cells of geos by dates. Dates are near enough equal in length for an image, which draws quickly."""
    extent = (edges[0], edges[-1], len(values) - 0.5, -0.5)
    axes.imshow(values, cmap=colours, vmin=0, vmax=most, aspect="auto", interpolation="nearest", extent=extent)


def _spend_row(panel: "Panel") -> float:
    geos = len(panel.geos)
    return 1.35 if geos <= 8 else min(1.35 + 0.09 * (geos - 8), 2.6)


def _spend_height(panel: "Panel") -> float:
    return 1.0 + _spend_row(panel) * len(panel.channels)


def _spend(panel: "Panel", part: Any) -> None:
    edges, geos = _edges(panel), len(panel.geos)
    columns = 1 if geos == 1 else 2
    grid = part.subplots(len(panel.channels), columns, squeeze=False, sharex=True, width_ratios=[1.15, 1][:columns])
    totals = panel.spend.sum(axis=(0, 1))
    shades = _SPEND.with_extremes(bad=_OUTSIDE)
    weeks = panel.inside.sum()
    for k, channel in enumerate(panel.channels):
        axes = grid[k, 0]
        amount = panel.spend[:, :, k].sum(axis=0)
        axes.stairs(amount, edges, fill=True, color=_OBSERVED, lw=0)
        axes.set_ylim(0, 1.08 * amount.max())
        _amounts(axes.yaxis)
        share, active = totals[k] / totals.sum(), (panel.media[:, :, k] > 0).sum() / weeks
        words = f"{_short(channel)}: {share:.0%} of all spend, active in {active:.0%} of {panel.period}s"
        axes.set_title(words).set_parse_math(False)
        if columns == 2:
            largest = panel.spend[:, :, k].max(axis=1, keepdims=True)
            cells = panel.spend[:, :, k] / np.where(largest > 0, largest, 1.0)
            _image(grid[k, 1], edges, np.where(panel.inside, cells, np.nan), shades, 1.0)
            if geos <= _NAMED_CELLS:
                grid[k, 1].hlines(np.arange(0.5, geos - 1), edges[0], edges[-1], color="white", lw=1.2)
            room = 72 * (_spend_row(panel) - 0.45) / geos
            _rows(grid[k, 1], panel.geos, min(8.0, room) if geos <= _NAMED_CELLS else 0)
    grid[0, 0].set_xlim(edges[0], edges[-1])
    _dates(grid[0, 0], panel.dates)
    if columns == 2:
        note = "by geo, each as a share of its own largest" + ("" if panel.inside.all() else "; grey: no data")
        grid[0, 1].set_title(note, color=_MUTED, fontsize=8.5)
    words = f"{'Spend' if panel.has_spend else 'Media, taken as spend,'} per {panel.period}"
    if geos > 1:
        ragged = not panel.inside.all()
        words += ", summed over geos" + (f" (not all there in every {panel.period})" if ragged else "")
    most = int(totals.argmax())
    words += f": {_compact(totals.sum())} in total"
    if len(totals) > 1 and totals[most] > 0.5 * totals.sum():
        words += f", most of it in {_short(panel.channels[most])}"
    _title(part, words)


def _target_columns(geos: int) -> int:
    return 1 if geos == 1 else 2 if geos <= 4 else 3 if geos <= 9 else 4


def _target_height(panel: "Panel") -> float:
    geos = len(panel.geos)
    return 4.0 if geos > _SINGLE_TARGETS else 0.9 + 1.6 * -(-geos // _target_columns(geos))


def _target(panel: "Panel", part: Any) -> None:
    target, days = np.where(panel.observed, panel.target, np.nan), date2num(panel.dates)
    mean = np.nanmean(target, axis=1)
    if len(panel.geos) > _SINGLE_TARGETS:
        _target_bands(panel, part, target / mean[:, None], days)
        return
    columns = _target_columns(len(panel.geos))
    rows = -(-len(panel.geos) // columns)
    grid = part.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for geo, axes in enumerate(grid):
        if geo >= len(panel.geos):
            axes.set_visible(False)
            grid[geo - columns].tick_params(axis="x", labelbottom=True)
            continue
        axes.plot(days, target[geo], color=_OBSERVED, lw=1.1)
        for first, end in _runs(panel.inside[geo] & ~panel.observed[geo]):
            axes.axvspan(days[first], days[end - 1] + panel.period_days, color=_MASKED, alpha=0.45, lw=0)
        low, high = np.nanmin(target[geo]), np.nanmax(target[geo])
        axes.set_ylim(0 if low >= 0 else low - 0.06 * (high - low), high + 0.06 * (high - min(low, 0)))
        _amounts(axes.yaxis)
        axes.set_title(f"{_short(panel.geos[geo], 18)}, mean {_compact(mean[geo])}").set_parse_math(False)
    edges = _edges(panel)
    grid[0].set_xlim(edges[0], edges[-1])
    _dates(grid[0], panel.dates, 7 if columns < 3 else 4)
    words = _short(panel.target_name)
    if columns > 1:
        words += " by geo"
        words += f": the largest mean is {mean.max() / mean.min():.3g} times the smallest" if mean.min() > 0 else ""
    _title(part, words + ("; orange where it is masked" if (panel.inside & ~panel.observed).any() else ""))


def _target_bands(panel: "Panel", part: Any, relative: np.ndarray, days: np.ndarray) -> None:
    """Many geos: the spread over geos of the target as a multiple of each geo's mean."""
    axes = part.subplots()
    some = ~np.isnan(relative).all(axis=0)
    points = np.full((5, len(days)), np.nan)
    points[:, some] = np.nanquantile(relative[:, some], [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    axes.fill_between(days, points[0], points[4], color=_OBSERVED, alpha=0.18, lw=0, label="90% of geos")
    axes.fill_between(days, points[1], points[3], color=_OBSERVED, alpha=0.35, lw=0, label="half of the geos")
    axes.plot(days, points[2], color=_OBSERVED, lw=1.3, label="median geo")
    axes.axhline(1, color=_MUTED, lw=0.8, zorder=0)
    axes.set_ylabel("multiple of the geo's mean")
    axes.set_xlim(days[0], days[-1])
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)
    _dates(axes, panel.dates)
    _title(part, f"{_short(panel.target_name)} of {len(panel.geos):,} geos, each against its own mean")
