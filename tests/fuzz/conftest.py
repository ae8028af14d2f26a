"""Each property has a tally, called by the first line of its docstring."""

import pytest

from tests.fuzz.tally import Tally


@pytest.fixture
def tally(request):
    """Counts what the test tries; they are kept however it ends."""
    found = Tally(request.function.__doc__.strip().splitlines()[0].rstrip("."))
    yield found
    found.save()
