"""Refusals of runs that will not fit, before anything is computed."""

import tracemalloc

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import pelton
from pelton.engine import memory

MODEL = ([9, 22, 31], [138, 72, 157])


@pytest.mark.filterwarnings("ignore::pelton.engine.errors.ConvergenceWarning")
def test_a_run_too_long_for_the_memory_is_refused_with_what_would_fit(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1e6)
    with pytest.raises(pelton.errors.ResourceError, match=r"take at most (\d+) draws a chain") as caught:
        pelton.sample(pelton.PartialPooling(*MODEL), sampler="nuts", draws=10**7)
    fit = int(str(caught.value).split("take at most ")[1].split()[0])
    assert 0 < fit < 10_000
    tree = pelton.sample(pelton.PartialPooling(*MODEL), sampler="nuts", draws=fit, warmup=500)
    assert tree["posterior"].sizes["draw"] == fit


def test_a_program_too_large_for_the_device_is_refused(monkeypatch):
    values = iter([1e12, *[10.0] * 10])
    monkeypatch.setattr(memory, "free_memory", lambda: next(values))
    with pytest.raises(pelton.errors.ResourceError, match="chains in one program want"):
        pelton.sample(pelton.PartialPooling(*MODEL), sampler="nuts", chain_method="vectorized")


def wide(y):
    numpyro.sample("y", dist.Normal(numpyro.sample("x", dist.Normal(0, 1).expand([2000])), 1.0), obs=y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pelton.engine.errors.ConvergenceWarning")
def test_the_estimate_is_near_what_a_run_holds():
    """NumPy's allocations at their peak, as tracemalloc counts them, beside the estimate."""
    target, held = pelton.from_numpyro(wide, np.zeros(2000)), {}
    for draws in (50, 550):
        tracemalloc.start()
        pelton.sample(target, draws=draws, warmup=20, chains=2, metric="diagonal", precision="float64")
        held[draws] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    position, variables = memory.draw_bytes(target, 8)
    estimate = 2 * 500 * (memory.POSITION_COPIES * position + memory.VARIABLE_COPIES * variables)
    assert 0.5 * estimate < held[550] - held[50] < 1.2 * estimate


def test_free_memory_is_a_number_of_this_machine():
    assert 2**20 < memory.free_memory() < np.inf
