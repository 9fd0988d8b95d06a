"""What a number that an answer states is worth against a check's: percents, magnitude words, tolerances."""

from __future__ import annotations

import re
from fractions import Fraction

from ml_pipeline.scoring.numbers import Number
from ml_pipeline.suites.schema import NumberCheck

PERCENT_ASKED = re.compile(r"\b(?:percent|percentages?|per cent|pct)\b|(?:what|how many)[ ]*%", re.IGNORECASE)
_PERCENT = re.compile(r"%|\bper ?cent")
_SHARE_ASKED = re.compile(r"\b(?:probability|chances?|likelihood|odds|fraction|proportion|ratio)\b", re.IGNORECASE)
_LARGE = 1e6


def written_value(number: Number, wanted: float, *, percent: bool = False, prompt: str = "") -> float:
    """The value of a number in the unit of the wanted one.

    "60%" is 60 where a percentage is wanted, or a bare number from 1 on, as GSM8K's marking and lm-evaluation-harness
    read it; and 0.6 against a number below 1, where the prompt asks for a share, or where it has percents of its own
    but asks for none ("What is 10% of 200?"). "1.5 million" is 1.5 where the wanted number is in millions: below one
    million, with a prompt that says so or none.
    """
    if number.percent:
        return number.value * 100 if _states_percent(wanted, percent, prompt) else number.value
    if number.base and abs(wanted) < _LARGE <= abs(number.value / number.base):
        unit = f"{number.value / number.base:.0f}".count("000")
        if not prompt or re.search(
            ("", "", "million", "billion|milliard", "trillion")[min(unit, 4)], prompt, re.IGNORECASE
        ):
            return number.base
    return number.value


def agrees(check: NumberCheck, number: Number, prompt: str = "") -> tuple[bool, float]:
    """Whether a number that was read is the one that a check wants, and its value in the check's unit.

    Against a fraction ("3/8") a fraction must be the very number, and a decimal must be it rounded or cut to the digits
    that it has, within the tolerance.
    """
    value = written_value(number, check.wanted, percent=check.percent, prompt=prompt)
    if not check.is_fraction:
        return is_near(value, check.wanted, check.tolerance, exact=number.exact), value
    scale = value / number.value if number.value else 1.0
    return number.states(check.wanted / scale, check.tolerance / scale), value


def is_near(value: float, wanted: float, tolerance: float, *, exact: bool = False) -> bool:
    """Whether a value is within the tolerance of the wanted one.

    A tolerance is for the rounding of decimals. A fraction (`exact`) was not rounded, so it must be the wanted number
    itself, or what that number was rounded from: 1/3 is 0.33, but 9/59 is not 0.15, which is 3/20.
    """
    # The margin takes up the rounding of binary fractions, so that 0.33 is within 0.01 of 0.34.
    margin = 1e-12 * max(1.0, abs(wanted))
    if exact:
        tolerance = min(tolerance, max(1e-6, _rounding(wanted)))
    return abs(value - wanted) <= tolerance + margin


def _states_percent(wanted: float, percent: bool, prompt: str) -> bool:
    if percent:
        return True
    if abs(wanted) < 1 or _SHARE_ASKED.search(prompt):
        return False
    return not _PERCENT.search(prompt) or PERCENT_ASKED.search(prompt) is not None


def _rounding(wanted: float) -> float:
    """Half a unit of the last decimal place of a number that looks rounded; 0 for one that is a simple fraction."""
    written = repr(wanted)
    if "e" in written or "." not in written or wanted.is_integer():
        return 0.0
    places = len(written.partition(".")[2])
    simple = Fraction(written).denominator < 10**places
    return 0.0 if simple else 0.5 * 10.0**-places
