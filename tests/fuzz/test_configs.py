"""Config files: each is taken, or refused in pelton's own words."""

import json
import tomllib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.models.media_config import read_config
from tests.fuzz.columns import HOSTILE
from tests.fuzz.tally import examples
from tests.models.media_configs import WHOLE

WEEKS = 20


@pytest.fixture(scope="module")
def frame():
    """A table that fits the config as it stands."""
    source, parts = np.random.default_rng(0), []
    for geo in ("AT", "CH"):
        part = pd.DataFrame({"country": geo, "week": pd.date_range("2024-01-01", periods=WEEKS, freq="W-MON")})
        for name in ("clicks", "search_cost", "tv", "price", "sales"):
            part[name] = source.gamma(2.0, 50.0, WEEKS)
        parts.append(part.assign(people=9e6, holiday=(np.arange(WEEKS) == 5) * 1))
    return pd.concat(parts, ignore_index=True)


values = st.recursive(
    st.one_of(
        st.sampled_from(["", " ", "none", "auto", "endless", "all", "Beta(", "Beta(1e999, -1)", "__import__('os')"]),
        st.sampled_from(["Normal(0)", "HalfNormal(-1)", "LogNormal('a', 1)", "Beta(2, 6)", "Gamma(0, 0)", "price"]),
        st.sampled_from(["Normal(nan, 1)", "Uniform(2, 1)", "Dirichlet([1, 2])", "Normal(0, 1" * 200, "tv", "hill"]),
        st.sampled_from(HOSTILE),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.sampled_from([0, 1, -1, 3, 10**9, 2**31, 1e308, -1e308, 1e-320, float("nan"), float("inf"), 0.5]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["name", "a", "tv", "effect"]), inner, max_size=3)
    ),
    max_leaves=4,
)


def _written(value):
    """A value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    # JSON leaves DEL as it is, which TOML forbids.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _places(tree, here=()):
    for key, value in tree.items():
        yield (*here, key)
        if isinstance(value, dict):
            yield from _places(value, (*here, key))


@st.composite
def texts(draw):
    """A config with a few things changed, as bytes."""
    tree = tomllib.loads(WHOLE)
    # Its file is none that there is.
    del tree["lift_tests"]
    for _ in range(draw(st.integers(1, 2))):
        *above, key = draw(st.sampled_from(sorted(_places(tree))))
        table = tree
        for name in above:
            table = table[name]
        change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
        if change == "remove":
            del table[key]
        else:
            known = st.sampled_from(["l_max", "kind", "changepoints", "scale", "order", "draws", "seed", "alpha_sd"])
            junk = st.sampled_from([*HOSTILE[:8], ""])
            table[key if change == "replace" else draw(st.one_of(known, junk))] = draw(values)
    content = "\n".join(f"{json.dumps(name)} = {_written(value)}" for name, value in tree.items()).encode()
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(content)))
        cut = draw(st.integers(0, 20))
        content = content[:at] + draw(st.binary(max_size=4)) + content[at + cut :]
    return content


@examples(150)
@given(content=texts())
def test_any_config_is_taken_or_refused(tally, tmp_path_factory, frame, content):
    """Configs given to `read_config`, `Config.panel` and `Config.model`."""
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(content)

    def read():
        config = read_config(path)
        return config.model(config.panel(frame))

    tally.attempt(read)


@examples(60)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode(errors="replace"))))
def test_any_bytes_are_refused_as_a_config(tally, tmp_path_factory, content):
    """Random bytes given to `read_config`."""
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(content)
    tally.attempt(lambda: read_config(path))
