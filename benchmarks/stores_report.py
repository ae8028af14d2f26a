"""How the stores benchmark's results read: a table for a terminal and one in Markdown, with their notes."""

from rich import box
from rich.table import Table

from pelton.benchmarks.stores_results import CORRECTED, Results, Row

COLUMNS = (
    "system",
    "alpha",
    "z",
    "beta",
    "z",
    "answer",
    "ESS",
    "s",
    "ESS/s",
    "ratio",
    "cold s",
    "cached",
)
TEXTS = ("system", "answer")
# A terminal of fewer columns gets z alone, not the means that it is made of.
WIDE = 104


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


def _fresh(row: Row, seconds: float | None) -> str:
    """Seconds of a fresh process; where it fell short of the effective draws, how many it had."""
    if seconds is not None:
        return f"{seconds:.2f}"
    return "" if row.cold_ess is None else f"ESS {row.cold_ess:.0f}"


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table, a text for each of `COLUMNS`."""
    return (
        row.system,
        f"{row.mean['alpha']:.4f}",
        f"{row.z['alpha']:+.1f}",
        f"{row.mean['beta']:.4f}",
        f"{row.z['beta']:+.1f}",
        row.answer,
        number(row.ess),
        number(row.seconds),
        number(row.ess_per_second),
        "" if row.ratio is None else number(row.ratio),
        _fresh(row, row.cold_seconds),
        _fresh(row, row.cached_seconds),
    )


def _kept(results: Results, means: bool) -> list[int]:
    """The columns that have something to show."""
    dropped = set() if any(row.cold_ess is not None for row in results.rows) else {"cold s", "cached"}
    dropped |= set() if means else {"alpha", "beta"}
    return [at for at, name in enumerate(COLUMNS) if name not in dropped]


def notes(results: Results) -> list[str]:
    """What a reader of the table must know, a sentence or two each."""
    truth, machine, base = results.truth, results.machine, results.row(CORRECTED)
    repeats = max(row.runs for row in results.rows)
    step = f"step {base.details['step']:.3g}{', tuned' if base.details.get('tuned') else ''}"
    runs = f"{repeats} interleaved run{'' if repeats == 1 else 's'}"
    once = f"{base.runs} timed run{'' if base.runs == 1 else 's'}"
    lines = [
        f"Truth by quadrature: alpha {truth.mean['alpha']:.4f}, beta {truth.mean['beta']:.4f}. z: how far "
        "the mean over all runs lies from it, in Monte Carlo standard errors, of alpha and of beta. WRONG: "
        "past 5, and no ratio. few draws: fewer than 400 effective draws, which prove little.",
        "ESS: the smaller bulk effective sample size of alpha and beta in one run. s: seconds of one run, "
        "from counts to draws, programs compiled, without tables of unit summaries. Both, and ESS/s, are "
        f"medians over {runs}. ratio: ESS/s over that of {CORRECTED!r}.",
        f"The reference ran on 1 core ({step}, {once}), ours on {machine['cores']}.",
    ]
    if base.answer == "few draws":
        lines.append(
            f"With {base.ess * base.runs:.0f} effective draws the reference's own ESS is a rough estimate: "
            "take the ratios as good to a factor of two or three."
        )
    if any(row.cold_ess is not None for row in results.rows):
        lines.append(
            "cold s: from a process's start, imports and compiling included, to 1,000 effective draws or "
            "more. cached: the same with a filled compilation cache."
        )
    if results.memory is not None:
        used = results.memory
        lines.append(
            f"Peak memory, {results.stores:,} stores x {used.draws:,} draws with unit summaries by "
            f"{used.sampler}: {used.peak_bytes / 1e9:.2f} GB, {used.seconds:.0f} s from the process's start."
        )
    lines += [f"{row.system} warned: {text}" for row in results.rows for text in row.warnings]
    packages = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    lines.append(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, {machine['system']}, "
        f"load {machine['load']} before; {packages}; commit {results.commit or 'unknown'}; "
        f"{results.recorded}."
    )
    return lines


def table(results: Results, width: int | None = None) -> Table:
    """The results as a table for a terminal.

    Args:
        results: of `pelton.benchmarks.stores.run`.
        width: columns of the terminal; below 104 the means are left out. None shows all.

    >>> from pelton.benchmarks.stores import run
    >>> found = run(40, ["grid"], repeats=1, cold=False, draws=500, sweeps=2000)
    >>> [column.header for column in table(found, width=80).columns]
    ['system', 'z', 'z', 'answer', 'ESS', 's', 'ESS/s', 'ratio']
    """
    shown = Table(title=f"{results.stores:,} stores", box=box.SIMPLE_HEAD, padding=0)
    kept = _kept(results, means=width is None or width >= WIDE)
    for at in kept:
        text = COLUMNS[at] in TEXTS
        shown.add_column(COLUMNS[at], justify="left" if text else "right", no_wrap=at != 0)
    for row in results.rows:
        texts = cells(row)
        shown.add_row(*(texts[at] for at in kept), style={"WRONG": "red", "few draws": "yellow"}.get(row.answer))
    return shown


def markdown(results: Results) -> str:
    """The results as a Markdown table and a list of notes.

    >>> from pelton.benchmarks.stores import run
    >>> found = run(40, ["grid"], repeats=1, cold=False, draws=500, sweeps=2000)
    >>> markdown(found).splitlines()[0]
    '40 stores, `simulate_stores(40, trials=(60, 159), seed=123)`'
    """
    kept = _kept(results, means=True)

    def line(texts: tuple[str, ...]) -> str:
        return "| " + " | ".join(texts[at] for at in kept) + " |"

    aligned = tuple("---" if name in TEXTS else "---:" for name in COLUMNS)
    rows = [line(COLUMNS), line(aligned), *(line(cells(row)) for row in results.rows)]
    points = [f"- {note}" for note in notes(results)]
    return "\n".join([f"{results.stores:,} stores, `{results.source}`", "", *rows, "", *points, ""])
