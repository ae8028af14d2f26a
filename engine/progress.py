"""Progress bars for long work, shown on a terminal alone."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

type Report = Callable[[int, str], None]


def is_terminal() -> bool:
    """Whether standard error is a terminal, where a moving bar helps and does no harm."""
    return sys.stderr.isatty()


@contextmanager
def progress(title: str, total: int, show: bool | None = None) -> Iterator[Report]:
    """A bar of `total` units of work; yields report(done since the last call, remark).

    Args:
        title: what is being done.
        total: units of work in all.
        show: True or False to force; None shows the bar on a terminal alone.
    """
    if not (is_terminal() if show is None else show):
        yield lambda done, remark: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=total, remark="")
        yield lambda done, remark: bars.update(task, advance=done, remark=remark)
