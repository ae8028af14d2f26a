"""The page of sources calls pelton's kernels from a PyMC model."""

import jax
import numpy as np
import pytest

from tests import pages
from tests.adapters.marks import MARKS, REASON

pm = pytest.importorskip("pymc", reason=REASON)
pytestmark = MARKS


def test_kernels_in_a_pymc_model():
    """The gradient that PyMC takes through `wrap_jax`, against central differences of its log density."""
    random = np.random.default_rng(0)
    scope = {"spend": random.gamma(2, 0.5, (52, 2)), "sales": random.normal(1, 0.1, 52)}
    (code,) = pages.blocks_for(__file__, "sources.md")
    before = jax.config.jax_enable_x64
    try:
        exec(compile(code, "sources.md", "exec"), scope)
        model = scope["model"]
        names = [variable.name for variable in model.value_vars]
        assert len(names) == 4
        point = {name: 0.3 + 0.1 * random.standard_normal(2) for name in names}
        density, gradient = model.compile_logp(), model.compile_dlogp()
        found = gradient(point)
        step = 1e-5
        differences = []
        for name in names:
            for element in range(2):
                ends = []
                for sign in (1, -1):
                    moved = {key: value.copy() for key, value in point.items()}
                    moved[name][element] += sign * step
                    ends.append(float(density(moved)))
                differences.append((ends[0] - ends[1]) / (2 * step))
        np.testing.assert_allclose(found, differences, rtol=1e-6)
    finally:
        jax.config.update("jax_enable_x64", before)
