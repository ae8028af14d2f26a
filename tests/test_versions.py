"""The oldest versions that are tested are those that pyproject.toml promises, and their errors of draws are right."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from arviz_stats.base import array_stats
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]


def pinned(path):
    """Each package of a constraints file and its version."""
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.fixture(scope="module")
def needs():
    """What pelton and its extra for remote files need, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["remote"]]
    return {canonicalize_name(one.name): one for one in found}


def test_the_oldest_versions_are_the_lower_bounds(needs):
    oldest = pinned(ROOT / "constraints-oldest.txt")
    bounds = {
        name: [Version(part.version) for part in need.specifier if part.operator == ">="]
        for name, need in needs.items()
    }
    assert bounds == {name: [oldest.get(name)] for name in needs}
    assert oldest["jaxlib"] == oldest["jax"]


def test_the_newest_versions_are_allowed(needs):
    newest = pinned(ROOT / "constraints.txt")
    assert [name for name, need in needs.items() if not need.specifier.contains(newest[name])] == []


def test_the_sd_s_error_is_that_of_independent_normals():
    # sd / sqrt(2 n), to first order; arviz-stats before 1.3.2 has half of it.
    draws = np.random.default_rng(0).normal(0.0, 3.0, (4, 10_000))
    np.testing.assert_allclose(array_stats.mcse(draws, method="sd"), 3.0 / np.sqrt(2 * draws.size), rtol=0.05)
