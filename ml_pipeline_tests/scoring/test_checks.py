"""Each check type by itself, and hostile answers to all of them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.errors import SuiteError
from ml_pipeline.scoring.checks import MAX_EXTRACTED_CHARS, MAX_READ_CHARS, check_answer, expected_answer

NUMBER = {"type": "number", "value": 18}
CHECKS: dict[str, dict[str, Any]] = {
    "number": NUMBER,
    "variable": {"type": "number", "value": 0.5, "variable": "x"},
    "phrase": {"type": "phrase", "accept": ["blue", "dark blue"], "reject": ["red"], "about": ["box"]},
    "yes_no": {"type": "yes_no", "answer": "yes"},
    "choice": {"type": "choice", "answer": "B", "choices": {"A": "a cat", "B": "a dog"}},
    "sequence": {"type": "sequence", "items": ["1", "2"]},
    "words": {"type": "sequence", "items": ["red", "blue"], "ordered": False, "reject": ["green"]},
    "contains_all": {"type": "contains_all", "parts": ["for", "return"], "reject": ["while"]},
    "regex": {"type": "regex", "pattern": r"\bdef \w+\(", "reject": "eval"},
    "output": {"type": "output", "text": "a b"},
    "lines": {"type": "output", "text": "1\n2"},
}


@pytest.mark.parametrize(
    ("answer", "extracted"),
    [
        ("18", "18"),
        ("$18", "18"),
        ("**18**", "18"),
        ("**$18.00**", "18"),
        ("$\\boxed{18}$", "18"),
        ("\\boxed{\\text{18 apples}}", "18"),
        ("#### 18", "18"),
        ("She has 12 * 2 = 24, less 6 is 18.\n#### 18", "18"),
        ("Final answer: 18 dollars.", "18"),
        ("The final answer is:\n\n18", "18"),
        ("**Answer:** 18", "18"),
        ("Answer: $9 * 2 = $18", "18"),
        ("18 is the answer, not 17.", "18"),
        ("The answer is not 17 but 18.", "18"),
        ("Eighteen", "18"),
        ("eighteen apples are left", "18"),
        ("36/2", "18"),
        ("17 2/2", "18"),
        ("17\N{VULGAR FRACTION ONE HALF}, no: the answer is 18", "18"),
        ("1.8e1", "18"),
        ("\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT EIGHT}", "18"),
        ("الجواب هو ١٨", "18"),
        ("\u202e18\u202c", "18"),
        ("18\0", "18"),
        ("1. Add 9.\n2. Add 9 again.\n3. That makes 18.", "18"),
        ("Step 1: 9 + 9\nStep 2: it makes 18", "18"),
        ("I first said 17. Answer: 17. No, wait. Answer: 18", "18"),
        ("🎉 18 🎉", "18"),
    ],
)
def test_number_is_read(answer: str, extracted: str) -> None:
    result = check_answer(NUMBER, answer)
    assert (result.passed, result.extracted, result.expected) == (True, extracted, "18")


@pytest.mark.parametrize(
    ("answer", "extracted"),
    [
        ("-18", "-18"),
        ("\N{MINUS SIGN}18", "-18"),
        ("-$18", "-18"),
        ("$-18", "-18"),
        ("1,800", "1800"),
        ("1{,}800", "1800"),
        ("0.18%", "0.18"),
        ("1.8 percent", "1.8"),
        ("1/18", "0.05555555556"),
        ("18.5", "18.5"),
        (".18", "0.18"),
        ("18th", None),
        ("x18", None),
        ("x^18", None),
        ("18x", None),
        ("9 + 9", None),
        ("1/0", None),
        ("no idea", None),
        ("9" * 5000, None),
        ("The result is 20, not 18.", "20"),
    ],
)
def test_number_is_wrong(answer: str, extracted: str | None) -> None:
    result = check_answer(NUMBER, answer)
    assert (result.passed, result.extracted) == (False, extracted)


@pytest.mark.parametrize(
    ("check", "answer", "passed"),
    [
        ({"value": 0.34, "tolerance": 0.01}, "0.33", True),
        ({"value": 0.34, "tolerance": 0.01}, "0.32", False),
        ({"value": "1/3"}, "1/3", True),
        ({"value": "1/3"}, "2/6", True),
        ({"value": "1/3"}, "one third", True),
        ({"value": "1/3"}, "1 in 3", True),
        ({"value": "1/3"}, "0.33", False),
        ({"value": "3/8"}, "0.375", True),
        ({"value": "3/8"}, "37.5%", True),
        ({"value": "1/3", "tolerance": 0.005}, "0.33", True),
        ({"value": "1/3", "tolerance": 0.005}, "33%", True),
        ({"value": "1/3", "tolerance": 0.005}, "33.3%", True),
        ({"value": "1/3", "tolerance": 0.005}, "33.4%", False),
        ({"value": "1/3", "tolerance": 0.005}, "0.3", False),
        ({"value": "1/3", "tolerance": 0.005}, "0.331", False),
        ({"value": "1/3", "tolerance": 0.005}, "33/100", False),
        ({"value": "1/3", "tolerance": 0.005}, "1/3 = 0.33", True),
        ({"value": "1/3", "tolerance": 0.005}, "33/100 = 0.33", False),
        ({"value": "1/3", "tolerance": 0.005}, "1/2 * 2/3 = 1/3 = 0.333", True),
        ({"value": "1/3", "tolerance": 0.005}, "1/2 * 2/3 = 0.333", True),
        ({"value": "1/3", "tolerance": 0.005}, "1/3 = 0.5", False),
        ({"value": "2/3", "tolerance": 0.005}, "0.666", True),
        ({"value": "2/3", "tolerance": 0.005}, "0.668", False),
        ({"value": "-1/2"}, "-0.5", True),
        ({"value": "-2/3", "tolerance": 0.005}, "-0.666", True),
        ({"value": "50/3", "percent": True, "tolerance": 0.5}, "17%", True),
        ({"value": "50/3", "percent": True, "tolerance": 0.5}, "16.7", True),
        ({"value": "50/3", "percent": True, "tolerance": 0.5}, "16.8%", False),
        ({"value": "1/300", "tolerance": 0.005}, "3.3e-3", True),
        ({"value": "1/300", "tolerance": 0.005}, "3.4e-3", False),
        ({"value": 25, "percent": True}, "25%", True),
        ({"value": 25, "percent": True}, "25", True),
        ({"value": 25, "percent": True}, "0.25", False),
        ({"value": 0.25}, "25 %", True),
        ({"value": 2.5}, "2\N{VULGAR FRACTION ONE HALF} hours", True),
        ({"value": 2.5}, "2 1/2", True),
        ({"value": 0.25}, "1 in 4", True),
        ({"value": 0.25}, "one out of four", True),
        ({"value": 0.25}, "a quarter", True),
        ({"value": 1000000}, "1,000,000", True),
        ({"value": -3}, "x = -3", True),
        ({"value": 150}, "one hundred and fifty", True),
        ({"value": 121}, "one hundred twenty-one", True),
        ({"value": 5, "variable": "x"}, "y = 4 and x = 5, since 5 - 4 = 1", True),
        ({"value": 5, "variable": "x"}, "y = 5", False),
    ],
)
def test_number_fields(check: dict[str, Any], answer: str, passed: bool) -> None:
    assert check_answer({"type": "number", **check}, answer).passed is passed


@pytest.mark.parametrize(
    ("name", "answer", "passed"),
    [
        ("phrase", "Dark blue.", True),
        ("phrase", "bluebell", False),
        ("phrase", "The red box is not it. It is blue.", True),
        ("phrase", "Rather than red, I choose blue", True),
        ("phrase", "Blue? No. It is the red box.", False),
        ("yes_no", "Yes!", True),
        ("yes_no", "I know. Yes.", True),
        ("yes_no", "No doubt about it: yes", True),
        ("yes_no", "No way.", False),
        ("yes_no", "yesterday", False),
        ("choice", "B", True),
        ("choice", "b", True),
        ("choice", "(B) a dog", True),
        ("choice", "A good guess would be option B.", True),
        ("choice", "It is a dog.", True),
        ("choice", "A", False),
        ("choice", "A cat.", False),
        ("choice", "Both", False),
        ("sequence", "1, 2", True),
        ("sequence", "2, 1", False),
        ("sequence", "1, 2, 3", False),
        ("words", "blue and red", True),
        ("words", "red, blue, green", False),
        ("words", "red", False),
        ("contains_all", "FOR x: return", True),
        ("contains_all", "for x: while return", False),
        ("contains_all", "forge return", False),
        ("regex", "def f(x):", True),
        ("regex", "def f(x): eval(x)", False),
        ("regex", "define", False),
        ("output", "```\na b\n```", True),
        ("output", "It prints `a b`.", True),
        ("output", "a b", True),
        ("output", "ab", False),
        ("lines", "```text\n1 \n2\n```\nThat is all.", True),
        ("lines", "1\n2", True),
        ("lines", "1 2", False),
    ],
)
def test_other_types(name: str, answer: str, passed: bool) -> None:
    result = check_answer(CHECKS[name], answer)
    assert result.passed is passed, result


def test_the_prompt_tells_restated_numbers_apart() -> None:
    answer = "Out of the 20 apples she keeps 18 and not all 20"
    assert not check_answer(NUMBER, answer).passed
    assert check_answer(NUMBER, answer, prompt="She has 20 apples.").passed


def test_a_long_extract_is_cut() -> None:
    result = check_answer({"type": "output", "text": "a"}, "`" + "b" * 390 + "`")
    assert result.extracted is not None
    assert len(result.extracted) == MAX_EXTRACTED_CHARS


@pytest.mark.parametrize("check", [{}, {"type": "numbr"}, {"type": "number"}, {"type": "number", "value": "18"}])
def test_an_invalid_check_is_an_error(check: dict[str, Any]) -> None:
    with pytest.raises(SuiteError, match="check: 1 problem"):
        check_answer(check, "18")
    with pytest.raises(SuiteError):
        expected_answer(check)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("number", "18"), ("phrase", "blue or dark blue"), ("choice", "B) a dog"), ("words", "red, blue (in any order)")],
)
def test_expected_answer(name: str, expected: str) -> None:
    assert expected_answer(CHECKS[name]) == expected


HOSTILE = {
    "zeros": "0" * 100_000,
    "numbers": "1 " * 50_000,
    "sums": "1 + " * 25_000,
    "lines": "\n" * 100_000,
    "spaces": " " * 100_000,
    "stars": "*" * 100_000,
    "dots": "." * 100_000,
    "commas": "1," * 50_000,
    "answers": "answer is " * 10_000,
    "answer lines": "Answer:\n" * 12_000,
    "therefore": "so " * 33_000,
    "hashes": "####" * 25_000,
    "boxes": "\\boxed{" * 14_000,
    "fractions": "\\frac{" * 16_000,
    "words": "not the red " * 8_000,
    "colours": "red blue " * 11_000,
    "thirty": "thirty " * 14_000,
    "yes": "yes no " * 14_000,
    "letters": "B) " * 33_000,
    "backticks": "`" * 100_000,
    "fences": "```\n" * 25_000,
    "quotes": "'\"" * 50_000,
    "prints": "prints " * 14_000,
    "slashes": "1/" * 50_000,
    "minus": "-" * 100_000,
    "is the answer": "x is the answer " * 6_250,
    "because": "blue because red, " * 5_500,
    "accents": "é" * 100_000,
    "think": "<think>" * 14_000,
}


@pytest.mark.parametrize("name", ["number", "phrase", "choice", "words", "output"])
@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_are_quick(name: str, answer: str) -> None:
    started = time.process_time()
    check_answer(CHECKS[name], answer, prompt="Is it in the red box, 1 or 2?")
    assert time.process_time() - started < 10


def test_an_answer_of_the_words_of_the_question_is_quick() -> None:
    started = time.process_time()
    words = "hot ice cream sales may cause bad red skin burns soon"
    check_answer(CHECKS["yes_no"], " ".join(f"{word} " * 9 for word in words.split()) * 200, prompt=f"Do {words}?")
    assert time.process_time() - started < 10


@pytest.mark.parametrize("name", CHECKS)
def test_a_megabyte_is_quick(name: str) -> None:
    started = time.process_time()
    check_answer(CHECKS[name], "The red box holds 1 or 2 dogs. Yes, so the answer is é. " * 18_000)
    assert time.process_time() - started < 10


def test_of_a_long_answer_both_ends_are_read() -> None:
    filler = "word " * MAX_READ_CHARS
    assert check_answer(NUMBER, f"Answer: 18\n{filler}").passed
    assert check_answer(NUMBER, f"{filler}\nAnswer: 18").passed
    assert not check_answer(NUMBER, f"{filler}\nAnswer: 18\n{filler}").passed


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(CHECKS)),
    st.text(alphabet=st.characters(), max_size=60)
    | st.text(alphabet="0123456789.,-+*/=$%#\\{}()x yesnoblueredansweris:\n`'\"", max_size=80),
)
def test_any_text_is_read_or_not_but_never_fails(name: str, answer: str) -> None:
    result = check_answer(CHECKS[name], answer)
    assert result.extracted is not None or not result.passed


@given(st.integers(-10_000_000, 10_000_000))
def test_any_whole_number_is_read_back(value: int) -> None:
    for form in (
        f"{value}",
        f"{value:,}",
        f"**{value}**",
        f"The answer is {value}.",
        f"\\boxed{{{value}}}",
        f"#### {value}",
    ):
        assert check_answer({"type": "number", "value": value}, form).passed, form


@pytest.mark.parametrize("kind", CHECKS)
def test_nothing_but_thinking_passes_no_check(kind: str) -> None:
    right = "18, x = 0.5, blue, yes"
    for answer in (f"<think>{right}", f"<think>{right}</think>", f"[THINK]{right}", "<think>"):
        assert not check_answer(CHECKS[kind], answer).passed
