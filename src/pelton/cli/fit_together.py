"""`pelton fit --distributed`: the same command on every host, each with its share of the data."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from pelton.cli import show
from pelton.cli.fit_rates import Options

USER_ERROR = 2


def fit_together(
    meeting: Mapping[str, Any],
    data: str,
    options: Options,
    out: Path,
    sampling: dict[str, Any],
    manner: show.Manner,
) -> bool:
    """As `fit_streamed`, shared with other processes.

    Args:
        meeting: coordinator, processes and process, None where the cluster says them.
        data, options, out, sampling, manner: as for `fit_streamed`.
    """
    _watched()
    # The runtime's own remarks are not for the users of a command.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pelton.cli.fit_streamed import fit_streamed
    from pelton.engine.hosts import Hosts

    with Hosts.join(meeting["coordinator"], meeting["processes"], meeting["process"]) as hosts:
        return fit_streamed(data, options, out, sampling, manner=manner, hosts=hosts)


def _watched() -> None:
    """Goes on in a child, whose end this process awaits and explains.

    JAX's runtime aborts a process whose coordinator has died or never came, without a word that a user could act on.
    """
    if not hasattr(os, "fork"):
        return
    child = os.fork()
    if child == 0:
        return

    def hand_on(number: int, frame: FrameType | None) -> None:
        del frame
        os.kill(child, number)

    # Ctrl-C reaches the child by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, hand_on)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        raise typer.Exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    why = "it was killed"
    if number == signal.SIGABRT:
        why = "process 0, which all others talk through, is gone, or the processes did not meet in time"
    show.fail(
        f"this process of a distributed fit ended by {signal.Signals(number).name}: {why}; start all processes again, "
        "with --resume where a run had begun"
    )
    raise typer.Exit(USER_ERROR)
