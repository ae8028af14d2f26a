"""Runs on disk: what readers see, and what is left after kills, full disks, damage and the wrong hands."""

import contextlib
import errno
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

import pelton
from pelton.engine import chains, journal, lines, place, stepping
from pelton.engine.errors import ArgumentError, DeviceError, OutputError, PeltonWarning, ResourceError, StoreError
from pelton.engine.lines import Line
from pelton.engine.results import versions
from pelton.engine.store import Store, block_draws

Y = np.array([0.3, 0.1, -0.4, 1.2])
SETTINGS = {"sampler": "nuts", "chains": 3, "warmup": 120, "draws": 150, "seed": 3}
QUIET = pytest.mark.filterwarnings("ignore::pelton.engine.errors.ConvergenceWarning")


def normal(y, scale=1.0):
    mean = numpyro.sample("mean", dist.Normal(0.0, scale))
    effects = numpyro.sample("effects", dist.Normal(mean, 1.0).expand([y.shape[0]]).to_event(1))
    numpyro.deterministic("total", effects.sum())
    numpyro.sample("y", dist.Normal(effects, 0.5), obs=y)


def target(y=Y, scale=1.0):
    return pelton.from_numpyro(normal, y, scale)


def assert_same_draws(one, other):
    """Every group's every number, to the bit."""
    assert set(one.children) == set(other.children)
    for name in one.children:
        first, second = one[name].to_dataset(), other[name].to_dataset()
        assert set(first.variables) == set(second.variables)
        for variable in first.variables:
            a, b = np.asarray(first[variable]), np.asarray(second[variable])
            assert a.dtype == b.dtype, variable
            assert first[variable].dims == second[variable].dims
            assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), (name, variable)


@pytest.fixture
def busy(monkeypatch):
    """Calls and tiles are short, and a checkpoint is written at every look, so that little happens between two."""
    monkeypatch.setattr(lines, "CHUNK_SECONDS", 1e-3)
    monkeypatch.setattr(chains, "CHUNK_DRAWS", 20)
    monkeypatch.setattr(chains, "together_on", lambda device, numbers: 9)
    monkeypatch.setattr(stepping, "TILE_PASSES", 5)
    monkeypatch.setattr(journal, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(journal, "COST_IN", 0.0)
    monkeypatch.setattr(chains, "LOOK_SECONDS", 1e-3)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that a short run fills several times."""
    monkeypatch.setattr(journal, "block_draws", lambda bytes_: 40)


KINDS = {
    "threads": {},
    "vectorized": {"chain_method": "vectorized"},
    "tiles": {"chain_method": "vectorized", "chains": 11},
    "warm-up kept": {"keep_warmup": True},
    "single": {"precision": "float32"},
    "low rank": {"metric": "low-rank"},
    "numpyro": {"sampler": "numpyro-nuts"},
    "mclmc": {"sampler": "mclmc"},
    "ensemble": {"sampler": "chees", "chains": 8},
    "no warm-up": {"warmup": 0},
    "stopped": {"draws": 2000, "stop_at": pelton.Target(ess=100, rhat=1.1)},
}


@QUIET
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("busy", "small_blocks")
def test_a_stored_run_has_the_draws_of_one_in_memory(kind, tmp_path):
    settings = SETTINGS | KINDS[kind]
    whole = pelton.sample(target(), **settings)
    stored = pelton.sample(target(), store=tmp_path / "run.zarr", **settings)
    assert_same_draws(whole, stored)
    assert_same_draws(whole, pelton.load(tmp_path / "run.zarr"))
    different = {name for name in whole.attrs if whole.attrs[name] != stored.attrs[name]}
    assert {name for name in different if not name.startswith("seconds")} <= {"created_at", "gradients_computed"}
    assert not list((tmp_path / "run.zarr" / ".pelton").glob("aside-*"))


def with_slow(often):
    """All kinds, of which some are in the fast suite."""
    return [pytest.param(kind, marks=[] if kind in often else pytest.mark.slow) for kind in KINDS]


@pytest.mark.long
@QUIET
@pytest.mark.parametrize("kind", with_slow({"threads", "tiles", "ensemble"}))
@pytest.mark.usefixtures("busy", "small_blocks")
def test_a_run_resumed_after_any_failed_write_has_the_unbroken_runs_draws(kind, tmp_path, monkeypatch):
    settings = SETTINGS | KINDS[kind]
    whole = pelton.sample(target(), **settings)
    written, replace = [], os.replace

    def counted(source, name):
        written.append(name)
        replace(source, name)

    monkeypatch.setattr(place.os, "replace", counted)
    pelton.sample(target(), store=tmp_path / "count.zarr", **settings)
    random.seed(kind)
    for number in [1, 2, *sorted(random.sample(range(3, len(written) + 1), 3)), len(written)]:
        path, left = tmp_path / f"run-{number}.zarr", [number]

        def full(source, name, left=left):
            left[0] -= 1
            if left[0] <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            replace(source, name)

        monkeypatch.setattr(place.os, "replace", full)
        # How often the run looks is up to the clock: one of fewer writes than the counted one is done.
        with contextlib.suppress(OutputError):
            pelton.sample(target(), store=path, **settings)
        assert not list((path / ".pelton").glob("aside-*"))
        monkeypatch.setattr(place.os, "replace", replace)
        if (path / "zarr.json").exists():
            part = pelton.load(path)
            count = part["sample_stats"].sizes["draw"]
            for name in part["posterior"].data_vars:
                draws = np.asarray(part["posterior"][name])
                assert np.array_equal(draws, np.asarray(whole["posterior"][name])[:, :count])
        resumed = pelton.resume(path, target()) if (path / ".pelton/run").exists() else None
        if resumed is not None:
            assert_same_draws(whole, resumed)
            assert_same_draws(whole, pelton.load(path))


def failing_after(calls, monkeypatch, said):
    """Lets so many calls of a run's programs through, on all threads together, and then fails as XLA does."""
    left, call = itertools.count(calls, -1), Line.call

    def broken(line, *args):
        if next(left) <= 0:
            raise jax.errors.JaxRuntimeError(said)
        call(line, *args)

    monkeypatch.setattr(Line, "call", broken)


@pytest.mark.long
@QUIET
@pytest.mark.parametrize("kind", ["threads", "vectorized"])
@pytest.mark.usefixtures("busy", "small_blocks")
def test_a_run_whose_device_fails_goes_on_with_the_unbroken_runs_draws(kind, tmp_path, monkeypatch):
    settings = SETTINGS | KINDS[kind]
    whole = pelton.sample(target(), **settings)
    calls = []
    with monkeypatch.context() as patch:
        call = Line.call
        patch.setattr(Line, "call", lambda line, *args: (calls.append(0), call(line, *args)))
        pelton.sample(target(), store=tmp_path / "count", **settings)
    # In its first call, in the warm-up, and where draws are; how many calls there are is up to the clock.
    for number in sorted({0, 2, len(calls) // 4, len(calls) // 2}):
        path = str(tmp_path / f"run-{number}")
        with monkeypatch.context() as patch:
            failing_after(number, patch, "INTERNAL: CUDA_ERROR_UNKNOWN: stream did not block host\nin detail")
            # The message ends where the runtime's first line does.
            words = rf"^cpu 0 failed during the run: INTERNAL: .* host; what was written .*resume\('{re.escape(path)}'"
            with pytest.raises(DeviceError, match=words):
                pelton.sample(target(), store=path, **settings)
        if (Path(path) / "zarr.json").exists():
            part = pelton.load(path)
            assert part.attrs["status"].startswith("UNFINISHED")
            count = part["sample_stats"].sizes["draw"]
            for name in part["posterior"].data_vars:
                kept = np.asarray(part["posterior"][name])
                assert np.array_equal(kept, np.asarray(whole["posterior"][name])[:, :count])
        assert_same_draws(whole, pelton.resume(path, target()))


def test_a_device_that_runs_out_of_memory_or_fails_without_a_store(monkeypatch):
    with monkeypatch.context() as patch:
        failing_after(1, patch, "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes.")
        with pytest.raises(ResourceError, match=r"cpu 0 ran out of memory during the run: .*fewer chains.*store=PATH"):
            pelton.sample(target(), **SETTINGS)
    failing_after(0, monkeypatch, "")
    with pytest.raises(DeviceError, match="cpu 0 failed during the run: it gave no reason; nothing of it is kept"):
        pelton.sample(target(), **SETTINGS)


@pytest.mark.long
@QUIET
@pytest.mark.parametrize("kind", ["threads", "vectorized", "ensemble", "numpyro"])
@pytest.mark.usefixtures("busy", "small_blocks")
def test_more_draws_of_a_run_are_those_of_a_longer_one(kind, tmp_path):
    settings = SETTINGS | KINDS[kind]
    longer = pelton.sample(target(), **settings | {"draws": 333})
    pelton.sample(target(), store=tmp_path / "run", **settings)
    assert_same_draws(longer, pelton.resume(tmp_path / "run", target(), draws=333))
    with pytest.raises(ArgumentError, match="333 draws a chain already; ask for at least as many, not 100"):
        pelton.resume(tmp_path / "run", target(), draws=100)
    assert_same_draws(longer, pelton.load(tmp_path / "run"))


@pytest.mark.long
@QUIET
@pytest.mark.usefixtures("busy")
def test_groups_of_a_posterior_follow_from_stored_positions(tmp_path):
    settings = SETTINGS | {"groups": ("log_likelihood", "posterior_predictive")}
    whole = pelton.sample(target(), **settings | {"draws": 200})
    pelton.sample(target(), store=tmp_path / "run", **settings)
    more = pelton.resume(tmp_path / "run", target(), draws=200)
    assert more["unconstrained_posterior"]["position"].shape == (3, 200, 5)
    for name in settings["groups"]:
        assert_same_draws(
            xr.DataTree.from_dict({name: whole[name].to_dataset()}), more.filter(lambda n, g=name: n.name == g)
        )


@pytest.mark.long
@QUIET
@pytest.mark.usefixtures("busy")
def test_models_finish_their_stored_trees(tmp_path):
    """Rates follow from the draws, groups from the rates; a batch has an axis of segments, a constant no chains."""
    names = ["a", "bé", "c", "d"]
    counts = ([9, 22, 31, 4], [138, 72, 157, 20])
    models = {
        "grid": (pelton.PartialPooling(*counts, unit=names), {"groups": ("posterior_predictive",)}),
        "segments": (pelton.PartialPooling(*counts, unit=names, segments=["x", "x", "y", "y"]), {"sampler": "nuts"}),
        "constant": (pelton.PartialPooling(*counts, unit=names, prior=pelton.FixedBeta(11.5, 48.5)), {}),
    }
    for name, (model, own) in models.items():
        settings = {"draws": 300, "chains": 2} | own
        whole = pelton.sample(model, **settings)
        stored = pelton.sample(model, store=tmp_path / name, **settings)
        assert_same_draws(whole, stored)
        longer = pelton.sample(model, **settings | {"draws": 500})
        assert_same_draws(longer, pelton.resume(tmp_path / name, model, draws=500))
        assert_same_draws(pelton.load(tmp_path / name), xr.open_datatree(tmp_path / name, engine="zarr"))
    assert az.summary(pelton.load(tmp_path / "grid"), var_names=["mu"]).shape[0] == 1


@pytest.mark.long
@QUIET
@pytest.mark.usefixtures("busy", "small_blocks")
def test_readers_see_whole_draws_while_the_run_goes_on(tmp_path, monkeypatch):
    whole = pelton.sample(target(), **SETTINGS)
    seen, publish, call = [], Store.publish, lines.Line.call

    def calls(line, *args):
        # Time for a look at each call, whatever else the machine does.
        call(line, *args)
        time.sleep(0.005)

    def looked(store, attrs):
        publish(store, attrs)
        tree = pelton.load(tmp_path / "run")
        seen.append((tree["posterior"].sizes["draw"], tree.attrs["status"]))
        assert len({tree[group].sizes["draw"] for group in ("posterior", "sample_stats")}) == 1
        for group in ("posterior", "sample_stats"):
            for name, values in tree[group].data_vars.items():
                assert np.array_equal(values, whole[group][name][:, : seen[-1][0]])

    monkeypatch.setattr(lines.Line, "call", calls)
    monkeypatch.setattr(Store, "publish", looked)
    pelton.sample(target(), store=tmp_path / "run", **SETTINGS)
    counts = [count for count, _ in seen]
    assert counts == sorted(counts)
    assert len(set(counts)) > 3
    assert seen[-2][1].startswith("UNFINISHED: 150 of 150 draws")
    assert not seen[-1][1].startswith("UNFINISHED")


@pytest.mark.long
@QUIET
@pytest.mark.usefixtures("busy", "small_blocks")
def test_what_a_power_cut_left_half_written_is_made_again(tmp_path, monkeypatch):
    """The files of the last moments lose their ends, whichever they are."""
    whole = pelton.sample(target(), **SETTINGS)
    random.seed(1)
    for number in (30, 120, 200, 10_000):
        path, names = tmp_path / f"{number}.zarr", []

        def cut(source, name, names=names, number=number, replace=os.replace):
            if len(names) >= number:
                raise OSError(errno.EIO, "power cut")
            names.append(name)
            replace(source, name)

        with monkeypatch.context() as patch:
            patch.setattr(place.os, "replace", cut)
            with contextlib.suppress(OutputError):
                pelton.sample(target(), store=path, **SETTINGS)
        since = max((at for at, name in enumerate(names) if "checkpoint" in str(name)), default=len(names) - 1)
        for name in names[since:]:
            if not str(name).endswith("/run"):
                data = Path(name).read_bytes()
                Path(name).write_bytes(data[: random.randrange(len(data))])
        assert_same_draws(whole, pelton.resume(path, target()))


@pytest.mark.long
@QUIET
@pytest.mark.usefixtures("small_blocks")
def test_damage_is_never_read_as_draws(tmp_path):
    """Of every file of a run one bit is turned, the end is cut off, or all of it is gone."""
    whole = pelton.sample(target(), store=tmp_path / "run", **SETTINGS)
    files = sorted(file for file in (tmp_path / "run").rglob("*") if file.is_file())
    random.seed(2)
    found = dict.fromkeys(("refused", "whole"), 0)
    for file in random.sample(files, 40) + [tmp_path / "run" / "zarr.json"] * 5:
        data = file.read_bytes()
        if not data:
            continue
        for damage in ("bit", "end", "gone"):
            at = random.randrange(len(data))
            if damage == "bit":
                file.write_bytes(data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :])
            elif damage == "end":
                file.write_bytes(data[:at])
            else:
                file.unlink()
            outcome = "refused"
            with contextlib.suppress(StoreError):
                assert_same_draws(whole, pelton.load(tmp_path / "run"))
                outcome = "whole"
            found[outcome] += 1
            file.write_bytes(data)
    assert found["refused"] > 40
    assert_same_draws(whole, pelton.load(tmp_path / "run"))


@QUIET
@pytest.mark.usefixtures("busy")
def test_damaged_runs_are_not_gone_on_with(tmp_path):
    pelton.sample(target(), store=tmp_path / "run", **SETTINGS)
    for name in ("checkpoint-0", "checkpoint-1"):
        file = tmp_path / "run/.pelton" / name
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StoreError, match="is damaged"):
        pelton.resume(tmp_path / "run", target(), draws=200)
    (tmp_path / "run/.pelton/run").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(StoreError, match="is damaged"):
        pelton.resume(tmp_path / "run", target(), draws=200)


@QUIET
def test_a_run_is_gone_on_with_by_its_own_model_alone(tmp_path):
    path = tmp_path / "run"
    pelton.sample(target(), store=path, **SETTINGS)
    before = pelton.load(path)
    with pytest.raises(StoreError, match="another model: its log density has another formula or other priors"):
        pelton.resume(path, target(scale=2.0), draws=200)
    with pytest.raises(StoreError, match=r"other data: y\[0\] was 0.3 and is 0.300000001"):
        pelton.resume(path, target(y=Y + 1e-9), draws=200)
    with pytest.raises(StoreError, match=r"other data: 'y' had the shape \(4,\) and has \(3,\)"):
        pelton.resume(path, target(y=Y[:3]), draws=200)
    assert_same_draws(before, pelton.load(path))
    names = ["a", "b", "c"]
    pelton.sample(pelton.PartialPooling([9, 22, 31], [138, 72, 157], unit=names), store=tmp_path / "rates", draws=200)
    with pytest.raises(StoreError, match=r"successes\[1\] was 22 and is 23"):
        pelton.resume(tmp_path / "rates", pelton.PartialPooling([9, 23, 31], [138, 72, 157], unit=names), draws=300)
    with pytest.raises(StoreError, match=r"unit\[2\] was c and is d"):
        pelton.resume(tmp_path / "rates", pelton.PartialPooling([9, 22, 31], [138, 72, 157], unit=["a", "b", "d"]))


@QUIET
def test_other_versions_are_said(tmp_path, monkeypatch):
    pelton.sample(target(), store=tmp_path / "run", **SETTINGS)
    monkeypatch.setattr("pelton.engine.identity.versions", lambda: {**versions(), "jax": "99.1"})
    with pytest.warns(PeltonWarning, match=r"jax .* is 99.1 now: the run goes on"):
        pelton.resume(tmp_path / "run", target(), draws=200)


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(source, name):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place.os, "replace", full)
    with pytest.raises(
        OutputError, match=r"cannot write the run to .*: No space left on device; what it has written so"
    ):
        pelton.sample(target(), store=tmp_path / "run", **SETTINGS)


def test_paths_that_cannot_be(tmp_path):
    with pytest.raises(StoreError, match="there is no run"):
        pelton.load(tmp_path / "none")
    with pytest.raises(StoreError, match="there is no run"):
        pelton.resume(tmp_path / "none", target())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write"):
        pelton.sample(target(), store=tmp_path / "file", **SETTINGS)
    assert (tmp_path / "file").read_text() == "mine"
    xr.Dataset({"x": ("draw", [1.0])}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(StoreError, match="no whole run of pelton"):
        pelton.load(tmp_path / "other.zarr")
    with pytest.raises(OutputError, match="there is a run"):
        pelton.sample(target(), store=tmp_path / "other.zarr", **SETTINGS)
    with pytest.raises(StoreError, match="no run of pelton that can be resumed"):
        pelton.resume(tmp_path / "other.zarr", target())
    with pytest.raises(ArgumentError, match="not its model, which is code; make the model again"):
        pelton.resume(tmp_path / "other.zarr")


@QUIET
def test_one_process_writes_a_run(tmp_path):
    path = tmp_path / "run"
    pelton.sample(target(), store=path, **SETTINGS)
    with pytest.raises(OutputError, match=r"there is a run in .* already"):
        pelton.sample(target(), store=path, **SETTINGS)
    held = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pelton.engine.place import place\n"
            "with place(sys.argv[1]).locked(): print('held', flush=True); time.sleep(60)",
            str(path),
        ],
        stdout=subprocess.PIPE,
    )
    assert held.stdout is not None
    held.stdout.readline()
    with pytest.raises(OutputError, match="another process is writing the run"):
        pelton.resume(path, target(), draws=200)
    held.kill()
    held.communicate()
    assert pelton.resume(path, target(), draws=200)["posterior"].sizes["draw"] == 200


@QUIET
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_file_system_of_fsspec(tmp_path):
    pytest.importorskip("fsspec")
    url = f"memory://{tmp_path.name}/run.zarr"
    whole = pelton.sample(target(), **SETTINGS | {"draws": 220})
    pelton.sample(target(), store=url, **SETTINGS)
    assert_same_draws(whole, pelton.resume(url, target(), draws=220))


KILLED = """
import sys, warnings
import numpy as np, numpyro, numpyro.distributions as dist, pelton
from pelton.engine import chains, journal, lines

def model(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([20]))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

warnings.simplefilter("ignore")
journal.LEAST_SECONDS, journal.COST_IN, chains.LOOK_SECONDS, lines.CHUNK_SECONDS = 0.0, 0.0, 0.01, 0.02
path, method = sys.argv[1:]
target = pelton.from_numpyro(model, np.arange(20.0))
from pathlib import Path
if Path(path, ".pelton/run").exists():
    pelton.resume(path, target)
else:
    pelton.sample(target, sampler="nuts", chains=2, warmup=300, draws=20_000, chain_method=method, store=path)
print("done", flush=True)
"""


@pytest.mark.long
@QUIET
@pytest.mark.parametrize("method", ["threads", pytest.param("vectorized", marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_has_the_unbroken_runs_draws(method, tmp_path):
    def model(y):
        x = numpyro.sample("x", dist.Normal(0, 1).expand([20]))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

    random.seed(method)
    path, kills, left = tmp_path / "run.zarr", 0, 2
    while True:
        log = tmp_path / "log"
        with log.open("w") as output:
            child = subprocess.Popen([sys.executable, "-c", KILLED, str(path), method], stdout=output)
        if left:
            began = time.monotonic()
            while not (path / ".pelton/checkpoint-1").exists() and child.poll() is None:
                assert time.monotonic() - began < 120
                time.sleep(0.01)
            time.sleep(random.uniform(0.0, 1.5) + (4.0 if kills else 0.0))
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills, left = kills + 1, left - 1
            continue
        child.wait()
        assert log.read_text() == "done\n"
        break
    posterior = pelton.from_numpyro(model, np.arange(20.0))
    settings = {"sampler": "nuts", "chains": 2, "warmup": 300, "draws": 20_000, "chain_method": method}
    assert_same_draws(pelton.sample(posterior, **settings), pelton.load(path))


def test_blocks_are_of_a_size():
    assert block_draws(1) == 1000
    assert block_draws(2**20) == 8


def test_the_store_writes_from_whole_blocks_on(tmp_path):
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"x": (("chain", "draw"), np.zeros((2, 0)))})})
    store = Store(place.place(tmp_path / "s"), tree, 10)
    with pytest.raises(ValueError, match="multiple of 10"):
        store.put("posterior", {"x": np.zeros((2, 3))}, 5, durable=False)
