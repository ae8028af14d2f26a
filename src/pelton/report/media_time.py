"""The pictures of a media mix over time: the fit of each geo, and what made up the target week by week."""

from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pelton.models.attribution import ALL
from pelton.report.canvas import LIGHT, WIDTH, Picture, Table, Words, finish, new_figure, styled
from pelton.report.media_axes import (
    COLOURS,
    PANELS,
    REST,
    Labels,
    a_few,
    amount,
    amount_axis,
    amounts,
    channel_colours,
    columns_over_time,
    date_axis,
    day,
    label_axis,
    labels_of,
    left_out,
    legend,
    name_axes,
    percent,
    settle,
    small_multiples,
)
from pelton.report.media_numbers import Media
from pelton.report.wording import visible

# A geo whose weeks fall in their band less often than this is worth a word in the title.
LOW_COVERAGE = 0.85
# Opacity of the layer of channels without a colour of their own.
GREY = 0.6


@styled
def fit_picture(media: Media) -> Picture:
    """Observed and predicted target of each geo, with the interval of a new observation."""
    order = media.by_size[:PANELS]
    columns = columns_over_time(len(order))
    drawn = labels_of(media, 40 if columns < 3 else 15)
    rows = -(-len(order) // columns)
    figure = new_figure(WIDTH, 1.1 + (3.0 if len(order) == 1 else 1.9 if columns == 1 else 1.7) * rows)
    panels, _ = small_multiples(figure, len(order), columns)
    masked, words = False, Words("x")
    for geo, axes in zip(order, panels, strict=True):
        weeks = media.fit.weeks.xs(media.geos[geo], level="geo")
        dates = weeks.index.to_numpy()
        values = {name: weeks[name].to_numpy() for name in ("observed", "mean", "noise_low", "noise_high")}
        axes.fill_between(dates, values["noise_low"], values["noise_high"], color=LIGHT["pooled"], alpha=0.2, lw=0)
        axes.plot(dates, values["mean"], color=LIGHT["pooled"], lw=1.4)
        size = float(np.clip(230 / len(dates) * (2 if columns == 1 else 1), 1.6, 4))
        axes.plot(dates, values["observed"], ".", color=LIGHT["ink"], ms=size, mew=0)
        words(axes, dates, values["mean"], _weeks_in_words(dates, values))
        gone = np.isnan(values["observed"])
        masked |= bool(gone.any())
        axes.plot(dates[gone], values["mean"][gone], "x", color=LIGHT["raw"], ms=4)
        quality = media.fit.geos.loc[media.geos[geo]]
        name_axes(axes, f"{drawn.geos[geo]}: R² {quality['r2']:.2f}, {percent(quality['coverage'])} inside")
        amount_axis(axes.yaxis)
        date_axis(axes, columns)
    for axes in panels[::columns]:
        label_axis(axes.yaxis, drawn.target)
    handles = [
        Line2D([], [], ls="", marker=".", color=LIGHT["ink"], ms=5),
        Line2D([], [], color=LIGHT["pooled"], lw=1.6),
        Patch(color=LIGHT["pooled"], alpha=0.2, lw=0),
    ]
    labels = ["observed", "predicted", "94% band of an observation"]
    if masked:
        handles.append(Line2D([], [], ls="", marker="x", color=LIGHT["raw"], ms=5))
        labels.append("predicted where the target is masked")
    legend(figure, handles, labels)
    title = _fit_title(media, drawn)
    finish(figure, title, balanced=True)
    settle(figure)
    reading = (
        left_out(len(order), len(media.geos), "geos", "largest", "fit.csv")
        + f"Each panel has its geo's own dates and its own scale. About 94 of 100 {media.period}s should lie inside "
        "the band; long stretches on one side of the line are something that the model does not know. R² is the share "
        f"of the {media.period}-to-{media.period} movement that the model follows: 1 is all of it."
    )
    heading = f"Observed and predicted {visible(media.target)}"
    return Picture("fit", heading, title, reading, figure, drawn.names, _fit_table(media), words)


def _weeks_in_words(dates: np.ndarray, values: dict[str, np.ndarray]) -> list[str]:
    rows = zip(
        map(day, dates), *(values[name] for name in ("observed", "mean", "noise_low", "noise_high")), strict=True
    )
    return [
        f"{date}: observed {amount(observed)}\npredicted {amount(mean)}\n94% of observations {amounts(low, high)}"
        for date, observed, mean, low, high in rows
    ]


def _fit_title(media: Media, drawn: Labels) -> str:
    quality = media.fit.geos
    title = f"{percent(quality['coverage'].iloc[0])} of the {media.period}s lie inside their 94% band"
    miss = media.misses[0]
    if np.isfinite(miss):
        title = f"The prediction misses the {drawn.target} by {percent(miss)} on average; {title}"
    inside = quality["coverage"].to_dict()
    low = [drawn.geos[geo] for geo in media.by_size if inside[media.geos[geo]] < LOW_COVERAGE]
    if low and len(media.geos) > 1:
        title += f", in {a_few(low, 2)} far fewer"
    return title


def _fit_table(media: Media) -> Table:
    rows = []
    for geo in [-1, *media.by_size]:
        row = media.fit.geos.loc[ALL if geo < 0 else media.geos[geo]]
        name = "all" if geo < 0 else visible(media.geos[geo])
        # Over all geos together R² would praise the model for knowing which of them are large.
        r2 = "–" if np.isnan(row["r2"]) or (geo < 0 and len(media.geos) > 1) else f"{row['r2']:.2f}"
        rows.append((name, f"{row['weeks']:,.0f}", r2, percent(media.misses[1 + geo]), percent(row["coverage"])))
        if len(media.geos) == 1:
            break
    return Table(
        f"How well the model describes each geo; fit.csv has every {media.period}.",
        ("geo", f"{media.period}s", "R²", "mean miss", "inside the 94% band"),
        tuple(rows),
    )


@styled
def contributions_picture(media: Media) -> Picture:
    """The baseline and every channel's contribution, stacked, for all geos together and for each."""
    order = media.by_size[:PANELS] if len(media.geos) > 1 else []
    colours, layers = channel_colours(media), _layers(media)
    columns = columns_over_time(len(order)) if order else 1
    drawn = labels_of(media, 40 if columns < 3 else 20)
    rows = -(-len(order) // columns)
    whole, small = 2.9 if order else 3.4, 1.9 if columns == 1 else 1.65
    figure = new_figure(WIDTH, 1.1 + whole + small * rows)
    if order:
        halves: Any = figure.subfigures(2, 1, height_ratios=[whole, small * rows])
        above, below = halves
        panels, _ = small_multiples(below, len(order), columns)
    else:
        above, panels = figure, []
    top: Any = above.subplots()
    parts = [drawn.channels[layer[0]] if len(layer) == 1 else f"{len(layer)} other channels" for layer in layers]
    words = Words("x")
    _stack(top, media, None, layers, colours, parts, words)
    if order:
        name_axes(top, "all geos together")
    date_axis(top, 1)
    label_axis(top.yaxis, f"{drawn.target} a {media.period}")
    for geo, axes in zip(order, panels, strict=True):
        _stack(axes, media, geo, layers, colours, parts, words)
        name_axes(axes, f"{drawn.geos[geo]}: media {percent(media.media_share[1 + geo, 0])}")
        date_axis(axes, columns)
    handles: list[Any] = [
        Patch(color=colours[layer[0]] if len(layer) == 1 else LIGHT[REST], alpha=0.9 if len(layer) == 1 else GREY, lw=0)
        for layer in layers
    ]
    handles += [Patch(color=LIGHT["muted"], alpha=0.3, lw=0), Line2D([], [], color=LIGHT["ink"], lw=1)]
    legend(figure, handles, [*parts, "baseline", "observed"])
    mean, low, high = media.media_share[0]
    title = f"Media brought {percent(mean)} of the {drawn.target} (94% interval {percent(low)} to {percent(high)})"
    if len(media.channels) > 1:
        title += f", most of all {drawn.channels[media.by_effect[0]]}"
    finish(figure, title, balanced=True)
    settle(figure)
    lengths = media.known.inside.sum(axis=1)
    reading = (
        left_out(len(order), len(media.geos), "geos", "largest", "contributions.csv") if order else ""
    ) + "The grey area is the baseline, what would have come without media; each colour on top of it is a channel."
    if len(set(lengths.tolist())) > 1:
        reading += " The total rises where a geo's data begin and falls where they end."
    if any(len(layer) > 1 for layer in layers):
        reading += f" Channels past the {len(COLOURS)} of most effect share one grey."
    table = _contribution_table(media)
    heading = "What made up the target over time"
    return Picture("contributions", heading, title, reading, figure, drawn.names, table, words)


def _layers(media: Media) -> list[list[int]]:
    """Channels that share a layer, from the bottom up; those past the colours are one."""
    order = media.by_effect
    most = len(COLOURS)
    return [[number] for number in order[:most]] + ([order[most:]] if len(order) > most else [])


def _stack(
    axes: Any,
    media: Media,
    geo: int | None,
    layers: list[list[int]],
    colours: list[str],
    parts: list[str],
    words: Words,
) -> None:
    """Layers of one geo, or of all together; `parts` are the layers' names."""
    mean = media.weekly["mean"].to_numpy()
    inside = media.known.inside
    if geo is None:
        here = inside.any(axis=0)
        values, observed = np.nansum(mean, axis=0), np.nansum(media.known.target, axis=0)
        # The sum says nothing where a geo's target is masked.
        observed = np.where((inside & np.isnan(media.known.target)).any(axis=0), np.nan, observed)
    else:
        here, values, observed = inside[geo], mean[geo], media.known.target[geo]
    dates, values, observed = media.known.dates[here], values[here], observed[here]
    size = len(media.channels)
    floor = values[:, size:].sum(axis=1)
    axes.fill_between(dates, 0, floor, color=LIGHT["muted"], alpha=0.3, lw=0)
    said = [[f"baseline {amount(value)}"] for value in floor]
    for layer in layers:
        top = floor + values[:, layer].sum(axis=1)
        colour = colours[layer[0]] if len(layer) == 1 else LIGHT[REST]
        axes.fill_between(dates, floor, top, color=colour, alpha=0.9 if len(layer) == 1 else GREY, lw=0)
        for lines, value in zip(said, top - floor, strict=True):
            lines.append(f"{parts[len(lines) - 1]} {amount(value)}")
        floor = top
    rows = zip(map(day, dates), observed, said, strict=True)
    # From the top layer down, as they are drawn.
    texts = ["\n".join([f"{date}: observed {amount(seen)}", *lines[::-1]]) for date, seen, lines in rows]
    words(axes, dates, floor, texts)
    axes.plot(dates, observed, color=LIGHT["ink"], lw=0.8)
    axes.margins(x=0.01)
    if min(axes.dataLim.y0, np.nanmin(observed, initial=0.0)) >= 0:
        axes.set_ylim(0, None)
    amount_axis(axes.yaxis)


def _contribution_table(media: Media) -> Table:
    """Totals by component, all geos together."""
    names = [str(name) for name in media.weekly["component"].to_numpy()]
    size = len(media.channels)
    wanted = ("mean", "low", "high", "share", "share_low", "share_high")
    columns = {name: media.by_component(name)[0] for name in wanted}
    rows = [
        (
            visible(names[at]),
            "media" if at < size else "baseline",
            amount(columns["mean"][at]),
            amounts(columns["low"][at], columns["high"][at]),
            percent(columns["share"][at]),
            f"{percent(columns['share_low'][at])} to {percent(columns['share_high'][at])}",
        )
        for at in [*media.by_effect, *range(size, len(names))]
    ]
    return Table(
        f"Contributions to {visible(media.target)} over all {media.period}s and geos; contributions.csv has every "
        f"{media.period} of every geo.",
        ("part", "kind", "contribution", "94% interval", "share", "94% interval of the share"),
        tuple(rows),
    )
