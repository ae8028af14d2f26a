"""The suite's stored results as tables: one for the README between its markers, long ones for docs/benchmarks.md."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pelton.benchmarks.cases import BY_NAME, CASES
from pelton.benchmarks.record import CHECKOUT, stored
from pelton.benchmarks.verdicts import COUNTED, LARGEST_RHAT, LARGEST_Z, MIN_ESS, ratios, spread
from pelton.engine.errors import DataError

README = CHECKOUT / "README.md"
PAGE = CHECKOUT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
OURS = "pelton"
# The label of lines in which the number of chains was set for all systems.
CHAINS = "chains"
LABELS = {
    "pelton/nuts": "pelton, its NUTS",
    "scipy_gibbs/corrected": "SciPy Gibbs, corrected",
    "scipy_gibbs/thirty_moves": "SciPy Gibbs, 30 moves",
    "scipy_gibbs/published": "SciPy Gibbs, as published",
    "emcee": "emcee",
    "numpyro": "NumPyro",
    "numpyro/textbook": "NumPyro, textbook",
    "numpyro/marginal": "NumPyro, rates integrated out",
    "blackjax": "BlackJAX",
    "pymc": "PyMC with nutpie",
    "pymc_marketing": "PyMC-Marketing",
    "meridian": "Meridian",
    "stan": "Stan (PyStan)",
    "cmdstan": "CmdStan",
}

type Line = Mapping[str, Any]


def label(system: str) -> str:
    """What a system is called in a table."""
    return LABELS.get(system, system)


def number(value: float) -> str:
    """Three digits, or all that stand before the point.

    >>> [number(value) for value in (0.01234, 0.5, 12.34, 1234.5, 1234567.0)]
    ['0.0123', '0.500', '12.3', '1,234', '1,234,567']
    """
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if value >= 0.1 else f"{value:.3g}"


def short(value: float) -> str:
    """Two digits, for ratios.

    >>> [short(value) for value in (0.034, 0.97, 2.345, 67.8, 136543.0)]
    ['0.034', '0.97', '2.3', '68', '140,000']
    """
    if value >= 10:
        digits = max(0, len(str(int(value))) - 2)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.2g}"


def latest(lines: Iterable[Line]) -> list[Line]:
    """The last line of each case and system, cases in the suite's order; those of comparisons of commits left out."""
    found = {(line["case"], line["system"]): line for line in lines if "label" not in line}
    order = {case.name: at for at, case in enumerate(CASES)}
    places = {(case.name, system.name): at for case in CASES for at, system in enumerate(case.systems)}
    return sorted(
        found.values(),
        key=lambda line: (order.get(line["case"], 99), places.get((line["case"], line["system"]), 99)),
    )


def by_chains(lines: Iterable[Line]) -> dict[tuple[str, str], list[Line]]:
    """(case's title, system) -> the last line at each number of chains, in their order."""
    last = {(line["case"], line["system"], line["chains"]): line for line in lines if line.get("label") == CHAINS}
    found: dict[tuple[str, str], list[Line]] = {}
    for line in sorted(last.values(), key=lambda line: line["chains"]):
        found.setdefault((line["title"], line["system"]), []).append(line)
    return found


@dataclass(frozen=True)
class Against:
    """pelton's effective draws a second over a rival's: median, least and greatest quotient of runs; None without."""

    warm: list[float] | None
    cold: list[float] | None


def against(ours: Line | None, theirs: Line) -> Against:
    """The ratios; None where either has no speed, or no reference says whether both are right."""

    def speeds(line: Line, kind: str) -> list[float]:
        return [run[f"{kind}_ess_per_second"] for run in line["runs"]]

    if ours is None or not all(line["warm"] and line["answer"] in COUNTED for line in (ours, theirs)):
        return Against(None, None)
    return Against(*(ratios(speeds(ours, kind), speeds(theirs, kind)) for kind in ("warm", "cold")))


def by_case(lines: Sequence[Line]) -> dict[str, dict[str, Line]]:
    """case -> system -> line."""
    found: dict[str, dict[str, Line]] = {}
    for line in lines:
        found.setdefault(line["case"], {})[line["system"]] = line
    return found


def _cell(ours: Line | None, line: Line | None) -> str:
    """A rival's cell of the README: ratios warm and cold, or what is the matter."""
    if line is None:
        return ""
    if line["status"] != "ran":
        return line["status"]
    ratio = against(ours, line)
    if ratio.warm is None or ratio.cold is None:
        return str(line["answer"])
    rough = "~" if "few draws" in (line["answer"], ours["answer"] if ours else "") else ""
    cells = [rough + short(one[0]) for one in (ratio.warm, ratio.cold)]
    # A loss is shown as one.
    cells = [f"**{text}**" if one[0] < 1 else text for text, one in zip(cells, (ratio.warm, ratio.cold), strict=True)]
    return f"{cells[0]} ({cells[1]})"


def machines(lines: Sequence[Line]) -> list[str]:
    """Machine and commit of the lines, each once."""
    texts = []
    for line in lines:
        machine = line["machine"]
        text = (
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, commit {line['commit']}, "
            f"{line['recorded'][:10]}"
        )
        if text not in texts:
            texts.append(text)
    return texts


def _absent(lines: Sequence[Line]) -> list[str]:
    """Who did not run, and why, each reason once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line["status"] != "ran":
            why = f"{line['status']}: {line['why']}"
            reasons.setdefault((label(line["system"]), why), []).append(line["case"])
    return [f"{system} ({', '.join(cases)}): {why}" for (system, why), cases in reasons.items()]


def _grid(cases: Mapping[str, Mapping[str, Line]]) -> list[str]:
    """A table of cases by systems."""
    systems = list(dict.fromkeys(system for lines in cases.values() for system in lines if system != OURS))
    order = list(LABELS)
    systems.sort(key=lambda name: order.index(name) if name in order else len(order))
    rows = ["| | pelton, ESS/s | " + " | ".join(map(label, systems)) + " |", "|---|" + "---:|" * (len(systems) + 1)]
    for lines in cases.values():
        ours = lines.get(OURS)
        own = "" if ours is None else number(ours["warm"][0]) if ours["warm"] else str(ours["answer"] or ours["status"])
        title = next(iter(lines.values()))["title"]
        rows.append(f"| {title} | {own} | " + " | ".join(_cell(ours, lines.get(one)) for one in systems) + " |")
    return rows


def readme_block(lines: Sequence[Line]) -> str:
    """The README's part between the markers, from stored results."""
    lines = latest(lines)
    if not lines:
        return "Nothing has been measured yet: `pelton bench` does."
    cases = by_case(lines)
    rates = {name: found for name, found in cases.items() if name in BY_NAME and BY_NAME[name].model == "rates"}
    rest = {name: found for name, found in cases.items() if name not in rates}
    parts = [
        "How many times pelton's effective draws a second are a rival's, programs compiled, and in brackets from a "
        "process's start, imports and compiling counted. Below 1, in bold, the rival is the faster. ESS: the smallest "
        "bulk effective sample size over the quantities of interest. Medians of fresh processes run in turns on the "
        "same data and priors, each answer held against a reference first: one that is wrong, or did not converge, "
        "gets no speed. ~: with under 400 effective draws of one of the two the figure is rough."
    ]
    parts += ["\n".join(_grid(group)) for group in (rates, rest) if group]
    notes = [f"{text}." for text in machines(lines)]
    notes += [f"Not run: {text}." for text in _absent(lines)]
    notes.append(
        "Not covered: GPUs, other machines, more chains than each rival's recommended number. "
        "[docs/benchmarks.md](docs/benchmarks.md) has every figure and its spread; `pelton bench` measures on your "
        "machine."
    )
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes)])


COLUMNS = (
    "system",
    "answer",
    "worst z",
    "ESS",
    "ESS/s",
    "ratio",
    "ESS/s cold",
    "ratio cold",
    "compiling, s",
    "gradients / ESS",
    "R-hat",
    "divergences",
    "peak MB",
    "runs",
)


def _range(values: Sequence[float] | None, write: Any) -> str:
    if values is None:
        return ""
    middle, least, most = map(write, values)
    return middle if least == most else f"{middle} ({least} to {most})"


def cells(ours: Line | None, line: Line) -> list[str]:
    """A row of the long table, a text for each of `COLUMNS`."""
    runs = line["runs"]
    if not runs:
        return [label(line["system"]), line["status"], *[""] * (len(COLUMNS) - 2)]
    ratio = against(ours, line) if line["system"] != OURS else Against(None, None)

    def middle(name: str, write: Any = number) -> str:
        values = sorted(run[name] for run in runs if run[name] is not None)
        return write(values[len(values) // 2]) if values else ""

    return [
        label(line["system"]),
        str(line["answer"]),
        "" if line["worst_z"] is None else f"{line['worst_z']:+.1f}",
        middle("ess_bulk"),
        _range(line["warm"], number),
        _range(ratio.warm, short),
        _range(line["cold"], number),
        _range(ratio.cold, short),
        middle("compiling"),
        middle("gradients_per_draw"),
        middle("rhat", lambda value: f"{value:.3f}" if value < 100 else "none"),
        middle("divergences", lambda value: f"{value:,}"),
        middle("peak_bytes", lambda value: f"{value / 1e6:,.0f}"),
        str(len(runs)),
    ]


def case_notes(lines: Mapping[str, Line]) -> list[str]:
    """What a reader of a case's table must know."""
    first = next(iter(lines.values()))
    notes = [f"Data: {first['source']}."]
    references: dict[str, list[str]] = {}
    for line in lines.values():
        references.setdefault(line["reference"], []).append(label(line["system"]))
    notes += [f"Reference: {text} ({', '.join(names)})." for text, names in references.items()]
    if len(references) == 1:
        notes[-1] = f"Reference: {first['reference']}."
    by_draws: dict[str, list[str]] = {}
    for line in lines.values():
        draws = f"{line['chains']} x {line['draws']:,} after {line['warmup']:,}"
        by_draws.setdefault(draws, []).append(label(line["system"]))
    notes.append("Draws: " + "; ".join(f"{', '.join(names)} {draws}" for draws, names in by_draws.items()) + ".")
    notes += [f"{label(line['system'])} {line['status']}: {line['why']}." for line in lines.values() if line["why"]]
    if first["case"] in BY_NAME:
        notes += [f"Left out: {who}: {why}." for who, why in BY_NAME[first["case"]].left_out.items()]
    packages: dict[str, str] = {}
    for line in lines.values():
        packages |= {name: text for name, text in line["packages"].items() if name != "python"}
    notes.append(", ".join(f"{name} {text}" for name, text in packages.items()) + ".")
    return notes


def meaning() -> list[str]:
    """What the columns are, a sentence or two each."""
    return [
        f"answer: wrong where a mean or standard deviation of a quantity lies more than {LARGEST_Z:g} combined Monte "
        f"Carlo standard errors from the reference (worst z is the furthest); not converged past an R-hat of "
        f"{LARGEST_RHAT:g}; few draws under {MIN_ESS} effective draws in all; agrees or disagrees where another rival "
        "is all that there is to hold it against; unchecked without even that. A wrong answer, and one that did not "
        "converge, has no speed.",
        "ESS/s: smallest bulk effective sample size over all quantities of interest, by the seconds of a fit from data "
        "to draws, warm-up included and compiling taken off; of a second fit in the same process where the first took "
        "under 30 s. cold: by the seconds from the process's start, imports and compiling included, no cache at hand.",
        "Medians over processes, least and greatest in brackets; of ratios, over all pairs of runs. "
        "compiling, gradients, R-hat, divergences and memory are medians too.",
    ]


def warm_seconds(line: Line) -> list[float]:
    """Seconds of a fit, compiling taken off: median over runs, least and greatest."""
    return spread([run["warm_seconds"] for run in line["runs"]])


def chains_table(lines: Iterable[Line]) -> list[str]:
    """The parts of docs/benchmarks.md on the number of chains; none where it was not measured."""
    groups = by_chains(lines)
    if not groups:
        return []
    columns = ("case", "system", "chains", "answer", "ESS", "seconds", "ESS/s", "compiling, s", "peak MB")
    rows = [f"| {' | '.join(columns)} |", "|---|---|" + "---:|" * (len(columns) - 2)]
    for (title, system), found in groups.items():
        for line in found:
            cells = [title, label(system), str(line["chains"]), line["answer"] or line["status"], *_chains_cells(line)]
            rows.append(f"| {' | '.join(cells)} |")
    used = [line for found in groups.values() for line in found]
    return ["## By the number of chains", "\n".join(rows), "\n".join(f"- {text}" for text in machines(used))]


def _chains_cells(line: Line) -> list[str]:
    if not line["runs"]:
        return [""] * 5
    ess, compiling, peak = (
        spread([run[name] for run in line["runs"]])[0] for name in ("ess_bulk", "compiling", "peak_bytes")
    )
    seconds, speed = _range(warm_seconds(line), number), _range(line["warm"], number)
    return [number(ess), seconds, speed, number(compiling), f"{peak / 1e6:,.0f}"]


def page(lines: Sequence[Line]) -> str:
    """docs/benchmarks.md between its markers."""
    chains = chains_table(lines)
    lines = latest(lines)
    parts = ["\n".join(f"- {text}" for text in [*meaning(), *machines(lines)])]
    for found in by_case(lines).values():
        ours = found.get(OURS)
        head = "| " + " | ".join(COLUMNS) + " |"
        rows = ["| " + " | ".join(cells(ours, line)) + " |" for line in found.values()]
        rule = "|---|---|" + "---:|" * (len(COLUMNS) - 2)
        title = next(iter(found.values()))["title"]
        notes = "\n".join(f"- {note}" for note in case_notes(found))
        parts += [f"## {title[0].upper()}{title[1:]}", "\n".join([head, rule, *rows]), notes]
    return "\n\n".join([*parts, *chains])


def between(text: str, content: str, where: Path) -> str:
    """The text with the content between the markers.

    Raises:
        DataError: it has no markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise DataError(f"{where} needs the lines {BEGIN} and {END}, once each")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def write_tables(store: Path, readme: Path = README, doc: Path = PAGE) -> None:
    """Writes the README's block and the page in docs/ from the stored results, where they are at hand.

    Raises:
        DataError: a file has no markers.
    """
    lines = stored(store)
    for path, content in ((readme, readme_block(lines)), (doc, page(lines))):
        if not path.exists():
            # An installed package has neither.
            continue
        path.write_text(between(path.read_text(encoding="utf-8"), content, path), encoding="utf-8")
