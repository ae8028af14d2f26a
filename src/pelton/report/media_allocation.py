"""The pictures and words of a budget allocation: today's spend against the optimum's, and what each split brings."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.lines import Line2D

from pelton.models.allocation import Allocation
from pelton.report.axes import beside, padded, rows_axis
from pelton.report.canvas import LIGHT, WIDTH, Names, Picture, Table, Words, finish, new_figure, styled
from pelton.report.media_axes import (
    PANELS,
    ROWS,
    amount,
    amount_axis,
    amounts,
    columns_of,
    interval_rows,
    label_axis,
    left_out,
    legend,
    name_axes,
    percent,
    prepare_rows,
    settle,
    small_multiples,
)
from pelton.report.wording import probability, shorten, visible

PLANS = {"optimum": "optimum", "proportional": "in proportion to ROAS", "today": "today's split"}
# A move of less than this share of the budget is rounding.
NOTHING = 5e-4
FILE = "allocation.csv"


@dataclass(frozen=True, eq=False)
class _Lines:
    """An allocation's table as arrays.

    Attributes:
        geos, channels: labels.
        today, spend: money over the horizon [geo, channel].
        change: the optimum's less today's split of the same budget [geo, channel].
        beyond: lines that would spend more than was ever tried.
    """

    geos: list[str]
    channels: list[str]
    today: Float[np.ndarray, "geo channel"]
    spend: Float[np.ndarray, "geo channel"]
    change: Float[np.ndarray, "geo channel"]
    beyond: int

    @classmethod
    def of(cls, allocation: Allocation) -> "_Lines":
        table = allocation.table
        geos, channels = ([str(name) for name in table.index.unique(level)] for level in ("geo", "channel"))
        today, spend = (table[name].to_numpy().reshape(len(geos), len(channels)) for name in ("today", "spend"))
        share = allocation.budget / today.sum() if today.sum() > 0 else 0.0
        return cls(geos, channels, today, spend, spend - share * today, int(table["beyond"].to_numpy().sum()))

    def moves(self, budget: float) -> bool:
        """Whether anything moves."""
        return float(np.abs(self.change).max()) >= NOTHING * budget

    def named(self, flat: int) -> str:
        geo, channel = divmod(flat, len(self.channels))
        where = f" in {shorten(visible(self.geos[geo]), 40)}" if len(self.geos) > 1 else ""
        return shorten(visible(self.channels[channel]), 40) + where


def sentence(allocation: Allocation, target: str = "target", period: str = "period") -> str:
    """What an allocation found; its notes say what to heed before acting on it.

    Args:
        allocation: of `allocation.allocate`.
        target, period: what they are called.
    """
    plans: Any = allocation.plans.to_dict("index")
    best, lines = plans["optimum"], _Lines.of(allocation)
    cautious = allocation.objective != "mean"
    goal = f" (the one with the highest {100 * float(allocation.objective):g}% quantile)" if cautious else ""
    first = (
        f"Budget {whole(allocation.budget)} over {allocation.periods} {period}s: the best split{goal} is expected to "
        f"bring {amount(best['response_mean'])} of {visible(target)} ({_interval(allocation)} "
        f"{amounts(best['response_low'], best['response_high'])}), {amount(best['gain_mean'], sign=True)} "
        f"({_more(plans)}) against today's split of the same budget (interval "
        f"{amounts(best['gain_low'], best['gain_high'])}; better with probability {probability(best['p_better'])})."
    )
    if lines.moves(allocation.budget):
        up, down = (lines.named(int(end)) for end in (lines.change.argmax(), lines.change.argmin()))
        first += f" Most money goes to {up}, most is taken from {down}."
    return first


def whole(budget: float) -> str:
    """A budget as it was given.

    >>> whole(500000.0)
    '500,000'
    """
    return f"{budget:,.12g}"


def _interval(allocation: Allocation) -> str:
    return f"{100 * allocation.probability:g}% interval"


def _more(plans: Any) -> str:
    """What the optimum brings over today's split of the same budget, as a share of that."""
    before = plans["today"]["response_mean"]
    return percent(plans["optimum"]["gain_mean"] / before) if before > 0 else amount(plans["optimum"]["gain_mean"])


@styled
def allocation_picture(allocation: Allocation, target: str = "target", period: str = "period") -> Picture:
    """Today's and the optimum's spend by channel and by geo, and what three splits of the budget bring."""
    lines, plans = _Lines.of(allocation), allocation.plans.to_dict("index")
    names = Names(26, "geo")
    parts: list[tuple[str, np.ndarray, np.ndarray, list[str]]] = []
    for level, labels, axis in (("channel", lines.channels, 0), ("geo", lines.geos, 1)):
        today, spend = lines.today.sum(axis=axis), lines.spend.sum(axis=axis)
        order = np.argsort(-spend, kind="stable")[:ROWS]
        if level == "channel" or len(labels) > 1:
            parts.append((level, today[order], spend[order], [names(labels[at], int(at), level) for at in order]))
    most = max(len(labels) for *_, labels in parts)
    heights = [0.55 + 0.27 * most, 0.75 + 0.3 * len(plans)]
    figure = new_figure(WIDTH, 1.5 + sum(heights))
    halves: Any = figure.subfigures(2, 1, height_ratios=heights)
    above, below = halves
    grid = above.subplots(1, len(parts), squeeze=False)[0]
    words = Words("y")
    for axes, (level, today, spend, labels) in zip(grid, parts, strict=True):
        _dumbbells(axes, today, spend)
        words(axes, spend, np.arange(len(labels)), _moves_in_words(labels, today, spend))
        rows_axis(axes, labels)
        name_axes(axes, f"spend by {level}")
        # Channels and geos stand beside one another; rows of one height are easier to read.
        axes.set_ylim(most - 0.4, -0.6)
        amount_axis(axes.xaxis, 4)
        label_axis(axes.xaxis, f"money over {allocation.periods} {period}s")
    axes, drawn = below.subplots(), names(target, 0, "target")
    _responses(axes, plans)
    table = _plan_table(allocation, plans, target)
    heads = table.columns
    said = [
        "\n".join([row[0], *(f"{head}: {cell}" for head, cell in zip(heads[1:], row[1:], strict=True))])
        for row in table.rows
    ]
    words(axes, [plan["response_mean"] for plan in plans.values()], np.arange(len(plans)), said)
    label_axis(axes.xaxis, f"expected {drawn}, with {_interval(allocation)}s")
    name_axes(axes, f"what the budget of {whole(allocation.budget)} brings")
    legend(figure, _handles(), ["today", "optimum"])
    title = (
        f"{whole(allocation.budget)} in the best split bring {_more(plans)} more {drawn} than in today's split; better "
        f"with probability {probability(plans['optimum']['p_better'])}"
    )
    if not lines.moves(allocation.budget):
        title = f"Today's split of {whole(allocation.budget)} is as good as any within the bounds"
    finish(figure, title, balanced=True)
    settle(figure)
    sizes = {"channel": len(lines.channels), "geo": len(lines.geos)}
    cut = [left_out(len(labels), sizes[level], f"{level}s", "with most money", FILE) for level, *_, labels in parts]
    reading = "".join(cut) + (
        "Above, each line runs from what is spent today (the mean of the last year) to the optimum. Below, the same "
        "budget in three splits: the optimum, in proportion to ROAS, and as today; at the right the gain over today's "
        "split. The intervals overlap because all splits share what is uncertain; the probability compares them draw "
        "by draw."
    )
    return Picture("allocation", "Where the budget should go", title, reading, figure, names, table, words)


def _moves_in_words(labels: list[str], today: np.ndarray, spend: np.ndarray) -> list[str]:
    rows = zip(labels, today, spend, strict=True)
    return [
        f"{name}\ntoday {amount(now)}\noptimum {amount(best)} ({amount(best - now, sign=True)})"
        for name, now, best in rows
    ]


def _handles() -> list[Any]:
    look: dict[str, Any] = {"ls": "", "ms": 6}
    return [
        Line2D([], [], marker="D", mfc="none", mec=LIGHT["raw"], mew=1.4, **look),
        Line2D([], [], marker="o", color=LIGHT["pooled"], **look),
    ]


def _dumbbells(axes: Any, today: np.ndarray, optimum: np.ndarray, size: float = 6.0) -> None:
    """From today's spend to the optimum's, a row each."""
    y = np.arange(len(today))
    over: dict[str, Any] = {"ls": "", "clip_on": False, "zorder": 3}
    axes.hlines(y, today, optimum, color=LIGHT["muted"], lw=1.6)
    axes.plot(today, y, "D", mfc=LIGHT["paper"], mec=LIGHT["raw"], mew=1.4, ms=size - 0.5, **over)
    axes.plot(optimum, y, "o", color=LIGHT["pooled"], mec=LIGHT["paper"], mew=0.7, ms=size, **over)
    axes.set_xlim(0, 1.04 * max(float(today.max()), float(optimum.max())) or 1.0)


def _responses(axes: Any, plans: Any) -> None:
    """The response of each plan with its interval, and the gain in words."""
    low, mean, high = (
        np.array([plan[f"response_{end}"] for plan in plans.values()]) for end in ("low", "mean", "high")
    )
    interval_rows(axes, np.arange(len(plans)), low, mean, high, np.inf, colour=LIGHT["pooled"], size=6.5)
    rows_axis(axes, [PLANS.get(name, str(name)) for name in plans])
    axes.text(1.02, -0.65, "gain over today's split", transform=axes.get_yaxis_transform(), va="bottom", fontsize=9)
    for row, (name, plan) in enumerate(plans.items()):
        if name != "today":
            gain = amounts(plan["gain_low"], plan["gain_high"])
            beside(axes, row, f"{amount(plan['gain_mean'], sign=True)} ({gain})")
    axes.set_xlim(*padded(float(low.min()), float(high.max())))
    amount_axis(axes.xaxis, 6)


def _plan_table(allocation: Allocation, plans: Any, target: str) -> Table:
    rows = []
    for name, plan in plans.items():
        cells = [amount(plan["response_mean"]), amounts(plan["response_low"], plan["response_high"])]
        gain = [amount(plan["gain_mean"], sign=True), amounts(plan["gain_low"], plan["gain_high"])]
        gain += [probability(plan["p_better"])]
        rows.append((PLANS.get(name, name), *cells, *(gain if name != "today" else ["–"] * 3)))
    interval = _interval(allocation)
    heads = ("split", f"expected {visible(target)}", interval, "gain over today's", interval, "P(better)")
    return Table(f"What a budget of {whole(allocation.budget)} brings.", heads, tuple(rows))


@styled
def allocation_lines_picture(allocation: Allocation, period: str = "period") -> Picture | None:
    """Today's and the optimum's spend of every geo, a panel a channel; None with a single geo."""
    lines = _Lines.of(allocation)
    if len(lines.geos) < 2:
        return None
    shown = np.argsort(-np.maximum(lines.spend.sum(axis=0), lines.today.sum(axis=0)), kind="stable")[:PANELS]
    order = np.argsort(-np.maximum(lines.spend.sum(axis=1), lines.today.sum(axis=1)), kind="stable")[:ROWS]
    columns = columns_of(len(shown))
    rows = -(-len(shown) // columns)
    names = Names(24, "geo")
    labels = [names(lines.geos[geo], int(geo), "geo") for geo in order]
    figure = new_figure(WIDTH, 1.2 + rows * (0.62 + 0.22 * len(order)))
    panels, _ = small_multiples(figure, len(shown), columns, sharey=True)
    words = Words("y")
    for place, (number, axes) in enumerate(zip(shown, panels, strict=True)):
        today, spend = lines.today[order, number], lines.spend[order, number]
        _dumbbells(axes, today, spend, 5.5)
        words(axes, spend, np.arange(len(order)), _moves_in_words(labels, today, spend))
        rows_axis(axes, labels)
        if len(order) > 10:
            axes.tick_params(axis="y", labelsize=8.5)
        name_axes(axes, names(lines.channels[number], int(number), "channel", 40 if columns < 3 else 28))
        amount_axis(axes.xaxis, 4)
        if place + columns >= len(shown):
            axes.set_xlabel(f"money over {allocation.periods} {period}s")
    prepare_rows(panels)
    legend(figure, _handles(), ["today", "optimum"])
    edge = NOTHING * allocation.budget
    raised, lowered = int((lines.change > edge).sum()), int((lines.change < -edge).sum())
    title = f"{raised} of {lines.change.size} lines get more than their share today, {lowered} get less"
    if lines.beyond:
        title += f"; {lines.beyond} more than was ever tried"
    finish(figure, title, balanced=True)
    settle(figure)
    reading = (
        left_out(len(order), len(lines.geos), "geos", "with most money", FILE)
        + left_out(len(shown), len(lines.channels), "channels", "with most money", FILE)
        + f"Money over {allocation.periods} {period}s by geo and channel, each panel with its own scale."
    )
    if lines.beyond:
        reading += " Where more would be spent than was ever tried, the figures are an extrapolation; test it first."
    table = _line_table(allocation, lines)
    return Picture("allocation_lines", "The budget by geo and channel", title, reading, figure, names, table, words)


def _line_table(allocation: Allocation, lines: _Lines) -> Table:
    records: Any = allocation.table.to_dict("records")
    change = lines.change.ravel()
    rows = []
    for at in np.argsort(-np.abs(change), kind="stable")[:ROWS]:
        geo, channel = divmod(int(at), len(lines.channels))
        row = records[at]
        # What the solver leaves of a line that gets nothing.
        spent = row["spend"] >= NOTHING * allocation.budget / len(records)
        cells = [amount(row["spend"]) if spent else "0", amount(float(change[at]), sign=True)]
        cells += [amount(row["response_mean"]) if spent else "0"]
        cells += [amounts(row["response_low"], row["response_high"]) if spent else "–"]
        rows.append((f"{visible(lines.geos[geo])}, {visible(lines.channels[channel])}", amount(row["today"]), *cells))
    heads = ("line", "today", "optimum", "against today's split", "expected response", _interval(allocation))
    caption = f"The {len(rows)} lines that move most; {FILE} has all {len(records)}."
    return Table(caption, heads, tuple(rows))
