"""The suite's stored results as one HTML page that needs nothing else: pictures, tables, notes."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pelton.benchmarks import suite_tables as tables
from pelton.benchmarks.record import CHECKOUT
from pelton.benchmarks.suite_tables import OURS, Line
from pelton.benchmarks.verdicts import spread
from pelton.report.canvas import DARK, LIGHT, Picture, finish, new_figure, styled

REPORT = CHECKOUT / "benchmarks" / "report.html"
WIDTH = 9.0
COLOURS = ("pooled", "chain2", "chain3", "chain4", "chain5", "chain6", "prior", "amber", "bad", "muted", "good")
MARKS = "osD^v<>Pphd"


def _curves(axes: Any, at: int, name: str, bold: bool, points: Sequence[tuple[int, Sequence[float]]]) -> None:
    """A line through (where, (median, least, greatest))."""
    middle = [found[0] for _, found in points]
    ends = [[found[0] - found[1] for _, found in points], [found[2] - found[0] for _, found in points]]
    axes.errorbar(
        [where for where, _ in points],
        middle,
        yerr=ends,
        marker=MARKS[at % len(MARKS)],
        color=LIGHT[COLOURS[at % len(COLOURS)]],
        lw=2.5 if bold else 1.4,
        label=name,
    )


def _memory(line: Line) -> list[float]:
    return [value / 1e6 for value in spread([run["peak_bytes"] for run in line["runs"]])]


@styled
def by_size(lines: Sequence[Line], axis: str) -> Picture | None:
    """Effective draws a second and memory by the number of stores or geos, a line a system; None with one size."""
    points: dict[str, list[Line]] = {}
    for line in lines:
        if line["size"] and line["size"][0] == axis and line["warm"]:
            points.setdefault(line["system"], []).append(line)
    if len({line["size"][1] for found in points.values() for line in found}) < 2:
        return None
    figure = new_figure(WIDTH, 8.0)
    speed, memory = figure.subplots(2, 1, sharex=True)
    for at, (system, found) in enumerate(points.items()):
        found.sort(key=lambda line: line["size"][1])
        name, ours = tables.label(system), system == OURS
        _curves(speed, at, name, ours, [(line["size"][1], line["warm"]) for line in found])
        _curves(memory, at, name, ours, [(line["size"][1], _memory(line)) for line in found])
    speed.set(xscale="log", yscale="log", ylabel="smallest bulk ESS a second")
    memory.set(xscale="log", yscale="log", xlabel=axis, ylabel="peak MB of the process")
    speed.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    title = f"Effective draws a second and memory by number of {axis}"
    finish(figure, title)
    reading = (
        "Programs compiled, warm-up counted. Bars: least to greatest of the runs. A system without a point at a size "
        "was not run there, or gave an answer that is wrong or did not converge."
    )
    return Picture(f"by-{axis}", title, title, reading, figure)


@styled
def by_chains(lines: Sequence[Line]) -> Picture | None:
    """Effective draws a second and seconds of a fit by the number of chains; None where it was not measured."""
    found = {
        f"{title}: {tables.label(system)}": [line for line in group if line["warm"]]
        for (title, system), group in tables.by_chains(lines).items()
    }
    found = {name: group for name, group in found.items() if len(group) > 1}
    if not found:
        return None
    figure = new_figure(WIDTH, 8.0)
    speed, cost = figure.subplots(2, 1, sharex=True)
    for at, (name, group) in enumerate(found.items()):
        ours = group[0]["system"] == OURS
        _curves(speed, at, name, ours, [(line["chains"], line["warm"]) for line in group])
        _curves(cost, at, name, ours, [(line["chains"], tables.warm_seconds(line)) for line in group])
    speed.set(xscale="log", yscale="log", ylabel="smallest bulk ESS a second")
    cost.set(xscale="log", yscale="log", xlabel="chains", ylabel="seconds of a fit")
    numbers = sorted({line["chains"] for group in found.values() for line in group})
    cost.set_xticks(numbers, labels=[str(number) for number in numbers], minor=False)
    cost.minorticks_off()
    speed.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    title = "Effective draws a second and seconds by number of chains"
    finish(figure, title)
    reading = "Warm-up and draws a chain stay as they are. Programs compiled. Bars: least to greatest of the runs."
    return Picture("by-chains", title, title, reading, figure)


@styled
def all_ratios(lines: Sequence[Line], kind: str) -> Picture | None:
    """pelton's effective draws a second over each rival's, a row each, from the worst for pelton to the best."""
    cases = tables.by_case(lines)
    rows = []
    for line in lines:
        ratio = getattr(tables.against(cases[line["case"]].get(OURS), line), kind)
        if line["system"] != OURS and ratio is not None:
            rows.append((ratio, f"{line['title']}: {tables.label(line['system'])}"))
    if not rows:
        return None
    rows.sort(key=lambda row: row[0][0])
    figure = new_figure(WIDTH, 1.3 + 0.24 * len(rows))
    axes: Any = figure.subplots()
    for at, (ratio, _) in enumerate(rows):
        colour = LIGHT["raw"] if ratio[0] < 1 else LIGHT["pooled"]
        axes.plot(ratio[1:], [at, at], color=colour, lw=2)
        axes.plot(ratio[0], at, "o", color=colour, ms=6)
    axes.axvline(1.0, color=LIGHT["ink"], lw=1, ls="--")
    axes.set(xscale="log", xlabel="pelton's effective draws a second over the rival's")
    axes.set_yticks(range(len(rows)), labels=[name for _, name in rows], fontsize=8.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    lost = sum(ratio[0] < 1 for ratio, _ in rows)
    what = "programs compiled" if kind == "warm" else "from a process's start"
    title = f"Against every rival, {what}: {len(rows) - lost} of {len(rows)} faster, {lost} slower"
    finish(figure, title)
    reading = "Left of the dashed line the rival is the faster. Bars: least to greatest quotient of runs."
    return Picture(f"ratios-{kind}", f"Against every rival, {what}", title, reading, figure)


def _row(ours: Line | None, line: Line) -> dict[str, Any]:
    """A row of the page's table; losses: which of its cells after the first show one."""
    ratio = tables.against(ours, line)
    places = {"ratio": ratio.warm, "ratio cold": ratio.cold}
    losses = [tables.COLUMNS.index(name) - 1 for name, found in places.items() if found is not None and found[0] < 1]
    bad = line["status"] != "ran" or line["answer"] in ("wrong", "disagrees", "not converged")
    kind = "ours" if line["system"] == OURS else "bad" if bad else ""
    return {"cells": tables.cells(ours, line), "losses": [] if kind == "ours" else losses, "kind": kind}


def page(lines: Sequence[Mapping[str, Any]]) -> str:
    """The whole page, from the lines of the results file."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    chains = by_chains(lines)
    lines = tables.latest(lines)
    sizes = [by_size(lines, "stores"), by_size(lines, "geos"), chains]
    drawn = [*sizes, all_ratios(lines, "warm"), all_ratios(lines, "cold")]
    pictures = [
        {
            "heading": one.heading,
            "alt": one.alt,
            "reading": one.reading,
            "source": "data:image/svg+xml;base64," + base64.b64encode(one.svg().encode()).decode(),
        }
        for one in drawn
        if one is not None
    ]
    cases = [
        {
            "title": next(iter(found.values()))["title"],
            "rows": [_row(found.get(OURS), line) for line in found.values()],
            "notes": tables.case_notes(found),
        }
        for found in tables.by_case(lines).values()
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("suite.html.j2").render(
        light=LIGHT,
        dark=DARK,
        machines=tables.machines(lines),
        meaning=tables.meaning(),
        pictures=pictures,
        columns=tables.COLUMNS,
        cases=cases,
    )
