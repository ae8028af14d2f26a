"""Every picture at few and at many units, and what its title says; no warning, no overlap."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import pelton
from pelton.engine.diagnostics import table
from pelton.models.decisions import held_out, predictive_check, unit_table
from pelton.models.single_rate import rate_posterior
from pelton.report import canvas, pictures
from pelton.report.calibration import calibration
from pelton.report.traces import traces


def all_pictures(tree, **settings):
    units = unit_table(tree, **settings)
    found = [pictures.shrinkage(units, tree), pictures.intervals(units, tree, settings.get("top", 10))]
    if "budget" in settings:
        found.append(pictures.budget(units, settings["budget"]))
    return [*found, pictures.predictive(predictive_check(tree))]


def overlaps(figure, texts):
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text() and text.get_visible()]
    return [
        (i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes) if i < j and a.shrunk(0.96, 0.9).overlaps(b)
    ]


@pytest.mark.parametrize("units", [3, 1500])
def test_pictures_draw_at_any_number_of_units(simulated, tmp_path, units):
    for picture in all_pictures(simulated(units), top=5, budget=1000.0):
        picture.save_png(tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
        ET.fromstring(picture.svg())
        assert picture.title
        assert picture.reading
        for axes in picture.figure.axes:
            if axes.get_visible() and axes.get_label() != "<colorbar>":
                assert axes.get_xlabel() or axes.get_ylabel() or axes.get_title(loc="left")


def test_pictures_of_a_sampled_fit(fitted, tmp_path):
    units = unit_table(fitted, top=5)
    assert units["mean"].idxmax() in pictures.intervals(units, fitted, 5).title
    assert "Experimental" in pictures.shrinkage(units, fitted).title
    population = pictures.population(fitted)
    assert f"{100 * float(fitted['posterior']['mu'].mean()):.1f}%" in population.title
    check = pictures.predictive(predictive_check(fitted))
    assert "prior" in check.reading
    sampling = traces(fitted)
    assert f"{table(fitted)['rhat'].max():.3f}" in sampling.title
    for picture in (population, check, sampling):
        picture.save_png(tmp_path / "a.png")
        ET.fromstring(picture.svg())


@pytest.mark.parametrize("units", [3, 300])
def test_labels_do_not_overlap(simulated, units):
    tree = simulated(units)
    picture = pictures.shrinkage(unit_table(tree), tree)
    picture.figure.draw_without_rendering()
    for axes in picture.figure.axes:
        assert overlaps(picture.figure, axes.texts) == []
    picture = pictures.intervals(unit_table(tree), tree)
    picture.figure.draw_without_rendering()
    assert overlaps(picture.figure, picture.figure.axes[0].get_yticklabels()) == []


def test_budget_title_adds_up(simulated):
    units = unit_table(simulated(3), budget=1000.0)
    moved = units["budget_change"].clip(lower=0).sum()
    title = pictures.budget(units, 1000.0).title
    assert f"{moved:,.0f} of 1,000" in title
    assert units["budget_change"].idxmax() in title


def test_equal_units_share_the_lead_and_one_label():
    model = pelton.PartialPooling([10] * 3, [100] * 3, unit=["a", "b", "c"], prior=pelton.FixedBeta(4, 60))
    tree = pelton.sample(model, chains=2, draws=100, progress=False)
    units = unit_table(tree)
    assert "a and 2 others share the highest pooled rate" in pictures.intervals(units, tree).title
    assert [text.get_text() for text in pictures.shrinkage(units, tree).figure.axes[0].texts] == ["a"]


def test_a_population_mean_far_off_does_not_press_the_units_into_a_corner():
    model = pelton.PartialPooling([10, 12, 9], [10**7] * 3, prior=pelton.FixedBeta(4, 6))
    tree = pelton.sample(model, chains=2, draws=100, progress=False)
    units = unit_table(tree)
    assert pictures.intervals(units, tree).figure.axes[0].get_xlim()[1] < 1
    assert "dotted" not in pictures.shrinkage(units, tree).reading


def test_calibration_says_whether_predictions_hold(tmp_path):
    rng = np.random.default_rng(7)
    trials = rng.integers(30, 300, 120)
    successes = rng.binomial(trials, rng.beta(5, 20, 120))
    held = held_out(pelton.PartialPooling(successes, trials), folds=2)
    picture = calibration(held)
    assert "hold" in picture.title
    picture.save_png(tmp_path / "calibration.png")
    ET.fromstring(picture.svg())
    # Predictions that are all alike too wide: every count falls in the middle.
    middle = replace(held, table=held.table.assign(pit=0.5), coverage=dict.fromkeys(held.coverage, 1.0))
    assert "too sure or too wide" in calibration(middle).title


def test_predictive_title_says_when_the_model_fails():
    from pelton.models.decisions import PredictiveCheck

    draws = np.random.default_rng(0).normal(0.2, 0.01, 200)
    bad = PredictiveCheck(0.5, 0.02, draws, draws / 10, None, None, 0.0, 0.8)
    assert "does not make data like these: the observed mean" in pictures.predictive(bad).title


def test_traces_show_the_chain_that_stays_apart(fitted):
    tree = fitted.copy(deep=True)
    posterior = tree["posterior"].to_dataset()
    posterior["log_kappa"][0] += 5
    tree["posterior"] = posterior
    tree.attrs["converged"] = 0
    assert "should not be trusted" in traces(tree).title


def test_many_chains_are_thinned_to_those_apart():
    values = np.arange(20.0)[:, None] + np.zeros((20, 10))
    from pelton.report.traces import _apart

    assert _apart(values, 6).tolist() == [0, 1, 2, 17, 18, 19]


@pytest.mark.parametrize(("k", "n"), [(7, 10), (0, 50), (50, 50), (3, 2500), (1, 1)])
def test_rate_picture(tmp_path, k, n):
    for prior in (pelton.FixedBeta(11.5, 48.5), pelton.FixedBeta(0.5, 0.5)):
        picture = pictures.rate_picture(rate_posterior(prior, k, n))
        picture.save_png(tmp_path / "rate.png")
        assert len(picture.figure.axes) == 4
        assert f"{k:,} of {n:,}" in picture.title
        for axes in picture.figure.axes:
            assert np.isfinite(axes.get_ylim()).all()


NAMES = ["喜剧 & <b>", "$x^2$", "\U0001f9ff\U0001fae8", "ሰላም", "#0072b2", "row 2", "plain"]


def test_names_without_a_font_stand_by_row_in_png_and_as_text_in_svg(simulated, tmp_path, monkeypatch):
    # As on a machine with no font beside matplotlib's own.
    monkeypatch.setattr(canvas, "_installed", dict)
    canvas._family_of.cache_clear()
    try:
        tree = simulated(len(NAMES), names=NAMES)
        picture = pictures.intervals(unit_table(tree), tree)
        drawn = {label.get_text() for label in picture.figure.axes[0].get_yticklabels()}
        assert "row\u00a01\u00a0" in drawn
        assert "row 2" in drawn
        assert "$x^2$" in drawn
        picture.save_png(tmp_path / "a.png")
        assert "no font" not in picture.figure._suptitle.get_text()
        texts = [element.text for element in ET.fromstring(picture.svg()).iter("{http://www.w3.org/2000/svg}text")]
        for name in NAMES:
            assert any(name in (text or "") for text in texts), name
    finally:
        canvas._family_of.cache_clear()


def test_svg_follows_the_page_to_dark(fitted):
    svg = pictures.population(fitted).svg()
    assert "prefers-color-scheme:dark" in svg
    styles = " ".join(re.findall(r'style="([^"]*)"', svg))
    assert "var(--pooled)" in styles
    assert canvas.LIGHT["ink"] not in styles


def test_drawing_leaves_the_users_matplotlib_as_it_was(fitted):
    with mpl.rc_context({"font.size": 3.0, "axes.facecolor": "pink"}):
        before = dict(mpl.rcParams)
        picture = pictures.population(fitted)
        picture.svg()
        assert dict(mpl.rcParams) == before
        assert picture.figure.axes[0].get_facecolor() == (1.0, 1.0, 1.0, 1.0)


def test_both_themes_give_every_role_a_colour():
    assert canvas.LIGHT.keys() == canvas.DARK.keys()
    assert len(set(canvas.LIGHT.values())) == len(canvas.LIGHT)
    assert set(canvas.CHAINS) <= canvas.LIGHT.keys()


@pytest.mark.parametrize("span", [(62.95, 64.65), (9.0, 25.0), (0.01, 900.0), (5.0, 5.01), (1.0, 1e7)])
def test_logarithmic_axes_have_ticks_with_room(span):
    from matplotlib.figure import Figure

    from pelton.report.axes import log_axis

    axes = Figure().subplots()
    axes.set_xlim(*span)
    log_axis(axes.xaxis, *span, "x")
    assert 2 <= len(axes.get_xticks()) <= 8
