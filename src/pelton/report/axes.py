"""Axes as the pictures want them: rates in per cent, plain logarithms, rows with names."""

from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from pelton.report.canvas import Names


def percent_axis(axis: Any, label: str) -> None:
    """An axis of rates in per cent, for data that are already times 100."""
    axis.set_label_text(label)
    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g}".replace("-", "−")))


def log_axis(axis: Any, low: float, high: float, label: str) -> None:
    """A logarithmic axis with few, plainly written ticks."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_label_text(label)
    decades = np.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    ticks: np.ndarray = np.asarray(LogLocator(base=10, subs=subs, numticks=6).tick_values(low, high))
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    # Within less than a decade the locator takes to ticks of its own, too many to stand side by side.
    if not 3 <= len(ticks) <= 6:
        ticks = np.asarray(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
        ticks = ticks[(ticks >= low) & (ticks <= high)]
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}" if value < 1e7 else f"{value:.2g}"))


def padded(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    room = share * (high - low) or 0.05 * max(abs(high), 1e-3)
    return low - room, high + room


def rows_axis(axes: Any, labels: list[str]) -> None:
    """Names at the left of rows, the first at the top."""
    axes.set_yticks(np.arange(len(labels)), labels=labels)
    for label in axes.get_yticklabels():
        Names.prepare(label)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def beside(axes: Any, row: float, words: str) -> None:
    """Writes at the right of a row."""
    axes.text(1.02, row, words, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
