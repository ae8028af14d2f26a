"""`pelton fit` from its input to its files, on good data and on every kind of bad."""

import errno
import os
from pathlib import Path

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pelton.engine import run as engine_run
from tests.cli.conftest import FIXED, SMALL

CATEGORIES = ("example:categories", "--successes", "clicks", "--trials", "impressions", "--unit", "category")
COLUMNS = ("--successes", "sales", "--trials", "visits", "--unit", "shop")
GOOD = "shop,visits,sales\nA,120,10\nB,80,9\nC,70,12\n"


def fit(run, text, *args, name="data.csv"):
    Path(name).write_text(text, encoding="utf-8")
    return run("fit", name, *COLUMNS, *args)


def test_categories_from_table_to_report(run):
    result = run(
        "fit",
        *CATEGORIES,
        "--budget",
        "48000000",
        "--threshold",
        "0.3",
        "--top",
        "5",
        *SMALL,
        "--out",
        "there",
    )
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    for word in ("25 units", "Sci-Fi", "P(top 5)", "P(above)", "Budget 48,000,000", "Converged", "there"):
        assert word in result.stdout
    units = pd.read_csv("there/units.csv", index_col="category")
    assert len(units) == 25
    assert units["mean"].idxmax() == "Sci-Fi"
    assert units["budget_pooled"].sum() == pytest.approx(48e6)
    tree = az.from_netcdf("there/posterior.nc")
    try:
        assert tree["posterior"].sizes == {"chain": 2, "draw": 1000, "unit": 25}
        assert tree["sample_stats"]["diverging"].dtype == bool
        assert tree["posterior"]["unit"].values[1] == "Drama"
        assert tree.attrs["converged"] == 1
        assert tree.attrs["sampler"] == "grid"
    finally:
        tree.close()
    assert sorted(path.name for path in Path("there").iterdir()) == [
        "budget.png", "intervals.png", "population.png", "posterior.nc", "predictive.png", "report.html",
        "shrinkage.png", "traces.png", "units.csv",
    ]  # fmt: skip
    page = Path("there/report.html").read_text(encoding="utf-8")
    assert "The draws converged" in page
    assert page.count("<img ") == 6


def test_stores_by_the_grid_into_the_default_folder(run):
    columns = ("--successes", "conversions", "--trials", "impressions", "--unit", "store")
    result = run("fit", "example:stores", *columns, "--prior", "gamma-shapes:0.5,0.5", "--sampler", "grid", *SMALL)
    assert result.exit_code == 0, result.output
    assert "pelton-out/stores" in result.stdout
    units = pd.read_csv("pelton-out/stores/units.csv")
    # The table's own names are kept: stores 0 to 39.
    assert units["store"].tolist() == list(range(40))
    assert units["mean"].between(units["q03"], units["q97"]).all()


def test_parquet_and_csv_give_the_same(run):
    frame = pd.DataFrame({"shop": ["007", "7", "8"], "visits": [100, 50, 60], "sales": [12, 3, 9]})
    frame.to_parquet("data.parquet")
    frame.to_csv("data.csv", index=False)
    for name in ("data.parquet", "data.csv"):
        assert run("fit", name, *COLUMNS, *FIXED, "--out", f"out-{name}").exit_code == 0
    tables = [pd.read_csv(f"out-{name}/units.csv", dtype={"shop": str}) for name in ("data.parquet", "data.csv")]
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["shop"].tolist() == ["007", "7", "8"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("A,120,10\nB,many,9\n", ("visits", "row 2", "'B'", "'many'")),
        ('A,120,10\nB,"1,200",9\n', ("visits", "row 2", "'B'", "'1,200'")),
        ("A,120,10\nB,80,9%\n", ("sales", "row 2", "'B'", "'9%'")),
        ("A,120,10\nB,80,1_0\n", ("sales", "row 2", "'B'", "'1_0'")),
        ("A,120,10\nB,80,NaN\n", ("sales", "row 2", "'B'", "nan")),
        ("A,120,10\nB,80,\n", ("sales", "row 2", "'B'", "missing")),
        ("A,120,10\nB,inf,9\n", ("visits", "row 2", "'B'", "inf")),
        ("A,120,10\nB,80,-9\n", ("sales", "row 2", "'B'", "-9", "negative")),
        ("A,120,10\nB,80,9.5\n", ("sales", "row 2", "'B'", "9.5", "whole number")),
        ("A,120,10\nB,80,81\n", ("sales", "row 2", "'B'", "81", "80")),
        ("A,120,10\nA,80,9\n", ("shop", "'A'", "rows 1 and 2")),
        ("A,120,10\n,80,9\n", ("shop", "row 2", "no name")),
        ("A,120,10\nB,80\n", ("line 3", "2 fields", "3")),
        ("", ("empty",)),
    ],
)
def test_bad_values_name_column_row_unit_and_value(refuses, rows, words):
    Path("data.csv").write_text("shop,visits,sales\n" + rows)
    said = refuses("fit", "data.csv", *COLUMNS)
    for word in words:
        assert word in said
    assert not Path("pelton-out").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--successes", "sale", "--trials", "visits"), ("column 'sale'", "'sales'")),
        ((*COLUMNS, "--groups", "regoin"), ("column 'regoin'", "Known: sales, shop, visits")),
        ((*COLUMNS, "--sampler", "numpyro-nut"), ("sampler 'numpyro-nut'", "'numpyro-nuts'")),
        ((*COLUMNS, "--prior", "gama-shapes"), ("prior 'gama-shapes'", "'gamma-shapes'")),
        ((*COLUMNS, "--prior", "gamma-shapes:a"), ("'gamma-shapes:a'",)),
        ((*COLUMNS, "--prior", "fixed-beta:-1,2"), ("alpha", "-1")),
        ((*COLUMNS, "--chains", "0"), ("chains", "at least 1", "0")),
        ((*COLUMNS, "--draws", "0"), ("draws", "at least 1", "0")),
        ((*COLUMNS, "--warmup", "-1"), ("warmup", "-1")),
        ((*COLUMNS, "--seed", "-1"), ("seed", "-1")),
        ((*COLUMNS, "--target-accept", "1"), ("target_accept", "1.0")),
        ((*COLUMNS, "--precision", "float16"), ("precision", "'float16'")),
        ((*COLUMNS, "--top", "0"), ("top", "0")),
        ((*COLUMNS, "--threshold", "5"), ("threshold", "5.0", "0.05")),
        ((*COLUMNS, "--budget", "-5"), ("budget", "-5.0")),
        ((*COLUMNS, "--budget", "nan"), ("budget", "nan")),
        ((*COLUMNS, "--covariate", "shop"), ("covariate 'shop'", "row 1", "'A'")),
    ],
)
def test_bad_settings_name_the_setting_and_what_would_do(refuses, args, words):
    Path("data.csv").write_text(GOOD)
    said = refuses("fit", "data.csv", *args)
    for word in words:
        assert word in said


def test_files_that_are_no_table(refuses, tmp_path):
    Path("data.csv").write_text(GOOD)
    Path("nothing.csv").write_text("")
    Path("comments.csv").write_text("# one\n# two\n")
    Path("latin.csv").write_bytes("shop,visits,sales\nKöln,120,10\n".encode("latin-1"))
    Path("wide.csv").write_text(GOOD, encoding="utf-16")
    Path("sheet.csv").write_bytes(b"PK\x03\x04rest")
    Path("torn.parquet").write_bytes(b"PAR1torn")
    Path("named.parquet").write_text(GOOD)
    for name, words in {
        "dat.csv": ("no file", "did you mean", "data.csv"),
        "nowhere/data.csv": ("no file", "'nowhere'"),
        str(tmp_path): ("folder",),
        "nothing.csv": ("empty",),
        "comments.csv": ("empty", "comments"),
        "latin.csv": ("UTF-8", "0xf6", "line 2"),
        "wide.csv": ("UTF-16",),
        "sheet.csv": ("spreadsheet",),
        "torn.parquet": ("Parquet",),
        "named.parquet": ("no Parquet",),
        "example:categoris": ("example 'categoris'", "'categories'"),
    }.items():
        said = refuses("fit", name, *COLUMNS)
        for word in words:
            assert word in said, name


def test_parquet_without_rows_or_with_impossible_names(refuses):
    pd.DataFrame({"shop": [], "visits": [], "sales": []}).to_parquet("data.parquet")
    assert "empty" in refuses("fit", "data.parquet", *COLUMNS)
    pd.DataFrame({"shop": ["A", "B\0"], "visits": [9, 9], "sales": [1, 1]}).to_parquet("data.parquet")
    assert "row 2" in refuses("fit", "data.parquet", *COLUMNS)


def test_output_is_refused_before_any_sampling(refuses, monkeypatch):
    def never(*args, **settings):
        raise AssertionError("sampled")

    monkeypatch.setattr(engine_run, "sample", never)
    Path("data.csv").write_text(GOOD)
    Path("file").write_text("mine")
    Path("taken/report.html").mkdir(parents=True)
    for out, words in {
        "file": ("'file'", "not a folder"),
        "file/below": ("'file/below'",),
        "/dev/null/x": ("'/dev/null/x'",),
        "/proc/pelton": ("'/proc/pelton'",),
        "taken": ("'taken'", "'report.html'"),
        "x" * 300: ("too long",),
    }.items():
        said = refuses("fit", "data.csv", *COLUMNS, "--out", out)
        for word in (*words, "choose another folder"):
            assert word in said, out
    assert Path("file").read_text() == "mine"


def test_a_full_disk_leaves_the_last_results_untouched(run, refuses, monkeypatch):
    assert fit(run, GOOD, *FIXED, "--out", "out").exit_code == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}

    def full(*args, **settings):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    said = refuses("fit", "data.csv", *COLUMNS, *FIXED, "--out", "out", "--seed", "1")
    assert "No space left" in said
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def test_units_without_trials_are_noted(run):
    result = fit(run, "shop,visits,sales\nA,120,10\nB,80,9\nD,0,0\n", *FIXED)
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "note: 1 of 3 units have no visits ('D'); their rates get the population's distribution"
    ]
    units = pd.read_csv("pelton-out/data/units.csv", index_col="shop")
    assert np.isnan(units.loc["D", "raw"])
    assert units.loc["D", "mean"] == pytest.approx(0.2)
    page = Path("pelton-out/data/report.html").read_text(encoding="utf-8")
    assert "no visits (&#39;D&#39;)" in page


@pytest.mark.parametrize("rows", ["A,120,10\n", "A,0,0\n", "A,10,0\nB,20,0\nC,9,0\n", "A,1,1\nB,2,2\nC,1,1\n"])
def test_small_and_extreme_tables_give_a_report(run, rows):
    result = fit(run, "shop,visits,sales\n" + rows, *FIXED)
    assert result.exit_code == 0, result.output
    if rows.count("\n") == 1:
        assert "one unit only" in result.stderr
    assert Path("pelton-out/data/report.html").stat().st_size > 10_000


def test_strict_tells_by_its_status(run):
    short = (*SMALL[:-1], "20")
    result = run("fit", *CATEGORIES, *short, "--out", "out")
    assert result.exit_code == 0
    assert "NOT CONVERGED" in result.stdout
    assert "\n  - " in result.stdout
    result = run("fit", *CATEGORIES, *short, "--out", "out", "--strict", "--quiet")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "NOT CONVERGED" in result.stderr
    assert "NOT CONVERGED" in Path("out/report.html").read_text(encoding="utf-8")


def test_quiet_says_nothing_when_all_is_well(run):
    result = fit(run, GOOD, *FIXED, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_groups_and_covariates(run, refuses):
    rng = np.random.default_rng(3)
    visits = rng.integers(50, 200, 24)
    frame = pd.DataFrame({"shop": [f"s{i}" for i in range(24)], "visits": visits, "region": ["n", "s"] * 12})
    frame["sales"] = rng.binomial(visits, 0.2)
    frame["size"] = rng.normal(size=24).round(3)
    frame.to_csv("data.csv", index=False)
    assert "segments" in refuses("fit", "data.csv", *COLUMNS, "--segments", "region", "--covariate", "size")
    result = run("fit", "data.csv", *COLUMNS, "--groups", "region", "--covariate", "size", *SMALL)
    assert result.exit_code == 0, result.output
    assert "24 units in 2 groups" in result.stdout
    assert "size by" in result.stdout


HOSTILE = [
    'Müller & Söhne, "Nord"',
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[bold red]brackets[/bold red]",
    "escape\x1b[31mred",
    "two\nlines",
    "喜剧",
    "قناة الأخبار",
    "मराठी",
    "😀 :smile:",
    "$x^2$ \\frac{1}{2}",
    "#hash",
    "007",
    "7",
    "=1+1",
    "{{ 7 * 7 }}",
    "long " * 60,
]


def test_any_name_survives_into_every_output(run):
    frame = pd.DataFrame({"shop": HOSTILE, "visits": range(50, 50 + len(HOSTILE)), "sales": range(len(HOSTILE))})
    frame.to_csv("data.csv", index=False)
    result = run("fit", "data.csv", *COLUMNS, *FIXED, "--top", str(len(HOSTILE)))
    assert result.exit_code == 0, result.output
    assert "rows that start with '#' were read as data, 1 of them" in result.stderr
    assert "\x1b" not in result.stdout
    assert "escape\\x1b[31mred" in result.stdout
    assert "[bold red]brackets[/bold red]" in result.stdout
    assert "😀 :smile:" in result.stdout
    units = pd.read_csv("pelton-out/data/units.csv", dtype={"shop": str}, keep_default_na=False)
    assert units["shop"].tolist() == HOSTILE
    with xr.open_datatree("pelton-out/data/posterior.nc", engine="h5netcdf") as tree:
        assert tree["posterior"]["unit"].values.tolist() == HOSTILE
    page = Path("pelton-out/data/report.html").read_text(encoding="utf-8")
    # The rows' data and the code of the tables; Plotly, its themes and the code of the charts; each chart's data.
    assert page.count("<script") == page.count("</script>") == 2 + 3 + page.count("<figure data-title=")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Müller &amp; Söhne, &#34;Nord&#34;" in page
    assert "喜剧" in page
    assert "قناة الأخبار" in page
    assert "49" not in [cell for line in page.splitlines() if "<bdi>" in line for cell in line.split("bdi>")[1:2]]
    assert "{{ 7 * 7 }}" in page
    assert "\x1b" not in page


def test_interrupt_ends_with_a_word(run, monkeypatch):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine_run, "sample", interrupted)
    result = fit(run, GOOD)
    assert result.exit_code == 130
    assert result.stderr.startswith("pelton: interrupted")
    assert not Path("pelton-out").exists()


def test_hold_out_draws_the_calibration(run):
    result = run("fit", *CATEGORIES, *SMALL, "--hold-out", "2", "--out", "there")
    assert result.exit_code == 0, result.output
    assert Path("there/calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "Held-out prediction" in Path("there/report.html").read_text(encoding="utf-8")
    refused = run("fit", *CATEGORIES, *SMALL, "--hold-out", "1", "--out", "elsewhere")
    assert refused.exit_code == 2
    assert "folds is between 2 and the 25 units" in refused.stderr


def test_a_run_that_stops_at_its_target_on_the_device_asked_for(run):
    settings = ("--sampler", "nuts", "--chains", "4", "--warmup", "500", "--draws", "6000", "--ess", "500")
    result = run("fit", *CATEGORIES, *settings, "--device", "cpu", "--out", "there")
    assert result.exit_code == 0, result.output
    with az.from_netcdf("there/posterior.nc") as tree:
        assert tree["posterior"].sizes["draw"] < 6000
        assert min(tree.attrs["least_ess_bulk"], tree.attrs["least_ess_tail"]) >= 500


@pytest.mark.parametrize(
    ("args", "message"), [(("--ess", "0"), "ess of a Target is above 0"), (("--device", "abacus"), "device is 'cpu'")]
)
def test_targets_and_devices_that_cannot_be(run, args, message):
    result = run("fit", *CATEGORIES, "--sampler", "nuts", *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
