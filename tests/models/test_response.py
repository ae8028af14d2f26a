"""The response read from a tree, against plain NumPy loops."""

import json

import numpy as np
import pytest
import xarray as xr

import pelton
from pelton.models import response
from pelton.models.response import Response
from tests.models import media_trees as oracle


@pytest.fixture(scope="module", params=["mixed", "student_t", "country"])
def tree(request):
    if request.param == "country":
        return oracle.country_tree()
    return oracle.media_tree(
        has_spend=request.param == "student_t", likelihood=request.param.replace("mixed", "normal")
    )


def edited(tree, **changes):
    """The tree with other settings."""
    new = tree.copy()
    settings = json.loads(new.attrs["media_mix"])
    new.attrs["media_mix"] = json.dumps(settings | changes)
    return new


def test_contributions_baseline_and_prediction_are_those_of_the_loops(tree):
    known = Response.of(tree)
    expected = oracle.contributions(tree)
    np.testing.assert_allclose(known.contributions(), expected, rtol=1e-12, atol=1e-12 * expected.max())
    terms = oracle.baseline_parts(tree)
    for at, part in enumerate(known.baseline_parts):
        of_part = terms[..., [term == part for term in known.parts]].sum(-1)
        np.testing.assert_allclose(known.baseline()[..., at], of_part, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(known.prediction(), expected.sum(-1) + terms.sum(-1), rtol=1e-12)
    np.testing.assert_allclose(known.baseline_mean.sum(-1), terms.sum(-1).mean(0), rtol=1e-12, atol=1e-9)


def test_blocks_of_any_length_give_the_same(tree, monkeypatch):
    whole = Response.of(tree).contributions()
    mean, totals = Response.of(tree).summed
    # Seven draws a block, which does not divide 40: the last block is filled up.
    monkeypatch.setattr(response, "BLOCK", 7 * Response.of(tree).media.size)
    known = Response.of(tree)
    blocks = list(known.blocks())
    assert [block.shape[0] for _, block in blocks][:-1] == [7] * (len(blocks) - 1)
    np.testing.assert_allclose(np.concatenate([block for _, block in blocks]), whole, rtol=1e-14)
    np.testing.assert_allclose(known.summed[0], mean, rtol=1e-13)
    np.testing.assert_allclose(known.summed[1], totals, rtol=1e-13)


def test_sums_are_over_the_weeks_inside(tree):
    known = Response.of(tree)
    expected = oracle.contributions(tree)
    inside = np.asarray(tree["constant_data"]["inside"])
    np.testing.assert_allclose(known.summed[0], expected.mean(0), rtol=1e-12, atol=1e-12 * expected.max())
    np.testing.assert_allclose(known.summed[1], np.einsum("dgtc,gt->dgc", expected, inside), rtol=1e-12)
    baseline = np.einsum("dgtk,gt->dg", oracle.baseline_parts(tree), inside)
    np.testing.assert_allclose(known.baseline_totals.sum(-1), baseline, rtol=1e-12)


def test_other_media_draws_and_geos(tree):
    known = Response.of(tree)
    media = np.random.default_rng(4).gamma(2.0, 50.0, (len(known.geos), 11, len(known.channels)))
    expected = oracle.contributions(tree, media)
    np.testing.assert_allclose(known.contributions(slice(3, 20, 4), media), expected[3:20:4], rtol=1e-12)
    part = known.take(draws=np.array([5, 1]), geos=slice(1, 2))
    assert part.geos == known.geos[1:2]
    np.testing.assert_allclose(part.contributions(media=media[1:2]), expected[[5, 1], 1:2], rtol=1e-12)
    weights = np.random.default_rng(5).random(media.shape[:2])
    np.testing.assert_allclose(known.totals(weights, media), np.einsum("dgtc,gt->dgc", expected, weights), rtol=1e-12)


def test_slopes_are_finite_differences_of_the_loops(tree):
    known = Response.of(tree)
    media = np.asarray(tree["constant_data"]["media"])
    direction = media * (np.random.default_rng(6).random(media.shape) < 0.5)
    weights = np.random.default_rng(7).random(media.shape[:2])
    step = 1e-5
    ends = [
        np.einsum("dgtc,gt->dgc", oracle.contributions(tree, media + e * direction), weights) for e in (step, -step)
    ]
    expected = (ends[0] - ends[1]) / (2 * step)
    # Central differences: a truncation error of step^2 and a rounding error of 1e-16 / step.
    np.testing.assert_allclose(known.slopes(weights, direction, media), expected, rtol=1e-6, atol=1e-7 * expected.max())


def test_the_steady_response_is_where_a_constant_series_ends(tree):
    known = Response.of(tree)
    level = np.full((len(known.geos), 400, len(known.channels)), 60.0)
    expected = oracle.contributions(tree, level)[:, :, -1]
    found = known.saturated((known.steady() * 60.0)[:, :, None])[:, :, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(known.saturated(known.carried(level))[:, :, -1], expected, rtol=1e-12)


def test_reach_is_the_longest_window_or_until_a_millionth_is_left():
    finite = {name: form for name, form in oracle.MIXED.items() if form[1] is not None}
    assert Response.of(oracle.media_tree(finite)).reach == 7
    assert Response.of(oracle.country_tree()).reach == 20
    tree = oracle.media_tree()
    slowest = float(tree["posterior"]["alpha"].sel(alpha_channel="search").max())
    known = Response.of(tree)
    assert slowest**known.reach <= 1e-6 < slowest ** (known.reach - 1)
    assert known.cut_off == 0
    # Where the response rises like a power below 1, it also falls more slowly.
    rooted = Response.of(oracle.media_tree({"search": ("geometric", None, True, "root")}))
    of = rooted.values[0]
    assert np.max(of["alpha"] ** (of["power"] * rooted.reach)) <= 1e-6


def test_carryover_that_hardly_ends_is_cut_and_says_how_much_is_left():
    tree = oracle.media_tree({"tv": ("geometric", None, True, "exponential")})
    tree["posterior"]["alpha"][:] = 0.99
    known = Response.of(tree)
    assert known.reach == 520
    np.testing.assert_allclose(known.cut_off, 0.99**520, rtol=0.01)


def test_thinning_is_even_and_keeps_all_where_there_are_few():
    known = Response.of(oracle.media_tree(chains=2, draws=20))
    assert known.thin(40) is known
    thinned = known.thin(16)
    positions = [int(np.flatnonzero(known.sigma[:, 0] == value)[0]) for value in thinned.sigma[:, 0]]
    assert len(set(positions)) == 16
    assert set(np.diff(positions)) == {2, 3}
    assert (known.chains, thinned.chains) == (2, 1)


def test_media_per_money():
    tree = oracle.media_tree(has_spend=True)
    media, spend = (np.asarray(tree["constant_data"][name]).sum(axis=1) for name in ("media", "spend"))
    price = Response.of(tree).media_a_unit_of_money
    paid = spend > 0
    np.testing.assert_allclose(price[paid], media[paid] / spend[paid], rtol=1e-12)
    # The last geo never paid for the last channel.
    assert not paid[-1, -1]
    np.testing.assert_allclose(price[-1, -1], media[:, -1].sum() / spend[:, -1].sum(), rtol=1e-12)
    assert np.all(Response.of(oracle.media_tree()).media_a_unit_of_money == 1)


def test_recent_spend_is_of_the_geos_own_last_weeks():
    tree = oracle.media_tree(weeks=80)
    known = Response.of(tree)
    for geo in range(len(known.geos)):
        own = known.spend[geo, known.inside[geo]]
        np.testing.assert_allclose(known.recent_spend()[geo], own[-52:].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(known.recent_spend(5)[geo], own[-5:].mean(axis=0), rtol=1e-12)


def test_too_much_at_once_is_refused(monkeypatch):
    known = Response.of(oracle.media_tree())
    monkeypatch.setattr(response, "LARGEST", 25 * known.media.size)
    with pytest.raises(pelton.errors.ArgumentError, match=r"40 draws in 3 x 40 x 5 .* take fewer draws"):
        known.contributions()
    assert known.contributions(slice(0, 25)).shape[0] == 25


def test_a_response_is_its_own():
    known = Response.of(oracle.country_tree())
    assert Response.of(known) is known


def test_trees_that_are_no_media_mix():
    tree = oracle.media_tree()
    with pytest.raises(pelton.errors.DataError, match="lacks the group 'posterior'"):
        Response.of(xr.DataTree())
    nameless = tree.copy()
    del nameless.attrs["media_mix"]
    with pytest.raises(pelton.errors.DataError, match=r"not one of MediaMix or country_mix.*'media_mix'"):
        Response.of(nameless)
    for name in ("slope", "coef", "sigma", "baseline_coefficient"):
        lacking = tree.copy()
        lacking["posterior"] = xr.DataTree(tree["posterior"].to_dataset().drop_vars(name))
        with pytest.raises(pelton.errors.DataError, match=f"lacks '{name}'"):
            Response.of(lacking)
    channels = json.loads(tree.attrs["media_mix"])["channels"]
    with pytest.raises(pelton.errors.DataError, match="describes the channels"):
        Response.of(edited(tree, channels=channels[:-1]))
    flat = tree.copy()
    flat["posterior"] = xr.DataTree(tree["posterior"].to_dataset().isel(geo=0, drop=True))
    with pytest.raises(pelton.errors.DataError, match="has dimensions"):
        Response.of(flat)
