"""`pelton fit --resume`: what it goes on with, and what it refuses."""

import errno
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

import pelton
from pelton.engine import place
from pelton.engine.lines import Line

FIT = ("fit", "example:stores", "--successes", "conversions", "--trials", "impressions", "--unit", "store")
NUTS = (*FIT, "--sampler", "nuts", "--chains", 2, "--warmup", 500, "--draws", 1000)
QUIET = pytest.mark.filterwarnings("ignore::pelton.engine.errors.ConvergenceWarning")


def broken_after(count, monkeypatch):
    """Lets so many files be written, and then none."""
    left, replace = [count], os.replace

    def full(source, name):
        left[0] -= ".pelton" in str(source) and "run.zarr" in str(source)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, name)

    monkeypatch.setattr(place.os, "replace", full)


@pytest.mark.long
@QUIET
def test_a_fit_that_was_cut_short_goes_on(run, monkeypatch):
    assert run(*NUTS, "--out", "whole").exit_code == 0
    with monkeypatch.context() as patch:
        broken_after(60, patch)
        result = run(*NUTS, "--out", "cut")
    assert result.exit_code == 2
    assert "cannot write the run to 'cut/run.zarr': No space left on device" in result.stderr
    assert not Path("cut/posterior.nc").exists()
    again = run(*NUTS, "--out", "cut")
    assert again.exit_code == 2
    assert "cut short is in 'cut/run.zarr': go on with it by --resume, or remove that folder" in again.stderr
    other = run(*NUTS[:-1], 800, "--seed", 5, "--out", "cut", "--resume")
    assert other.exit_code == 2
    assert "was begun with seed 0 and this command says 5" in other.stderr
    result = run(*NUTS, "--out", "cut", "--resume")
    assert result.exit_code == 0, result.output
    assert "run.zarr" in result.stdout
    draws = [xr.open_datatree(f"{name}/posterior.nc")["posterior"]["mu"].to_numpy() for name in ("whole", "cut")]
    assert np.array_equal(*draws)


@pytest.mark.long
@QUIET
def test_a_device_that_fails_is_said_without_a_traceback(run, monkeypatch):
    calls, call = [], Line.call

    def broken(line, *args):
        calls.append(0)
        if len(calls) > 4:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE: the device was reset")
        call(line, *args)

    monkeypatch.setattr(Line, "call", broken)
    result = run(*NUTS, "--out", "cut")
    assert result.exit_code == 2
    assert "cpu 0 failed during the run: UNAVAILABLE: the device was reset; what was written by then" in result.stderr
    assert "the same command with --resume goes on with it" in result.stderr
    assert "Traceback" not in result.output
    monkeypatch.setattr(Line, "call", call)
    assert run(*NUTS, "--out", "cut", "--resume").exit_code == 0


@pytest.mark.long
@QUIET
def test_more_draws_and_another_run(run):
    assert run(*NUTS, "--out", "out").exit_code == 0
    assert run(*NUTS[:-1], 1500, "--out", "out", "--resume").exit_code == 0
    assert pelton.load("out/run.zarr")["posterior"].sizes["draw"] == 1500
    # Without --resume the results of a finished run are replaced, the run among them.
    assert run(*NUTS, "--out", "out", "--seed", 4).exit_code == 0
    assert pelton.load("out/run.zarr").attrs["seed"] == 4


def test_refusals(refuses):
    assert "there is no run to go on with in 'none/run.zarr'" in refuses(*NUTS, "--out", "none", "--resume")
    assert "--resume goes not with an approximation" in refuses(*FIT, "--approximate", "laplace", "--resume")


def test_independent_draws_need_no_run(run):
    assert run(*FIT, "--out", "out").exit_code == 0
    assert not Path("out/run.zarr").exists()
