"""Partial pooling from Parquet files against the same units in memory, closed forms of scipy, and full ranks."""

import os
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import integrate, stats

import pelton
from pelton.engine.errors import ArgumentError, DataError, DataWarning, OutputError, UnknownNameError
from pelton.kernels.beta_binomial import count_tables, tables_of_occurrences
from pelton.models import streamed, tally
from pelton.models.mixtures import Wanted, summarise, top_thresholds
from pelton.models.nodes import Nodes, nodes_for
from pelton.models.parquet import ParquetUnits
from pelton.models.repeats import hashes
from tests.statistics import LIMIT

COLUMNS: dict[str, Any] = {"successes": "sales", "trials": "visits", "unit": "store"}
PRIOR = pelton.GammaShapes(0.5, 0.5)


def frame_of(stores, seed=0, **settings):
    table = pelton.simulate_stores(stores, seed=seed, **settings)
    names = [f"store {i}" for i in range(stores)]
    return pd.DataFrame({"store": names, "visits": table["impressions"], "sales": table["conversions"]})


def write(frame, folder, files=3, row_group_size=97):
    for index, part in enumerate(np.array_split(np.arange(len(frame)), files)):
        frame.iloc[part].to_parquet(folder / f"part-{index}.parquet", row_group_size=row_group_size, index=False)
    return str(folder / "part-*.parquet")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """2,000 units in memory and in three files, both sampled, and the summary that was written."""
    folder = tmp_path_factory.mktemp("stores")
    frame = frame_of(2000)
    pattern = write(frame, folder)
    memory = pelton.PartialPooling.from_frame(frame, **COLUMNS, prior=PRIOR)
    model = pelton.PartialPooling.from_parquet(pattern, **COLUMNS, prior=PRIOR, batch_rows=150)
    trees = pelton.sample(memory, seed=3), pelton.sample(model, seed=3)
    record = pelton.write_unit_summary(trees[1], model, folder / "rates.parquet", threshold=0.3, top=100, row_group=700)
    return frame, memory, model, trees, record


def test_histograms_and_draws_are_those_of_the_table_to_the_bit(fitted):
    frame, _, model, (tree, streamed_tree), _ = fitted
    expected = count_tables(frame["sales"].to_numpy(), frame["visits"].to_numpy())
    assert model.tables.total_successes == expected.total_successes
    assert model.tables.total_failures == expected.total_failures
    for name in ("successes", "failures", "trials"):
        found, wanted = getattr(model.tables, name), getattr(expected, name)
        assert type(found) is type(wanted)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    for name in ("logit_mu", "log_kappa", "alpha", "beta"):
        np.testing.assert_array_equal(tree["posterior"][name], streamed_tree["posterior"][name])


@pytest.mark.parametrize("largest", [50, 100_000])
def test_tables_of_occurrences_are_count_tables(largest):
    source = np.random.default_rng(1)
    n = source.integers(0, largest, 3000)
    k = source.integers(0, n + 1)
    margins = [np.unique(values, return_counts=True) for values in (k, n - k, n)]
    found, expected = tables_of_occurrences(*margins), count_tables(k, n)
    for name in ("successes", "failures", "trials"):
        assert type(getattr(found, name)) is type(getattr(expected, name))
        for a, b in zip(getattr(found, name), getattr(expected, name), strict=True):
            np.testing.assert_array_equal(a, b)
    assert found.total_failures == expected.total_failures


def test_the_tree_has_no_array_over_units(fitted):
    frame, _, _, (_, tree), _ = fitted
    for group in tree.children.values():
        for name, variable in group.data_vars.items():
            assert variable.size < 2000 or set(variable.dims) == {"chain", "draw"}, name
    assert int(tree["constant_data"]["units"]) == 2000
    counts = tree["observed_data"]["units_by_successes"].to_series()
    expected = frame["sales"].value_counts().sort_index()
    np.testing.assert_array_equal(counts.index, expected.index)
    np.testing.assert_array_equal(counts, expected)


def test_the_file_has_the_units_in_order_and_in_row_groups(fitted):
    frame, _, _, _, record = fitted
    written = pq.ParquetFile(record.path)
    assert [written.metadata.row_group(i).num_rows for i in range(3)] == [700, 700, 600]
    table = pd.read_parquet(record.path)
    assert list(table["store"]) == list(frame["store"])
    np.testing.assert_array_equal(table["successes"], frame["sales"])
    np.testing.assert_array_equal(table["trials"], frame["visits"])
    np.testing.assert_array_equal(table["raw"], frame["sales"] / frame["visits"])
    assert (record.units, record.draws) == (2000, 4000)
    assert record.pairs == len(frame[["sales", "visits"]].drop_duplicates())
    assert [file.name for file in record.path.parent.iterdir() if file.name.startswith(".")] == []


def test_columns_agree_with_unit_summary(fitted):
    _, _, _, (tree, _), record = fitted
    found = pd.read_parquet(record.path)
    expected = pelton.unit_summary(tree, quantiles=(0.03, 0.97), threshold=0.3)
    draws = expected.attrs["draws"]
    expected = expected.reset_index(drop=True)
    assert draws == 4000
    # The nodes give distribution functions to 1e-7 of those of all draws.
    np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-7)
    np.testing.assert_allclose(found["sd"], expected["sd"], rtol=1e-7)
    # unit_summary has draws of the rates, these columns have none: they differ by its Monte Carlo error. 1,624
    # posteriors are compared; the largest of so many z is past 5 by chance once in a thousand.
    error = np.sqrt(found["p_above"] * (1 - found["p_above"]) / draws)
    z = (expected["p_above"] - found["p_above"]) / np.maximum(error, 1 / draws)
    assert np.abs(z).max() < LIMIT
    for p, name in ((0.03, "q03"), (0.97, "q97")):
        # The density at the quantile, by the normal distribution of the same sd.
        error = np.sqrt(p * (1 - p) / draws) / (stats.norm.pdf(stats.norm.ppf(p)) / found["sd"])
        z = (expected[name] - found[name]) / error
        assert np.abs(z).max() < LIMIT + 1
        assert np.abs(z.mean()) < 0.2


def test_p_top_agrees_with_full_ranks(fitted):
    _, _, _, (tree, _), record = fitted
    found = pd.read_parquet(record.path)["p_top"].to_numpy()
    expected = pelton.ranking(tree, top=100)["p_top"].to_numpy()
    assert found.sum() == pytest.approx(100, rel=1e-6)
    # What the docstring says of 2,000 units: the approximation, and the Monte Carlo error of 4,000 draws beside it.
    assert np.abs(found - expected).max() < 0.02 + LIMIT * np.sqrt(0.25 / 4000)
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.01


def test_summaries_agree_with_scipy_on_given_draws():
    source = np.random.default_rng(2)
    mean, concentration = source.normal([-1.0, 2.0], [0.2, 0.3], (40, 2)).T
    alpha, beta = np.exp(concentration) * [1 / (1 + np.exp(-mean)), 1 / (1 + np.exp(mean))]
    k, n = np.array([0, 3, 40, 0, 1000, 0]), np.array([0, 10, 160, 500, 1000, 10**6])
    nodes = nodes_for(mean, concentration, k, n)
    found = summarise(k, n, nodes, Wanted((0.03, 0.5, 0.97), 0.25, np.full(len(nodes), 0.4)))
    for i in range(len(k)):
        mixture = stats.beta(alpha + k[i], beta + n[i] - k[i])
        assert found["mean"][i] == pytest.approx(mixture.mean().mean(), rel=1e-12)
        assert found["sd"][i] == pytest.approx(np.sqrt(mixture.var().mean() + mixture.mean().var()), rel=1e-9)
        for p in (0.03, 0.5, 0.97):
            assert mixture.cdf(found[f"q{100 * p:02.0f}"][i]).mean() == pytest.approx(p, abs=1e-6)
        assert found["p_above"][i] == pytest.approx(mixture.sf(0.25).mean(), rel=1e-9, abs=1e-15)
        assert found["p_top"][i] == pytest.approx(mixture.sf(0.4).mean(), rel=1e-9, abs=1e-15)


def test_quantiles_of_rates_near_nought():
    """Shapes far below 1, where the rate's quantile is a tiny number and its density has a pole."""
    nodes = Nodes(np.log([0.01, 0.012]), np.log([0.5, 0.6]), np.array([0.5, 0.5]), 0.0)
    k, n = np.array([0, 0]), np.array([0, 50])
    found = summarise(k, n, nodes, Wanted((0.03, 0.97)))
    for i in range(2):
        mixture = stats.beta(nodes.alpha + k[i], nodes.beta + n[i] - k[i])
        assert mixture.cdf(found["q97"][i]).mean() == pytest.approx(0.97, abs=1e-6)
        # The 3% point is below the least rate that is told from nought.
        assert found["q03"][i] < 1e-250


@pytest.mark.parametrize("spread", [0.0, 0.001, 0.05])
def test_nodes_stand_for_the_draws(spread):
    source = np.random.default_rng(3)
    draws = source.normal([-1.0, 2.4], spread, (4000, 2)).T
    draws[1] += 0.5 * draws[0]
    n = source.integers(60, 400, 5000)
    k = source.binomial(n, source.beta(2.5, 8.0, 5000))
    nodes = nodes_for(*draws, k, n)
    assert nodes.weight.sum() == pytest.approx(1.0, abs=1e-12)
    assert len(nodes) == 1 if spread == 0 else len(nodes) <= 81
    alpha, beta = np.exp(draws[1]) * [1 / (1 + np.exp(-draws[0])), 1 / (1 + np.exp(draws[0]))]
    found = summarise(k[:30], n[:30], nodes, Wanted((0.03,), 0.3))
    for i in range(30):
        mixture = stats.beta(alpha + k[i], beta + n[i] - k[i])
        assert found["p_above"][i] == pytest.approx(mixture.sf(0.3).mean(), abs=1e-6)
        assert mixture.cdf(found["q03"][i]).mean() == pytest.approx(0.03, abs=1e-6)
        assert found["sd"][i] == pytest.approx(np.sqrt(mixture.var().mean() + mixture.mean().var()), rel=1e-6)


def test_thresholds_leave_so_many_above():
    source = np.random.default_rng(4)
    n = source.integers(0, 400, 500)
    k, units = source.integers(0, n + 1), source.integers(1, 10**5, 500)
    nodes = Nodes(np.array([-1.0, -0.9]), np.array([2.0, 2.2]), np.array([0.5, 0.5]), 0.0)
    for top in (1, 1000, int(units.sum()) - 1):
        for node, rate in enumerate(top_thresholds(k, n, units, nodes, top)):
            above = stats.beta(nodes.alpha[node] + k, nodes.beta[node] + n - k).sf(rate)
            assert units @ above == pytest.approx(top, rel=1e-7)


def test_too_many_pairs_are_worked_out_row_by_row(fitted, tmp_path, monkeypatch):
    frame, _, model, (_, tree), record = fitted
    monkeypatch.setattr(streamed, "MOST_PAIRS", 1000)
    again = pelton.PartialPooling.from_parquet(list(model.source.paths), **COLUMNS, prior=PRIOR, batch_rows=300)
    assert again.pairs is None
    other = pelton.write_unit_summary(tree, again, tmp_path / "rates.parquet", threshold=0.3, top=100)
    assert other.pairs is None
    found, expected = pd.read_parquet(other.path), pd.read_parquet(record.path)
    assert list(found["store"]) == list(frame["store"])
    for name in ("mean", "sd", "q03", "q97", "p_above"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)
    # The thresholds come from cells of like counts here.
    np.testing.assert_allclose(found["p_top"], expected["p_top"], atol=2e-3)


@pytest.mark.parametrize("largest", [3000, 2**31 - 1])
def test_tally_counts_what_occurs(largest, monkeypatch):
    monkeypatch.setattr(tally, "_PENDING", 500)
    source = np.random.default_rng(5)
    n = source.integers(0, largest, 5000) // 7 * 7
    k = source.integers(0, n + 1) // 1000
    keys = tally.pair_key(k, n)
    for back, given in zip(tally.pair_of(keys), (k, n), strict=True):
        np.testing.assert_array_equal(back, given)
    found = tally.Tally(most=10_000)
    for part in np.array_split(np.concatenate([keys, keys[:2000]]), 40):
        found.add(part)
    result = found.result()
    assert result is not None
    for values, expected in zip(
        result, np.unique(np.concatenate([keys, keys[:2000]]), return_counts=True), strict=True
    ):
        np.testing.assert_array_equal(values, expected)
    little = tally.Tally(most=10)
    little.add(keys)
    assert little.result() is None


BAD = [
    ({"sales": -1}, r"sales: row 8 \(unit 'store 7'\) is -1: it is negative; counts are 0 or more"),
    ({"sales": 900}, r"row 8 \(unit 'store 7'\) has 900 sales of \d+ visits; sales are at most visits"),
    ({"visits": 2**31}, r"visits: row 8 \(unit 'store 7'\) is 2147483648: it is above the largest count"),
    ({"visits": None}, r"visits: row 8 \(unit 'store 7'\) is nan: it is missing or not finite"),
    ({"sales": 1.5}, r"sales: row 8 \(unit 'store 7'\) is 1.5: it is not a whole number"),
    ({"sales": "12"}, r"sales: row 8 \(unit 'store 7'\) holds the text '12'"),
    ({"store": None}, r"store: row 8 has no name; name every unit"),
    ({"store": "store 2"}, r"store: 'store 2' stands in rows 3 and 8; add the counts of a unit up first"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_rows_are_named_as_from_frame_names_them(bad, message, tmp_path):
    frame = frame_of(10).astype(object)
    for name, value in bad.items():
        frame.loc[7, name] = value
    if bad.get("sales") == "12":
        frame["sales"] = frame["sales"].astype(str)
        message = r"sales: row 1 \(unit 'store 0'\) holds the text"
    frame = frame.infer_objects()
    with pytest.raises(DataError, match=message):
        pelton.PartialPooling.from_frame(frame, **COLUMNS)
    frame.to_parquet(tmp_path / "stores.parquet", index=False)
    with pytest.raises(DataError, match=message):
        pelton.PartialPooling.from_parquet(tmp_path / "stores.parquet", **COLUMNS, batch_rows=4)


def test_bad_rows_of_several_files_name_the_file(tmp_path):
    frame = frame_of(30)
    frame.loc[25, "sales"] = -3
    pattern = write(frame, tmp_path)
    with pytest.raises(DataError, match=r"part-2.parquet': sales: row 6 \(unit 'store 25'\) is -3"):
        pelton.PartialPooling.from_parquet(pattern, **COLUMNS, batch_rows=4)
    frame.loc[25, "sales"], frame.loc[25, "store"] = 3, "store 4"
    write(frame, tmp_path)
    with pytest.raises(DataError, match=r"'store 4' stands in row 5 of '.*part-0.parquet' and row 6 of '.*part-2"):
        pelton.PartialPooling.from_parquet(pattern, **COLUMNS)
    assert len(pelton.PartialPooling.from_parquet(pattern, **COLUMNS, check_names=False).source) == 30


@pytest.mark.parametrize(
    "names",
    [
        pa.array(["", "a", "b", "ab", "ba", "é", "aa", "aaa"]),
        pa.array(["", "a", "b", "ab"]).dictionary_encode().dictionary_decode(),
        pa.array([0, 1, -1, 2**40]),
        pa.array([0.0, 1.5, -1.5]),
        pa.array([1, 2, 3], pa.timestamp("us")),
        pa.array(["x", "y", "longer", "longer still"]).slice(1, 3),
    ],
)
def test_hashes_tell_names_apart(names):
    found = hashes(names)
    assert len(np.unique(found)) == len(names)
    np.testing.assert_array_equal(hashes(names.take(pa.array([1, 0]))), found[[1, 0]])


def test_counts_of_other_types_and_no_names(tmp_path):
    frame = frame_of(50)
    expected = pelton.PartialPooling.from_parquet(_one(frame, tmp_path), **COLUMNS).tables
    for kind in ("float64", "uint8", "uint64", "Int64"):
        changed = frame.assign(sales=frame["sales"].astype(kind)).drop(columns="store")
        model = pelton.PartialPooling.from_parquet(_one(changed, tmp_path), successes="sales", trials="visits")
        np.testing.assert_array_equal(model.tables.successes.above, expected.successes.above)
        tree = pelton.sample(model)
        path = pelton.write_unit_summary(tree, model, tmp_path / "out.parquet").path
        assert pd.read_parquet(path)["unit"].tolist() == list(range(50))


def _one(frame, folder):
    frame.to_parquet(folder / "one.parquet", index=False)
    return folder / "one.parquet"


def test_units_without_trials_are_warned_of_and_written(tmp_path):
    frame = frame_of(40)
    frame.loc[[5, 9], ["visits", "sales"]] = 0
    with pytest.warns(DataWarning, match=r"2 of 40 units have no visits \('store 5', 'store 9'\)"):
        model = pelton.PartialPooling.from_parquet(_one(frame, tmp_path), **COLUMNS)
    tree = pelton.sample(model)
    table = pd.read_parquet(pelton.write_unit_summary(tree, model, tmp_path / "out.parquet").path)
    assert table["raw"].isna().tolist() == [i in (5, 9) for i in range(40)]
    # Such a unit's rate has the population's mean.
    assert table["mean"][5] == pytest.approx(float(tree["posterior"]["mu"].mean()), rel=1e-9)


def test_a_fixed_prior_needs_no_draws(tmp_path):
    model = pelton.PartialPooling.from_parquet(_one(frame_of(30), tmp_path), **COLUMNS, prior=pelton.FixedBeta(2, 9))
    tree = pelton.sample(model)
    record = pelton.write_unit_summary(tree, model, tmp_path / "out.parquet", top=3)
    table = pd.read_parquet(record.path)
    assert record.nodes == 1
    np.testing.assert_allclose(table["mean"], (2 + table["successes"]) / (11 + table["trials"]), rtol=1e-9)
    np.testing.assert_allclose(
        table["q03"],
        stats.beta(2 + table["successes"], 9 + table["trials"] - table["successes"]).ppf(0.03),
        rtol=1e-6,
    )


def test_p_top_sums_to_what_is_asked_also_where_all_are_at_the_top(fitted, tmp_path):
    _, _, model, (_, tree), _ = fitted
    for top in (1, 1999, 2000, 10**6):
        table = pd.read_parquet(pelton.write_unit_summary(tree, model, tmp_path / "out.parquet", top=top).path)
        assert table["p_top"].sum() == pytest.approx(min(top, 2000), rel=1e-6)


def test_changed_files_are_refused(tmp_path):
    frame = frame_of(60)
    pattern = write(frame, tmp_path)
    model = pelton.PartialPooling.from_parquet(pattern, **COLUMNS)
    tree = pelton.sample(model)
    target = tmp_path / "rates.out"
    target.write_text("as it was")
    frame.loc[0, "sales"] += 1
    write(frame, tmp_path)
    with pytest.raises(DataError, match=r"part-0.parquet' was changed since the model was made of it"):
        pelton.write_unit_summary(tree, model, target)
    again = pelton.PartialPooling.from_parquet(pattern, **COLUMNS)
    with pytest.raises(DataError, match="this tree is of other data"):
        pelton.write_unit_summary(tree, again, target)
    os.remove(tmp_path / "part-1.parquet")
    with pytest.raises(DataError, match=r"part-1.parquet' is gone since"):
        pelton.write_unit_summary(tree, again, target)
    assert target.read_text() == "as it was"
    assert not list(tmp_path.glob(".*"))


def test_what_needs_units_in_memory_says_what_to_call(fitted):
    _, memory, model, (memory_tree, tree), record = fitted
    for function in (pelton.unit_summary, pelton.ranking, pelton.shrinkage, pelton.unit_table, pelton.predictive_check):
        with pytest.raises(DataError, match=r"not in memory; pelton.write_unit_summary"):
            function(tree)
    with pytest.raises(DataError, match="not in memory"):
        pelton.compare(tree, "store 1", "store 2")
    # As in `pelton.held_out(model)`, whose annotation the tests' type checks enforce.
    with pytest.raises(ArgumentError, match=r"not in memory; pelton.write_unit_summary"):
        _ = model.counts
    with pytest.raises(UnknownNameError, match="unknown group"):
        pelton.sample(model, groups=["log_likelihood"])
    with pytest.raises(ArgumentError, match=r"takes a model of PartialPooling.from_parquet"):
        pelton.write_unit_summary(tree, memory, record.path)
    with pytest.raises(DataError, match=r"not one of PartialPooling.from_parquet"):
        pelton.write_unit_summary(memory_tree, model, record.path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 2}, "threshold is a rate between 0 and 1, not 2"),
        ({"top": 0}, "top is a whole number of at least 1, not 0"),
        ({"quantiles": (0.5, 1.5)}, "quantiles are probabilities"),
        ({"quantiles": (0.501, 0.502)}, "share a name"),
        ({"row_group": 0}, "row_group is a whole number"),
    ],
)
def test_settings_out_of_range(fitted, settings, message, tmp_path):
    _, _, model, (_, tree), _ = fitted
    with pytest.raises(ArgumentError, match=message):
        pelton.write_unit_summary(tree, model, tmp_path / "out.parquet", **settings)


def test_places_that_cannot_be_written(fitted, tmp_path):
    _, _, model, (_, tree), _ = fitted
    with pytest.raises(ArgumentError, match="is one of the files that are read"):
        pelton.write_unit_summary(tree, model, model.source.paths[0])
    with pytest.raises(OutputError, match=r"cannot write .*no-such-folder"):
        pelton.write_unit_summary(tree, model, tmp_path / "no-such-folder" / "out.parquet")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="there is no Parquet file at"):
        pelton.PartialPooling.from_parquet(tmp_path / "*.parquet", **COLUMNS)
    (tmp_path / "a.parquet").write_text("no Parquet")
    with pytest.raises(DataError, match="is no Parquet file"):
        pelton.PartialPooling.from_parquet(tmp_path, **COLUMNS)
    frame = frame_of(10)
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    with pytest.raises(UnknownNameError, match=r"unknown column 'sale'; did you mean 'sales'"):
        pelton.PartialPooling.from_parquet(tmp_path, successes="sale", trials="visits")
    frame.iloc[:0].to_parquet(tmp_path / "a.parquet", index=False)
    with pytest.raises(DataError, match="the table is empty"):
        pelton.PartialPooling.from_parquet(tmp_path / "a.parquet", **COLUMNS)
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    frame.assign(visits=frame["visits"].astype("int16")).to_parquet(tmp_path / "b.parquet", index=False)
    with pytest.raises(DataError, match=r"column 'visits' is int64 in .*a.parquet' and int16 in .*b.parquet'"):
        pelton.PartialPooling.from_parquet(tmp_path, **COLUMNS)
    for name in ("groups", "segments", "covariates"):
        with pytest.raises(ArgumentError, match=f"takes no {name}; from_frame takes them"):
            pelton.PartialPooling.from_parquet(tmp_path / "a.parquet", **(COLUMNS | {name: "store"}))
    with pytest.raises(ArgumentError, match="batch_rows is a whole number"):
        ParquetUnits.of(tmp_path / "a.parquet", "sales", "visits", None, 0)


def test_p_top_of_the_exact_integral_for_many_equal_units():
    """All units alike: each is among the top k with probability k / N, however the threshold is found."""
    nodes = Nodes(np.array([-1.0]), np.array([3.0]), np.ones(1), 0.0)
    k, n, units = np.array([20]), np.array([80]), np.array([10_000])
    rates = top_thresholds(k, n, units, nodes, 50)
    found = summarise(k, n, nodes, Wanted((), None, rates))["p_top"]
    assert found[0] == pytest.approx(50 / 10_000, rel=1e-8)
    density = stats.beta(nodes.alpha[0] + 20, nodes.beta[0] + 60).pdf
    assert integrate.quad(density, rates[0], 1)[0] == pytest.approx(50 / 10_000, rel=1e-6)
