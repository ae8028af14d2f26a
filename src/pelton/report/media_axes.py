"""Axes and grids as the pictures of a media mix want them: dates, amounts of money, small multiples, intervals."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.dates import MONTHLY, AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter, MaxNLocator

from pelton.report.canvas import LIGHT, WIDTH, Names
from pelton.report.media_numbers import Media
from pelton.report.wording import listed

# More geos or channels than these are left to the tables.
PANELS = 12
ROWS = 24
# Channels in order of their effect; further ones share one grey.
COLOURS = ("pooled", "chain2", "chain3", "chain4", "amber", "sky", "prior", "chain5")
REST = "muted"


def amount(value: float, sign: bool = False) -> str:
    """Three digits of a sum of money or of the target, large ones in thousands (k), millions (M) or billions (bn).

    >>> amount(1204567.0), amount(45678.0), amount(4567.8), amount(-0.01234), amount(12.0, sign=True)
    ('1.20M', '45.7k', '4,570', '−0.0123', '+12.0')
    """
    if not np.isfinite(value):
        return "–"
    rounded = float(f"{value:.3g}")
    if rounded == 0:
        return "0"
    size, letter = _unit(abs(rounded))
    decimals = max(0, 2 - int(np.floor(np.log10(abs(rounded) / size) + 1e-12)))
    text = f"{abs(rounded) / size:,.{decimals}f}{letter}"
    return ("−" if rounded < 0 else "+" if sign else "") + text


def amounts(low: float, high: float) -> str:
    """An interval of amounts.

    >>> amounts(1.2e6, 1.9e6)
    '1.20M to 1.90M'
    """
    return f"{amount(low)} to {amount(high)}"


def _unit(largest: float) -> tuple[float, str]:
    for size, letter in ((1e9, "bn"), (1e6, "M")):
        if largest >= size:
            return size, letter
    return (1e3, "k") if largest >= 1e4 else (1.0, "")


class Ratios:
    """Writes ratios such as ROAS, all with the decimals that their uncertainty deserves.

    >>> Ratios([0.4, 0.5])(3.14159), Ratios([0.004])(0.0712), Ratios([30.0]).interval(12.0, 250.0)
    ('3.1', '0.071', '12 to 250')
    """

    def __init__(self, widths: Iterable[float]):
        """Args: widths: of the intervals around what will be written, as standard deviations."""
        known = np.asarray([width for width in widths if np.isfinite(width) and width > 0])
        typical = float(np.median(known)) if known.size else 0.1
        self.decimals = int(np.clip(-np.floor(np.log10(typical) + 1e-9), 1 if typical < 10 else 0, 6))

    def __call__(self, value: float) -> str:
        return "–" if not np.isfinite(value) else f"{value:,.{self.decimals}f}"

    def interval(self, low: float, high: float) -> str:
        return f"{self(low)} to {self(high)}"


def percent(share: float) -> str:
    """A share in per cent, with a decimal below ten.

    >>> percent(0.3412), percent(0.0712), percent(float("nan"))
    ('34%', '7.1%', '–')
    """
    if not np.isfinite(share):
        return "–"
    return f"{100 * share:.{0 if abs(share) >= 0.0995 else 1}f}%".replace("-", "−")


class _AmountFormatter(Formatter):
    """Ticks in the unit that the largest on the axis needs, written alike."""

    def __init__(self, short: bool):
        self.short = short

    def __call__(self, x: float, pos: int | None = None) -> str:
        axis: Any = self.axis
        largest = max(abs(end) for end in axis.get_view_interval())
        size, letter = (1e3, "k") if self.short and 2e3 <= largest < 1e4 else _unit(largest)
        value = float(f"{x / size:.6g}")
        return "0" if value == 0 else f"{value:,.10g}{letter}".replace("-", "−")


def amount_axis(axis: Any, ticks: int = 4, short: bool = False) -> None:
    """Few ticks, written as 1.5M rather than 1500000; 2,500 as 2.5k where `short`."""
    axis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(_AmountFormatter(short))


def ratio_axis(axis: Any, ticks: int = 5) -> None:
    """Few ticks, plainly written."""
    axis.set_major_locator(MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{float(f'{value:.6g}'):,.10g}".replace("-", "−")))


def date_axis(axes: Any, columns: int) -> None:
    """Years and months, as few as fit beside one another in so many columns of panels."""
    locator = AutoDateLocator(minticks=2, maxticks={1: 10, 2: 6}.get(columns, 4))
    axes.xaxis.set_major_locator(locator)
    # Two years in three ticks need a whole one between them.
    locator.intervald[MONTHLY] = [1, 2, 3, 4, 6, 12]
    formatter = ConciseDateFormatter(locator, show_offset=False)
    # A year of two digits with each month, for a short series may show no January.
    formatter.formats[1], formatter.zero_formats[2] = "%b ’%y", "%b ’%y"
    axes.xaxis.set_major_formatter(formatter)


def day(date: np.datetime64) -> str:
    """
    >>> day(np.datetime64("2024-03-05T00:00"))
    '2024-03-05'
    """
    return str(date.astype("datetime64[D]"))


def small_multiples(
    figure: Any, number: int, columns: int | None = None, **settings: Any
) -> tuple[list[Any], np.ndarray]:
    """Axes for so many panels, and all of the grid [row, column] with the empty ones hidden."""
    columns = columns or columns_of(number)
    rows = -(-number // columns)
    grid = figure.subplots(rows, columns, squeeze=False, **settings)
    flat = list(grid.ravel())
    for axes in flat[number:]:
        axes.set_visible(False)
    return flat[:number], grid


def columns_of(number: int) -> int:
    """
    >>> [columns_of(n) for n in (1, 2, 4, 5, 12)]
    [1, 2, 2, 3, 3]
    """
    return number if number <= 2 else 2 if number == 4 else 3


def columns_over_time(number: int) -> int:
    """Fewer columns than for other panels: series of years want width.

    >>> [columns_over_time(n) for n in (1, 3, 4, 6, 12)]
    [1, 1, 2, 2, 3]
    """
    return 1 if number <= 3 else 2 if number <= 6 else 3


def name_axes(axes: Any, words: str, size: float = 9.5) -> None:
    """A panel's title, in which a name's signs are no formula."""
    axes.set_title(words, fontsize=size)
    Names.prepare(axes.title)
    for title in (axes._left_title, axes._right_title):
        Names.prepare(title)


def prepare_rows(panels: Sequence[Any]) -> None:
    """Fonts for the names of rows that panels share: each panel made the labels of their one axis anew."""
    for axes in panels:
        for label in axes.get_yticklabels():
            Names.prepare(label)


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Below everything, in as many columns as fit the width."""
    longest = max(len(label) for label in labels)
    columns = int(np.clip(WIDTH * 12.5 / (longest + 6), 1, len(labels)))
    # Rows of even length.
    columns = -(-len(labels) // -(-len(labels) // columns))
    drawn = figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    for text in drawn.get_texts():
        Names.prepare(text)


def interval_rows(
    axes: Any,
    rows: np.ndarray,
    low: np.ndarray,
    mean: np.ndarray,
    high: np.ndarray,
    limit: float,
    *,
    colour: str,
    marker: str = "o",
    hollow: bool = False,
    width: float = 2.2,
    size: float = 6.0,
    label: str | None = None,
) -> None:
    """Dots with their intervals, an arrow where an interval goes on past the limit."""
    seen = mean <= limit
    axes.hlines(rows, np.minimum(low, limit), np.minimum(high, limit), color=colour, lw=width, zorder=2)
    fill = {"mfc": LIGHT["paper"], "mew": 1.4} if hollow else {"mec": LIGHT["paper"], "mew": 0.7}
    axes.plot(mean[seen], rows[seen], marker, color=colour, ms=size, ls="", zorder=3, label=label, **fill)
    past = high > limit
    if past.any():
        axes.plot(np.full(past.sum(), limit), rows[past], ">", color=colour, ms=4.5, ls="", zorder=2, clip_on=False)


def right_end(mean: np.ndarray, high: np.ndarray) -> float:
    """Where an axis from 0 on ends: past all means, and past all intervals unless a few are far wider than the rest."""
    mean, high = mean[np.isfinite(mean)], high[np.isfinite(high)]
    if not len(mean):
        return 1.0
    most = max(1.25 * float(mean.max()), 2.5 * float(np.median(high)))
    # Cutting off a little would save no room.
    most = float(high.max()) if high.max() < 1.4 * most else most
    return 1.03 * most if most > 0 else 1.0


def left_out(shown: int, of: int, noun: str, order: str, files: str) -> str:
    """A sentence about what a picture has no room for; empty where it shows all.

    >>> left_out(12, 20, "geos", "largest", "fit.csv")
    'Shown are the 12 largest of 20 geos; fit.csv has all. '
    """
    return f"Shown are the {shown} {order} of {of} {noun}; {files} has all. " if shown < of else ""


def channel_colours(media: Media) -> list[str]:
    """A colour for each channel, the same in all pictures: those of most effect have their own."""
    found = [LIGHT[REST]] * len(media.channels)
    for role, number in zip(COLOURS, media.by_effect, strict=False):
        found[number] = LIGHT[role]
    return found


class Labels(NamedTuple):
    """What a picture draws for names: stand-ins for those that no font here has."""

    names: Names
    geos: list[str]
    channels: list[str]
    target: str


def labels_of(media: Media, geos_length: int = 24, channels_length: int = 36) -> Labels:
    """Drawn names of everything in a fit, at most so long."""
    names = Names(geos_length, "geo")
    geos = [names(name, row, "geo") for row, name in enumerate(media.geos)]
    channels = [names(name, row, "channel", channels_length) for row, name in enumerate(media.channels)]
    return Labels(names, geos, channels, names(media.target, 0, "target"))


def label_axis(axis: Any, words: str) -> None:
    """An axis's label with names in it."""
    axis.set_label_text(words)
    Names.prepare(axis.label)


def a_few(words: Sequence[str], most: int = 3) -> str:
    """Words in a sentence, the rest counted.

    >>> a_few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    if len(words) <= most + 1:
        return listed(list(words))
    return listed([*words[:most], f"{len(words) - most} more"])


def settle(figure: Figure) -> None:
    """Arranges the parts once and for all: each later drawing is then quick."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
