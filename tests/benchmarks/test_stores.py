"""The stores benchmark: right columns, right verdicts, results that are kept whole."""

import dataclasses
import io
import json
import os

import numpy as np
import pytest
from rich.console import Console

from pelton.benchmarks import record, stores
from pelton.benchmarks.quadrature import Moments
from pelton.benchmarks.stores_report import COLUMNS, markdown, notes, table
from pelton.benchmarks.stores_results import CORRECTED, MANY_MOVES, PUBLISHED, Memory, Results, Row
from pelton.engine.errors import ArgumentError, DataError, OutputError, UnknownNameError
from pelton.models.simulate import simulate_stores


@pytest.fixture(scope="module")
def found() -> Results:
    """A whole run with few draws; no fresh process."""
    return stores.run(40, ["grid"], repeats=2, cold=False, draws=1000, sweeps=24_000)


def test_a_row_for_each_system(found):
    assert [row.system for row in found.rows] == ["pelton grid", CORRECTED, MANY_MOVES, PUBLISHED]
    assert found.stores == 40
    assert found.memory is None
    for row in found.rows:
        assert row.runs == 2
        assert row.ess > 0
        assert row.seconds > 0
        assert row.ess_per_second == pytest.approx(row.ess / row.seconds, rel=0.5)


def test_verdicts(found):
    ours, corrected, published = (found.row(name) for name in ("pelton grid", CORRECTED, PUBLISHED))
    assert ours.answer == "right"
    assert corrected.answer == "right"
    assert corrected.ratio == 1.0
    assert ours.ratio == pytest.approx(ours.ess_per_second / corrected.ess_per_second)
    assert published.answer == "WRONG"
    assert published.ratio is None
    assert published.z["alpha"] < -5


def test_the_truth_is_that_of_the_references(found, cases):
    reference = json.loads((cases / "references.json").read_text())["store_conversions"]
    assert found.truth.mean["log_kappa"] == pytest.approx(reference["log_kappa"]["mean"], abs=1e-9)


def test_tables_have_the_columns(found):
    shown = table(found)
    assert tuple(column.header for column in shown.columns) == COLUMNS[:-2]
    assert shown.row_count == 4
    timed = dataclasses.replace(
        found,
        rows=[
            dataclasses.replace(found.rows[0], cold_seconds=5.0, cached_seconds=2.5, cold_ess=3000.0),
            *found.rows[1:],
        ],
        memory=Memory("grid", 4000, 1_200_000_000, 9.0),
    )
    assert tuple(column.header for column in table(timed).columns) == COLUMNS
    narrow = Console(width=80, record=True, file=io.StringIO())
    narrow.print(table(timed, 80))
    text = narrow.export_text()
    assert "…" not in text
    assert "5.00" in text
    assert "WRONG" in text
    assert any("1.20 GB" in note for note in notes(timed))
    lines = markdown(timed).splitlines()
    assert lines[2].count("|") == lines[4].count("|") == len(COLUMNS) + 1


def test_results_survive_a_file(found, tmp_path):
    path = tmp_path / "new" / "stores.jsonl"
    record.append(path, found.as_record())
    record.append(path, found.as_record())
    assert [path.name] == os.listdir(path.parent)
    kept = [Results.of_record(line) for line in record.read(path)]
    assert kept == [found, found]


def test_a_failed_write_leaves_the_file(tmp_path, monkeypatch):
    path = tmp_path / "stores.jsonl"
    record.append(path, {"run": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        record.append(path, {"run": 2})
    assert record.read(path) == [{"run": 1}]
    assert os.listdir(tmp_path) == [path.name]


def test_few_draws_are_no_verdict():
    rng = np.random.default_rng(0)
    truth = Moments({"alpha": 0.0, "beta": 0.0}, {"alpha": 1.0, "beta": 1.0}, 0.0)

    def judged(size: int, shift: float) -> Row:
        run = stores._Run(rng.normal(shift, 1, (2, size)), rng.normal(0, 1, (2, size)), 1.0, {})
        return stores._row(stores._System("x", 1, lambda seed: run, ours=False, runs=[run]), truth)

    assert judged(2000, 0.0).answer == "right"
    assert judged(2000, 1.0).answer == "WRONG"
    assert judged(50, 0.0).answer == "few draws"


def test_counts_come_from_a_file(tmp_path):
    data = simulate_stores(12, seed=9)
    for name, write in (("a.csv", data.to_csv), ("a.parquet", data.to_parquet)):
        write(tmp_path / name, index=False)
        successes, trials, source = stores._counts(tmp_path / name)
        np.testing.assert_array_equal(successes, data["conversions"])
        np.testing.assert_array_equal(trials, data["impressions"])
        assert source == name
    data.rename(columns={"conversions": "sales"}).to_csv(tmp_path / "b.csv")
    with pytest.raises(UnknownNameError, match="unknown column 'conversions'"):
        stores._counts(tmp_path / "b.csv")
    with pytest.raises(DataError, match="cannot read"):
        stores._counts(tmp_path / "absent.csv")


def test_bad_settings_are_named():
    with pytest.raises(UnknownNameError, match="unknown sampler 'gridd'; did you mean 'grid'"):
        stores.run(40, ["gridd"])
    with pytest.raises(ArgumentError, match="repeats"):
        stores.run(40, ["grid"], repeats=0)
    with pytest.raises(ArgumentError, match="at least one sampler"):
        stores.run(40, [])
    with pytest.raises(ArgumentError, match="stores is a whole number"):
        stores.run(0, ["grid"])


def test_a_fresh_process_reports_its_time_and_memory(tmp_path):
    data = simulate_stores(40, seed=0)
    counts = tmp_path / "counts.npy"
    np.save(counts, data[["conversions", "impressions"]].to_numpy().T)
    found = stores._fresh(counts, "grid", seed=0, cache=tmp_path / "cache", warmup=0, summaries=True)
    assert found["ess"] >= stores.COLD_ESS
    assert 0.1 < found["seconds"] < 300
    assert 50e6 < found["peak_bytes"] < 2e9
    # Programs were kept where they were told to be.
    assert any((tmp_path / "cache").iterdir())


def test_run_and_print(capsys, monkeypatch, tmp_path, found):
    monkeypatch.setattr(stores, "run", lambda *args, **settings: found)
    path = tmp_path / "stores.jsonl"
    assert stores.run_and_print(40, ["grid"], 2, path, cold=False) == 0
    printed = capsys.readouterr().out
    assert "pelton grid" in printed
    assert "Truth by quadrature" in printed
    assert len(record.read(path)) == 1
    wrong = dataclasses.replace(found, rows=[dataclasses.replace(found.rows[0], answer="WRONG"), *found.rows[1:]])
    monkeypatch.setattr(stores, "run", lambda *args, **settings: wrong)
    assert stores.run_and_print(40, ["grid"], 2, None, cold=False) == 1
