"""The pictures of a media mix's curves: what more or less spend would bring, and how long it acts."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.lines import Line2D

from pelton.report.canvas import LIGHT, WIDTH, Picture, Table, Words, finish, new_figure, styled
from pelton.report.media_axes import (
    PANELS,
    ROWS,
    Labels,
    Ratios,
    amount,
    amount_axis,
    amounts,
    channel_colours,
    columns_of,
    label_axis,
    labels_of,
    left_out,
    name_axes,
    percent,
    ratio_axis,
    settle,
    small_multiples,
)
from pelton.report.media_numbers import Carryover, Media
from pelton.report.wording import count, visible

# Rows and columns of the curves of single geos.
MATRIX = 6
TODAY = ("today_mean", "today_low", "today_high")
# Weights are drawn until this share of every channel's effect has come.
SEEN = 0.99
# Faint lines of geos past this many say nothing more.
FAINT = 40


@styled
def response_picture(media: Media) -> Picture | None:
    """Response curves of all geos together with today's spend marked; None where no channel was ever paid for."""
    curves = media.together
    shown = [number for number in media.by_effect if np.isfinite(curves["mean"].to_numpy()[number, -1])][:PANELS]
    if not shown:
        return None
    columns = columns_of(len(shown))
    rows = -(-len(shown) // columns)
    drawn = labels_of(media, channels_length=40 if columns < 3 else 28)
    figure = new_figure(WIDTH, 0.9 + (3.0 if len(shown) == 1 else 2.25) * rows)
    panels, _ = small_multiples(figure, len(shown), columns)
    colours, words = channel_colours(media), Words("x")
    for place, (number, axes) in enumerate(zip(shown, panels, strict=True)):
        one = curves.isel(channel=number)
        _curve(axes, one, colours[number], words, interval=True)
        name = drawn.channels[number]
        double = _gain(one)
        if np.isfinite(double):
            name += f"\ntwice the spend: {percent(double).replace('%', '')}% more"
        name_axes(axes, name)
        amount_axis(axes.xaxis, 4)
        amount_axis(axes.yaxis, 4)
        if place + columns >= len(shown):
            axes.set_xlabel(f"spend a {media.period}")
    for axes in panels[::columns]:
        label_axis(axes.yaxis, f"{drawn.target} a {media.period}")
    title = _response_title(media, drawn, shown)
    finish(figure, title, balanced=True)
    settle(figure)
    reading = (
        left_out(len(shown), len(media.channels), "channels", "strongest", "curves.csv")
        + f"What a steady spend a {media.period} brings a {media.period}, once carryover has built up"
        + (", all geos together, as the spend of all rises in proportion" if len(media.geos) > 1 else "")
        + ". The dot is today's spend, the mean of the last year, with its 94% interval; the band is that of the "
        "curve. The flatter the curve at the dot, the less the next unit of money brings."
    )
    heading, table = "What more or less spend would bring", _response_table(media)
    return Picture("response", heading, title, reading, figure, drawn.names, table, words)


def _curve(axes: Any, one: xr.Dataset, colour: str, words: Words, interval: bool) -> None:
    """A channel's curve with today's spend marked."""
    spend, mean, low, high = (one[name].to_numpy() for name in ("spend", "mean", "low", "high"))
    axes.fill_between(spend, low, high, color=colour, alpha=0.2, lw=0)
    axes.plot(spend, mean, color=colour, lw=1.8)
    rows = zip(spend, mean, low, high, strict=True)
    words(axes, spend, mean, [f"spend {amount(s)}: {amount(m)}\n94% interval {amounts(a, b)}" for s, m, a, b in rows])
    today, there = float(one["today"]), float(one["today_mean"])
    if today > 0:
        axes.plot([today, today], [0, there], color=LIGHT["ink"], lw=0.9, ls=":")
        if interval:
            axes.plot([today, today], [float(one["today_low"]), float(one["today_high"])], color=LIGHT["ink"], lw=1.2)
        axes.plot([today], [there], "o", color=LIGHT["ink"], mec=LIGHT["paper"], ms=6 if interval else 4.5, zorder=4)
    axes.set_xlim(0, spend[-1])
    axes.set_ylim(0, 1.05 * high.max() if high.max() > 0 else 1)


def _gain(one: xr.Dataset) -> float:
    """How much more twice today's spend would bring, of what today's brings."""
    if not float(one["today"]) > 0 or not float(one["today_mean"]) > 0:
        return np.nan
    # The curves of all geos together end at twice today's spend.
    return float(one["mean"][-1]) / float(one["today_mean"]) - 1


def _response_title(media: Media, drawn: Labels, shown: list[int]) -> str:
    gains = {number: _gain(media.together.isel(channel=number)) for number in shown}
    known = {number: gain for number, gain in gains.items() if np.isfinite(gain)}
    if not known:
        return "No channel was paid for within the last year"
    most, least = max(known, key=lambda number: known[number]), min(known, key=lambda number: known[number])
    if most == least:
        return f"Twice the spend on {drawn.channels[most]} would bring {percent(known[most])} more than today's"
    return (
        f"Twice today's spend would bring {percent(known[most])} more from {drawn.channels[most]}, "
        f"{percent(known[least])} more from {drawn.channels[least]}"
    )


def _response_table(media: Media) -> Table:
    rows = []
    for number in media.by_effect:
        one = media.together.isel(channel=number)
        today = float(one["today"])
        cells = [amount(today)]
        cells += [amount(float(one["today_mean"])), amounts(float(one["today_low"]), float(one["today_high"]))]
        double = [float(one[name][-1]) for name in ("mean", "low", "high")]
        cells += [amount(double[0]), amounts(double[1], double[2])] if today > 0 else ["–", "–"]
        rows.append((visible(media.channels[number]), *cells))
    heads = ("channel", f"spend a {media.period} today", f"{visible(media.target)} a {media.period}", "94% interval")
    return Table(
        "What today's spend and twice as much bring, all geos together; curves.csv has every geo's curve.",
        (*heads, "at twice the spend", "94% interval"),
        tuple(rows),
    )


@styled
def response_by_geo_picture(media: Media) -> Picture | None:
    """Each geo's response curves with today's spend marked; None with a single geo, or where nothing was paid for."""
    mean = media.curves["mean"].to_numpy()
    shown = [number for number in media.by_effect if np.isfinite(mean[:, number, -1]).any()][:MATRIX]
    if len(media.geos) < 2 or not shown:
        return None
    order, columns = media.by_size[:MATRIX], len(shown)
    drawn = labels_of(media, 18, (40, 40, 30, 22, 17, 14)[columns - 1])
    figure = new_figure(WIDTH, 1.2 + 1.25 * len(order))
    grid = figure.subplots(len(order), columns, squeeze=False)
    colours, words = channel_colours(media), Words("x")
    for row, geo in enumerate(order):
        for column, number in enumerate(shown):
            axes = grid[row, column]
            _curve(axes, media.curves.isel(geo=geo, channel=number), colours[number], words, interval=False)
            amount_axis(axes.xaxis, 3 if columns < 5 else 2, short=True)
            amount_axis(axes.yaxis, 3, short=True)
            axes.tick_params(labelsize=8, pad=2)
            if row == 0:
                name_axes(axes, drawn.channels[number], 9)
        label_axis(grid[row, 0].yaxis, drawn.geos[geo])
    label = figure.supxlabel(f"spend a {media.period}", fontsize=10)
    label.set_parse_math(False)
    title = _margin_title(media, drawn)
    finish(figure, title, balanced=True)
    settle(figure)
    reading = (
        left_out(len(order), len(media.geos), "geos", "largest", "curves.csv")
        + left_out(len(shown), len(media.channels), "channels", "strongest", "curves.csv")
        + f"What a steady spend a {media.period} brings in each geo, each panel with its own scale, with 94% bands. "
        "The dot is today's spend, the mean of the last year. A panel without a dot had no spend within that year; one "
        "that was never paid for shows what the group says."
    )
    table = _today_table(media, shown)
    heading = "What more or less spend would bring, by geo"
    return Picture("response_by_geo", heading, title, reading, figure, drawn.names, table, words)


def _today_table(media: Media, shown: list[int]) -> Table:
    """Today's spend of each geo and what it brings."""
    today, mean, low, high = (media.curves[name].to_numpy() for name in ("today", *TODAY))
    rows = []
    for geo in media.by_size[:ROWS]:
        cells = [
            f"{amount(today[geo, k])}: {amount(mean[geo, k])} ({amounts(low[geo, k], high[geo, k])})"
            if today[geo, k] > 0
            else "none"
            for k in shown
        ]
        rows.append((visible(media.geos[geo]), *cells))
    caption = f"Today's spend a {media.period}, and the {visible(media.target)} that it brings with its 94% interval."
    return Table(caption, ("geo", *(visible(media.channels[k]) for k in shown)), tuple(rows))


def _margin_title(media: Media, drawn: Labels) -> str:
    """Where the next unit of money returns most and least, among lines that were paid for."""
    marginal = media.by_cell("marginal_roas")[1:]
    if not np.isfinite(marginal).any():
        return "No geo has paid for any of these channels"
    write = Ratios((media.by_cell("marginal_roas_high")[1:] - media.by_cell("marginal_roas_low")[1:]).ravel() / 3.76)
    words = []
    for find in (np.nanargmax, np.nanargmin):
        geo, number = np.unravel_index(find(marginal), marginal.shape)
        words.append(f"for {drawn.channels[number]} in {drawn.geos[geo]} ({write(marginal[geo, number])})")
    if words[0] == words[1]:
        return f"The next unit of money returns most {words[0]}"
    return f"The next unit of money returns most {words[0]}, least {words[1]}"


@styled
def adstock_picture(media: Media) -> Picture:
    """How each channel's effect is spread over the periods after the spend, geos faint behind the typical one."""
    shown = media.by_effect[:PANELS]
    columns = columns_of(len(shown))
    rows = -(-len(shown) // columns)
    drawn = labels_of(media, channels_length=40 if columns < 3 else 28)
    figure = new_figure(WIDTH, 1.1 + (2.8 if len(shown) == 1 else 2.1) * rows)
    panels, _ = small_multiples(figure, len(shown), columns, sharey=True)
    colours, words = channel_colours(media), Words("x")
    for place, (number, axes) in enumerate(zip(shown, panels, strict=True)):
        one = media.carryover[number]
        _weights(axes, one, colours[number], media.by_size[:FAINT])
        rows = zip(*(100 * share for share in (one.mean, one.low, one.high)), strict=True)
        said = [
            f"after {count(lag, media.period)}: {m:.1f}%\n94% interval {a:.1f}% to {b:.1f}%"
            for lag, (m, a, b) in enumerate(rows)
        ]
        words(axes, np.arange(len(said)), 100 * one.mean, said)
        mean, low, high = one.typical_half_life
        name_axes(axes, f"{drawn.channels[number]}\nhalf within {_periods(mean, low, high, media.period)}")
        ratio_axis(axes.xaxis, 6)
        ratio_axis(axes.yaxis, 4)
        if place + columns >= len(shown):
            axes.set_xlabel(f"{media.period}s after the spend")
    for axes in panels[::columns]:
        axes.set_ylabel("share of the effect (%)")
    # What comes after is too little to be seen.
    last = max(4, *(int((np.cumsum(media.carryover[number].mean) < SEEN).sum()) for number in shown))
    for axes in panels:
        axes.set_xlim(-0.2, last + 0.2)
    panels[0].set_ylim(0, 104 * max(max(media.carryover[k].high.max(), media.carryover[k].geos.max()) for k in shown))
    said = next((one.typical for one in media.carryover if one.typical), "")
    if said:
        lines = [Line2D([], [], color=LIGHT["ink"], lw=1.8, marker="o", ms=3.5)]
        lines += [Line2D([], [], color=LIGHT["muted"], lw=0.8, alpha=0.6)]
        figure.legend(lines, [f"{said}, 94% band", "each geo, posterior mean"], loc="outside lower center", ncols=2)
    title = _adstock_title(media, drawn)
    finish(figure, title, balanced=True)
    settle(figure)
    reading = (
        left_out(len(shown), len(media.channels), "channels", "strongest", "channels.csv")
        + f"How much of a {media.period}'s effect falls in that {media.period} (0) and in each {media.period} after. "
        f"Half of the effect has come after so many {media.period}s, counted from the start of the {media.period} of "
        f"the spend; 94% intervals in brackets. Drawn until {percent(SEEN)} of every channel's effect have come."
    )
    return Picture("adstock", "How long media act", title, reading, figure, drawn.names, _adstock_table(media), words)


def _weights(axes: Any, one: Carryover, colour: str, geos: list[int]) -> None:
    """A channel's weights by lag, those of geos faint behind the typical one's."""
    lags = np.arange(len(one.mean))
    if one.typical:
        axes.plot(lags, 100 * one.geos[geos].T, color=LIGHT["muted"], lw=0.8, alpha=0.45)
    axes.fill_between(lags, 100 * one.low, 100 * one.high, color=colour, alpha=0.2, lw=0)
    axes.plot(lags, 100 * one.mean, color=colour, lw=1.8, marker="o", ms=3.5)


def _periods(mean: float, low: float, high: float, period: str) -> str:
    """A half-life with its interval: 1.2 weeks (0.9–1.8)."""
    if not np.isfinite(mean):
        return "no end"
    return f"{mean:.1f} {period}s ({low:.1f}–{high:.1f})"


def _adstock_title(media: Media, drawn: Labels) -> str:
    lives = np.array([one.typical_half_life for one in media.carryover])
    longest, shortest = int(np.argmax(lives[:, 0])), int(np.argmin(lives[:, 0]))
    most, least = (f"{lives[at, 0]:.1f}" for at in (longest, shortest))
    if most == least:
        whose = "every channel's" if len(lives) > 1 else f"the {drawn.channels[0]}"
        return f"Half of {whose} effect comes within {most} {media.period}s"
    unsure = ", though their intervals overlap" if lives[longest, 1] < lives[shortest, 2] else ""
    return (
        f"{drawn.channels[longest]} acts longest: half of its effect comes within {most} {media.period}s, of "
        f"{drawn.channels[shortest]} within {least}{unsure}"
    )


def _adstock_table(media: Media) -> Table:
    rows = []
    for number in media.by_effect:
        one = media.carryover[number]
        mean, low, high = one.typical_half_life
        first = one.half_life[:, 0]
        rows.append(
            (
                visible(media.channels[number]),
                f"{mean:.1f}",
                f"{low:.1f} to {high:.1f}",
                f"{first.min():.1f} to {first.max():.1f}",
                percent(one.mean[0]),
            )
        )
    heads = ("channel", "half-life", "94% interval", "geos' means", f"share in the {media.period} of the spend")
    return Table(f"Half-lives in {media.period}s; channels.csv has every geo.", heads, tuple(rows))
