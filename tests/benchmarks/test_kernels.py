"""The kernels benchmark: its exact gradients, its gate before time, peers in processes of their own, and its page."""

import dataclasses
import json
import shutil
import sys

import jax
import numpy as np
import pytest

from pelton.benchmarks import environments, kernel_cases, kernel_tables, kernels, record
from pelton.benchmarks.kernel_cases import OURS, Way, cases, chosen
from pelton.engine.errors import ArgumentError, UnknownNameError

SHAPE, UNITS = (3, 30, 2), 300
NAMES = list(cases(SHAPE, UNITS))


@pytest.fixture(autouse=True)
def small_copies(monkeypatch):
    monkeypatch.setattr(kernels, "FAR_BYTES", 2**20)


def case_of(name):
    (case,) = chosen([name], shape=SHAPE, units=UNITS)
    return case


@pytest.mark.parametrize("name", NAMES)
def test_every_way_is_right_and_timed(name):
    line = kernels.measure(case_of(name), rounds=1)
    assert line["ways"][0]["way"] == OURS
    for row in line["ways"]:
        assert row["error"] <= kernels.LARGEST_ERROR
        assert row["seconds"][0] > 0
        assert row["share"] > 0
        assert row["least_bytes"] > 0
        assert (row["xla_bytes"] is None) == row["way"].startswith("SciPy")
    assert line["copy_bytes_per_second"] > 0
    json.dumps(line, allow_nan=False)


@pytest.mark.parametrize("name", ["weibull_pdf", "hill", "media"])
def test_the_exact_gradient_is_the_slope_of_the_exact_loss(name):
    case = case_of(name)
    _, *gradient = case.exact()
    for at, parameter in enumerate(case.wrt):
        direction = np.random.default_rng(at).normal(size=case.arrays[parameter].shape)

        def loss(step, parameter=parameter, direction=direction):
            moved = {name: array.astype(np.float64) for name, array in case.arrays.items()}
            moved[parameter] += step * direction
            # The arrays are read when the loss is asked for.
            return kernel_cases._exact_panel(moved, (), responding(name))[0]

        slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
        assert slope == pytest.approx((gradient[at] * direction).sum(), rel=1e-6)


def responding(name):
    names = {"weibull_pdf": ("weibull_pdf", None), "hill": (None, "hill"), "media": ("geometric", "hill")}[name]

    def respond(values):
        return kernel_cases._response(np, kernel_cases._slid, names, kernel_cases.WINDOW, values)

    return respond


@pytest.mark.parametrize("name", ["rates", "rates-units"])
def test_the_exact_likelihood_is_scipys(name):
    case = case_of(name)
    by_scipy = case.ways["SciPy's betaln and psi"].plain(case.arrays)
    assert kernels.error_of(by_scipy, case.exact()) < 1e-11


def test_a_wrong_way_gets_no_time():
    case = case_of("tanh")
    right = case.ways["plain formula"]
    wrong = Way(right.reads, lambda parameters, data: 1.001 * right.loss(parameters, data))
    line = kernels.measure(dataclasses.replace(case, ways={**case.ways, "wrong": wrong}), rounds=1)
    row = line["ways"][-1]
    assert (row["seconds"], row["share"]) == (None, None)
    assert row["error"] == pytest.approx(1e-3, rel=0.01)
    assert "off float64 by 1.0e-03" in row["why"]


def test_least_bytes_count_each_array_once():
    case = case_of("hill")
    panel, cell = 4 * np.prod(SHAPE), 4 * SHAPE[0] * SHAPE[2]
    # Spend, target and two parameters read; the loss and three gradients written.
    assert case.least_bytes(OURS) == 2 * panel + 2 * cell + 4 + panel + 2 * cell


PEER = """
import numpy as np

PACKAGES = ["numpy"]
WAYS = {"plain": "cpu", "elsewhere": "gpu"}
print("noise on the output")


def build(way, options, arrays):
    if options["saturation"] != "tanh":
        raise LookupError("no " + str(options["saturation"]))
    x, scale = (arrays[name].astype(np.float64) for name in ("spend", "scale"))

    def call():
        ratio = x / scale[:, None]
        error = np.tanh(ratio) - arrays["target"]
        slope = error / np.cosh(ratio) ** 2 / scale[:, None]
        return 0.5 * (error**2).sum(), slope, -(slope * ratio).sum(1)

    return call
"""


@pytest.fixture
def peer(tmp_path, monkeypatch):
    rivals = tmp_path / "rivals"
    (rivals / "fake").mkdir(parents=True)
    for file in ("serve.py", "launch.py"):
        shutil.copy(environments.RIVALS / file, rivals)
    (rivals / "fake" / "kernels.py").write_text(PEER)
    monkeypatch.setattr(environments, "RIVALS", rivals)
    monkeypatch.setattr(environments, "interpreter", lambda name: sys.executable)
    with kernels.Peer("fake", tmp_path, "cpu") as process:
        yield process


def test_a_peer_takes_its_turns(peer):
    about = peer.about()
    assert about["versions"]["numpy"] == np.__version__
    rows = kernels.measure(case_of("tanh"), rounds=2, device=jax.devices("cpu")[0], peers=[(peer, about)])["ways"]
    plain, elsewhere = rows[-2:]
    assert plain["way"] == "fake/plain"
    assert plain["error"] < 1e-6
    assert plain["seconds"][0] > 0
    assert elsewhere["why"] == "runs on gpu alone here"
    rows = kernels.measure(case_of("root"), rounds=1, peers=[(peer, about)])["ways"]
    assert rows[-2]["why"] == "LookupError: no root"
    assert kernel_tables._verdict(rows[-2]) == "none"


def test_a_peer_that_ends_says_why(peer):
    (peer.folder / "rivals" / "fake" / "kernels.py").write_text("raise ValueError('out of order')")
    with kernels.Peer("fake", peer.folder, "cpu") as broken, pytest.raises(RuntimeError, match="out of order"):
        broken.about()


def test_runs_are_stored_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PELTON_RIVALS", str(tmp_path))
    store, page = tmp_path / "a.jsonl", tmp_path / "page.md"
    found = kernels.run(["root", "rates"], rounds=1, peers=["meridian"], shape=SHAPE, units=UNITS, store=store)
    assert record.read(store) == json.loads(json.dumps(found))
    out = capsys.readouterr().out
    assert "root, pelton: " in out
    assert "meridian: not installed" in out
    page.write_text("before\n<!-- benchmarks:begin -->\n<!-- benchmarks:end -->\n")
    kernel_tables.write_page(store, page)
    text = page.read_text()
    assert "| root saturation |" in text
    assert "meridian absent: not installed" in text
    assert "## On a GPU\n\nNot measured." in text
    with pytest.raises(UnknownNameError, match="unknown kernel 'rots'"):
        kernels.run(["rots"], peers=[], store=store)
    with pytest.raises(ArgumentError, match="rounds"):
        kernels.measure(case_of("root"), rounds=0)
    with pytest.raises(ArgumentError, match="no device 'tpu'"):
        kernels.run(["root"], device="tpu", peers=[], store=store)


def test_a_way_quicker_than_ours_stands_in_bold():
    row = {"way": "plain formula", "over_ours": [0.5, 0.4, 0.6], "error": 0.0, "why": None}
    assert kernel_tables._ratio(row) == "**0.5**"
    assert kernel_tables._ratio(row | {"over_ours": None, "why": "off", "error": 1.0}) == "off"


def test_the_page_shows_what_is_stored():
    text = kernel_tables.PAGE.read_text(encoding="utf-8")
    wanted = kernel_tables.between(text, kernel_tables.content(record.stored(kernels.STORE)), kernel_tables.PAGE)
    assert text == wanted, "python -m pelton.benchmarks.kernels --pages-only"
