"""The example tables that come with pelton: small, real in shape, and enough to try every command."""

from importlib.resources import files
from typing import TYPE_CHECKING

from pelton.engine.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd

# name: what it holds, and its columns of units, trials and successes.
EXAMPLES = {
    "categories": ("25 content categories of a streaming service", ("category", "impressions", "clicks")),
    "stores": ("40 simulated stores, with their true rates", ("store", "impressions", "conversions")),
}


def text(name: str) -> str:
    """The table as CSV.

    Raises:
        UnknownNameError: no such example; the message lists the nearest.

    >>> text("stores").splitlines()[0]
    'store,impressions,conversions,true_rate'
    """
    if name not in EXAMPLES:
        raise UnknownNameError("example", name, EXAMPLES)
    return (files("pelton.examples") / f"{name}.csv").read_text(encoding="utf-8")


def load(name: str) -> "pd.DataFrame":
    """The table as a DataFrame.

    Raises:
        UnknownNameError: as for `text`.

    >>> load("categories").shape
    (25, 3)
    """
    import io

    import pandas as pd

    return pd.read_csv(io.StringIO(text(name)))
