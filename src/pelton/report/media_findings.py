"""What the fit of a media mix found, in sentences: what brought most, where more would pay, what is uncertain."""

import re
from dataclasses import dataclass

import numpy as np

from pelton.models.allocation import Allocation
from pelton.models.attribution import contribution_draws, marginal_roas
from pelton.models.media_checks import failure_indicators
from pelton.report.findings import verdict
from pelton.report.media_allocation import sentence as allocation_sentence
from pelton.report.media_axes import Ratios, a_few, amount, percent
from pelton.report.media_learning import called, silent
from pelton.report.media_numbers import Media
from pelton.report.wording import listed, probability, shorten, visible

# An interval whose upper end is so many times its lower settles little.
WIDE = 4.0


@dataclass(frozen=True)
class MediaFindings:
    """The headline of a media mix.

    Attributes:
        sentences: what the data say, most important first.
        cautions: what to be careful about.
        converged: whether nothing speaks against the draws.
        problems: what does, each with its remedy.
    """

    sentences: tuple[str, ...]
    cautions: tuple[str, ...]
    converged: bool
    problems: tuple[str, ...]


def find_media(media: Media, allocation: Allocation | None = None) -> MediaFindings:
    """Reads a fit.

    Args:
        media: its figures.
        allocation: of a budget, where there is one.
    """
    sentences = [_share(media), *_most(media), *_next(media)]
    if allocation is not None:
        sentences.append(allocation_sentence(allocation, media.target, media.period))
    sentences += [*_lasting(media), _fit(media)]
    converged, problems = verdict(media.tree)
    before = [] if allocation is None else [f"Before moving money: {visible(note)}." for note in allocation.notes]
    return MediaFindings(tuple(sentences), (*before, *_cautions(media)), converged, problems)


def _short(name: str) -> str:
    return shorten(visible(name), 60)


def _share(media: Media) -> str:
    mean, low, high = media.media_share[0]
    size = len(media.channels)
    total = media.by_component("mean")[0]
    return (
        f"Media brought {percent(mean)} of the {_short(media.target)} (94% interval {percent(low)} to "
        f"{percent(high)}): {amount(total[:size].sum())} of {amount(total.sum())}. The rest would have come without "
        "them."
    )


def _most(media: Media) -> list[str]:
    """What brought most, and how sure that is."""
    if len(media.channels) < 2:
        return []
    draws = contribution_draws(media.known)
    by_channel = np.asarray(draws).reshape(-1, *draws.shape[2:])[..., : len(media.channels)].sum(axis=1)
    first = media.by_effect[0]
    share, spend = media.by_component("share")[0], media.by_cell("spend")[0]

    def said(number: int) -> str:
        money = f" for {percent(spend[number] / spend.sum())} of the spend" if spend[number] > 0 else ""
        return f"{_short(media.channels[number])} ({percent(share[number])} of the {_short(media.target)}{money})"

    sure = probability(float(np.mean(by_channel.argmax(axis=1) == first)))
    following = listed([said(number) for number in media.by_effect[1:3]])
    next_best = f"Next come{'s' if len(media.channels) == 2 else ''} {following}."
    return [f"Most came from {said(first)}; it is truly first with probability {sure}. {next_best}"]


def _next(media: Media) -> list[str]:
    """Where the next unit of money returns most."""
    spend = media.by_cell("spend")[1:]
    if not spend.sum() > 0:
        return []
    draws = marginal_roas(media.known.thin())
    cells = np.asarray(draws).reshape(-1, *draws.shape[2:])
    paid = np.flatnonzero(spend.sum(axis=0) > 0)
    by_channel = np.nansum(cells * spend, axis=1)[:, paid] / spend.sum(axis=0)[paid]
    mean, low, high = (media.by_cell(f"marginal_roas{end}")[0] for end in ("", "_low", "_high"))
    write = Ratios((high - low) / 3.76)
    order = paid[np.argsort(-mean[paid], kind="stable")]
    best, least = int(order[0]), int(order[-1])
    each = f"{_short(media.target)} per unit"
    ends = f"94% interval {write.interval(low[best], high[best])}"
    sentence = (
        f"The next unit of spend returns most in {_short(media.channels[best])}: {write(mean[best])} {each} ({ends})"
    )
    if len(order) > 1:
        sure = probability(float(np.mean(by_channel.argmax(axis=1) == paid.tolist().index(best))))
        sentence += (
            f", truly more than in any other with probability {sure}; it returns least in "
            f"{_short(media.channels[least])} ({write(mean[least])})"
        )
    found = [f"{sentence}."]
    if len(media.geos) > 1 and (spend > 0).sum() > 1:
        found.append(_best_line(media, cells))
    return found


def _best_line(media: Media, cells: np.ndarray) -> str:
    """The geo and channel where the next unit of money returns most."""
    mean, low, high = (media.by_cell(f"marginal_roas{end}")[1:] for end in ("", "_low", "_high"))
    geo, number = np.unravel_index(int(np.nanargmax(mean)), mean.shape)
    flat = np.nan_to_num(cells.reshape(len(cells), -1), nan=-np.inf)
    sure = probability(float(np.mean(flat.argmax(axis=1) == geo * mean.shape[1] + number)))
    write = Ratios([(high[geo, number] - low[geo, number]) / 3.76])
    return (
        f"By geo it returns most for {_short(media.channels[number])} in {_short(media.geos[geo])}: "
        f"{write(mean[geo, number])} (94% interval {write.interval(low[geo, number], high[geo, number])}). That no "
        f"other pair of geo and channel returns more has probability {sure}."
    )


def _lasting(media: Media) -> list[str]:
    lives = np.array([one.typical_half_life for one in media.carryover])
    longest = int(np.argmax(lives[:, 0]))
    mean, low, high = lives[longest]
    if not np.isfinite(mean):
        return []
    return [
        f"{_short(media.channels[longest])} acts longest: half of its effect comes within {mean:.1f} {media.period}s "
        f"(94% interval {low:.1f} to {high:.1f}), counted from the start of the {media.period} of the spend."
    ]


def _fit(media: Media) -> str:
    inside = f"{percent(media.fit.geos['coverage'].to_numpy()[0])} of the {media.period}s lie inside their 94% band"
    miss = media.misses[0]
    if not np.isfinite(miss):
        return f"{inside}."
    return f"The prediction misses the {_short(media.target)} by {percent(miss)} on average; {inside}."


def _cautions(media: Media) -> list[str]:
    found = [*_indicators(media), *_uncertain(media), *_unpaid(media), *_learnt(media)]
    if not media.known.has_spend:
        found.append(
            "The data give no spend apart from media: the media columns are taken as money. If they count something "
            "else (impressions, clicks), read “spend” as that, and returns as per unit of it."
        )
    return found


def _indicators(media: Media) -> list[str]:
    """Of `media_checks.failure_indicators`, with parameters in words; that of convergence stands above all already."""

    def said(match: re.Match[str]) -> str:
        return f"{match.group(1)} the {called(match.group(2), media.period)}"

    found = [text for text in failure_indicators(media.tree) if not text.startswith("The draws did not converge")]
    return [re.sub(r"\b(little on|much in) (\w+)", said, visible(text), count=1) for text in found]


def _uncertain(media: Media) -> list[str]:
    """The channel with the widest return, and in how many cells the data settle little."""
    low, mean, high = (media.by_cell(name) for name in ("roas_low", "roas", "roas_high"))
    paid = np.flatnonzero(np.isfinite(mean[0]))
    if not len(paid):
        return []
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(low > 0, high / low, np.inf)
    widest = int(paid[np.argmax(ratio[0, paid])])
    write = Ratios([(high[0, widest] - low[0, widest]) / 3.76])
    found = []
    if ratio[0, widest] > 2:
        least = "Least certain of the channels is" if len(paid) > 1 else "Uncertain is"
        found.append(
            f"{least} {_short(media.channels[widest])}: its return on spend, {write(mean[0, widest])}, may be anything "
            f"from {write.interval(low[0, widest], high[0, widest])} (94%)."
        )
    if len(media.geos) > 1:
        cells = np.isfinite(mean[1:])
        wide = int((ratio[1:][cells] > WIDE).sum())
        if wide:
            found.append(
                f"In {wide} of {int(cells.sum())} pairs of geo and channel the upper end of the return's interval is "
                f"over {WIDE:g} times the lower: single geos are less certain than all together."
            )
    return found


def _unpaid(media: Media) -> list[str]:
    spend = media.by_cell("spend")[1:]
    cells = np.argwhere((spend <= 0) & (spend.sum(axis=0) > 0))
    if not len(cells):
        return []
    named = [f"{_short(media.channels[number])} in {_short(media.geos[geo])}" for geo, number in cells]
    return [f"Nothing was spent on {a_few(named)}: what the report says of it there is what the other geos teach."]


def _learnt(media: Media) -> list[str]:
    found = []
    for parameter, channels in silent(media).items():
        named = a_few([_short(channel) for channel in channels])
        found.append(f"the {called(parameter, media.period)} of {named}")
    if not found:
        return []
    return [f"The data hardly speak of {listed(found)}; there the figures rest on the prior."]
