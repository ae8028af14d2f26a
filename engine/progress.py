"""Progress bars for long work, shown on a terminal alone."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def is_terminal() -> bool:
    """Whether standard error is a terminal, where a moving bar helps and does no harm."""
    return sys.stderr.isatty()


@dataclass(frozen=True)
class Report:
    """Takes notice of progress: report(units done since the last call, remark).

    Attributes:
        shown: whether anybody sees it, so that nothing is worked out for nobody.
    """

    shown: bool = False
    update: Callable[[int, str], None] = lambda done, remark: None

    def __call__(self, done: int, remark: str) -> None:
        """So many units more are done."""
        self.update(done, remark)


@contextmanager
def progress(title: str, total: int, show: bool | None = None) -> Iterator[Report]:
    """A bar of `total` units of work.

    Args:
        title: what is being done.
        total: units of work in all.
        show: True or False to force; None shows the bar on a terminal alone.
    """
    if not (is_terminal() if show is None else show):
        yield Report()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=total, remark="")
        yield Report(True, lambda done, remark: bars.update(task, advance=done, remark=remark))
