"""What is shown of a run while it goes on."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pelton.engine.progress import Report
from pelton.engine.running import Running

# Draws a chain that are taken into the figures together, and parameters that are watched at the most.
PIECE = 25
MOST_PARAMETERS = 1000


@runtime_checkable
class Rows(Protocol):
    """Draws of some chains: how many, how many diverged, and the position, Info and lesson of each from the base-th on.

    They stand in the store as [(chain), (segment), draw, ...].
    """

    done: np.ndarray
    diverging: int
    store: Any
    base: int


class Watch:
    """Reports draws, divergences, step size, and the worst R-hat and ESS so far, of chains that others advance.

    R-hat and ESS are those of `Running`, of at most 1,000 unconstrained coordinates: they say how a run comes along,
    and the tree's diagnostics say how it went.
    """

    def __init__(self, report: Report, phase: str, groups: Sequence[Rows], chain_axis: bool, batch: int):
        self.report, self.phase, self.groups = report, phase, groups
        self.chain_axis, self.batch = chain_axis, batch
        self.shown = 0
        self.taken = 0
        self.running: Running | None = None

    def look(self) -> None:
        """Reports what has been done since the last look."""
        made = sum(int(rows.done.sum()) for rows in self.groups) // self.batch
        new, self.shown = made - self.shown, made
        self.report(new, self._remark() if self.report.shown else "")

    def _remark(self) -> str:
        if self.phase != "sampling" or any(rows.store is None for rows in self.groups):
            return self.phase
        parts = [self.phase]
        infos = [(rows.store[1], rows.done) for rows in self.groups]
        diverging = sum(rows.diverging for rows in self.groups)
        parts += [f"{diverging} divergences"] if diverging else []
        steps = [float(np.max(info.step_size[..., 0])) for info, done in infos if done.min() > 0]
        parts += [f"step {np.median(steps):.2g}"] if steps and max(steps) > 0 else []
        self._take()
        if self.running is not None:
            rhat, ess = np.asarray(self.running.rhat()), np.asarray(self.running.ess())
            parts += [f"R-hat {np.nanmax(rhat):.3f}"] if np.any(np.isfinite(rhat)) else []
            parts += [f"ESS {np.nanmin(ess):.0f}"] if np.any(np.isfinite(ess)) else []
        return ", ".join(parts)

    def _take(self) -> None:
        """The draws that all chains have, in pieces of one length, so that one program serves."""
        least = min(int(rows.done.min()) for rows in self.groups)
        # What has been released before it was looked at is passed over.
        self.taken = max(self.taken, *(rows.base for rows in self.groups), 0)
        while self.taken + PIECE <= least:
            leaves = [
                rows.store[0][..., self.taken - rows.base : self.taken - rows.base + PIECE, :] for rows in self.groups
            ]
            whole = np.concatenate(leaves) if self.chain_axis else np.stack(leaves)
            # [chain, (segment), draw, d] to [chain, draw, parameter].
            whole = np.moveaxis(whole, -2, 1).reshape(len(whole), PIECE, -1)
            thin = -(-whole.shape[-1] // MOST_PARAMETERS)
            piece = whole[..., ::thin]
            if self.running is None:
                self.running = Running.empty(piece.shape[0], piece.shape[-1])
            self.running = self.running.updated(piece)
            self.taken += PIECE
