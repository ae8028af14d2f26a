"""What every test of an adapter is marked with: other libraries' warnings are theirs, ours still fail a test."""

import pytest

MARKS = [
    pytest.mark.adapters,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error::pelton.engine.errors.PeltonWarning"),
    # A type of 64 bits asked for in a program of 32.
    pytest.mark.filterwarnings("error:Explicitly requested dtype"),
]
REASON = "PyMC is not installed; `make test-adapters` sets up an environment that has it"
