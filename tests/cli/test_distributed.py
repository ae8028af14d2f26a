"""`pelton fit --stream` and `--distributed`: one process and several write the same, and all end when one does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import pelton
from tests import pages

COLUMNS = ("--successes", "conversions", "--trials", "impressions", "--unit", "store")


@pytest.fixture
def stores(tmp_path):
    """Two files of several row groups, and a folder for results beside them."""
    folder = tmp_path / "stores"
    folder.mkdir()
    for number in range(2):
        table = pelton.simulate_stores(600, seed=number)
        table["store"] = [f"{number}-{row}" for row in range(len(table))]
        table.to_parquet(folder / f"{number}.parquet", row_group_size=100)
    return folder


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(commands):
    """A process of Python for each list of arguments."""
    manner = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "160"}
    # Which JAX has set for this process.
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return [subprocess.Popen([sys.executable, *command], env=environment, **manner) for command in commands]


def begin(stores, out, count, *more):
    """The processes of a distributed fit."""
    command = ["-m", "pelton.cli.main", "fit", str(stores), "--distributed", *COLUMNS]
    command += ["--coordinator", free_address(), "--processes", str(count), "--out", str(out), *map(str, more)]
    return start([[*command, "--process", str(n)] for n in range(count)])


def ends(processes):
    """Status, output and errors of each."""
    return [(process.returncode, *texts) for process in processes for texts in [process.communicate(timeout=200)]]


def child_of(process):
    """The process that does the work."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(found[0])


def wait_for(condition, seconds=90):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_two_processes_write_what_one_writes(run, stores, tmp_path):
    alone = run("fit", stores, "--stream", *COLUMNS, "--threshold", "0.3", "--out", "alone")
    assert alone.exit_code == 0, alone.output
    first, second = ends(begin(stores, tmp_path / "both", 2, "--threshold", "0.3"))
    assert (first[0], second[0]) == (0, 0), (first[2], second[2])
    assert second[1:] == ("", "")
    shown, expected = ([line.strip() for line in text.splitlines() if "%" in line] for text in (first[1], alone.output))
    assert shown == expected
    assert len(shown) > 10
    parts = [pd.read_parquet(file) for file in sorted((tmp_path / "both" / "units").iterdir())]
    assert [len(part) for part in parts] == [600, 600]
    units = pd.read_parquet(tmp_path / "alone" / "units.parquet")
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), units, rtol=1e-9)
    trees = [xr.open_datatree(tmp_path / name / "posterior.nc", engine="h5netcdf") for name in ("alone", "both")]
    for name in trees[0]["posterior"].data_vars:
        assert np.array_equal(*[tree["posterior"][name] for tree in trees])
    for tree in trees:
        tree.close()


@pytest.mark.long
def test_what_the_page_tells_two_hosts(stores, tmp_path, monkeypatch):
    """Its commands and its Python, each on two processes that meet here."""
    monkeypatch.chdir(tmp_path)
    for file in stores.iterdir():
        table = pd.read_parquet(file).rename(columns={"conversions": "sales", "impressions": "visits"})
        table.to_parquet(file, row_group_size=100)
    commands, python = pages.blocks_for(__file__, "large-data.md")

    def here(text):
        assert text.count("10.0.0.1:8476") >= 1
        return text.replace("10.0.0.1:8476", address)

    address = free_address()
    lines = pages.commands(here(commands))
    assert [line[0] for line in lines] == ["fit", "fit"]
    found = ends(start([["-m", "pelton.cli.main", *line] for line in lines]))
    assert [status for status, *_ in found] == [0, 0], found
    assert sum(len(pd.read_parquet(part)) for part in (tmp_path / "rates" / "units").iterdir()) == 1200
    address = free_address()
    codes = [here(python).replace("index=0", f"index={n}") for n in range(2)]
    assert codes[0] != codes[1]
    found = ends(start([["-c", f"import pelton\n{code}\nprint(len(model.source))"] for code in codes]))
    assert [(status, text.strip()) for status, text, _ in found] == [(0, "1200")] * 2, found


def test_a_bad_row_of_one_share_ends_all(stores, tmp_path):
    table = pd.read_parquet(stores / "1.parquet")
    table.loc[500, "conversions"] = -4
    table.to_parquet(stores / "1.parquet", row_group_size=100)
    first, second = ends(begin(stores, tmp_path / "out", 2))
    assert (first[0], second[0]) == (2, 2)
    said = "1.parquet': conversions: row 501 (unit '1-500') is -4: it is negative; counts are 0 or more"
    assert second[2].startswith("pelton: ")
    assert said in second[2]
    assert "process 1 of 2 stopped: " in first[2]
    assert said in first[2]
    assert len(first[2].splitlines()) == len(second[2].splitlines()) == 1
    assert not (tmp_path / "out").exists()


LONG = ("--sampler", "nuts", "--draws", "40000")


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_ends_all_and_the_run_goes_on(stores, tmp_path, killed):
    """The first process holds what they talk through; that another is gone it notices after a time."""
    out = tmp_path / "out"
    processes = begin(stores, out, 2, *LONG)
    wait_for((out / "run.zarr" / "zarr.json").exists)
    time.sleep(1)
    os.kill(child_of(processes[killed]), signal.SIGKILL)
    found = ends(processes)
    assert [status for status, *_ in found] == [2, 2]
    last = [errors.splitlines()[-1] for *_, errors in found]
    assert all(line.startswith("pelton: ") and "--resume" in line for line in last)
    assert "ended by SIGKILL: it was killed" in last[killed]
    other = "process 1 of 2 is gone" if killed else "process 0, which all others talk through, is gone"
    assert other in last[1 - killed]
    assert sorted(file.name for file in out.iterdir()) == ["run.zarr"]
    draws = pelton.load(out / "run.zarr").sizes.get("draw", 0)
    assert draws < 40_000
    more = ends(begin(stores, out, 2, "--resume", "--quiet"))
    assert [status for status, *_ in more] == [0, 0], more
    assert pelton.load(out / "run.zarr")["posterior"].sizes["draw"] == 40_000


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--processes", "2"), "say --distributed too"),
        (("--stream", "--groups", "region"), "--groups needs the units in memory"),
        (("--stream", "--budget", "5", "--hold-out", "2"), "--budget and --hold-out need the units in memory"),
        (("--stream", "--model", "media-mix"), "--stream and --distributed belong to rates"),
        (("--stream", "--top", "0"), "top is a whole number of at least 1"),
    ],
)
def test_what_cannot_be(refuses, stores, more, said):
    assert said in refuses("fit", stores, *COLUMNS, *more)


def test_stream_needs_columns_and_files(refuses, tmp_path):
    assert "rates need --successes COL and --trials COL" in refuses("fit", tmp_path, "--stream")
    assert "there is no Parquet file at" in refuses("fit", tmp_path / "none", "--stream", *COLUMNS)


def test_stream_as_json_and_quiet(run, stores):
    found = json.loads(run("fit", stores / "0.parquet", "--stream", *COLUMNS, "--top", "3", "--json").stdout)
    assert found["converged"] is True
    assert [len(found["units"]), found["files"][1].rpartition("/")[2]] == [3, "units.parquet"]
    assert run("fit", stores / "0.parquet", "--stream", *COLUMNS, "--quiet").output == ""
