"""Names and numbers as people read them."""

import numpy as np
import pytest

from pelton.report.wording import Amounts, Rates, called, listed, probability, shorten, significant, visible


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("plain", "plain"),
        ("Łódź 喜剧 قناة 😀", "Łódź 喜剧 قناة 😀"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eabc", "\\u202eabc"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
        (12, "12"),
        ("back\\slash", "back\\slash"),
    ],
)
def test_visible(name, written):
    assert visible(name) == written
    assert visible(visible(name)) == written


def test_rates_show_the_decimals_that_their_uncertainty_deserves():
    assert Rates([0.03])(0.28421) == "28.4%"
    assert Rates([0.003])(0.28421) == "28.42%"
    assert Rates([3e-6])(1.23456e-4) == "0.01235%"
    assert Rates([])(0.5) == "50.0%"
    assert Rates([0.0, np.nan])(np.nan) == "–"


def test_amounts_share_their_decimals():
    write = Amounts([48e6, -12.3])
    assert write(48e6) == "48,000,000"
    assert write(-12.3, sign=True) == "−12"
    assert write(0.2, sign=True) == "0"
    assert Amounts([1.5])(1.234, sign=True) == "+1.23"


def test_words():
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert len(shorten("x" * 99, 28)) == 28
    assert shorten("short", 28) == "short"
    assert probability(0.5) == "50%"
    assert called("007", "shop") == "shop 007"
    assert called("Shop 7", "shop") == "Shop 7"
    assert listed(["a"]) == "a"
    assert listed([]) == ""
    assert significant(0.000123) == "0.000123"
    assert significant(-0.92894, 4) == "-0.9289"
    assert significant(99_999.0, 2) == "100,000"
