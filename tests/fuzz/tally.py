"""How many examples each property tried, and how they ended."""

import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from pelton.engine.errors import PeltonError, PeltonWarning

# Examples a property, as a share of what it has by itself; `python -m pelton.benchmarks.reliability` raises it.
EXAMPLES = "PELTON_FUZZ_EXAMPLES"
# File to which each property adds a line of JSON.
TALLY = "PELTON_FUZZ_TALLY"


def examples(count: int) -> settings:
    """Settings of a property with so many examples, or as many times more as the environment asks for.

    The same ones in each run, unless more are asked for: then others are tried every time.
    """
    times = float(os.environ.get(EXAMPLES, "1"))
    return settings(
        max_examples=max(1, round(count * times)),
        deadline=None,
        derandomize=times == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


class Tally:
    """Counts of one property.

    Attributes:
        what: the property, in words.
        fitted: examples that went through.
        refused: examples that ended with an error of pelton, by its class.
    """

    def __init__(self, what: str):
        self.what = what
        self.fitted = 0
        self.refused: Counter[str] = Counter()

    def attempt(self, action: Callable[[], Any]) -> Any:
        """What the action gives; None where it is refused in pelton's own words. Anything else fails the test."""
        with warnings.catch_warnings():
            # Warnings of others are errors here: they too would reach the user.
            warnings.simplefilter("ignore", PeltonWarning)
            try:
                found = action()
            except PeltonError as error:
                self.refuse(type(error).__name__, str(error))
                return None
        self.fitted += 1
        return found

    def refuse(self, kind: str, message: str) -> None:
        """Counts a refusal, whose message must say something and show no innards."""
        assert len(message.strip()) > 15, repr(message)
        assert not re.search(r"Traceback|<class '|object at 0x", message), message
        self.refused[kind] += 1

    def save(self) -> None:
        """Adds the counts to the file that the environment names."""
        path = os.environ.get(TALLY)
        if path is None:
            return
        tried = self.fitted + sum(self.refused.values())
        row = {"inputs": self.what, "tried": tried, "fitted": self.fitted, "refused": dict(self.refused)}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
