"""The report of a media mix: its files against plain NumPy, its page, and pictures that draw at any size."""

import base64
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pelton.engine.errors import DataError, DataWarning, OutputError
from pelton.models.allocation import Allocation
from pelton.report import canvas
from pelton.report.media import _pictures, write_allocation, write_media_report
from pelton.report.media_allocation import allocation_lines_picture, allocation_picture, sentence
from pelton.report.media_axes import ROWS
from pelton.report.media_curves import response_by_geo_picture
from pelton.report.media_findings import find_media
from pelton.report.media_learning import prior_picture, silent
from pelton.report.media_numbers import Media
from pelton.report.media_page import channel_overview
from pelton.report.media_returns import roas_by_geo_picture, roas_picture
from pelton.report.media_shrinkage import shrinkage_picture
from pelton.report.media_time import contributions_picture, fit_picture
from pelton.report.traces import mixed_worst
from tests.models import media_trees
from tests.models.media_trees import MIXED, PARAMETERS, media_tree
from tests.report.test_report import read

# What the model divided by, for parameters in units of the data.
SCALED = {"half_saturation": -1, "tanh_scale": -1, "rate": 1}


def full_tree(**settings):
    """A made-up tree with all that a sampled one has: populations, a prior, sample_stats and a verdict."""
    tree = media_tree(**settings)
    posterior, rng = tree["posterior"].to_dataset(), np.random.default_rng(5)
    scale = tree["constant_data"]["media_scale"]
    prior = xr.Dataset(coords={"chain": [0], "draw": np.arange(400)})
    for name in dict.fromkeys(p for parameters in PARAMETERS.values() for p in parameters):
        if name not in posterior:
            continue
        values = posterior[name]
        dim = values.dims[-1]
        units = scale.sel(channel=values[dim].to_numpy()).to_numpy() ** SCALED.get(name, 0)
        typical = np.exp(np.log(values * units).mean("geo"))
        posterior[f"{name}_population"] = typical
        posterior[f"{name}_sd"] = 0.2 + 0.0 * typical
        wide = np.exp(rng.normal(0, 1.0, (1, 400, typical.sizes[dim])))
        middle = typical.mean(("chain", "draw")).to_numpy()
        # Shares stay below 1.
        drawn = middle * wide if name not in ("alpha", "power") else rng.beta(1, 3, (1, 400, typical.sizes[dim]))
        prior[f"{name}_population"] = (("chain", "draw", dim), drawn, {})
        prior = prior.assign_coords({dim: posterior[dim]})
    tree["posterior"] = posterior
    tree["prior"] = prior
    shape = (posterior.sizes["chain"], posterior.sizes["draw"])
    tree["sample_stats"] = xr.Dataset({"diverging": (("chain", "draw"), np.zeros(shape, bool))})
    tree.attrs.update(converged=1, status="converged", created_at="2026-01-02T03:04:05+00:00", seed=3)
    return tree


@pytest.fixture(scope="module")
def tree():
    return full_tree()


@pytest.fixture(scope="module")
def media(tree):
    return Media.of(tree)


@pytest.fixture(scope="module")
def written(media, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    files = write_media_report(media, out, notes=["2 weeks <b>are</b> masked"], source="sales.csv")
    return out, files


@pytest.fixture(scope="module")
def parts(tree):
    """The truth in plain loops: contributions [draw, geo, time, channel], baseline [draw, geo, time, term]."""
    return media_trees.contributions(tree), media_trees.baseline_parts(tree)


def made_up(today, spend, budget, beyond=0, geos=("DE", "PL"), channels=("tv", "radio")):
    """An allocation without a solver."""
    index = pd.MultiIndex.from_product([geos, channels], names=["geo", "channel"])
    spend, today = np.array(spend, float), np.array(today, float)
    table = pd.DataFrame(
        {
            "today": today,
            "spend": spend,
            "change": spend - today,
            "low": 0.0,
            "high": np.inf,
            "response_mean": 2 * spend,
            "response_low": spend,
            "response_high": 3 * spend,
            "marginal": 1.0,
            "highest": 10 * today,
            "beyond": np.arange(len(index)) < beyond,
            "held": "",
        },
        index=index,
    )
    plans = pd.DataFrame(
        {
            "spend": budget,
            "response_mean": [1200.0, 1100.0, 1000.0],
            "response_low": [900.0, 800.0, 700.0],
            "response_high": [1500.0, 1400.0, 1300.0],
            "objective": [1200.0, 1100.0, 1000.0],
            "gain_mean": [200.0, 100.0, 0.0],
            "gain_low": [-50.0, -80.0, 0.0],
            "gain_high": [450.0, 300.0, 0.0],
            "p_better": [0.91, 0.7, np.nan],
            "within_bounds": True,
        },
        index=pd.Index(["optimum", "proportional", "today"], name="plan"),
    )
    responses = xr.DataArray(np.zeros((3, 4)), dims=("plan", "draw"))
    attempts = pd.DataFrame({"objective": [1.0], "converged": [True]})
    notes = ("DE / tv: the optimum <i>extrapolates</i>",)
    return Allocation(table, plans, responses, budget, 13, "mean", 0.94, 4, 0.0, 0.0, attempts, notes)


def drawn_text(picture):
    """All words of a picture, as the reader's browser shows them."""
    svg = ET.fromstring(picture.svg())
    return " ".join(element.text or "" for element in svg.iter("{http://www.w3.org/2000/svg}text"))


def collisions(figure):
    """Pairs of titles, labels and tick labels that overlap."""
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = []
    for axes in figure.axes:
        if axes.get_visible():
            ticks = []
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                # A locator's ticks outside the view are not drawn.
                seen = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
                ticks += [tick.label1 for tick in seen]
            texts += [axes._left_title, axes.xaxis.label, axes.yaxis.label, *ticks, *axes.texts]
    for legend in figure.legends:
        texts += legend.get_texts()
    texts = [text for text in (*texts, figure._suptitle) if text.get_text().strip() and text.get_visible()]
    # The box of a slanted word is far larger than the word.
    texts = [text for text in texts if text.get_rotation() % 90 == 0]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
    return [
        (one, other)
        for at, (one, box) in enumerate(boxes)
        for other, beside in boxes[at + 1 :]
        if box.shrunk(0.9, 0.8).overlaps(beside.shrunk(0.9, 0.8))
    ]


def test_all_files_are_written_and_nothing_else(written):
    out, files = written
    assert {path.name for path in files} == {path.name for path in out.iterdir()}
    names = [path.name for path in files]
    tables = ["channels.csv", "contributions.csv", "fit.csv", "curves.csv", "shrinkage.csv"]
    assert names[:7] == ["posterior.nc", "report.html", *tables]
    pictures = ["share", "roas", "response", "contributions", "roas_by_geo", "response_by_geo", "adstock", "fit"]
    assert names[7:] == [f"{name}.png" for name in (*pictures, "shrinkage", "prior", "traces")]
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in names[7:])


def test_the_page_is_self_contained_and_its_anchors_exist(written):
    out, _ = written
    page = (out / "report.html").read_text(encoding="utf-8")
    links = read(page)
    anchors = [address for address in links.addresses if address.startswith("#")]
    sources = [address for address in links.addresses if not address.startswith("#")]
    assert len(sources) == 11
    # One for each picture, and the way past them to the diagnostics.
    assert len(anchors) == len(set(anchors)) == 12
    assert all(address.startswith("data:image/svg+xml;base64,") for address in sources)
    assert all(f'id="{anchor[1:]}"' in page for anchor in anchors)
    # The page's own script is part of it: nothing is loaded.
    assert set(links.kinds) == {"", "application/json", "application/gzip"}
    assert not {"link", "iframe", "object"} & set(links.tags)
    for address in sources:
        svg = base64.b64decode(address.partition(",")[2]).decode()
        loads = re.findall(r'(?:href|src)="([^"#][^"]*)"', svg)
        assert all(load.startswith("data:image/png;base64,") for load in loads)
    assert all(len(text) > 30 for text in links.alternatives)
    # Every picture but the traces has its figures beside it.
    assert page.count("<summary>") == 10
    assert "2 weeks &lt;b&gt;are&lt;/b&gt; masked" in page
    assert "What media brought to sales: sales.csv" in page
    assert "Media mix of 3 geos, 5 channels, 40 weeks" in page
    assert "The draws converged" in page


def test_contributions_and_shares_are_those_of_plain_loops(written, tree, parts):
    out, _ = written
    media, baseline = parts
    inside = tree["constant_data"]["inside"].to_numpy() > 0
    table = pd.read_csv(out / "contributions.csv", parse_dates=["time"])
    assert len(table) == inside.sum() * (5 + 5)
    expected = (media.mean(axis=0) * inside[..., None]).sum(axis=1)
    found = table.pivot_table(index="geo", columns="component", values="mean", aggfunc="sum", sort=False)
    np.testing.assert_allclose(found[list(MIXED)].to_numpy(), expected, rtol=1e-8)
    week = (media.sum(axis=-1) + baseline.sum(axis=-1)).mean(axis=0)
    summed = table.groupby(["geo", "time"], sort=False)["mean"].sum().to_numpy()
    np.testing.assert_allclose(summed, week[inside], rtol=1e-8)

    channels = pd.read_csv(out / "channels.csv", index_col=["geo", "channel"])
    total = (media * inside[..., None]).sum(axis=2)
    np.testing.assert_allclose(channels.loc["DE", "contribution"], total[:, 0].mean(axis=0), rtol=1e-8)
    whole = total.sum(axis=(1, 2)) + (baseline.sum(axis=-1) * inside).sum(axis=(1, 2))
    share = np.quantile(total.sum(axis=1)[:, 0] / whole, [0.03, 0.97])
    np.testing.assert_allclose(channels.loc[("all", "tv"), ["share_low", "share_high"]], share, rtol=1e-8)
    spend = (tree["constant_data"]["spend"].to_numpy() * inside[..., None]).sum(axis=1)
    np.testing.assert_allclose(channels["spend"].to_numpy().reshape(4, 5)[1:], spend, rtol=1e-12)
    assert np.isnan(channels.loc[("SE", "posters"), "roas"])

    mean, low, high = Media.of(tree).media_share[0]
    by_draw = total.sum(axis=(1, 2)) / whole
    np.testing.assert_allclose([mean, low, high], [by_draw.mean(), *np.quantile(by_draw, [0.03, 0.97])], rtol=1e-8)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"Media brought {100 * by_draw.mean():.0f}% of the sales" in page


def test_fit_table_keeps_masked_weeks_and_the_average_miss_is_theirs_no_more(written, tree, parts, media):
    out, _ = written
    table = pd.read_csv(out / "fit.csv")
    inside = tree["constant_data"]["inside"].to_numpy() > 0
    target = tree["observed_data"]["target"].to_numpy()
    np.testing.assert_array_equal(table["observed"].to_numpy(), target[inside])
    predicted = (parts[0].sum(axis=-1) + parts[1].sum(axis=-1)).mean(axis=0)
    np.testing.assert_allclose(table["mean"], predicted[inside], rtol=1e-8)
    seen = np.isfinite(target)
    miss = np.abs(target - predicted)[seen].sum() / np.abs(target[seen]).sum()
    np.testing.assert_allclose(media.misses[0], miss, rtol=1e-8)
    assert f"misses the sales by {100 * miss:.1f}%" in fit_picture(media).title
    assert "predicted where the target is masked" in drawn_text(fit_picture(media))


def test_response_curves_today_and_together(written, tree, media):
    out, _ = written
    table = pd.read_csv(out / "curves.csv")
    assert len(table) == 3 * 5 * 41
    settings = next(one for one in media.known.settings["channels"] if one["name"] == "tv")
    one = table.loc[(table["geo"] == "PL") & (table["channel"] == "tv")]
    coef = tree["posterior"]["coef"].sel(geo="PL", channel="tv").to_numpy().ravel()
    drawn = {name: value[:, 1] for name, value in media_trees.parameters(tree, settings).items()}
    values = [{name: value[draw] for name, value in drawn.items()} for draw in range(len(coef))]
    point = one.iloc[25]
    steady = [
        factor * media_trees.saturate("hill", point["spend"] * media_trees.weights("geometric", 8, True, v).sum(), v)
        for factor, v in zip(coef, values, strict=True)
    ]
    np.testing.assert_allclose(point["mean"], np.mean(steady), rtol=1e-8)

    # All geos together: at today's spend the sum of the geos' responses, draw by draw.
    curves, together = media.curves, media.together
    np.testing.assert_allclose(together["today"], curves["today"].sum("geo"), rtol=1e-12)
    np.testing.assert_allclose(together["today_mean"], curves["today_mean"].sum("geo"), rtol=1e-8)
    np.testing.assert_allclose(together["spend"][:, -1], 2 * curves["today"].sum("geo"), rtol=1e-12)
    assert (together["today_high"] <= curves["today_high"].sum("geo")).all()


def test_half_lives_and_weights(media, tree):
    alpha = tree["posterior"]["alpha"].sel(alpha_channel="tv").to_numpy().reshape(-1, 3)
    weights = alpha[..., None] ** np.arange(8)
    weights /= weights.sum(axis=-1, keepdims=True)
    tv = media.carryover[0]
    np.testing.assert_allclose(tv.geos, weights.mean(axis=0), rtol=1e-6)
    reached = np.cumsum(weights, axis=-1)
    week = (reached >= 0.5).argmax(axis=-1)[..., None]
    before = np.take_along_axis(reached - weights, week, -1)
    lives = (week + (0.5 - before) / np.take_along_axis(weights, week, -1))[..., 0]
    np.testing.assert_allclose(tv.half_life[:, 0], lives.mean(axis=0), rtol=1e-6)
    assert tv.typical == "typical geo"
    population = tree["posterior"]["alpha_population"].sel(alpha_channel="tv").to_numpy().ravel()
    np.testing.assert_allclose(tv.mean[1] / tv.mean[0], population.mean(), rtol=0.05)
    # Without end: drawn until nearly all has happened, half-lives those of the whole.
    search = media.carryover[2]
    assert len(search.mean) > 4
    slow = tree["posterior"]["alpha"].sel(alpha_channel="search").to_numpy().ravel()
    assert np.log(0.5) / np.log(slow.max()) + 1 > search.half_life[:, 0].max()
    # A tree without populations has the mean of its geos.
    assert Media.of(media_tree(weeks=20, draws=10)).carryover[0].typical == "mean of the geos"


def test_what_was_learnt_compares_like_with_like(media, tree):
    one = next(one for one in media.learnt if one.parameter == "half_saturation" and one.channel == "tv")
    expected = tree["posterior"]["half_saturation_population"].sel(half_saturation_channel="tv").to_numpy()
    np.testing.assert_allclose(one.posterior, np.quantile(expected, [0.5, 0.03, 0.97]), rtol=1e-10)
    assert prior_picture(media) is not None
    # Without populations the geos' own values stand in, in the same units.
    bare = media_tree(weeks=20, draws=10)
    bare["prior"] = bare["posterior"].to_dataset()
    alone = Media.of(bare)
    scale = bare["constant_data"]["media_scale"].sel(channel="tv").to_numpy()
    values = bare["posterior"]["half_saturation"].sel(half_saturation_channel="tv").to_numpy() / scale
    one = next(one for one in alone.learnt if one.parameter == "half_saturation" and one.channel == "tv")
    np.testing.assert_allclose(one.posterior, np.quantile(values, [0.5, 0.03, 0.97]), rtol=1e-10)
    # A posterior that is the prior has learnt nothing.
    assert silent(alone)["half_saturation"] == ["tv", "radio", "video", "posters"]
    assert "for 0 of" in prior_picture(alone).title
    assert prior_picture(Media.of(media_tree(weeks=20, draws=10))) is None


def test_shrinkage_by_geo(media, written):
    table = pd.read_csv(written[0] / "shrinkage.csv", index_col=["geo", "channel"])
    assert np.isnan(table.loc[("DE", "tv"), "rate"])
    mean = table.groupby("geo").sum().sum(axis=1) / table.groupby("geo").count().sum(axis=1)
    picture = shrinkage_picture(media)
    assert picture.title.startswith(f"{mean.idxmax()} leans most on the group ({100 * mean.max():.0f}% on average)")
    assert f"{mean.idxmin()} least" in picture.title
    row = next(row for row in picture.table.rows if row[0] == "DE")
    heads = picture.table.columns
    assert row[heads.index("retention")] == f"{100 * table.loc['DE', 'alpha'].mean():.0f}%"
    # Nothing is pooled without between-geo standard deviations.
    assert shrinkage_picture(Media.of(media_tree(weeks=20, draws=10))) is None


def test_findings_in_words(media, tree):
    findings = find_media(media)
    text = " ".join(findings.sentences)
    assert findings.converged
    returns = media.returns.xs("all", level="geo")
    assert f"returns most in {returns['marginal_roas'].idxmax()}" in text
    assert f"it returns least in {returns['marginal_roas'].idxmin()}" in text
    shares = media.totals.xs("all", level="geo").query("kind == 'media'")["share"]
    assert (
        f"Most came from {shares.idxmax()} ({100 * shares.max():.{int(shares.max() < 0.0995)}f}% of the sales" in text
    )
    cautions = " ".join(findings.cautions)
    assert "Nothing was spent on posters in SE" in cautions
    assert "no spend apart from media" in cautions
    apart = Media.of(full_tree(has_spend=True, weeks=20, draws=10))
    assert "no spend apart" not in " ".join(find_media(apart).cautions)


def test_an_unconverged_tree_gets_a_banner(tree, tmp_path):
    bad = first_geo(tree, ["tv"])
    bad.attrs |= {"converged": 0, "status": "NOT CONVERGED: R-hat is 1.3 <i>: run longer | 7 divergent transitions"}
    write_media_report(bad, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "NOT CONVERGED: do not use these figures yet." in page
    assert "<li>R-hat is 1.3 &lt;i&gt;: run longer</li>" in page
    assert "The draws converged" not in page


def test_what_warns_while_figures_are_made_stands_on_the_page(tmp_path):
    endless = full_tree(
        channels={"tv": ("geometric", None, True, "exponential")}, geos=("DE", "AT"), weeks=20, draws=10
    )
    posterior = endless["posterior"].to_dataset()
    posterior["alpha"][:] = 0.99
    endless["posterior"] = posterior
    with pytest.warns(DataWarning, match="carryover without end was followed"):
        write_media_report(endless, tmp_path)
    assert "carryover without end was followed" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_titles_name_the_best_and_the_picture_its_spread(media):
    returns = media.returns
    best = returns.xs("all", level="geo")["roas"].idxmax()
    assert roas_picture(media).title.startswith(f"{best} paid back best")
    assert "no spend" in drawn_text(roas_by_geo_picture(media))
    assert f"most of all {media.channels[media.by_effect[0]]}" in contributions_picture(media).title
    geo, channel = returns.drop("all", level="geo")["marginal_roas"].idxmax()
    assert f"most for {channel} in {geo}" in response_by_geo_picture(media).title
    overview = channel_overview(media)
    assert [row[0] for row in overview.rows] == [media.channels[at] for at in media.by_effect]


LONG = ("geometric", 4, True, "hill")
CASES = {
    "one geo, one channel": {"channels": {"tv": LONG, "radio": LONG}, "geos": ("DE", "AT"), "one": True},
    "one geo": {"channels": {"tv": LONG, "radio": LONG}, "geos": ("DE", "AT"), "one": True, "both": True},
    "many of both": {
        "channels": {f"A channel with a long name, number {i}": LONG for i in range(10)},
        "geos": tuple(f"A geo with rather a long name {i}" for i in range(26)),
    },
    "no font": {"channels": {"電視": LONG, "$x^2$ <b>": LONG}, "geos": ("東京", "ሰላም & co", "#0072b2")},
}


def first_geo(tree, channels):
    """A tree's first geo alone, with some of its channels."""
    picked = {}
    for name, of in tree.children.items():
        wanted = {"geo": ["DE"], "channel": channels} if name != "sample_stats" else {}
        wanted |= {dim: [one for one in channels if one in of[dim]] for dim in of.dims if dim.endswith("_channel")}
        group = of.to_dataset().sel({dim: labels for dim, labels in wanted.items() if dim in of.dims})
        picked[name] = group[[variable for variable in group.data_vars if group[variable].size]]
    described = json.loads(tree.attrs["media_mix"])
    described["channels"] = [one for one in described["channels"] if one["name"] in channels]
    found = xr.DataTree.from_dict(picked)
    found.attrs.update(tree.attrs, media_mix=json.dumps(described))
    return found


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_pictures_draw_at_any_size(case, tmp_path, monkeypatch):
    # As on a machine with no font beside matplotlib's own.
    monkeypatch.setattr(canvas, "_installed", dict)
    canvas._family_of.cache_clear()
    settings = dict(CASES[case])
    one, both = settings.pop("one", False), settings.pop("both", False)
    tree = full_tree(weeks=20, draws=10, **settings)
    media = Media.of(first_geo(tree, ["tv", "radio"] if both else ["tv"]) if one else tree)
    try:
        for picture in _pictures(media, None):
            picture.save_png(tmp_path / "a.png")
            words = drawn_text(picture)
            assert picture.title
            assert len(picture.reading) > 40
            assert collisions(picture.figure) == [], picture.slug
            if case == "no font" and picture.slug == "share":
                assert "電視" in words
                assert "$x^2$ <b>" in words
                assert "電視" in picture.alt or "$x^2$" in picture.alt
    finally:
        canvas._family_of.cache_clear()
    if case == "many of both":
        fitted = fit_picture(media)
        assert "Shown are the 12 largest of 26 geos; fit.csv has all." in fitted.reading
        assert len([axes for axes in fitted.figure.axes if axes.get_visible()]) == 12
        sizes = media.by_component("mean")[1:].sum(axis=1)
        assert sizes[media.by_size[0]] == sizes.max()
        assert "2 other channels" in drawn_text(contributions_picture(media))
        assert f"Shown are the {ROWS} largest of 26 geos" in roas_by_geo_picture(media).reading
    if one:
        assert roas_by_geo_picture(media) is None
        assert response_by_geo_picture(media) is None


def test_traces_are_of_the_worst_of_different_variables(media):
    rows = media.diagnostics
    found = mixed_worst(media.tree, rows, 3)
    assert next(iter(found)) == rows["rhat"].idxmax()
    assert len({label.partition("[")[0] for label in found}) == 3
    label = next(label for label in found if "[" in label)
    assert np.isclose(found[label].mean(), rows.loc[label, "mean"])


def test_allocation_files_words_and_pictures(tmp_path):
    allocation = made_up([100, 100, 100, 100], [180, 120, 60, 40], 400.0, beyond=1)
    files = write_allocation(allocation, tmp_path, target="sales", period="week")
    names = ["allocation.csv", "allocation_plans.csv", "allocation.png", "allocation_lines.png"]
    assert [path.name for path in files] == names == [name for name in names if (tmp_path / name).exists()]
    back = pd.read_csv(tmp_path / "allocation.csv", index_col=["geo", "channel"])
    np.testing.assert_array_equal(back["spend"], allocation.table["spend"])
    assert pd.read_csv(tmp_path / "allocation_plans.csv", index_col="plan").loc["optimum", "gain_mean"] == 200
    said = sentence(allocation, "sales", "week")
    assert "Budget 400 over 13 weeks" in said
    assert "+200 (20%) against today's split" in said
    assert "better with probability 91%" in said
    assert "Most money goes to tv in DE, most is taken from radio in PL." in said
    assert "20% more sales" in allocation_picture(allocation, "sales", "week").title
    lines = allocation_lines_picture(allocation, "week")
    assert lines.title == "2 of 4 lines get more than their share today, 2 get less; 1 more than was ever tried"
    for picture in (allocation_picture(allocation), lines):
        assert collisions(picture.figure) == []
    # Twice the money in today's split moves nothing.
    same = replace(made_up([100, 100, 100, 100], [200, 200, 200, 200], 800.0), objective=0.1)
    assert "is as good as any" in allocation_picture(same).title
    assert "Most money goes" not in sentence(same)
    assert "10% quantile" in sentence(same)
    alone = made_up([100, 100], [150, 50], 200.0, geos=("DE",))
    assert allocation_lines_picture(alone) is None
    assert [path.name for path in write_allocation(alone, tmp_path / "one")] == names[:3]


def test_the_report_holds_an_allocation(media, tmp_path):
    allocation = made_up([100] * 4, [180, 120, 60, 40], 400.0)
    files = write_media_report(media, tmp_path, allocation=allocation)
    names = {path.name for path in files}
    assert {"allocation.csv", "allocation_plans.csv", "allocation.png", "allocation_lines.png"} <= names
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Budget 400 over 13 weeks" in page
    assert "the optimum &lt;i&gt;extrapolates&lt;/i&gt;" in page


def test_what_cannot_be_written_or_read_is_refused(tree, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="it is a file"):
        write_media_report(tree, tmp_path / "file")
    (tmp_path / "out" / "fit.csv").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"'fit\.csv' is a folder"):
        write_media_report(tree, tmp_path / "out")
    with pytest.raises(DataError, match="not one of MediaMix or country_mix"):
        write_media_report(xr.DataTree(), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "file").read_text() == "mine"
