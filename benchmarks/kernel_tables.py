"""The kernels benchmark's stored results as the tables of docs/benchmarks-kernels.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pelton.benchmarks.kernel_cases import OURS, cases
from pelton.benchmarks.record import CHECKOUT, stored
from pelton.benchmarks.suite_tables import between, number, short

PAGE = CHECKOUT / "docs" / "benchmarks-kernels.md"
OBVIOUS = ("stacked lags", "plain formula", "log-gamma of every unit")
LABELS = {
    "pymc_marketing/Numba": "PyMC-Marketing, Numba",
    "pymc_marketing/JAX": "PyMC-Marketing, JAX",
    "meridian/JAX": "Meridian, JAX",
}
COLUMNS = (
    "way",
    "microseconds",
    "ns an element",
    "times pelton's",
    "least bytes an element",
    "XLA's bytes an element",
    "share of the copy bandwidth",
    "off float64",
)

type Line = Mapping[str, Any]


def _label(way: str) -> str:
    return LABELS.get(way, way)


def latest(lines: Sequence[Line]) -> list[Line]:
    """The last line of each kernel, platform and size, kernels in the benchmark's order, CPUs first."""
    found = {(line["kernel"], line["platform"], tuple(line["shape"])): line for line in lines}
    order = {name: at for at, name in enumerate(cases())}
    return sorted(
        found.values(), key=lambda line: (line["platform"] != "cpu", line["shape"], order.get(line["kernel"], 99))
    )


def _has_none(row: Mapping[str, Any]) -> bool:
    """Whether the peer has no such kernel."""
    return (row["why"] or "").startswith("LookupError")


def _verdict(row: Mapping[str, Any]) -> str:
    """What stands in place of a time."""
    if row["error"] is not None:
        return "off"
    return "none" if _has_none(row) else "failed"


def _ratio(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["over_ours"] is None:
        return _verdict(row)
    text = short(row["over_ours"][0])
    # A loss is shown as one.
    return f"**{text}**" if row["over_ours"][0] < 1 else text


def _grid(lines: Sequence[Line]) -> str:
    """A row a kernel: pelton's time, and how many times as long each other way takes."""
    ways = list(dict.fromkeys(row["way"] for line in lines for row in line["ways"] if row["way"] != OURS))
    others = [way for way in ways if way not in OBVIOUS]
    heads = ["kernel", "pelton, us", "share of the copy bandwidth", "obvious JAX"]
    heads += [_label(way) for way in others]
    rows = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for line in lines:
        by_way = {row["way"]: row for row in line["ways"]}
        ours = by_way[OURS]
        own = ["", ""] if ours["seconds"] is None else [number(1e6 * ours["seconds"][0]), short(ours["share"])]
        obvious = next((by_way[way] for way in OBVIOUS if way in by_way), None)
        cells = [line["title"], *own, _ratio(obvious), *(_ratio(by_way.get(way)) for way in others)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _range(values: Sequence[float], write: Any) -> str:
    middle, least, most = map(write, values)
    return middle if least == most else f"{middle} ({least} to {most})"


def _cells(line: Line, row: Mapping[str, Any]) -> list[str]:
    name, elements = _label(row["way"]), line["elements"]
    error = "" if row["error"] is None else f"{row['error']:.0e}"
    if row["seconds"] is None:
        return [name, _verdict(row), "", "", "", "", "", error]
    counted = row["xla_bytes"]
    return [
        name,
        _range([1e6 * one for one in row["seconds"]], number),
        number(1e9 * row["seconds"][0] / elements),
        "" if row["way"] == OURS or row["over_ours"] is None else _range(row["over_ours"], short),
        number(row["least_bytes"] / elements),
        "" if counted is None else number(counted / elements),
        short(row["share"]),
        error,
    ]


def _versions(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in packages.items() if name != "python")


def _setting(lines: Sequence[Line]) -> list[str]:
    """Machine, versions and bandwidths, each text once."""
    texts: list[str] = []
    for line in lines:
        machine = line["machine"]
        environments = {"pelton": line["versions"], **line["peers"]}
        texts += [
            f"{machine['cpu']}, {machine['cores']} cores, {line['device']} ({line['platform']}), load "
            f"{machine['load']} before; commit {line['commit']}, {line['recorded'][:10]}; medians of {line['rounds']} "
            "rounds.",
            *(f"{name}: {_versions(packages)}." for name, packages in environments.items()),
            *(f"{name} absent: {why}." for name, why in line["absent"].items()),
        ]
        texts += [
            f"{LABELS.get(row['way'], row['way'])}, {line['title']}: {row['why']}."
            for row in line["ways"]
            if row["why"] and not _has_none(row)
        ]
    speeds = {kind: [line[f"{kind}_bytes_per_second"] / 1e9 for line in lines] for kind in ("copy", "far")}
    ends = {kind: f"{number(min(found))} to {number(max(found))} GB/s" for kind, found in speeds.items()}
    texts.append(f"Copy bandwidth: {ends['copy']} at the cases' sizes, {ends['far']} on 256 MiB.")
    return list(dict.fromkeys(texts))


def content(lines: Sequence[Line]) -> str:
    """What stands between the page's markers."""
    lines = latest(lines)
    if not lines:
        return "Nothing has been measured yet."
    parts = []
    for platform, name in (("cpu", "On a CPU"), ("gpu", "On a GPU")):
        here = [line for line in lines if line["platform"] == platform]
        if not here:
            parts += [f"## {name}", "Not measured."]
            continue
        parts += [f"## {name}", _grid(here), "\n".join(f"- {text}" for text in _setting(here))]
        for line in here:
            size = " x ".join(f"{one:,}" for one in line["shape"])
            head = f"| {' | '.join(COLUMNS)} |\n|---|" + "---:|" * (len(COLUMNS) - 1)
            rows = [f"| {' | '.join(_cells(line, row))} |" for row in line["ways"] if not _has_none(row)]
            title = f"{line['title'][0].upper()}{line['title'][1:]} ({size}, {line['precision']})"
            parts += [f"### {title}", "\n".join([head, *rows])]
    return "\n\n".join(parts)


def write_page(store: Path, page: Path = PAGE) -> None:
    """Writes the page from the stored results, where it is at hand.

    Raises:
        DataError: it has no markers.
    """
    if page.exists():
        text = between(page.read_text(encoding="utf-8"), content(stored(store)), page)
        page.write_text(text, encoding="utf-8")
