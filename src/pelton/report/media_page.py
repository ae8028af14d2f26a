"""The page of a media mix: its summary, the channels at a glance, every picture with its figures."""

from collections.abc import Sequence

from pelton.report.canvas import Picture, Table
from pelton.report.html import render
from pelton.report.media_axes import Ratios, amount, percent
from pelton.report.media_findings import MediaFindings
from pelton.report.media_numbers import Media
from pelton.report.wording import count, visible

# Rows of the table of channels; channels.csv has all.
MOST_CHANNELS = 40


def media_page(
    media: Media,
    findings: MediaFindings,
    pictures: Sequence[Picture],
    files: Sequence[tuple[str, str]],
    *,
    notes: Sequence[str] = (),
    source: str = "",
) -> str:
    """The whole page.

    Args:
        media: the fit's figures.
        findings: of `media_findings.find_media`.
        pictures: in their order on the page.
        files: names of the files beside it, and what each holds.
        notes: what the reader should know of the data.
        source: the name of the data, for the heading.
    """
    size = (
        f"{count(len(media.geos), 'geo')}, {count(len(media.channels), 'channel')}, "
        f"{count(len(media.known.dates), media.period)}"
    )
    kind = {"country_mix": "Country media mix"}.get(media.known.kind, "Media mix")
    return render(
        "media.html.j2",
        media.tree,
        pictures,
        heading=f"What media brought to {visible(media.target)}" + (f": {visible(source)}" if source else ""),
        what=f"{kind} of {size}",
        diagnostics=media.diagnostics,
        diagnostics_note="",
        findings=findings,
        notes=[visible(note) for note in notes],
        channels=channel_overview(media),
        files=files,
    )


def channel_overview(media: Media) -> Table:
    """One row a channel, all geos together: money, contribution, returns, half-life."""
    spend = media.by_cell("spend")[0]
    mean, share, low, high = (media.by_component(name)[0] for name in ("mean", "share", "share_low", "share_high"))
    returns = {name: media.by_cell(name)[0] for name in media.returns.columns}
    write = Ratios((returns["roas_high"] - returns["roas_low"]) / 3.76)
    rows = []
    for number in media.by_effect[:MOST_CHANNELS]:
        cells = [amount(spend[number]), percent(spend[number] / spend.sum()) if spend.sum() > 0 else "–"]
        cells += [amount(mean[number]), f"{percent(share[number])} ({percent(low[number])} to {percent(high[number])})"]
        for name in ("roas", "marginal_roas"):
            value, *ends = (returns[f"{name}{end}"][number] for end in ("", "_low", "_high"))
            cells.append(f"{write(value)} ({write.interval(ends[0], ends[1])})" if spend[number] > 0 else "–")
        life = media.carryover[number].typical_half_life
        cells.append(f"{life[0]:.1f} ({life[1]:.1f} to {life[2]:.1f})")
        rows.append((visible(media.channels[number]), *cells))
    heads = (
        "channel", "spend", "of all spend", "contribution", f"of the {visible(media.target)}", "ROAS", "marginal ROAS",
        f"half-life, {media.period}s",
    )  # fmt: skip
    cut = len(media.channels) - len(rows)
    which = f"The {len(rows)} channels of most effect" if cut > 0 else "The channels at a glance"
    over = "all geos together" if len(media.geos) > 1 else " ".join(map(visible, media.geos))
    return Table(f"{which}, {over}; 94% intervals in brackets. channels.csv has every geo.", heads, tuple(rows))
