"""Tally: how often each whole number occurs in a column that is read in parts."""

import numpy as np

# Cells of a dense table of counts, 8 bytes each; larger numbers are sorted instead.
DENSE_CELLS = 1 << 25
_FIRST_CELLS = 1 << 12
# Rows that are kept unsorted before they are merged into the sorted numbers.
_PENDING = 1 << 21


class Tally:
    """Distinct whole numbers and their multiplicities, in memory that grows with the distinct ones alone.

    A dense table holds numbers below 2^25. Once there is a larger one, sorted pairs of number and multiplicity do.

    Args:
        most: distinct numbers past which nothing is kept and `result` is None.

    >>> tally = Tally(most=10)
    >>> tally.add(np.array([3, 1, 3]))
    >>> tally.add(np.array([2**40, 1]))
    >>> values, counts = tally.result()
    >>> values.tolist(), counts.tolist()
    ([1, 3, 1099511627776], [2, 2, 1])
    """

    def __init__(self, most: int):
        self.most = most
        self._dense: np.ndarray | None = np.zeros(_FIRST_CELLS, np.int64)
        self._values = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._rows = 0
        self._overflowed = False

    def add(self, values: np.ndarray) -> None:
        """Counts whole numbers of at least 0, int64 [row]."""
        if self._overflowed or not len(values):
            return
        if self._dense is not None:
            largest = int(values.max())
            if largest < DENSE_CELLS:
                if largest >= len(self._dense):
                    grown = np.zeros(1 << largest.bit_length(), np.int64)
                    grown[: len(self._dense)] = self._dense
                    self._dense = grown
                np.add.at(self._dense, values, 1)
                return
            self._values = np.flatnonzero(self._dense)
            self._counts, self._dense = self._dense[self._values], None
        distinct, counts = np.unique(values, return_counts=True)
        self._pending.append((distinct, counts))
        self._rows += len(distinct)
        # Merging costs a sort of all that is known, so that it waits until as much is new.
        if self._rows > max(_PENDING, len(self._values)):
            self._merge()

    def join(self, found: tuple[np.ndarray, np.ndarray] | None) -> None:
        """Adds the `result` of another tally.

        >>> one, other = Tally(most=10), Tally(most=10)
        >>> one.add(np.array([3, 1])), other.add(np.array([3, 2**40])), one.join(other.result())
        (None, None, None)
        >>> one.result()[1].tolist()
        [1, 2, 1]
        """
        if found is None:
            self._overflow()
        if self._overflowed or found is None:
            return
        if self._dense is not None:
            self._values = np.flatnonzero(self._dense)
            self._counts, self._dense = self._dense[self._values], None
        self._pending.append(found)
        self._merge()

    def _overflow(self) -> None:
        self._overflowed, self._dense = True, None
        self._values = self._counts = np.zeros(0, np.int64)

    def _merge(self) -> None:
        parts = [(self._values, self._counts), *self._pending]
        together = np.concatenate([values for values, _ in parts])
        counts = np.concatenate([counts for _, counts in parts])
        self._pending, self._rows = [], 0
        order = np.argsort(together, kind="stable")
        together, counts = together[order], counts[order]
        starts = np.flatnonzero(np.concatenate([[True], together[1:] != together[:-1]]))
        self._values, self._counts = together[starts], np.add.reduceat(counts, starts)
        if len(self._values) > self.most:
            self._overflow()

    def result(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The distinct numbers, ascending, and how often each occurs; None where there are too many."""
        if self._dense is not None:
            values = np.flatnonzero(self._dense)
            return (values, self._dense[values]) if len(values) <= self.most else None
        if self._pending and not self._overflowed:
            self._merge()
        return None if self._overflowed else (self._values, self._counts)


def pair_key(successes: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """A whole number for each pair of counts 0 <= k <= n, dense in them: n (n + 1) / 2 + k.

    >>> pair_key(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])).tolist()
    [0, 1, 2, 5]
    """
    return trials * (trials + 1) // 2 + successes


def pair_of(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(successes, trials) of `pair_key`, exact for trials below 2^31.

    >>> n = np.array([0, 1, 2**31 - 1])
    >>> [part.tolist() for part in pair_of(pair_key(n, n))]
    [[0, 1, 2147483647], [0, 1, 2147483647]]
    """
    trials = ((np.sqrt(8.0 * key + 1.0) - 1.0) / 2.0).astype(np.int64)
    # The square root of a number past 2^53 may round across a whole number.
    trials -= trials * (trials + 1) // 2 > key
    trials += (trials + 1) * (trials + 2) // 2 <= key
    return key - trials * (trials + 1) // 2, trials
