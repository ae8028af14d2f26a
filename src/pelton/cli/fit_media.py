"""`pelton fit` of media mixes: a table and a config go in, contributions, ROAS and a report come out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pelton.cli import show
from pelton.cli.runs import remember

if TYPE_CHECKING:
    from rich.table import Table

    from pelton.models.media_config import Config
    from pelton.report.media_findings import MediaFindings
    from pelton.report.media_numbers import Media

CONFIG = "config.toml"
# Geos in the table of the terminal; channels.csv has all.
MAX_GEOS = 12


def fit_media(
    data: str, name: str, model: str, config: Path | None, out: Path, sampling: dict[str, Any], *, manner: show.Manner
) -> bool:
    """Fits and reports; tells whether the draws converged.

    Args:
        data: as for `read_table`.
        name: of the data, for headings.
        model: media-mix or country-mix.
        config: as for `read_config`.
        out: folder for the results.
        sampling: settings of `pelton.sample` from the command line, None where it says nothing.
        manner: what is printed.
    """
    from pelton.cli.draws import RUN, drawn
    from pelton.cli.tables import Columns, read_table
    from pelton.engine.errors import ArgumentError
    from pelton.engine.samplers import sampler_class
    from pelton.models.media_config import read_config
    from pelton.report import check_output
    from pelton.report.media import FILES, PICTURES, write_media_report
    from pelton.report.media_findings import find_media
    from pelton.report.media_numbers import Media
    from pelton.report.write import REPORT

    if config is None:
        raise ArgumentError(
            f"--model {model} needs --config FILE; `pelton init {model} {data}` writes one to start from"
        )
    described = read_config(config)
    kind: Any = model.replace("-", "_")
    if kind == "media_mix" and described.type != kind:
        raise ArgumentError(
            f"{str(config)!r} describes a {described.type} ([model] type), and --model says {model}; make them agree"
        )
    given = {key: value for key, value in sampling.items() if value is not None}
    settings: dict[str, Any] = {**described.sampling, **given}
    if "sampler" in settings:
        sampler_class(settings["sampler"])
    progress = None if manner in ("plain", "verbose") else False
    check_output(out, [REPORT, *FILES, *PICTURES, CONFIG])

    def columns(header: list[str]) -> Columns:
        described.check_columns(header)
        return Columns(tuple(described.numbers), tuple(described.labels))

    frame, notes = read_table(data, columns)
    with show.collected(notes):
        panel = described.panel(frame)
        mix = described.model(panel, kind)
        # Asked for by name, a group that the model lacks is an error; the usual one is for the pictures.
        groups = settings.pop("groups", [group for group in ("prior",) if group in mix.extra_groups])
        tree = drawn(mix, settings, groups, progress, out=out, given=settings)
        remember(tree, {"notes": notes, "source": name})
        media = Media.of(tree)
        files = write_media_report(media, out, notes=notes, source=name)
        files.append(_save_config(described, given, out))
        files += [out / RUN] if (out / RUN).exists() else []
        findings = find_media(media)
    for text in dict.fromkeys(notes):
        show.note(text)
    if manner == "json":
        returns = show.records(media.returns)
        said = {"cautions": findings.cautions, "returns": returns}
        show.fitted(tree, findings, notes=notes, files=files, model=model, **said)
    else:
        show.outcome(tree, findings, manner, lambda: _print(media, findings, files, name))
    return findings.converged


def _save_config(config: "Config", given: dict[str, Any], out: Path) -> Path:
    """The config beside its results, with what the command line changed."""
    from pelton.report.wording import visible
    from pelton.report.write import aside

    changed = ", ".join(f"{key} = {value}" for key, value in given.items())
    head = [f"# In this run the command line set: {changed}"] if changed else []
    if config.lift_file is not None:
        head.append(f"# The file of lift tests was looked for in {visible(config.file.parent.resolve())}")
    with aside(out) as folder:
        (folder / CONFIG).write_text("\n".join([*head, "", config.text] if head else [config.text]), encoding="utf-8")
    return out / CONFIG


def _print(media: "Media", findings: "MediaFindings", files: list[Path], name: str) -> None:
    """The result at a glance."""
    from rich.padding import Padding
    from rich.text import Text

    from pelton.cli.draws import RUN, RUN_MEANS
    from pelton.report.media import FILES
    from pelton.report.wording import count, visible
    from pelton.report.write import REPORT

    console = show.console()
    weeks = count(len(media.known.dates), media.period)
    size = f"{count(len(media.geos), 'geo')}, {weeks}, {count(len(media.channels), 'channel')}"
    console.print(Text(f"{visible(name)}: {size}", style="bold"))
    for sentence in findings.sentences:
        console.print(Padding(Text(sentence), (0, 0, 0, 2)))
    for caution in findings.cautions:
        console.print(Padding(Text(caution, style="yellow"), (0, 0, 0, 2)))
    console.print()
    console.print(_channels(media, console.width))
    if len(media.geos) > 1:
        console.print(_by_geo(media, console.width))
        if len(media.geos) > MAX_GEOS:
            console.print(Text(f"  ... and {len(media.geos) - MAX_GEOS:,} more geos in channels.csv", style="dim"))
    console.print()
    show.verdict(media.tree, findings.problems)
    page = {REPORT: "everything, with pictures; open it in a browser"}
    show.files(files, page | FILES | {CONFIG: "the settings of this run", RUN: RUN_MEANS})


def _channels(media: "Media", width: int) -> "Table":
    """Channels over all geos, what brought most first; columns without room are left out."""
    from rich.cells import cell_len

    from pelton.report.media_axes import Ratios, amount, percent
    from pelton.report.wording import shorten, visible

    order = media.by_effect
    share, low, high = (media.by_component(f"share{end}")[0] for end in ("", "_low", "_high"))
    roas, roas_low, roas_high = (media.by_cell(f"roas{end}")[0] for end in ("", "_low", "_high"))
    marginal, spend = media.by_cell("marginal_roas")[0], media.by_cell("spend")[0]
    lives = [media.carryover[channel].typical_half_life for channel in range(len(media.channels))]
    write, weeks = Ratios((roas_high - roas_low) / 4), Ratios([(life[2] - life[1]) / 4 for life in lives])
    columns = {
        "spend": [amount(spend[c]) for c in order],
        f"share of {shorten(visible(media.target), 20)}": [percent(share[c]) for c in order],
        "94% interval": [f"{percent(low[c])} to {percent(high[c])}" for c in order],
        "ROAS": [write(roas[c]) for c in order],
        "94% interval ": [write.interval(roas_low[c], roas_high[c]) if roas[c] == roas[c] else "–" for c in order],
        "next unit": [write(marginal[c]) for c in order],
        f"half-life ({media.period}s)": [weeks(lives[c][0]) for c in order],
        "94% interval  ": [weeks.interval(*lives[c][1:]) for c in order],
    }
    names = [shorten(visible(media.channels[c]), 30) for c in order]
    room = width - max(map(cell_len, ["channel", *names])) - 5
    for least in ("94% interval  ", "spend", "next unit", "94% interval"):
        if sum(max(map(cell_len, [name, *cells])) + 3 for name, cells in columns.items()) <= room:
            break
        columns.pop(least, None)
    title = "Channels, all geos together" if len(media.geos) > 1 else "Channels"
    return _table(title, "channel", names, columns, bold="ROAS")


def _by_geo(media: "Media", width: int) -> "Table":
    """ROAS by geo and channel, with intervals where they have room."""
    from rich.cells import cell_len

    from pelton.report.media_axes import Ratios
    from pelton.report.wording import shorten, visible

    mean, low, high = (media.by_cell(f"roas{end}")[1:] for end in ("", "_low", "_high"))
    write = Ratios(((high - low) / 4).ravel())
    rows = media.by_size[:MAX_GEOS]
    names = [shorten(visible(media.geos[g]), 30) for g in rows]

    def cells(intervals: bool) -> dict[str, list[str]]:
        def cell(g: int, c: int) -> str:
            if mean[g, c] != mean[g, c]:
                return "–"
            ends = f" ({write(low[g, c])}–{write(high[g, c])})" if intervals else ""
            return write(mean[g, c]) + ends

        return {shorten(visible(media.channels[c]), 20): [cell(g, c) for g in rows] for c in media.by_effect}

    columns = cells(intervals=True)
    needed = sum(max(map(cell_len, [name, *column])) + 3 for name, column in columns.items())
    if needed > width - max(map(cell_len, [*names, "geo"])) - 5:
        columns = cells(intervals=False)
    return _table("ROAS by geo", "geo", names, columns)


def _table(title: str, head: str, names: list[str], columns: dict[str, list[str]], bold: str = "") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column(head, overflow="fold")
    for name in columns:
        table.add_column(name.rstrip(), justify="right", style="bold" if name == bold else "", no_wrap=True)
    for name, *row in zip(names, *columns.values(), strict=True):
        table.add_row(name, *row)
    return table
