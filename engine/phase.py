"""Draws of a stretch of a run, by chain and draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np


class Stage(NamedTuple):
    """A stretch of draws that chains make without learning from one another or being judged.

    Attributes:
        phase: "warmup" or "sampling".
        number: of the stage in its phase.
        begin, end: draws of the phase before it, and with it.
    """

    phase: str
    number: int
    begin: int
    end: int


@dataclass
class Phase:
    """Positions [chain, draw, (segment), d], statistics [chain, draw, (segment)] and lessons of consecutive draws."""

    positions: np.ndarray
    stats: dict[str, np.ndarray]
    lessons: Any = ()

    @classmethod
    def joined(cls, phases: Sequence["Phase"]) -> "Phase":
        """One after the other; lessons are left out."""
        return cls(
            np.concatenate([phase.positions for phase in phases], axis=1),
            {name: np.concatenate([phase.stats[name] for phase in phases], axis=1) for name in phases[0].stats},
        )

    def piece(self, draws: slice) -> "Phase":
        """Some of the draws; lessons are left out."""
        return Phase(self.positions[:, draws], {name: value[:, draws] for name, value in self.stats.items()})


def joined_rows(rows: Sequence[Any], vectorized: bool, batched: bool) -> Any:
    """Rows [(chain), (segment), draw, ...] of groups of chains as [chain, draw, (segment), ...] of all chains."""

    def join(*leaves: np.ndarray) -> np.ndarray:
        leaves = leaves if vectorized else tuple(leaf[None] for leaf in leaves)
        whole = leaves[0] if len(leaves) == 1 else np.concatenate(leaves)
        return np.moveaxis(whole, 1, 2) if batched else whole

    return jax.tree.map(join, *rows)
