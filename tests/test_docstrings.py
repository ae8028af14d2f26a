"""Every public name says what it takes, what it raises, and shows an example that runs (`make doctest` runs them)."""

import inspect
import re

import pytest

import pelton

NAMES = [name for name in pelton.__all__ if not inspect.ismodule(getattr(pelton, name))]
MODULES = [name for name in pelton.__all__ if inspect.ismodule(getattr(pelton, name))]


def _source(function):
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""  # of a dataclass, written by none of us


@pytest.mark.parametrize("name", NAMES)
def test_public_name_is_documented(name):
    found = getattr(pelton, name)
    text = inspect.getdoc(found) or ""
    assert ">>>" in text, f"pelton.{name} has no example"
    for parameter in inspect.signature(found).parameters:
        if not parameter.startswith("_"):
            assert re.search(rf"\b{parameter}\b", text), f"pelton.{name} does not say what {parameter} is"
    made = (
        [vars(found)[at] for at in ("__init__", "__post_init__") if at in vars(found)]
        if inspect.isclass(found)
        else [found]
    )
    raises = any(re.search(r"^ +raise ", _source(one), re.MULTILINE) for one in made)
    if raises:
        assert re.search(r"^Raises:|errors it shares", text, re.MULTILINE), f"pelton.{name} does not say what it raises"


@pytest.mark.parametrize("name", MODULES)
def test_public_module_is_documented(name):
    module = getattr(pelton, name)
    assert inspect.getdoc(module)
    for inner, found in vars(module).items():
        if not inner.startswith("_") and inspect.isclass(found) and found.__module__ == module.__name__:
            assert inspect.getdoc(found), f"pelton.{name}.{inner}"
