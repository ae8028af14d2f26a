"""Pictures as interactive charts: what matplotlib has drawn, read artist by artist, in Plotly's words.

A picture is drawn once. Its lines, bands, dots and bars become traces of a Plotly figure; what a reader is told on
pointing at them are the picture's words. Colours are those of light paper: the page's script (charts.js) puts the
theme's own in their place, and arranges panels side by side or, on a phone, one below the other.
"""

import base64
import functools
import gzip
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.dates import AutoDateLocator
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator

from pelton.report.canvas import LIGHT, Picture, styled
from pelton.report.wording import shorten

# Pixels of the page in an inch of a picture, and in a point: so wide, a chart's letters are as large as a picture's.
INCH = 100
POINT = INCH / 72
DAY = 86_400_000
# More panels than these stay side by side on a phone, to be moved sideways.
MOST_STACKED = 12
# Pixels of a stacked panel and of what stands around it.
HEIGHT, ROW, BELOW, LINE = 200, 24, 52, 18
NARROW_NAME, LETTERS = 18, 34
# Pixels of letters.
HEAD, LABEL, NOTE = 13, 12.5, 11.5
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
_SYMBOLS = {"o": "circle", ".": "circle", "D": "diamond", "x": "x-thin", ">": "triangle-right"}
# Shades of hexagons that a chart tells apart.
SHADES = 8


@functools.cache
def library() -> str:
    """Plotly's script, compressed and in letters: a third of its size, unpacked by the reader's browser."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


@styled
def chart(picture: Picture) -> dict[str, Any] | None:
    """A picture for charts.js; None where it has no words.

    Returns:
        data: traces. layout: what all widths share. wide, narrow: what each adds to it, and its height: of the width
        (`ratio`), or in pixels (`height`; none where the chart is moved sideways instead).
    """
    return _Chart(picture).all() if picture.words.places else None


def literal(text: str) -> str:
    """Text that Plotly shows as it is: no mark-up, no entity, no formula, and the lines as they are.

    >>> literal("<b>Q&A</b> for $5")
    '&lt;b&gt;Q&amp;A&lt;/b&gt; for &#36;5'
    """
    return escape(text).replace("$", "&#36;").replace("\n", "<br>")


class _Chart:
    def __init__(self, picture: Picture):
        self.picture = picture
        self.figure = picture.figure
        self.figure.draw_without_rendering()
        shown = [axes for axes in self.figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]
        # As they are read: rows from the top, each from the left.
        places = {axes: axes.get_window_extent() for axes in shown}
        shown.sort(key=lambda axes: (-round(places[axes].y0), places[axes].x0))
        self.panels: dict[Any, str] = {axes: str(at + 1) if at else "" for at, axes in enumerate(shown)}

    def all(self) -> dict[str, Any]:
        legend = self.figure.legends[0] if self.figure.legends else None
        data = [trace for axes in self.panels for trace in self._look(axes)]
        data += [self._words(axes, x, y, texts) for axes, x, y, texts in self.picture.words.places]
        labels = [self._text(text.get_text()) for text in legend.get_texts()] if legend else []
        for handle, label in zip(legend.legend_handles if legend else (), labels, strict=True):
            data.append(_key(handle) | {"name": label, "showlegend": True, "hoverinfo": "skip"})
        axes = {key: value for one in self.panels for key, value in self._axes(one).items()}
        quiet = {"color": LIGHT["ink"], "family": 'system-ui, "Segoe UI", "Noto Sans", sans-serif', "size": LABEL}
        layout = {
            **axes,
            "font": quiet,
            "paper_bgcolor": LIGHT["paper"],
            "plot_bgcolor": LIGHT["paper"],
            "margin": {"l": 0, "r": 12, "t": 0, "b": 0, "autoexpand": False},
            "hovermode": self.picture.words.nearest,
            "hoverdistance": 30 if self.picture.words.nearest == "closest" else -1,
            "hoverlabel": {
                "bgcolor": LIGHT["paper"], "bordercolor": LIGHT["muted"], "font": quiet, "align": "left",
            },
            "separators": ".,",
            "showlegend": legend is not None,
        }  # fmt: skip
        return {"data": data, "layout": layout, "wide": self._wide(legend), "narrow": self._narrow(labels)}

    def _text(self, text: str) -> str:
        for stand_in, name in self.picture.names.stand_ins.items():
            text = text.replace(stand_in, name)
        return literal(text)

    # What is drawn.

    def _look(self, axes: Any) -> Iterator[dict[str, Any]]:
        """The traces of what a panel shows; those of lines across it among them."""
        artists = [*axes.collections, *axes.patches, *axes.lines]
        for artist in sorted(artists, key=lambda one: one.get_zorder()):
            if artist.get_visible():
                for trace in self._traces(axes, artist):
                    yield self._trace(axes, **trace)

    def _traces(self, axes: Any, artist: Any) -> Iterable[dict[str, Any]]:
        if isinstance(artist, Line2D):
            x, y = (np.asarray(values, dtype=float) for values in artist.get_data(orig=False))
            # A line across the panel has one of its ends in shares of the axes; here, in the axes' limits.
            if artist.get_transform() == axes.get_xaxis_transform():
                y = np.array(axes.get_ylim())
            if artist.get_transform() == axes.get_yaxis_transform():
                x = np.array(axes.get_xlim())
            return [{"x": x, "y": y, **_line_look(artist)}]
        if isinstance(artist, LineCollection):
            return [_polygons(artist.get_segments()) | _stroke(artist)]
        if isinstance(artist, PathCollection):
            x, y = np.asarray(artist.get_offsets()).T
            size = np.sqrt(np.broadcast_to(artist.get_sizes(), x.shape)) * POINT
            colour: Any = artist.get_facecolor()[0]
            edge = {"color": LIGHT["paper"], "width": 1}
            marker = {"color": to_hex(colour), "size": _rounded(size), "line": edge}
            return [{"x": x, "y": y, "mode": "markers", "opacity": float(colour[3]), "marker": marker}]
        if isinstance(artist, PolyCollection):
            return _shades(artist)
        if isinstance(artist, Rectangle):
            low, bottom = artist.get_xy()
            right, top = low + artist.get_width(), bottom + artist.get_height()
            corners = np.array([(low, bottom), (low, top), (right, top), (right, bottom), (low, bottom)])
            return [_polygons([corners]) | _fill(artist.get_facecolor())]
        raise TypeError(f"a chart cannot show {type(artist).__name__}")

    def _trace(self, axes: Any, x: Any, y: Any, **look: Any) -> dict[str, Any]:
        at = self.panels[axes]
        return {
            "type": "scatter",
            "x": self._numbers(axes.xaxis, x),
            "y": self._numbers(axes.yaxis, y),
            "xaxis": f"x{at}",
            "yaxis": f"y{at}",
            "hoverinfo": "skip",
            "showlegend": False,
            **look,
        }

    def _numbers(self, axis: Any, values: Any) -> list[float | None]:
        """Values as they stand in JSON: dates in milliseconds, what is not there as null, six digits at most."""
        return _rounded(np.asarray(values, dtype=float) * DAY, 0) if _dated(axis) else _rounded(values)

    def _words(self, axes: Any, x: Any, y: Any, texts: Sequence[str]) -> dict[str, Any]:
        """An unseen line through the places that have something to say: a script finds the nearest on it."""
        x, y = (axis.convert_units(np.asarray(values)) for axis, values in ((axes.xaxis, x), (axes.yaxis, y)))
        said = {"hoverinfo": "text", "hovertext": [self._text(text) for text in texts], "hoveron": "points"}
        panel = self._text(axes.get_title(loc="left").partition("\n")[0])
        return self._trace(axes, x, y, mode="lines", line={"width": 0, "color": LIGHT["ink"]}, name=panel, **said)

    # How it is arranged.

    def _axes(self, axes: Any) -> dict[str, Any]:
        at = self.panels[axes]
        found = {}
        for axis, limits, letter, other in (
            (axes.xaxis, axes.get_xlim(), "x", "y"),
            (axes.yaxis, axes.get_ylim(), "y", "x"),
        ):
            scale = "date" if _dated(axis) else axis.get_scale()
            ends = np.log10(limits) if scale == "log" else limits
            one: dict[str, Any] = {
                "anchor": other + at,
                "type": scale,
                "range": self._numbers(axis, ends),
                "zeroline": False,
                "gridcolor": LIGHT["grid"],
                "showgrid": bool(axis.get_gridlines()[0].get_visible()),
                "linecolor": LIGHT["muted"],
                "showline": axes.spines["bottom" if letter == "x" else "left"].get_visible(),
                "exponentformat": "B",
                "ticklabelstandoff": 3,
                "tickangle": 0,
                "nticks": 1 + len(_ticks(axis, limits)),
            }
            if scale == "linear" and isinstance(axis.get_major_locator(), FixedLocator):
                names = [self._text(name) for name in _names(axis)]
                one |= {"tickvals": _rounded(axis.get_majorticklocs()), "ticktext": names, "fixedrange": True}
            elif scale == "log":
                one |= {"tickvals": _rounded(_ticks(axis, limits))}
            siblings = getattr(axes, f"get_shared_{letter}_axes")().get_siblings(axes)
            first = next(one for one in self.panels if one in siblings)
            if first is not axes:
                one["matches"] = letter + self.panels[first]
            found[f"{letter}axis{at}"] = one
        if self.picture.words.nearest in "xy":
            spike = {"showspikes": True, "spikemode": "across", "spikethickness": 1, "spikedash": "dot"}
            found[f"{self.picture.words.nearest}axis{at}"] |= {**spike, "spikecolor": LIGHT["muted"]}
        return found

    def _wide(self, legend: Any) -> dict[str, Any]:
        """Panels where the picture has them, less the room of its title."""
        figure = self.figure
        below = [text for text in figure.texts if text.get_text() and text.get_text() == figure.get_supxlabel()]
        around = [one.get_tightbbox() for one in self.panels]
        around += [one.get_window_extent() for one in (*below, legend) if one is not None]
        top, bottom = max(box.y1 for box in around) + 4, min(box.y0 for box in around) - 4
        height = top - bottom
        layout: dict[str, Any] = {"annotations": []}
        for axes, at in self.panels.items():
            box = axes.get_window_extent()
            across = [box.x0 / figure.bbox.width, box.x1 / figure.bbox.width]
            along = [(box.y0 - bottom) / height, (box.y1 - bottom) / height]
            for axis, letter, domain, shown in (
                (axes.xaxis, "x", across, "labelbottom"),
                (axes.yaxis, "y", along, "labelleft"),
            ):
                layout[f"{letter}axis{at}"] = {
                    "domain": _rounded(domain, 4),
                    "title": {"text": self._text(axis.get_label_text()), "standoff": 6, "font": {"size": LABEL}},
                    "showticklabels": bool(axis.get_tick_params().get(shown, True)),
                }
            layout["annotations"] += self._name(axes, self._text(axes.get_title(loc="left")))
            layout["annotations"] += self._notes(axes)
        place = {"x": 0.5, "y": 0, "xref": "paper", "yref": "paper", "yanchor": "bottom", "showarrow": False}
        layout["annotations"] += [{"text": self._text(label.get_text()), **place} for label in below]
        if legend:
            at = legend.get_window_extent()
            layout["legend"] = {"orientation": "h", "x": 0.5, "xanchor": "center", "yanchor": "middle"}
            layout["legend"] |= {"y": round(float(((at.y0 + at.y1) / 2 - bottom) / height), 4)}
        return {"layout": layout, "ratio": round(height / figure.bbox.width, 4)}

    def _narrow(self, labels: Sequence[str]) -> dict[str, Any]:
        """Panels one below the other, each with its own labels."""
        if len(self.panels) > MOST_STACKED:
            return {}
        rows = {axes: _rows(axes) for axes in self.panels}
        heights = [ROW * (1 + rows[axes]) if rows[axes] else HEIGHT for axes in self.panels]
        names = {axes: self._above(axes) for axes in self.panels}
        heads = [LINE * len(name.split("<br>")) + 12 if name else 8 for name in names.values()]
        across = [self._below(axes) for axes in self.panels]
        feet = [BELOW + LINE * label.count("<br>") for label in across]
        # The legend's columns are as wide as its longest label; a phone has room for about 46 letters.
        columns = max(1, 46 // (max(map(len, labels), default=0) + 6))
        keys = LINE * -(-len(labels) // columns) + 12 if labels else 0
        total = sum(heights) + sum(heads) + sum(feet) + keys
        layout: dict[str, Any] = {"annotations": [], "margin": {"l": 44, "r": 10, "t": 0, "b": 0}}
        if any(rows.values()):
            layout["margin"]["l"] = 7 * NARROW_NAME + 6
        used = 0.0
        for place, (axes, at) in enumerate(self.panels.items()):
            top = 1 - (used + heads[place]) / total
            bottom = top - heights[place] / total
            used += heads[place] + heights[place] + feet[place]
            layout[f"xaxis{at}"] = {
                "domain": [0, 1],
                "nticks": 3 if _dated(axes.xaxis) else 5,
                "title": {"text": across[place], "standoff": 6, "font": {"size": LABEL}},
            }
            layout[f"yaxis{at}"] = {"domain": _rounded([bottom, top], 4)}
            if rows[axes]:
                short = [self._text(shorten(name, NARROW_NAME)) for name in _names(axes.yaxis)]
                layout[f"yaxis{at}"]["ticktext"] = short
            layout["annotations"] += self._name(axes, names[axes])
        if labels:
            layout["legend"] = {"orientation": "h", "x": 0, "xref": "container", "y": 0, "yanchor": "bottom"}
        return {"layout": layout, "height": round(total)}

    def _above(self, axes: Any) -> str:
        """A stacked panel's title, and what its values are."""
        panels = list(self.panels)
        before = panels[panels.index(axes) :: -1]
        along = "" if _rows(axes) else _first(one.yaxis.get_label_text() for one in before)
        return "<br>".join(self._text(words) for words in (axes.get_title(loc="left"), along) if words)

    def _below(self, axes: Any) -> str:
        """What a stacked panel's axis shows: the label may stand below another panel of the picture."""
        panels = list(self.panels)
        label = _first(one.xaxis.get_label_text() for one in panels[panels.index(axes) :])
        return "<br>".join(map(self._text, textwrap.wrap(label, LETTERS)))

    def _name(self, axes: Any, words: str) -> list[dict[str, Any]]:
        """A panel's title."""
        at = self.panels[axes]
        place = {"x": 0, "xref": f"x{at} domain", "xanchor": "left", "y": 1, "yref": f"y{at} domain"}
        look = {"showarrow": False, "yanchor": "bottom", "align": "left", "font": {"size": HEAD}}
        return [{"text": words, **place, **look}] if words else []

    def _notes(self, axes: Any) -> Iterator[dict[str, Any]]:
        """Words that the picture has within and beside a panel."""
        at = self.panels[axes]
        for text in axes.texts:
            x, y = text.xy if hasattr(text, "xy") else text.get_position()
            beside = text.get_transform() == axes.get_yaxis_transform()
            dx, dy = text.get_position() if hasattr(text, "xy") else (0, 0)
            x = np.log10(x) if axes.get_xscale() == "log" and not beside else x
            low, high = axes.get_ylim()
            # The head of a column stands above its rows, where Plotly's axis has no place.
            above = beside and not min(low, high) <= y <= max(low, high)
            yield {
                "text": self._text(text.get_text()),
                "showarrow": False,
                "x": _rounded([x])[0],
                "y": _rounded([(y - low) / (high - low) if above else y])[0],
                "xref": f"x{at} domain" if beside else f"x{at}",
                "yref": f"y{at} domain" if above else f"y{at}",
                "xanchor": text.get_horizontalalignment(),
                "yanchor": {"center": "middle", "center_baseline": "middle", "baseline": "bottom"}.get(
                    align := text.get_verticalalignment(), align
                ),
                "xshift": round(dx * POINT),
                "yshift": round(dy * POINT),
                "font": {"size": NOTE, "color": to_hex(text.get_color())},
            }


def _first(words: Iterable[str]) -> str:
    return next((one for one in words if one), "")


def _dated(axis: Any) -> bool:
    return isinstance(axis.get_major_locator(), AutoDateLocator)


def _ticks(axis: Any, limits: tuple[float, float]) -> list[float]:
    """Places of the ticks that are seen."""
    return [value for value in axis.get_majorticklocs() if min(limits) <= value <= max(limits)]


def _names(axis: Any) -> list[str]:
    """What stands at an axis's ticks, whether or not another panel shows it."""
    return axis.get_major_formatter().format_ticks(axis.get_majorticklocs())


def _rows(axes: Any) -> int:
    """How many rows with names a panel has; 0 where its axis is one of numbers."""
    locator = axes.yaxis.get_major_locator()
    return len(axes.get_yticks()) if isinstance(locator, FixedLocator) and axes.get_yscale() == "linear" else 0


def _rounded(values: Any, decimals: int | None = None) -> list[Any]:
    """Floats for JSON, to so many decimals or to six digits; None for what is not finite."""
    found = np.asarray(values, dtype=float).tolist()
    if decimals is None:
        return [float(f"{value:.6g}") if np.isfinite(value) else None for value in found]
    return [round(value, decimals) if np.isfinite(value) else None for value in found]


def _stroke(artist: Any) -> dict[str, Any]:
    """A line collection's colour, width and dashes."""
    red, green, blue, alpha = artist.get_colors()[0]
    width = float(np.atleast_1d(artist.get_linewidth())[0])
    line = {"color": to_hex((red, green, blue)), "width": round(width * POINT, 2)}
    return {"mode": "lines", "opacity": float(alpha), "line": line}


def _line_look(line: Any) -> dict[str, Any]:
    """How Plotly draws a line of matplotlib: its stroke, its markers or both."""
    stroke, marker = line.get_linestyle() not in ("None", ""), line.get_marker() not in ("None", "", None)
    colour = to_hex(line.get_color())
    look: dict[str, Any] = {
        "mode": "+".join(["lines"] * stroke + ["markers"] * marker) or "lines",
        "opacity": float(line.get_alpha() or 1),
    }
    if stroke:
        width = round(line.get_linewidth() * POINT, 2)
        look["line"] = {"color": colour, "width": width, "dash": _DASHES[line.get_linestyle()]}
    if marker:
        shape, size = line.get_marker(), line.get_markersize() * POINT
        face, edge = line.get_markerfacecolor(), line.get_markeredgecolor()
        hollow = isinstance(face, str) and (face == "none" or to_hex(face) == LIGHT["paper"])
        look["marker"] = {
            "symbol": _SYMBOLS[shape] + "-open" * hollow,
            "size": round(size / 2 if shape == "." else size, 2),
            "color": to_hex(edge if hollow else face),
            "line": {"color": to_hex(edge), "width": 1.8 if hollow else round(line.get_markeredgewidth() * POINT, 2)},
        }
    return look


def _fill(colour: Any) -> dict[str, Any]:
    red, green, blue, alpha = to_rgba(colour)
    return {
        "mode": "lines",
        "fill": "toself",
        "fillcolor": to_hex((red, green, blue)),
        "opacity": round(alpha, 3),
        "line": {"width": 0, "color": LIGHT["ink"]},
    }


def _polygons(shapes: Iterable[np.ndarray]) -> dict[str, Any]:
    """The places of several lines or outlines, one after the other, with gaps between them."""
    parts = [np.asarray(part, dtype=float) for shape in shapes for part in (shape, np.full((1, 2), np.nan))]
    joined = np.concatenate(parts[:-1]) if parts else np.empty((0, 2))
    return {"x": joined[:, 0], "y": joined[:, 1]}


def _shades(artist: Any) -> Iterator[dict[str, Any]]:
    """Bands and hexagons: a trace for each depth of colour."""
    artist.update_scalarmappable()
    colours = np.asarray(artist.get_facecolor(), dtype=float)
    shapes = [path.vertices for path in artist.get_paths()]
    places = np.asarray(artist.get_offsets(), dtype=float)
    # Hexagons are one outline at many places, which on a logarithmic axis are no sums in the data's units.
    if len(shapes) == 1 and len(places) > 1:
        outline = artist.get_transform().transform(shapes[0])
        moved = [outline + place for place in artist.get_offset_transform().transform(places)]
        shapes = [artist.axes.transData.inverted().transform(one) for one in moved]
    depth = np.ceil(colours[:, 3] * SHADES).astype(int)
    for shade in np.unique(depth):
        inside = np.flatnonzero(depth == shade)
        # One colour stands for all shapes.
        which = inside if len(colours) > 1 else range(len(shapes))
        yield _polygons(shapes[at] for at in which) | _fill(colours[inside].mean(axis=0))


def _key(handle: Any) -> dict[str, Any]:
    """A legend's sample of what a trace looks like, at no place."""
    if isinstance(handle, Line2D):
        look = _line_look(handle)
    elif isinstance(handle, LineCollection):
        look = _stroke(handle)
    elif isinstance(handle, Patch):
        red, green, blue, alpha = to_rgba(handle.get_facecolor())
        marker = {"symbol": "square", "size": 12, "color": to_hex((red, green, blue))}
        look = {"mode": "markers", "opacity": round(alpha, 3), "marker": marker}
    else:
        raise TypeError(f"a chart's legend cannot show {type(handle).__name__}")
    return {"type": "scatter", "x": [None], "y": [None], **look}
