"""A mesh of several host devices: the draws of one device until rounding parts them, and the same distribution."""

import os
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import pelton
from pelton.engine.mesh import divided
from pelton.engine.precision import using
from tests import pages
from tests.statistics import assert_agrees

ON_A_MESH = """
import sys, warnings
import numpy as np, pelton

warnings.simplefilter("ignore")
kind, chains, data, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if kind == "units":
    model = pelton.PartialPooling([9, 22, 31, 40, 12], [138, 72, 157, 300, 60])
else:
    markets = pelton.simulate_media(geos=2, weeks=[40, 40], channels=1, seed=1)
    names = list(markets.frame.columns)
    panel = pelton.Panel.from_frame(markets.frame, time="date", geo="market", target="sales", media=[names[3]])
    model = pelton.MediaMix(panel)
settings = dict(sampler="nuts", chains=2, warmup=60, draws=250, keep_warmup=True, chain_method="vectorized")
found = {}
for name, mesh in (("one", None), ("mesh", pelton.Mesh(chains=chains, data=data))):
    tree = pelton.sample(model, mesh=mesh, **settings)
    variable = "mu" if kind == "units" else "sigma"
    found[name] = np.asarray(tree["posterior"][variable])
    found[name + "_first"] = np.asarray(tree["warmup_posterior"][variable])[:, :8]
    assert tree.attrs.get("mesh") == (None if mesh is None else repr(mesh))
np.savez(out, **found)
"""


@pytest.mark.long
def test_what_the_page_says_of_eight_devices():
    """Of few draws: eight devices share what cores there are."""
    (code,) = pages.blocks_for(__file__, "scaling.md")
    before = (
        "import functools, warnings, pelton\n"
        "warnings.simplefilter('ignore')\n"
        "pelton.sample = functools.partial(pelton.sample, warmup=20, draws=20)\n"
        "model = pelton.PartialPooling([9, 22, 31, 40, 12], [138, 72, 157, 300, 60])\n"
    )
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-c", before + code + "print(tree.attrs['mesh'], tree.posterior.sizes['draw'])"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, "Mesh(chains=2, data=4) 20\n"), done.stderr[-3000:]


SLOW = [pytest.param("units", 2, 2, marks=pytest.mark.slow), pytest.param("panel", 1, 2, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("kind", "chains", "data"), [("units", 1, 2), *SLOW])
def test_chains_and_data_over_devices(kind, chains, data, tmp_path):
    """Histograms that take a value more of weight zero, and two geos."""
    out = tmp_path / "draws.npz"
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={chains * data}"}
    done = subprocess.run(
        [sys.executable, "-c", ON_A_MESH, kind, str(chains), str(data), str(out)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.load(out)
    np.testing.assert_allclose(found["one_first"], found["mesh_first"], rtol=1e-6)
    if kind == "units":
        one = found["one"]
        error = one.std() / np.sqrt(one.size / 4)
        assert_agrees(found["mesh"], mean=one.mean(), truth_error=error, least_ess=100)


def test_histograms_and_units_take_rows_of_zeros():
    model = pelton.PartialPooling([9, 22, 31], [138, 72, 157])
    data, cut = divided(model.posterior(), 5)
    assert not any(cut[:2])
    assert all(cut[2:])
    assert all(np.shape(leaf)[0] % 5 == 0 for leaf, one in zip(data, cut, strict=True) if one)
    posterior: Any = model.posterior()
    with using("float64"):
        position = jnp.array([0.3, 1.2])
        padded, bare = (posterior.logdensity(position, each) for each in (data, posterior.data))
        np.testing.assert_allclose(padded, bare, rtol=1e-14)


def normal(y):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def test_what_does_not_fit_is_refused():
    target = pelton.from_numpyro(normal, np.zeros(3))
    errors = pelton.errors.ArgumentError
    with pytest.raises(errors, match=r"Mesh\(chains=64, data=1\) wants 64 devices and there are"):
        pelton.sample(target, mesh=pelton.Mesh(chains=64), chains=64)
    with pytest.raises(errors, match="cannot be divided over 2 devices: they have an axis of 3"):
        pelton.sample(target, mesh=pelton.Mesh(data=2))
    with pytest.raises(errors, match="no array to divide"):
        pelton.sample(pelton.from_numpyro(normal, np.float64(0.0)), mesh=pelton.Mesh(data=2))
    with pytest.raises(errors, match="not on threads"):
        pelton.sample(target, mesh=pelton.Mesh(), chain_method="threads")
    with pytest.raises(errors, match="more rows than the run has chains"):
        pelton.Mesh(chains=2).places([object(), object()], 1)
    with pytest.raises(errors, match="learn from one another at every step"):
        pelton.sample(target, mesh=pelton.Mesh(chains=2), sampler="chees", chains=8)
    with pytest.raises(errors, match="data of a mesh"):
        pelton.Mesh(data=0)
