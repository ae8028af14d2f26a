"""What all pictures share: style and colours, fonts for unit names, and how they become PNG or SVG."""

import functools
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from pelton.report.wording import called, shorten, visible

# Colours by role, on light paper and on dark. Those of the data are Okabe and Ito's, which readers with any
# colour vision tell apart; darker or lighter here and there for contrast with the paper.
LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#59636e",
    "grid": "#e1e5ea",
    "pooled": "#0072b2",
    "raw": "#c95500",
    "prior": "#7a5ea8",
    "good": "#00795b",
    "bad": "#b3261e",
    "chain2": "#d55e00",
    "chain3": "#009e73",
    "chain4": "#b05c8d",
    "chain5": "#8a6d00",
    "chain6": "#2f8fc4",
    "amber": "#e0a100",
    "sky": "#56b4e9",
}
DARK = {
    "paper": "#161b21",
    "ink": "#e7eaee",
    "muted": "#a4aeb9",
    "grid": "#333b44",
    "pooled": "#5ab4e8",
    "raw": "#ff9a52",
    "prior": "#bda6e6",
    "good": "#4fcba5",
    "bad": "#ff8a80",
    "chain2": "#ff8c3a",
    "chain3": "#3fd0a4",
    "chain4": "#e79cc6",
    "chain5": "#e3c34a",
    "chain6": "#9bd3f5",
    "amber": "#f0bf40",
    "sky": "#8ccbf2",
}
CHAINS = ("pooled", "chain2", "chain3", "chain4", "chain5", "chain6")

FONT = "DejaVu Sans"
_SVG_FONTS = f"'{FONT}', Verdana, 'Segoe UI', 'Noto Sans', sans-serif"
PNG_DPI = 150
# Inches of every picture, so that their letters have one size on the page.
WIDTH = 9.6

_STYLE = {
    "font.family": [FONT],
    "font.size": 10.0,
    "text.color": LIGHT["ink"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.edgecolor": LIGHT["muted"],
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "figure.facecolor": LIGHT["paper"],
    "axes.facecolor": LIGHT["paper"],
    "savefig.facecolor": LIGHT["paper"],
    # Text stays text: the reader's browser may have fonts that this machine lacks, and words can be searched.
    "svg.fonttype": "none",
    "svg.hashsalt": "pelton",
}


@contextmanager
def style() -> Iterator[None]:
    """Our style over matplotlib's defaults, whatever the user's settings; these are as before at the end."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)  # pyright: ignore[reportCallIssue, reportArgumentType]
        yield


def styled[**P, R](draw: Callable[P, R]) -> Callable[P, R]:
    """Draws inside `style`."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with style():
            return draw(*args, **kwargs)

    return inside


@functools.cache
def _characters(file: str) -> frozenset[int]:
    """What a font file can draw; nothing where it cannot be read."""
    try:
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@functools.cache
def _installed() -> dict[str, str]:
    """Font families and a file of each, those likeliest to help first.

    Left out are emoji fonts, whose coloured bitmaps matplotlib cannot draw, and fonts that answer every
    character with a box.
    """
    useless = re.compile(r"emoji|last ?resort|adobe blank|notdef", re.IGNORECASE)
    likely = re.compile(
        r"noto sans|cjk|hiragino|pingfang|yahei|yu gothic|malgun|arial|segoe|source han|wenquanyi", re.I
    )
    entries = [
        entry
        for entry in font_manager.fontManager.ttflist
        if entry.style == "normal" and not useless.search(entry.name)
    ]
    entries.sort(key=lambda entry: (not likely.search(entry.name), abs(_weight(entry.weight) - 400), entry.name))
    files: dict[str, str] = {}
    for entry in entries:
        files.setdefault(entry.name, entry.fname)
    return files


def _weight(weight: Any) -> float:
    return float(weight) if isinstance(weight, int | float) else float(font_manager.weight_dict.get(weight, 400))


@functools.cache
def _family_of(character: str) -> str | None:
    """A family that draws the character, or None."""
    code = ord(character)
    if code in _characters(font_manager.findfont(FONT)):
        return FONT
    return next((name for name, file in _installed().items() if code in _characters(file)), None)


def families(text: str) -> list[str] | None:
    """Font families that draw the whole text between them, or None where a character has no font here."""
    found = [FONT]
    for character in dict.fromkeys(text.replace("\n", "")):
        family = _family_of(character)
        if family is None:
            return None
        if family not in found:
            found.append(family)
    return found


class Names:
    """Unit names as a picture can draw them.

    A character without a font here would be drawn as an empty box, with a warning. Such a name is drawn as
    its row instead, with a note in the title. The SVG has the name itself, as text, for the reader's browser
    to draw with the fonts there.

    Attributes:
        stand_ins: what was drawn instead of a name -> the name.
    """

    def __init__(self, length: int = 28, noun: str = "unit"):
        self.length = length
        self.noun = visible(noun)
        self.stand_ins: dict[str, str] = {}

    def __call__(self, name: Any, row: int, kind: str = "row", length: int | None = None) -> str:
        """What to draw for the name of that row (counted from 0), or of that kind of thing by its number."""
        text = shorten(visible(name), length or self.length)
        if families(text) is not None:
            return text
        # No-break spaces tell the stand-in from a unit that is really called "row 7".
        stand_in = f"{kind}\u00a0{row + 1}\u00a0"
        self.stand_ins[stand_in] = text
        return stand_in

    def called(self, name: Any, row: int) -> str:
        """The name inside a sentence."""
        return called(self(name, row), self.noun)

    @staticmethod
    def prepare(text: Text) -> Text:
        """Dollar signs in a name are no formula, and its letters may need further fonts."""
        text.set_parse_math(False)
        text.set_fontfamily(families(text.get_text()) or [FONT])
        return text


@dataclass(frozen=True)
class Table:
    """The figures of a picture as text.

    Attributes:
        caption: what they are.
        columns: heads; the first column names the row.
        rows: cells.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Words:
    """What a reader who points at a picture is told; a picture with words becomes an interactive chart on the page.

    Attributes:
        nearest: which place answers: the nearest along x, along y, or "closest" to the pointer.
        places: axes, places in their data's units, and a text for each place.
    """

    def __init__(self, nearest: Literal["x", "y", "closest"] = "closest"):
        self.nearest = nearest
        self.places: list[tuple[Any, Any, Any, list[str]]] = []

    def __call__(self, axes: Any, x: Any, y: Any, texts: Iterable[str]) -> None:
        self.places.append((axes, x, y, list(texts)))


@dataclass(frozen=True)
class Picture:
    """A figure and the words that go with it.

    Attributes:
        slug: of its file name.
        heading: what it shows.
        title: what it says; drawn above it.
        reading: how to read it, in a sentence or two.
        figure: the drawing.
        names: unit names in it.
        table: its figures, for those who would rather read or cannot see them.
        words: what is said on pointing at it.
    """

    slug: str
    heading: str
    title: str
    reading: str
    figure: Figure
    names: Names = field(default_factory=Names)
    table: Table | None = None
    words: Words = field(default_factory=Words)

    @property
    def alt(self) -> str:
        """The picture in words, for those who do not see it."""
        return f"{self.heading}. {self.called}"

    @property
    def called(self) -> str:
        """The title with the names themselves: the page can write all of them."""
        words = self.title
        for stand_in, name in self.names.stand_ins.items():
            words = words.replace(stand_in, name)
        return words

    @styled
    def save_png(self, path: Path) -> None:
        """Writes the picture for slides and mails, on light paper."""
        drawn = [text.get_text() for text in self.figure.findobj(Text)]
        note = None
        if any(stand_in in text for stand_in in self.names.stand_ins for text in drawn):
            words = "A number stands for a name that no font on this machine can draw."
            # Above the title; the tight box makes room for it. Below it would take the legend along.
            note = self.figure.text(0.01, 1.01, words, va="bottom", fontsize=9, color=LIGHT["muted"])
        self.figure.savefig(path, format="png", dpi=PNG_DPI, bbox_inches="tight", pad_inches=0.15)
        if note is not None:
            note.remove()

    @styled
    def svg(self) -> str:
        """The picture for a page: it follows the page to dark paper, and has all names as text."""
        buffer = io.StringIO()
        self.figure.savefig(
            buffer,
            format="svg",
            bbox_inches="tight",
            pad_inches=0.1,
            metadata={"Date": None, "Creator": None},
        )
        return _adapt(buffer.getvalue(), self.names.stand_ins)


def _adapt(svg: str, stand_ins: Mapping[str, str]) -> str:
    """Colours become variables with a light and a dark value, stand-ins the names they stand for."""
    for stand_in, name in stand_ins.items():
        svg = svg.replace(stand_in, escape(name))
    svg = svg.replace(f"'{FONT}'", _SVG_FONTS)
    by_colour = {colour: role for role, colour in LIGHT.items()}

    def variable(match: re.Match[str]) -> str:
        role = by_colour.get(match.group(0).lower())
        return f"var(--{role})" if role else match.group(0)

    # Within style attributes alone: a unit may be called #ffffff.
    svg = re.sub(r'style="[^"]*"', lambda style: re.sub(r"#[0-9a-fA-F]{6}\b", variable, style.group(0)), svg)
    light, dark = ("".join(f"--{role}:{colour};" for role, colour in theme.items()) for theme in (LIGHT, DARK))
    css = f"<style>:root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    start = svg.index("<svg")
    end = svg.index(">", start) + 1
    return svg[start:end] + css + svg[end:]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches; its parts are arranged so that none overlaps."""
    return Figure(figsize=(width, height), layout="constrained")


def finish(figure: Figure, title: str, balanced: bool = False) -> None:
    """Puts the title above everything, at the left, in lines that fit the width; of about one length if `balanced`."""
    import textwrap

    if balanced:
        # An interval is not broken.
        title = re.sub(r"(\d\S*) to (\S*\d)", "\\1\u00a0to\u00a0\\2", title)

    def wrapped(width: int) -> str:
        return textwrap.fill(title, width, break_long_words=False, break_on_hyphens=False)

    widest = max(30, int(figure.get_size_inches()[0] * 9.8))
    lines = wrapped(widest)
    if balanced and "\n" in lines:
        rows = lines.count("\n")
        lines = next(found for width in range(20, widest + 1) if (found := wrapped(width)).count("\n") <= rows)
    text = figure.suptitle(lines, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    Names.prepare(text)


def place_labels(
    axes: Any,
    points: Sequence[tuple[float, float, str]],
    dots: Sequence[tuple[float, float]],
    lines: Sequence[tuple[float, float]] = (),
) -> None:
    """Names points where there is room: beside the point, over no other label and no other point.

    Args:
        axes: with its limits and scales final.
        points: (x, y, name), the most important first; a point without room stays without its name.
        dots: all points drawn.
        lines: points along what else a label should rather not cover.
    """
    figure = axes.figure
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    inside = axes.get_window_extent(renderer)
    taken: list[Any] = []
    hard, soft = (axes.transData.transform(list(some)) if len(some) else [] for some in (dots, lines))
    sides = ((8, 0), (-8, 0), (0, 9), (0, -9), (8, 9), (-8, 9), (8, -9), (-8, -9))
    named: list[Any] = []
    for x, y, name in points:
        place = axes.transData.transform((x, y))
        if any(abs(place - other).max() < 3 for other in named):
            continue
        best, fewest = None, len(soft) + 1
        for dx, dy in sides:
            across = "left" if dx > 0 else "right" if dx < 0 else "center"
            along = "bottom" if dy > 0 else "top" if dy < 0 else "center"
            text = axes.annotate(name, (x, y), (dx, dy), textcoords="offset points", ha=across, va=along, fontsize=9)
            Names.prepare(text)
            box = text.get_window_extent(renderer).padded(2)
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            clear = not any(box.overlaps(other) for other in taken) and not any(box.contains(*at) for at in hard)
            crossed = sum(bool(box.contains(*at)) for at in soft)
            if fits and clear and crossed < fewest:
                if best is not None:
                    best[0].remove()
                best, fewest = (text, box), crossed
            else:
                text.remove()
            if fewest == 0:
                break
        if best is not None:
            taken.append(best[1])
            named.append(place)
