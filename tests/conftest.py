"""What every test run has: shape checks on, the cases folder, quiet devices."""

import gc
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

# Before ArviZ, which loads it lazily and leaves it half loaded where a submodule is asked for first.
import numpyro  # noqa: F401
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook looks it up by name)

# Shapes stand in the types; every test run checks them.
install_import_hook(["pelton.kernels", "pelton.engine", "pelton.models"], "tests.typecheck.typecheck")

import pytest  # noqa: E402

# What is imported stays, and traced programs are many objects: looking for garbage took a seventh of the tests' time.
gc.freeze()
gc.set_threshold(100_000, 50, 50)

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of third-party data and exact references, where it is at hand."""
    if not CASES.is_dir():
        pytest.skip(f"the reference cases are not at {CASES}")
    return CASES


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Compiled programs of a module go with it: those of the whole suite take gigabytes."""
    yield
    import jax

    jax.clear_caches()
