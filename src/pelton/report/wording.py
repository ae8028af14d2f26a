"""How names and numbers are written for people, in a terminal, a picture or a page."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np

# Embedding, override and isolate marks reorder the text around them; in a list of names they mislead.
_DIRECTION = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def visible(name: Any) -> str:
    r"""A name with control characters spelt out, so that nothing obeys them.

    Terminal escapes, line breaks, marks that change the direction of writing and lone surrogates become \x1b,
    \n, \u202e and the like; everything else stays.

    >>> visible("plain, \x1b[31mred")
    'plain, \\x1b[31mred'
    """
    text = str(name)
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or ord(character) in _DIRECTION
        else character
        for character in text
    )


def shorten(text: str, length: int) -> str:
    """The text, its middle left out where it is longer than that: both ends tell long names apart.

    >>> shorten("department 12, left shelf", 15)
    'departm…t shelf'
    """
    if len(text) <= length:
        return text
    head = (length - 1 + 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


class Rates:
    """Writes rates as percentages, all with the decimals that their uncertainty deserves.

    >>> Rates([0.02, 0.04])(0.2842), Rates([0.0006])(0.19178)
    ('28.4%', '19.178%')
    """

    def __init__(self, sds: Iterable[float]):
        """Args: sds: standard deviations of what will be written, as rates."""
        known = np.asarray([sd for sd in sds if np.isfinite(sd) and sd > 0])
        typical = 100 * float(np.median(known)) if known.size else 1.0
        self.decimals = int(np.clip(1 - np.floor(np.log10(typical) + 1e-9), 1, 8)) if typical < 1 else 1

    def __call__(self, rate: float) -> str:
        return self.number(rate) + ("" if np.isnan(rate) else "%")

    def number(self, rate: float) -> str:
        """Without the percent sign; a dash where there is no rate."""
        return "–" if np.isnan(rate) else f"{100 * rate:.{self.decimals}f}"

    def interval(self, low: float, high: float) -> str:
        """Both ends.

        >>> Rates([0.02]).interval(0.24, 0.331)
        '24.0% to 33.1%'
        """
        return f"{self(low)} to {self(high)}"


class Amounts:
    """Writes sums of money or of anything else, all with the decimals that the largest needs.

    >>> Amounts([48_000_000, 961.12])(961.12), Amounts([3.0])(-3.14159, sign=True)
    ('961', '−3.14')
    """

    def __init__(self, values: Iterable[float]):
        sizes = np.abs(np.asarray(list(values), dtype=float))
        largest = float(np.max(sizes, initial=0.0, where=np.isfinite(sizes)))
        self.decimals = 0 if largest >= 1000 or largest == 0 else 2 if largest >= 1 else 4

    def __call__(self, value: float, sign: bool = False) -> str:
        text = f"{abs(value):,.{self.decimals}f}"
        if not text.strip("0.,"):
            return text
        return ("−" if value < 0 else "+" if sign else "") + text


def called(name: Any, noun: str) -> str:
    """A unit's name inside a sentence: a bare number gets its noun.

    >>> called("Comedy", "category"), called(12, "store")
    ('Comedy', 'store 12')
    """
    return f"{noun} {name}" if re.fullmatch(r"[0-9.-]+", str(name)) else str(name)


def probability(value: float) -> str:
    """A probability that never claims certainty.

    >>> probability(0.123), probability(1.0), probability(0.9999), probability(0.0001)
    ('12%', '>99%', '>99%', '<1%')
    """
    if np.isnan(value):
        return "–"
    return ">99%" if value > 0.99 else "<1%" if value < 0.01 else f"{100 * value:.0f}%"


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "unit"), count(25_000, "unit")
    ('1 unit', '25,000 units')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listed(words: list[str]) -> str:
    """Words in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def significant(value: float, digits: int = 3) -> str:
    """A positive number to so many digits, without an exponent where a reader can do without.

    >>> significant(13.87), significant(123456.0), significant(3.2e9)
    ('13.9', '123,000', '3.2e+09')
    """
    if not np.isfinite(value) or value == 0:
        return f"{value:g}"
    magnitude = int(np.floor(np.log10(abs(value))))
    if not -4 <= magnitude < 7:
        return f"{value:.{digits}g}"
    rounded = round(value, digits - 1 - magnitude)
    return f"{rounded:,.{max(0, digits - 1 - magnitude)}f}"
