"""Where the arrays of a model lie in the flat position."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Layout:
    """Named arrays one after the other in one flat vector.

    Attributes:
        names: of the arrays, in their order.
        shapes: of each.

    >>> layout = Layout(("mean", "sd"), ((), (2,)))
    >>> layout.dimension
    3
    >>> layout.named(np.arange(3.0))
    {'mean': array(0.), 'sd': array([1., 2.])}
    >>> layout.flat({"sd": [1.0, 2.0], "mean": 0.0})
    array([0., 1., 2.])
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def dimension(self) -> int:
        """Length of the flat vector."""
        return sum(map(math.prod, self.shapes))

    def arrays(self, position: Any) -> list[Any]:
        """The arrays of a flat vector, in their order."""
        ends = accumulate(map(math.prod, self.shapes))
        return [
            position[end - math.prod(shape) : end].reshape(shape) for shape, end in zip(self.shapes, ends, strict=True)
        ]

    def named(self, position: Any) -> dict[str, Any]:
        """The arrays of a flat vector by name."""
        return dict(zip(self.names, self.arrays(position), strict=True))

    def flat(self, values: Mapping[str, Any]) -> np.ndarray:
        """The flat vector of arrays by name."""
        return np.concatenate([np.ravel(np.asarray(values[name], float)) for name in self.names])
