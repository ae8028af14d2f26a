"""Tables of counts: each is fitted, or refused in pelton's own words."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

import pelton
from tests.fuzz.columns import labelled, names, whole, wild
from tests.fuzz.tally import examples

CHEAP = pelton.FixedBeta(2, 8)
PRIORS = [None, CHEAP, pelton.Bda()]


@st.composite
def tables(draw):
    """A table of counts, mostly with something odd about it, and how to read it."""
    size = draw(st.sampled_from([0, 1, 2, 3, 5, 8]))
    roles = {
        "k": whole(size, 0, 20),
        "n": whole(size, 20, 2**15 - 1),
        "unit": labelled(size),
        "group": st.lists(st.sampled_from(["a", "b"]), min_size=size, max_size=size).map(pd.Series),
        "x": st.lists(st.floats(-9, 9), min_size=size, max_size=size).map(lambda x: pd.Series(x, dtype=float)),
        "z": st.lists(st.integers(0, 1), min_size=size, max_size=size).map(lambda x: pd.Series(x, dtype=int)),
    }
    odd = draw(st.lists(st.sampled_from(list(roles)), max_size=2))
    columns = {name: draw(wild(size) if name in odd else roles[name]) for name in roles}
    how = {"successes": "k", "trials": "n"}
    how |= {key: name for key, name in (("unit", "unit"), ("groups", "group")) if draw(st.booleans())}
    if "groups" not in how and draw(st.booleans()):
        how["segments"] = "group"
    elif draw(st.booleans()):
        how["covariates"] = draw(st.sampled_from([["x"], ["x", "z"], ["x", "x"], []]))
    renamed = draw(st.dictionaries(st.sampled_from(list(roles)), names, max_size=2))
    frame = pd.concat(columns, axis=1)
    # As objects: pandas' own strings cannot hold a lone surrogate.
    frame.columns = pd.Index([renamed.get(name, name) for name in frame.columns], dtype=object)
    how = {
        key: [renamed.get(one, one) for one in value] if key == "covariates" else renamed.get(value, value)
        for key, value in how.items()
    }
    shape = draw(st.sampled_from(["plain"] * 6 + ["twice", "levels", "index", "lacking", "arrow"]))
    if shape == "twice":
        frame = frame.iloc[:, [*range(6), draw(st.integers(0, 5))]]
    elif shape == "levels" and all(str(name).isprintable() for name in frame.columns):
        # pandas itself cannot make levels of a lone surrogate.
        frame.columns = pd.MultiIndex.from_tuples([(name, draw(st.sampled_from(["", "k"]))) for name in frame.columns])
    elif shape == "index" and size:
        frame.index = pd.Index(draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)))
    elif shape == "lacking":
        frame = frame.drop(columns=frame.columns[0])
    return frame, how, draw(st.sampled_from(PRIORS))


@examples(250)
@given(drawn=tables())
def test_any_table_of_counts_is_read_or_refused(tally, drawn):
    """Tables of counts given to `PartialPooling.from_frame`."""
    frame, how, prior = drawn
    model = tally.attempt(lambda: pelton.PartialPooling.from_frame(frame, prior=prior, **how))
    if model is None:
        return
    counts = model.counts
    assert len(counts) == len(frame) > 0
    assert np.all((counts.successes >= 0) & (counts.successes <= counts.trials))
    assert model.covariates is None or np.isfinite(model.standardized).all()
    model.posterior()


@st.composite
def valid(draw):
    """Counts that can be fitted, from tiny to huge."""
    size = draw(st.integers(1, 6))
    trials = draw(st.lists(st.sampled_from([0, 1, 2, 50, 10**6, 2**31 - 1]), min_size=size, max_size=size))
    share = draw(st.lists(st.sampled_from([0.0, 1e-6, 0.3, 1.0]), min_size=size, max_size=size))
    successes = [int(n * rate) for n, rate in zip(trials, share, strict=True)]
    return pd.DataFrame({"k": successes, "n": trials, "unit": draw(labelled(size))})


@examples(10)
@given(frame=valid())
def test_any_valid_table_is_sampled(tally, frame):
    """Valid tables of counts sampled with few draws."""

    def sampled():
        model = pelton.PartialPooling.from_frame(frame, successes="k", trials="n", unit="unit")
        return pelton.sample(model, chains=2, warmup=20, draws=20, progress=False)

    tree = tally.attempt(sampled)
    if tree is not None:
        rate = tree["posterior"]["rate"]
        assert rate.sizes["unit"] == len(frame)
        assert np.isfinite(rate).all()
        assert ((rate >= 0) & (rate <= 1)).all()
