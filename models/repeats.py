"""Finds a name that stands twice among those of many units, at eight bytes a name."""

from collections.abc import Callable, Hashable, Iterable

import numpy as np
import pyarrow as pa

from pelton.engine.errors import DataError

# Any odd number does; this one is the golden ratio's, of which products look random.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
# Equal hashes that are looked into, the rest being of later rows.
_SUSPECTS = 10**6


def hashes(names: pa.Array) -> np.ndarray:
    """A 64-bit number of each name [row]: equal ones for equal names, other ones for others but by a rare chance.

    Whole numbers stand for themselves; a text is sum_j (byte_j + 1) m^(j+1) modulo 2^64.

    Raises:
        DataError: names are neither text, numbers nor dates.

    >>> hashes(pa.array(["A", "B", "A"])).tolist().index(hashes(pa.array(["B"]))[0])
    1
    """
    kind = names.type
    if pa.types.is_integer(kind):
        return names.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
    if pa.types.is_floating(kind):
        return (names.cast(pa.float64()).to_numpy(zero_copy_only=False) + 0.0).view(np.uint64)
    try:
        text = names.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"names of units are text, numbers or dates, not {kind}; cast the column") from None
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    held = text.buffers()[2]
    bytes_ = np.frombuffer(held, np.uint8)[offsets[0] : offsets[-1]] if held is not None else np.zeros(0, np.uint8)
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    powers = np.cumprod(np.full(int(lengths.max(initial=0)), _MULTIPLIER))
    place = np.arange(len(bytes_)) - np.repeat(starts, lengths)
    sums = np.zeros(len(bytes_) + 1, np.uint64)
    np.cumsum((bytes_.astype(np.uint64) + np.uint64(1)) * powers[place], out=sums[1:])
    return sums[starts + lengths] - sums[starts]


def repeated_hashes(hashed: np.ndarray) -> np.ndarray:
    """The hashes that stand twice, or the first of them where they are many; sorts its argument in place.

    >>> repeated_hashes(np.array([3, 1, 3], np.uint64)).tolist()
    [3]
    """
    hashed.sort()
    equal = hashed[1:][hashed[1:] == hashed[:-1]]
    return np.unique(equal[:_SUSPECTS])


def find_repeat(
    suspects: np.ndarray, read: Callable[[], Iterable[tuple[pa.Array, int]]]
) -> tuple[Hashable, int, int] | None:
    """The first name that stands twice and the positions of its two rows, or None.

    Args:
        suspects: `repeated_hashes` of all names.
        read: the names again, in parts with the position of each part's first row, should hashes be equal: what is
            equal is then told by the names themselves.
    """
    if not len(suspects):
        return None
    seen: dict[Hashable, int] = {}
    for names, first in read():
        rows = np.flatnonzero(np.isin(hashes(names), suspects))
        for row, name in zip(rows.tolist(), names.take(pa.array(rows)).to_pylist(), strict=True):
            if name in seen:
                return name, seen[name], first + row
            seen[name] = first + row
    return None
