"""The pictures of what a media mix's channels brought for their money: shares, ROAS and marginal ROAS, by geo."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pelton.report.axes import rows_axis
from pelton.report.canvas import LIGHT, WIDTH, Picture, Table, Words, finish, new_figure, styled
from pelton.report.media_axes import (
    PANELS,
    ROWS,
    Labels,
    Ratios,
    amount,
    channel_colours,
    columns_of,
    interval_rows,
    label_axis,
    labels_of,
    left_out,
    legend,
    name_axes,
    percent,
    prepare_rows,
    ratio_axis,
    right_end,
    settle,
    small_multiples,
)
from pelton.report.media_numbers import Media
from pelton.report.wording import visible

UNPAID = "no spend"


def widths(media: Media, name: str = "roas") -> np.ndarray:
    """The sd that an interval of 94% would have if it were normal's, of each cell [1 + geo, channel]."""
    return (media.by_cell(f"{name}_high") - media.by_cell(f"{name}_low")) / 3.76


@styled
def share_picture(media: Media) -> Picture | None:
    """Each channel's share of the target and, beside that of the spend, of what media brought; None with one alone."""
    if len(media.channels) < 2:
        return None
    order = media.by_effect[:ROWS]
    drawn = labels_of(media)
    colours = channel_colours(media)
    spend = media.by_cell("spend")[0]
    paid = float(spend.sum()) > 0
    share = {name: media.by_component(name)[0] for name in ("share", "share_low", "share_high")}
    figure = new_figure(WIDTH, 2.1 + 0.36 * len(order))
    left, right = figure.subplots(1, 2, sharey=True)
    y, words = np.arange(len(order)), Words("y")
    for row, number in enumerate(order):
        for axes, triple in (
            (left, [share["share_low"][number], share["share"][number], share["share_high"][number]]),
            (right, media.effect_share[number, [1, 0, 2]]),
        ):
            low, mean, high = (100 * np.atleast_1d(value) for value in triple)
            interval_rows(axes, y[row : row + 1], low, mean, high, np.inf, colour=colours[number], size=7)
    # Their figures are the table's, row by row.
    table = _share_table(media)
    for axes, columns, mean in (
        (left, (1, 2), share["share"]),
        (right, (4, 5, 3), media.effect_share[:, 0]),
    ):
        words(axes, 100 * mean[order], y, [_row_in_words(table, row, columns) for row in range(len(order))])
    if paid:
        look: dict[str, Any] = {"mfc": "none", "mec": LIGHT["ink"], "mew": 1.4, "ms": 6, "clip_on": False}
        right.plot(100 * spend[order] / spend.sum(), y, "D", **look)
        handles = [*right.plot([], [], "D", mfc="none", mec=LIGHT["ink"], mew=1.4, ms=6, ls="")]
        handles += right.plot([], [], "o-", color=LIGHT["pooled"], ms=6.5, lw=2.2)
        legend(figure, handles, ["share of the spend", "share of the effect, 94% interval"])
    for axes, label in ((left, f"share of {drawn.target} (%)"), (right, "share of what media brought (%)")):
        rows_axis(axes, [drawn.channels[number] for number in order])
        axes.set_xlim(0, None)
        label_axis(axes.xaxis, label)
        ratio_axis(axes.xaxis)
    title = _share_title(media, drawn)
    finish(figure, title, balanced=True)
    settle(figure)
    reading = left_out(len(order), len(media.channels), "channels", "strongest", "channels.csv") + (
        "Over all geos. The dot is the posterior mean, the line holds the true share with a probability of 94%."
    )
    if paid:
        reading += (
            " At the right a diamond to the left of its dot means that the channel brought more than its share of the "
            "money."
        )
    return Picture("share", "What each channel brought", title, reading, figure, drawn.names, table, words)


def _row_in_words(table: Table, row: int, columns: Sequence[int]) -> str:
    """Some cells of a row under its name."""
    cells = table.rows[row]
    return "\n".join([cells[0], *(f"{table.columns[at]}: {cells[at]}" for at in columns)])


def _share_title(media: Media, drawn: Labels) -> str:
    first = media.by_effect[0]
    share, spend = media.by_component("share")[0, first], media.by_cell("spend")[0]
    title = f"{drawn.channels[first]} brought most: {percent(share)} of the {drawn.target}"
    if spend[first] > 0:
        title += f", for {percent(spend[first] / spend.sum())} of the spend"
    return title


def _share_table(media: Media) -> Table:
    spend = media.by_cell("spend")[0]
    rows = []
    for number in media.by_effect:
        mean, low, high = media.effect_share[number]
        share = [media.by_component(name)[0, number] for name in ("share", "share_low", "share_high")]
        rows.append(
            (
                visible(media.channels[number]),
                percent(share[0]),
                f"{percent(share[1])} to {percent(share[2])}",
                percent(spend[number] / spend.sum()) if spend.sum() > 0 else "–",
                percent(mean),
                f"{percent(low)} to {percent(high)}",
            )
        )
    heads = ("channel", f"share of {visible(media.target)}", "94% interval", "share of spend", "share of the effect")
    return Table("Shares of each channel over all geos.", (*heads, "94% interval"), tuple(rows))


@styled
def roas_picture(media: Media) -> Picture | None:
    """ROAS and marginal ROAS of each channel, all geos together; None where nothing was paid for."""
    columns = {name: media.by_cell(name)[0] for name in media.returns.columns}
    paid = [number for number in np.argsort(-columns["roas"], kind="stable") if columns["spend"][number] > 0]
    if not paid:
        return None
    order = paid[:ROWS]
    drawn = labels_of(media)
    write = Ratios([*widths(media)[0], *widths(media, "marginal_roas")[0]])
    figure = new_figure(WIDTH, 2.1 + 0.46 * len(order))
    axes = figure.add_subplot()
    y = np.arange(len(order), dtype=float)
    limit = right_end(
        np.concatenate([columns["roas"][order], columns["marginal_roas"][order]]),
        np.concatenate([columns["roas_high"][order], columns["marginal_roas_high"][order]]),
    )
    for name, shift, colour, marker, label in (
        ("roas", -0.14, "pooled", "o", "ROAS: all spend of the data"),
        ("marginal_roas", 0.16, "raw", "D", "marginal ROAS: the next unit of money"),
    ):
        low, mean, high = (columns[f"{name}{end}"][order] for end in ("_low", "", "_high"))
        interval_rows(
            axes, y + shift, low, mean, high, limit, colour=LIGHT[colour], marker=marker, hollow=marker == "D",
            label=label, size=6.5 if marker == "o" else 5.5, width=2.2 if marker == "o" else 1.4,
        )  # fmt: skip
    words, table = Words("y"), _roas_table(media, write)
    words(axes, columns["roas"][order], y, [_row_in_words(table, row, range(1, 6)) for row in range(len(order))])
    rows_axis(axes, [drawn.channels[number] for number in order])
    for shift, head, name in ((1.02, "ROAS", "roas"), (1.12, "marginal", "marginal_roas")):
        axes.text(shift, -0.65, head, transform=axes.get_yaxis_transform(), va="bottom", fontsize=9)
        for row, number in enumerate(order):
            value = columns[name][number]
            axes.text(shift, row, write(value), transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_xlim(0, limit)
    label_axis(axes.xaxis, f"{drawn.target} per unit of spend")
    ratio_axis(axes.xaxis)
    figure.legend(loc="outside lower center", ncols=2)
    title = _roas_title(media, drawn, write)
    finish(figure, title, balanced=True)
    settle(figure)
    reading = left_out(len(order), len(paid), "channels", "best paid back", "channels.csv") + (
        f"All geos together, 94% intervals. ROAS is the {visible(media.target)} that a unit of money brought, "
        "carryover included; marginal ROAS is what the next unit would bring if spend rose a little everywhere. Where "
        "the diamond lies far to the left of the dot, the channel is saturated."
    )
    unpaid = [media.channels[number] for number in range(len(media.channels)) if columns["spend"][number] <= 0]
    if unpaid:
        reading += f" Nothing was spent on {', '.join(visible(name) for name in unpaid)}."
    return Picture("roas", "Return on spend", title, reading, figure, drawn.names, table, words)


def _roas_title(media: Media, drawn: Labels, write: Ratios) -> str:
    mean, marginal = (media.by_cell(name)[0] for name in ("roas", "marginal_roas"))
    best, following = int(np.nanargmax(mean)), int(np.nanargmax(marginal))
    if np.isfinite(mean).sum() == 1:
        said = f"{drawn.channels[best]} returned {write(mean[best])} per unit of spend"
        return f"{said}; the next unit would return {write(marginal[best])}"
    first = f"{drawn.channels[best]} paid back best ({write(mean[best])} per unit of spend)"
    if best == following:
        return f"{first}, and the next unit returns most there too ({write(marginal[best])})"
    return f"{first}; the next unit returns most in {drawn.channels[following]} ({write(marginal[following])})"


def _roas_table(media: Media, write: Ratios) -> Table:
    rows = []
    for number in np.argsort(-np.nan_to_num(media.by_cell("roas")[0], nan=-1.0), kind="stable"):
        cell = {name: media.by_cell(name)[0, number] for name in media.returns.columns}
        rows.append(
            (
                visible(media.channels[number]),
                amount(cell["spend"]),
                write(cell["roas"]),
                write.interval(cell["roas_low"], cell["roas_high"]),
                write(cell["marginal_roas"]),
                write.interval(cell["marginal_roas_low"], cell["marginal_roas_high"]),
            )
        )
    heads = ("channel", "spend", "ROAS", "94% interval", "marginal ROAS", "94% interval")
    return Table("Return on spend by channel, all geos together; channels.csv has every geo.", heads, tuple(rows))


@styled
def roas_by_geo_picture(media: Media) -> Picture | None:
    """ROAS of each channel in each geo; None where no channel was paid for in several geos."""
    columns = {name: media.by_cell(name) for name in ("roas", "roas_low", "roas_high")}
    spend = media.by_cell("spend")[0]
    order = media.by_size[:ROWS]
    most = PANELS if len(order) <= 10 else PANELS // 2
    shown = [number for number in np.argsort(-spend, kind="stable") if spend[number] > 0][:most]
    several = [number for number in shown if np.isfinite(columns["roas"][1:, number]).sum() > 1]
    if not several:
        return None
    colours, across = channel_colours(media), columns_of(len(shown))
    drawn = labels_of(media, channels_length=40 if across < 3 else 28)
    rows = -(-len(shown) // across)
    figure = new_figure(WIDTH, 1.0 + rows * (0.62 + 0.22 * (1 + len(order))))
    panels, _ = small_multiples(figure, len(shown), across, sharey=True)
    cells, words, write = np.array([0, *(1 + geo for geo in order)]), Words("y"), Ratios(widths(media)[1:].ravel())
    for place, (number, axes) in enumerate(zip(shown, panels, strict=True)):
        low, mean, high = (columns[name][cells, number] for name in ("roas_low", "roas", "roas_high"))
        limit = right_end(mean, high)
        y, paid = np.arange(len(cells)), np.isfinite(mean)
        axes.axvline(mean[0], color=LIGHT["muted"], ls=":", lw=1.2, zorder=0)
        first = y == 0
        for which, colour, size in ((first, LIGHT["ink"], 6.5), (paid & ~first, colours[number], 5.5)):
            interval_rows(axes, y[which], low[which], mean[which], high[which], limit, colour=colour, size=size)
        said = [
            f"{name}: ROAS {write(m)}\n94% interval {write.interval(a, b)}"
            for name, m, a, b in zip(
                ["all geos", *(visible(media.geos[geo]) for geo in order)], mean, low, high, strict=True
            )
        ]
        words(axes, mean[paid], y[paid], [said[row] for row in y[paid]])
        for row in y[~paid]:
            axes.text(0.02 * limit, row, UNPAID, va="center", fontsize=8, color=LIGHT["muted"])
        rows_axis(axes, ["all geos", *(drawn.geos[geo] for geo in order)])
        if len(order) > 10:
            axes.tick_params(axis="y", labelsize=8.5)
        axes.set_xlim(0, limit)
        name_axes(axes, drawn.channels[number])
        ratio_axis(axes.xaxis, 4)
        if place + across >= len(shown):
            axes.set_xlabel("ROAS")
    prepare_rows(panels)
    title = _spread_title(media, drawn, several)
    finish(figure, title, balanced=True)
    settle(figure)
    reading = (
        left_out(len(order), len(media.geos), "geos", "largest", "channels.csv")
        + left_out(len(shown), int((spend > 0).sum()), "channels", "with most spend", "channels.csv")
        + f"ROAS, {visible(media.target)} per unit of spend, with 94% intervals; geos in order of size, each panel "
        "with its own scale. The dotted line is all geos together. An arrow says that an interval goes on. Where "
        "intervals overlap widely, the data do not say that the geos differ."
    )
    table = _geo_table(media, shown)
    return Picture("roas_by_geo", "Return on spend by geo", title, reading, figure, drawn.names, table, words)


def _spread_title(media: Media, drawn: Labels, several: list[int]) -> str:
    """Between which geos the returns of a channel differ most, by their means."""
    low, mean, high = (media.by_cell(name)[1:] for name in ("roas_low", "roas", "roas_high"))
    widest = max(several, key=lambda number: np.nanmax(mean[:, number]) / np.nanmin(mean[:, number]))
    top, bottom = int(np.nanargmax(mean[:, widest])), int(np.nanargmin(mean[:, widest]))
    write = Ratios(widths(media)[1:, widest])
    sure = "" if low[top, widest] > high[bottom, widest] else ", though their intervals overlap"
    return (
        f"Geos differ most in {drawn.channels[widest]}: {write(mean[top, widest])} in {drawn.geos[top]}, "
        f"{write(mean[bottom, widest])} in {drawn.geos[bottom]}{sure}"
    )


def _geo_table(media: Media, shown: list[int]) -> Table:
    low, mean, high = (media.by_cell(name) for name in ("roas_low", "roas", "roas_high"))
    write = Ratios(widths(media)[1:].ravel())
    rows = []
    for geo in [-1, *media.by_size[:ROWS]]:
        at = 1 + geo
        cells = [
            f"{write(mean[at, k])} ({write.interval(low[at, k], high[at, k])})" if np.isfinite(mean[at, k]) else UNPAID
            for k in shown
        ]
        rows.append(("all geos" if geo < 0 else visible(media.geos[geo]), *cells))
    heads = ("geo", *(visible(media.channels[k]) for k in shown))
    return Table("ROAS with its 94% interval; channels.csv has all geos and channels.", heads, tuple(rows))
