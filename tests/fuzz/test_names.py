"""Hostile names of columns, units, geos, channels and files do nothing in a report, on a terminal or on the disk."""

import base64
import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import pelton
from pelton.cli.main import app
from pelton.report import write_report
from pelton.report.charts import library
from tests.fuzz.columns import HOSTILE
from tests.fuzz.tally import examples

# What obeys no reader: control characters, and marks that turn the direction of writing.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "section", "nav", "a", "h1", "h2", "h3", "p"),
    *("div", "strong", "ul", "li", "figure", "img", "figcaption", "details", "summary", "table", "caption", "thead"),
    *("tbody", "tr", "th", "td", "bdi", "dl", "dt", "dd", "script"),
}
ATTRIBUTES = {
    *("lang", "charset", "name", "content", "class", "role", "src", "alt", "href", "scope", "id", "aria-label"),
    *("tabindex", "type", "data-name", "data-rows", "data-total", "data-title"),
}
# The code that a browser runs, and what tells it to fetch nothing.
CODE = [
    resources.files("pelton.report").joinpath(name).read_text(encoding="utf-8").strip()
    for name in ("tables.js", "charts.js")
]
POLICY = ("Content-Security-Policy", "default-src 'none'; ")


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text):
        super().__init__()
        self.text, self.styles, self.svgs, self.scripts = "", 0, [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        self.styles += tag == "style"
        if tag == "script":
            self.scripts.append([dict(attrs), ""])
        if tag == "meta" and "http-equiv" in dict(attrs):
            policy, rules = dict(attrs).pop("http-equiv"), dict(attrs)["content"]
            assert (policy, rules[: len(POLICY[1])]) == POLICY
            attrs = []
        for name, value in attrs:
            assert name in ATTRIBUTES, name
            if name == "src":
                start = "data:image/svg+xml;base64,"
                assert tag == "img"
                assert value.startswith(start)
                self.svgs.append(base64.b64decode(value.removeprefix(start)))
            if name == "href":
                assert re.fullmatch(r"#[a-z_-]+", value), value

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1][1] += data
        else:
            self.text += data


def check_page(file):
    """The page has our own markup alone, and no character that a reader obeys; gives its text."""
    text = file.read_text(encoding="utf-8")
    assert not CONTROL.search(text), CONTROL.search(text)
    page = Page(text)
    assert page.styles == 1
    assert page.svgs
    # Names stand in a script as data alone: those that a browser runs are the package's own.
    assert [code.strip() for attributes, code in page.scripts if not attributes] == CODE
    charts = 0
    for attributes, data in page.scripts:
        if not attributes:
            continue
        if attributes.get("id") == "plotly":
            assert attributes == {"type": "application/gzip", "id": "plotly"}
            assert data == library()
            continue
        assert attributes.pop("type") == "application/json"
        assert "<" not in data
        if attributes == {"id": "units-rows"}:
            page.text += "\n".join(str(cell) for row in json.loads(data) for cell in row)
        elif not attributes:
            charts += 1
            for text in texts(json.loads(data)):
                # Plotly reads some tags in its labels; of a name none is left.
                assert "<" not in text.replace("<br>", ""), text
        else:
            assert attributes == {"id": "themes"}
    assert charts
    for picture in page.svgs:
        root = ElementTree.fromstring(picture)
        for element in root.iter():
            assert element.tag.rpartition("}")[2].lower() not in ("script", "foreignobject", "iframe", "image")
            for name, value in element.attrib.items():
                local = name.rpartition("}")[2].lower()
                assert not local.startswith("on"), name
                assert local != "href" or value.startswith("#"), value
        assert not CONTROL.search("".join(root.itertext()))
    return page.text


def texts(value):
    """All strings in what JSON gave."""
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from texts(one)
        case dict():
            for one in value.values():
                yield from texts(one)


def everything(folder):
    """All files below a folder."""
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def run(*args):
    """Runs a command, which must go through and print nothing that a terminal obeys."""
    result = CliRunner().invoke(app, list(map(str, args)))
    assert result.exit_code == 0, (result.output, result.exception)
    assert not CONTROL.search(result.output), CONTROL.search(result.output)
    assert len(result.output) < 60_000
    return result


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder within another, where what escapes is seen."""
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    monkeypatch.setenv("COLUMNS", "140")
    return tmp_path


def test_hostile_units_and_columns(tally, here):
    """Hostile names of units and columns: command line, report, tables."""
    columns = ["=cmd|' /C calc'!A0 <script>alert(1)</script>", "visits \x1b]0;x\x07 {{7*7}}", "../../$x^2$\nunit"]
    frame = pd.DataFrame({columns[0]: range(len(HOSTILE)), columns[1]: 90, columns[2]: HOSTILE})
    frame.to_csv("data.csv", index=False)
    asked = ("--successes", columns[0], "--trials", columns[1], "--unit", columns[2].strip())
    run("fit", "data.csv", *asked, "--prior", "fixed-beta:2,8", "--top", "30", "--budget", "1000", "--threshold", "0.1")
    tally.fitted += len(HOSTILE)
    out = Path("pelton-out/data")
    text = check_page(out / "report.html")
    assert "<script>alert(1)</script>" in text
    assert "{{7*7}}" in text
    units = pd.read_csv(out / "units.csv", keep_default_na=False)
    assert units.iloc[:, 0].tolist() == HOSTILE
    with xr.open_datatree(out / "posterior.nc", engine="h5netcdf") as tree:
        assert tree["posterior"]["unit"].values.tolist() == HOSTILE
    assert all(name == "inner/data.csv" or name.startswith("inner/pelton-out/data/") for name in everything(here))


@pytest.mark.parametrize("name", ["...csv", "<b>\n\x1b[31m$x^2$.csv", "-x.csv"])
def test_hostile_file_names(tally, here, name):
    """Hostile names of data files: results stay below pelton-out."""
    pd.DataFrame({"k": [1, 2], "n": [9, 8]}).to_csv(name, index=False)
    run("fit", "--successes", "k", "--trials", "n", "--prior", "fixed-beta:2,8", "--", name)
    tally.fitted += 1
    made = everything(here) - {f"inner/{name}"}
    assert made
    assert all(re.match(r"inner/pelton-out/[^/]+/", file) for file in made), made
    check_page(next(Path("pelton-out").rglob("report.html")))


@examples(4)
@given(
    units=st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20)), min_size=2, max_size=6, unique=True),
    unit_name=st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=20)),
)
def test_any_names_are_reported(tally, tmp_path_factory, units, unit_name):
    """Random names of units and columns given to `write_report`."""
    folder = tmp_path_factory.mktemp("report")
    frame = pd.DataFrame({"k": 3, "n": 9, unit_name: pd.Series(units, dtype=object)})

    def written():
        asked = {"successes": "k", "trials": "n", "unit": unit_name, "prior": pelton.FixedBeta(2, 8)}
        model = pelton.PartialPooling.from_frame(frame, **asked)
        write_report(pelton.sample(model, chains=1, draws=50, progress=False), folder / "out", source=unit_name)
        return True

    if tally.attempt(written) is not None:
        check_page(folder / "out" / "report.html")
        assert all(name.startswith("out/") for name in everything(folder))


@pytest.mark.long
def test_hostile_geos_and_channels(tally, here):
    """Hostile names of geos, channels and columns of a media mix: command line, report, tables."""
    weeks, source = 12, np.random.default_rng(0)
    geos = [HOSTILE[at] for at in (1, 5, 8, -1)]
    channels = [HOSTILE[at] for at in (0, 2)]
    columns = {"week": "week \x1b[31m", "geo": "geo </style>", "target": "sales <img src=x onerror=alert(1)> $x^2$"}
    parts = []
    for geo in geos:
        part = pd.DataFrame({columns["geo"]: geo, columns["week"]: pd.date_range("2024", periods=weeks, freq="7D")})
        part[channels] = source.gamma(1.0, 100.0, (weeks, len(channels)))
        parts.append(part.assign(**{columns["target"]: source.normal(500, 40, weeks)}))
    pd.concat(parts).to_csv("data.csv", index=False)
    names = {"time": columns["week"], "geo": columns["geo"], "target": columns["target"]}
    config = ["[data]", *(f"{key} = {json.dumps(name)}" for key, name in names.items())]
    config += [f"[channels.{json.dumps(name)}]\nl_max = 2" for name in channels]
    config += ['[model]\npooling = "pooled"', "[sampling]\nchains = 1\nwarmup = 10\ndraws = 20\nmax_tree_depth = 3"]
    Path("mix.toml").write_text("\n".join(config), encoding="utf-8")
    run("fit", "data.csv", "--model", "media-mix", "--config", "mix.toml", "--out", "out")
    tally.fitted += len(geos) + len(channels)
    text = check_page(Path("out/report.html"))
    assert "<script>alert(1)</script>" in text
    table = pd.read_csv("out/channels.csv", keep_default_na=False)
    assert set(channels) <= set(table["channel"])
    assert set(geos) <= set(table["geo"])
    assert set(pd.read_csv("out/fit.csv", keep_default_na=False)["geo"]) == set(geos)
    kept = ("inner/out/", "inner/data.csv", "inner/mix.toml")
    assert all(name.startswith(kept) for name in everything(here))
