"""The pictures of what a media mix's parameters learnt: prior against posterior, and shrinkage towards the group."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pelton.report.axes import log_axis, rows_axis
from pelton.report.canvas import LIGHT, WIDTH, Picture, Table, finish, new_figure, styled
from pelton.report.media_axes import ROWS, Labels, a_few, labels_of, left_out, legend, percent, ratio_axis, settle
from pelton.report.media_numbers import Learnt, Media
from pelton.report.wording import significant, visible

# What a parameter is for people: a few words, and the unit.
MEANINGS = {
    "alpha": ("retention", "share kept from {period} to {period}"),
    "car": ("retention", "share kept from {period} to {period}"),
    "theta": ("delay of the peak", "{period}s"),
    "weibull_scale": ("time scale of the adstock", "{period}s"),
    "weibull_shape": ("shape of the adstock", ""),
    "half_saturation": ("half-saturation", "of a typical active {period}'s media"),
    "tanh_scale": ("scale of saturation", "of a typical active {period}'s media"),
    "rate": ("speed of saturation", "per typical active {period}'s media"),
    "sat": ("speed of saturation", "per typical active {period}'s media"),
    "slope": ("slope of the saturation", ""),
    "power": ("power of the response", ""),
    "contribution": ("contribution", "of a typical active {period}, as a share of the mean target"),
    "coef": ("effect at full saturation", "of the target"),
    "coefficient": ("effect at full saturation", "as a share of the mean target"),
    "roi": ("return on spend", "target per unit of spend"),
}
# An interval at least this much narrower than the prior's tells that the data spoke.
NARROWER = 0.5
# One hardly narrower tells that they did not.
SILENT = 0.9
# Parameters on an interval, whose widths are compared as they are; those of all others as ratios.
ON_INTERVAL = ("alpha", "car", "theta", "power")


def called(parameter: str, period: str) -> str:
    """A parameter in words.

    >>> called("half_saturation", "week"), called("gamma", "week")
    ('half-saturation', 'gamma')
    """
    return MEANINGS.get(parameter, (parameter.replace("_", " "), ""))[0].format(period=period)


@styled
def prior_picture(media: Media) -> Picture | None:
    """Each parameter of the typical geo before and after the data; None where the tree has no prior."""
    parameters = list(dict.fromkeys(one.parameter for one in media.learnt))
    if not parameters:
        return None
    shown = media.by_effect[:ROWS]
    drawn = labels_of(media, channels_length=26)
    columns = min(2, len(parameters))
    rows = -(-len(parameters) // columns)
    figure = new_figure(WIDTH, 1.2 + rows * (0.85 + 0.26 * len(shown)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, parameter in zip(grid.ravel(), parameters, strict=False):
        found = {one.channel: one for one in media.learnt if one.parameter == parameter}
        here = [number for number in shown if media.channels[number] in found]
        _compared(axes, [found[media.channels[number]] for number in here], parameter not in ON_INTERVAL)
        rows_axis(axes, [drawn.channels[number] for number in here])
        unit = MEANINGS.get(parameter, ("", ""))[1].format(period=media.period)
        axes.set_title(called(parameter, media.period) + (f"\n{unit}" if unit else ""), fontsize=9.5)
    for axes in grid.ravel()[len(parameters) :]:
        axes.set_visible(False)
    handles: list[Any] = grid[0, 0].plot([], [], "-", color=LIGHT["prior"], lw=7, alpha=0.35)
    handles += grid[0, 0].plot([], [], "o-", color=LIGHT["pooled"], ms=5.5, lw=2.2)
    legend(figure, handles, ["prior, 94%", "posterior: median and 94%"])
    title = _learnt_title(media, drawn)
    finish(figure, title, balanced=True)
    settle(figure)
    whose = "the typical geo" if len(media.geos) > 1 else " ".join(map(visible, media.geos))
    reading = (
        left_out(len(shown), len(media.channels), "channels", "strongest", "posterior.nc")
        + f"Parameters of {whose}. Where the blue line is as long as the purple bar, the data said nothing about it "
        "and the figure rests on the prior; the shorter the blue line, the more was learnt. A dot outside its bar is a "
        "value that the prior took for unlikely."
    )
    return Picture("prior", "What the data taught", title, reading, figure, drawn.names, _learnt_table(media))


def _compared(axes: Any, found: Sequence[Learnt], log: bool) -> None:
    """Bars of the prior with the posterior's dots and lines over them."""
    prior, posterior = (np.array([getattr(one, name) for one in found]) for name in ("prior", "posterior"))
    y = np.arange(len(found))
    axes.hlines(y, prior[:, 1], prior[:, 2], color=LIGHT["prior"], lw=7, alpha=0.35)
    axes.hlines(y, posterior[:, 1], posterior[:, 2], color=LIGHT["pooled"], lw=2.2)
    axes.plot(posterior[:, 0], y, "o", color=LIGHT["pooled"], mec=LIGHT["paper"], mew=0.7, ms=6)
    low = min(prior[:, 1].min(), posterior[:, 1].min())
    high = max(prior[:, 2].max(), posterior[:, 2].max())
    if log and low > 0:
        log_axis(axes.xaxis, low, high, "")
        axes.set_xlim(low / 1.15, high * 1.15)
    else:
        axes.set_xlim(min(0.0, low), 1.04 * high)
        ratio_axis(axes.xaxis)


def _narrowed(one: Learnt) -> float:
    """The width of the posterior's interval over that of the prior's."""
    prior, posterior = np.array(one.prior), np.array(one.posterior)
    if one.parameter not in ON_INTERVAL and prior.min() > 0 and posterior.min() > 0:
        prior, posterior = np.log(prior), np.log(posterior)
    width = float(prior[2] - prior[1])
    return float(posterior[2] - posterior[1]) / width if width > 0 else np.nan


def silent(media: Media) -> dict[str, list[str]]:
    """Channels of which the data say next to nothing, by parameter."""
    found: dict[str, list[str]] = {}
    for one in media.learnt:
        if _narrowed(one) > SILENT:
            found.setdefault(one.parameter, []).append(one.channel)
    return found


def _learnt_title(media: Media, drawn: Labels) -> str:
    learnt = sum(_narrowed(one) < NARROWER for one in media.learnt)
    title = f"The data at least halved the prior's interval for {learnt} of {len(media.learnt)} parameters"
    outside: dict[str, list[str]] = {}
    for one in media.learnt:
        if not one.prior[1] <= one.posterior[0] <= one.prior[2]:
            outside.setdefault(one.parameter, []).append(one.channel)
    said = "{} has a value that the prior took for unlikely" if outside else "they hardly speak of {}"
    for parameter, channels in list((outside or silent(media)).items())[:1]:
        named = a_few([drawn.channels[media.channels.index(channel)] for channel in channels], 2)
        title += "; " + said.format(f"the {called(parameter, media.period)} of {named}")
    return title


def _learnt_table(media: Media) -> Table:
    rows = [
        (
            visible(one.channel),
            called(one.parameter, media.period),
            *(_triple(triple) for triple in (one.prior, one.posterior)),
            percent(_narrowed(one)),
        )
        for number in media.by_effect
        for one in media.learnt
        if one.channel == media.channels[number]
    ]
    heads = ("channel", "parameter", "prior: median (94%)", "posterior: median (94%)", "width against the prior's")
    return Table("Parameters of the typical geo before and after the data.", heads, tuple(rows))


def _triple(triple: tuple[float, float, float]) -> str:
    middle, low, high = (significant(value, 3) for value in triple)
    return f"{middle} ({low} to {high})"
