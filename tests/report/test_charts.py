"""Interactive charts as data: what Plotly takes, at the places and with the words of the pictures."""

import base64
import gzip
import json
from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from pelton.engine.diagnostics import table
from pelton.models.decisions import unit_table
from pelton.report import canvas, pictures
from pelton.report.charts import MOST_STACKED, chart, library
from pelton.report.html import embedded
from pelton.report.media import _pictures
from pelton.report.media_numbers import Media
from pelton.report.write import _pictures as rate_pictures
from tests.report.test_media_report import full_tree, made_up

LIVE = {"shrinkage", "intervals", "budget"}
LIVE_MEDIA = {
    "share", "roas", "response", "allocation", "allocation_lines", "contributions", "roas_by_geo", "response_by_geo",
    "adstock", "fit",
}  # fmt: skip


def merged(one, other):
    """As charts.js puts a width's layout over the common one."""
    found = dict(one)
    for key, value in other.items():
        found[key] = merged(found.get(key, {}), value) if isinstance(value, dict) else value
    return found


def valid(drawn):
    """Fails where Plotly would not know a property or refuse its value."""
    for width in ("wide", "narrow"):
        if drawn[width]:
            go.Figure(drawn["data"], merged(drawn["layout"], drawn[width]["layout"]))


def said(drawn):
    """The traces that have words."""
    return [trace for trace in drawn["data"] if "hovertext" in trace]


@pytest.fixture(scope="module")
def rates(fitted):
    units = unit_table(fitted, 5, 0.3, 1e6)
    found = rate_pictures(fitted, units, 5, 1e6, table(fitted))
    return units, {picture.slug: chart(picture) for picture in found}


@pytest.fixture(scope="module")
def media():
    return Media.of(full_tree())


@pytest.fixture(scope="module")
def mixes(media):
    plan = made_up([100, 50, 60, 20], [140, 40, 30, 20], 230)
    return {picture.slug: chart(picture) for picture in _pictures(media, plan)}


def test_plotly_takes_every_chart(rates, mixes):
    for found, live in ((rates[1], LIVE), (mixes, LIVE_MEDIA)):
        assert {slug for slug, drawn in found.items() if drawn} == live
        for slug in live:
            valid(found[slug])
            text = str(embedded(found[slug]))
            assert "<" not in text
            assert len(text) < 400_000


def test_units_stand_at_their_rates_with_their_words(rates):
    units, found = rates
    best = units.sort_values("mean", ascending=False, kind="stable")
    (words,) = said(found["intervals"])
    np.testing.assert_allclose(words["x"], 100 * best["mean"], rtol=1e-5)
    assert words["y"] == list(range(len(units)))
    for name, row, text in zip(best.index, best.to_dict("records"), words["hovertext"], strict=True):
        assert text.startswith(f"{name}<br>pooled {100 * row['mean']:.2f}%, 94% interval {100 * row['q03']:.2f}% to")
        assert f"raw {100 * row['raw']:.2f}%: {row['successes']:,.0f} of {row['trials']:,.0f}" in text
    # Intervals: one line with gaps between its parts.
    lines = next(one for one in found["intervals"]["data"] if one["mode"] == "lines" and None in one["x"])
    ends = np.array([value for value in lines["x"] if value is not None]).reshape(-1, 2)
    np.testing.assert_allclose(ends, 100 * best[["q03", "q97"]], rtol=1e-5)
    axis = found["intervals"]["layout"]["yaxis"]
    assert axis["ticktext"] == list(best.index)
    assert axis["range"][0] > axis["range"][1]
    notes = [note["text"] for note in found["intervals"]["wide"]["layout"]["annotations"]]
    assert notes[0] == "P(top 5)"
    assert len(notes) == 26


def test_logarithmic_axes_and_dates_are_plotly_s(rates, mixes, media):
    axis = rates[1]["shrinkage"]["layout"]["xaxis2"]
    trials = rates[0]["trials"]
    assert axis["type"] == "log"
    np.testing.assert_allclose(axis["range"], np.log10([trials.min() / 1.3, trials.max() * 1.3]), rtol=1e-5)
    first = said(mixes["fit"])[0]
    geo = media.geos[media.by_size[0]]
    weeks = media.fit.weeks.xs(geo, level="geo")
    assert pd.to_datetime(first["x"], unit="ms").tolist() == weeks.index.tolist()
    np.testing.assert_allclose(first["y"], weeks["mean"], rtol=1e-5)
    assert first["hovertext"][0].startswith(f"{weeks.index[0].date()}: observed ")
    assert first["name"].startswith(geo)


def test_parts_of_a_week_are_those_of_the_table(mixes, media):
    whole = next(one for one in said(mixes["contributions"]) if one["name"] == "all geos together")
    mean = np.nansum(media.weekly["mean"].to_numpy(), axis=0)
    np.testing.assert_allclose(whole["y"], mean.sum(axis=-1), rtol=1e-5)
    names = [line.rpartition(" ")[0] for line in whole["hovertext"][0].split("<br>")[1:]]
    assert names == [*(media.channels[number] for number in media.by_effect[::-1]), "baseline"]


def test_stacked_panels_have_room_and_labels_of_their_own(mixes):
    for slug, drawn in mixes.items():
        panels = [name for name in (drawn or {"layout": {}})["layout"] if name.startswith("yaxis")]
        if not drawn or len(panels) > MOST_STACKED:
            assert not drawn or drawn["narrow"] == {}, slug
            continue
        layout, height = drawn["narrow"]["layout"], drawn["narrow"]["height"]
        domains = [layout[name]["domain"] for name in panels]
        assert domains == sorted(domains, reverse=True)
        for upper, lower in pairwise(domains):
            assert (upper[0] - lower[1]) * height > 50
        for name in panels:
            assert layout[name.replace("y", "x", 1)].get("title", {}).get("text") or slug in ("contributions", "fit")
    names = [mixes["roas_by_geo"]["narrow"]["layout"][f"yaxis{at}"]["ticktext"] for at in ("", "2", "5")]
    assert names == [["all geos", "SE", "PL", "DE"]] * 3


def test_a_hundred_thousand_units_are_counted_and_the_furthest_named(simulated):
    tree = simulated(500)
    rng = np.random.default_rng(1)
    number = 100_000
    trials = rng.integers(20, 3000, number)
    raw = rng.binomial(trials, rng.beta(4, 60, number)) / trials
    mean = (raw * trials + 4) / (trials + 64)
    units = pd.DataFrame(
        {"successes": raw * trials, "trials": trials, "raw": raw, "mean": mean, "sd": 0.01, "q03": mean, "q97": mean},
        index=pd.Index([f"shop {i} <b>" for i in range(number)], name="shop"),
    )
    drawn = chart(pictures.shrinkage(units, tree))
    valid(drawn)
    words = [trace["hovertext"] for trace in said(drawn)]
    named = [texts for texts in words if texts[0].startswith("shop ")]
    furthest = units.index[np.argmax(np.abs(mean - raw))]
    assert [len(texts) for texts in named] == [pictures.MOST_TOLD] * 2
    assert named[0][0].startswith(furthest.replace("<b>", "&lt;b&gt;<br>"))
    crowds = [texts for texts in words if texts[0].endswith("hereabouts")]
    for texts in crowds:
        assert sum(int(text.split()[0].replace(",", "")) for text in texts) == number
    assert len(crowds) == 2
    assert len(str(embedded(drawn))) < 600_000


def test_hexagons_on_a_logarithmic_axis_lie_around_their_centres(simulated):
    tree = simulated(500)
    drawn = chart(pictures.shrinkage(unit_table(tree), tree))
    centres = next(one for one in said(drawn) if one["xaxis"] == "x2" and one["hovertext"][0].endswith("hereabouts"))
    outlines = [one for one in drawn["data"] if one["xaxis"] == "x2" and one.get("fill")]
    x = np.array([np.nan if value is None else value for one in outlines for value in [*one["x"], None]])
    y = np.array([np.nan if value is None else value for one in outlines for value in [*one["y"], None]])
    shapes = np.array([(x[at : at + 6], y[at : at + 6]) for at in range(0, len(x), 8)])
    middles = {tuple(np.round((np.log10(a).mean(), b.mean()), 3)) for a, b in shapes}
    expected = {tuple(np.round((np.log10(a), b), 3)) for a, b in zip(centres["x"], centres["y"], strict=True)}
    assert len(middles) == len(expected)
    np.testing.assert_allclose(sorted(middles), sorted(expected), atol=2e-3)


def test_names_without_a_font_here_are_the_browser_s_to_draw(simulated, monkeypatch):
    monkeypatch.setattr(canvas, "_installed", dict)
    canvas._family_of.cache_clear()
    try:
        names = ["喜剧 & <b>", "ሰላም", "plain"]
        tree = simulated(3, names=names)
        drawn = chart(pictures.intervals(unit_table(tree), tree))
        assert sorted(drawn["layout"]["yaxis"]["ticktext"]) == sorted(["喜剧 &amp; &lt;b&gt;", "ሰላም", "plain"])
    finally:
        canvas._family_of.cache_clear()


def test_the_library_comes_back_whole():
    assert gzip.decompress(base64.b64decode(library())).decode() == get_plotlyjs()
    assert json.loads(str(embedded({"a": "</script>"}))) == {"a": "</script>"}
