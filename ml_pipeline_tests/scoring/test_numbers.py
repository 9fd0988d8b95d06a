"""Numbers as people and models write them: each read as a whole, or not at all."""
# ruff: noqa: RUF001  letters of other scripts that look like Latin ones are what is read here

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.scoring.checks import check_answer
from ml_pipeline.scoring.number_values import is_near, written_value
from ml_pipeline.scoring.number_words import word_numbers
from ml_pipeline.scoring.numbers import Number, find_numbers, variables_of
from ml_pipeline.scoring.plain_text import plain, unmarked

ZEROS = [chr(point) for point in range(0x110000) if unicodedata.decimal(chr(point), None) == 0]


def values(text: str) -> list[float]:
    shown = unmarked(plain(text))
    return [number.value for number in find_numbers(shown, variables=variables_of(shown))]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Signs
        *(("-5", -5), ("\N{MINUS SIGN}5", -5), ("- 5", -5), ("\\boxed{- 5}", -5), ("x = - 5", -5), ("-$5", -5)),
        *(("$-5", -5), ("minus 5", -5), ("negative 5", -5), ("moins 5", -5), ("负5", -5), ("マイナス5", -5), ("+5", 5)),
        # Thousands
        *(("13,000", 13000), ("13 000", 13000), ("13\u202f000", 13000), ("13\u2009000", 13000), ("13\\,000", 13000)),
        *(
            ("13{,}000", 13000),
            ("13'000", 13000),
            ("13\u2019000", 13000),
            ("1.250.000", 1250000),
            ("12,34,567", 1234567),
        ),
        *(("1,234.5", 1234.5), ("1.234,5", 1234.5), ("1 234,5", 1234.5), ("$6 000", 6000)),
        # Decimal commas
        *(("0,75", 0.75), ("3,5", 3.5), ("0,333", 0.333), ("12,50 €", 12.5)),
        # Powers of ten
        *(("3 × 10^8", 3e8), ("$3 \\times 10^{8}$", 3e8), ("3*10^8", 3e8), ("3\\cdot10^8", 3e8), ("3e8", 3e8)),
        *(
            ("3 x 10⁸", 3e8),
            ("2.5·10⁻³", 2.5e-3),
            ("1e-05", 1e-5),
            ("3*10**8", 3e8),
            ("10^{-5}", 1e-5),
            ("6.02E+23", 6.02e23),
        ),
        # Magnitude words
        *(
            ("$1.5 million", 1.5e6),
            ("2 thousand", 2000),
            ("1,5 Millionen", 1.5e6),
            ("3万", 30000),
            ("2 億", 2e8),
            ("5 crore", 5e7),
        ),
        *(("13k", 13000), ("4 bn", 4e9), ("2 млн", 2e6)),
        # Fractions and mixed numbers
        *(
            ("3/4", 0.75),
            ("\\frac34", 0.75),
            ("\\frac{3}4", 0.75),
            ("\\frac 34", 0.75),
            ("\\dfrac{3}{4}", 0.75),
            ("¾", 0.75),
        ),
        *(
            ("2\\frac{1}{2}", 2.5),
            ("$2\\tfrac12$", 2.5),
            ("2½", 2.5),
            ("2 1/2", 2.5),
            ("2 and a half", 2.5),
            ("-\\frac12", -0.5),
        ),
        *(("-1\\frac{1}{4}", -1.25), ("\\boxed{\\frac{21}{2}}", 10.5)),
        # Percents
        *(
            ("60%", 0.6),
            ("60 %", 0.6),
            ("60\\%", 0.6),
            ("60 percent", 0.6),
            ("60 Prozent", 0.6),
            ("٦٠٪", 0.6),
            ("33 1/3 %", 1 / 3),
        ),
        # Units and markup
        *(("36 cm²", 36), ("24\\text{ m}^3", 24), ("**5**", 5), ("_5_", 5), ("`5`", 5), ("5 km/h", 5), ("-6°C", -6)),
        *(("<b>5</b>", 5), ("是5。", 5), ("$x_1 = 5$", 5), ("~~4~~ 5", 5)),
    ],
)
def test_a_number_is_read_as_a_whole(text: str, value: float) -> None:
    assert values(text) == [pytest.approx(value, rel=1e-12)]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1.2.3",
            "12:15",
            "3:4",
            "2024-01-05",
            "5/6/2024",
            "1010_2",
            "1010₂",
            "0x1F",
            "12h15",
            "±5",
            "x^18",
            "x_18",
            "x18",
        ),
        *("CO2", "5th", "2x", "5π", "2√3", "1/2/3", "1/0", "v1.2", "9" * 500, "1e999", "Step 3"),
    ],
)
def test_what_is_not_understood_as_a_whole_is_unread(text: str) -> None:
    assert values(text) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *(("2,4,6,8", [2, 4, 6, 8]), ("(2,3)", [2, 3]), ("5-3", [5, 3]), ("58 -19", [58, 19]), ("8 minus 5", [8, 5])),
        *(("1. 7\n2. 8", [7, 8]), ("5k = 35, k = 7", [35, 7]), ("from -3 to -$5", [-3, -5])),
    ],
)
def test_several_numbers(text: str, found: list[float]) -> None:
    assert values(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *(
            ("forty-two", [42]),
            ("one hundred and five", [105]),
            ("two thousand five hundred", [2500]),
            ("twelve thousand", [12000]),
        ),
        *(
            ("minus five", [-5]),
            ("negative twenty-one", [-21]),
            ("three and five", [3, 5]),
            ("one, two, three", [1, 2, 3]),
        ),
        *(("a million", [1e6]), ("two and a half", [2.5]), ("three-quarters", [0.75]), ("one-in-three", [1 / 3])),
        *(("two million three hundred thousand and five", [2300005]), ("no one knows", []), ("thirty-first", [])),
        *(("nineteen hundred", [1900]), ("five eighths", [0.625])),
    ],
)
def test_number_words(text: str, found: list[float]) -> None:
    assert [word.value for word in word_numbers(text)] == pytest.approx(found)


@pytest.mark.parametrize("zero", ZEROS, ids=[f"U+{ord(zero):04X}" for zero in ZEROS])
def test_every_decimal_digit_of_unicode_is_one(zero: str) -> None:
    digits = "".join(chr(ord(zero) + digit) for digit in (1, 8, 0))
    assert check_answer({"type": "number", "value": 180}, f"Answer: {digits}").passed
    assert values(digits) == [180]


@settings(deadline=None)
@given(st.integers(0, 10**12), st.sampled_from([",", " ", "\u202f", "'", "\u00a0"]), st.booleans())
def test_any_whole_number_with_any_thousands_mark_is_read_back(value: int, mark: str, negative: bool) -> None:
    written = ("-" if negative else "") + f"{value:,}".replace(",", mark)
    assert values(f"The answer is {written}.") == [-value if negative else value]


@settings(deadline=None)
@given(
    st.integers(1, 999),
    st.integers(-30, 30),
    st.sampled_from(["{}e{}", "{} × 10^{{{}}}", "{}*10^{}", "{} \\times 10^{{{}}}"]),
)
def test_any_power_of_ten_is_read_back(digits: int, power: int, form: str) -> None:
    assert values(form.format(digits, power)) == [pytest.approx(float(f"{digits}e{power}"), rel=1e-12)]


@settings(deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="0123456789.,:'/^_-+*eE %$kM()", max_size=40))
def test_numbers_lie_in_their_text_one_after_another(text: str) -> None:
    shown = unmarked(plain(text))
    position = 0
    for number in find_numbers(shown, ordinals=True, ratios=True):
        assert position <= number.start < number.end <= len(shown)
        position = number.end


@pytest.mark.parametrize(
    ("percent", "wanted", "options", "value"),
    [
        (60, 60, {}, 60),
        (60, 0.6, {}, 0.6),
        (0.6, 0.6, {}, 0.006),
        (0.6, 60, {}, 0.6),
        (25, 25, {"percent": True}, 25),
        (0.5, 0.5, {"percent": True}, 0.5),
        (20, 20, {"prompt": "What is 10% of 200?"}, 0.2),
        (20, 20, {"prompt": "5% failed before. What percentage failed now?"}, 20),
        (100, 1, {"prompt": "What is the probability?"}, 1),
        (1, 1, {"prompt": "What percentage is left?"}, 1),
    ],
)
def test_a_percent_states_one_value_against_a_key(
    percent: float, wanted: float, options: dict[str, object], value: float
) -> None:
    number = Number(percent / 100, 0, 1, percent=True)
    assert written_value(number, wanted, **options) == pytest.approx(value)  # type: ignore[arg-type]


def test_a_key_in_millions() -> None:
    million = Number(1.5e6, 0, 1, base=1.5)
    assert written_value(million, 1.5e6) == 1.5e6
    assert written_value(million, 1.5) == 1.5
    assert written_value(million, 1.5, prompt="How many million?") == 1.5
    assert written_value(million, 1.5, prompt="How many dollars?") == 1.5e6
    assert written_value(Number(12000, 0, 1, base=12), 12) == 12000


@pytest.mark.parametrize(
    ("value", "wanted", "near"),
    [
        *(
            (9 / 60, 0.15, True),
            (9 / 59, 0.15, False),
            (9 / 61, 0.15, False),
            (1 / 3, 0.33, True),
            (1 / 3, 0.33333, True),
        ),
        *((23 / 25, 0.92, True), (22 / 25, 0.92, False), (2 / 3, 0.67, True), (3 / 4, 0.75, True)),
    ],
)
def test_a_fraction_is_held_to_the_very_value(value: float, wanted: float, near: bool) -> None:
    assert is_near(value, wanted, 0.005, exact=True) is near
    if near:
        assert is_near(value, wanted, 0.005)


@pytest.mark.parametrize(
    "text",
    [
        *("1 111 " * 17_000, "1:" * 50_000, "1.1" * 30_000, "0x" * 50_000, "1e" * 50_000, "2^" * 50_000, "1/" * 50_000),
        *(
            "minus " * 16_000,
            "\\frac{1}{2}" * 9_000,
            "\\text{" * 16_000,
            "**1**" * 20_000,
            "_1" * 50_000,
            "two thousand " * 8_000,
        ),
        *("~~1" * 30_000, "5 " + "a" * 100_000, "{" * 100_000, "^{" * 50_000, "<b>" * 30_000),
    ],
)
def test_time_is_linear_in_the_text(text: str) -> None:
    def seconds(part: str) -> float:
        started = time.process_time()
        values(part)
        list(word_numbers(part))
        return time.process_time() - started

    assert seconds(text) < 20 * seconds(text[: len(text) // 4]) + 0.5
