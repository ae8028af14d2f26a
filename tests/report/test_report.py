"""The report's page and files: whole, self-contained, loud where it must be."""

import base64
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import pelton
from pelton.engine.errors import OutputError
from pelton.models.decisions import unit_table
from pelton.report import check_output, write_report
from pelton.report.findings import find
from pelton.report.write import aside


class Links(HTMLParser):
    """Every address that a page would load, and its images' alternative texts."""

    def __init__(self):
        super().__init__()
        self.addresses, self.alternatives, self.tags, self.kinds = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        self.addresses += [found[name] for name in ("src", "href", "data", "srcset") if name in found]
        if tag == "script":
            self.kinds.append(found.get("type", ""))
        if tag == "img":
            self.alternatives.append(found["alt"])


def read(page):
    links = Links()
    links.feed(page)
    return links


@pytest.fixture(scope="module")
def written(fitted, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    notes = ["2 units <b>have</b> no trials"]
    files = write_report(fitted, out, top=5, threshold=0.3, budget=1e6, notes=notes, source="categories.csv")
    return out, files


def test_all_files_are_written_and_nothing_else(written):
    out, files = written
    assert {path.name for path in files} == {path.name for path in out.iterdir()}
    assert [path.name for path in files[:3]] == ["posterior.nc", "units.csv", "report.html"]
    umask = os.umask(0)
    os.umask(umask)
    assert all(path.stat().st_mode & 0o777 == 0o666 & ~umask for path in files)


def test_the_page_is_self_contained(written):
    out, _ = written
    page = (out / "report.html").read_text(encoding="utf-8")
    links = read(page)
    # The page's own script is part of it: nothing is loaded.
    pictures = [address for address in links.addresses if not address.startswith("#")]
    assert len(pictures) == 6
    assert all(address.startswith("data:image/svg+xml;base64,") for address in pictures)
    assert set(links.kinds) == {"", "application/json", "application/gzip"}
    assert not {"link", "iframe", "object"} & set(links.tags)
    assert "default-src 'none'" in page
    assert "url(" not in re.sub(r"data:[^\"]*", "", page)
    for address in pictures:
        svg = base64.b64decode(address.partition(",")[2]).decode()
        # Names of XML schemas are no addresses to load.
        loads = re.findall(r'(?:href|src)="([^"#][^"]*)"', svg)
        assert all(load.startswith("data:image/png;base64,") for load in loads)
        assert "@import" not in svg
    assert all(len(text) > 20 for text in links.alternatives)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_the_page_says_what_was_found(written, fitted):
    out, _ = written
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Rates per category: categories.csv" in page
    assert "The draws converged" in page
    assert "NOT CONVERGED" not in page
    assert "2 units &lt;b&gt;have&lt;/b&gt; no trials" in page
    assert page.count("<bdi>") == 25 + 6
    for word in (
        "Comedy",
        "93,455",
        "P(top 5)",
        "log_kappa",
        fitted.attrs["prior"],
        "jax",
        "grid",
        "seed",
    ):
        assert word in page


def test_units_and_posterior_come_back(written, fitted):
    out, _ = written
    units = pd.read_csv(out / "units.csv", index_col="category")
    expected = unit_table(fitted, 5, 0.3, 1e6)
    pd.testing.assert_frame_equal(units, expected, check_exact=True)
    with xr.open_datatree(out / "posterior.nc", engine="h5netcdf") as tree:
        xr.testing.assert_identical(
            tree["posterior"].to_dataset().drop_attrs(), fitted["posterior"].to_dataset().drop_attrs()
        )
        assert {name: type(value)(tree.attrs[name]) for name, value in fitted.attrs.items()} == fitted.attrs


def test_an_unconverged_tree_gets_a_banner(fitted, tmp_path):
    tree = fitted.copy(deep=True)
    tree.attrs.update(
        converged=0, status="NOT CONVERGED: R-hat is 1.3 <i>: run longer | 7 divergent transitions: raise it"
    )
    write_report(tree, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "NOT CONVERGED: do not use these figures yet." in page
    assert "<li>R-hat is 1.3 &lt;i&gt;: run longer</li>" in page
    assert "<li>7 divergent transitions: raise it</li>" in page
    assert "The draws converged" not in page


def test_the_page_holds_many_units(simulated, tmp_path):
    write_report(simulated(300), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    rows = re.search(r'<script type="application/json" id="units-rows">(.*?)</script>', page, re.DOTALL)
    assert rows is not None
    assert len(json.loads(rows[1])) == 300
    assert len(pd.read_csv(tmp_path / "units.csv")) == 300


def test_findings_in_words(fitted):
    units = unit_table(fitted, 5, 0.3, 1e6)
    findings = find(fitted, units, 5, 0.3, 1e6)
    text = " ".join(findings.sentences)
    assert findings.converged
    mean = float(fitted["posterior"]["mu"].mean())
    assert f"is {100 * mean:.1f}%" in text
    above = int((units["p_above"] >= 0.9).sum())
    assert f"Threshold 30%: {above} units above it" in text
    assert "Sci-Fi 47.0%" in text
    kappa = float(np.median(fitted["posterior"]["kappa"]))
    assert f"weighs like {kappa:.0f} trials" in text


def test_a_given_population_is_said_to_be_given():
    tree = pelton.sample(pelton.PartialPooling([3, 5], [10, 12], prior=pelton.FixedBeta(2, 8)), chains=1, draws=50)
    assert "given and not learnt" in find(tree, unit_table(tree), 10).sentences[0]


def test_a_budget_that_does_not_move_has_no_picture(tmp_path):
    tree = pelton.sample(pelton.PartialPooling([3, 30], [10, 100], prior=pelton.FixedBeta(3, 7)), chains=1, draws=200)
    units = unit_table(tree, budget=10.0)
    units["budget_change"] = 0.0
    assert "budget.png" not in [path.name for path in write_report(tree, tmp_path, budget=10.0, units=units)]
    assert "nothing moves between units" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_files_are_replaced_at_the_end_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").write_text("old")

    def fails():
        with aside(tmp_path) as folder:
            (folder / "a").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["old", "old"]
    with aside(tmp_path) as folder:
        (folder / "a").write_text("new")
        assert (tmp_path / "a").read_text() == "old"
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["new", "old"]


def test_check_output_leaves_nothing_behind(tmp_path):
    assert check_output(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    for bad in (tmp_path / "file", tmp_path / "file" / "below", Path("/dev/null/x"), "nul\0"):
        with pytest.raises(OutputError, match="cannot write to"):
            check_output(bad)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError):
        check_output(tmp_path / "link")
